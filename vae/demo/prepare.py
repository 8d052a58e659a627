"""Make a visitor's picture like those that a model was trained on, as far as it is a matter of framing and light.

A model of light things on black, such as MNIST's digits, gets the thing alone: found by its contrast, made light, put where
the model's own pictures have theirs, as large. What those are like is measured on pictures that the model itself makes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d

from vae.decode import Values
from vae.demo.uploads import SIDE, read_upload
from vae.generate import generate
from vae.images import OVERSAMPLING, to_unit
from vae.model import VAE

Invert = Literal["auto", "no", "yes"]
Array = np.ndarray[Any, Any]

SEEDS = 128  # pictures of the model's own making that tell what it knows
BLACK = 0.1  # the mean of a picture's outermost pixels, at most, where things lie on black
THING = 0.2  # a pixel is of the thing if it is lighter than so much of the lightest
ROOM = 0.9  # a thing that is longer than so much of the picture leaves no margin
ANALYSED = 128  # pixels of the longer side in which things are looked for
MIN_CONTRAST = 0.08  # between thing and ground, of the range from black to white; with less a picture is empty
MAX_FRAMES = 4  # one inside the other; the two edges of a line count as two
COVERED = 0.9  # of each side of its bounding box, by what encloses a picture
MAX_PARTS = 64  # of a mask, the largest, are looked at
SPECK = 0.03  # of the largest part's pixels: smaller parts are dust
GROUND_ERROR = 0.06  # of the light that an even ground is allowed to vary by, where the light itself falls off smoothly
GROUND_ROUNDS = 12
GROUND_AGREED = 0.8  # of the picture's edge, at least, is ground where that is known
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
    top, bottom, left, right = _box(mask)
    side = max(bottom - top, right - left)
    return edge, side, *_centre_of_mass(picture * mask), (top + bottom) / 2, (left + right) / 2, _stroke_width(mask)


def prepare_upload(
    model: VAE,
    path: str,
    invert: Invert = "auto",
    values: Values = "auto",
    crop: Mapping[str, Any] | None = None,
) -> Prepared:
    """Read the picture in a visitor's file and make it like those of the model.

    invert: exchange light and dark; "auto" does so for a model of light things on black, if the thing is dark.
    values: how more than 8 bits become 8, see `vae.decode.read_picture`.
    crop: {"left", "top", "size"}, as parts of the picture's width, if the visitor chose the square; else it is found.
    Raises ValueError if the picture can't be read or is empty, or an option is none.
    """
    for name, value, allowed in (("invert", invert, get_args(Invert)), ("values", values, get_args(Values))):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r:.100}")
    return _prepare_once(model, path, invert, values, None if crop is None else _read_crop(crop))


Square = tuple[float, float, float]  # left, top, side
Window = tuple[float, float, float, float]  # left, top, right, bottom


@lru_cache(maxsize=128)  # gradio names an upload after its content; it is prepared once, not at every slide
def _prepare_once(model: VAE, path: str, invert: Invert, values: Values, crop: Square | None) -> Prepared:
    picture, note = read_upload(path, max(SIDE, OVERSAMPLING * model.config.image_size), values)
    prepared = prepare(model, picture, invert, crop)
    return prepared._replace(notes=((note,) if note else ()) + prepared.notes)


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
    square = _pixels(crop, width) if crop else ((width - edge) / 2, (height - edge) / 2, edge)
    x = to_unit(torch.from_numpy(np.array(_cut(picture, square, size)))).view(size, size, -1).permute(2, 0, 1)
    if invert == "yes":
        x = 1 - x
    return Prepared(
        x.contiguous(), _parts(square, width), picture, ("light and dark were exchanged",) * (invert == "yes")
    )


EMPTY = "this picture is empty: nothing in it stands out from the ground"


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


def _pixels(crop: Square, width: int) -> Square:
    left, top, side = (width * part for part in crop)
    return left, top, side


def _parts(square: Square, width: int) -> Square:
    left, top, side = (part / width for part in square)
    return left, top, side


def _cut(picture: Image.Image, square: Square, size: int, fill: int | tuple[int, ...] = 0) -> Image.Image:
    """Cut a square out of a picture, which may reach beyond it, and resize it to size x size, anti-aliased."""
    left, top, side = square
    right, bottom = left + side, top + side
    over = math.ceil(max(0, -left, -top, right - picture.width, bottom - picture.height))
    if over:
        wider = Image.new(picture.mode, (picture.width + 2 * over, picture.height + 2 * over), fill)
        wider.paste(picture, (over, over))
        picture, left, top, right, bottom = wider, left + over, top + over, right + over, bottom + over
    return picture.resize((size, size), Image.Resampling.HAMMING, (left, top, right, bottom))


# --- light things on black -------------------------------------------------------------------------------------------


def _prepare_thing(known: Habits, picture: Image.Image, size: int, invert: Invert, crop: Square | None) -> Prepared:
    """Find the thing in a grey picture, make it light on black, and put it where the model's pictures have theirs."""
    width, height = picture.size
    has_margin = known.side < ROOM * size
    if crop is None and (width, height) == (size, size):
        light = np.asarray(picture, dtype=np.float32) / 255
        is_dark = _is_dark(light - 0.5, has_margin) if invert == "auto" else invert == "yes"
        candidate = 1 - light if is_dark else light
        if _is_in_place(known, candidate, size):
            x = torch.from_numpy(candidate.copy())[None]
            return Prepared(x, (0.0, 0.0, 1.0), picture, ("light and dark were exchanged",) * is_dark)
    window = (0.0, 0.0, float(width), float(height))
    if crop is not None:
        left, top, side = _pixels(crop, width)
        window = (max(0.0, left), max(0.0, top), min(width, left + side), min(height, top + side))
        if window[2] - window[0] < 1 or window[3] - window[1] < 1:
            raise ValueError("the crop lies outside the picture: move it back")
    else:
        window = _inside_frames(picture, window, 0.2 if has_margin else 0.5)
    thing = _find(picture, window, invert, has_margin)
    box = thing.box
    for _ in range(2):  # the smaller a thing was in the window, the less exactly its box is known
        if crop is None and max(box[2] - box[0], box[3] - box[1]) < 0.5 * max(
            window[2] - window[0], window[3] - window[1]
        ):
            window = _around(box, window)
            thing = _find(picture, window, "yes" if thing.is_dark else "no", has_margin)
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
        square = (_within(x, right + edge - side, left - edge), _within(y, bottom + edge - side, top - edge), side)
    else:
        square = _pixels(crop, width)
    cut = _cut_thing(thing, square, size * OVERSAMPLING)
    if has_margin:
        cut = _thicken(cut, known)
    small = np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.BOX)).clip(0, 1)
    notes = ("light and dark were exchanged",) * thing.is_dark
    return Prepared(torch.from_numpy(small / small.max())[None], _parts(square, width), picture, notes)


