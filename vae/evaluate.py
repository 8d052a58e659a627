"""Measure a model on pictures it was not trained on: python -m vae.evaluate weights/fashion-mnist"""

from __future__ import annotations

import copy
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor

from vae.card import GENERATED, SAMPLES, model_card
from vae.data import DATASETS, Attributes, Pictures, binarize, load_dataset
from vae.features import CLASSIFIERS, Classifier, Inception, accuracy, classify, extract_features, load_features
from vae.features import train as train_classifier
from vae.generate import generate, reconstruct
from vae.hub import (
    BUNDLED,
    CARD,
    METRICS,
    bundled_names,
    find_model,
    is_folder,
    load_model,
    read_metrics,
    save_model,
    write_json,
)
from vae.hub import write as write_whole
from vae.images import enlarge, grid, to_unit
from vae.latent import AttributePrior, Directions
from vae.loss import SPECTRAL_TILT, elbo, mean_error, optimal_log_scale, overall_scale
from vae.metrics import (
    active_units,
    bits_per_dimension,
    frechet_distance,
    importance_weighted_bound,
    latent_use,
    pca_mse,
    precision_recall,
    psnr,
    ssim,
)
from vae.model import VAE, DiagonalGaussian
from vae.prior import MAX_NUMBERS, Flow, GaussianMixture, Prior, StandardNormal

CHUNK = 500
COLUMNS = 16  # pictures in a row of samples.png
SHEET, SHEET_SIDE = 100, 700  # pictures in generated.png, and how many pixels a side it is enlarged to
MIN_COMPARED = 5  # pictures whose three nearest neighbours precision and recall ask for, and one more
MAX_HELD_OUT = 2000  # training pictures set aside to choose by: a tenth of them, at most so many
FLOW_DRAWS = 4  # samples of each posterior that a flow is fitted to; a mixture, with less to learn, makes do with one


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


@torch.no_grad()
def encode(model: VAE, images: Tensor) -> DiagonalGaussian:
    """Encode images of any number, (N, C, H, W) uint8; the posterior, (N, D), is on the CPU."""
    parts = [model.encode(to_unit(part.to(model.log_scale.device))) for part in images.split(CHUNK)]
    return DiagonalGaussian(
        torch.cat([part.mean.cpu() for part in parts]), torch.cat([part.logvar.cpu() for part in parts])
    )


def measure_latents(model: VAE, images: Tensor) -> dict[str, Any]:
    """Measure how the latent space is used by images, (N, C, H, W) uint8, in nats; see `latent_use`.

    mutual_information and marginal_kl are of the N pictures, so a lower and an upper bound for pictures like them. The
    KL to a fitted prior bounds both from the other side: nothing is nearer to the posteriors than their own mixture.
    """
    posterior = encode(model, images)
    z = posterior.sample(torch.Generator().manual_seed(0))
    use = latent_use(posterior.mean, posterior.logvar, z)
    result: dict[str, Any] = {"pictures": len(images), "active_units": active_units(posterior.mean), **use._asdict()}
    if not isinstance(model.prior, StandardNormal):
        kl_to_prior = (posterior.log_prob(z) - model.prior.log_prob(z)).double().mean().item()
        result |= {"marginal_kl_at_least": use.kl - kl_to_prior, "mutual_information_at_most": kl_to_prior}
    return result | {"kl_per_dimension": posterior.kl_per_dimension().double().mean(dim=0).tolist()}


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
    posterior = encode(model, pictures.images)
    unseen = unseen or default_num_held_out(len(pictures.images))
    generator = torch.Generator().manual_seed(0)
    draws = [posterior.sample(generator) for _ in range(FLOW_DRAWS)]
    z, test = draws[0][:-unseen], draws[0][-unseen:]

    def mixture(k: int) -> Prior:
        return GaussianMixture.fit(z, k).calibrate(test)

    fits: dict[str, Callable[[], Prior]] = {}
    for k in components:
        if k < len(z) and GaussianMixture.numbers(z.shape[1], k) <= MAX_NUMBERS:
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


