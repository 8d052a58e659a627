"""The test pictures that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vae.data.specs import DATASETS, Pictures

EXAMPLES = Path(__file__).parents[1] / "examples"


def load_examples(name: str) -> Pictures:
    """Load the test pictures of a dataset that come with the package: no download, no data_dir.

    240 of mnist and of fashion-mnist, 24 of each class, and 48 avatars. Raises ValueError if none come for that name.
    """
    sheet = EXAMPLES / f"{name}.png"
    if name not in DATASETS or not sheet.is_file():
        known = ", ".join(sorted(path.stem for path in EXAMPLES.glob("*.png")))
        raise ValueError(f"no example pictures come for {name!r}, only for {known}")
    spec = DATASETS[name]
    size = spec.image_size
    with Image.open(sheet) as picture:
        pixels, listed = torch.from_numpy(np.array(picture)), picture.info.get("labels")
    tiles = pixels.view(pixels.shape[0] // size, size, pixels.shape[1] // size, size, spec.channels)
    images = tiles.permute(0, 2, 4, 1, 3).flatten(0, 1).contiguous()  # (N, C, H, W)
    if listed:
        labels = torch.tensor(json.loads(listed))
    else:  # one row of the sheet is one class
        labels = torch.arange(tiles.shape[0]).repeat_interleave(tiles.shape[2])[:, None]
    return Pictures(images, labels, spec.attributes)
