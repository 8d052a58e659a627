"""Measure a model on pictures it was not trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae.images import to_unit
from vae.loss import elbo, optimal_log_scale
from vae.metrics import active_units, bits_per_dimension, psnr
from vae.model import VAE

CHUNK = 500


@torch.no_grad()
def calibrate(model: VAE, images: Tensor) -> None:
    """Set the model's log_scale to what makes images, (N, C, H, W) uint8, most likely: measured once the weights are fixed."""
    generator = torch.Generator(images.device).manual_seed(0)
    batch_scales = []
    for part in images.split(CHUNK):
        x = to_unit(part)
        batch_scales.append(optimal_log_scale(x, model(x, generator).reconstruction, model.config.likelihood))
    model.log_scale.copy_(torch.stack(batch_scales).mean())


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
        sums += torch.stack([value.double().sum() for value in bound]).cpu()
        squared_error += (model.decode(output.posterior.mode()) - x).double().square().sum().item()
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
