"""Read a stranger's picture from bytes, within limits: Pillow and numpy, nothing of vae and no torch.

Run as a script, `python -I vae/decode.py`, it is the process in which the page decodes what visitors send: see `serve`.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO, Any, Literal, NamedTuple, cast

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

Values = Literal["auto", "full"]
SCRIPT = __file__  # this file, to be run as the page's process

# Pillow knows 40 formats, some of which run other programs (EPS), wrap others (IPTC) or are parsed by old code.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")
MAX_PIXELS = 50_000_000  # a few hundred kilobytes of PNG can unfold to gigabytes
MAX_DECODED_BYTES = 256_000_000  # of the file's own pixels: 50 million of 16-bit RGBA would be 400 MB
MAX_SCANS = 32  # of a JPEG; progressive ones have about ten, and each costs a pass over all pixels
MAX_TEXT_BYTES = 2_000_000  # of a PPM in letters, which is read slowly
WORKER_BYTES = 440 * 2**20  # of memory that the page's process may take: with the page itself less than 1.5 GB
WORKER_SECONDS = 1.5  # of processor time for a picture; a telephone's photograph takes a tenth of it

# The largest values of cameras and scanners, whose pictures come in types of 16 bits and more; 1 is for masks.
WHITES = (1, 255, 1023, 4095, 16383, 65535)


class Picture(NamedTuple):
    """A picture in 8-bit L or RGB, or LA or RGBA if asked for, and what was done to its values, in words, if anything."""

    image: Image.Image
    note: str | None


def read_picture(
    data: bytes, name: str = "the picture", side: int | None = None, values: Values = "auto", whole: bool = False
) -> Picture:
    """Read a picture from the bytes of a file: upright, the first frame of an animation, white where transparent.

    name: what to call it in errors.
    side: if given, take the largest centred square, made smaller by a whole factor to no less than this (pixels), which
        costs little even of a large photograph.
    whole: take all of the picture instead, its longer side made smaller to no less than `side`, and keep its transparency:
        the picture may then be in LA or RGBA, too.
    values: how values of 16 bits and more become 8 bits. "auto" scales them by the range in use: by the bits in use of
        whole numbers (12-bit values in a 16-bit file), by the smallest and largest of numbers outside [0, 1]. "full" takes
        the whole range of the type. Pictures of 8 bits are never stretched.
    Raises ValueError in one sentence if the bytes are no picture in one of FORMATS, are broken, or exceed a limit; all
    limits are checked before anything is decoded.
    """
    if values not in ("auto", "full"):
        raise ValueError(f"values must be auto or full, got {values!r:.100}")
    try:
        _check_before_opening(data)
        with Image.open(io.BytesIO(data), formats=formats()) as picture:
            _check_header(picture)
            if side is not None:
                scale = side / (max(picture.size) if whole else min(picture.size))
                picture.draft(None, (round(picture.width * scale), round(picture.height * scale)))  # JPEG only
            if _has_deep_colours(picture):
                with Image.open(io.BytesIO(data), formats=formats()) as again:
                    return _deep_colours(picture, again, side, values, whole)
            return flatten(picture, side, values, whole)
    except _TooMuchError as error:
        raise ValueError(f"{name} has {error}: make it smaller first") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{name} has {_MANY_PIXELS}: make it smaller first") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"{name} is not a picture in a known format: use PNG, JPEG or WebP") from None
    except MemoryError:
        raise ValueError(f"{name} takes too much memory to decode: make it smaller first") from None
    except Exception as error:  # on broken files Pillow's decoders raise whatever comes to hand
        reason = " ".join(str(error).split())[:200]
        because = f" ({reason})" if reason else ""
        raise ValueError(f"{name} could not be read, the file seems to be broken{because}") from error


class _TooMuchError(Exception):
    pass


_MANY_PIXELS = f"more than {MAX_PIXELS // 1_000_000} million pixels"


@cache
def formats() -> list[str]:
    """Return those of FORMATS that can be read here."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_before_opening(data: bytes) -> None:
    """Check what Pillow doesn't tell, or tells only once it has taken the memory."""
    if data[:2] == b"\xff\xd8" and _count_scans(data) > MAX_SCANS:
        raise _TooMuchError(f"more than {MAX_SCANS} scans")
    if data[:2] in (b"P1", b"P2", b"P3") and len(data) > MAX_TEXT_BYTES:
        raise _TooMuchError("too many numbers as text")
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":  # two canvases are allocated on opening
        width, height = (int.from_bytes(data[start : start + 3], "little") + 1 for start in (24, 27))
        if width * height > MAX_PIXELS:
            raise _TooMuchError(_MANY_PIXELS)


_MARKER = re.compile(rb"\xff+([^\x00\xff])")


def _count_scans(data: bytes) -> int:
    """Count the scans of a JPEG by its markers; those inside segments, as of thumbnails, are skipped."""
    scans, position = 0, 2
    while scans <= MAX_SCANS and (found := _MARKER.search(data, position)):
        marker, position = found[1][0], found.end()
        scans += marker == 0xDA
        if marker == 0xD9:  # end of image: what follows is another picture, which isn't read
            break
        if not 0xD0 <= marker <= 0xD8 and marker != 0x01:  # all others have a length
            position += int.from_bytes(data[position : position + 2], "big")
    return scans


