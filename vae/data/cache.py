"""Decode a folder's pictures once, in parallel, into a memory-mapped file in the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import PIL
from PIL import Image

from vae.data.mapped import map_array, map_rows
from vae.decode import Values, formats, read_picture
from vae.files import cache_dir
from vae.images import OVERSAMPLING, to_pixels

CACHE_VERSION = 1  # raise it when the same file gives other pixels
MAX_FILE_BYTES = 300_000_000  # the largest picture that is decoded has 256 MB of pixels
HEAD_BYTES = 32  # that tell what kind of file it is
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
BATCH = 500  # pictures between two writes
MAX_WORKERS = 16  # each may need a few hundred MB for a large picture
INDEX, FOLDER = "index.json", "folder.json"


class File(NamedTuple):
    """A file of a folder: its path within the folder, with slashes, its size in bytes, and when it was last changed."""

    path: str
    size: int
    mtime_ns: int


@dataclass(slots=True)
class Entry:
    """What is known of a file.

    sha256: of its content; empty if it was not read to the end.
    row: of its pixels in the array called `source`; -1 if it is left out.
    text: why it is left out, or what was done to its values, if anything was.
    is_final: whether the next start need not try it again.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str
    row: int
    text: str | None
    source: str = ""
    is_final: bool = True

    @classmethod
    def from_json(cls, values: Sequence[Any], source: str) -> Entry:
        path, size, mtime_ns, sha256, row, text = values
        return cls(path, size, mtime_ns, sha256, row, text, source)

    def to_json(self, row: int) -> list[Any]:
        return [self.path, self.size, self.mtime_ns, self.sha256, row, self.text]


