"""What a training maximizes, how it follows the gradient, how long, and which weights it keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from vae.config import Likelihood
from vae.loss import SPECTRAL_TILT

T = TypeVar("T")

MAX_EVALUATIONS = 1000  # each adds to metrics.json


@dataclass
class LossOptions:
    """What to maximize: reconstruction log-likelihood minus KL divergence."""

    likelihood: Likelihood = "spectral"
    """The distribution p(x|z): gaussian (one calibrated σ), spectral (one σ per frequency, for sharper pictures),
    bernoulli (for black-and-white pictures) or mse (σ = 1, as in tutorials, which blurs)."""
    tilt: float = SPECTRAL_TILT
    """For `spectral`: 0 uses the same σ for all frequencies, 1 the σ measured at each. Values near 1 from the start can make
    training fail."""
    beta: float = 1.0
    """Weight of the KL divergence. 1 gives the evidence lower bound; with more, fewer latent dimensions are used."""
    kl_warmup: float = 0.0
    """Fraction of the run in which the weight of the KL divergence rises from 0 to beta."""
    samples: int = 1
    """Latent vectors to draw for each picture. More than one trains the importance-weighted bound (IWAE), which is
    closer to the log-likelihood; each costs one more decoder pass. Best for the end of training (--init)."""
    prior: Literal["normal", "flow"] = "normal"
    """The prior p(z): N(0, I), or a normalizing flow that is trained jointly and saved with the model."""

    def __post_init__(self) -> None:
        if not 0 <= self.tilt <= 1:
            raise ValueError(f"--tilt must be from 0 to 1, got {self.tilt}")
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"--beta must be 0 or a positive number, got {self.beta}")
        if not 0 <= self.kl_warmup <= 1:
            raise ValueError(f"--kl-warmup must be a fraction of the run, from 0 to 1, got {self.kl_warmup}")
        if self.samples < 1:
            raise ValueError(f"--samples must be at least 1, got {self.samples}")


@dataclass
class OptimizerOptions:
    """How to follow the gradient."""

    lr: float | None = None
    """Peak learning rate: by default 0.004, or 0.0004 with --init, to keep what the weights have learnt (for a new
    dataset, set 0.004). It rises over the first 3 % of the run, then falls along a cosine."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """auto takes bf16 where the device is fast in it: NVIDIA GPUs since Ampere, CPUs with AMX or AVX-512 BF16. fp16 is for
    older GPUs. The loss is computed in float32 in any case."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the model with torch.compile, which takes up to a minute at the start. auto tries it on a GPU, if the run is
    long enough, and keeps it if it saves more time than it takes. On a CPU it needs a C++ compiler and seldom pays."""
    cuda_graph: Literal["auto", "on", "off"] = "auto"
    """Replay each step as one CUDA graph, instead of launching its thousands of kernels one by one. auto does so on one
    GPU, except in fp16."""

    def __post_init__(self) -> None:
        if self.lr is not None and not 0 < self.lr < 1e6:
            raise ValueError(f"--lr must be more than 0 and less than a million, got {self.lr}")


@dataclass
class RunOptions:
    """How long to train, and which weights to keep."""

    epochs: float = 30
    """Passes over the training pictures. A resumed run (--resume) may get more or fewer: from then on, its learning
    rate follows the schedule for the new number."""
    minutes: float | None = None
    """Train for this many minutes instead of a number of epochs."""
    batch_size: int = 64
    """Pictures per step, over all processes. With more than 128, less is learnt in the same time, unless the device is
    much faster with larger batches."""
    evaluations: int = 10
    """How many times to evaluate and save during the run, as long as that takes at most a tenth of the time."""
    keep: Literal["best", "last"] = "best"
    """Which weights to keep: the best by the bound on pictures held out from training, or the last. The bound may
    plateau while pictures get sharper."""
    seed: int = 0
    """The same seed on the same machine, with the same number of threads, gives the same initial weights, order of
    pictures and noise. Not with --minutes, which depends on the clock."""
    checkpoint_minutes: float = 5
    """Minutes between checkpoints, from which --resume continues. The last two are kept, and deleted when the run
    ends."""
    resume: Path | None = None
    """Continue the stopped or killed run in this folder, bit for bit, on the same device and number of processes. Its
    options are reused; only --epochs and --minutes may change."""

    def __post_init__(self) -> None:
        for name in ("epochs", "minutes", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                raise ValueError(f"--{name.replace('_', '-')} must be more than 0 and less than a million, got {value}")
        for name in ("batch_size", "evaluations"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.evaluations > MAX_EVALUATIONS:
            raise ValueError(f"--evaluations must be at most {MAX_EVALUATIONS:,}, got {self.evaluations}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"--seed must be a number from 0 to {2**31 - 1}, got {self.seed}")


@dataclass
class FinishOptions:
    """What follows the training."""

    evaluate: bool = False
    """Fit priors to the latent vectors of the training pictures, measure new pictures of each, and draw the map, as
    `python -m vae.evaluate --fit-prior --write` and `python -m vae.evaluate.map` do. It takes some minutes."""
    new_pictures: Literal["normal", "gaussian", "mixture", "flow", "attributes"] | None = None
    """With --evaluate, the prior for new pictures, if it is better than N(0, I): by default the one with the highest
    log-likelihood of held-out latent vectors."""


def with_options(config: T, options: Mapping[str, Any]) -> T:
    """Return a configuration of nested dataclasses in which these options, whatever group they are in, have other values."""
    changes: dict[str, Any] = {}
    for each in fields(config):  # type: ignore[arg-type]
        value = getattr(config, each.name)
        if is_dataclass(value):
            changes[each.name] = with_options(value, options)
        elif each.name in options:
            changes[each.name] = options[each.name]
    return replace(config, **changes)  # type: ignore[type-var]
