"""What follows a training, where it is asked for: priors, measurements of new pictures, and a map."""

from __future__ import annotations

from pathlib import Path

from vae.data import DATASETS
from vae.evaluate import __main__ as evaluation
from vae.evaluate import map as latent_map
from vae.figures import Figures
from vae.model import VAE
from vae.training.options import FinishOptions
from vae.training.setup import DataOptions


def evaluate(folder: Path, options: FinishOptions, data: DataOptions) -> None:
    """Fit priors and directions to the model in folder, measure it, and draw its map; all of it is written there."""
    figures = Figures.read(folder)
    has_prior = figures.training is not None and figures.training.prior == "flow"  # learned with the model
    evaluation.main(
        evaluation.Options(
            model=str(folder),
            data_dir=data.data_dir,
            dataset=data.dataset,
            pixel_range=data.pixel_range,
            fit_prior=not has_prior,
            prior=None if has_prior else options.new_pictures,
            fit_directions=VAE.from_pretrained(folder).directions is not None,
            write=True,
        )
    )
    if data.dataset in DATASETS and figures.test and figures.test.pictures >= latent_map.MIN_MAPPED:
        latent_map.main(latent_map.Options(model=str(folder), data_dir=data.data_dir))
