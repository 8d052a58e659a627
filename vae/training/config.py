"""The configuration of a training, and what it is by default for each dataset."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field

from vae.data import OWN, spec_of
from vae.training.options import FinishOptions, LossOptions, OptimizerOptions, RunOptions, with_options
from vae.training.output import OutputOptions
from vae.training.setup import DataOptions, ModelOptions


@dataclass
class TrainConfig:
    """Train a variational autoencoder and write it, with figures and pictures, into a folder."""

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    run: RunOptions = field(default_factory=RunOptions)
    finish: FinishOptions = field(default_factory=FinishOptions)
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        if self.data.binarize and self.loss.likelihood != "bernoulli":
            raise ValueError(f"--binarize needs --likelihood bernoulli, got {self.loss.likelihood}")
        if self.loss.prior == "flow" and self.model.latent_dim is not None and self.model.latent_dim < 2:
            raise ValueError(f"--prior flow needs --latent-dim 2 or more, got {self.model.latent_dim}")
        if self.finish.evaluate and self.data.dataset == OWN:
            raise ValueError(
                "--evaluate needs a dataset that has a name: measure your own pictures with vae.evaluate.measure"
            )
        if self.finish.evaluate and self.data.streaming:
            raise ValueError("--evaluate holds all pictures in memory: leave it or --streaming out")


def recipe(dataset: str, init: str | None = None) -> TrainConfig:
    """Return the configuration that is good for a dataset: of mnist, for example, that of the bundled model.

    init: the model to begin with, if there is one, whose architecture stays as it is.
    Raises ValueError if there is no such dataset.
    """
    usual = TrainConfig(data=DataOptions(dataset=dataset), model=ModelOptions(init=init))
    architecture = asdict(usual.model) if init else {}
    return with_options(usual, {**spec_of(dataset).recipe, **architecture})


def peek(arguments: list[str] | None) -> argparse.Namespace:
    """Return those options that say what the others are by default."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--dataset", default=DataOptions.dataset)
    for name in ("--init", "--resume"):
        parser.add_argument(name, type=lambda word: None if word == "None" else word)
    try:
        return parser.parse_known_args(arguments)[0]
    except argparse.ArgumentError:  # the whole parser says it better
        return parser.parse_args([])
