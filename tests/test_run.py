"""What a training survives: divergence, kills, full disks, signals, threads, other programs on the machine."""

from __future__ import annotations

import copy
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from conftest import small_model
from PIL import Image
from torch import Tensor

import train
from vae import VAE
from vae.data import Pictures
from vae.figures import Figures
from vae.files import WEIGHTS, fingerprint
from vae.images import to_pil
from vae.training.options import RunOptions
from vae.training.output import Output
from vae.training.run import Run
from vae.training.setup import Split

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


@pytest.fixture
def pictures(tmp_path: Path, sneakers: Tensor) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, sneaker in enumerate(sneakers[:16]):
        to_pil(sneaker).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture
def arguments(pictures: Path, tmp_path: Path) -> list[str]:
    """What trains a small model for a moment into tmp_path/out."""
    return [*SMALL, "--data-dir", str(pictures), "--output", str(tmp_path / "out"), "--epochs", "10"]


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder, tmp_path/out, that holds a model of another shape, and files about it."""
    folder = tmp_path / "out"
    output = Output(folder)
    output.prepare()
    model = small_model(latent_dim=5)
    figures = output.replace(model, Figures(), Image.new("L", (8, 8)))
    output.write_card(model, figures)
    (folder / "map.safetensors").write_bytes(b"a map of that model")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def said_by_exit(arguments: list[str]) -> str:
    """Run train.py here, which must end with a sentence, and return that."""
    with pytest.raises(SystemExit) as caught:
        train.main(arguments)
    assert isinstance(caught.value.code, str)  # which makes an exit status of 1
    return caught.value.code


# --- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lr", "epochs"), [("50", "2"), ("1e3", "2"), ("1e5", "200")])
def test_a_run_that_diverges_fails_and_leaves_the_earlier_model_as_it_was(
    lr: str, epochs: str, earlier: Path, arguments: list[str]
) -> None:
    before = contents(earlier)
    said = said_by_exit([*arguments, "--epochs", epochs, "--lr", lr, "--evaluations", "3"])
    assert re.search(
        r"no better than untrained|the (reconstruction|KL divergence|scale|gradient) is (nan|inf|-inf)", said
    ), said
    assert "try a lower --lr" in said or "with a lower --lr" in said
    assert f"nothing was written to {earlier}" in said
    assert contents(earlier) == before


def test_what_was_good_before_a_run_diverges_is_kept_and_measured(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "schedule", lambda progress: 1.0 if progress < 0.5 else 1e8)
    said = said_by_exit([*arguments, "--epochs", "60", "--evaluations", "3"])
    assert "the best weights, of epoch" in said
    figures = Figures.read(tmp_path / "out")
    assert figures.test
    assert figures.training
    assert figures.training.epochs <= 30
    assert (tmp_path / "out" / "README.md").is_file()


def test_the_test_pictures_are_measured_once(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vae.training import bound, run

    counts: list[int] = []
    measure = run.evaluate

    def evaluate(model: VAE, images: Tensor, *rest: Any) -> Any:
        counts.append(len(images))
        return measure(model, images, *rest)

    for module in (bound, run):
        monkeypatch.setattr(module, "evaluate", evaluate)
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    train.main([*arguments, "--epochs", "40", "--evaluations", "4"])
    assert len(seeds) <= 2  # at the start: the random numbers of a GPU are the training's
    assert counts[-1] == 1
    assert counts.count(1) == 1  # the folder has one test picture, and two are held out
    assert counts.count(2) > len(Figures.read(tmp_path / "out").history)  # one more of an untrained model
    figures = Figures.read(tmp_path / "out")
    assert figures.test
    assert figures.test.pictures == 1


# --- the output folder -----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The end of the program."""


@contextmanager
def killed_after(count: int) -> Iterator[None]:
    """End the program before the n-th change of the names of files: nothing that follows has any effect."""
    changes = itertools.count()

    def ending(function: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **options: Any) -> Any:
            if next(changes) >= count:
                raise Killed
            return function(*arguments, **options)

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):
            patch.setattr(os, name, ending(getattr(os, name)))
        yield


