"""A normalizing flow of coupling layers, fitted to latent vectors or trained together with a model."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from vae.prior.base import Prior, StandardNormal

MIN_STD = 1e-2  # of a latent dimension
FLOW_BATCH = 512
FLOW_EPOCHS = 100  # at most, over the latents that a flow is fitted to: more, over a few, learns them by heart
MAX_LOG_SCALE = 2.0  # a coupling layer stretches by e**2 at the most, so that no layer can overflow


class Coupling(nn.Module):
    """Shift and scale one half of a vector by amounts that a small network computes from the other half, which is kept.

    Both directions take one pass, and the log-determinant is a sum (Dinh, Sohl-Dickstein & Bengio, "Density
    estimation using Real NVP", ICLR 2017, https://arxiv.org/abs/1605.08803).
    """

    def __init__(self, latent_dim: int, width: int) -> None:
        super().__init__()
        self.halves = [latent_dim // 2, latent_dim - latent_dim // 2]
        self.network = nn.Sequential(
            *(nn.Linear(self.halves[0], width), nn.SiLU()),
            *(nn.Linear(width, width), nn.SiLU()),
            nn.Linear(width, 2 * self.halves[1]),
        )
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)  # at first, nothing is moved

    def shift_and_log_scale(self, half: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = self.network(half).chunk(2, dim=1)
        return shift, MAX_LOG_SCALE * torch.tanh(raw / MAX_LOG_SCALE)

    def from_noise(self, eps: Tensor) -> Tensor:
        """Turn a vector nearer to the noise into one nearer to the data, (B, D) -> (B, D)."""
        kept, moved = eps.split(self.halves, dim=1)
        shift, log_scale = self.shift_and_log_scale(kept)
        return torch.cat([kept, moved * log_scale.exp() + shift], dim=1)

    def to_noise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `from_noise`; the second tensor, (B,), is the logarithm of the determinant of the undoing."""
        kept, moved = z.split(self.halves, dim=1)
        shift, log_scale = self.shift_and_log_scale(kept)
        return torch.cat([kept, (moved - shift) * torch.exp(-log_scale)], dim=1), -log_scale.sum(dim=1)


def permute(z: Tensor) -> Tensor:
    """Permute each row, odd positions first, so that successive layers move different halves."""
    return torch.cat([z[:, 1::2], z[:, 0::2]], dim=1)


def unpermute(z: Tensor) -> Tensor:
    """Undo `permute`."""
    half = z.shape[1] // 2
    back = torch.empty_like(z)
    back[:, 1::2], back[:, 0::2] = z[:, :half], z[:, half:]
    return back


class Flow(Prior):
    """A stack of coupling layers, each moving half of the vector: an exact density, and one pass in each direction.

    Temperature multiplies the noise that goes in. As a module whose log_prob is differentiable in its own parameters,
    it can also be trained together with a VAE, in the place of N(0, I).
    """

    mean: Tensor  # (D,) and
    std: Tensor  # (D,) of the data, taken off before the first layer

    def __init__(self, latent_dim: int, layers: int, width: int) -> None:
        super().__init__()
        if latent_dim < 2:
            raise ValueError(f"a flow needs two latent dimensions or more, got {latent_dim}")
        self.latent_dim, self.width = latent_dim, width
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))
        layer_list = nn.ModuleList(Coupling(latent_dim, width) for _ in range(layers))
        self.layers = cast(list[Coupling], layer_list)  # which it is to the reader

    def from_noise(self, eps: Tensor, temperature: float = 1.0) -> Tensor:
        z = temperature * eps.to(self.mean)
        for layer in self.layers:
            z = permute(layer.from_noise(z))
        return z * self.std + self.mean

    def log_prob(self, z: Tensor) -> Tensor:
        eps, log_det = (z.to(self.mean.dtype) - self.mean) / self.std, -self.std.log().sum()
        for layer in reversed(self.layers):
            eps, change = layer.to_noise(unpermute(eps))
            log_det = log_det + change
        return StandardNormal().log_prob(eps) + log_det

    @classmethod
    def fit(cls, z: Tensor, layers: int = 16, width: int = 128, steps: int = 3000, seed: int = 0) -> Flow:
        """Fit a flow to samples of the aggregate posterior, (N, D), by maximum likelihood on their device.

        steps: of batches of FLOW_BATCH, at most: fewer for less than FLOW_EPOCHS of them.
        Raises ValueError if there are fewer than two vectors, or numbers that are not finite.
        """
        if z.ndim != 2 or len(z) < 2:
            raise ValueError(f"a flow is fitted to two or more latent vectors, (N, D), got shape {(*z.shape,)}")
        if not z.isfinite().all():
            raise ValueError("a flow is fitted to finite latent vectors, got some with NaN or infinity")
        z = z.detach().float()
        steps = min(steps, math.ceil(FLOW_EPOCHS * len(z) / FLOW_BATCH))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            flow = cls(z.shape[1], layers, width)
        flow.mean.copy_(z.mean(dim=0))
        flow.std.copy_(z.std(dim=0).clamp(min=MIN_STD))
        flow.to(z.device)
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(flow.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
        for _ in range(steps):
            batch = torch.randint(len(z), (FLOW_BATCH,), generator=generator).to(z.device)
            loss = -flow.log_prob(z[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(flow.parameters(), max_norm=5.0)
            optimizer.step()
            schedule.step()
        return flow.requires_grad_(False)
