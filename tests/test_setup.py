"""What a training needs before its first step: options, and the pictures that they name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image

import train
from vae.decode import Values
from vae.figures import published_command
from vae.training.setup import DataOptions, load_split


@pytest.mark.parametrize(("pixel_range", "brightest"), [("auto", 255), ("full", 16)])
def test_the_range_of_16_bits_is_that_which_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixel_range: Values, brightest: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(12):  # of a camera of 12 bits: its white is 4,095 of 65,535
        values = np.full((32, 32), 4095, np.uint16)
        values[:, : index + 1] = 0
        Image.fromarray(values).save(pictures / f"{index}.png")
    data = DataOptions(dataset="folder", data_dir=pictures, image_size=32, channels=1, pixel_range=pixel_range)
    config = train.TrainConfig(data=data)
    split = load_split(Accelerator(cpu=True), data, train.describe_model(config, None), seed=0)
    assert split.train.amax() == split.test.amax() == brightest
    assert ("--pixel-range full" in published_command(config)) == (pixel_range == "full")
