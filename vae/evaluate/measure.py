"""Measure a model: the bound, reconstructions, latents, new pictures, attributes."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vae.data.specs import Attributes, Pictures
from vae.evaluate.features import Classifier, Inception, classify, extract_features
from vae.evaluate.metrics import active_units, bits_per_dimension, frechet_distance, latent_use, precision_recall
from vae.generate import encode, generate, reconstruct
from vae.images import enlarge, grid, psnr, ssim, to_unit
from vae.loss import (
    SPECTRAL_TILT,
    elbo,
    importance_weighted_bound,
    kl_divergence,
    mean_error,
    optimal_log_scale,
    overall_scale,
)
from vae.model import VAE, DiagonalGaussian
from vae.prior import Prior, StandardNormal

CHUNK = 500
COLUMNS = 16  # pictures in a row of samples.png
MIN_COMPARED = 5  # pictures whose three nearest neighbours precision and recall ask for, and one more


# --- one model, one set of pictures ----------------------------------------------------------------------------------


@torch.no_grad()
def calibrate(model: VAE, images: Tensor, tilt: float = SPECTRAL_TILT) -> None:
    """Set the model's log_scale to what makes images, (N, C, H, W) uint8, most likely: measured once the weights are fixed."""
    generator = torch.Generator(images.device).manual_seed(0)
    likelihood = model.config.likelihood
    error = torch.zeros_like(model.log_scale)
    for part in images.split(CHUNK):
        x = to_unit(part)
        error += mean_error(x, model(x, generator).reconstruction, likelihood) * (len(part) / len(images))
    model.log_scale.copy_(optimal_log_scale(error, likelihood, tilt))


@torch.no_grad()
def evaluate(model: VAE, images: Tensor, prior: Prior | None = None) -> dict[str, Any]:
    """Measure a model in `eval()` on images, (N, C, H, W) uint8, with one sample of z for each picture.

    prior: what the model was trained with, on its device; None is N(0, I). The images may be elsewhere.
    elbo, reconstruction, kl: means over pictures, in nats, under that prior and the model's own likelihood and scale.
    mse, psnr, ssim: of the reconstruction from the posterior mean, pixels in [0, 1], dB (of the mean squared error).
    sample_mse, sample_psnr, sample_ssim: the same of the reconstruction from the sample.
    """
    likelihood = model.config.likelihood
    log_prior = None if prior is None or isinstance(prior, StandardNormal) else prior.log_prob
    device = model.log_scale.device
    generator = torch.Generator(device).manual_seed(0)
    sums = torch.zeros(7, dtype=torch.float64)
    means = []
    for part in images.split(CHUNK):
        x = to_unit(part.to(device))
        output = model(x, generator)
        values = [*elbo(x, output, likelihood, model.log_scale, log_prior=log_prior)]  # (B,) each
        for picture in (model.decode(output.posterior.mode()), output.reconstruction):
            values += [(picture - x).square().flatten(1).mean(1), ssim(picture, x)]
        sums += torch.stack(values).cpu().double().sum(1)  # summed there: MPS has no float64
        means.append(output.posterior.mean.cpu())
    reconstruction, kl, total, mse, similarity, sample_mse, sample_similarity = (sums / len(images)).tolist()
    return {
        "pictures": len(images),
        "elbo": total,
        "reconstruction": reconstruction,
        "kl": kl,
        "bits_per_dimension": bits_per_dimension(total, images[0].numel(), likelihood),
        "mse": mse,
        "psnr": psnr(mse),
        "ssim": similarity,
        "sample_mse": sample_mse,
        "sample_psnr": psnr(sample_mse),
        "sample_ssim": sample_similarity,
        "scale": overall_scale(model.log_scale).item(),
        "active_units": active_units(torch.cat(means)),
    }


