"""Pictures are decoded once, outside of the user's folder, and whatever happens to the cache, they are the same."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import cache, everything, folder, load, numbers_of, picture, read, write

import vae.data.cache
import vae.data.sources
from vae.data import load_dataset
from vae.data.cache import File
from vae.data.mapped import pages_given_back

pytestmark = pytest.mark.usefixtures("cache")
__all__ = ["cache", "folder", "read"]  # fixtures


def test_a_second_start_reads_nothing_and_a_new_picture_is_all_that_is_read(
    folder: Path, cache: Path, read: list[str]
) -> None:
    write(folder, range(12))
    (folder / "broken.png").write_text("broken")
    first = load(folder)
    assert len(read) == 13
    read.clear()
    second = load(folder)
    assert not read
    assert torch.equal(first.images, second.images)
    write(folder, [12])
    assert everything(folder) == list(range(13))
    assert read == ["012.png"]
    read.clear()
    picture(20).save(folder / "003.png")
    (folder / "000.png").unlink()
    assert everything(folder) == [1, 2, *range(4, 13), 20]
    assert read == ["003.png"]
    (entry,) = cache.iterdir()
    (place,) = (path for path in entry.iterdir() if path.is_dir())
    files = {path.name: path for path in place.iterdir()}
    index = json.loads(files.pop("index.json").read_text())
    assert list(files) == [index["images"]]
    assert np.load(files[index["images"]]).shape == (12, 3, 16, 16)
    first.images.zero_()  # what is mapped can be written to, but is nobody else's
    assert everything(folder) == [1, 2, *range(4, 13), 20]


def test_the_users_folder_is_left_alone_and_nothing_stays_of_folders_that_are_gone(folder: Path, cache: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    write(folder / "cats", range(10))
    write(folder / "dogs", range(10, 20))
    before = sorted(folder.rglob("*"))
    load(folder)
    load_dataset("folder", folder, "train", image_size=32)
    assert sorted(folder.rglob("*")) == before
    assert datasets.ImageFolder(folder).classes == ["cats", "dogs"]
    (entry,) = cache.iterdir()
    assert len([path for path in entry.iterdir() if path.is_dir()]) == 2
    folder.rename(folder.with_name("elsewhere"))
    load(folder.with_name("elsewhere"))
    (other,) = cache.iterdir()
    assert other != entry


@pytest.mark.parametrize(("suffix", "cut", "lost"), [("jsonl", 0, 0), ("jsonl", 5, 1), ("pixels", 800, 2)])
def test_a_start_goes_on_where_an_interrupted_one_ended(
    folder: Path, cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch, suffix: str, cut: int, lost: int
) -> None:
    """Even if the last of what it wrote isn't whole."""
    write(folder, range(40))
    monkeypatch.setattr(vae.data.cache, "BATCH", 4)
    note = vae.data.cache._read_file

    def interrupt(file: File, **options: Any) -> Any:
        if file.path == "030.png":
            raise KeyboardInterrupt
        return note(file, **options)

    with monkeypatch.context() as patch:
        patch.setattr(vae.data.cache, "_read_file", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(folder)
    (part,) = cache.rglob(f"part-*.{suffix}")
    os.truncate(part, part.stat().st_size - cut)
    read.clear()
    assert everything(folder) == list(range(40))
    assert len(read) == 10 + lost


@pytest.mark.parametrize("name", ["index.json", "images-*.npy", "folder.json"])
@pytest.mark.parametrize("damage", [b"", b"[1, 2]", b'{"made_by": 1, "files": [[]]}', None])
def test_a_damaged_cache_is_made_again(folder: Path, cache: Path, name: str, damage: bytes | None) -> None:
    write(folder, range(12))
    load(folder)
    (path,) = cache.rglob(name)
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    assert everything(folder) == list(range(12))


ticks = itertools.count()


def settle(folder: Path) -> None:
    """Make all folders look as if they had been changed, but not just now."""
    now = 10**18 + next(ticks)
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        os.utime(place, ns=(now, now))


def test_a_second_start_on_many_files_looks_at_folders_only(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vae.data.start.MIN_FILES", 10)
    write(folder / "cats", range(10))
    write(folder / "dogs", range(10, 20))
    (folder / "empty").mkdir()
    settle(folder)
    looked: list[int] = []
    find = vae.data.sources.find_files

    def note(*arguments: Any) -> Any:
        looked.append(1)
        return find(*arguments)

    monkeypatch.setattr("vae.data.sources.find_files", note)

    def found(*, anew: bool) -> list[int]:
        looked.clear()
        capsys.readouterr()
        pictures = load(folder)
        assert bool(looked) == anew
        assert f"{len(pictures.images)} pictures to train on" in capsys.readouterr().err
        for number, label in zip(numbers_of(pictures), pictures.labels[:, 0].tolist(), strict=True):
            assert pictures.attributes["folder"][label] == ("cats" if number < 10 else "dogs")
        return everything(folder)

    first = found(anew=True)
    assert found(anew=False) == first == list(range(20))
    write(folder / "empty", [3])  # a copy, in a folder that held none
    (folder / "empty" / "003.png").unlink()
    assert found(anew=True) == first
    settle(folder)
    assert found(anew=True) == first
    assert found(anew=False) == first
    picture(5).save(folder / "cats" / "004.png")  # written anew in its place: seen, as it is in the sample
    assert found(anew=True) == [0, 1, 2, 3, 5, *range(5, 20)]
    write(folder / "dogs", [20])
    found(anew=True)
    assert found(anew=True) == [0, 1, 2, 3, 5, *range(5, 21)]  # changed too shortly before to be relied on
    settle(folder)
    (folder / "link.png").symlink_to(folder / "cats" / "000.png")
    settle(folder)
    found(anew=True)
    found(anew=True)  # what a link leads to may change unseen


def test_mapped_pictures_are_given_back_and_stay_the_same(folder: Path) -> None:
    write(folder, range(20))
    load(folder)
    images = load(folder).images
    before = images.clone()
    with pages_given_back():
        for _ in range(3):
            assert torch.equal(images, before)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def a_file_in_its_place(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.mkdir(parents=True)
    cache.touch()


def a_disk_full_from_the_start(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.data.cache, "_sync", full_disk)


def a_disk_full_on_the_way(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, calls = vae.data.cache._sync, iter(range(1000))
    monkeypatch.setattr(vae.data.cache, "_sync", lambda file: full_disk() if next(calls) > 4 else sync(file))


def a_disk_full_at_the_end(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full_disk)


@pytest.mark.parametrize(
    "spoil", [a_file_in_its_place, a_disk_full_from_the_start, a_disk_full_on_the_way, a_disk_full_at_the_end]
)
def test_a_cache_that_cannot_be_written_is_said_and_no_more(
    folder: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    write(folder, range(20))
    monkeypatch.setattr(vae.data.cache, "BATCH", 4)
    with monkeypatch.context() as patch:
        spoil(cache, patch)
        assert everything(folder) == list(range(20))
    said = capsys.readouterr().err
    assert said.count("the decoded pictures can't be kept in ") == 2
    assert ": each start decodes them again\n" in said
