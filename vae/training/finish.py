"""What follows a training, where it is asked for: priors, measurements of new pictures, and a map."""

from __future__ import annotations

import shlex
from pathlib import Path

from vae.data import DATASETS, HUB
from vae.evaluate import __main__ as evaluation
from vae.evaluate import map as latent_map
from vae.figures import Figures
from vae.model import VAE
from vae.training.options import FinishOptions
from vae.training.setup import DataOptions


def evaluate(folder: Path, options: FinishOptions, data: DataOptions) -> None:
    """Fit priors and directions to the model in folder, measure it, and draw its map; all of it is written there.

    Raises ValueError, which says that the model is there, if that can't be done or is interrupted.
    """
    name = str(folder.resolve())  # or a bundled model could be meant
    has_prior = False
    try:
        figures = Figures.read(folder)
        has_prior = figures.training is not None and figures.training.prior == "flow"  # learned with the model
        measured = evaluation.Options(
            model=name,
            data_dir=data.data_dir,
            dataset=data.dataset,
            pixel_range=data.pixel_range,
            fit_prior=not has_prior,
            prior=None if has_prior else options.new_pictures,
            fit_directions=VAE.from_pretrained(name).directions is not None,
            write=True,
        )
        evaluation.main(measured, or_likeliest=True)
        latent_dim = VAE.from_pretrained(name).config.latent_dim
        pictures = figures.test.pictures if figures.test else 0
        if data.dataset in DATASETS and latent_dim > 1 and pictures >= latent_map.MIN_MAPPED:
            latent_map.main(latent_map.Options(model=name, data_dir=data.data_dir, pixel_range=data.pixel_range))
    except (ValueError, OSError, RuntimeError, MemoryError, KeyboardInterrupt) as error:
        why = "stopped while it was measured" if isinstance(error, KeyboardInterrupt) else error
        again = ["python", "-m", "vae.evaluate", str(folder), "--data-dir", str(data.data_dir)]
        again += ["--dataset", data.dataset] if data.dataset.startswith(HUB) else []
        again += ["--pixel-range", data.pixel_range] if data.pixel_range != "auto" else []
        again += [] if has_prior else ["--fit-prior"]
        raise ValueError(
            f"{why}; the trained model is in {folder}, to measure it: {shlex.join([*again, '--write'])}"
        ) from error