def measure_likelihood(model: VAE, images: Tensor, samples: int, prior: Prior | None = None) -> dict[str, Any]:
    """Bound log p(x) of images, (N, C, H, W) uint8, by `samples` samples of z each: means over pictures, in nats.

    bound is under the prior that the model was trained with, None for N(0, I); bound_with_prior is under its own, where
    that is another, fitted later. elbo is of the same pictures, and standard_error of the mean bound.
    """
    prior = StandardNormal() if prior is None else prior
    x = to_unit(images.to(model.log_scale.device))

    def bound(prior: Prior) -> Tensor:
        generator = torch.Generator(x.device).manual_seed(0)
        return importance_weighted_bound(model, x, samples, prior=prior, generator=generator).cpu().double()

    values = bound(prior)
    result = {
        "pictures": len(images),
        "samples": samples,
        "elbo": evaluate(model, images, prior)["elbo"],
        "bound": values.mean().item(),
        "standard_error": values.std(correction=0).item() / math.sqrt(len(values)),
        "bits_per_dimension": bits_per_dimension(values.mean().item(), x[0].numel(), model.config.likelihood),
    }
    if isinstance(prior, StandardNormal) and not isinstance(model.prior, StandardNormal):
        result["bound_with_prior"] = bound(copy.deepcopy(model.prior).to(x.device)).mean().item()
    return result


def encode_images(model: VAE, images: Tensor) -> DiagonalGaussian:
    """Encode images of any number, (N, C, H, W) uint8; the posterior, (N, D), is on the CPU."""
    parts = [encode(model, to_unit(part.to(model.log_scale.device))) for part in images.split(CHUNK)]
    return DiagonalGaussian(
        torch.cat([part.mean.cpu() for part in parts]), torch.cat([part.logvar.cpu() for part in parts])
    )


def measure_latents(model: VAE, images: Tensor) -> dict[str, Any]:
    """Measure how the latent space is used by images, (N, C, H, W) uint8, in nats; see `latent_use`.

    mutual_information and marginal_kl are of the N pictures, so a lower and an upper bound for pictures like them. The
    KL to a fitted prior bounds both from the other side: nothing is nearer to the posteriors than their own mixture.
    """
    posterior = encode_images(model, images)
    z = posterior.sample(torch.Generator().manual_seed(0))
    use = latent_use(posterior.mean, posterior.logvar, z)
    result: dict[str, Any] = {"pictures": len(images), "active_units": active_units(posterior.mean), **use._asdict()}
    if not isinstance(model.prior, StandardNormal):
        kl_to_prior = (posterior.log_prob(z) - model.prior.log_prob(z)).double().mean().item()
        result |= {"marginal_kl_at_least": use.kl - kl_to_prior, "mutual_information_at_most": kl_to_prior}
    return result | {"kl_per_dimension": _kl_per_dimension(posterior).double().mean(dim=0).tolist()}


def _kl_per_dimension(posterior: DiagonalGaussian) -> Tensor:
    mean, logvar = (values.flatten()[:, None] for values in posterior)  # each number as a Gaussian of its own
    return kl_divergence(mean, logvar).view_as(posterior.mean)


# --- new pictures beside real ones -----------------------------------------------------------------------------------


def compare(real: Tensor, others: Iterable[Tensor]) -> dict[str, float]:
    """Compare sets of features, (N, F) each, with those of real pictures: the mean over sets, and the spread.

    The spread is the standard deviation over the sets; precision and recall are from 0 to 1.
    """
    rows = [(frechet_distance(real, other), *precision_recall(real, other)) for other in others]
    result: dict[str, float] = {}
    for name, values in zip(("frechet", "precision", "recall"), zip(*rows, strict=True), strict=True):
        result |= {name: statistics.mean(values), f"{name}_spread": statistics.pstdev(values)}
    return result


