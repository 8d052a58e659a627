"""Measure a model on pictures it was not trained on: python -m vae.evaluate weights/fashion-mnist"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae.data import DATASETS, load_dataset
from vae.hub import find_model, load_model, read_metrics
from vae.images import to_unit
from vae.loss import elbo, mean_error, optimal_log_scale
from vae.metrics import active_units, bits_per_dimension, psnr
from vae.model import VAE

CHUNK = 500


@torch.no_grad()
def calibrate(model: VAE, images: Tensor) -> None:
    """Set the model's log_scale to what makes images, (N, C, H, W) uint8, most likely: measured once the weights are fixed."""
    generator = torch.Generator(images.device).manual_seed(0)
    likelihood = model.config.likelihood
    error = torch.zeros_like(model.log_scale)
    for part in images.split(CHUNK):
        x = to_unit(part)
        error += mean_error(x, model(x, generator).reconstruction, likelihood) * (len(part) / len(images))
    model.log_scale.copy_(optimal_log_scale(error, likelihood))


@torch.no_grad()
def evaluate(model: VAE, images: Tensor) -> dict[str, Any]:
    """Measure a model in `eval()` on images, (N, C, H, W) uint8, on its device, with one sample of z for each picture.

    elbo, reconstruction, kl: means over pictures, in nats, under the model's own likelihood and scale.
    mse, psnr: of the reconstruction from the posterior mean, pixels in [0, 1], dB (of the mean squared error).
    """
    likelihood = model.config.likelihood
    generator = torch.Generator(images.device).manual_seed(0)
    sums = torch.zeros(3, dtype=torch.float64)
    squared_error = 0.0
    means = []
    for part in images.split(CHUNK):
        x = to_unit(part)
        output = model(x, generator)
        bound = elbo(x, output, likelihood, model.log_scale)
        sums += torch.stack([value.cpu().double().sum() for value in bound])  # summed there: MPS has no float64
        squared_error += (model.decode(output.posterior.mode()) - x).square().cpu().double().sum().item()
        means.append(output.posterior.mean.cpu())
    reconstruction, kl, total = (sums / len(images)).tolist()
    mse = squared_error / images.numel()
    return {
        "pictures": len(images),
        "elbo": total,
        "reconstruction": reconstruction,
        "kl": kl,
        "bits_per_dimension": bits_per_dimension(total, images[0].numel(), likelihood),
        "mse": mse,
        "psnr": psnr(mse),
        "scale": model.log_scale.exp().item(),
        "active_units": active_units(torch.cat(means)),
    }


def main(model: str, data_dir: Path = Path("data"), dataset: str | None = None) -> None:
    """Measure a model on the test set of its dataset and print the figures.

    Args:
        model: A bundled name, a folder that train.py wrote, or a Hub repo (owner/name).
        data_dir: Where the files of the dataset are, as for train.py.
        dataset: What to measure on, by default what the model's metrics.json names.
    """
    loaded = load_model(model)
    name = dataset or read_metrics(find_model(model)).get("dataset")
    if name not in DATASETS:
        raise ValueError(
            f"{model} doesn't say what it was trained on: name one of {', '.join(DATASETS)} with --dataset"
        )
    size = {"image_size": loaded.config.image_size, "channels": loaded.config.channels}
    for key, value in evaluate(loaded, load_dataset(name, data_dir, "test", **size).images).items():
        print(f"{key:20} {value:.5f}" if isinstance(value, float) else f"{key:20} {value}")


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m vae.evaluate", config=(tyro.conf.PositionalRequiredArgs,))
    except (ValueError, OSError) as error:
        sys.exit(f"vae.evaluate: {error}")
