"""The configuration of a model: with its weights, all there is to save."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

Likelihood = Literal["gaussian", "spectral", "bernoulli", "mse"]

MIN_IMAGE_SIZE = 16  # pixels a side
MAX_FIELD = 2**16  # more than any device has memory for
COARSEST_GRID = 7  # halving stops at this many cells a side or fewer
MAX_WIDENING = 4  # channels double at each stage, up to this multiple of the width


@dataclass(frozen=True)
class VAEConfig:
    """Describe a model completely.

    image_size: pixels a side, 16 or more; it must be divisible by `stride`, which follows from it.
    channels: 1 (grey) or 3 (RGB).
    latent_dim: length of the latent vector z.
    width: channels of the finest stage; each coarser stage has twice as many, up to four times.
    depth: residual blocks in each stage. The number of stages follows from image_size.
    likelihood: what the decoder's output means, see `vae.loss`.
    attribution: credit for the training pictures, to be shown with the model's pictures; may be missing in config.json.

    Raises ValueError naming the field and the value received.
    """

    image_size: int = 28
    channels: int = 1
    latent_dim: int = 32
    width: int = 32
    depth: int = 2
    likelihood: Likelihood = "gaussian"
    attribution: str = ""

    def __post_init__(self) -> None:
        for name, least in (
            ("image_size", MIN_IMAGE_SIZE),
            ("channels", 1),
            ("latent_dim", 1),
            ("width", 4),
            ("depth", 1),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= MAX_FIELD:
                raise ValueError(f"{name} must be a whole number from {least} to {MAX_FIELD}, got {value!r:.100}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {self.channels}")
        if self.likelihood not in get_args(Likelihood):
            raise ValueError(
                f"likelihood must be one of {', '.join(get_args(Likelihood))}, got {self.likelihood!r:.100}"
            )
        if not isinstance(self.attribution, str):
            raise ValueError(f"attribution must be a text, got {self.attribution!r:.100}")
        if not _is_divisible(self.image_size):
            below = next(
                (size for size in range(self.image_size, MIN_IMAGE_SIZE, -1) if _is_divisible(size)), MIN_IMAGE_SIZE
            )
            above = next(size for size in itertools.count(self.image_size) if _is_divisible(size))
            raise ValueError(
                f"image_size must halve evenly down to {COARSEST_GRID} cells a side or fewer, got {self.image_size}: "
                f"the nearest sizes are {below} and {above}"
            )

    @property
    def patch(self) -> int:
        """Side of the square of pixels that the stem folds into channels, so that no work is done at full size."""
        return _patch(self.image_size)

    @property
    def stages(self) -> int:
        """Number of resolutions, each half the one before, down to COARSEST_GRID cells a side or fewer."""
        return _stages(self.image_size)

    @property
    def stride(self) -> int:
        """Pixels a side of one cell of the coarsest grid."""
        return _stride(self.image_size)

    @property
    def stage_widths(self) -> list[int]:
        """Channels of each stage, finest first."""
        return [self.width * min(2**stage, MAX_WIDENING) for stage in range(self.stages)]

    @classmethod
    def from_dict(cls, values: Any) -> VAEConfig:
        """Build a config from the contents of a config.json. Raises ValueError on a missing or unknown key."""
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(values, dict):
            raise ValueError(f"a config must be a table of {', '.join(names)}, got {type(values).__name__}")
        for key in values:
            if key not in names:
                raise ValueError(f"unknown config key {key!r:.100}: expected {', '.join(names)}")
        for name in names:
            if name not in values and name != "attribution":  # older models lack it
                raise ValueError(f"config key {name!r} is missing")
        return cls(**values)


def _patch(image_size: int) -> int:
    return 2 if image_size <= 32 else 4 if image_size <= 64 else 8


def _stages(image_size: int) -> int:
    return 1 + max(0, math.ceil(math.log2(image_size / _patch(image_size) / COARSEST_GRID)))


def _stride(image_size: int) -> int:
    return _patch(image_size) * 2 ** (_stages(image_size) - 1)


def _is_divisible(image_size: int) -> bool:
    return image_size % _stride(image_size) == 0
