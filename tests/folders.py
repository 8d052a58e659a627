"""What tests of folders of pictures share: pictures that can be told apart, and a cache of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import vae.data.cache
from vae.data import Pictures, load_dataset
from vae.data.cache import File
from vae.data.folder import Side

BOTH: tuple[Side, Side] = ("train", "test")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "unvaelievable" / "pictures"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    return folder


def picture(number: int) -> Image.Image:
    """A picture that can be told from 999 others after decoding, even if that is not exact: see `numbers_of`."""
    hundreds, tens, ones = number // 100, number // 10 % 10, number % 10
    return Image.new("RGB", (20 + number % 7, 24), (25 * hundreds + 12, 25 * tens + 12, 25 * ones + 12))


def numbers_of(pictures: Pictures) -> list[int]:
    digits = pictures.images[:, :, 8, 8].long() // 25
    return [int(number) for number in digits @ torch.tensor([100, 10, 1])]


def write(folder: Path, numbers: Sequence[int], suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture(number).save(folder / f"{number:03}.{suffix}")


def load(folder: Path, split: Side = "train", **options: Any) -> Pictures:
    return load_dataset("folder", folder, split, image_size=16, **options)


def everything(folder: Path) -> list[int]:
    return sorted(number for split in BOTH for number in numbers_of(load(folder, split)))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all files that are read."""
    paths: list[str] = []
    read_file = vae.data.cache._read_file

    def note(file: File, **options: Any) -> Any:
        paths.append(file.path)
        return read_file(file, **options)

    monkeypatch.setattr(vae.data.cache, "_read_file", note)
    return paths
