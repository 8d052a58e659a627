"""The real training program, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from vae import VAE, reconstruct
from vae.hub import read_metrics
from vae.images import to_pil

SMALL = [
    "--dataset",
    "folder",
    "--image-size",
    "28",
    "--channels",
    "1",
    "--width",
    "8",
    "--depth",
    "1",
    "--latent-dim",
    "8",
]
WHOLE = {"config.json", "model.safetensors", "metrics.json", "README.md", "samples.png", "curves.png"}


@pytest.fixture
def pictures(tmp_path: Path, sneakers: Tensor) -> Path:
    """A folder of 16 pictures, of which training takes 13, validation 2 and test 1."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, sneaker in enumerate(sneakers[:16]):
        to_pil(sneaker).save(folder / f"{index:02}.png")
    return folder


def train(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, "train.py", *map(str, arguments)]
    environment = os.environ | ({"ACCELERATE_USE_CPU": "true"} if launcher else {})
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def assert_whole(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == WHOLE
    metrics = read_metrics(folder)
    model = VAE.from_pretrained(folder)
    assert metrics["training"]["parameters"] == model.config.num_parameters
    assert metrics["test"]["scale"] == pytest.approx(model.log_scale.exp().item())
    for name in ("samples.png", "curves.png"):
        with Image.open(folder / name) as picture:
            picture.load()


def test_it_learns_16_pictures_by_heart(pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = train(*SMALL, "--data-dir", pictures, "--output", output, "--epochs", 600, "--lr", 5e-3, "--evaluations", 3)
    assert done.returncode == 0, done.stderr
    assert "test ELBO" in done.stdout
    assert_whole(output)
    metrics = read_metrics(output)
    assert [round(row["epochs"]) for row in metrics["history"]] == [200, 400, 600]
    (cache,) = (pictures / ".vae-cache").iterdir()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))[1:14]  # those that were trained on
    import numpy as np

    with np.load(cache) as stored:
        x = torch.from_numpy(stored["images"])[order] / 255
    error = (reconstruct(VAE.from_pretrained(output), x) - x).square().mean()
    spread = (x - x.mean(0)).square().mean()
    assert error < 0.15 * spread


def test_the_same_seed_gives_the_same_weights(pictures: Path, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        done = train(*SMALL, "--data-dir", pictures, "--output", tmp_path / name, "--epochs", 20, "--seed", seed)
        assert done.returncode == 0, done.stderr
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_two_processes_train_one_model(pictures: Path, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    arguments = (*SMALL, "--data-dir", pictures, "--output", tmp_path / "out", "--epochs", 30, "--kl-warmup", 0.5)
    done = train(*arguments, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "out")
    metrics = read_metrics(tmp_path / "out")
    assert metrics["training"]["processes"] == 2
    assert metrics["training"]["steps"] == 30
    assert done.stdout.count("test ELBO") == len(metrics["history"]) + 1  # one process speaks, and says the best again


@pytest.mark.parametrize("likelihood", ["laplace", "bernoulli", "mse"])
def test_every_likelihood_trains_in_bf16(pictures: Path, tmp_path: Path, likelihood: str) -> None:
    arguments = ("--epochs", 20, "--likelihood", likelihood, "--mixed-precision", "bf16", "--beta", 0.5)
    done = train(*SMALL, "--data-dir", pictures, "--output", tmp_path / "out", *arguments)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "out")
    assert VAE.from_pretrained(tmp_path / "out").config.likelihood == likelihood


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_order_with_the_best_weights_saved(
    pictures: Path, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = (*SMALL, "--data-dir", pictures, "--output", tmp_path / "out", "--minutes", 60, "--evaluations", 5000)
    command = [sys.executable, "train.py", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "test ELBO" in process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "stopped after" in out.splitlines()[-1]
    assert str(tmp_path / "out") in out.splitlines()[-1]
    assert_whole(tmp_path / "out")


def test_a_run_that_diverges_says_which_part_and_writes_nothing_unusable(pictures: Path, tmp_path: Path) -> None:
    done = train(*SMALL, "--data-dir", pictures, "--output", tmp_path / "out", "--epochs", 200, "--lr", 1e30)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("train.py: the ")
    assert any(f"the {part} is " in last for part in ("reconstruction", "KL divergence", "scale"))
    assert "nothing was written to" in last
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--epochs", "-1"), "--epochs must be a positive number, got -1"),
        (("--minutes", "nan"), "--minutes must be a positive number, got nan"),
        (("--batch-size", "0"), "--batch-size must be at least 1, got 0"),
        (("--kl-warmup", "2"), "--kl-warmup is a part of the run"),
        (("--seed", "-5"), "--seed must be a number from 0"),
        (("--width", "1000000"), "width must be a whole number from 4 to 512, got 1000000"),
        (("--image-size", "30"), "image_size must be divisible by 4, got 30: the nearest sizes are 28 and 32"),
        (("--mixed-precision", "fp16"), "fp16 does not train on a CPU"),
        (("--data-dir", "nowhere"), "there is no folder nowhere"),
        (("--output", "train.py"), "File exists: 'train.py'"),
        (("--dataset", "mnist", "--data-dir", "nowhere", "--image-size", "64"), "leave image_size and channels to it"),
    ],
)
def test_bad_input_gets_one_sentence(pictures: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = train(*SMALL[:2], "--data-dir", pictures, "--output", tmp_path / "out", *arguments)
    assert done.returncode in (1, 2)
    assert sentence in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_help_teaches_every_option() -> None:
    done = train("--help")
    assert done.returncode == 0
    for name in [
        "dataset",
        "data-dir",
        "output",
        "epochs",
        "minutes",
        "batch-size",
        "lr",
        "latent-dim",
        "width",
        "likelihood",
        "beta",
        "seed",
    ]:
        assert f"--{name}" in done.stdout
    for name in ("mixed-precision", "compile", "kl-warmup", "evaluations"):
        assert f"--{name}" in done.stdout
    assert "measure their own noise" in " ".join(done.stdout.replace("│", " ").split())


def test_json_holds_only_what_json_can(pictures: Path, tmp_path: Path) -> None:
    done = train(*SMALL, "--data-dir", pictures, "--output", tmp_path, "--epochs", 5)
    assert done.returncode == 0, done.stderr

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
