"""Measure a model on pictures it was not trained on: python -m vae.evaluate weights/fashion-mnist"""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from accelerate import PartialState

from vae.attributes import AttributePrior
from vae.card import model_card
from vae.data import DATASETS, binarize, load_dataset
from vae.evaluate.features import CLASSIFIERS, Classifier, accuracy, load_features
from vae.evaluate.features import train as train_classifier
from vae.evaluate.fit import default_num_held_out, directions_of, fit_priors
from vae.evaluate.measure import (
    _named,
    draw_samples,
    evaluate,
    measure_attributes,
    measure_generation,
    measure_latents,
    measure_likelihood,
)
from vae.evaluate.metrics import pca_mse
from vae.files import CARD, GENERATED, METRICS, SAMPLES, read_metrics, write_json
from vae.files import write as write_whole
from vae.generate import generate
from vae.hub import BUNDLED, bundled_names, find_model, is_folder
from vae.images import enlarge, grid
from vae.model import VAE
from vae.prior import Prior, StandardNormal

SHEET, SHEET_SIDE = 100, 700  # pictures in generated.png, and how many pixels a side it is enlarged to


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
    loaded = VAE.from_pretrained(folder).to(memory_format=torch.channels_last).to(device)
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
            loaded.save_pretrained(folder)
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
    try:
        tyro.cli(main, prog="python -m vae.evaluate", config=(tyro.conf.PositionalRequiredArgs,))
    except (ValueError, OSError) as error:
        sys.exit(f"vae.evaluate: {error}")
