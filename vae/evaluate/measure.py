"""Measure a model: the ELBO, reconstructions, the latent space, new pictures, attributes."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterable, Mapping

import torch
from PIL import Image
from torch import Tensor

from vae.data.specs import Pictures, spec_of
from vae.evaluate.features import Classifier, accuracy, classify, extract_features
from vae.evaluate.metrics import active_units, bits_per_dimension, frechet_distance, latent_use, precision_recall
from vae.figures import (
    AttributeMetrics,
    Comparison,
    DatasetFacts,
    GenerationMetrics,
    LatentMetrics,
    LikelihoodMetrics,
    ScoreMetrics,
    TestMetrics,
    last_part,
    place_among,
)
from vae.generate import encode, generate, reconstruct, score, typicality
from vae.images import enlarge, grid, psnr, ssim, to_unit
from vae.loss import (
    elbo,
    importance_weighted_bound,
    overall_scale,
)
from vae.model import VAE, DiagonalGaussian
from vae.prior import Prior, StandardNormal

CHUNK = 500  # pictures at once, which bounds the memory
COLUMNS = 16  # pictures in a row of samples.png
BLANK = 0.5  # grey of a place in samples.png where no picture is
SAMPLES_SIDE = 1000  # pixels a side that samples.png is enlarged to: digits twice
MIN_COMPARED = 5  # pictures: precision and recall need three nearest neighbours of each
EDITED = 2000  # test pictures whose attributes are edited


def describe_dataset(name: str) -> DatasetFacts:
    """Return what the card says of a dataset; of one on this machine's disk, without its path."""
    spec = vars(spec_of(name))
    return DatasetFacts(
        name=last_part(name), **{key: spec[key] for key in DatasetFacts.__dataclass_fields__ if key != "name"}
    )


# --- one model, one set of pictures ----------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(model: VAE, images: Tensor, prior: Prior | None = None) -> TestMetrics:
    """Measure a model in `eval()` on images, (N, C, H, W) uint8, with one sample of z for each picture.

    prior: what the model was trained with, on its device; None is N(0, I). The images may be elsewhere.
    elbo, reconstruction, kl: under that prior and the model's own likelihood and scale.
    mse, psnr, ssim: of the reconstruction from the posterior mean; psnr is that of the mean squared error.
    sample_mse, sample_psnr, sample_ssim: of the reconstruction from the sample.
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
    return TestMetrics(
        pictures=len(images),
        elbo=total,
        reconstruction=reconstruction,
        kl=kl,
        bits_per_dimension=bits_per_dimension(total, images[0].numel(), likelihood),
        mse=mse,
        psnr=psnr(mse),
        ssim=similarity,
        sample_mse=sample_mse,
        sample_psnr=psnr(sample_mse),
        sample_ssim=sample_similarity,
        scale=overall_scale(model.log_scale).item(),
        active_units=active_units(torch.cat(means)),
    )


def measure_likelihood(model: VAE, images: Tensor, samples: int, prior: Prior | None = None) -> LikelihoodMetrics:
    """Bound log p(x) of images, (N, C, H, W) uint8, from below by `samples` samples of z for each.

    prior: what the model was trained with; None is N(0, I). If the model has another, fitted later, bound_with_prior is
        under that. elbo is of the same pictures, and standard_error that of the mean bound.
    """
    prior = StandardNormal() if prior is None else prior
    x = to_unit(images.to(model.log_scale.device))

    def bound(prior: Prior) -> Tensor:
        generator = torch.Generator(x.device).manual_seed(0)
        return importance_weighted_bound(model, x, samples, prior=prior, generator=generator).cpu().double()

    values = bound(prior)
    is_fitted_later = isinstance(prior, StandardNormal) and not isinstance(model.prior, StandardNormal)
    return LikelihoodMetrics(
        pictures=len(images),
        samples=samples,
        elbo=evaluate(model, images, prior).elbo,
        bound=values.mean().item(),
        standard_error=values.std(correction=0).item() / math.sqrt(len(values)),
        bound_with_prior=bound(copy.deepcopy(model.prior).to(x.device)).mean().item() if is_fitted_later else None,
    )


def encode_images(model: VAE, images: Tensor) -> DiagonalGaussian:
    """Encode images of any number, (N, C, H, W) uint8; the posterior, (N, D), is on the CPU."""
    parts = [encode(model, to_unit(part.to(model.log_scale.device))) for part in images.split(CHUNK)]
    return DiagonalGaussian(
        torch.cat([part.mean.cpu() for part in parts]), torch.cat([part.logvar.cpu() for part in parts])
    )


def measure_scores(model: VAE, images: Tensor) -> ScoreMetrics:
    """Score images, (N, C, H, W) uint8, each by one sample, as the page scores a visitor's picture to compare it."""
    device = model.log_scale.device
    generator = torch.Generator(device).manual_seed(0)
    rows = []
    for part in images.split(CHUNK):
        x = to_unit(part.to(device))
        rows.append(torch.stack([score(model, x, generator=generator).cpu(), typicality(model, x).cpu()], dim=1))
    scores, typical = torch.cat(rows).double().unbind(dim=1)

    def percentiles(values: Tensor) -> list[float]:
        return torch.quantile(values, torch.linspace(0, 1, 101, dtype=torch.float64)).tolist()

    known = percentiles(scores), percentiles(typical)
    lower = [min(map(place_among, known, pair)) for pair in zip(scores.tolist(), typical.tolist(), strict=True)]
    return ScoreMetrics(
        pictures=len(images), score=known[0], typicality=known[1], lower=percentiles(torch.tensor(lower).double())
    )


