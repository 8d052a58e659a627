"""Priors p(z): where the latent vectors of new pictures come from."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class StandardNormal:
    """The prior of the tutorial, N(0, I) in `latent_dim` dimensions: it has nothing to fit."""

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def sample(self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """Draw n latent vectors, (n, D), on the CPU; `temperature` multiplies the standard deviation."""
        return temperature * torch.randn(n, self.latent_dim, generator=generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute log p(z) in nats, (B, D) -> (B,)."""
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)
