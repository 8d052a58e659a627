"""The figures of a model, as metrics.json holds them: typed, and parsed once, where the file is read.

Likelihoods, bounds and divergences are means over pictures, in nats; squared errors are of pixels in [0, 1], PSNR is in
dB; accuracies, precision and recall are from 0 to 1. A spread is the standard deviation over draws.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
import types
import warnings
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from vae.files import METRICS, WEIGHTS, fingerprint, read_json, write_json

MAX_SEED = 2**63 - 1
# Options that say nothing of the weights.
UNPUBLISHED = {"data_dir", "output", "push_to_hub", "push_only", "private", "checkpoint_minutes", "resume", "tracker"}
REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w.-]+)?")  # owner/name of the Hub, which is no path


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What the card says of a dataset; hub_id and model_licence as the Hub writes them."""

    name: str
    title: str
    source: str
    licence: str
    hub_id: str | None = None
    model_licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class TestMetrics:
    """One pass over test pictures, see `vae.evaluate.measure.evaluate`; sample_* are of samples of the posterior."""

    __test__ = False  # pytest would take it for a test

    pictures: int
    elbo: float
    reconstruction: float
    kl: float
    bits_per_dimension: float | None = None
    mse: float
    psnr: float
    ssim: float
    sample_mse: float
    sample_psnr: float
    sample_ssim: float
    scale: float
    active_units: int
    pca_mse: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How weights were trained; init is how the weights that the training began with were."""

    command: str
    pictures: int
    validation_pictures: int
    parameters: int
    device: str
    processes: int
    mixed_precision: str
    seed: int
    prior: str = "normal"
    binarize: str | None = None
    streaming: bool | None = None
    keep: str = "best"
    samples: int = 1
    steps: int
    epochs: float
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)
    init: TrainingRecord | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed must be from 0 to {MAX_SEED}, got {self.seed!r:.100}")

    def runs(self) -> list[TrainingRecord]:
        """Return the records of all trainings that led to the weights, the first one first."""
        return [*(self.init.runs() if self.init else []), self]


@dataclass(frozen=True, kw_only=True)
class Look:
    """One point of the curves of a training; test_* are only of models whose curves were drawn on test pictures."""

    step: int
    epochs: float
    minutes: float
    train_elbo: float
    validation_elbo: float
    validation_kl: float | None = None
    validation_mse: float | None = None
    test_elbo: float | None = None
    test_kl: float | None = None
    test_mse: float | None = None


@dataclass(frozen=True, kw_only=True)
class LikelihoodMetrics:
    """The importance-weighted bound; bound_with_prior is under a prior fitted after training."""

    pictures: int
    samples: int
    elbo: float
    bound: float
    standard_error: float
    bound_with_prior: float | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreMetrics:
    """Percentiles (0th to 100th) of the scores of test pictures, among which `place` ranks another picture.

    score: of `vae.generate.score`, in nats. typicality: of `vae.generate.typicality`, in nats. lower: of the lower one of
    a picture's two places among those, from 0 to 100.
    """

    pictures: int
    score: list[float]
    typicality: list[float]
    lower: list[float]

    def place(self, score: float, typicality: float) -> float:
        """Return the percentage of test pictures that are less typical than a picture of that score and typicality."""
        lower = min(place_among(self.score, score), place_among(self.typicality, typicality))
        return place_among(self.lower, lower)


def place_among(percentiles: Sequence[float], value: float) -> float:
    """Return where a value lies among the 0th to 100th percentiles, from 0 to 100; NaN is at 0."""
    index = bisect_left(percentiles, value)
    if index == 0 or not value > percentiles[0]:
        return 0.0
    if index >= len(percentiles):
        return 100.0
    low, high = percentiles[index - 1], percentiles[index]
    return 100 * (index - 1 + (value - low) / (high - low)) / (len(percentiles) - 1)


@dataclass(frozen=True, kw_only=True)
class LatentMetrics:
    """How the latent space is used, see `vae.evaluate.measure.measure_latents`."""

    pictures: int
    kl: float
    mutual_information: float
    mutual_information_at_most: float | None = None
    marginal_kl: float
    marginal_kl_at_least: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far sets of pictures are from test pictures: mean and spread over draws."""

    frechet: float
    frechet_spread: float
    precision: float
    precision_spread: float | None = None
    recall: float
    recall_spread: float | None = None


@dataclass(frozen=True, kw_only=True)
class GenerationMetrics:
    """New pictures compared with real ones in the features of a dataset's classifier, which has this accuracy."""

    features: str
    accuracy: float | None = None
    pictures: int
    seeds: int
    training_pictures: Comparison
    reconstruction: Comparison
    standard_normal: Comparison
    prior: Comparison | None = None


@dataclass(frozen=True, kw_only=True)
class PriorMetrics:
    """A fitted prior: the log-likelihood of the latent vectors of held-out pictures, and its new pictures."""

    held_out: float
    generation: Comparison | None = None


