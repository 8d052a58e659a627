"""The page's folder of what visitors send and of the pictures that they are shown: bounded, and the oldest go first."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, wraps
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from gradio.processing_utils import hash_file
from gradio.utils import get_upload_folder

MAX_CACHE_BYTES = 2**30
MAX_IDLE_SECONDS = 3600.0  # since a file was last sent, read or shown
SURE_SECONDS = 60.0  # in which nothing is deleted, since an event or a browser may be about to read it
FILE_BYTES = 8192  # that a file takes on the disk at the least, with its folder
UNKNOWN = "this picture is not on the page: upload it first"

P = ParamSpec("P")
R = TypeVar("R")


class Cache:
    """The files in gradio's upload folder, each in a folder that is named after its content, as gradio does.

    A file of which a visitor knows stays for SURE_SECONDS, and after that as long as there is room, but no longer than
    MAX_IDLE_SECONDS. What was made of files, see `remember`, goes with them.
    """

    def __init__(self, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._bytes = 0  # when it was last counted, and what has been written since
        self._coming = 0
        self.pinned: set[str] = set()  # files that stay for as long as the page runs
        self._forgetting: list[Callable[[], None]] = []

    def reserve(self, size: int) -> None:
        """Keep room for a file of at most `size` bytes, until it is released. Raises ValueError if there is none."""
        for is_swept in (False, True):
            with self._lock:
                if self._bytes + self._coming + size <= self.max_bytes:
                    self._coming += size
                    return
            if not is_swept:
                self.sweep()
        raise ValueError("too many visitors are uploading right now: try again in a moment")

    def release(self, size: int) -> None:
        """Give back the room that was kept for a file, once it is written or won't be."""
        with self._lock:
            self._coming -= size

    def write(self, content: IO[bytes], name: str) -> str:
        """Write a file whole or not at all, and return its path. One that is there already is not written again."""
        folder = Path(get_upload_folder())
        folder.mkdir(parents=True, exist_ok=True)
        number, part = tempfile.mkstemp(dir=folder)
        try:
            with open(number, "wb") as file:
                shutil.copyfileobj(content, file)
            path = folder / hash_file(part) / name
            with self._lock:
                if not self.use(path):
                    path.parent.mkdir(exist_ok=True)
                    os.replace(part, path)
                    self._bytes += FILE_BYTES + path.stat().st_size
        finally:
            with suppress(OSError):
                os.unlink(part)
        return str(path)

    @staticmethod
    def use(path: str | Path) -> bool:
        """Note that a file is used now; return whether it is there."""
        try:
            os.utime(path)
        except OSError:
            return False
        return True

    def remember(self, maxsize: int) -> Callable[[Callable[Concatenate[str, P], R]], Callable[Concatenate[str, P], R]]:
        """Let a function of the path of a file do its work once: gradio names a file after its content.

        The function raises ValueError if the path leads to no file in this cache. What it returned is remembered, for
        `maxsize` calls, until files are deleted, and each call counts as a use of the file.
        """

        def decorate(function: Callable[Concatenate[str, P], R]) -> Callable[Concatenate[str, P], R]:
            remembered: Any = lru_cache(maxsize)(function)
            self._forgetting.append(remembered.cache_clear)

            @wraps(function)
            def look_up(path: str, *args: P.args, **kwargs: P.kwargs) -> R:
                result = remembered(path, *args, **kwargs)
                if not self.use(path):  # it was deleted a moment ago
                    raise ValueError(UNKNOWN)
                return result

            return look_up

        return decorate

    def forget(self) -> None:
        """Forget what was made of files."""
        for forget in self._forgetting:
            forget()

    def sweep(self) -> None:
        """Delete what was not used for long and, where the rest is too much, what was used least lately."""
        for path in tuple(self.pinned):
            self.use(path)
        now, total = time.time(), 0
        files: list[tuple[float, int, str]] = []  # when each was used, what it takes, and its path
        for folder, _, names in os.walk(get_upload_folder()):
            for name in names:
                path = os.path.join(folder, name)
                with suppress(OSError):
                    status = os.lstat(path)
                    files.append((status.st_mtime, FILE_BYTES + status.st_size, path))
                    total += files[-1][1]
        before = total
        for used, size, path in sorted(files):
            is_much = total > self.max_bytes * 3 // 4  # so that the next file doesn't need a sweep, too
            idle = now - used
            if idle > (SURE_SECONDS if is_much else MAX_IDLE_SECONDS) and self._delete(path, used):
                total -= size
        if total < before:
            self.forget()
        with self._lock:
            self._bytes = total

    def _delete(self, path: str, used: float) -> bool:
        """Delete a file, unless it was used meanwhile, and its folder; return whether it is gone."""
        with self._lock, suppress(OSError):
            if os.lstat(path).st_mtime != used:
                return False
            os.unlink(path)
            if (folder := os.path.dirname(path)) != os.path.abspath(get_upload_folder()):
                with suppress(OSError):  # there is another file in it
                    os.rmdir(folder)
            return True
        return not os.path.lexists(path)


CACHE = Cache()
