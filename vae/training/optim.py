"""Muon, the optimizer of the convolutions: it moves all directions of a weight matrix by the same amount.

A gradient, as a matrix, has a few large singular values and many small ones, and so has what Adam makes of it: most of
a step goes into a few directions. Muon replaces the momentum by the nearest matrix with orthogonal rows or columns, in
which all singular values are 1, so that rare directions are learnt as fast as common ones.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, https://kellerjordan.github.io/posts/muon/
(torch.optim.Muon takes matrices only, no convolutions.)
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

# Newton-Schulz: a polynomial aX + b(XXᵀ)X + c(XXᵀ)²X which, applied five times, moves singular values from (0, 1] to
# between about 0.7 and 1.2: nearer to 1 would take more rounds, and gain nothing (Jordan et al. 2024).
COEFFICIENTS = 3.4445, -4.7750, 2.0315
ROUNDS = 5
MOMENTUM = 0.95
# Root mean square of an update at learning rate 1, which is about that of AdamW's, so that both can share one learning
# rate (Liu et al., "Muon is Scalable for LLM Training", 2025, https://arxiv.org/abs/2502.16982, section 2.2).
UPDATE_RMS = 0.2


class Muon(torch.optim.AdamW):
    """AdamW, but for the groups of parameters that are given as {"params": [...], "orthogonal": True}.

    Each of those, of two dimensions or more, is taken for the matrix `weight.flatten(1)`.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move all parameters along their gradients. This uses up the gradients of the orthogonal groups.

        closure: computes the loss and the gradients anew, if given, as for every optimizer of torch; the loss is returned.
        """
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            if group.get("orthogonal"):
                self._step_orthogonal(group)
        super().step()  # which passes over what has no gradient
        return loss

    def _step_orthogonal(self, group: dict[str, Any]) -> None:
        same_shape: defaultdict[torch.Size, list[Any]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is not None:
                same_shape[weight.shape].append(weight)
        for weights in same_shape.values():  # all of a shape at once, which is quicker
            looks_ahead = []
            for weight in weights:
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"]
                momentum.lerp_(weight.grad, 1 - MOMENTUM)
                looks_ahead.append(weight.grad.lerp(momentum, MOMENTUM).flatten(1))  # Nesterov's
            updates = orthogonalize(torch.stack(looks_ahead))
            step_size = group["lr"] * UPDATE_RMS * math.sqrt(max(updates.shape[1:]))
            for weight, update in zip(weights, updates, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(update.view(weight.shape), alpha=step_size)
                weight.grad = None


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices, (B, N, M), near to 1 (about 0.7 to 1.2) and leave their singular vectors as they are.

    Singular values of less than a thousandth of the matrix's norm do not get there.
    """
    a, b, c = COEFFICIENTS
    x = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-12)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x if matrices.shape[1] <= matrices.shape[2] else x.mT
