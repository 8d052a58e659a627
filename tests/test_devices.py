"""What is computed in double precision works where a device has none, as Apple's: it is then computed on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vae import GaussianMixture, interpolate
from vae.evaluate.metrics import active_units, frechet_distance, latent_use, precision_recall


class Apple(Tensor):
    """A tensor on a device that is no CPU and has no float64; what is made of it is one, too."""

    def double(self) -> Tensor:  # type: ignore[override]
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self) -> Tensor:  # type: ignore[override]
        return self.as_subclass(Tensor)  # type: ignore[arg-type]


def mixture(z: Tensor) -> Tensor:
    fitted = GaussianMixture.fit(z, 2).calibrate(z[:10])
    return fitted.log_prob(z)


USES: dict[str, Callable[[Tensor], Any]] = {
    "slerp": lambda z: interpolate(z[0], z[1], torch.linspace(0, 1, 5)),
    "lerp": lambda z: interpolate(z[0], z[1], torch.linspace(0, 1, 5), "lerp"),
    "straight": lambda z: interpolate(z[0], 2 * z[0], torch.linspace(0, 1, 5)),
    "frechet": lambda z: frechet_distance(z[:20], z[20:]),
    "precision": lambda z: precision_recall(z[:20], z[20:]),
    "active": active_units,
    "latent use": lambda z: latent_use(z, torch.zeros_like(z), z),
    "mixture": mixture,
}


@pytest.mark.parametrize("name", USES)
def test_it_needs_no_double_precision_of_the_device(name: str) -> None:
    z = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    expected = USES[name](z)
    found = USES[name](z.as_subclass(Apple))  # type: ignore[arg-type]
    if isinstance(found, Tensor):
        found = found.as_subclass(Tensor)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
