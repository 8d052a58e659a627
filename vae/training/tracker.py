"""What is shown of a run while it goes on, in TensorBoard, Trackio or Weights & Biases: through accelerate."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch import Tensor

from vae.evaluate.measure import draw_samples, encode_images
from vae.figures import Look, TestMetrics
from vae.model import VAE


def track(
    accelerator: Accelerator,
    step: int,
    look: Look,
    validation: TestMetrics,
    training: tuple[float, ...],
    images_per_second: float,
    model: VAE,
    held_out: Tensor,
) -> None:
    """Tell the tracker of a look, if there is one; to be called by the main process.

    training: reconstruction and KL divergence in nats, and σ, of the last batch. held_out: the pictures that were looked at,
    (N, C, H, W) uint8, of which the KL divergence of each latent dimension and a sheet of pictures are shown.
    """
    if not accelerator.trackers:
        return
    values = {name: value for name, value in asdict(look).items() if value is not None and name != "step"}
    values |= dict(zip(("train_reconstruction", "train_kl", "train_scale"), training, strict=True))
    values |= {"validation_reconstruction": validation.reconstruction, "scale": validation.scale}
    values |= {"active_units": validation.active_units, "images_per_second": images_per_second}
    mean, logvar = encode_images(model, held_out)
    of_dimensions = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean(dim=0)  # (D,) in nats
    values |= {f"kl_of_dimension/{index:03}": value for index, value in enumerate(of_dimensions.tolist())}
    accelerator.log(values, step=step)
    sheet = draw_samples(model, held_out).convert("RGB")
    for tracker in accelerator.trackers:
        _show(tracker, np.asarray(sheet), step)


def _show(tracker: Any, sheet: np.ndarray, step: int) -> None:
    """Show a sheet of samples, (H, W, 3) uint8."""
    if tracker.name == "tensorboard":
        tracker.log_images({"samples": sheet[None]}, step=step, dataformats="NHWC")
    elif tracker.name == "wandb":
        tracker.log_images({"samples": [sheet]}, step=step)
    elif tracker.name == "trackio":
        import trackio

        tracker.log({"samples": trackio.Image(sheet)}, step=step)
