"""How long to train, how often to measure and to write a checkpoint, and which weights to keep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class RunOptions:
    """How long to train, and which weights to keep."""

    epochs: float = 30
    """Passes over the training pictures. A run that goes on (--resume) may be given more, or fewer: from then on, its
    learning rate is what it would be had they been asked for at the start."""
    minutes: float | None = None
    """Train for so long instead of for a number of epochs, however fast the machine is."""
    batch_size: int = 64
    """Pictures in a step, over all processes together. More than 128 learn less in the same time, unless the device is
    much faster with them."""
    evaluations: int = 10
    """How often to measure and save in the course of the run, if that takes no more than a tenth of the time."""
    keep: Literal["best", "last"] = "best"
    """Which weights to keep: the best by the bound on pictures held out from training, or the last. The bound may stand
    still while pictures get sharper."""
    seed: int = 0
    """The same seed on the same machine, with the same number of threads, gives the same initial weights, order of
    pictures and noise. Not so with --minutes, where the clock has a say."""
    checkpoint_minutes: float = 5
    """Write a checkpoint so often, from which --resume goes on. The last two are kept, and removed when the run ends."""
    resume: Path | None = None
    """Go on with the run that was stopped or killed while it wrote this folder: to the bit as if nothing had happened, on
    the same device and number of processes. All options are those of that run; only --epochs and --minutes may change."""

    def __post_init__(self) -> None:
        for name in ("epochs", "minutes", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                raise ValueError(f"--{name.replace('_', '-')} must be more than 0 and less than a million, got {value}")
        for name in ("batch_size", "evaluations"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"--seed must be a number from 0 to {2**31 - 1}, got {self.seed}")