class _Thing(NamedTuple):
    """What stands out in a window of a picture: 0 on the ground, 1 on the thing, in an array of the window.

    box: left, top, right, bottom, and centre, of mass: (x, y), in the picture's pixels. offset, scale: of the array there.
    """

    light: Array
    is_dark: bool
    box: tuple[float, float, float, float]
    centre: tuple[float, float]
    offset: tuple[float, float]
    scale: tuple[float, float]


def _find(picture: Image.Image, window: Window, invert: Invert, has_margin: bool) -> _Thing:
    """Find what stands out in a window of a grey picture. Raises ValueError if nothing does."""
    light = _look(picture, window)
    signed = light - _ground(light)
    is_dark = _is_dark(signed, has_margin) if invert == "auto" else invert == "yes"
    risen = -signed if is_dark else signed
    threshold = _otsu(risen)
    mask = risen > threshold
    if not mask.any() or mask.all() or risen[mask].mean() - risen[~mask].mean() < MIN_CONTRAST:
        raise ValueError(EMPTY)
    low, noise = np.median(risen[~mask]), 2 * risen[~mask].std()
    if has_margin:
        low, high = min(low + noise, threshold), np.percentile(risen[mask], 75)
    else:  # a garment has shades, some of them nearly the ground's
        low, high = 0.0, np.percentile(risen[mask], 98)
        mask = risen > THING * high
    kept = _without_specks(mask, has_margin)
    shades = ((risen - low) / max(high - low, 1e-6)).clip(0, 1)
    shades[mask & ~kept] = 0
    if has_margin:  # what is around the thing is none of it
        shades *= _grown(kept)
    scale = ((window[2] - window[0]) / light.shape[1], (window[3] - window[1]) / light.shape[0])
    top, bottom, left, right = _box(kept)
    y, x = _centre_of_mass(shades)
    return _Thing(
        shades.astype(np.float32),
        bool(is_dark),
        (
            window[0] + left * scale[0],
            window[1] + top * scale[1],
            window[0] + right * scale[0],
            window[1] + bottom * scale[1],
        ),
        (window[0] + x * scale[0], window[1] + y * scale[1]),
        (window[0], window[1]),
        scale,
    )