def directions_of(model: VAE, pictures: Pictures) -> Directions | None:
    """Fit directions to where the encoder puts pictures, on its device; None if they have no labels."""
    if not pictures.attributes:
        return None
    return _fit_directions(encode(model, pictures.images), pictures)


def _fit_directions(posterior: DiagonalGaussian, pictures: Pictures) -> Directions:
    return Directions.fit(posterior.mean, pictures.labels, pictures.attributes, posterior.logvar.exp().mean(dim=0))


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
    z, device = encode(model, images).mean, model.log_scale.device
    before = directions.tell(z)

    def look(z: Tensor) -> Tensor:  # (N, D) -> (N, A)
        return torch.cat([network.predict(model.decode(part.to(device))).cpu() for part in z.split(CHUNK)])

    def turn(index: int, target: Tensor) -> dict[str, Any]:
        name = list(directions.attributes)[index]
        seen = look(directions.turn(z, {name: target}, before))
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


# --- what metrics.json claims ----------------------------------------------------------------------------------------

BLOCKS = "test", "likelihood", "latents", "generation", "attributes"
# How far a figure may be from what is claimed, as (part of it, absolute): other processors and versions round and draw
# random numbers differently. What is not named here must agree to half a percent.
TOLERANCES = {
    "pictures": (0.0, 0.0),
    "samples": (0.0, 0.0),
    "seeds": (0.0, 0.0),
    "active_units": (0.0, 1.0),
    "accuracy": (0.0, 0.002),
    "frechet": (0.05, 0.005),
    "frechet_spread": (0.1, 0.05),
    "precision": (0.0, 0.02),
    **dict.fromkeys(("told", "reconstructed", "told_by_latents", "turned", "kept", "kept_of"), (0.0, 0.02)),
    "recall": (0.0, 0.02),
    **dict.fromkeys(("precision_spread", "recall_spread"), (0.0, 0.01)),
    "standard_error": (0.05, 0.0),
    "kl_per_dimension": (0.02, 0.02),
}
DEFAULT_TOLERANCE = 0.005, 1e-6


def disagreements(claimed: Any, measured: Any, name: str = METRICS) -> list[str]:
    """Compare two tables of figures; give one sentence for each claim that was not found to be so."""
    if isinstance(claimed, dict) and isinstance(measured, dict):
        return [
            line for key, value in claimed.items() for line in disagreements(value, measured.get(key), f"{name}: {key}")
        ]
    if isinstance(claimed, list) and isinstance(measured, list) and len(claimed) == len(measured):
        return [line for a, b in zip(claimed, measured, strict=True) for line in disagreements(a, b, name)]
    if isinstance(claimed, (int, float)) and isinstance(measured, (int, float)):
        *_, group, own = ["", *name.split(": ")]
        relative, absolute = TOLERANCES.get(own, TOLERANCES.get(group, DEFAULT_TOLERANCE))
        try:
            agree = math.isfinite(claimed) and abs(claimed - measured) <= absolute + relative * abs(claimed)
        except OverflowError:  # a whole number beyond all floats
            agree = False
    else:
        agree = claimed == measured
    told, found = ("a table" if isinstance(value, dict | list) else f"{value!r:.100}" for value in (claimed, measured))
    return [] if agree else [f"{name} is claimed to be {told}, and was measured as {found}"]


# --- the command -----------------------------------------------------------------------------------------------------


def show(results: dict[str, Any], indent: str = "") -> None:
    """Print a nested table of figures, one a line."""
    for key, value in results.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            show(value, indent + "  ")
        elif isinstance(value, list):
            print(f"{indent}{key:{26 - len(indent)}} " + " ".join(f"{number:.2f}" for number in value))
        else:
            print(f"{indent}{key:{26 - len(indent)}} " + (f"{value:.5f}" if isinstance(value, float) else f"{value}"))


