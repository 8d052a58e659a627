"""Find the one thing that a grey picture shows: frames, uneven light, dust and contrast are dealt with here."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import max_pool2d

from vae.images import OVERSAMPLING

Invert = Literal["auto", "no", "yes"]
Array = np.ndarray[Any, Any]
Square = tuple[float, float, float]  # left, top, side
Window = tuple[float, float, float, float]  # left, top, right, bottom

THING = 0.2  # a pixel is of the thing if it is lighter than so much of the lightest
ANALYSED = 128  # pixels of the longer side in which things are looked for
MIN_CONTRAST = 0.08  # between thing and ground, of the range from black to white; with less a picture is empty
MAX_FRAMES = 4  # one inside the other; the two edges of a line count as two
COVERED = 0.9  # of each side of its bounding box, by what encloses a picture
MAX_PARTS = 64  # of a mask, the largest, are looked at
SPECK = 0.03  # of the largest part's pixels: smaller parts are dust
GROUND_ERROR = 0.06  # of the light that an even ground is allowed to vary by, where the light itself falls off smoothly
GROUND_ROUNDS = 12
GROUND_AGREED = 0.8  # of the picture's edge, at least, is ground where that is known
EMPTY = "this picture is empty: nothing in it stands out from the background"


class Thing(NamedTuple):
    """What stands out in a window of a picture: 0 on the ground, 1 on the thing, in an array of the window.

    box: left, top, right, bottom, and centre, of mass: (x, y), in the picture's pixels. offset, scale: of the array there.
    """

    light: Array
    is_dark: bool
    box: tuple[float, float, float, float]
    centre: tuple[float, float]
    offset: tuple[float, float]
    scale: tuple[float, float]


def find_thing(picture: Image.Image, window: Window, invert: Invert, has_margin: bool) -> Thing:
    """Find what stands out in a window of a grey picture. Raises ValueError if nothing does."""
    light = _look(picture, window)
    signed = light - _ground(light)
    is_dark = looks_dark(signed, has_margin) if invert == "auto" else invert == "yes"
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
    top, bottom, left, right = box_of(kept)
    y, x = centre_of_mass(shades)
    return Thing(
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


def looks_dark(light: Array, has_margin: bool) -> bool:
    """Tell whether the thing is darker than the ground: it is the smaller part, or what less of the edge belongs to."""
    mask = light > _otsu(light)
    if not has_margin:  # a coat may be the larger part
        mask = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return bool(mask.mean() > 0.5)


def inside_frames(picture: Image.Image, window: Window, least: float) -> Window:
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
    """Return the box, as `box_of` does, of a connected part of a mask if it encloses something else of some size."""
    top, bottom, left, right = box_of(part)
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


def within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high) if low <= high else (low + high) / 2


def _grown(mask: Array) -> Array:
    """Add its neighbours to a mask."""
    return max_pool2d(torch.from_numpy(mask.astype(np.float32))[None], 3, 1, 1)[0].numpy()


def around(box: Window, window: Window) -> Window:
    """Return a box with as much room around it as half its longer side, within the window."""
    room = 0.5 * max(box[2] - box[0], box[3] - box[1]) + 1
    return (
        max(window[0], box[0] - room),
        max(window[1], box[1] - room),
        min(window[2], box[2] + room),
        min(window[3], box[3] + room),
    )


def cut_thing(thing: Thing, square: Square, size: int) -> Array:
    """Cut a square of the picture's pixels out of a thing's array, (size, size); black where that ends."""
    left, top, side = square
    x, y = ((left - thing.offset[0]) / thing.scale[0], (top - thing.offset[1]) / thing.scale[1])
    picture = Image.fromarray(thing.light)
    # Both scales are the same but for rounding.
    return np.array(cut_square(picture, (x, y, side / thing.scale[0]), size))


def thicken(light: Array, thin: float, usual: float) -> Array:
    """Thicken strokes that are thinner than `thin` pixels, to `usual`, in OVERSAMPLING times its resolution."""
    for _ in range(4 * OVERSAMPLING):
        if stroke_width(light > 0.5) >= thin * OVERSAMPLING:
            break
        light = max_pool2d(torch.from_numpy(light)[None], 3, 1, 1)[0].numpy()
        if stroke_width(light > 0.5) >= usual * OVERSAMPLING:
            break
    return light


def stroke_width(mask: Array) -> float:
    """Estimate how wide the strokes of a mask are, in pixels: twice the area for each pixel of outline."""
    padded = np.pad(mask, 1)
    outline = (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()
    return 2 * mask.sum() / max(outline, 1)


def box_of(mask: Array) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of what is set in a mask, the ends excluded; all of it if nothing is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, mask.shape[0], 0, mask.shape[1]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def centre_of_mass(light: Array) -> tuple[float, float]:
    """Return the centre of mass of an array, (H, W): y and x, in pixels from its corner."""
    total = max(float(light.sum()), 1e-9)
    y, x = (float((light.sum(axis=1 - axis) * (np.arange(light.shape[axis]) + 0.5)).sum() / total) for axis in (0, 1))
    return y, x


def cut_square(picture: Image.Image, square: Square, size: int, fill: int | tuple[int, ...] = 0) -> Image.Image:
    """Cut a square out of a picture, which may reach beyond it, and resize it to size x size, anti-aliased.

    However far it reaches, memory is taken only for the picture and what a few of the result's pixels show around it.
    """
    left, top, side = square
    if left >= 0 and top >= 0 and left + side <= picture.width and top + side <= picture.height:
        return picture.resize((size, size), Image.Resampling.HAMMING, (left, top, left + side, top + side))
    part = side / size  # of the picture's pixels, that one of the result's takes
    over = math.ceil(2 * part) + 2  # where what the filter sees is still partly the picture
    ends = []  # of what the result shows of that, in its own pixels: first and last, the latter excluded
    for start, length in ((left, picture.width), (top, picture.height)):
        first, last = math.floor((-over - start) / part) + 1, math.ceil((length + over - start) / part) - 1
        ends.append((min(size, max(0, first)), min(size, max(0, last))))
    (x, right), (y, bottom) = ends
    cut = Image.new(picture.mode, (size, size), fill)
    if x < right and y < bottom:
        wider = Image.new(picture.mode, (picture.width + 2 * over, picture.height + 2 * over), fill)
        wider.paste(picture, (over, over))
        left, top = left + over, top + over
        box = (left + x * part, top + y * part, left + right * part, top + bottom * part)
        cut.paste(wider.resize((right - x, bottom - y), Image.Resampling.HAMMING, box), (x, y))
    return cut