def _look(picture: Image.Image, window: Window) -> Array:
    """Return a window of a grey picture, (H, W) in [0, 1], in no more than ANALYSED pixels a side."""
    width, height = window[2] - window[0], window[3] - window[1]
    scale = min(1.0, ANALYSED / max(width, height))
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    small = picture.resize(shape, Image.Resampling.BOX, (window[0], window[1], window[2], window[3]))
    return np.asarray(small, dtype=np.float32) / 255


def _is_dark(light: Array, has_margin: bool) -> bool:
    """Tell whether the thing is darker than the ground: it is the smaller part, or what less of the edge belongs to."""
    mask = light > _otsu(light)
    if not has_margin:  # a coat may be the larger part
        mask = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return bool(mask.mean() > 0.5)


def _is_in_place(known: Habits, light: Array, size: int) -> bool:
    """Tell whether a picture of the model's size shows a thing on black, about as large and as central as its own do."""
    if light.max() < THING:
        return False
    edge, side, mass_y, mass_x, box_y, box_x, _ = _measure(light)
    y, x = (mass_y, mass_x) if known.by_mass else (box_y, box_x)
    is_central = max(abs(x - known.centre[0]), abs(y - known.centre[1])) < 0.15 * size
    return bool(edge < 3 * BLACK and 0.7 < side / known.side < 1.2 and is_central)


def _inside_frames(picture: Image.Image, window: Window, least: float) -> Window:
    """Return the window without what encloses it: a card on a table, a line drawn around.

    least: the part of the window that is in a frame, at least; a garment may be a rectangle itself.
    """
    for _ in range(MAX_FRAMES):
        light = _look(picture, window)
        light = light - _ground(light)
        mask = light > _otsu(light)
        boxes = [_frame(side, part, least) for side in (mask, ~mask) for part in _components(side)]
        top, bottom, left, right = next((box for box in boxes if box), (0, 0, 0, 0))
        if bottom == 0:
            break
        x, y = (window[2] - window[0]) / light.shape[1], (window[3] - window[1]) / light.shape[0]
        # One pixel less than is seen, since an edge is blurred.
        window = (
            window[0] + (left + 1) * x,
            window[1] + (top + 1) * y,
            window[0] + (right - 1) * x,
            window[1] + (bottom - 1) * y,
        )
    return window


def _frame(mask: Array, part: Array, least: float) -> tuple[int, int, int, int] | None:
    """Return the box, as `_box` does, of a connected part of a mask if it encloses something else of some size."""
    top, bottom, left, right = _box(part)
    if not (top > 0 and bottom < part.shape[0] and left > 0 and right < part.shape[1]):
        return None
    edges = part[top, left:right], part[bottom - 1, left:right], part[top:bottom, left], part[top:bottom, right - 1]
    is_large = (bottom - top) * (right - left) > least * part.size
    encloses = is_large and all(edge.mean() > COVERED for edge in edges) and not mask[top:bottom, left:right].all()
    return (top, bottom, left, right) if encloses else None


def _ground(light: Array) -> Array:
    """Fit a ground whose light falls off smoothly, a quadratic surface, to a picture, (H, W): same shape.

    It begins with the picture's edge and takes in whatever agrees with it; where the edge does not, the ground is even.
    """
    y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in light.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    values = light.ravel()
    edge = (np.maximum(abs(x), abs(y)) > 0.85).ravel()
    flat = np.full_like(light, np.median(values[edge]))
    used = edge
    for _ in range(GROUND_ROUNDS):
        own = terms[used]
        weights = np.linalg.solve(own.T @ own + 1e-6 * np.eye(terms.shape[1]), own.T @ values[used])
        error = abs(values - terms @ weights)
        now = error < max(GROUND_ERROR, 2 * float(np.median(error[used])))
        if now.sum() < terms.shape[1] * 4 or (now == used).all():
            break
        used = now
    fitted = (terms @ weights).reshape(light.shape)
    agrees = used[edge].mean() > GROUND_AGREED and used.mean() > 0.3
    return fitted if agrees and fitted.min() > -0.2 and fitted.max() < 1.2 else flat


