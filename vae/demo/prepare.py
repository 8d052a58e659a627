"""Make a visitor's picture like those that a model was trained on, as far as it is a matter of framing and light.

A model of light things on black, such as MNIST's digits, gets the thing alone: found by its contrast, made light, put where
the model's own pictures have theirs, as large. What those are like is measured on pictures that the model itself makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae.decode import Values
from vae.demo.cache import CACHE
from vae.demo.things import (
    THING,
    Array,
    Invert,
    Square,
    around,
    box_of,
    centre_of_mass,
    cut_square,
    cut_thing,
    find_thing,
    inside_frames,
    looks_dark,
    stroke_width,
    thicken,
    within,
)
from vae.demo.uploads import SIDE, read_upload
from vae.generate import generate
from vae.images import OVERSAMPLING, to_unit
from vae.model import VAE

SEEDS = 128  # pictures of the model's own making that tell what it knows
BLACK = 0.1  # the mean of a picture's outermost pixels, at most, where things lie on black
ROOM = 0.9  # a thing that is longer than so much of the picture leaves no margin
SHOWN_SIDE = 480  # pixels, at most, of the visitor's picture as it comes back to show the crop
MAX_SIDES = 8  # of the picture, that a crop is as long as, at most
MAX_ZOOM = 16  # of a crop: a side of no less than this part of the picture's width


@dataclass(frozen=True)
class Habits:
    """What the pictures of a model are like. Lengths are in pixels.

    on_black: whether they show one light thing on black.
    side: the longer side of its bounding box.
    by_mass: whether its centre of mass is always in one place, or rather its bounding box.
    centre: that place, (x, y).
    thin, usual: widths of strokes, that of a tenth of the pictures at most, and the lower quartile.
    """

    on_black: bool
    side: float
    by_mass: bool
    centre: tuple[float, float]
    thin: float
    usual: float


class Prepared(NamedTuple):
    """A picture as a model sees it.

    x: (C, H, W) in [0, 1].
    crop: the square of the visitor's picture that it shows: left, top and side, as parts of the picture's width.
    picture: the visitor's, upright and without transparency.
    notes: what was done to it, a few words each.
    """

    x: Tensor
    crop: tuple[float, float, float]
    picture: Image.Image
    notes: tuple[str, ...]


@lru_cache(maxsize=16)
def habits(model: VAE) -> Habits:
    """Measure what the pictures of a model are like, on pictures of its own making."""
    x = generate(model, range(SEEDS))
    if x.shape[1] != 1:
        return Habits(False, x.shape[3], False, (x.shape[3] / 2, x.shape[3] / 2), 0, 0)
    rows = np.array([_measure(picture) for picture in x[:, 0].cpu().numpy()])
    edge, side, mass_y, mass_x, box_y, box_x, _ = np.median(rows, axis=0)
    spread = rows.std(axis=0)
    by_mass = bool(spread[2] + spread[3] < spread[4] + spread[5])
    centre = (mass_x, mass_y) if by_mass else (box_x, box_y)
    thin, usual = np.percentile(rows[:, 6], (10, 25)).tolist()
    return Habits(bool(edge < BLACK), float(side), by_mass, (float(centre[0]), float(centre[1])), thin, usual)


def _measure(picture: Array) -> tuple[float, ...]:
    """Measure a picture, (H, W): its edge's light, then the thing's longer side, centres (y, x) and stroke width."""
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]]).mean()
    mask = picture > THING * picture.max()
    top, bottom, left, right = box_of(mask)
    side = max(bottom - top, right - left)
    return edge, side, *centre_of_mass(picture * mask), (top + bottom) / 2, (left + right) / 2, stroke_width(mask)


def prepare_upload(
    model: VAE,
    path: str,
    invert: Invert = "auto",
    values: Values = "auto",
    crop: Mapping[str, Any] | None = None,
) -> Prepared:
    """Read the picture in a visitor's file and make it like those of the model; `picture` is then at most SHOWN_SIDE long.

    invert: exchange light and dark; "auto" does so for a model of light things on black, if the thing is dark.
    values: how more than 8 bits become 8, see `vae.decode.read_picture`.
    crop: {"left", "top", "size"}, as parts of the picture's width, if the visitor chose the square; else it is found.
    Raises ValueError if the picture can't be read or is empty, or an option is none.
    """
    for name, value, allowed in (("invert", invert, get_args(Invert)), ("values", values, get_args(Values))):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r:.100}")
    return _prepare_once(path, model, invert, values, None if crop is None else _read_crop(crop))


@CACHE.remember(maxsize=64)  # it is prepared once, not at every slide
def _prepare_once(path: str, model: VAE, invert: Invert, values: Values, crop: Square | None) -> Prepared:
    picture, note = read_upload(path, max(SIDE, OVERSAMPLING * model.config.image_size), values)
    prepared = prepare(model, picture, invert, crop)
    shown = prepared.picture.copy()
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return prepared._replace(picture=shown, notes=((note,) if note else ()) + prepared.notes)


def _read_crop(crop: Mapping[str, Any]) -> Square:
    if not isinstance(crop, Mapping) or set(crop) != {"left", "top", "size"}:
        raise ValueError(f"the crop must be a table of left, top and size, got {crop!r:.100}")
    numbers = [crop[name] for name in ("left", "top", "size")]
    if not all(type(number) in (int, float) and -100 <= number <= 100 for number in numbers):
        raise ValueError(f"left, top and size of the crop must be parts of the picture's width, got {crop!r:.100}")
    left, top, size = map(float, numbers)
    if size < 1 / MAX_ZOOM:
        raise ValueError(f"the size of the crop must be at least {1 / MAX_ZOOM}, got {size:.6g}")
    return left, top, size


def prepare(model: VAE, picture: Image.Image, invert: Invert = "auto", crop: Square | None = None) -> Prepared:
    """Make a picture, L, RGB or RGBA, like those of a model; arguments and errors as in `prepare_upload`."""
    size, known = model.config.image_size, habits(model)
    picture = _without_transparency(picture, contrasting=known.on_black)
    if known.on_black:
        return _prepare_thing(known, picture.convert("L"), size, invert, crop)
    picture = picture.convert("L" if model.config.channels == 1 else "RGB")
    width, height = picture.size
    edge = min(width, height)
    square = _pixels(crop, picture) if crop else ((width - edge) / 2, (height - edge) / 2, edge)
    x = to_unit(torch.from_numpy(np.array(cut_square(picture, square, size)))).view(size, size, -1).permute(2, 0, 1)
    if invert == "yes":
        x = 1 - x
    return Prepared(
        x.contiguous(), _parts(square, width), picture, ("light and dark were inverted",) * (invert == "yes")
    )


def _without_transparency(picture: Image.Image, contrasting: bool) -> Image.Image:
    """Put a picture on white or, if what is opaque of it is light and `contrasting`, on black."""
    if picture.mode not in ("RGBA", "LA"):
        return picture
    picture = picture.convert("RGBA")
    alpha = np.asarray(picture.getchannel("A"), dtype=np.float64)
    light = np.asarray(picture.convert("L"), dtype=np.float64)
    is_light = (light * alpha).sum() > 127.5 * alpha.sum()
    ground = "black" if contrasting and is_light and alpha.min() < 255 else "white"
    return Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture).convert("RGB")


def _pixels(crop: Square, picture: Image.Image) -> Square:
    left, top, side = (picture.width * part for part in crop)
    if side > MAX_SIDES * max(picture.size):
        raise ValueError(f"the crop is more than {MAX_SIDES} times as large as the picture: make it smaller")
    for start, length in ((left, picture.width), (top, picture.height)):
        if min(start + side, length) - max(start, 0) < 1:
            raise ValueError("the crop lies outside the picture, or shows less than a pixel of it: move it back")
    return left, top, side


def _parts(square: Square, width: int) -> Square:
    left, top, side = (part / width for part in square)
    return left, top, side


# --- light things on black -------------------------------------------------------------------------------------------


def _prepare_thing(known: Habits, picture: Image.Image, size: int, invert: Invert, crop: Square | None) -> Prepared:
    """Find the thing in a grey picture, make it light on black, and put it where the model's pictures have theirs."""
    width, height = picture.size
    has_margin = known.side < ROOM * size
    if crop is None and (width, height) == (size, size):
        light = np.asarray(picture, dtype=np.float32) / 255
        is_dark = looks_dark(light - 0.5, has_margin) if invert == "auto" else invert == "yes"
        candidate = 1 - light if is_dark else light
        if _is_in_place(known, candidate, size):
            same = torch.from_numpy(candidate.copy())[None]
            return Prepared(same, (0.0, 0.0, 1.0), picture, ("light and dark were inverted",) * is_dark)
    window = (0.0, 0.0, float(width), float(height))
    if crop is not None:
        left, top, side = _pixels(crop, picture)
        window = (max(0.0, left), max(0.0, top), min(width, left + side), min(height, top + side))
    else:
        window = inside_frames(picture, window, 0.2 if has_margin else 0.5)
    thing = find_thing(picture, window, invert, has_margin)
    box = thing.box
    for _ in range(2):  # the smaller a thing was in the window, the less exactly its box is known
        if crop is None and max(box[2] - box[0], box[3] - box[1]) < 0.5 * max(
            window[2] - window[0], window[3] - window[1]
        ):
            window = around(box, window)
            thing = find_thing(picture, window, "yes" if thing.is_dark else "no", has_margin)
            box = thing.box
    left, top, right, bottom = box
    longer = max(right - left, bottom - top)
    if crop is None:
        side = longer * size / known.side
        x, y = thing.centre if known.by_mass else ((left + right) / 2, (top + bottom) / 2)
        part = side / size
        # By its mass alone a thing could stick out: the model's own never do.
        x, y = x - known.centre[0] * part, y - known.centre[1] * part
        edge = part if known.side < size - 2 else 0.0
        square = (within(x, right + edge - side, left - edge), within(y, bottom + edge - side, top - edge), side)
    else:
        square = _pixels(crop, picture)
    cut = cut_thing(thing, square, size * OVERSAMPLING)
    if has_margin:
        cut = thicken(cut, known.thin, known.usual)
    small = np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.BOX)).clip(0, 1)
    notes = ("light and dark were inverted",) * thing.is_dark
    return Prepared(torch.from_numpy(small / max(small.max(), 1e-6))[None], _parts(square, width), picture, notes)


def _is_in_place(known: Habits, light: Array, size: int) -> bool:
    """Tell whether a picture of the model's size shows a thing on black, about as large and as central as its own do."""
    if light.max() < THING:
        return False
    edge, side, mass_y, mass_x, box_y, box_x, _ = _measure(light)
    y, x = (mass_y, mass_x) if known.by_mass else (box_y, box_x)
    is_central = max(abs(x - known.centre[0]), abs(y - known.centre[1])) < 0.15 * size
    return bool(edge < 3 * BLACK and 0.7 < side / known.side < 1.2 and is_central)
