from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.ImageFile import ImageFile

from vae.decode import FORMATS, MAX_PIXELS, MAX_SCANS, read_picture
from vae.images import enlarge, grid, open_picture, to_pil, to_tensor, to_uint8, to_unit


def save(picture: Image.Image, path: Path, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def test_every_byte_survives_the_way_there_and_back(tmp_path: Path) -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(to_uint8(to_unit(pixels)), pixels)
    path = save(to_pil(to_unit(pixels)), tmp_path / "a.png")
    assert torch.equal(to_uint8(to_tensor(path, 16, 1)), pixels)
    colours = torch.randint(256, (3, 16, 16), dtype=torch.uint8)
    path = save(to_pil(to_unit(colours)), tmp_path / "b.png")
    assert torch.equal(to_uint8(to_tensor(path, 16, 3)), colours)


def test_to_uint8_clips() -> None:
    assert to_uint8(torch.tensor([-1.0, 0.5, 2.0])).tolist() == [0, 128, 255]


LEFT_HALF_WHITE = np.where(np.arange(32)[None, :] < 16, 255, 0).repeat(32, 0).astype(np.uint8)


def kinds() -> dict[str, Image.Image]:
    grey = Image.fromarray(LEFT_HALF_WHITE)
    alpha = Image.new("RGBA", (32, 32), (0, 0, 0, 0))  # transparent, so white, but for its right half
    alpha.paste((0, 0, 0, 255), (16, 0, 32, 32))
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([255, 255, 255, 0, 0, 0])
    palette.paste(1, (16, 0, 32, 32))
    return {
        "grey": grey,
        "bits": grey.convert("1"),
        "rgb": grey.convert("RGB"),
        "rgba": alpha,
        "grey-alpha": alpha.convert("LA"),
        "palette": palette,
        "16-bit": Image.fromarray(LEFT_HALF_WHITE.astype(np.uint16) * 257),
        "32-bit": Image.fromarray(LEFT_HALF_WHITE.astype(np.int32)),
        "float": Image.fromarray(LEFT_HALF_WHITE.astype(np.float32) / 255),
        "cmyk": grey.convert("RGB").convert("CMYK"),
    }


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_picture_is_read_alike(kind: str, channels: int, tmp_path: Path) -> None:
    path = save(kinds()[kind], tmp_path / ("a.tif" if kind in ("cmyk", "32-bit", "float") else "a.png"))
    x = to_tensor(path, 32, channels)
    assert x.shape == (channels, 32, 32)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, torch.from_numpy(LEFT_HALF_WHITE / 255).float().expand(channels, 32, 32))


def test_a_transparent_palette_is_white(tmp_path: Path) -> None:
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([10, 20, 30])
    path = save(palette, tmp_path / "a.png", transparency=0)
    assert to_tensor(path, 16, 3).min() == 1


def test_a_rotated_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    path = save(Image.fromarray(LEFT_HALF_WHITE), tmp_path / "a.jpg", exif=exif)
    x = to_tensor(path, 32, 1)
    assert x[0, :, :12].max() < 0.1
    assert x[0, :, 20:].min() > 0.9


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("L", (20, 20), value) for value in (255, 0)]
    path = save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert to_tensor(path, 16, 1).min() == 1


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 1001), (1001, 3), (27, 29)])
def test_any_shape_becomes_a_square_of_the_middle(width: int, height: int, tmp_path: Path) -> None:
    picture = Image.new("L", (width, height), 0)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    picture.paste(200, (left, top, left + side, top + side))
    x = to_tensor(save(picture, tmp_path / "a.png"), 16, 1)
    assert x.shape == (1, 16, 16)
    torch.testing.assert_close(x[:, 3:-3, 3:-3], torch.full((1, 10, 10), 200 / 255), atol=0.02, rtol=0)