def _otsu(light: Array) -> float:
    """Return the threshold that splits an array's values into the two classes that differ most (Otsu 1979)."""
    low, high = float(light.min()), float(light.max())
    if high <= low:
        return high
    counts, edges = np.histogram(light, 256, (low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()
    above = below[-1] - below
    sums = (counts * middles).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nan_to_num(between).argmax())])


def _components(mask: Array) -> list[Array]:
    """Return the connected parts of a mask, (H, W), as masks, the largest first; diagonal neighbours are connected."""
    labels = np.zeros((mask.shape[0] + 1, mask.shape[1]), dtype=np.int64)  # a row of nothing above
    joined = [0]  # of each label, one that it is the same as; the smallest is its own

    def find(label: int) -> int:
        while joined[label] != label:
            label = joined[label]
        return label

    padded = np.pad(mask, ((0, 0), (1, 1)))
    rows, ends = np.nonzero(padded[:, 1:] != padded[:, :-1])
    for y, start, end in zip(rows[::2].tolist(), ends[::2].tolist(), ends[1::2].tolist(), strict=True):
        # A run of pixels, which is one with all runs above that touch it.
        above = {find(label) for label in set(labels[y, max(0, start - 1) : end + 1].tolist()) - {0}}
        label = min(above, default=len(joined))
        if not above:
            joined.append(label)
        for other in above:
            joined[other] = label
        labels[y + 1, start:end] = label
    parts = np.array([find(label) for label in range(len(joined))])[labels[1:]]
    names, counts = np.unique(parts[mask], return_counts=True)
    return [parts == name for name in names[np.argsort(-counts)][:MAX_PARTS]]


def _without_specks(mask: Array, has_margin: bool) -> Array:
    """Leave out dust and, where things have a margin, what comes in from the edge beside something that doesn't."""
    parts = _components(mask)
    parts = [part for part in parts if part.sum() >= SPECK * parts[0].sum()]
    if has_margin:
        inside = [
            part for part in parts if not (part[0].any() or part[-1].any() or part[:, 0].any() or part[:, -1].any())
        ]
        if inside and inside[0].sum() > SPECK * parts[0].sum():
            parts = inside
    return np.any(parts, axis=0)


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high) if low <= high else (low + high) / 2


def _grown(mask: Array) -> Array:
    """Add its neighbours to a mask."""
    return max_pool2d(torch.from_numpy(mask.astype(np.float32))[None], 3, 1, 1)[0].numpy()


def _around(box: Window, window: Window) -> Window:
    """Return a box with as much room around it as half its longer side, within the window."""
    room = 0.5 * max(box[2] - box[0], box[3] - box[1]) + 1
    return (
        max(window[0], box[0] - room),
        max(window[1], box[1] - room),
        min(window[2], box[2] + room),
        min(window[3], box[3] + room),
    )


def _cut_thing(thing: _Thing, square: Square, size: int) -> Array:
    """Cut a square of the picture's pixels out of a thing's array, (size, size); black where that ends."""
    left, top, side = square
    x, y = ((left - thing.offset[0]) / thing.scale[0], (top - thing.offset[1]) / thing.scale[1])
    picture = Image.fromarray(thing.light)
    # Both scales are the same but for rounding.
    return np.array(_cut(picture, (x, y, side / thing.scale[0]), size))


def _thicken(light: Array, known: Habits) -> Array:
    """Thicken strokes that are thinner than those the model knows, in OVERSAMPLING times its resolution."""
    for _ in range(4 * OVERSAMPLING):
        if _stroke_width(light > 0.5) >= known.thin * OVERSAMPLING:
            break
        light = max_pool2d(torch.from_numpy(light)[None], 3, 1, 1)[0].numpy()
        if _stroke_width(light > 0.5) >= known.usual * OVERSAMPLING:
            break
    return light


def _stroke_width(mask: Array) -> float:
    """Estimate how wide the strokes of a mask are, in pixels: twice the area for each pixel of outline."""
    padded = np.pad(mask, 1)
    outline = (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()
    return 2 * mask.sum() / max(outline, 1)


def _box(mask: Array) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of what is set in a mask, the ends excluded; all of it if nothing is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, mask.shape[0], 0, mask.shape[1]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _centre_of_mass(light: Array) -> tuple[float, float]:
    """Return the centre of mass of an array, (H, W): y and x, in pixels from its corner."""
    total = max(float(light.sum()), 1e-9)
    y, x = (float((light.sum(axis=1 - axis) * (np.arange(light.shape[axis]) + 0.5)).sum() / total) for axis in (0, 1))
    return y, x
