"""What a prior is, and the simplest one, N(0, I)."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def noise(seeds: Iterable[int], latent_dim: int) -> Tensor:
    """Draw the standard normal noise of each seed, (n, latent_dim), on the CPU: a seed gives the same row anywhere.

    Raises ValueError if a seed is no whole number from 0 to 2**63 - 1, or seeds are not several.
    """
    if not isinstance(seeds, Iterable):
        raise ValueError(f"seeds must be a list of whole numbers, got {seeds!r:.100}")
    rows = [torch.empty(0, latent_dim, dtype=torch.float32, device="cpu")]  # whatever torch's defaults are
    for seed in seeds:  # each with a generator of its own, on the CPU: neither its neighbours nor the device matter
        try:
            number = operator.index(seed)
        except TypeError:  # also of a tensor of no whole number, which has an __index__
            number = -1
        if not 0 <= number < 2**63:
            raise ValueError(f"a seed must be a whole number from 0 to 2**63 - 1, got {seed!r:.100}")
        generator = torch.Generator().manual_seed(number)
        rows.append(torch.randn(1, latent_dim, generator=generator, dtype=torch.float32, device="cpu"))
    return torch.cat(rows)


class Prior(nn.Module, ABC):
    """A distribution of latent vectors, written as a map that makes them of standard normal noise, row by row.

    So the noise of one seed becomes the same latent vector, alone or among others. `latent_dim`, D, is None where any
    will do. Everything is float32, on the device that the module was moved to.
    """

    latent_dim: int | None

    @abstractmethod
    def from_noise(self, eps: Tensor, temperature: float = 1.0) -> Tensor:
        """Turn standard normal noise into latent vectors, (B, D) -> (B, D); `temperature` multiplies the noise."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Compute log p(z) in nats, (B, D) -> (B,), differentiable."""

    def forward(self, z: Tensor) -> Tensor:
        """Compute `log_prob`, by the name that lets accelerate train a prior on many devices; always in float32."""
        with torch.autocast(z.device.type, enabled=False):
            return self.log_prob(z.float())

    def sample(self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """Draw n latent vectors, (n, D), from noise of the CPU. Raises ValueError if the dimension is not known."""
        if self.latent_dim is None:
            raise ValueError(f"{type(self).__name__}() has no dimension: give it latent_dim to sample without a model")
        eps = torch.randn(n, self.latent_dim, generator=generator, dtype=torch.float32, device="cpu")
        return self.from_noise(eps, temperature)


class StandardNormal(Prior):
    """The prior of the tutorial, N(0, I): it has nothing to fit. `latent_dim` is only needed to `sample`."""

    def __init__(self, latent_dim: int | None = None) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def from_noise(self, eps: Tensor, temperature: float = 1.0) -> Tensor:
        return temperature * eps

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)