@dataclass(frozen=True, kw_only=True)
class AttributeMetrics:
    """How well an attribute can be edited, see `vae.evaluate.measure.measure_attributes`.

    real, reconstructed, edited: accuracies of a classifier; edited_by_value: those of edits to each value, by its name;
    kept: of all other attributes after the edit, by name.
    """

    pictures: int
    real: float
    reconstructed: float
    edited: float | None = None
    edited_by_value: dict[str, float] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """All that is known of a model, each part of it only if it was measured.

    weights: fingerprint of the weights that the figures are of, see `vae.files.fingerprint`.
    """

    dataset: DatasetFacts | None = None
    weights: str | None = None
    test: TestMetrics | None = None
    training: TrainingRecord | None = None
    history: list[Look] = field(default_factory=list)
    likelihood: LikelihoodMetrics | None = None
    published_likelihood: dict[str, float] = field(default_factory=dict)  # see tests/benchmarks/likelihood.py
    scores: ScoreMetrics | None = None
    latents: LatentMetrics | None = None
    generation: GenerationMetrics | None = None
    priors: dict[str, PriorMetrics] = field(default_factory=dict)
    attributes: dict[str, AttributeMetrics] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Figures:
        """Read folder/metrics.json; all is empty if there is none, or, with a warning, if it is of other weights than those there.

        Raises ValueError if it is too large, or not what `write` writes.
        """
        path = folder / METRICS
        if not path.exists():
            return cls()
        values = read_json(path)
        try:
            figures = parse(cls, values, "metrics")
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} is not what this version writes ({error}): remove it, or train the model again"
            ) from error
        if figures.weights and (folder / WEIGHTS).is_file() and figures.weights != fingerprint(folder):
            warnings.warn(f"{path} is of other weights than those beside it and is not used", stacklevel=2)
            return cls()
        return figures

    def write(self, folder: Path) -> None:
        """Write folder/metrics.json, whole or not at all. Raises ValueError if a figure is not finite."""
        write_json(folder / METRICS, to_json(self))

    def without_prior(self) -> Figures:
        """Return those figures in which a prior and directions, which can be fitted after training, have no part."""
        return dataclasses.replace(
            self,
            test=None if self.training and self.training.prior == "flow" else self.test,
            likelihood=None,
            scores=None,
            latents=None,
            generation=None,
            priors={},
            attributes={},
        )


def to_json(figures: Any) -> dict[str, Any]:
    """Turn a dataclass into what JSON can hold, without what is missing or empty."""
    return dataclasses.asdict(figures, dict_factory=lambda items: {k: v for k, v in items if v not in (None, [], {})})


def parse(kind: Any, value: Any, where: str) -> Any:
    """Build what `kind` says from JSON: dataclasses, `X | None`, lists and tables of those, texts and finite numbers.

    where: what to call the value in errors. Unknown keys are ignored: a later version may write more.
    Raises ValueError.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):  # X | None
        return None if value is None else parse(arguments[0], value, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        given = {}
        for each in dataclasses.fields(kind):
            if each.name in value:
                given[each.name] = parse(hints[each.name], value[each.name], f"{where}.{each.name}")
            elif each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
                raise ValueError(f"{where} has no {each.name}")
        return kind(**given)
    if origin is list and isinstance(value, list):
        return [parse(arguments[0], item, where) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: parse(arguments[1], item, f"{where}.{key:.100}") for key, item in value.items()}
    if kind is float:
        if type(value) in (int, float) and abs(value) <= sys.float_info.max:  # neither NaN nor infinite
            return float(value)
    elif type(value) is kind:
        return value
    raise ValueError(f"{where} must be a {getattr(kind, '__name__', kind)}, got {json.dumps(value)[:100]}")


def published_command(config: Any, usual: Any, program: str = "python train.py") -> str:
    """Write the command that gives the dataclass `config`, without what is the user's own: no folder, no path.

    Only the dataset and options that differ from the usual ones, another such dataclass, are named; those in a group (a
    nested dataclass) without its name.
    """
    return shlex.join([*program.split(), *_options(config, usual)])


def _options(config: Any, usual: Any) -> list[str]:
    words: list[str] = []
    for each in dataclasses.fields(config):
        value, default = getattr(config, each.name), getattr(usual, each.name)
        if dataclasses.is_dataclass(value):
            words += _options(value, default)
        elif (value != default or each.name == "dataset") and each.name not in UNPUBLISHED:
            name = each.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{name}" if value else f"--no-{name}")
            else:
                items = value if isinstance(value, tuple | list) else [value]
                words += [f"--{name}", *(last_part(str(item)) for item in items)]
    return words


def last_part(word: str) -> str:
    """Reduce a path to its last part, which says nothing of the machine; leave owner/name of the Hub as it is.

    So are its datasets, written hub:owner/name:split:column.
    """
    repo = word.removeprefix("hub:").partition(":")[0] if word.startswith("hub:") else word
    if REPO.fullmatch(repo) and not Path(repo).exists():
        return word
    return re.split(r"[/\\]", word.rstrip("/\\"))[-1]


def format_mse(mse: float) -> str:
    """Write a mean squared error of pixels with at least two significant digits."""
    return f"{mse:.5f}" if mse >= 0.001 else f"{mse:.6f}"
