"""Visitors' files: taken one at a time, read only if they lie in the page's own cache, decoded by another process."""

from __future__ import annotations

import atexit
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
from gradio.utils import get_upload_folder
from gradio_client.utils import strip_invalid_filename_characters
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive

from vae.decode import SCRIPT, Picture, Values, read_frames, write_frames
from vae.demo.cache import CACHE, UNKNOWN

SIDE = 512  # pixels of an upload's longer side, at least, that remain of it: a digit may lie small in a corner
MAX_UPLOAD_BYTES = 20 * 2**20
UPLOAD_SECONDS = 300  # that a visitor may take to send a file
GRACE_SECONDS, MIN_RATE = 15.0, 10_000  # and more than so many bytes/s after the first seconds
DECODE_SECONDS = 5  # until a process is ended from outside; it ends itself after WORKER_SECONDS of processor time
START_SECONDS = 60  # on a busy machine; importing takes a third of a second
# Isolated from the environment, it would not find packages in the user's own folder: it is told where this process looks.
START = "import runpy, sys; sys.path += sys.argv[2:]; runpy.run_path(sys.argv[1], run_name='__main__')"
MAX_WAITING = 8  # visitors who wait for the one decoder

# What open() takes where it knows it: no symbolic link, and no waiting for a device or FIFO.
SAFELY = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))


async def take_upload(request: Request) -> Response:
    """Write the one file of a request into the page's cache and answer with its path, in a list, as gradio would.

    Gradio takes as many files as come, and leaves on the disk what a visitor began to send and did not end.
    """
    length, is_chunked = request.headers.get("content-length", ""), "transfer-encoding" in request.headers
    size = min(int(length), MAX_UPLOAD_BYTES) if length.isdigit() and not is_chunked else MAX_UPLOAD_BYTES
    request = Request(request.scope, _in_time(request.receive))
    try:
        await anyio.to_thread.run_sync(CACHE.reserve, size)
    except ValueError as error:
        with suppress(ClientDisconnect), anyio.move_on_after(UPLOAD_SECONDS), suppress(TimeoutError):
            async for _ in request.stream():  # a connection that is closed before all is read takes the answer with it
                pass
        return _refusal(str(error), 503)
    try:
        with anyio.fail_after(UPLOAD_SECONDS):
            async with request.form(max_files=1, max_fields=1) as form:
                file = form.get("files")
                if not isinstance(file, UploadFile):
                    return _refusal(_ONE_FILE, 400)
                if (file.size or 0) > MAX_UPLOAD_BYTES:
                    return _refusal(_TOO_LARGE, 413)
                name = strip_invalid_filename_characters(Path(file.filename or "").name).lstrip(".") or "file"
                return JSONResponse([await anyio.to_thread.run_sync(CACHE.write, file.file, name)])
    except (MultiPartException, HTTPException):  # the latter where starlette knows the app
        return _refusal(_ONE_FILE, 400)
    except (ClientDisconnect, TimeoutError):
        return _refusal("the file was not sent whole", 400)
    finally:
        CACHE.release(size)


def _in_time(receive: Receive) -> Receive:
    """Let a request come no more slowly than MIN_RATE, once it had GRACE_SECONDS: room is kept for it. Raises TimeoutError."""
    began, came = time.monotonic(), 0

    async def in_time() -> Message:
        nonlocal came
        with anyio.fail_after(max(0.0, GRACE_SECONDS + came / MIN_RATE - (time.monotonic() - began))):
            message = await receive()
        came += len(message.get("body", b""))
        return message

    return in_time


def _refusal(sentence: str, status: int) -> Response:
    return JSONResponse({"error": sentence[:1].upper() + sentence[1:] + "."}, status)


_ONE_FILE = "send one file, as multipart/form-data under the name files"
_TOO_LARGE = f"a picture may have at most {MAX_UPLOAD_BYTES // 2**20} MB: make it smaller first"


def read_upload(path: str, side: int = SIDE, values: Values = "auto") -> Picture:
    """Read all of a visitor's picture, 8-bit L, RGB or RGBA, and what was done to its values, in words.

    side: its longer side is made smaller by a whole factor, to no less than this (pixels).
    Raises ValueError in one sentence if the path leads out of this page's upload cache, is no regular file of at most
    MAX_UPLOAD_BYTES, or if the picture can't be read.
    """
    read = _read_once(path, side, values)
    if isinstance(read, str):
        raise ValueError(read)
    return read


