"""Measure a model on pictures it was not trained on: python -m vae.evaluate weights/fashion-mnist"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import tyro
from accelerate import PartialState

from vae.attributes import AttributePrior
from vae.card import model_card
from vae.data import DATASETS, HUB, Attributes, Pictures, binarize, load_dataset
from vae.data.folder import Side
from vae.data.stream import open_stream
from vae.decode import Values
from vae.evaluate.features import CLASSIFIERS, load_classifier
from vae.evaluate.features import train as train_classifier
from vae.evaluate.fit import FittedPrior, default_num_held_out, directions_of, fit_priors
from vae.evaluate.measure import (
    MIN_COMPARED,
    describe_dataset,
    draw_samples,
    evaluate,
    measure_attributes,
    measure_generation,
    measure_latents,
    measure_likelihood,
    measure_scores,
)
from vae.evaluate.metrics import pca_mse
from vae.figures import AttributeMetrics, Figures, PriorMetrics, last_part, to_json
from vae.files import CARD, GENERATED, SAMPLES, fingerprint, replace_unprintable, write
from vae.generate import generate
from vae.hub import bundled_names, find_model, is_folder
from vae.images import enlarge, grid
from vae.model import VAE
from vae.prior import Prior, StandardNormal

SHEET, SHEET_SIDE = 100, 700  # pictures in generated.png, and pixels a side that it is enlarged to

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """Measure a model on the test set of its dataset and print the figures, which takes some minutes."""

    model: tyro.conf.Positional[str]
    """A bundled name, a folder that train.py wrote, or a Hub repo (owner/name)."""
    data_dir: Path = Path("data")
    """Where the files of the dataset are, as for train.py."""
    dataset: str | None = None
    """What to measure on, by default what the model was trained on."""
    pixel_range: Values = "auto"
    """How pictures of more than 8 bits become 8 bits, as for train.py."""
    samples: int = 100
    """Samples of z for each picture in the importance-weighted bound."""
    pictures: int = 500
    """Test pictures in the importance-weighted bound."""
    generated: int = 10_000
    """New pictures to compare with as many test pictures."""
    seeds: int = 3
    """How many times to draw new pictures, for mean and standard deviation."""
    fit_prior: bool = False
    """Fit priors to the encoded training pictures: a Gaussian, a mixture, a flow and, where pictures have labels, one
    Gaussian for each combination of attributes. The model gets the one with the highest log-likelihood of held-out
    latent vectors, or N(0, I) if none is significantly better."""
    fit_directions: bool = False
    """Fit the directions of attributes to all training pictures, instead of the first 5,000, which train.py uses."""
    prior: Literal["normal", "gaussian", "mixture", "flow", "attributes"] | None = None
    """With --fit-prior, use this prior instead: the highest log-likelihood need not give the best pictures."""
    only_scores: bool = False
    """Measure only the scores of test pictures, which the page compares a visitor's picture with: takes a minute."""
    write: bool = False
    """Write the figures into the folder's metrics.json and card, with a fitted prior and its pictures."""

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("pictures", 1), ("generated", MIN_COMPARED), ("seeds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        if self.only_scores and (self.fit_prior or self.fit_directions):
            raise ValueError("--only-scores fits nothing: leave out --fit-prior and --fit-directions")


def main(options: Options, or_likeliest: bool = False) -> None:
    """Fit what is asked for, measure, print, and write. Raises ValueError where options and model don't fit together.

    or_likeliest: take the likeliest prior where that which is asked for can't be fitted, or isn't better than N(0, I).
    """
    folder, device = find_model(options.model), PartialState().device
    figures = Figures.read(folder)
    name = choose_dataset(options, figures)
    model = VAE.from_pretrained(folder).to(memory_format=torch.channels_last).to(device)
    trained_with: Prior = StandardNormal()
    if figures.training and figures.training.prior == "flow":
        if options.fit_prior:
            raise ValueError(f"{options.model} learned its prior in training: leave --fit-prior out")
        trained_with = copy.deepcopy(model.prior).to(device)
    if options.only_scores:
        scores = report("scores", measure_scores(model, loader(name, options, model, figures)("test").images))
        if options.write:
            dataclasses.replace(figures, scores=scores, weights=fingerprint(folder)).write(folder)
        return
    train, test, num_held_out = load_pictures(name, options, model, figures)

    fitted = fit_priors(model, train, num_held_out) if options.fit_prior else []
    chosen = choose_prior(model, fitted, options, or_likeliest)
    if options.fit_directions:
        fit_directions(model, train, options, has_new_prior=chosen is not None)

    pca = pca_mse(train.images[:-num_held_out], test.images, model.config.latent_dim)
    results: dict[str, Any] = {
        "dataset": describe_dataset(name),
        "test": report("test", dataclasses.replace(evaluate(model, test.images, trained_with), pca_mse=pca)),
        "likelihood": report(
            "likelihood",
            measure_likelihood(model, test.images[: options.pictures], options.samples, trained_with),
        ),
        "scores": report("scores", measure_scores(model, test.images)),
        "latents": report("latents", measure_latents(model, test.images)),
    }
    is_binarized = bool(figures.training and figures.training.binarize)
    if name in CLASSIFIERS and not is_binarized:
        generation, comparisons = measure_generation(
            model,
            load_classifier(name).to(device),
            train,
            test,
            features=name,
            priors={row.name: row.prior for row in fitted if not isinstance(row.prior, StandardNormal)},
            pictures=options.generated,
            seeds=options.seeds,
        )
        results["generation"] = report("generation", generation)
    else:
        comparisons = {}
        print(f"no classifier for {'binarized pictures' if is_binarized else name}: new pictures are not measured")
    if fitted:
        each = {row.name: PriorMetrics(held_out=row.held_out, generation=comparisons.get(row.name)) for row in fitted}
        results["priors"] = report("priors", each)
    if model.directions is not None:
        if not have_same_attributes(model.directions.attributes, test.attributes):
            print(f"{options.model} has other attributes than {name}, so they are not measured: use --fit-directions")
        else:
            results["attributes"] = report("attributes", measure_edits(model, name, train, test, is_binarized))

    if options.write:
        if chosen or options.fit_directions:
            model.save_pretrained(folder)
        write_results(folder, model, dataclasses.replace(figures, **results, weights=fingerprint(folder)), test)


def choose_dataset(options: Options, figures: Figures) -> str:
    """Return the name of the dataset to measure on. Raises ValueError if there is none, or not one to write about."""
    own = figures.dataset.name if figures.dataset else None
    name = options.dataset or own
    if options.write:
        if not (is_folder(options.model) or options.model in bundled_names()):
            raise ValueError(f"--write needs a local folder, but {options.model} is in the cache of the Hub")
        if own and last_part(name or own) != last_part(own):
            raise ValueError(f"{options.model} was trained on {own}: leave out --dataset or --write")
    if name is None or not (name in DATASETS or name.startswith(HUB)):
        raise ValueError(
            f"{options.model} doesn't say what it was trained on: name one of {', '.join(DATASETS)} with --dataset"
        )
    return name


def loader(name: str, options: Options, model: VAE, figures: Figures) -> Callable[[Side], Pictures]:
    """Return what loads a split of the pictures as the model knows them."""
    training, config = figures.training, model.config
    wanted: dict[str, Any] = {
        "image_size": config.image_size,
        "channels": config.channels,
        "pixel_range": options.pixel_range,
    }
    # A stream has sides of its own, and is too large to be loaded whole.
    is_streamed = training and training.streaming and name.startswith(HUB)
    streamed = open_stream(name, **wanted) if is_streamed else None

    def load(split: Side) -> Pictures:
        pictures = streamed[split] if streamed else load_dataset(name, options.data_dir, split, **wanted)
        if training and training.binarize:
            return pictures._replace(images=binarize(pictures.images, training.seed))
        return pictures

    return load


def load_pictures(name: str, options: Options, model: VAE, figures: Figures) -> tuple[Pictures, Pictures, int]:
    """Load training and test pictures as the model knows them, and how many training pictures were held out."""
    load = loader(name, options, model, figures)
    train, test, training = load("train"), load("test"), figures.training
    if training and 0 < training.validation_pictures < len(train.images):
        return train, test, training.validation_pictures
    return train, test, default_num_held_out(len(train.images))


def choose_prior(
    model: VAE, fitted: list[FittedPrior], options: Options, or_likeliest: bool = False
) -> FittedPrior | None:
    """Give the model the prior that --prior names, or the likeliest, and return it; None if none was fitted."""
    names = [row.name.partition("-")[0] for row in fitted]  # the likeliest first
    is_good = options.prior in names and names.index(options.prior) <= names.index("normal")
    wanted = options.prior if is_good or not or_likeliest else None
    chosen = next((row for name, row in zip(names, fitted, strict=True) if wanted in (None, name)), None)
    if chosen:
        model.prior = chosen.prior
    elif options.prior:
        raise ValueError(
            f"there is no prior {options.prior}: it needs --fit-prior, and more pictures for a mixture, or labels for attributes"
        )
    if isinstance(model.prior, AttributePrior):
        model.directions = model.prior.directions
    return chosen


def fit_directions(model: VAE, train: Pictures, options: Options, has_new_prior: bool) -> None:
    """Fit the model's directions to all training pictures, unless its prior has just brought them."""
    if isinstance(model.prior, AttributePrior):
        if not has_new_prior:
            raise ValueError(f"the prior of {options.model} is its directions: use --fit-prior --prior attributes")
        return
    model.directions = directions_of(model, train)
    if model.directions is None:
        raise ValueError("there are no directions to fit: the pictures have no labels, or the model too many latents")


def measure_edits(
    model: VAE, name: str, train: Pictures, test: Pictures, is_binarized: bool
) -> dict[str, AttributeMetrics]:
    """Measure how well attributes are edited, by the dataset's classifier or one trained for the purpose."""
    if name in CLASSIFIERS and not is_binarized:
        classifier = load_classifier(name)
    else:
        print(f"no classifier for {name}: training one on its training pictures")
        classifier = train_classifier(train, mirror=False, device=model.log_scale.device)
    return measure_attributes(model, classifier.to(model.log_scale.device), test)


def have_same_attributes(a: Attributes, b: Attributes) -> bool:
    """Compare names and values of attributes, both in their order."""
    first, second = ([(name, tuple(values)) for name, values in each.items()] for each in (a, b))
    return first == second


def write_results(folder: Path, model: VAE, figures: Figures, test: Pictures) -> None:
    """Write figures, sheets of pictures and the card; the last only if train.py wrote one before."""
    write(folder / SAMPLES, draw_samples(model, test.images).save)
    sheet = grid(generate(model, range(SHEET)))
    write(folder / GENERATED, enlarge(sheet, max(SHEET_SIDE, *sheet.size)).save)
    figures.write(folder)
    if figures.training:
        card = model_card(folder.resolve().name, model.config, figures, [path.name for path in folder.iterdir()])
        write(folder / CARD, lambda path: path.write_text(card, encoding="utf-8"))


def report(name: str, figures: T) -> T:
    """Print figures, a dataclass or a table of them, one a line, and return them."""
    show(name, {key: to_json(row) for key, row in figures.items()} if isinstance(figures, dict) else to_json(figures))
    return figures


def show(name: str, value: Any, indent: str = "") -> None:
    """Print a figure, or a nested table of them."""
    if isinstance(value, dict):
        print(f"{indent}{name}:")
        for key, item in value.items():
            show(key, item, indent + "  ")
    else:
        print(f"{indent}{name:{26 - len(indent)}} " + (f"{value:.5f}" if isinstance(value, float) else f"{value}"))


def run() -> None:
    """Do as the arguments of the command line say; errors end the program with a sentence."""
    replace_unprintable()
    try:
        main(tyro.cli(Options, prog="python -m vae.evaluate"))
    except (ValueError, OSError) as error:
        sys.exit(f"vae.evaluate: {error}")


if __name__ == "__main__":
    run()
