"""Measure the log-likelihood of binarized test pictures as papers do, by 5,000 samples of z for each, but in less time.

    python tests/benchmarks/likelihood.py measure FOLDER
    python tests/benchmarks/likelihood.py row --dataset mnist --prior flow --output FOLDER

The second command makes a row of the table from nothing: it trains for the evidence lower bound, then for the
importance-weighted one, and measures.

The log-likelihood differs so much between pictures that all 10,000 are needed, but what 5,000 samples add to the bound
of a few samples hardly differs. So the bound of a few samples is measured on all test pictures, and the gain of 5,000
on a random subset: the sum is an unbiased estimate of the bound of 5,000 samples on all.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from accelerate import PartialState

import train
from vae import VAE, StandardNormal
from vae.data import binarize, load_dataset
from vae.figures import Figures
from vae.images import to_unit
from vae.loss import importance_weighted_bound

LATENT_DIM = 40  # as in the published models of one level
VALIDATION = 10_000  # training pictures that are held out, as there
SAMPLES = 5  # of the importance-weighted bound (Burda et al. 2016, https://arxiv.org/abs/1509.00519)
FINISH_LR = 1.5e-3


def row(
    dataset: Literal["mnist", "fashion-mnist"],
    output: Path,
    prior: Literal["normal", "flow"] = "flow",
    data_dir: Path = Path("data"),
    epochs: float = 300,
    finish_epochs: float = 20,
    width: int = 40,
    batch_size: int = 256,
    seed: int = 0,
    few: int = 50,
    subset: int = 1000,
    chunk: int = 20_000,
) -> None:
    """Train a model of dynamically binarized pictures, and measure it: a row of the table.

    Args:
        dataset: What to train on.
        output: Folder for the two trainings, `bound` and `weighted`; the second is the model.
        prior: N(0, I), or a flow that learns with the model.
        data_dir: Where the files of the dataset are.
        epochs: Passes over the training pictures for the evidence lower bound.
        finish_epochs: Passes for the importance-weighted bound.
        width: Of the network.
        batch_size: Pictures in a step.
        seed: Of the weights, and of the binarization of the test pictures.
        few: As for `measure`.
        subset: As for `measure`.
        chunk: As for `measure`.
    """

    def learn(folder: Path, epochs: float, first: Path | None = None) -> Path:
        config = train.TrainConfig(
            data=train.DataOptions(dataset=dataset, data_dir=data_dir, binarize="dynamic", validation=VALIDATION),
            model=train.ModelOptions(**({"init": str(first)} if first else {"latent_dim": LATENT_DIM, "width": width})),
            loss=train.LossOptions(likelihood="bernoulli", prior=prior, samples=SAMPLES if first else 1),
            optimizer=train.OptimizerOptions(lr=FINISH_LR if first else None),
            run=train.RunOptions(epochs=epochs, batch_size=batch_size, seed=seed, keep="last" if first else "best"),
            output=train.OutputOptions(output=folder),
        )
        train.train(config)
        return folder

    last = learn(output / "weighted", finish_epochs, learn(output / "bound", epochs))
    measure(last, data_dir, few, subset=subset, chunk=chunk, write=True)


def measure(
    model: Annotated[Path, tyro.conf.Positional],
    data_dir: Path = Path("data"),
    few: int = 50,
    many: int = 5000,
    subset: int = 200,
    chunk: int = 100,
    write: bool = False,
) -> None:
    """Print the figures as JSON.

    Args:
        model: A folder that train.py wrote, with --binarize dynamic; p(z) is what it was trained with.
        data_dir: Where the files of its dataset are.
        few: Samples of z for each test picture.
        many: Samples of z for each picture of the subset.
        subset: How many test pictures have so many.
        chunk: Latent vectors decoded at once; a GPU wants more.
        write: Put the figures into the folder's metrics.json, too.
    """
    loaded, device = VAE.from_pretrained(model).to(memory_format=torch.channels_last), PartialState().device
    known = Figures.read(model)
    if not (known.dataset and known.training and known.training.binarize):
        raise ValueError(f"{model} was not trained by train.py --binarize dynamic")
    prior = copy.deepcopy(loaded.prior) if known.training.prior == "flow" else StandardNormal()
    loaded, prior, seed = loaded.to(device), prior.to(device), known.training.seed
    x = to_unit(binarize(load_dataset(known.dataset.name, data_dir, "test").images, seed)).to(device)
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:subset]
    began = time.monotonic()

    def bound(pictures: torch.Tensor, samples: int, seed: int) -> torch.Tensor:
        generator = torch.Generator(device).manual_seed(seed)
        values = importance_weighted_bound(loaded, pictures, samples, prior=prior, chunk=chunk, generator=generator)
        return values.cpu().double()

    all_few = bound(x, few, seed=0)
    gains = bound(x[chosen], many, seed=1) - all_few[chosen]
    # The two parts share pictures, so their errors are added as if they always went the same way.
    errors = [part.std().item() / math.sqrt(len(part)) for part in (all_few, gains)]
    figures: dict[str, float] = {
        "pictures": len(x),
        "few": few,
        "bound_of_few": all_few.mean().item(),
        "subset": len(chosen),
        "many": many,
        "gain_of_many": gains.mean().item(),
        "gain_standard_error": errors[1],
        "negative_log_likelihood": -(all_few.mean() + gains.mean()).item(),
        "standard_error": sum(errors),
        "minutes": (time.monotonic() - began) / 60,
    }
    print(json.dumps(figures, indent=2))
    if write:
        dataclasses.replace(known, published_likelihood=figures).write(model)


if __name__ == "__main__":
    try:
        tyro.extras.subcommand_cli_from_dict({"measure": measure, "row": row})
    except (ValueError, OSError) as error:
        sys.exit(f"likelihood.py: {error}")
