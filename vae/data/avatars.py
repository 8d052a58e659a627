"""Avatars, drawn here without limit: a seed in, a picture and what is drawn on it out.

The drawings are a remix of "ToonHead" by Johan Melin (https://www.johanmelin.com), licensed under CC BY 4.0. DiceBear's
packages choose the parts by the seed and compose them, resvg turns the composition into pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from vae.images import to_pixels

STYLE = "toon-head"
IMAGE_SIZE = 128
BACKGROUND = "#b6e3f4"
PACKAGES = "dicebear-core", "dicebear-styles", "resvg-py", "pillow"
MAX_WORKERS = 16  # each of which needs the memory of a Python with torch
SHARD = 1000  # avatars in one file of the cache

# What is drawn, in the order in which a slider goes through it: DiceBear's name for each value, and ours.
_OPTIONS: dict[str, tuple[str, dict[str | None, str]]] = {
    "hair colour": (
        "hairColor",
        {
            "#2c1b18": "black",
            "#724133": "dark brown",
            "#a55728": "auburn",
            "#b58143": "light brown",
            "#d6b370": "blond",
        },
    ),
    "hair": ("hairVariant", {"undercut": "undercut", "sideComed": "side-combed", "spiky": "spiky", "bun": "bun"}),
    "long hair": (
        "rearHairVariant",
        {
            None: "none",
            "neckHigh": "to the neck",
            "shoulderHigh": "to the shoulders",
            "longWavy": "long and wavy",
            "longStraight": "long and straight",
        },
    ),
    "beard": (
        "beardVariant",
        {
            None: "none",
            "chin": "chin",
            "moustacheTwirl": "moustache",
            "chinMoustache": "chin and moustache",
            "fullBeard": "full",
            "longBeard": "long",
        },
    ),
    "skin colour": (
        "skinColor",
        {"#5c3829": "dark", "#a36b4f": "brown", "#b98e6a": "tan", "#c68e7a": "rosy", "#f1c3a5": "fair"},
    ),
    "eyes": ("eyesVariant", {name: name for name in ("humble", "bow", "happy", "wink", "wide")}),
    "eyebrows": ("eyebrowsVariant", {name: name for name in ("angry", "sad", "neutral", "happy", "raised")}),
    "mouth": ("mouthVariant", {name: name for name in ("angry", "sad", "agape", "smile", "laugh")}),
    "clothes": (
        "clothesVariant",
        {
            "turtleNeck": "turtleneck",
            "tShirt": "T-shirt",
            "shirt": "shirt",
            "openJacket": "open jacket",
            "dress": "dress",
        },
    ),
    "clothes colour": (
        "clothesColor",
        {
            "#151613": "black",
            "#545454": "grey",
            "#e8e9e6": "white",
            "#eab308": "yellow",
            "#f97316": "orange",
            "#b11f1f": "red",
            "#ec4899": "pink",
            "#731ac3": "purple",
            "#0b3286": "blue",
            "#147f3c": "green",
        },
    ),
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {name: tuple(values.values()) for name, (_, values) in _OPTIONS.items()}


def versions() -> tuple[str, ...]:
    """Return the versions of PACKAGES: the same ones draw the same bytes. Raises ValueError if one is not installed."""
    try:
        return tuple(version(name) for name in PACKAGES)
    except ModuleNotFoundError:
        raise ValueError(
            f"avatars are drawn by {', '.join(PACKAGES)}, which are not all installed: pip install {' '.join(PACKAGES)}"
        ) from None


def draw(seed: int) -> tuple[np.ndarray, list[int]]:
    """Draw the avatar of a seed: (3, 128, 128) uint8, and for each of ATTRIBUTES the index of its value."""
    import resvg_py
    from dicebear import Avatar

    drawn = Avatar(_style(), {"seed": str(seed)}).to_json()
    png = resvg_py.svg_to_bytes(
        svg_string=drawn["svg"],
        background=BACKGROUND,
        skip_system_fonts=True,
        width=IMAGE_SIZE,
        height=IMAGE_SIZE,
    )
    with Image.open(io.BytesIO(png)) as picture:
        pixels = to_pixels(picture, IMAGE_SIZE, channels=3).numpy()
    labels = []
    for option, values in _OPTIONS.values():
        value = drawn["options"].get(option)
        value = value[0] if isinstance(value, list) else value  # colours come as a list
        if value not in values:
            raise ValueError(
                f"{STYLE} has a new {option}, {value}: install the versions of {', '.join(PACKAGES)} before"
            )
        labels.append(list(values).index(value))
    return pixels, labels


@cache
def _style() -> Any:
    from dicebear import Style

    return Style(json.loads(files("dicebear_styles").joinpath(f"{STYLE}.json").read_text(encoding="utf-8")))


@contextmanager
def _main_left_out() -> Iterator[None]:
    """Let processes that are spawned meanwhile not import the main module, which they have no need of.

    So a script needs no `if __name__ == "__main__"`, and may come from stdin, which can't be imported.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw_shard(seeds: range, path: Path) -> None:
    drawn = [draw(seed) for seed in seeds]
    images, labels = zip(*drawn, strict=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    np.savez_compressed(part, images=np.stack(images), labels=np.array(labels, np.uint8))
    part.replace(path)  # whole or not at all


def _read_shard(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the images and labels of a file of the cache, or None if it isn't there or is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error):
        return None
    whole = images.shape == (SHARD, 3, IMAGE_SIZE, IMAGE_SIZE) and labels.shape == (SHARD, len(ATTRIBUTES))
    return (images, labels) if whole else None


def load_avatars(data_dir: Path, seeds: range) -> tuple[np.ndarray, np.ndarray]:
    """Return the avatars of consecutive seeds, (N, 3, 128, 128) uint8, and their labels, (N, attributes) int64.

    What was drawn before is read from data_dir/avatars, the rest is drawn on all cores, about 90 a second and core, and
    kept there in files of SHARD seeds: who stops the drawing goes on from there. Raises ValueError in one sentence if
    the packages that draw are missing or the files can't be written.
    """
    from tqdm import tqdm

    recipe = repr((STYLE, IMAGE_SIZE, BACKGROUND, _OPTIONS, versions()))
    folder = data_dir / "avatars" / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    starts = range(seeds.start // SHARD * SHARD, seeds.stop, SHARD)
    paths = {start: folder / f"{start:06}.npz" for start in starts}
    images = np.empty((len(starts) * SHARD, 3, IMAGE_SIZE, IMAGE_SIZE), np.uint8)  # filled by parts: twice is too much
    labels = np.empty((len(starts) * SHARD, len(ATTRIBUTES)), np.int64)

    def fill(start: int) -> bool:
        shard = _read_shard(paths[start])
        if shard:
            rows = slice(start - starts.start, start - starts.start + SHARD)
            images[rows], labels[rows] = shard
        return shard is not None

    missing = [start for start in starts if not fill(start)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if missing:
            spawn = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads can hang
            workers = min(len(missing), os.cpu_count() or 1, MAX_WORKERS)
            with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_leave_interrupts_to_the_parent) as pool:
                with _main_left_out():  # the processes are spawned by `submit`
                    jobs = [pool.submit(_draw_shard, range(start, start + SHARD), paths[start]) for start in missing]
                try:
                    for job in tqdm(jobs, desc=f"drawing {SHARD * len(jobs):,} avatars", unit="k", disable=None):
                        job.result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
        unread = [start for start in missing if not fill(start)]
    except BrokenProcessPool:
        raise ValueError("a process that draws avatars was killed: start again, finished avatars are kept") from None
    except OSError as error:
        raise ValueError(f"avatars can't be kept in {folder}: {error.strerror or error}") from error
    if unread:
        raise ValueError(f"what was just drawn into {folder} can't be read: is the disk full?")
    wanted = slice(seeds.start - starts.start, seeds.stop - starts.start)
    return images[wanted], labels[wanted]