def _check_header(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise _TooMuchError(_MANY_PIXELS)
    bits = 32  # as Pillow holds colours
    if _has_deep_colours(picture):
        bits = 64  # two pictures of 32 bits, see _deep_colours
    elif picture.format == "TIFF":
        tags = cast(Any, picture).tag_v2
        bits = max(bits, max(tags.get(258, (1,))) * tags.get(277, 1))  # of a sample, and samples per pixel
    if width * height * bits // 8 > MAX_DECODED_BYTES:
        raise _TooMuchError(f"more than {MAX_DECODED_BYTES // 1_000_000} MB of pixels")


def flatten(picture: Image.Image, side: int | None = None, values: Values = "auto", whole: bool = False) -> Picture:
    """Make any picture of PIL an upright 8-bit L or RGB one; side, values and whole as in `read_picture`."""
    picture.load()
    upright = _upright(picture)
    note = None
    if picture.mode == "F" or picture.mode.startswith("I"):
        numbers = np.asarray(picture)
        low, high, note = _range_in_use(*_finite_range(numbers), numbers.dtype.kind == "f", values)
        picture = Image.fromarray(_to_8_bits(_reduce_numbers(numbers, side, whole), low, high))
    elif "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info:
        picture = _reduce(_convert(picture, "RGBA"), side, whole)
        if not whole:
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    else:
        picture = _reduce(_convert(picture, "L" if picture.mode in ("1", "L") else "RGB"), side, whole)
    return Picture(picture if upright is None else picture.transpose(upright), note)


def _upright(picture: Image.Image) -> Image.Transpose | None:
    """Return what turns a picture as its Exif data say."""
    try:
        return _UPRIGHT.get(cast(int, picture.getexif().get(0x0112)))
    except _BROKEN_EXIF:  # no reason to refuse a picture
        return None


_BROKEN_EXIF = (
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    OSError,
    EOFError,
    struct.error,
)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _convert(picture: Image.Image, mode: str) -> Image.Image:
    return picture if picture.mode == mode else picture.convert(mode)  # PIL would copy it


def _reduce(picture: Image.Image, side: int | None, whole: bool) -> Image.Image:
    """Take the largest centred square, or all, and reduce it by a whole factor to no less than `side`; None: leave it."""
    if side is None:
        return picture.copy()
    width, height = picture.size
    edge = max(width, height) if whole else min(width, height)
    left, top = (0, 0) if whole else ((width - edge) // 2, (height - edge) // 2)
    box = (left, top, min(width, left + edge), min(height, top + edge))
    return picture.reduce(edge // side, box) if edge >= 2 * side else picture.crop(box)


def _reduce_numbers(numbers: np.ndarray, side: int | None, whole: bool) -> np.ndarray:
    """Do so with numbers, (H, W), of which PIL reduces only some types."""
    if side is None:
        return numbers
    edge = max(numbers.shape) if whole else min(numbers.shape)
    factors = [min(max(1, edge // side), length) for length in numbers.shape]  # no less than a pixel remains
    lengths = [min(edge, length) // factor for length, factor in zip(numbers.shape, factors, strict=True)]
    used = [length * factor for length, factor in zip(lengths, factors, strict=True)]
    top, left = ((length - part) // 2 for length, part in zip(numbers.shape, used, strict=True))
    numbers = numbers[top : top + used[0], left : left + used[1]]
    if factors == [1, 1]:
        return numbers
    return numbers.reshape(lengths[0], factors[0], lengths[1], factors[1]).mean(axis=(1, 3), dtype=np.float64)


def _to_8_bits(numbers: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map the numbers from low to high to those from 0 to 255."""
    numbers = np.nan_to_num(numbers).astype(np.float32)
    numbers = (numbers - np.float32(low)) * np.float32(255 / (high - low))
    return numbers.round().clip(0, 255).astype(np.uint8)


def _finite_range(numbers: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest of those numbers that are finite."""
    low, high = float(numbers.min()), float(numbers.max())
    if not math.isfinite(low + high):
        finite = numbers[np.isfinite(numbers)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return low, high


def _range_in_use(low: float, high: float, is_float: bool, values: Values) -> tuple[float, float, str | None]:
    """Return what becomes black and what white of numbers from low to high; say so where it isn't the type's range."""
    whole = 1.0 if is_float else 65535.0  # what Pillow reads as 32 bits is mostly 16
    if values == "full" or low == high == 0 or (is_float and low >= 0 and high <= 1):
        return 0.0, whole, None
    if low >= 0:
        # Pictures of one camera shall be scaled alike, dark ones too: by the largest value that they can have.
        low, usual = 0.0, float(next((white for white in WHITES if high <= white), high))
        if not is_float or (usual in (255, 65535) and high > usual / 4):
            high = usual
    if (low, high) == (0.0, whole):
        return low, high, None
    return low, high if high > low else low + 1, f"its values were scaled from {low:.6g} to {high:.6g}"


# --- colours of 16 bits ----------------------------------------------------------------------------------------------

# Pillow unpacks colours of 16 bits to their high bytes; told that the file is of the other byte order, to their low ones.
_OTHER_BYTES = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def _raw_mode(picture: Image.Image) -> str:
    """Return how the pixels lie in the file, as Pillow calls it; empty where it doesn't say."""
    tiles = getattr(picture, "tile", None)
    arguments = tiles[0][3] if tiles else None
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""


def _has_deep_colours(picture: Image.Image) -> bool:
    return _raw_mode(picture)[:-1] in ("LA;16", "RGB;16", "RGBX;16", "RGBA;16")


def _deep_colours(picture: ImageFile, again: ImageFile, side: int | None, values: Values, whole: bool) -> Picture:
    """Do as `flatten` with a picture of 16-bit colours, opened twice and not yet loaded: its colours are scaled alike."""
    raw = _raw_mode(picture)
    # Of grey with alpha there is no such reading, but its four bytes a pixel can be taken for red, green, blue and alpha.
    other = "RGBA" if raw.startswith("LA") else raw[:-1] + _OTHER_BYTES[raw[-1]]
    again.tile = [
        tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other) for tile in again.tile
    ]
    picture.load()
    upright, key = _upright(picture), picture.info.get("transparency")  # of PNG: the one colour that is transparent
    alpha_band: Image.Image | None
    if other == "RGBA":
        again.load()
        bands, alpha_band = [(again.getchannel("R"), again.getchannel("G"))], again.getchannel("B")
    else:
        high_bands = [picture.getchannel(band) for band in "RGB"]
        alpha_band = picture.getchannel("A") if "A" in picture.getbands() else None
        picture.close()  # both would be the most that a process may take
        again.load()
        bands = [(high, again.getchannel(band)) for high, band in zip(high_bands, "RGB", strict=True)]
        again.close()
    shown = np.zeros(bands[0][0].size[::-1], bool)
    reduced, ranges = [], []
    for index, (high_bytes, low_bytes) in enumerate(bands):
        numbers = np.asarray(high_bytes).astype(np.uint16)
        numbers <<= 8
        numbers |= np.asarray(low_bytes)
        if isinstance(key, tuple):
            shown |= numbers != key[index]
        ranges.append(_finite_range(numbers))
        reduced.append(_reduce_numbers(numbers, side, whole))
    low, high, note = _range_in_use(min(ranges)[0], max(high for _, high in ranges), False, values)
    colours = np.stack([_to_8_bits(numbers, low, high) for numbers in reduced], axis=-1)
    if alpha_band is not None or isinstance(key, tuple):
        alpha = _reduce_numbers(shown if alpha_band is None else np.asarray(alpha_band), side, whole)[..., None]
        alpha = alpha * (255.0 if alpha_band is None else 1.0)
        if whole:
            colours = np.concatenate([colours, alpha.round().astype(np.uint8)], axis=-1)
        else:  # on white
            colours = ((colours * alpha + 255 * (255 - alpha)) / 255).round().astype(np.uint8)
    mode = ("L", "LA", "RGB", "RGBA")[colours.shape[-1] - 1]
    image = Image.frombytes(mode, (colours.shape[1], colours.shape[0]), colours.tobytes())
    return Picture(image if upright is None else image.transpose(upright), note)


# --- the page's process ----------------------------------------------------------------------------------------------


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests for pictures until there are no more: each is a frame of JSON and one of the file's bytes.

    Each answer is a frame of JSON, which holds the size, mode and note of a picture or an error in words, and one of its
    pixels. The first answer, an empty one, says that all is imported.
    """
    write_frames(answers, b"{}", b"")
    while frames := read_frames(requests):
        options, data = frames
        try:
            with _limited_time():
                image, note = read_picture(data, **json.loads(options))
            head, pixels = {"mode": image.mode, "size": image.size, "note": note}, image.tobytes()
        except ValueError as error:
            head, pixels = {"error": str(error)}, b""
        write_frames(answers, json.dumps(head).encode(), pixels)


def write_frames(stream: IO[bytes], head: bytes, body: bytes) -> None:
    """Write two byte strings, each after its length."""
    stream.writelines((struct.pack("<II", len(head), len(body)), head, body))
    stream.flush()


def read_frames(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """Read what `write_frames` wrote; None if the stream ends first."""
    lengths = stream.read(8)
    if len(lengths) < 8:
        return None
    head, body = struct.unpack("<II", lengths)
    parts = stream.read(head), stream.read(body)
    return parts if (len(parts[0]), len(parts[1])) == (head, body) else None


@contextmanager
def _limited_time() -> Iterator[None]:
    """Let the system end this process once it has taken too much of a processor's time, however busy the machine is."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_PROF, WORKER_SECONDS)
    try:
        yield
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory() -> None:
    try:
        import resource  # there is none on Windows
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_DATA, (WORKER_BYTES, WORKER_BYTES))


if __name__ == "__main__":
    _limit_memory()
    formats()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    serve(sys.stdin.buffer, answers)