def measure_generation(
    model: VAE,
    network: Classifier | Inception,
    train: Tensor,
    test: Tensor,
    *,
    priors: dict[str, Prior],
    pictures: int,
    seeds: int,
) -> dict[str, Any]:
    """Compare with test pictures, by the features of a network: training pictures, reconstructions, new pictures.

    train, test: (N, C, H, W) uint8. `pictures` of every kind are compared, of the test set the first; for each of the
    `seeds` others are drawn. The training pictures show how near to nothing the figures can come.
    Raises ValueError if there are too few pictures to compare.
    """
    pictures = min(pictures, len(test), len(train))
    if pictures < MIN_COMPARED:
        raise ValueError(
            f"new pictures are compared with {MIN_COMPARED} test pictures at the least, and here are {pictures}"
        )
    test = test[:pictures]
    real = extract_features(network, test)

    def draw(prior: Prior) -> Iterable[Tensor]:
        for seed in range(seeds):
            numbers = range(seed * pictures, (seed + 1) * pictures)
            parts = (numbers[start : start + CHUNK] for start in range(0, pictures, CHUNK))
            yield torch.cat([extract_features(network, generate(model, part, prior=prior)) for part in parts])

    def draw_training() -> Iterable[Tensor]:
        for seed in range(seeds):
            chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:pictures]
            yield extract_features(network, train[chosen])

    device = model.log_scale.device
    again = [extract_features(network, reconstruct(model, to_unit(part.to(device)))) for part in test.split(CHUNK)]
    result: dict[str, Any] = {"pictures": pictures, "seeds": seeds}
    result["training-pictures"] = compare(real, draw_training())
    result["reconstruction"] = compare(real, [torch.cat(again)])
    return result | {name: compare(real, draw(prior)) for name, prior in priors.items()}


def draw_samples(model: VAE, images: Tensor) -> Image.Image:
    """Draw images, (N, C, H, W) uint8, their reconstructions, and two rows of new pictures, seeds 0 to 31, of each prior."""
    x = to_unit(images[:COLUMNS].to(model.log_scale.device))
    rows = [x, reconstruct(model, x), generate(model, range(2 * COLUMNS), prior=StandardNormal())]
    if not isinstance(model.prior, StandardNormal):
        rows.append(generate(model, range(2 * COLUMNS)))
    sheet = grid(torch.cat(rows), columns=len(x))
    return enlarge(sheet, 2 * max(sheet.size))


# --- attributes -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure_attributes(model: VAE, network: Classifier, test: Pictures, *, pictures: int = 2000) -> dict[str, Any]:
    """Turn each attribute of test pictures, as a slider does, to another value by chance, and ask a classifier.

    told_by_latents: the part whose value `Directions.tell` tells right, where the slider then stands.
    told: the part of real pictures whose value the classifier tells right, which limits all the rest.
    reconstructed: the part of reconstructions that still have it.
    turned: the part of pictures turned that then have the value turned to.
    kept: the part of the other attributes' values that are still those of the picture; kept_of: of each of them.
    """
    directions = model.directions
    assert directions is not None
    images, labels = test.images[:pictures], test.labels[:pictures].cpu()
    z, device = encode_images(model, images).mean, model.log_scale.device
    before = directions.predict(z)

    def look(z: Tensor) -> Tensor:  # (N, D) -> (N, A)
        return torch.cat([network.predict(model.decode(part.to(device))).cpu() for part in z.split(CHUNK)])

    def turn(index: int, target: Tensor) -> dict[str, Any]:
        name = list(directions.attributes)[index]
        seen = look(directions.edit(z, {name: target}, before))
        result: dict[str, Any] = {"turned": (seen[:, index] == target).double().mean().item()}
        kept = dict(zip(directions.attributes, (seen == labels).double().mean(dim=0).tolist(), strict=True))
        del kept[name]
        return result | ({"kept": statistics.mean(kept.values()), "kept_of": kept} if kept else {})

    told = (classify(network, images).cpu() == labels).double().mean(dim=0)
    told_by_latents = (before == labels).double().mean(dim=0)
    reconstructed = (look(z) == labels).double().mean(dim=0)
    generator = torch.Generator().manual_seed(0)
    table: dict[str, Any] = {"pictures": len(images)}
    for index, (name, size) in enumerate(zip(directions.attributes, directions.sizes, strict=True)):
        parts = {"told": told, "reconstructed": reconstructed, "told_by_latents": told_by_latents}
        table[name] = {key: part[index].item() for key, part in parts.items()}
        if size > 1:
            target = (labels[:, index] + torch.randint(1, size, (len(z),), generator=generator)) % size
            table[name] |= turn(index, target)
    return table


def _named(attributes: Attributes) -> list[tuple[str, tuple[str, ...]]]:
    return [(name, tuple(values)) for name, values in attributes.items()]
