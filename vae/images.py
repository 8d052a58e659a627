"""Picture files and PIL pictures to tensors and back: the only place where ranges, modes and sizes convert.

Tensors are (C, H, W) or (B, C, H, W), float32 in [0, 1] where the model works, uint8 where they are stored.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae.decode import Picture, Values, flatten, read_picture

RANGE_TOLERANCE = 0.01  # beyond [0, 1], for what resizing and rounding add
OVERSAMPLING = 4  # a picture is decoded at least so many times as large as the model sees it, and then resized well


def to_unit(pixels: Tensor) -> Tensor:
    """Convert uint8 pixels to float32 in [0, 1], same shape, on the same device."""
    return pixels.float().div_(255)


def to_uint8(x: Tensor) -> Tensor:
    """Convert [0, 1] to the nearest uint8 pixels, same shape; values outside are clipped."""
    return x.detach().float().mul(255).round().clamp(0, 255).to(torch.uint8)


def check_range(x: Tensor) -> None:
    """Raise ValueError if pictures have values beyond [0, 1], such as those from 0 to 255, or any that is not a number."""
    if x.numel() and not ((x > -RANGE_TOLERANCE) & (x < 1 + RANGE_TOLERANCE)).all():
        low, high = x.amin().item(), x.amax().item()
        raise ValueError(
            f"pictures should have values from 0 to 1, got {low:.4g} to {high:.4g}: see vae.images.to_unit"
        )


def open_picture(source: str | Path | Image.Image, values: Values = "auto") -> Image.Image:
    """Read a picture of any kind into upright 8-bit L or RGB, the first frame of an animation.

    Transparency becomes white, and more than 8 bits become 8 as values says, see `vae.decode.read_picture`; that also says
    when something was done to them. Of colours of 16 bits, a picture of PIL has lost the low 8 already.
    Raises ValueError in one sentence if the file is no picture, is broken or too large.
    """
    return read(source, values=values).image


def read(source: str | Path | Image.Image, side: int | None = None, values: Values = "auto") -> Picture:
    """Read a picture of any kind, as `vae.decode.read_picture` does the bytes of a file: arguments and errors are its."""
    if isinstance(source, Image.Image):
        return flatten(source, side, values)
    try:
        data = Path(source).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"there is no file {source}") from None
    except OSError as error:
        raise ValueError(f"{Path(source).name} could not be read ({error.strerror})") from None
    return read_picture(data, Path(source).name, side, values)


def to_tensor(source: str | Path | Image.Image, image_size: int, channels: int, values: Values = "auto") -> Tensor:
    """Read a picture as a model sees it, (C, image_size, image_size) in [0, 1]: the largest centred square, resized.

    Raises ValueError as `open_picture` does.
    """
    return to_unit(to_pixels(source, image_size, channels, values))


def to_pixels(source: str | Path | Image.Image, image_size: int, channels: int, values: Values = "auto") -> Tensor:
    """Do as `to_tensor`, but give uint8 pixels, (C, image_size, image_size)."""
    picture = read(source, OVERSAMPLING * image_size, values).image.convert("L" if channels == 1 else "RGB")
    picture = picture.resize((image_size, image_size), Image.Resampling.HAMMING)  # anti-aliased, without halos
    return torch.from_numpy(np.array(picture)).view(image_size, image_size, channels).permute(2, 0, 1).contiguous()


def to_pil(x: Tensor) -> Image.Image:
    """Convert one picture, (C, H, W) in [0, 1] with 1 or 3 channels, to PIL."""
    pixels = to_uint8(x).cpu().permute(1, 2, 0).numpy()  # (H, W, C)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def enlarge(picture: Image.Image, side: int) -> Image.Image:
    """Enlarge a picture by the largest whole factor that keeps its longer side within `side`, every pixel a square."""
    factor = max(1, side // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def grid(x: Tensor, columns: int | None = None, gap: int = 2) -> Image.Image:
    """Lay out pictures, (B, C, H, W) in [0, 1], row by row, `gap` pixels of mid-grey between; columns default to ~√B."""
    columns = columns or math.ceil(math.sqrt(len(x)))
    rows = math.ceil(len(x) / columns)
    _, channels, height, width = x.shape
    sheet = torch.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 0.5)
    for index, picture in enumerate(x.detach().float().cpu()):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = picture
    return to_pil(sheet)


# --- how alike two pictures are --------------------------------------------------------------------------------------


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Compute the structural similarity of pictures in [0, 1], two (B, C, H, W) of at least 11x11 -> (B,), 1 if equal.

    A Gaussian window of 11x11, σ = 1.5, and the mean over where it fits and over channels (Wang, Bovik, Sheikh &
    Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004).
    Raises ValueError on other shapes.
    """
    if x.shape != y.shape or x.ndim != 4 or min(x.shape[2:]) < 11:
        raise ValueError(f"expected two batches of pictures of 11x11 or more, got {(*x.shape,)} and {(*y.shape,)}")
    offset = torch.arange(-5.0, 6.0, device=x.device)
    window = torch.softmax(-offset.square() / (2 * 1.5**2), dim=0)
    # As two matrix products, which on small pictures are much faster than convolutions.
    rows, columns = (torch.eye(size, device=x.device).unfold(0, 11, 1) @ window for size in x.shape[2:])

    def blur(maps: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H - 10, W - 10)
        return rows @ maps @ columns.T

    x, y = x.float(), y.float()
    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x) - mean_x.square() + blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).flatten(1).mean(dim=1)


def psnr(mse: float) -> float:
    """Compute the peak signal-to-noise ratio in dB from the mean squared error of pixels in [0, 1]; inf for 0."""
    return math.inf if mse == 0 else -10 * math.log10(mse)