@CACHE.remember(maxsize=16)  # a photograph is decoded once, not at every slide
def _read_once(path: str, side: int, values: Values) -> Picture | str:
    """Read a visitor's picture, or return why it can't be decoded: to try again would take as long as before."""
    try:
        return DECODER.read(lambda: read_own_file(path), os.path.basename(path), side, values, whole=True)
    except UndecodableError as error:
        return str(error)


def read_own_file(path: str) -> bytes:
    """Return the bytes of a file in this page's upload cache. Raises ValueError as `read_upload` does."""
    try:
        folder, absolute = os.path.realpath(get_upload_folder()), os.path.abspath(path)
        # First by name alone: even to look at what lies elsewhere can tell, or wait for a slow disk.
        if not any(_is_inside(absolute, place) for place in (folder, os.path.abspath(get_upload_folder()))):
            raise ValueError(UNKNOWN)
        resolved = os.path.realpath(absolute)
        if not _is_inside(resolved, folder):
            raise ValueError(UNKNOWN)
        with open(os.open(resolved, os.O_RDONLY | SAFELY), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(UNKNOWN)
            if status.st_size > MAX_UPLOAD_BYTES:
                raise ValueError(_TOO_LARGE)
            return file.read(MAX_UPLOAD_BYTES)
    except (OSError, UnicodeError):
        raise ValueError(UNKNOWN) from None
    except ValueError as error:
        if "null" in str(error):  # a path that no system takes
            raise ValueError(UNKNOWN) from None
        raise


def _is_inside(path: str, folder: str) -> bool:
    return Path(folder) in Path(path).parents


class UndecodableError(ValueError):
    """What the bytes of a file are is no picture, or one that takes too much."""


class Decoder:
    """A process that decodes pictures, one at a time, and a spare one for when it takes too long and is ended."""

    def __init__(self, seconds: float = DECODE_SECONDS, waiting: int = MAX_WAITING) -> None:
        self.seconds = seconds
        self._room = threading.BoundedSemaphore(waiting)
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ready: set[int] = set()

    def read(
        self, load: Callable[[], bytes], name: str, side: int, values: Values = "auto", whole: bool = False
    ) -> Picture:
        """Do as `vae.decode.read_picture`, there, with the bytes that `load` returns, once it is their turn.

        Raises UndecodableError where that raises ValueError, ValueError if too many wait, and whatever `load` raises.
        """
        if not self._room.acquire(blocking=False):
            raise ValueError("too many visitors are uploading right now: try again in a moment")
        try:
            with self._lock:
                options = {"name": name, "side": side, "values": values, "whole": whole}
                answer = self._ask(json.dumps(options).encode(), load())
        finally:
            self._room.release()
        if answer is None:
            raise UndecodableError(f"{name} could not be decoded in time: save it as an ordinary PNG or JPEG")
        head, pixels = json.loads(answer[0]), answer[1]
        if "error" in head:
            raise UndecodableError(head["error"])
        return Picture(Image.frombytes(head["mode"], tuple(head["size"]), pixels), head["note"])

    def start(self) -> None:
        """Start what processes are wanting, without waiting for them."""
        # Nothing of the environment that a decoder doesn't need, such as tokens, lies where a broken one could read it.
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
        while len(self._processes) < 2:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-I", "-c", START, SCRIPT, *sys.path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                )
            )

    def close(self) -> None:
        """End the processes."""
        while self._processes:
            self._end(self._processes[0])

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._processes.remove(process)
        self._ready.discard(process.pid)
        process.kill()
        process.communicate()

    def _ask(self, options: bytes, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the answer to a request, or None if there is none in time; the process is then replaced."""
        for ended in [process for process in self._processes if process.poll() is not None]:
            self._end(ended)
        self.start()
        process = self._processes[0]
        if process.pid not in self._ready:
            if self._within(START_SECONDS, process, None) is None:
                self._end(process)
                raise RuntimeError("the process that decodes pictures can't be started")
            self._ready.add(process.pid)
        answer = self._within(self.seconds, process, (options, data))
        if answer is None:
            self._end(process)
            self.start()
        return answer

    def _within(
        self, seconds: float, process: subprocess.Popen[bytes], request: tuple[bytes, bytes] | None
    ) -> tuple[bytes, bytes] | None:
        """Send a request and return the answer; None if the process has ended, as it must after so many seconds."""
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            if request is not None:
                write_frames(process.stdin, *request)
            return read_frames(process.stdout)
        except OSError:
            return None
        finally:
            timer.cancel()


DECODER = Decoder()
atexit.register(DECODER.close)