class PictureCache:
    """The decoded pictures of a folder at one size, kept outside of the folder.

    The cache has one folder for each folder of pictures. In it are folder.json and one folder for each size, with an index
    in JSON and the pixels in one .npy file, which is mapped into memory. While pictures are decoded they are appended to
    a part, from which the next start goes on. Where nothing can be written, a sentence on stderr says so, and the pictures
    are kept in memory.

    sides: the side, "train" or "test", of pictures whose hash says otherwise; see `vae.data.folder.choose_test`.
    images_name: of the file of pixels, once `arrange` has written or found it.
    is_settled: whether the cache holds all that was read, and none of it need be tried again.
    """

    def __init__(self, folder: Path, image_size: int, channels: int, pixel_range: Values, name: str = "") -> None:
        self.folder, self.pixel_range = os.path.realpath(folder), pixel_range
        self.shape = (channels, image_size, image_size)
        self.top = cache_dir() / "pictures" / hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        self.place = self.top / f"{name}{channels}x{image_size}x{image_size}-{pixel_range}"
        self.sides: dict[str, str] = (_read_json(self.top / FOLDER) or {}).get("sides", {})
        self._sources: dict[str, np.ndarray] = {}  # arrays of pictures, (N, C, H, W) uint8
        self._entries: list[Entry] = []
        self.made_by = [CACHE_VERSION, PIL.__version__]
        self._is_stale = False  # whether the files are no longer those of the index
        self._is_writable = True
        self.images_name = ""

    @property
    def is_settled(self) -> bool:
        return bool(self.images_name) and self._is_writable and all(entry.is_final for entry in self._entries)

    def read(self, files: Sequence[File]) -> list[Entry]:
        """Return what is known of each file, in the same order; those that are new or have changed are decoded."""
        known = self._load()
        entries = [known.get(file.path) for file in files]
        new = [
            file
            for file, entry in zip(files, entries, strict=True)
            if entry is None or (entry.size, entry.mtime_ns) != (file.size, file.mtime_ns)
        ]
        decoded = {entry.path: entry for entry in self._decode(new)} if new else {}
        self._entries = [decoded.get(file.path) or known[file.path] for file in files]
        final = [entry for entry in self._entries if entry.is_final]
        self._is_stale = len(final) != len(known) or any(entry.source != "images" for entry in final)
        return self._entries

    def arrange(self, order: Sequence[Entry]) -> np.ndarray:
        """Return the pixels of entries in that order, (N, C, H, W) uint8: of all that `read` gave but those left out."""
        images = self._sources.get("images")
        if images is not None and not self._is_stale and all(entry.row == row for row, entry in enumerate(order)):
            return images
        if self._is_writable:
            try:
                name = self._write(order)
                self._sources, self.images_name = {"images": map_array(self.place / name)}, name
                with suppress(OSError):
                    self._clean(name)
                return self._sources["images"]
            except OSError as error:
                self._say_unwritable(error)
        images = np.empty((len(order), *self.shape), np.uint8)
        for row, entry in enumerate(order):
            images[row] = self._sources[entry.source][entry.row]
        return images

    def _load(self) -> dict[str, Entry]:
        """Return what earlier starts found, by path: in the index, and in the parts that interrupted ones have left."""
        known = {}
        try:
            index = _read_json(self.place / INDEX)
            if index and index["made_by"] == self.made_by:
                images = map_array(self.place / index["images"])
                known = {row[0]: Entry.from_json(row, "images") for row in index["files"]}
                if images.shape != (sum(entry.row >= 0 for entry in known.values()), *self.shape):
                    raise ValueError("another shape")
                self._sources["images"], self.images_name = images, index["images"]
        except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError):  # damaged, or replaced just now
            known = {}
        for journal in sorted(self.place.glob("part-*.jsonl")):
            try:
                with journal.with_suffix(".pixels").open("rb") as file:
                    pixels = map_rows(file, self.shape)
                made_by, *lines = journal.read_text("ascii").splitlines()
                if json.loads(made_by) == self.made_by:
                    self._sources[journal.name] = pixels
                    for line in lines:
                        entry = Entry.from_json(json.loads(line), journal.name)
                        if entry.row < len(pixels):
                            known[entry.path] = entry
            except (OSError, ValueError, TypeError):  # the last line may be cut: those before it count
                continue
        return known

    def _decode(self, files: Sequence[File]) -> list[Entry]:
        from tqdm import tqdm

        formats()  # registers the decoders before there are threads
        read = partial(_read_file, folder=self.folder, shape=self.shape, pixel_range=self.pixel_range)
        workers = min(MAX_WORKERS, os.cpu_count() or 1)
        entries = []
        part = _Part(self.place, self.shape, self.made_by)
        with suppress(OSError):  # of which the part will say more
            write_json(self.top / FOLDER, {"folder": self.folder, "sides": self.sides})
        pool = ThreadPoolExecutor(workers)
        try:
            results = _in_order(pool, read, files, ahead=4 * workers)
            for entry, pixels in tqdm(results, "reading pictures", len(files), disable=None):
                part.add(entry, pixels)
                entries.append(entry)
        finally:
            pool.shutdown(cancel_futures=True)
            self._sources |= part.close()
        if part.error:
            self._say_unwritable(part.error)
        return entries

    def _write(self, order: Sequence[Entry]) -> str:
        """Write pixels and index whole or not at all; return the name of the file of pixels."""
        self.place.mkdir(parents=True, exist_ok=True)
        write_json(self.top / FOLDER, {"folder": self.folder, "sides": self.sides})
        name = f"images-{os.urandom(4).hex()}.npy"
        with write_whole(self.place / name) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(order), *self.shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for entry in order:  # written, not mapped: a map ends the process where the disk is full
                file.write(np.ascontiguousarray(self._sources[entry.source][entry.row]).data)
        rows = {entry.path: row for row, entry in enumerate(order)}
        final = [entry.to_json(rows.get(entry.path, -1)) for entry in self._entries if entry.is_final]
        write_json(self.place / INDEX, {"made_by": self.made_by, "images": name, "files": final})
        return name

    def _clean(self, name: str) -> None:
        """Delete the parts, what the index no longer names, and all of folders that are no longer there."""
        for path in self.place.iterdir():
            if path.name not in (INDEX, name):
                _delete(path)
        for about in self.top.parent.glob(f"*/{FOLDER}"):
            content = _read_json(about)
            if content and not os.path.isdir(content.get("folder", "")):
                shutil.rmtree(about.parent, ignore_errors=True)

    def _say_unwritable(self, error: OSError) -> None:
        if self._is_writable:
            reason = error.strerror or error
            print(
                f"the decoded pictures can't be kept in {self.place} ({reason}): each start decodes them again",
                file=sys.stderr,
            )
        self._is_writable = False


