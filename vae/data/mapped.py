"""Pictures that stay in a file: mapped into memory, and given back to the system while a training reads others of them."""

from __future__ import annotations

import math
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

GIVE_BACK_SECONDS = 0.1  # what is read in this time, at most, stays resident

_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()  # of pixels that are in use


def map_array(path: Path) -> np.ndarray:
    """Map a file of `np.save` that holds uint8. Whoever writes to the array changes his own memory, not the file.

    Raises OSError or ValueError if there is no such file, or not all of it.
    """
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{path} is of another version")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if is_fortran or dtype != np.uint8:
            raise ValueError(f"{path} holds no pixels")
        return _map(file, shape, file.tell())


def map_rows(file: BinaryIO, shape: tuple[int, int, int]) -> np.ndarray:
    """Map the whole rows of an open file of raw pixels, which may be closed then, or have been deleted."""
    rows = os.fstat(file.fileno()).st_size // math.prod(shape)
    return _map(file, (rows, *shape), 0) if rows else np.empty((0, *shape), np.uint8)


def _map(file: BinaryIO, shape: tuple[int, ...], offset: int) -> np.ndarray:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    _maps.add(mapped)
    return np.frombuffer(mapped, np.uint8, math.prod(shape), offset).reshape(shape)


@contextmanager
def pages_given_back() -> Iterator[None]:
    """Give back the memory of mapped pictures again and again, as nothing is lost by it: the system has the file in its cache.

    For a training, which changes no pictures: what was written to them is lost. Does nothing where the system can't do it.
    """
    advice: int | None = getattr(mmap, "MADV_DONTNEED", None)  # not on Windows
    ended = threading.Event()

    def give_back(advice: int) -> None:
        while not ended.wait(GIVE_BACK_SECONDS):
            for mapped in list(_maps):
                mapped.madvise(advice)

    thread = threading.Thread(target=give_back, args=(advice,), daemon=True)
    if advice is None:
        yield
        return
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
