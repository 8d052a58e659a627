"""The bound that weights are chosen by: that which they are trained for, on pictures held out from training."""

from __future__ import annotations

import torch
from torch import Tensor

from vae.evaluate.measure import evaluate
from vae.figures import TestMetrics
from vae.images import to_unit
from vae.loss import calibrate, importance_weighted_bound
from vae.model import VAE

CALIBRATION = 5000  # training pictures on which the scale of the likelihood is measured


@torch.no_grad()
def measure_bound(
    model: VAE, images: Tensor, calibration: Tensor, *, tilt: float, beta: float, samples: int
) -> tuple[float, TestMetrics]:
    """Measure a model in `eval()` on images, once its scale is calibrated on others, both (N, C, H, W) uint8.

    Returns the bound that it is trained for, in nats, and the figures of `evaluate`.
    """
    calibrate(model, calibration[:CALIBRATION], tilt)
    metrics = evaluate(model, images, model.prior)
    if samples == 1:
        return metrics.reconstruction - beta * metrics.kl, metrics
    x = to_unit(images.to(model.log_scale.device))
    generator = torch.Generator(x.device).manual_seed(0)
    bounds = importance_weighted_bound(model, x, samples, prior=model.prior, beta=beta, generator=generator)
    return bounds.mean().item(), metrics
