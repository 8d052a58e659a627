"""What goes wrong in a training, told from errors and figures, and said in words with what to try."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PARTS = "reconstruction", "KL divergence", "scale", "gradient"  # what is looked at in each step

COLLAPSED = 0.05  # part of the latent dimensions
COLLAPSE_ADVICE = (
    "the posterior has collapsed: hardly any latent dimension is active, so the decoder ignores the latents; early "
    "in a run it may recover; if not, try --kl-warmup 0.3, a lower --beta, or a longer run"
)

# What torch's errors say when memory ran out: on Linux, on Windows, on a GPU, within a library that it calls.
OUT_OF_MEMORY = "can't allocate memory", "not enough memory", "out of memory", "bad_alloc"
OUT_OF_MEMORY_ADVICE = "not enough memory: lower --batch-size, --samples, --width or --depth"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of Python, NumPy or torch says that memory ran out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)
    )


def first_line(error: BaseException) -> str:
    """Return what an error says, in a line of 100 letters at most; one that says nothing is called by its kind."""
    return f"{(str(error).strip() or type(error).__name__).splitlines()[0]:.100}"


def has_collapsed(active_units: int, latent_dim: int) -> bool:
    """Tell whether so few latent dimensions are active that the model is hardly an autoencoder any more."""
    return active_units <= COLLAPSED * latent_dim


def first_not_finite(parts: Tensor, first_step: int) -> str:
    """Say which of PARTS was not finite first, in steps from first_step on; parts: (steps, 4), on the CPU."""
    for step, row in enumerate(parts.tolist(), start=first_step):
        for name, value in zip(PARTS, row, strict=True):
            if not math.isfinite(value):
                return f"the {name} is {value} at step {step}"
    return f"the update of the weights is nan at step {first_step + len(parts) - 1}"
