"""What moves the weights: Muon and AdamW in one optimizer, the learning rate's schedule, the average of the weights.

A gradient, as a matrix, has a few large singular values and many small ones, and so has what Adam makes of it: most of
a step goes into a few directions. Muon replaces the momentum by the nearest matrix with orthogonal rows or columns, in
which all singular values are 1, so that rare directions are learnt as fast as common ones.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, https://kellerjordan.github.io/posts/muon/
(torch.optim.Muon takes matrices only, no convolutions.)
"""

from __future__ import annotations

import copy
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from vae.model import VAE, ResidualBlock
from vae.prior import Prior

# --- Muon for convolutions, AdamW for all else -----------------------------------------------------------------------

# Newton-Schulz: a polynomial aX + b(XXᵀ)X + c(XXᵀ)²X which, applied five times, moves singular values from (0, 1] to
# between about 0.7 and 1.2: nearer to 1 would take more rounds, and gain nothing (Jordan et al. 2024).
COEFFICIENTS = 3.4445, -4.7750, 2.0315
ROUNDS = 5
MOMENTUM = 0.95
# Root mean square of an update at learning rate 1, which is about that of AdamW's, so that both can share one learning
# rate (Liu et al., "Muon is Scalable for LLM Training", 2025, https://arxiv.org/abs/2502.16982, section 2.2).
UPDATE_RMS = 0.2
BETAS = 0.9, 0.99  # of AdamW
EPS = 1e-8
WEIGHT_DECAY = 0.01


class MuonAdamW(torch.optim.Optimizer):
    """Muon for groups of parameters given as {"params": [...], "muon": True}, AdamW for all others.

    One optimizer, so that they share a learning rate and fp16's scaler of gradients. A parameter of Muon's has two
    dimensions or more, and is taken for the matrix `weight.flatten(1)`.

    lr: a number; or a tensor, (), on the parameters' CUDA device, with which no step waits for the device: a CUDA graph can
        capture one, and the next replay reads what `lr.fill_` has written.
    """

    def __init__(self, params: Any, lr: float | Tensor = 1e-3, weight_decay: float = WEIGHT_DECAY) -> None:
        capturable = isinstance(lr, Tensor)
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "muon": False, "capturable": capturable})
        for group in self.param_groups:  # now, not at the first step: a graph goes on with the tensors that it has seen
            for weight in group["params"]:
                self.state[weight] = (
                    {"momentum": torch.zeros_like(weight)}
                    if group["muon"]
                    else {
                        "step": torch.zeros((), device=weight.device if capturable else "cpu"),
                        "exp_avg": torch.zeros_like(weight),
                        "exp_avg_sq": torch.zeros_like(weight),
                    }
                )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move all parameters that have a gradient along it.

        closure: computes the loss and the gradients anew, if given, as for every optimizer of torch; the loss is returned.
        """
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if group["muon"]:
                self._step_muon(weights, group["lr"], group["weight_decay"])
            else:
                self._step_adamw(weights, group["lr"], group["weight_decay"], group["capturable"])
        return loss

    def _step_muon(self, all_weights: list[Any], lr: float | Tensor, weight_decay: float) -> None:
        same_shape: defaultdict[torch.Size, list[Any]] = defaultdict(list)
        for weight in all_weights:
            same_shape[weight.shape].append(weight)
        for weights in same_shape.values():  # all of a shape at once, which is quicker
            looks_ahead = []
            for weight in weights:
                momentum = self.state[weight]["momentum"]
                momentum.lerp_(weight.grad, 1 - MOMENTUM)
                looks_ahead.append(weight.grad.lerp(momentum, MOMENTUM).flatten(1))  # Nesterov's
            updates = orthogonalize(torch.stack(looks_ahead))
            step_size = lr * (UPDATE_RMS * math.sqrt(max(updates.shape[1:])))
            for weight, update in zip(weights, updates, strict=True):
                weight.mul_(1 - lr * weight_decay)
                if isinstance(step_size, Tensor):  # which `alpha` doesn't take
                    weight.addcmul_(update.view(weight.shape), step_size, value=-1)
                else:
                    weight.sub_(update.view(weight.shape), alpha=step_size)

    def _step_adamw(self, weights: list[Any], lr: float | Tensor, weight_decay: float, capturable: bool) -> None:
        states = [self.state[weight] for weight in weights]
        adamw(
            weights,
            [weight.grad for weight in weights],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            capturable=capturable,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=weight_decay,
            eps=EPS,
            maximize=False,
        )


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices, (B, N, M), near to 1 (about 0.7 to 1.2) and keep their singular vectors.

    Singular values of less than a thousandth of the matrix's norm do not get there.

    Each round multiplies X by a polynomial P of S = XXᵀ, and so S by P twice, as both commute. The rounds can do without X,
    which is wide, where S is small: the product of their P is what X is multiplied by, once.
    """
    a, b, c = COEFFICIENTS
    x = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-12)
    square = x @ x.mT
    identity = torch.eye(square.shape[1], dtype=x.dtype, device=x.device)
    product = identity
    for _ in range(ROUNDS):
        polynomial = a * identity + b * square + c * square @ square
        product = polynomial @ product
        square = polynomial @ square @ polynomial
    x = product @ x
    return x if matrices.shape[1] <= matrices.shape[2] else x.mT