def main(
    model: str,
    data_dir: Path = Path("data"),
    dataset: str | None = None,
    samples: int = 100,
    pictures: int = 500,
    generated: int = 10_000,
    seeds: int = 3,
    features: str | None = None,
    fit_prior: bool = False,
    fit_directions: bool = False,
    prior: Literal["mixture-100", "mixture-200", "flow", "attributes"] | None = None,
    write: bool = False,
    check: bool = False,
) -> None:
    """Measure a model on the test set of its dataset and print the figures, which takes some minutes.

    Args:
        model: A bundled name, a folder that train.py wrote, or a Hub repo (owner/name).
        data_dir: Where the files of the dataset are, as for train.py.
        dataset: What to measure on, by default what the model's metrics.json names.
        samples: Samples of z for each picture in the importance-weighted bound.
        pictures: Test pictures in the importance-weighted bound.
        generated: New pictures to compare with as many test pictures.
        seeds: How often to draw them, for the mean and the spread.
        features: What pictures are compared by: avatars, mnist or fashion-mnist, the classifiers that come with the
            package, or inception, the usual network for photographs (it needs torchmetrics, torch-fidelity and a download). By
            default the classifier of the dataset, if it has one.
        fit_prior: Fit mixtures and a flow to the encoded training pictures and, where they have labels, a mixture of all
            that these can say; take for the model's prior the one that makes held-out pictures' latents most likely.
        fit_directions: Fit directions to all encoded training pictures and their labels, instead of the few that train.py
            looks at.
        prior: With --fit-prior, take this one instead: the likeliest need not give the best pictures.
        write: Put the figures into the folder's metrics.json and card, and a fitted prior and its pictures beside them.
        check: Compare the figures with what metrics.json claims, and fail if one isn't so.
    """
    for option, value in (("samples", samples), ("pictures", pictures), ("generated", generated), ("seeds", seeds)):
        if value < 1:
            raise ValueError(f"--{option} must be at least 1, got {value}")
    folder = find_model(model)
    device = PartialState().device
    loaded = load_model(folder).to(memory_format=torch.channels_last).to(device)
    metrics = read_metrics(folder)
    name = dataset or metrics.get("dataset")
    if write:
        if not (is_folder(model) or model in bundled_names()):
            raise ValueError(f"--write needs a folder of yours, and {model} is in the cache of the Hub")
        if not metrics and (folder / METRICS).exists():
            raise ValueError(f"{folder / METRICS} can't be read: remove it, or train the model again")
        if name != metrics.get("dataset", name):
            raise ValueError(f"--write is for the dataset that {model} was trained on: leave out --dataset or --write")
    claimed = {block: metrics[block] for block in BLOCKS if block in metrics}
    if check and not claimed:
        raise ValueError(f"{folder / METRICS} claims nothing that could be checked")
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(
            f"{model} doesn't say what it was trained on: name one of {', '.join(DATASETS)} with --dataset"
        )
    chosen = features or (name if name in CLASSIFIERS else None)
    shape = loaded.config.channels, loaded.config.image_size
    if chosen in CLASSIFIERS and shape != (expected := (DATASETS[chosen].channels, DATASETS[chosen].image_size)):
        raise ValueError(
            f"the features of {chosen} are of pictures of {expected[0]}x{expected[1]}x{expected[1]}: take --features "
            "inception"
        )
    training = metrics.get("training")
    training = training if isinstance(training, dict) else {}  # whatever a stranger's file says
    trained_with: Prior = StandardNormal()
    if training.get("prior") == "flow":
        if fit_prior:
            raise ValueError(f"{model} learned its prior in training: leave --fit-prior out")
        trained_with = copy.deepcopy(loaded.prior).to(device)
    size = {"image_size": loaded.config.image_size, "channels": loaded.config.channels}
    train, test = (load_dataset(name, data_dir, split, **size) for split in ("train", "test"))
    if training.get("binarize"):
        if features:
            raise ValueError(f"{model} knows black and white pictures only: no --features can compare them with others")
        seed = training.get("seed")
        seed = seed if type(seed) is int and 0 <= seed < 2**31 else 0
        train, test = (split._replace(images=binarize(split.images, seed)) for split in (train, test))
        chosen = None
    network = load_features(chosen).to(device) if chosen else None

    held_out = training.get("validation_pictures")
    if type(held_out) is not int or not 0 < held_out < len(train.images):
        held_out = default_num_held_out(len(train.images))
    fitted = fit_priors(loaded, train, held_out) if fit_prior else []
    taken = next((row for row in fitted if prior in (None, row.name)), None)
    if taken:
        loaded.prior = taken.prior
    elif prior:
        raise ValueError(
            f"there is no {prior} to take: it needs --fit-prior, and more pictures than components, or labels"
        )
    if isinstance(loaded.prior, AttributePrior):
        if fit_directions and not taken:
            raise ValueError(f"the directions of {model} are its prior: --fit-prior --prior attributes fits both")
        loaded.directions = loaded.prior.directions
    elif fit_directions:
        loaded.directions = directions_of(loaded, train)
        if loaded.directions is None:
            raise ValueError(f"there are no directions to fit: the pictures of {name} have no labels")
    results: dict[str, Any] = {"dataset": name}

    def report(block: str, figures: dict[str, Any]) -> None:
        results[block] = figures
        show({block: figures})

    mse = pca_mse(train.images[:-held_out], test.images, loaded.config.latent_dim)
    report("test", evaluate(loaded, test.images, trained_with) | {"pca_mse": mse})
    report("likelihood", measure_likelihood(loaded, test.images[:pictures], samples, trained_with))
    report("latents", measure_latents(loaded, test.images))
    rows: dict[str, Any] = {}
    if network is None:
        why = "black and white pictures" if training.get("binarize") else f"{name}, but for --features inception"
        print(f"no features come for {why}, so new pictures are not measured")
    else:
        priors = {"standard-normal": StandardNormal()} | {row.name: row.prior for row in fitted}
        if not fitted and not isinstance(loaded.prior, StandardNormal):
            priors["prior"] = loaded.prior
        rows = measure_generation(
            loaded, network, train.images, test.images, priors=priors, pictures=generated, seeds=seeds
        )
        if taken:
            rows["prior"] = rows[taken.name]
        generation: dict[str, Any] = {"features": chosen}
        if isinstance(network, Classifier) and chosen == name:
            generation["accuracy"] = accuracy(network, test).mean().item()
        report("generation", generation | {key: rows[key] for key in rows if key not in {row.name for row in fitted}})
    if fitted:  # what the choice was made from; --check, which fits nothing, leaves it alone
        table = {row.name: {"held_out": row.held_out, "seconds": row.seconds} for row in fitted}
        report("priors", {key: table[key] | rows.get(key, {}) for key in table})

    if loaded.directions is not None:
        if _named(loaded.directions.attributes) != _named(test.attributes):
            print(f"{model} knows other attributes than {name} has, so they are not measured: --fit-directions does it")
        else:
            known = name in CLASSIFIERS and not training.get("binarize")
            if not known:
                print(f"no classifier comes for {name}: one is trained on its training pictures")
            judge = load_features(name) if known else train_classifier(train, mirror=False)
            assert isinstance(judge, Classifier)
            report("attributes", measure_attributes(loaded, judge.to(device), test))

    if check:
        wrong = disagreements(claimed, results)
        if wrong:
            sys.exit("\n".join(wrong))
        print(f"all that {METRICS} claims of {', '.join(claimed)} was found to be so")
    if write:
        if taken or fit_directions:
            save_model(loaded, folder)
        write_whole(folder / SAMPLES, draw_samples(loaded, test.images).save)
        sheet = grid(generate(loaded, range(SHEET)))
        write_whole(folder / GENERATED, enlarge(sheet, max(SHEET_SIDE, *sheet.size)).save)
        write_json(folder / METRICS, metrics | results)
        if "training" in metrics:  # else nobody knows where the model is from, and the card is left as it is
            files = [path.name for path in folder.iterdir()]
            called = folder.name if BUNDLED and folder.resolve().parent == BUNDLED.resolve() else model
            card = model_card(called, loaded.config, metrics | results, files)
            write_whole(folder / CARD, lambda path: path.write_text(card, encoding="utf-8"))


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m vae.evaluate", config=(tyro.conf.PositionalRequiredArgs,))
    except (ValueError, OSError) as error:
        sys.exit(f"vae.evaluate: {error}")