def measure_latents(model: VAE, images: Tensor) -> LatentMetrics:
    """Measure how the latent space is used by images, (N, C, H, W) uint8; see `latent_use`.

    mutual_information and marginal_kl are those of a draw among the N images: for new images, a lower and an upper
    bound. The KL divergence to a fitted prior bounds both from the other side, since no prior is nearer to the
    posteriors than their own mixture.
    """
    posterior = encode_images(model, images)
    z = posterior.sample(torch.Generator().manual_seed(0))
    use = latent_use(posterior.mean, posterior.logvar, z)
    kl_to_prior = None
    if not isinstance(model.prior, StandardNormal):
        kl_to_prior = (posterior.log_prob(z) - model.prior.log_prob(z)).double().mean().item()
    return LatentMetrics(
        pictures=len(images),
        **use._asdict(),
        mutual_information_at_most=kl_to_prior,
        marginal_kl_at_least=None if kl_to_prior is None else use.kl - kl_to_prior,
    )


# --- new pictures beside real ones -----------------------------------------------------------------------------------


def compare(real: Tensor, others: Iterable[Tensor]) -> Comparison:
    """Compare sets of features, (N, F) each, with those of real pictures: mean and standard deviation over the sets."""
    rows = [(frechet_distance(real, other), *precision_recall(real, other)) for other in others]
    frechet, precision, recall = zip(*rows, strict=True)
    return Comparison(
        frechet=statistics.mean(frechet),
        frechet_spread=statistics.pstdev(frechet),
        precision=statistics.mean(precision),
        precision_spread=statistics.pstdev(precision),
        recall=statistics.mean(recall),
        recall_spread=statistics.pstdev(recall),
    )


