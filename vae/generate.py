"""What a trained VAE is for: new pictures from seeds, and pictures given back through the bottleneck."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import torch
from torch import Tensor

from vae.model import VAE
from vae.prior import Prior

CHUNK = 256  # pictures decoded or encoded at once, which bounds the memory


@torch.no_grad()
def latents(model: VAE, seeds: Iterable[int], *, prior: Prior | None = None, temperature: float = 1.0) -> Tensor:
    """Draw one latent vector for each seed, (n, D), on the model's device; arguments as in `generate`."""
    prior = model.prior if prior is None else prior
    dimension = model.config.latent_dim
    if prior.latent_dim not in (None, dimension):
        raise ValueError(f"the prior has {prior.latent_dim} dimensions, the model's latent vectors have {dimension}")
    # Every seed has a generator of its own, and it runs on the CPU: neither the neighbours nor the device matter.
    rows = [torch.randn(1, dimension, generator=torch.Generator().manual_seed(_whole(seed))) for seed in seeds]
    if not rows:
        return model.log_scale.new_empty(0, dimension)
    return prior.from_noise(torch.cat(rows), temperature).to(model.log_scale.device)


def _whole(seed: int) -> int:
    if not hasattr(seed, "__index__") or not 0 <= operator.index(seed) < 2**63:
        raise ValueError(f"a seed must be a whole number from 0 to 2**63 - 1, got {seed!r}")
    return operator.index(seed)


@torch.no_grad()
def decode(model: VAE, z: Tensor) -> Tensor:
    """Decode latent vectors of any number, (n, D) -> (n, C, H, W) in [0, 1], in chunks and without gradients."""
    if len(z) == 0:
        return z.new_empty(0, model.config.channels, model.config.image_size, model.config.image_size)
    return torch.cat([model.decode(part) for part in z.split(CHUNK)])


def generate(model: VAE, seeds: Iterable[int], *, prior: Prior | None = None, temperature: float = 1.0) -> Tensor:
    """Make one new picture for each seed, (n, C, H, W) in [0, 1]; the model should be in `eval()`.

    The same seed gives the same picture, alone or among others.
    seeds: whole numbers from 0 to 2**63 - 1; anything else raises ValueError.
    prior: where latent vectors are drawn from, see `vae.prior`; None is the model's own. One of another dimension
        raises ValueError.
    temperature: multiplies the noise that the prior works on; below 1 pictures get more typical and less varied.
    """
    return decode(model, latents(model, seeds, prior=prior, temperature=temperature))


@torch.no_grad()
def reconstruct(model: VAE, x: Tensor) -> Tensor:
    """Encode pictures, (B, C, H, W) in [0, 1], and decode the posterior mean: same shape and range."""
    if len(x) == 0:
        return x
    return torch.cat([model.decode(model.encode(part).mode()) for part in x.split(CHUNK)])