def png_of(width: int, height: int) -> bytes:
    """A small file that claims to be, and truly unfolds to, a picture of that size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 + width // 8)) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 12_000, 20_000])  # above our limit, above Pillow's warning, above its error
def test_a_picture_bomb_is_refused_before_it_unfolds(side: int, tmp_path: Path) -> None:
    assert side**2 > MAX_PIXELS
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(side, side))
    with pytest.raises(ValueError, match=r"^bomb.png has more than 50 million pixels: make it smaller first$"):
        open_picture(path)


def broken_files() -> dict[str, bytes]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = {}
    for extension in ("png", "jpeg", "gif", "webp", "tiff", "bmp"):
        buffer = io.BytesIO()
        noise.save(buffer, extension)
        whole[extension] = buffer.getvalue()
    cut = {f"half.{extension}": data[: len(data) // 2] for extension, data in whole.items()}
    head = {f"head.{extension}": data[:30] for extension, data in whole.items()}
    return cut | head | {"empty.png": b"", "text.png": b"this is no picture", "zero.jpg": bytes(1000)}


@pytest.mark.parametrize("name", broken_files())
def test_a_broken_file_gets_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(broken_files()[name])
    with pytest.raises(ValueError, match=rf"^{name} (could not be read|is not a picture)") as caught:
        open_picture(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_get_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^there is no file "):
        open_picture(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="could not be read"):
        open_picture(tmp_path)


def test_grid_puts_every_picture_in_its_place() -> None:
    x = torch.arange(5).view(5, 1, 1, 1).expand(5, 1, 4, 4) / 10
    sheet = to_tensor_exact(grid(x, columns=3, gap=1))
    assert sheet.shape == (1, 9, 14)
    for index in range(5):
        top, left = index // 3 * 5, index % 3 * 5
        torch.testing.assert_close(sheet[:, top : top + 4, left : left + 4], x[index], atol=0.002, rtol=0)
    assert grid(torch.zeros(10, 3, 8, 8)).size == (38, 28)


def to_tensor_exact(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture) / 255).float()[None]


def test_enlarge_repeats_pixels() -> None:
    picture = enlarge(Image.fromarray(LEFT_HALF_WHITE), 100)
    assert picture.size == (96, 96)
    assert np.array_equal(np.array(picture), LEFT_HALF_WHITE.repeat(3, 0).repeat(3, 1))
    assert enlarge(picture, 10).size == (96, 96)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "ICNS", "TGA", "PCX", "SGI", "JPEG2000", "DDS"])
def test_formats_that_nobody_sends_are_not_opened(kind: str) -> None:
    """EPS runs another program, others are parsed by old code."""
    assert kind not in FORMATS
    data = encoded(Image.new("RGB", (64, 64), "red"), kind)
    with pytest.raises(ValueError, match=r"^the picture is not a picture in a known format: use PNG, JPEG or WebP$"):
        read_picture(data)


def test_a_picture_inside_another_format_is_not_opened() -> None:
    def field(record: int, tag: int, value: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, record, tag, len(value)) + value

    nine = struct.pack(">H", 9)
    iptc = b"".join([field(3, 60, b"\0\1"), field(3, 20, nine), field(3, 30, nine), field(3, 120, b"\1")])
    data = iptc + struct.pack(">BBBBB", 0x1C, 8, 10, 0x84, 0) + png_of(9, 9)
    with pytest.raises(ValueError, match="is not a picture in a known format"):
        read_picture(data)


def test_a_jpeg_of_many_scans_is_refused_and_an_ordinary_one_is_not() -> None:
    data = encoded(Image.new("L", (64, 64), 99), "JPEG", progressive=True)
    assert read_picture(data).image.getpixel((9, 9)) == 99
    last = data.rindex(b"\xff\xda")
    bomb = data[:last] + data[last:-2] * MAX_SCANS + b"\xff\xd9"
    with pytest.raises(ValueError, match=f"^a.jpg has more than {MAX_SCANS} scans: make it smaller first$"):
        read_picture(bomb, "a.jpg")
    thumbnail = b"\xff\xe1" + struct.pack(">H", 6 * MAX_SCANS + 2) + b"\xff\xda\x00\x02\x00\x00" * MAX_SCANS
    assert read_picture(data[:2] + thumbnail + data[2:]).image.size == (64, 64)


def test_depth_counts_for_the_limit() -> None:
    """50 million pixels of 16-bit colours are 400 MB."""

    def header(depth: int, colour: int) -> bytes:
        data = bytearray(png_of(7000, 7000))
        data[24:26] = bytes([depth, colour])
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        return bytes(data)

    with pytest.raises(ValueError, match=r"^the picture has more than 256 MB of pixels: make it smaller first$"):
        read_picture(header(16, 6))


def test_a_webp_canvas_is_measured_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    canvas = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + b"\xfe\x3f\0" * 2 + bytes(20)
    with pytest.raises(ValueError, match="has more than 50 million pixels"):
        read_picture(canvas)


def test_a_long_picture_in_letters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the picture has too many numbers as text: make it smaller first$"):
        read_picture(b"P3 2000 2000 255\n" + b"1 2 3\n" * 400_000)
    assert read_picture(b"P2 2 1 255\n7 9\n").image.getpixel((1, 0)) == 9


def test_a_large_photograph_is_decoded_small(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = Image.linear_gradient("L").resize((3000, 2000)).convert("RGB")
    sizes = []
    load = ImageFile.load

    def measured(self: ImageFile) -> Any:
        sizes.append(self.size)
        return load(self)

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", measured)
    data = encoded(gradient, "JPEG", quality=95)
    small = read_picture(data, side=100).image
    assert sizes[0] == (375, 250)
    assert small.size == (125, 125)
    monkeypatch.undo()
    whole = read_picture(data).image
    expected = np.array(whole.crop((500, 0, 2500, 2000)).resize(small.size, Image.Resampling.BOX), dtype=int)
    assert np.abs(np.array(small, dtype=int) - expected).max() <= 3


def values_of(numbers: np.ndarray, kind: str, values: Any = "auto") -> tuple[list[int], str | None]:
    """The first row as it is read from a file of that kind, and what is said of it."""
    image, note = read_picture(encoded(Image.fromarray(np.tile(numbers, (4, 1))), kind), values=values)
    return np.asarray(image)[0].tolist(), note


@pytest.mark.parametrize(
    ("numbers", "kind", "expected", "note"),
    [
        (np.array([0, 2048, 4000], np.uint16), "PNG", [0, 128, 249], "its values were scaled from 0 to 4095"),
        (np.array([0, 2048, 4000], np.uint16), "TIFF", [0, 128, 249], "its values were scaled from 0 to 4095"),
        (np.array([0, 128, 250], np.uint16), "PNG", [0, 128, 250], "its values were scaled from 0 to 255"),
        (np.array([0, 1, 1], np.uint16), "PNG", [0, 255, 255], "its values were scaled from 0 to 1"),
        (np.array([0, 32896, 40000], np.uint16), "PNG", [0, 128, 156], None),
        (np.array([0, 0, 0], np.uint16), "PNG", [0, 0, 0], None),
        (np.array([-1000, 0, 1000], np.int32), "TIFF", [0, 128, 255], "its values were scaled from -1000 to 1000"),
        (np.array([-2, 0, 2], np.float32), "TIFF", [0, 128, 255], "its values were scaled from -2 to 2"),
        (np.array([0, 1.5, 3], np.float32), "TIFF", [0, 128, 255], "its values were scaled from 0 to 3"),
        (np.array([0, 128, 200], np.float32), "TIFF", [0, 128, 200], "its values were scaled from 0 to 255"),
        (np.array([0, 0.02, 0.1], np.float32), "TIFF", [0, 5, 26], None),
        (np.array([np.nan, -1, 1], np.float32), "TIFF", [128, 0, 255], "its values were scaled from -1 to 1"),
        (np.array([0, 3, 16], np.uint8), "PNG", [0, 3, 16], None),
        (np.array([0, 3, 16], np.uint8), "TIFF", [0, 3, 16], None),
    ],
)
def test_deep_pictures_are_scaled_by_the_range_in_use_and_it_is_said(
    numbers: np.ndarray, kind: str, expected: list[int], note: str | None
) -> None:
    assert values_of(numbers, kind) == (expected, note)


def deep_png(values: np.ndarray, key: bytes = b"") -> bytes:
    """A PNG of 16 bits, (H, W, 2 to 4), which Pillow can't write; key: the colour that is transparent."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = chunk(b"IHDR", header) + (chunk(b"tRNS", key) if key else b"") + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


