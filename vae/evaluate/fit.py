"""Fit what is fitted to a trained model's latent space: priors and directions."""

from __future__ import annotations

import math
import time
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

MAX_HELD_OUT = 2000  # training pictures set aside to choose by: a tenth of them, at most so many
FLOW_DRAWS = 4  # samples of each posterior that a flow is fitted to; a mixture, with less to learn, makes do with one


# --- priors ----------------------------------------------------------------------------------------------------------


class FittedPrior(NamedTuple):
    """A prior, with the mean log-likelihood, in nats, of the latents of pictures held out from training."""

    name: str
    prior: Prior
    held_out: float
    seconds: float


def default_num_held_out(pictures: int) -> int:
    """Return how many of so many training pictures, the last ones, train.py holds out, unless told otherwise."""
    return min(MAX_HELD_OUT, math.ceil(pictures / 10))


def fit_priors(
    model: VAE, pictures: Pictures, unseen: int | None = None, components: Iterable[int] = (100, 200)
) -> list[FittedPrior]:
    """Fit mixtures and a flow to where the encoder puts training pictures: the best comes first.

    Where pictures have labels, a mixture of all that labels can say, too. The last pictures, which train.py held out from
    training, are held out here, too, to calibrate mixtures and to choose by: `unseen` of them, by default as many as
    train.py does.
    """
    posterior = encode_images(model, pictures.images)
    unseen = unseen or default_num_held_out(len(pictures.images))
    generator = torch.Generator().manual_seed(0)
    draws = [posterior.sample(generator) for _ in range(FLOW_DRAWS)]
    z, test = draws[0][:-unseen], draws[0][-unseen:]

    def mixture(k: int) -> Prior:
        return GaussianMixture.fit(z, k).calibrate(test)

    fits: dict[str, Callable[[], Prior]] = {}
    for k in components:
        if k < len(z) and GaussianMixture.numbers(z.shape[1], k) <= MAX_PRIOR_NUMBERS:
            fits[f"mixture-{k}"] = partial(mixture, k)
    if z.shape[1] > 1:
        fits["flow"] = partial(Flow.fit, torch.cat([draw[:-unseen] for draw in draws]))
    if 0 < len(pictures.attributes) <= z.shape[1]:
        known = DiagonalGaussian(posterior.mean[:-unseen], posterior.logvar[:-unseen])
        named = pictures._replace(labels=pictures.labels[:-unseen])
        fits["attributes"] = lambda: AttributePrior(_fit_directions(known, named))
    fitted = []
    for name, fit in fits.items():
        began = time.monotonic()
        prior = fit()
        fitted.append(FittedPrior(name, prior, prior.log_prob(test).mean().item(), time.monotonic() - began))
    return sorted(fitted, key=lambda row: row.held_out, reverse=True)


# --- directions ------------------------------------------------------------------------------------------------------


def directions_of(model: VAE, pictures: Pictures) -> AttributeModel | None:
    """Fit directions to where the encoder puts pictures, on its device; None if they have no labels."""
    if not pictures.attributes:
        return None
    return _fit_directions(encode_images(model, pictures.images), pictures)


def _fit_directions(posterior: DiagonalGaussian, pictures: Pictures) -> AttributeModel:
    return fit_attributes(posterior.mean, pictures.labels, pictures.attributes, posterior.logvar.exp().mean(dim=0))
