"""Fit priors and directions to the latent space of a trained model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch

from vae.attributes import AttributeModel, AttributePrior, fit_attributes
from vae.data.specs import Pictures
from vae.evaluate.measure import encode_images
from vae.files import MAX_PRIOR_NUMBERS
from vae.model import VAE, DiagonalGaussian
from vae.prior import Flow, GaussianMixture, Prior

MAX_HELD_OUT = 2000  # training pictures: a tenth of them is held out, and no more than this
FLOW_DRAWS = 4  # samples of each posterior that a flow is fitted to; for a mixture one is enough


# --- priors ----------------------------------------------------------------------------------------------------------


class FittedPrior(NamedTuple):
    """A prior, and the mean log-likelihood, in nats, of latent vectors of pictures held out from training."""

    name: str
    prior: Prior
    held_out: float


def default_num_held_out(pictures: int) -> int:
    """Return how many of the training pictures, the last ones, train.py holds out by default."""
    return min(MAX_HELD_OUT, math.ceil(pictures / 10))


def fit_priors(
    model: VAE, pictures: Pictures, num_held_out: int, components: Iterable[int] = (100,)
) -> list[FittedPrior]:
    """Fit mixtures of so many components, a flow and, if pictures have labels, `AttributePrior` to encoded pictures.

    The last num_held_out training pictures, which train.py held out, too, calibrate the mixtures and rank the priors:
    the one under which their latent vectors are likeliest comes first.
    """
    posterior = encode_images(model, pictures.images)
    generator = torch.Generator().manual_seed(0)
    draws = [posterior.sample(generator) for _ in range(FLOW_DRAWS)]
    z, held_out = draws[0][:-num_held_out], draws[0][-num_held_out:]

    def mixture(k: int) -> Prior:
        return GaussianMixture.fit(z, k).calibrate(held_out)

    fits: dict[str, Callable[[], Prior]] = {}
    for k in components:
        if k < len(z) and GaussianMixture.numbers(z.shape[1], k) <= MAX_PRIOR_NUMBERS:
            fits[f"mixture-{k}"] = partial(mixture, k)
    if z.shape[1] > 1:
        fits["flow"] = partial(Flow.fit, torch.cat([draw[:-num_held_out] for draw in draws]))
    if 0 < len(pictures.attributes) <= z.shape[1]:
        known = DiagonalGaussian(posterior.mean[:-num_held_out], posterior.logvar[:-num_held_out])
        named = pictures._replace(labels=pictures.labels[:-num_held_out])
        fits["attributes"] = lambda: AttributePrior(_fit_directions(known, named))
    fitted = []
    for name, fit in fits.items():
        prior = fit()
        fitted.append(FittedPrior(name, prior, prior.log_prob(held_out).mean().item()))
    return sorted(fitted, key=lambda row: row.held_out, reverse=True)


# --- directions ------------------------------------------------------------------------------------------------------


def directions_of(model: VAE, pictures: Pictures) -> AttributeModel | None:
    """Fit what labels say to encoded pictures, on the model's device; None if they have no labels."""
    if not pictures.attributes:
        return None
    return _fit_directions(encode_images(model, pictures.images), pictures)


def _fit_directions(posterior: DiagonalGaussian, pictures: Pictures) -> AttributeModel:
    return fit_attributes(posterior.mean, pictures.labels, pictures.attributes, posterior.logvar.exp().mean(dim=0))