def test_a_kill_at_any_moment_leaves_a_model_and_nothing_of_another(earlier: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    shutil.copytree(earlier, saved)
    old, new = fingerprint(earlier), small_model(latent_dim=7)
    old_card, old_samples = ((earlier / name).read_bytes() for name in ("README.md", "samples.png"))
    output, seen = Output(earlier), []
    for count in itertools.count():
        shutil.rmtree(earlier)
        shutil.copytree(saved, earlier)
        ended = False
        with suppress(Killed), killed_after(count):
            figures = output.replace(new, Figures(), Image.new("L", (9, 9)))
            output.update(figures)
            output.write_card(new, figures)
            ended = True
        weights = fingerprint(earlier)
        seen.append(weights)
        model = VAE.from_pretrained(earlier)
        assert model.config.latent_dim == (5 if weights == old else 7)
        assert Figures.read(earlier).weights in (None, weights)
        if weights != old:
            assert not (earlier / "README.md").exists() or (earlier / "README.md").read_bytes() != old_card
            assert not (earlier / "samples.png").exists() or (earlier / "samples.png").read_bytes() != old_samples
        if ended:
            break
    assert seen[0] == old
    assert seen[-1] != old
    assert len(seen) > 15
    output.prepare()
    assert set(contents(earlier)) == {
        *("config.json", WEIGHTS, "metrics.json", "samples.png", "curves.png", "curves.csv", "README.md")
    }


def run_limited(arguments: list[str], kind: int, limit: int) -> subprocess.CompletedProcess[str]:
    """Run train.py with a limit of the system, as of `ulimit`."""
    return subprocess.run(
        [sys.executable, "train.py", *arguments],
        preexec_fn=lambda: resource.setrlimit(kind, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_full_disk_gets_a_sentence_and_leaves_the_earlier_model_as_it_was(
    earlier: Path, arguments: list[str]
) -> None:
    before = contents(earlier)
    done = run_limited(arguments, resource.RLIMIT_FSIZE, 60_000)  # bytes: enough for the pictures, not for weights
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"train.py: {earlier}")
    assert "can't be written (File too large)" in last
    assert f"nothing was written to {earlier}" in last
    assert contents(earlier) == before


def test_too_little_memory_gets_a_sentence(earlier: Path, arguments: list[str]) -> None:
    before = contents(earlier)
    few = ["--samples", "1000000", "--batch-size", "1"]
    done = run_limited([*arguments, *few], resource.RLIMIT_AS, 6 * 2**30)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("train.py: not enough memory: lower --batch-size, --samples")
    assert f"nothing was written to {earlier}" in last
    assert contents(earlier) == before


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried …")])
def test_too_little_memory_before_the_first_step_gets_one_too(
    error: Exception, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(train, "load_split", fail)
    assert "not enough memory: lower" in said_by_exit(arguments)


# --- signals, threads, several trainings in one program --------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc to see how far the imports are")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("library", ["libtorch_cpu", "matplotlib/"])
def test_a_signal_during_the_imports_gets_a_sentence(number: signal.Signals, library: str) -> None:
    with subprocess.Popen([sys.executable, "train.py", "--help"], stderr=subprocess.PIPE, text=True) as process:
        while library not in Path(f"/proc/{process.pid}/maps").read_text():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said == "train.py: stopped before training began, nothing was written\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_step_gets_a_sentence(
    number: signal.Signals, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "load_split", lambda *arguments: signal.raise_signal(number))
    assert said_by_exit(arguments) == "train.py: stopped before training began, nothing was written"
    assert not (tmp_path / "out").exists()


def test_a_second_signal_ends_a_run_at_once(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Run, *arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Run, "_measure", interrupt)
    handler = signal.getsignal(signal.SIGINT)
    assert "stopped at once; nothing was written to" in said_by_exit(arguments)
    assert signal.getsignal(signal.SIGINT) == handler


def test_a_program_can_train_in_a_thread_and_again_in_another_precision(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(name: str, precision: Any) -> train.TrainConfig:
        return train.TrainConfig(
            data=train.DataOptions(dataset="folder", data_dir=pictures, image_size=28, channels=1),
            model=train.ModelOptions(latent_dim=8, width=8, depth=1),
            optimizer=train.OptimizerOptions(mixed_precision=precision),
            run=RunOptions(epochs=10),
            output=train.OutputOptions(output=tmp_path / name),
        )

    with ThreadPoolExecutor(1) as pool:
        pool.submit(train.train, config("thread", "no")).result()
    for name, precision in (("first", "no"), ("second", "bf16")):
        train.train(config(name, precision))
    records = [Figures.read(tmp_path / name).training for name in ("thread", "first", "second")]
    assert [record.mixed_precision for record in records if record] == ["no", "no", "bf16"]
    assert fingerprint(tmp_path / "thread") == fingerprint(tmp_path / "first") != fingerprint(tmp_path / "second")


# --- batches ---------------------------------------------------------------------------------------------------------


def make_run(images: Tensor, tmp_path: Path, **options: Any) -> Run:
    labelled = Pictures(images, torch.empty(len(images), 0, dtype=torch.int64), {})
    split = Split(images, images, images[:2], images[:2], labelled)
    nothing: Any = None
    return Run(
        Accelerator(), RunOptions(**options), split, Output(tmp_path), Figures(), lambda model, images: nothing, nothing
    )


def test_batches_go_on_where_a_run_stands(tmp_path: Path) -> None:
    images = torch.arange(23, dtype=torch.uint8)[:, None, None, None].expand(23, 1, 2, 2)
    run = make_run(images, tmp_path, batch_size=5)
    whole = list(itertools.islice(run.batches(), 11))
    assert len({tuple(torch.cat(whole[start : start + 4])[:, 0, 0, 0].tolist()) for start in (0, 4)}) == 2
    for step in (1, 4, 6):
        again = copy.copy(run)
        again.step = step
        for ours, theirs in zip(again.batches(), whole[step:], strict=False):
            assert torch.equal(ours, theirs)


def test_a_batch_is_never_larger_than_the_pictures_there_are(tmp_path: Path) -> None:
    run = make_run(torch.zeros(7, 1, 2, 2, dtype=torch.uint8), tmp_path, batch_size=64, epochs=3)
    assert (run.batch_size, run.total_steps) == (7, 3)
