"""The real training program, run as a user runs it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import write_celeba
from PIL import Image
from torch import Tensor

import train
from vae import VAE, Flow, StandardNormal, reconstruct
from vae.data import DATASETS, load_dataset
from vae.evaluate import __main__ as evaluation
from vae.figures import Figures
from vae.files import MAP, fingerprint
from vae.images import to_pil, to_unit
from vae.latent_map import load_map
from vae.loss import overall_scale

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
WHOLE = {"config.json", "model.safetensors", "metrics.json", "README.md", "samples.png", "curves.png", "curves.csv"}


@pytest.fixture
def pictures(tmp_path: Path, sneakers: Tensor) -> Path:
    """A folder of 16 pictures, of which training takes 13, validation 2 and test 1."""
    folder = tmp_path / "pictures"
    for name in ("train", "test"):
        (folder / name).mkdir(parents=True)
    for index, sneaker in enumerate(sneakers[:16]):
        to_pil(sneaker).save(folder / ("train" if index < 15 else "test") / f"{index:02}.png")
    return folder


def run_train(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, "train.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def train_here(*arguments: object) -> None:
    """Run train.py in this process, which saves the time to import everything."""
    train.main([*map(str, arguments)])


def assert_whole(folder: Path) -> Figures:
    """Check that folder holds a model and all that belongs to it; return its figures."""
    figures = Figures.read(folder)
    assert figures.training
    assert figures.test
    model = VAE.from_pretrained(folder)
    learned = {"prior.safetensors"} if figures.training.prior == "flow" else set()
    labelled = {"latents.safetensors"} if model.directions else set()
    assert {path.name for path in folder.iterdir()} == WHOLE | learned | labelled
    assert figures.weights == fingerprint(folder)
    assert figures.training.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert figures.test.scale == pytest.approx(overall_scale(model.log_scale).item())
    assert str(folder.parent) not in (folder / "metrics.json").read_text() + (folder / "README.md").read_text()
    for name in ("samples.png", "curves.png"):
        with Image.open(folder / name) as picture:
            picture.load()
    return figures


def test_it_learns_16_pictures_by_heart(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    train_here(*SMALL, "--data-dir", pictures, "--output", output, "--epochs", 600, "--lr", 5e-3, "--evaluations", 3)
    assert "test ELBO" in capsys.readouterr().out
    epochs = [round(look.epochs) for look in assert_whole(output).history]
    assert epochs[0] == 200
    assert epochs[-1] == 600
    x = to_unit(load_dataset("folder", pictures, "train", image_size=28, channels=1).images[:13])
    error = (reconstruct(VAE.from_pretrained(output), x) - x).square().mean()
    spread = (x - x.mean(0)).square().mean()
    assert error < 0.15 * spread


def test_labels_become_directions_and_can_be_measured(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    output = tmp_path / "out"
    options = ("--image-size", 32, "--width", 8, "--depth", 1, "--latent-dim", 8, "--epochs", 30)
    done = run_train("--dataset", "celeba", "--data-dir", tmp_path, "--output", output, *options)
    assert done.returncode == 0, done.stderr
    assert_whole(output)
    directions = VAE.from_pretrained(output).directions
    assert directions is not None
    assert list(directions.attributes) == ["blond hair", "smiling"]
    command = [sys.executable, "-m", "vae.evaluate", str(output), "--data-dir", str(tmp_path), "--write"]
    few = ["--samples", "2", "--fit-directions"]
    done = subprocess.run([*command, *few], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "smiling" in Figures.read(output).attributes


def test_the_same_seed_gives_the_same_weights(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else the load of the machine would have a say
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_here(*SMALL, "--data-dir", pictures, "--output", tmp_path / name, "--epochs", 20, "--seed", seed)
        weights.append(fingerprint(tmp_path / name))
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_two_processes_train_as_one(pictures: Path, tmp_path: Path) -> None:
    """The same loss at the same steps: the same pictures, moved alike, the same noise, one batch normalisation."""
    arguments = (*SMALL, "--data-dir", pictures, "--epochs", 10, "--batch-size", 6, "--kl-warmup", 0.5)
    options = ("--prior", "flow", "--samples", 2, "--shift", 1, "--evaluations", 3, "--keep", "last")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    done = run_train(*arguments, *options, "--output", tmp_path / "two", launcher=launcher)
    assert done.returncode == 0, done.stderr
    train_here(*arguments, *options, "--output", tmp_path / "one")
    one, two = Figures.read(tmp_path / "one"), assert_whole(tmp_path / "two")
    assert two.training
    assert two.training.processes == 2
    assert done.stdout.count("held-out ELBO") == len(two.history)  # one process speaks
    assert done.stdout.count("test ELBO") == 1
    assert [look.step for look in two.history] == [look.step for look in one.history] == [10, 20, 22]
    assert [look.train_elbo for look in two.history] == pytest.approx(
        [look.train_elbo for look in one.history], rel=1e-5
    )


def test_the_architecture_and_the_curves_are_those_of_the_model_to_begin_with(pictures: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    data = ("--dataset", "folder", "--data-dir", pictures, "--epochs", 20)
    train_here(*SMALL, *data, "--output", first)
    train_here(*data, "--output", second, "--init", first, "--keep", "last")  # nothing of its shape
    assert VAE.from_pretrained(second).config == VAE.from_pretrained(first).config
    before, after = Figures.read(first).history, Figures.read(second).history
    assert after[: len(before)] == before
    assert after[len(before)].step == before[-1].step + 10
    assert [look.epochs for look in after] == sorted(look.epochs for look in after)


def test_it_goes_on_from_the_weights_of_another_model(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = (*SMALL, "--data-dir", pictures, "--prior", "flow")
    train_here(*options, "--output", first, "--epochs", 200, "--lr", 5e-3)
    # Hardly a step away from the first, it knows what that knew, under another likelihood and with the same flow.
    still = ("--epochs", 1, "--lr", 1e-9, "--likelihood", "spectral", "--keep", "last")
    train_here(*options, *still, "--output", second, "--init", first)
    before, after = Figures.read(first), assert_whole(second)
    assert after.training
    assert after.training.init == before.training
    assert before.test
    assert after.test
    assert after.test.mse == pytest.approx(before.test.mse, rel=0.2)  # its normalisations saw a few more
    z = torch.randn(5, 8)
    ours, theirs = (VAE.from_pretrained(folder).prior.log_prob(z) for folder in (first, second))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert (second / "README.md").read_text().count("train.py --dataset folder") == 2
    assert "--init first" in after.training.command
    assert "the last weights, of epoch 1.0, are in" in capsys.readouterr().out
    # Weights are good for that, too, if a stranger's file says nonsense of them.
    (first / "metrics.json").write_text('{"training": {"device": ""}}')
    train_here(*options, *still, "--output", second, "--init", first)
    record = Figures.read(second).training
    assert record
    assert record.init is None
    for arguments, sentence in (
        (("--output", first), "--output would overwrite the initial weights"),
        (("--output", second, "--latent-dim", 9), "have latent_dim 8, not 9: leave out --latent-dim"),
    ):
        with pytest.raises(SystemExit, match=re.escape(sentence)):
            train_here(*options, "--init", first, *arguments)


@pytest.mark.parametrize(
    ("likelihood", "options"),
    [
        ("spectral", ("--shift", "1")),
        ("gaussian", ("--prior", "flow")),
        ("bernoulli", ("--samples", "3", "--validation", "4")),
        ("bernoulli", ("--binarize", "dynamic", "--prior", "flow", "--seed", "3")),
        ("mse", ()),
    ],
)
def test_every_likelihood_and_prior_trains_in_bf16(
    pictures: Path, tmp_path: Path, likelihood: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--epochs", 20, "--likelihood", likelihood, "--mixed-precision", "bf16", "--beta", 0.5, *options)
    train_here(*SMALL, "--data-dir", pictures, "--output", tmp_path / "out", *arguments)
    claimed = assert_whole(tmp_path / "out").test
    assert claimed
    model = VAE.from_pretrained(tmp_path / "out")
    assert model.config.likelihood == likelihood
    assert isinstance(model.prior, Flow if "flow" in options else StandardNormal)
    # What was written is what the float32 weights reach, whatever they were trained in.
    capsys.readouterr()
    evaluation.main(evaluation.Options(str(tmp_path / "out"), pictures))
    measured = " ".join(capsys.readouterr().out.split())
    assert f"elbo {claimed.elbo:.3f}"[:-1] in measured
    assert f"mse {claimed.mse:.5f}" in measured


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_order_with_the_best_weights_saved(
    pictures: Path, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = (*SMALL, "--data-dir", pictures, "--output", tmp_path / "out", "--minutes", 3, "--evaluations", 1000)
    command = [sys.executable, "train.py", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "out" / "model.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "stopped after" in out.splitlines()[-1]
    assert out.splitlines()[-1].endswith(f"to resume: python train.py --resume {tmp_path / 'out'}")
    assert list((tmp_path / "out" / "checkpoints").glob("step-*.pt"))
    shutil.rmtree(tmp_path / "out" / "checkpoints")
    assert_whole(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--epochs -1", "--epochs must be more than 0 and less than a million, got -1"),
        ("--epochs 1e308", "--epochs must be more than 0 and less than a million, got 1e+308"),
        ("--minutes nan", "--minutes must be more than 0 and less than a million, got nan"),
        ("--tilt 1.5", "--tilt must be from 0 to 1, got 1.5"),
        ("--shift -1", "--shift must be a number of pixels from 0 to 16, got -1"),
        ("--batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--evaluations 4000", "--evaluations must be at most 1,000, got 4000"),
        ("--samples 0", "--samples must be at least 1, got 0"),
        ("--validation -3", "--validation must be at least 1, got -3"),
        ("--beta -1", "--beta must be 0 or a positive number, got -1"),
        ("--kl-warmup 2", "--kl-warmup must be a fraction of the run"),
        ("--seed -5", "--seed must be a number from 0"),
        ("--width 2", "width must be a whole number from 4 to 65536, got 2"),
        ("--image-size -5", "image_size must be a whole number from 16 to 65536, got -5"),
        ("--image-size 30", "evenly down to 7 cells a side or fewer, got 30: the nearest sizes are 28 and 32"),
        ("--image-size 512", "image_size must be at most 256, got 512"),
        ("--latent-dim 5000", "latent_dim must be at most 4096, got 5000"),
        ("--width 512 --depth 8", "parameters, more than the 100,000,000 allowed"),
        ("--likelihood poisson", "likelihood"),
        ("--binarize dynamic", "--binarize needs --likelihood bernoulli, got spectral"),
        ("--push-only here", "--push-only and --private need --push-to-hub owner/name"),
        ("--prior flow --latent-dim 1", "--prior flow needs --latent-dim 2 or more, got 1"),
        ("--widht 8", "--widht"),
    ],
)
def test_a_bad_option_gets_one_sentence(arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        train.main(["--dataset", "folder", *arguments.split()])
    assert caught.value.code not in (0, None)
    assert sentence in " ".join(f"{caught.value.code} {capsys.readouterr().err}".replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--mixed-precision", "fp16"), "fp16 does not train on a CPU"),
        (("--data-dir", "nowhere"), "there is no folder nowhere"),
        (("--output", "train.py"), "File exists: 'train.py'"),
        (("--validation", "15"), "--validation must leave pictures to train on, got 15 of 15"),
        (("--dataset", "mnist", "--data-dir", "nowhere", "--image-size", "64"), "leave image_size and channels to it"),
    ],
)
def test_a_run_that_cannot_begin_gets_one_sentence(
    pictures: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[str] = []  # repos on the Hub
    monkeypatch.setattr(train, "check_write", lambda repo, **options: created.append(repo))
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        train_here(*SMALL, "--data-dir", pictures, "--output", tmp_path / "out", "--push-to-hub", "o/n", *arguments)
    assert not (tmp_path / "out").exists()
    assert not created


def test_help_teaches_every_option() -> None:
    done = run_train("--help")
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
    assert "one calibrated σ" in " ".join(done.stdout.replace("│", " ").split())


def test_the_help_of_a_dataset_is_that_of_its_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--dataset", "mnist", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"(default: {DATASETS['mnist'].recipe['latent_dim']})" in said


def test_what_follows_a_training_is_a_prior_measurements_and_a_map(
    pictures: Path, sneakers: Tensor, tmp_path: Path
) -> None:
    for index, sneaker in enumerate(sneakers[16:]):
        to_pil(sneaker).save(pictures / "test" / f"more-{index}.png")
    output = tmp_path / "out"
    train_here(*SMALL, "--data-dir", pictures, "--output", output, "--epochs", 10, "--evaluate")
    figures = Figures.read(output)
    assert figures.training
    assert figures.training.command.endswith("--epochs 10.0 --evaluate")
    assert figures.latents
    assert {"normal", "gaussian"} <= figures.priors.keys()
    assert (output / "generated.png").is_file()
    assert len(load_map(output / MAP).points) == 9


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("no memory"), ValueError("no prior")])
def test_what_was_trained_is_kept_where_measuring_it_fails(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(evaluation, "main", fail)
    output = tmp_path / "out"
    sentence = f"the trained model is in {output}, to measure it: python -m vae.evaluate {output}"
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        train_here(*SMALL, "--data-dir", pictures, "--output", output, "--epochs", 10, "--evaluate")
    assert_whole(output)


def test_json_holds_only_what_json_can(pictures: Path, tmp_path: Path) -> None:
    train_here(*SMALL, "--data-dir", pictures, "--output", tmp_path / "out", "--epochs", 10)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((tmp_path / "out" / "metrics.json").read_text(), parse_constant=refuse)