class _Part:
    """Decoded pictures on their way into the cache: appended to two files, from which the next start could go on.

    What can't be written stays in memory.
    """

    def __init__(self, place: Path, shape: tuple[int, int, int], made_by: list[Any]) -> None:
        self.shape = shape
        self.error: OSError | None = None
        self.written = 0  # rows
        self.waiting: list[tuple[Entry, np.ndarray | None]] = []
        self.in_memory: list[np.ndarray] = []
        self.path = place / f"part-{os.getpid()}-{os.urandom(2).hex()}.jsonl"
        self.files: list[BinaryIO] = []
        try:
            place.mkdir(parents=True, exist_ok=True)
            self.files = [self.path.with_suffix(".pixels").open("x+b"), self.path.open("xb")]
            self.files[1].write(json.dumps(made_by).encode() + b"\n")
        except OSError as error:
            self.error = error

    def add(self, entry: Entry, pixels: np.ndarray | None) -> None:
        """Take a file's entry, of which row and source are set here, and its pixels, if it is not left out."""
        self.waiting.append((entry, pixels))
        if len(self.waiting) == BATCH:
            self._flush()

    def _flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        row = self.written
        for entry, pixels in waiting:
            entry.source, entry.row = self.path.name, -1 if pixels is None else row
            row += pixels is not None
        if not self.error:
            try:
                pixels_file, journal = self.files
                pixels_file.write(b"".join(pixels.tobytes() for _, pixels in waiting if pixels is not None))
                _sync(pixels_file)  # first the pixels, then the lines that say they are there
                lines = [json.dumps(entry.to_json(entry.row)) for entry, _ in waiting if entry.is_final]
                journal.write("".join(f"{line}\n" for line in lines).encode())
                _sync(journal)
                self.written = row
                return
            except OSError as error:
                self.error = error
        for entry, pixels in waiting:
            if pixels is not None:
                entry.source, entry.row = "memory", len(self.in_memory)
                self.in_memory.append(pixels)

    def close(self) -> dict[str, np.ndarray]:
        """Write what is waiting; return the arrays that hold the rows, by the names of the entries' sources."""
        self._flush()
        sources = {"memory": np.stack(self.in_memory)} if self.in_memory else {}
        if self.written:
            sources[self.path.name] = map_rows(self.files[0], self.shape)  # another process may have deleted it
        for file in self.files:
            try:
                file.close()
            except OSError as error:  # a full disk: what it could not write is in memory
                self.error = self.error or error
        return sources


# --- one file --------------------------------------------------------------------------------------------------------


def _read_file(
    file: File, folder: str, shape: tuple[int, int, int], pixel_range: Values
) -> tuple[Entry, np.ndarray | None]:
    """Read, hash and decode a file. What may be otherwise at the next start isn't final."""
    entry = Entry(*file, sha256="", row=-1, text=None)
    try:
        with open(os.path.join(folder, file.path), "rb") as opened:
            before = os.fstat(opened.fileno())
            head = opened.read(HEAD_BYTES)
            entry.text, entry.is_final = _refuse(head, before.st_size)
            if entry.text:
                return entry, None
            data = head + opened.read(MAX_FILE_BYTES)
            after = os.fstat(opened.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
            entry.text, entry.is_final = "changed while it was read", False
            return entry, None
        entry.sha256 = hashlib.sha256(data).hexdigest()
        picture, entry.text = read_picture(data, "", OVERSAMPLING * shape[1], pixel_range)
        return entry, to_pixels(picture, shape[1], shape[0]).numpy()
    except OSError as error:
        entry.text, entry.is_final = f"can't be read ({error.strerror or error})", False
    except ValueError as error:
        entry.text = str(error).strip()
    return entry, None


def _refuse(head: bytes, size: int) -> tuple[str | None, bool]:
    """Return why a file that begins so need not be read, if so, and whether that is final."""
    if not head:
        return "is empty", True
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and "HEIF" not in formats():
        return "is HEIC, which needs a package that isn't installed: pip install pillow-heif", False
    accepts: list[Callable[[bytes], bool | str] | None] = [Image.OPEN[name][1] for name in formats()]
    if not any(accept is None or accept(head) for accept in accepts):
        return "is not a picture in a known format: use PNG, JPEG or WebP", True
    if size > MAX_FILE_BYTES:
        return f"has more than {MAX_FILE_BYTES // 1_000_000} MB", True
    return None, True


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[..., Any], items: Iterable[Any], ahead: int
) -> Iterator[Any]:
    """Do as pool.map, but start no more than `ahead` before the next result: a million results need not wait in memory."""
    running: deque[Future[Any]] = deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) == ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


# --- files of the cache ----------------------------------------------------------------------------------------------


def _read_json(path: Path) -> Any:
    """Read a JSON object; None if it isn't there or not whole."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: Any) -> None:
    with write_whole(path) as file:
        file.write(json.dumps(content).encode())  # in ASCII: file names need not be text


@contextmanager
def write_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path`, which takes its place when all is on the disk."""
    part = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with part.open("wb") as file:
            yield file
            _sync(file)
        os.replace(part, path)
    finally:
        _delete(part)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _delete(path: Path) -> None:
    with suppress(OSError):  # on Windows it may still be open in another process
        path.unlink(missing_ok=True)
