from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vae.decode import MAX_PIXELS
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
