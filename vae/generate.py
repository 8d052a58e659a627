"""Use a trained VAE: generate pictures from seeds, reconstruct pictures, and score how likely they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from vae.images import check_range
from vae.loss import importance_weighted_bound
from vae.model import VAE, DiagonalGaussian, check_latents, check_pictures
from vae.prior import Prior, noise

CHUNK = 256  # pictures at once, which bounds the memory


def generate(
    model: VAE,
    seeds: Iterable[int],
    *,
    prior: Prior | None = None,
    temperature: float = 1.0,
    where: Mapping[str, str | int] | None = None,
) -> Tensor:
    """Make one new picture for each seed, (n, C, H, W) in [0, 1].

    The same seed gives the same picture, alone or among others.
    seeds: whole numbers from 0 to 2**63 - 1; anything else raises ValueError.
    prior: where latent vectors are drawn from, see `vae.prior`; None is the model's own. One of another dimension
        raises ValueError.
    temperature: multiplies the noise that the prior works on, a finite number, else ValueError; below 1 pictures get more
        typical and less varied.
    where: attributes that the pictures should have, such as {"digit": 7}; instead of a prior, and only for a model
        trained with labels. Raises ValueError if it has no such attribute or value.
    """
    if where is not None:
        if prior is not None:
            raise ValueError("give a prior or where, not both")
        if model.directions is None:
            raise ValueError("this model knows no attributes: its training pictures had no labels")
        prior = model.directions.prior_where(where)
    return decode(model, latents(model, seeds, prior=prior, temperature=temperature))


@torch.no_grad()
def latents(model: VAE, seeds: Iterable[int], *, prior: Prior | None = None, temperature: float = 1.0) -> Tensor:
    """Draw one latent vector for each seed, (n, D), on the model's device; arguments as in `generate`."""
    prior = model.prior if prior is None else prior
    dimension = model.config.latent_dim
    if prior.latent_dim not in (None, dimension):
        raise ValueError(f"the prior has {prior.latent_dim} dimensions, the model's latent vectors have {dimension}")
    if not math.isfinite(temperature):
        raise ValueError(f"temperature must be a finite number, got {temperature}")
    eps = noise(seeds, dimension)
    return (prior.from_noise(eps, temperature) if len(eps) else eps).to(model.log_scale.device)


@torch.no_grad()
def decode(model: VAE, z: Tensor) -> Tensor:
    """Decode latent vectors of any number, (n, D) -> (n, C, H, W) in [0, 1], in chunks and without gradients."""
    check_latents(z, model.config)
    if len(z) == 0:
        return z.new_empty(0, model.config.channels, model.config.image_size, model.config.image_size)
    with evaluating(model):
        return torch.cat([model.decode(part) for part in z.split(CHUNK)])


@torch.no_grad()
def encode(model: VAE, x: Tensor) -> DiagonalGaussian:
    """Encode pictures of any number, (n, C, H, W) in [0, 1], in chunks and without gradients: their posteriors, (n, D).

    Raises ValueError on pictures of another shape or type, or with values beyond [0, 1].
    """
    check_pictures(x, model.config)
    check_range(x)
    if len(x) == 0:
        empty = x.new_empty(0, model.config.latent_dim)
        return DiagonalGaussian(empty, empty)
    with evaluating(model):
        parts = [model.encode(part) for part in x.split(CHUNK)]
    return DiagonalGaussian(torch.cat([part.mean for part in parts]), torch.cat([part.logvar for part in parts]))


def reconstruct(model: VAE, x: Tensor) -> Tensor:
    """Encode pictures, (B, C, H, W) in [0, 1], and decode the posterior mean: same shape and range."""
    return decode(model, encode(model, x).mode())


@torch.no_grad()
def score(model: VAE, x: Tensor, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
    """Bound log p(x) of pictures, (n, C, H, W) in [0, 1], under N(0, I): (n,) in nats, higher is more like the training set.

    samples: 1 gives the ELBO, more a tighter bound (`importance_weighted_bound`).
    generator: of the noise; by default the same for every call, so that the same pictures in the same order get the same
        scores.
    Raises ValueError as `encode` does.
    """
    check_pictures(x, model.config)
    check_range(x)
    generator = generator or torch.Generator(x.device).manual_seed(0)
    with evaluating(model):
        return importance_weighted_bound(model, x, samples, generator=generator)


def typicality(model: VAE, x: Tensor) -> Tensor:
    """Score how typical pictures are: log p(z) + log q(z|x) at the mean of q, in nats, under the model's own prior.

    (n, C, H, W) -> (n,). A model may reconstruct pictures well that are unlike its training set: digits are simple for
    a model of garments, and their ELBO is high. But the encoder puts them where no garment lies, so log p(z) is low. It
    is also low for detailed garments, whose posteriors are narrow: log q(z|x) makes up for that.
    """
    posterior = encode(model, x)
    device = next(iter(model.prior.buffers()), posterior.mean).device
    return model.prior.log_prob(posterior.mean.to(device)) + posterior.log_prob(posterior.mean).to(device)


@contextmanager
def evaluating(model: VAE) -> Iterator[None]:
    """Put a model into `eval()`, so that batch normalisations neither change nor look at the batch, and back again."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()
