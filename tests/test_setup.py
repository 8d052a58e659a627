"""What a training needs before its first step: options, and the pictures that they name."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image

import train
from vae.decode import Values
from vae.figures import published_command
from vae.training.setup import DataOptions, load_split, make_accelerator


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


def test_a_tracker_that_is_not_installed_gets_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae.training.setup.get_available_trackers", list)
    with pytest.raises(ValueError, match="--tracker wandb needs a package that is not installed: pip install wandb"):
        make_accelerator("no", tracker="wandb")


def test_curves_are_tracked_and_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    script = (
        "from train import ModelOptions, OutputOptions, RunOptions, TrainConfig, train\n"
        "from vae.data import load_examples\n"
        "config = TrainConfig(\n"
        "    model=ModelOptions(latent_dim=8, width=8, depth=1),\n"
        "    run=RunOptions(epochs=10, evaluations=3),\n"
        "    output=OutputOptions(tracker='tensorboard'),\n"
        ")\n"
        "train(config, pictures=load_examples('mnist').images)\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "events = EventAccumulator('runs/own').Reload()\n"
        "for name in ('validation_elbo', 'scale', 'images_per_second'):\n"
        "    print(name, *(f'{event.step}:{event.value:.5g}' for event in events.Scalars(name)))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "weights" / "own" / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 2
    shown = " ".join(f"{row['step']}:{float(row['validation_elbo']):.5g}" for row in rows)
    assert f"validation_elbo {shown}\n" in done.stdout
    assert done.stdout.count(f"{rows[-1]['step']}:") == 3