def make_optimizer(parts: Iterable[nn.Module]) -> MuonAdamW:
    """Make the optimizer of all parameters of parts: Muon for the convolutions of residual blocks, AdamW for the others.

    Its learning rate is 0, on CUDA a tensor, until `set_learning_rate` sets it.
    """
    muon: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for part in parts:
        blocks = [module for module in part.modules() if isinstance(module, ResidualBlock)]
        convolutions = {id(weight) for block in blocks for weight in block.parameters() if weight.ndim == 4}
        for weight in part.parameters():
            (muon if id(weight) in convolutions else others).append(weight)
    device = others[0].device
    lr = torch.zeros((), device=device) if device.type == "cuda" else 0.0
    return MuonAdamW([{"params": muon, "muon": True}, {"params": others}], lr)


# --- the learning rate -----------------------------------------------------------------------------------------------

WARMUP = 0.03  # part of the run in which the learning rate rises


def schedule(progress: float) -> float:
    """Return the part of the peak learning rate due at a progress from 0 to 1: a linear rise, then half a cosine."""
    if progress < WARMUP:
        return 0.01 + 0.99 * progress / WARMUP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARMUP) / (1 - WARMUP))))


def ramp(progress: float, length: float) -> float:
    """Return a weight that rises in a line from 0 to 1 over the first part, `length`, of the run; 0 is at once."""
    return min(1.0, progress / length if length else 1.0)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


# --- the average of the weights --------------------------------------------------------------------------------------

EMA_DECAY = 0.999  # the average is over about the last 1,000 steps
EMA_WARMUP = 10  # steps; at first, when the weights are still random, the average moves by more


class EMA(nn.Module):
    """An exponential moving average of all weights and buffers of a model, and of a prior that is learned with it.

    It begins at the initial weights. Counters, which are no floating-point numbers, are copied.
    """

    steps: (
        Tensor  # () of averages taken, the initial weights being the first; on the CPU, where reading it costs nothing
    )
    share: Tensor  # () of the next weights in the average; on their device

    def __init__(self, parts: nn.ModuleList) -> None:
        super().__init__()
        self.parts = copy.deepcopy(parts).requires_grad_(False).eval()
        self.register_buffer("steps", torch.tensor(1))
        self.register_buffer("share", next(parts.parameters()).new_zeros(()), persistent=False)
        if len(parts) > 1:
            self.model.prior = cast(Prior, self.parts[1])

    @property
    def model(self) -> VAE:
        """The averaged model."""
        return cast(VAE, self.parts[0])

    def set_decay(self) -> None:
        """Set the decay of the next update, and count it: what only the CPU knows, and a CUDA graph can't."""
        step = int(self.steps)
        self.steps += 1
        self.share.fill_(1 - min(EMA_DECAY, step / (EMA_WARMUP + step)))

    @torch.no_grad()
    def update(self, parts: nn.ModuleList) -> None:
        """Move the average towards the weights and buffers of parts."""
        averages = itertools.chain(self.parts.parameters(), self.parts.buffers())
        values = itertools.chain(parts.parameters(), parts.buffers())
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, self.share)
            else:
                average.copy_(value)