def measure_generation(
    model: VAE,
    classifier: Classifier,
    train: Pictures,
    test: Pictures,
    *,
    features: str,
    priors: Mapping[str, Prior],
    pictures: int,
    seeds: int,
) -> tuple[GenerationMetrics, dict[str, Comparison]]:
    """Compare training pictures, reconstructions and new pictures with test pictures, by the classifier's features.

    features: what to call those features.
    priors: other priors to draw from, besides N(0, I) and the model's own; one comparison is returned for each.
    pictures: how many of every kind to compare, of the test set the first; other ones for each of the `seeds` draws.
        The training pictures show the best that figures can be.
    Raises ValueError if there are too few pictures to compare.
    """
    pictures = min(pictures, len(test.images), len(train.images))
    if pictures < MIN_COMPARED:
        raise ValueError(f"at least {MIN_COMPARED} test pictures are needed to compare new ones with, got {pictures}")
    images = test.images[:pictures]
    real = extract_features(classifier, images)

    def draw(prior: Prior) -> Iterable[Tensor]:
        for seed in range(seeds):
            numbers = range(seed * pictures, (seed + 1) * pictures)
            parts = (numbers[start : start + CHUNK] for start in range(0, pictures, CHUNK))
            yield torch.cat([extract_features(classifier, generate(model, part, prior=prior)) for part in parts])

    def draw_training() -> Iterable[Tensor]:
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(seed)
            chosen = torch.randperm(len(train.images), generator=generator)[:pictures]
            yield extract_features(classifier, train.images[chosen])

    device = model.log_scale.device
    again = [extract_features(classifier, reconstruct(model, to_unit(part.to(device)))) for part in images.split(CHUNK)]
    comparisons = {name: compare(real, draw(prior)) for name, prior in priors.items()}
    own = next((comparisons[name] for name, prior in priors.items() if prior is model.prior), None)
    if own is None and not isinstance(model.prior, StandardNormal):
        own = compare(real, draw(model.prior))
    metrics = GenerationMetrics(
        features=features,
        accuracy=accuracy(classifier, test).mean().item(),
        pictures=pictures,
        seeds=seeds,
        training_pictures=compare(real, draw_training()),
        reconstruction=compare(real, [torch.cat(again)]),
        standard_normal=compare(real, draw(StandardNormal())),
        prior=own,
    )
    return metrics, comparisons


def draw_samples(model: VAE, images: Tensor) -> Image.Image:
    """Draw images, (N, C, H, W) uint8, reconstructions, and new pictures from N(0, I) and the prior, seeds 0 to 31."""
    x = to_unit(images[:COLUMNS].to(model.log_scale.device))
    blank = x.new_full((COLUMNS - len(x), *x.shape[1:]), BLANK)  # where there are fewer pictures
    rows = [x, blank, reconstruct(model, x), blank, generate(model, range(2 * COLUMNS), prior=StandardNormal())]
    if not isinstance(model.prior, StandardNormal):
        rows.append(generate(model, range(2 * COLUMNS)))
    sheet = grid(torch.cat(rows), columns=COLUMNS)
    return enlarge(sheet, max(SAMPLES_SIDE, *sheet.size))


# --- attributes -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure_attributes(
    model: VAE, classifier: Classifier, test: Pictures, *, pictures: int = EDITED
) -> dict[str, AttributeMetrics]:
    """Edit each attribute of the first test pictures to another value, drawn at random, and ask a classifier.

    real, reconstructed: the part of pictures, and of reconstructions, whose true value the classifier predicts.
    edited: the part of edited pictures in which it predicts the new value; None for an attribute of one value.
    edited_by_value: that part for each new value that was drawn.
    kept: for each other attribute, the part of edited pictures in which it still predicts the true value.
    """
    directions = model.directions
    assert directions is not None
    images, labels = test.images[:pictures], test.labels[:pictures].cpu()
    z, device = encode_images(model, images).mean, model.log_scale.device
    before = directions.predict(z)

    def predict(z: Tensor) -> Tensor:  # (N, D) -> (N, A)
        return torch.cat([classifier.predict(model.decode(part.to(device))).cpu() for part in z.split(CHUNK)])

    real = (classify(classifier, images).cpu() == labels).double().mean(dim=0)  # (A,)
    reconstructed = (predict(z) == labels).double().mean(dim=0)  # (A,)
    generator = torch.Generator().manual_seed(0)
    table = {}
    for index, (name, size) in enumerate(zip(directions.attributes, directions.sizes, strict=True)):
        edited, by_value, kept = None, {}, {}
        if size > 1:
            target = (labels[:, index] + torch.randint(1, size, (len(z),), generator=generator)) % size
            predicted = predict(directions.edit(z, {name: target}, before))
            hit = (predicted[:, index] == target).double()
            edited = hit.mean().item()
            names = directions.attributes[name]
            by_value = {names[value]: hit[target == value].mean().item() for value in target.unique().tolist()}
            kept = dict(zip(directions.attributes, (predicted == labels).double().mean(dim=0).tolist(), strict=True))
            del kept[name]
        table[name] = AttributeMetrics(
            pictures=len(images),
            real=real[index].item(),
            reconstructed=reconstructed[index].item(),
            edited=edited,
            edited_by_value=by_value,
            kept=kept,
        )
    return table
