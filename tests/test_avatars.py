"""Avatars: drawn by the packages if they are there, which they are where the tests are run by the README's command."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import vae.data.avatars
from vae.data import load_dataset, load_examples
from vae.data.avatars import ATTRIBUTES, BACKGROUND, PACKAGES, draw, load_avatars, versions

# SHA-256 of the pixels of seeds 0 to 15 as these versions of the packages draw them.
DRAWN: dict[tuple[str, ...], str] = {
    ("10.7.0", "10.6.0", "0.5.0", "12.3.0"): "d792cec3bd5bdddfe397d35383edac03e4bdd786bb81d409da62769992c38aad"
}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.data.avatars, "SHARD", 4)


@pytest.fixture
def drawn_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Draw in this process; the list fills with the first seeds of the shards that are drawn."""
    starts: list[int] = []
    draw_shard = vae.data.avatars._draw_shard

    def draw_and_tell(seeds: range, path: Path) -> None:
        starts.append(seeds.start)
        draw_shard(seeds, path)

    monkeypatch.setattr(vae.data.avatars, "ProcessPoolExecutor", lambda workers, **_: ThreadPoolExecutor(1))
    monkeypatch.setattr(vae.data.avatars, "_draw_shard", draw_and_tell)
    return starts


def test_the_same_versions_draw_the_same_bytes() -> None:
    if versions() not in DRAWN:
        pytest.skip(f"no bytes are on record for {PACKAGES} {versions()}")
    pixels = np.stack([draw(seed)[0] for seed in range(16)])
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == DRAWN[versions()]


def test_an_avatar_shows_what_its_labels_say() -> None:
    skin = list(ATTRIBUTES).index("skin colour")
    foreheads: dict[int, list[np.ndarray]] = {}
    for seed in range(40):
        pixels, labels = draw(seed)
        assert pixels.shape == (3, 128, 128)
        assert pixels.dtype == np.uint8
        assert all(0 <= label < len(values) for label, values in zip(labels, ATTRIBUTES.values(), strict=True))
        assert "#" + bytes(pixels[:, 0, 0]).hex() == BACKGROUND
        foreheads.setdefault(labels[skin], []).append(pixels[:, 48:60, 64].mean(axis=1))  # between the eyes
    brightness = [np.median([forehead.mean() for forehead in foreheads[value]]) for value in range(5)]
    assert brightness == sorted(brightness)


@pytest.mark.usefixtures("small_shards")
def test_what_was_drawn_is_kept_and_what_is_missing_or_damaged_is_drawn(tmp_path: Path, drawn_here: list[int]) -> None:
    images, labels = load_avatars(tmp_path, range(2, 11))
    assert images.shape == (9, 3, 128, 128)
    assert labels.shape == (9, len(ATTRIBUTES))
    assert drawn_here == [0, 4, 8]
    for row, seed in enumerate(range(2, 11)):
        pixels, expected = draw(seed)
        assert np.array_equal(images[row], pixels)
        assert labels[row].tolist() == expected
    drawn_here.clear()
    assert np.array_equal(load_avatars(tmp_path, range(2, 11))[0], images)
    assert drawn_here == []
    first, second, third = sorted(tmp_path.rglob("*.npz"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-50])
    content = third.read_bytes()
    third.write_bytes(content[:200] + bytes(100) + content[300:])
    assert np.array_equal(load_avatars(tmp_path, range(2, 11))[0], images)
    assert drawn_here == [0, 4, 8]


@pytest.mark.usefixtures("small_shards")
def test_a_new_version_draws_anew(tmp_path: Path, drawn_here: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    load_avatars(tmp_path, range(4))
    monkeypatch.setattr(vae.data.avatars, "versions", lambda: ("11", "11", "1", "13"))
    load_avatars(tmp_path, range(4))
    assert drawn_here == [0, 0]


@pytest.mark.usefixtures("small_shards")
def test_all_cores_draw(tmp_path: Path) -> None:
    images, _ = load_avatars(tmp_path, range(10))
    assert np.array_equal(images[7], draw(7)[0])


@pytest.mark.parametrize("arguments", [["script.py"], ["-"]])
def test_a_script_needs_no_guard_around_its_main_part(tmp_path: Path, arguments: list[str]) -> None:
    """Nor a file: the processes that draw don't import it."""
    script = (
        "import pathlib, vae.data.avatars\n"
        "vae.data.avatars.SHARD = 4\n"
        "print(vae.data.avatars.load_avatars(pathlib.Path('data'), range(3))[0].shape)\n"
    )
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        input=script,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "(3, 3, 128, 128)\n", done.stderr


def test_the_examples_are_of_the_test_set() -> None:
    images, labels, attributes = load_examples("avatars")
    assert images.shape == (48, 3, 128, 128)
    assert attributes == ATTRIBUTES
    pixels, expected = draw(100_003)
    assert labels[3].tolist() == expected
    assert np.abs(images[3].numpy().astype(int) - pixels).max() <= 2


def test_without_the_packages_the_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae.data.avatars, "PACKAGES", ("dicebear-core", "no-such-package"))
    with pytest.raises(ValueError, match="not all installed: pip install dicebear-core no-such-package"):
        load_dataset("avatars", tmp_path, "test")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "avatars").write_text("a file in its place")
    with pytest.raises(ValueError, match="avatars can't be kept in"):
        load_dataset("avatars", tmp_path, "test")


def end_the_process(seeds: range, path: Path) -> None:
    os._exit(1)


@pytest.mark.usefixtures("small_shards")
def test_a_process_that_is_ended_is_answered_by_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.data.avatars, "_draw_shard", end_the_process)
    with pytest.raises(
        ValueError, match="a process that draws avatars was killed: start again, finished avatars are kept"
    ):
        load_avatars(tmp_path, range(4))