def deep_tiff(values: np.ndarray, order: str, is_compressed: bool) -> bytes:
    """A TIFF of 16 bits, (H, W, 3), which Pillow can't write either; order: of bytes, < or >."""
    height, width, _ = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if is_compressed else data
    shorts = {259: 8 if is_compressed else 1, 262: 2, 277: 3}
    longs = {256: width, 257: height, 273: 8, 278: height, 279: len(data)}
    entries = {tag: struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()}
    entries |= {tag: struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in longs.items()}
    entries[258] = struct.pack(f"{order}HHII", 258, 3, 3, 8 + len(data))  # bits of a sample, behind the data
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", 14 + len(data)) + data + struct.pack(f"{order}HHH", 16, 16, 16) + directory


@pytest.mark.parametrize("side", [None, 4])
def test_colours_of_16_bits_keep_all_their_bits(side: int | None) -> None:
    """Pillow keeps the high bytes alone: 12-bit colours would have 16 shades, all of them nearly black."""
    values = np.random.default_rng(0).integers(0, 4096, (12, 12, 4), dtype=np.uint16)
    values[0, 0, :3] = 4095
    opaque = values.copy()
    opaque[..., 3] = 65535
    grey = opaque[..., [0, 3]]
    files = {
        "rgb.png": deep_png(values[..., :3]),
        "rgba.png": deep_png(opaque),
        "la.png": deep_png(grey),
        **{
            f"{order}{is_compressed}.tif": deep_tiff(values[..., :3], order, is_compressed)
            for order in "<>"
            for is_compressed in (False, True)
        },
    }
    factor = 1 if side is None else 12 // side
    small = values.reshape(12 // factor, factor, 12 // factor, factor, 4).mean((1, 3))
    for name, data in files.items():
        image, note = read_picture(data, name, side)
        assert note == "its values were scaled from 0 to 4095"
        expected = small[..., :1] if name == "la.png" else small[..., :3]
        assert np.abs(np.asarray(image).reshape(expected.shape) - expected * 255 / 4095).max() <= 0.51
        full, note = read_picture(data, name, side, "full")
        assert note is None
        assert np.abs(np.asarray(full).reshape(expected.shape) - expected * 255 / 65535).max() <= 0.51


def test_what_is_transparent_of_16_bits_is_white_or_kept() -> None:
    values = np.full((2, 2, 4), 300, np.uint16)
    values[0, 0] = 4095, 1, 2, 0
    key = struct.pack(">HHH", 4095, 1, 2)
    for data in (deep_png(values), deep_png(values[..., :3], key)):
        image = read_picture(data).image
        assert image.mode == "RGB"
        assert image.getpixel((0, 0)) == (255, 255, 255)
        kept = read_picture(data, whole=True).image
        assert kept.mode == "RGBA"
        assert cast(Any, kept.getpixel((0, 0)))[3] == 0
    assert read_picture(deep_png(values[..., 2:]), whole=True).image.mode == "LA"


def test_the_whole_range_of_a_type_can_be_had() -> None:
    assert values_of(np.array([0, 2048, 4095], np.uint16), "PNG", "full") == ([0, 8, 16], None)
    assert values_of(np.array([-2, 0.5, 2], np.float32), "TIFF", "full") == ([0, 128, 255], None)
    with pytest.raises(ValueError, match="values must be auto or full, got 'some'"):
        values_of(np.array([0, 1, 2], np.uint8), "PNG", "some")


def test_what_an_iphone_takes_can_be_read(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(LEFT_HALF_WHITE).convert("RGB").resize((64, 64))).save(tmp_path / "a.heic")
    x = to_tensor(tmp_path / "a.heic", 32, 1)
    assert x[0, :, :12].min() > 0.9
    assert x[0, :, 20:].max() < 0.1


def test_the_reader_needs_neither_torch_nor_this_package() -> None:
    """It is run as a script, in which nothing else of this package may be imported."""
    code = (
        "import runpy, sys; runpy.run_path('vae/decode.py');"
        "print([m for m in sys.modules if m.split('.')[0] in ('vae', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
