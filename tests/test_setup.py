"""What a training needs before its first step: options, and the pictures that they name."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

import train
from vae.decode import Values
from vae.figures import published_command
from vae.training.setup import DataOptions, fits, load_split, make_accelerator, say_place
from vae.training.tracker import _show


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
    assert isinstance(split.train, torch.Tensor)
    assert split.train.amax() == split.test.amax() == brightest
    assert ("--pixel-range full" in published_command(config, train.recipe("folder"))) == (pixel_range == "full")


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
        "for name in ('validation_elbo', 'train_kl', 'scale', 'kl_of_dimension/007', 'images_per_second'):\n"
        "    print(name, *(f'{event.step}:{event.value:.5g}' for event in events.Scalars(name)))\n"
        "print('sheets', *(f'{event.step}:{event.width}' for event in events.Images('samples')))\n"
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
    assert done.stdout.count(f"{rows[-1]['step']}:") == 6


def test_every_tracker_is_shown_samples() -> None:
    trackio = pytest.importorskip("trackio")
    sheet, shown = np.zeros((4, 6, 3), np.uint8), []

    def note(values: dict[str, Any], **options: Any) -> None:
        shown.append(values["samples"])

    for name in ("tensorboard", "wandb", "trackio"):
        _show(SimpleNamespace(name=name, log=note, log_images=note), sheet, step=1)
    of_tensorboard, of_wandb, of_trackio = shown
    assert of_tensorboard.shape == (1, 4, 6, 3)
    assert [picture.shape for picture in of_wandb] == [(4, 6, 3)]
    assert isinstance(of_trackio, trackio.Image)


@pytest.mark.parametrize(("free", "is_there"), [(150, True), (50, False)])
def test_pictures_live_on_a_gpu_that_has_room_for_them(
    free: int, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, 1000))
    assert fits(30, torch.device("cpu"))
    assert fits(30, torch.device("cuda")) == is_there
    said = say_place(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.device("cuda"))
    assert "too large for the device" in said
