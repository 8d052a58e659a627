"""The second start on a large folder: what the first one found is taken as it is while no folder in it has changed.

Checking a million files takes seconds, checking only their folders almost no time: a folder's modification time shows
files that were added, removed or renamed, but not one that was rewritten in place. For those a sample of files is
checked: changes to many are noticed, changes to a few only when something else changes.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vae.data.cache import PictureCache, write_json, write_whole
from vae.data.folder import File, Side
from vae.data.mapped import map_array

MIN_FILES = 20_000  # below, each file is looked at at every start
SAMPLE = 1000  # files that are looked at above
TICK_NS = 2_000_000_000  # a folder that changed so shortly before it was looked at may have changed again unnoticed
START = "start.json"


@dataclass
class Start:
    """What a folder's pictures came to.

    said: about them, to be said again. counts: of each side; those to test come first. names: of the classes, if any.
    """

    said: str
    counts: dict[Side, int]
    names: list[str] | None


def save_start(
    cache: PictureCache,
    start: Start,
    classes: np.ndarray,
    files: Sequence[File],
    folders: Mapping[str, int],
    now: int,
) -> None:
    """Write a start into the cache, if the next one may rely on it.

    classes: of the pictures in the order of the cache, int32, if there are any. folders: all that were looked into, by their real
    paths, and when they were last changed; now: when they were looked at, in nanoseconds.
    """
    if len(files) < MIN_FILES or not cache.is_settled or max(folders.values()) > now - TICK_NS:
        return
    sample = random.Random(0).sample(files, min(SAMPLE, len(files)))
    about = {"made_by": cache.made_by, "images": cache.images_name, "start": asdict(start)}
    with write_whole(cache.place / f"{cache.images_name}.classes") as file:
        file.write(classes.tobytes())
    write_json(cache.place / START, about | {"folders": folders, "sample": sample, "files": len(files)})


def load_start(cache: PictureCache) -> tuple[Start, np.ndarray, np.ndarray] | None:
    """Return the last start, the pixels, (N, C, H, W) uint8, and the classes, (N,) or none, if nothing seems to have changed."""
    try:
        about: Any = json.loads((cache.place / START).read_bytes())
        if about["made_by"] != cache.made_by:
            return None
        for folder, mtime_ns in about["folders"].items():
            if os.stat(folder).st_mtime_ns != mtime_ns:
                return None
        for path, size, mtime_ns in about["sample"]:
            status = os.stat(os.path.join(cache.folder, path))
            if (status.st_size, status.st_mtime_ns) != (size, mtime_ns):
                return None
        start = Start(**about["start"])
        images = map_array(cache.place / about["images"])
        classes = np.frombuffer(Path(cache.place / f"{about['images']}.classes").read_bytes(), np.int32)
        is_whole = images.shape == (sum(start.counts.values()), *cache.shape) and len(classes) in (0, len(images))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged, or replaced just now
        return None
    return (start, images, classes) if is_whole else None
