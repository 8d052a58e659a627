"""Make several processes train one model as a single process would: they share noise and batch statistics.

Each process has its share of every batch. Gradients are averaged by accelerate; here are the noise of the latent vectors,
which every process draws for the whole batch, and batch normalisation, whose mean and variance are those of the whole batch.
(torch's SyncBatchNorm is for GPUs only.)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor, nn

from vae.data import Share
from vae.model import VAE


def act_as_one(model: VAE, accelerator: Accelerator) -> None:
    """Let a model train on its process's share of a batch as on a part of the whole; nothing to do for one process.

    To be called before the optimizer is made, whose weights these are, and after copies that no other process has.
    """
    if accelerator.num_processes == 1:
        return
    share = Share(accelerator.process_index, accelerator.num_processes)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                shared = SharedBatchNorm2d(child.num_features).to(child.weight.device)
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared)

    def draw_noise(model: VAE, args: tuple[Tensor], options: dict[str, Any]) -> tuple[tuple[Tensor], dict[str, Any]]:
        (x,), samples = args, options.get("samples", 1)
        shape = samples, share.processes * len(x), model.config.latent_dim
        whole = torch.randn(shape, device=x.device)  # as one process draws it
        return args, options | {"eps": share.of(whole, dim=1).flatten(0, 1)}

    model.register_forward_pre_hook(draw_noise, with_kwargs=True)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the mean and variance of the whole batch, of which all processes have equal parts."""

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> same shape
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        values = x.float()
        middle = self.running_mean.clone()  # near the mean: of large squares the difference would be rounding alone
        own = values.mean((0, 2, 3)) - middle
        statistics = torch.stack([own, values.var((0, 2, 3), correction=0) + own.square()])  # (2, C)
        mean, square = _Average.apply(statistics)
        variance = (square - mean.square()).clamp(min=0)
        mean = mean + middle
        with torch.no_grad():
            count = torch.distributed.get_world_size() * values[:, 0].numel()
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


class _Average(torch.autograd.Function):
    """The mean over all processes."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return _average(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        # What each process's loss is to the mean is to the parts of all of them: the sum over processes, by their number.
        return _average(gradient)


def _average(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
