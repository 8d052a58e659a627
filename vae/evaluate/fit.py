"""Fit priors and directions to the latent space of a trained model."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from vae.attributes import AttributeModel, AttributePrior, fit_attributes
from vae.data.specs import Pictures
from vae.evaluate.measure import encode_images
from vae.files import LATENTS, MAX_BYTES, MAX_HEADER_BYTES, MAX_PRIOR_NUMBERS
from vae.model import VAE, DiagonalGaussian
from vae.prior import Flow, GaussianMixture, Prior, StandardNormal

MAX_HELD_OUT = 2000  # training pictures: a tenth of them is held out, and no more than this
DRAWS = 4  # samples of each posterior that a flow is fitted to, and that priors are compared by
COMPONENTS = 200  # of a mixture, at most
PICTURES_PER_COMPONENT = 50  # at least
PICTURES_PER_DIMENSION = 5  # of a component, at least: it has a covariance to learn
CHANCE = 0.01  # that a prior which is no better than N(0, I) is taken for better


# --- priors ----------------------------------------------------------------------------------------------------------


class FittedPrior(NamedTuple):
    """A prior, and the mean log-likelihood, in nats, of latent vectors of pictures that nothing was fitted to."""

    name: str
    prior: Prior
    held_out: float


def default_num_held_out(pictures: int) -> int:
    """Return how many of the training pictures, the last ones, train.py holds out by default."""
    return min(MAX_HELD_OUT, math.ceil(pictures / 10))


def fit_priors(model: VAE, pictures: Pictures, num_held_out: int, components: int = COMPONENTS) -> list[FittedPrior]:
    """Fit priors to encoded pictures, the best one first: see `compare_priors`.

    The last num_held_out training pictures, which train.py held out, too, are those held out here, or the last third
    where that is more and there are few.
    """
    device = _with_double_precision(model.log_scale.device)
    posterior = DiagonalGaussian(*(part.to(device) for part in encode_images(model, pictures.images)))
    return compare_priors(
        posterior, pictures, max(num_held_out, min(MAX_HELD_OUT, len(pictures.images) // 3)), components
    )


def _with_double_precision(device: torch.device) -> torch.device:
    """Return the device, or the CPU in place of one without double precision, as Apple's are."""
    try:
        torch.zeros((), dtype=torch.float64, device=device)
    except TypeError:
        return torch.device("cpu")
    return device


def compare_priors(
    posterior: DiagonalGaussian, pictures: Pictures, num_held_out: int, components: int = COMPONENTS
) -> list[FittedPrior]:
    """Fit a Gaussian, a mixture, a flow and, if pictures have labels, `AttributePrior`; rank them and N(0, I).

    posterior: of pictures, (N, D), on the device to compute on. Of the last num_held_out of them, the first half calibrates the
        Gaussian and the mixture, the second half ranks the priors, so that none is ranked by what it was fitted to.
    components: of the mixture, at most: fewer for few pictures, or many dimensions. If pictures are of classes, each has its own.

    The prior comes first under which the latent vectors of the second half are likeliest, but N(0, I) comes before those
    that aren't better by more than chance explains (a t-test of the differences, picture by picture).
    """
    pictures_fitted, latent_dim = len(posterior.mean) - num_held_out, posterior.mean.shape[1]
    generator = torch.Generator(posterior.mean.device).manual_seed(0)
    draws = torch.stack([posterior.sample(generator) for _ in range(DRAWS)])  # (DRAWS, N, D)
    z, calibrating, ranking = draws.split([pictures_fitted, num_held_out // 2, num_held_out - num_held_out // 2], dim=1)
    most = MAX_PRIOR_NUMBERS // GaussianMixture.numbers(latent_dim, 1)
    enough = max(PICTURES_PER_COMPONENT, PICTURES_PER_DIMENSION * latent_dim)
    components = min(components, pictures_fitted // enough, most)
    known = DiagonalGaussian(posterior.mean[:pictures_fitted], posterior.logvar[:pictures_fitted])
    classes = _classes(pictures, pictures_fitted, enough, components)

    def mixture(components: int) -> Prior:
        labels = classes if components > 1 else None
        mixture = GaussianMixture.fit(known.mean, components, variance=known.logvar.exp(), labels=labels)
        return mixture.calibrate(calibrating[0])

    fits: dict[str, Callable[[], Prior]] = {"normal": lambda: StandardNormal(latent_dim)}
    if pictures_fitted > 1 and calibrating.shape[1] > 0:
        fits["gaussian"] = partial(mixture, 1)
        if components > 1:
            fits["mixture"] = partial(mixture, components)
    if latent_dim > 1:
        fits["flow"] = partial(Flow.fit, z.flatten(0, 1))
    if 0 < len(pictures.attributes) <= latent_dim:
        named = pictures._replace(labels=pictures.labels[:pictures_fitted])
        fits["attributes"] = lambda: AttributePrior(_fit_directions(known, named))
    priors: dict[str, Prior] = {}
    for name, fit in fits.items():
        prior = fit().cpu()
        priors[f"mixture-{prior.components}" if name == "mixture" else name] = prior
    scores = {
        name: torch.stack([prior.log_prob(draw) for draw in ranking.cpu()]).mean(dim=0)
        for name, prior in priors.items()
    }
    rows = [FittedPrior(name, prior, scores[name].mean().item()) for name, prior in priors.items()]

    chance = CHANCE / max(1, len(rows) - 1)  # each of several may seem better by chance

    def rank(row: FittedPrior) -> tuple[bool, bool, float]:
        return _is_higher(scores[row.name], scores["normal"], chance), row.name == "normal", row.held_out

    return sorted(rows, key=rank, reverse=True)


def _classes(pictures: Pictures, count: int, enough: int, most: int) -> Tensor | None:
    """Return the class of each of the first `count` pictures, (N,), if there are `most` classes at most, each of `enough`."""
    if len(pictures.attributes) != 1:
        return None
    labels = pictures.labels[:count, 0]
    sizes = labels.unique(return_counts=True)[1]
    return labels if len(sizes) <= most and sizes.min() >= enough else None


def _is_higher(scores: Tensor, others: Tensor, chance: float) -> bool:
    """Tell whether scores are higher than others, pair by pair, by more than this chance explains."""
    from scipy.stats import ttest_1samp

    difference = (scores - others).double().cpu()
    if len(difference) < 2 or difference.std() == 0:
        return False
    return bool(ttest_1samp(difference.numpy(), 0, alternative="greater").pvalue < chance)


# --- directions ------------------------------------------------------------------------------------------------------


def directions_of(model: VAE, pictures: Pictures) -> AttributeModel | None:
    """Fit what labels say to encoded pictures; None if they have no labels, are fewer than two, or have too many latents."""
    too_large = 4 * model.config.latent_dim**2 > MAX_BYTES[LATENTS] - MAX_HEADER_BYTES  # for its file, in float32
    if not pictures.attributes or len(pictures.images) < 2 or too_large:
        return None
    return _fit_directions(encode_images(model, pictures.images), pictures)


def _fit_directions(posterior: DiagonalGaussian, pictures: Pictures) -> AttributeModel:
    mean, variance = posterior.mean.cpu(), posterior.logvar.exp().mean(dim=0).cpu()
    return fit_attributes(mean, pictures.labels.cpu(), pictures.attributes, variance)
