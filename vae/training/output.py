"""The folder that a training writes: a whole model at every moment, never the figures or pictures of other weights."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure
from PIL import Image

from vae.card import model_card
from vae.figures import Figures, Look
from vae.files import (
    CARD,
    CONFIG,
    CURVES,
    CURVES_TABLE,
    GENERATED,
    LATENTS,
    MAP,
    METRICS,
    PRIOR,
    SAMPLES,
    WEIGHTS,
    fingerprint,
    write,
)
from vae.model import VAE

STAGING = ".new"  # folder within the output in which the next model is written
# The weights, which carry their config, come first; what was fitted to other weights is told by its fingerprint.
MODEL_FILES = WEIGHTS, CONFIG, PRIOR, LATENTS, MAP
ABOUT_WEIGHTS = (
    CARD,
    METRICS,
    SAMPLES,
    CURVES,
    CURVES_TABLE,
    GENERATED,
)  # what can't be told to be of other weights, but for METRICS


@dataclass
class OutputOptions:
    """Where the model goes."""

    output: Path | None = None
    """Folder to write, by default weights/DATASET. A model there is replaced once the new one is better than
    random weights."""
    push_to_hub: str | None = None
    """Hub repo (owner/name) to push the model to. Before training, it is created if missing, and write access is
    checked; the token is that of `hf auth login` or HF_TOKEN."""
    push_only: Path | None = None
    """Push the model in this folder instead of training one."""
    private: bool = False
    """Make the repo private, if it is created."""
    tracker: Literal["trackio", "tensorboard", "wandb", "none"] = "none"
    """Also log metrics to this tracker during the run; for tensorboard, to the folder `runs`."""

    def __post_init__(self) -> None:
        if self.push_to_hub is None and (self.push_only or self.private):
            raise ValueError("--push-only and --private need --push-to-hub owner/name")


class Output:
    """A folder that a training writes.

    A model is first written beside the one that is there. If the disk is full, that one stays as it is. Then files about
    the old weights go, the weights are replaced, and the new files follow: a program that ends in between leaves a folder
    that loads, as the old weights or as the new ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder. Raises OSError if nothing can be written there: now, not after an hour."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._staging():
            pass

    def fingerprint(self) -> str | None:
        """Return the fingerprint of the weights that are there; None if there are none, or broken ones."""
        try:
            return fingerprint(self.folder)
        except ValueError:
            return None

    def replace(self, model: VAE, figures: Figures, samples: Image.Image) -> Figures:
        """Replace whatever model is there; return the figures with the fingerprint of these weights."""
        with self._staging() as new:
            model.save_pretrained(new)
            figures = replace(figures, weights=fingerprint(new))
            figures.write(new)
            write(new / SAMPLES, samples.save)
            write_curves(new, figures.history)
            for name in ABOUT_WEIGHTS:
                (self.folder / name).unlink(missing_ok=True)
            for name in (*MODEL_FILES, *ABOUT_WEIGHTS):
                if (new / name).exists():
                    os.replace(new / name, self.folder / name)
                elif name in MODEL_FILES:
                    (self.folder / name).unlink(missing_ok=True)
        return figures

    def update(self, figures: Figures) -> None:
        """Write figures and curves of the model that is there."""
        write_curves(self.folder, figures.history)
        figures.write(self.folder)

    def write_card(self, model: VAE, figures: Figures) -> None:
        """Write the card of the model that is there."""
        card = model_card(
            self.folder.resolve().name, model.config, figures, [path.name for path in self.folder.iterdir()]
        )
        write(self.folder / CARD, lambda path: path.write_text(card, encoding="utf-8"))

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        new = self.folder / STAGING
        shutil.rmtree(new, ignore_errors=True)  # of a program that was killed
        new.mkdir()
        try:
            yield new
        finally:
            shutil.rmtree(new, ignore_errors=True)


def write_curves(folder: Path, history: Sequence[Look]) -> None:
    """Write the curves of a training into a folder, as a picture and as a table."""

    def write_table(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, [each.name for each in fields(Look)])
            table.writeheader()
            table.writerows(map(asdict, history))

    write(folder / CURVES, draw_curves(history).savefig)
    write(folder / CURVES_TABLE, write_table)


def draw_curves(history: Sequence[Look]) -> Figure:
    """Draw how the bound, the KL divergence and the error went over the epochs."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, title, names in (
        (panels[0], "ELBO (nats)", ("train_elbo", "validation_elbo")),
        (panels[1], "KL divergence (nats)", ("validation_kl",)),
        (panels[2], "mean squared error", ("validation_mse",)),
    ):
        for name in names:
            values = [getattr(look, name) for look in history]
            panel.plot([look.epochs for look in history], values, marker=".", label=name.partition("_")[0])
        panel.set(title=title, xlabel="epoch")
        panel.grid(alpha=0.3)
        panel.legend()
    return figure
