"""A training that was killed or stopped goes on as if nothing had happened."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import train
from vae import VAE, Flow
from vae.figures import Figures
from vae.files import fingerprint
from vae.images import to_pil
from vae.training.checkpoint import Checkpoints, from_plain, read_checkpoint, to_plain
from vae.training.run import Run

TINY = [
    "--dataset",
    "folder",
    "--image-size",
    "16",
    "--channels",
    "1",
    "--width",
    "4",
    "--depth",
    "1",
    "--latent-dim",
    "4",
    "--batch-size",
    "8",
    "--shift",
    "1",
]
AT_EVERY_LOOK = ["--checkpoint-minutes", "1e-6"]
STEPS = 60

# train.py, which is killed by the system before it takes note of a step: the first word of the arguments
KILLED = """
import os, signal, sys
import train
from vae.training.run import Run
after_step = Run.after_step
def killed(self, step, *rest):
    if step == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    after_step(self, step, *rest)
Run.after_step = killed
train.main(sys.argv[2:])
"""


@pytest.fixture
def options(tmp_path: Path, sneakers: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What trains a tiny model: 20 pictures to learn from, 2 held out, 1 to test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else the load of the machine would have a say
    folder = tmp_path / "pictures"
    folder.mkdir()
    pictures = torch.nn.functional.interpolate(sneakers[:26], 16)
    for index, picture in enumerate(pictures):
        to_pil(picture).save(folder / f"{index:02}.png")
    return [*TINY, "--data-dir", str(folder), "--epochs", str(STEPS * 8 / 20), "--evaluations", "4"]


@pytest.fixture
def stopped(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that a signal stopped at its 30th step, with checkpoints of steps 20 and 30."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    folder = tmp_path / "out"
    stop_at(monkeypatch, 25)
    train.main([*options, *AT_EVERY_LOOK, "--output", str(folder)])
    return folder


def stop_at(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    before_step(monkeypatch, lambda step: signal.raise_signal(signal.SIGTERM) if step == at else None)


def before_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object]) -> None:
    """Do something before a run takes note of each step."""
    after_step, done = Run.after_step, set()

    def acting(self: Run, step: int, *rest: Any) -> None:
        if step not in done:  # only in the first run
            done.add(step)
            act(step)
        after_step(self, step, *rest)

    monkeypatch.setattr(Run, "after_step", acting)


def said_by_exit(*arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        train.main([*map(str, arguments)])
    return str(caught.value.code)


def without_times(folder: Path) -> Any:
    values = to_plain(Figures.read(folder))
    values["training"]["seconds"] = 0
    for look in values["history"]:
        look["minutes"] = 0
    return values


def test_a_killed_run_goes_on_to_the_bit(options: list[str], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train.main([*options, "--output", str(whole)])
    arguments = [*options, *AT_EVERY_LOOK, "--output", str(killed)]
    for step in (27, 48):
        done = subprocess.run([sys.executable, "-c", KILLED, str(step), *arguments], timeout=300, check=False)
        assert done.returncode == -signal.SIGKILL
        assert (killed / "checkpoints" / f"step-{step // 10 * 10:09}.pt").is_file()
        arguments = ["--resume", str(killed)]
    train.main(arguments)
    assert fingerprint(killed) == fingerprint(whole)
    assert without_times(killed) == without_times(whole)
    assert not (killed / "checkpoints").exists()


def test_a_stopped_run_says_how_to_go_on_and_does_to_the_bit(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = tmp_path / "out"
    stop_at(monkeypatch, 25)
    train.main([*options, *AT_EVERY_LOOK, "--output", str(stopped)])
    assert capsys.readouterr().out.rstrip().endswith(f"to resume: python train.py --resume {stopped}")
    assert Figures.read(stopped).test  # what it has reached is there for use
    assert [path.name for path in sorted((stopped / "checkpoints").iterdir())] == [
        f"step-{step:09}.pt" for step in (20, 30)
    ]
    train.main(["--resume", str(stopped)])
    train.main([*options, "--output", str(tmp_path / "whole")])
    assert fingerprint(stopped) == fingerprint(tmp_path / "whole")
    assert without_times(stopped) == without_times(tmp_path / "whole")


def test_a_flow_of_another_size_goes_on(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, stopped = tmp_path / "first", tmp_path / "stopped"
    train.main([*options, "--output", str(first)])
    model = VAE.from_pretrained(first)
    model.prior = Flow(4, 2, 8)
    model.save_pretrained(first)
    stop_at(monkeypatch, 25)
    data = options[options.index("--data-dir") :]
    start = ["--dataset", "folder", "--batch-size", "8", *data, "--init", str(first), "--prior", "flow"]
    train.main([*start, *AT_EVERY_LOOK, "--output", str(stopped)])
    train.main(["--resume", str(stopped)])
    prior = VAE.from_pretrained(stopped).prior
    assert isinstance(prior, Flow)
    assert (len(prior.layers), prior.width) == (2, 8)


def test_only_where_it_stops_may_be_another(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a resumed run writes to its own folder: leave out --output elsewhere" in said_by_exit(
        "--resume", stopped, "--output", "elsewhere"
    )
    assert re.search(
        r"--width is 4 in .* and can't become 8: only --epochs and --minutes may change",
        said_by_exit("--resume", stopped, "--width", 8),
    )
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)  # on another machine: what was chosen stays
    train.main(["--resume", str(stopped), "--width", "4", "--epochs", "40"])
    record = Figures.read(stopped).training
    assert record
    assert record.mixed_precision == "no"
    assert "--mixed-precision" not in record.command
    assert record.steps == 100
    assert "--epochs 40" in record.command
    assert "--resume" not in record.command


def test_of_a_damaged_checkpoint_the_one_before_is_taken(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier, last = sorted((stopped / "checkpoints").iterdir())
    content = last.read_bytes()
    flipped = bytearray(content)
    flipped[content.index(torch.load(last, weights_only=True)["random"].numpy().tobytes())] ^= (
        1  # where zip knows by a sum
    )
    for damaged in (content[: len(content) // 2], b"", flipped):
        last.write_bytes(damaged)
        assert read_checkpoint(stopped)["path"] == earlier
        assert f"{last} is damaged" in capsys.readouterr().out
    torch.save(torch.load(earlier, weights_only=True) | {"format": 0}, last)
    assert read_checkpoint(stopped)["path"] == earlier
    assert f"{last} is of another version: using the one before it" in capsys.readouterr().out
    earlier.unlink()
    assert "is of another version, and there is no other: start a new run" in said_by_exit("--resume", stopped)
    last.unlink()
    assert "has no checkpoint of a stopped run" in said_by_exit("--resume", stopped)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"processes": 2}, "is from 2, this is 1"),
        ({"device": "cuda"}, "is from cuda, this is cpu"),
        ({"pictures": [9, 2]}, "is from a run with 9 training pictures, but there are 20 now"),
    ],
)
def test_what_would_not_go_on_to_the_bit_gets_a_sentence(stopped: Path, changes: dict[str, Any], sentence: str) -> None:
    path = read_checkpoint(stopped)["path"]
    torch.save(torch.load(path, weights_only=True) | changes, path)
    assert sentence in said_by_exit("--resume", stopped)


def test_no_pickle_is_executed(stopped: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(stopped / "trapped"),)

    for path in (stopped / "checkpoints").iterdir():
        torch.save({"format": 1, "trap": Trap()}, path)
    assert "is damaged" in said_by_exit("--resume", stopped)
    assert not (stopped / "trapped").exists()


def test_a_flipped_bit_anywhere_is_harmless_or_found(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(10, {"numbers": torch.arange(9.0), "text": "as it was"})
    path = checkpoints.written[0]
    content = path.read_bytes()
    refused = 0
    for position in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            read = read_checkpoint(tmp_path)
        except ValueError:
            refused += 1
        else:
            assert torch.equal(read["numbers"], torch.arange(9.0))
            assert read["text"] == "as it was"
    assert refused > 100


def test_a_full_disk_keeps_the_earlier_checkpoints_and_the_run_going(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20, 30):
        checkpoints.write(step, {"step": step})

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        checkpoints.write(40, {"step": 40})
    assert "No space left on device" in capsys.readouterr().out
    assert [path.name for path in sorted(checkpoints.folder.iterdir())] == ["step-000000020.pt", "step-000000030.pt"]
    assert read_checkpoint(tmp_path)["step"] == 30


def test_a_new_run_keeps_the_checkpoints_of_another_until_it_has_its_own(
    options: list[str], stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_at(monkeypatch, 5)
    train.main([*options, "--output", str(stopped)])
    assert f"--resume {stopped} would continue it" in capsys.readouterr().out
    assert [path.name for path in (stopped / "checkpoints").iterdir()] == ["step-000000010.pt"]


def test_a_configuration_survives_as_plain_values(tmp_path: Path) -> None:
    config = train.TrainConfig(output=train.OutputOptions(output=tmp_path))
    config.data.data_dir = tmp_path / "data"
    config.run.minutes = 3
    assert from_plain(train.TrainConfig, to_plain(config)) == config


# --- numbers that are not finite -------------------------------------------------------------------------------------


def test_a_step_that_is_not_finite_is_taken_back_and_counted(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "schedule", lambda progress: float("nan") if 0.35 < progress < 0.4 else 1.0)
    train.main([*options, "--output", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert re.search(r"the \w+ is nan at step 2\d: the last 10 steps are undone", said)
    assert f"10 of {STEPS} steps were undone" in said
    record = Figures.read(tmp_path / "out").training
    assert record
    assert record.steps == STEPS - 10


def test_the_last_good_weights_are_kept_when_nothing_is_finite_any_more(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "schedule", lambda progress: 1.0 if progress < 0.5 else float("nan"))
    said = said_by_exit(*options, "--output", tmp_path / "out", "--keep", "last")
    assert re.search(r"the \w+( \w+)? is nan at step 4\d, for 20 steps", said)
    record = Figures.read(tmp_path / "out").training
    assert record
    assert record.steps == STEPS / 2
