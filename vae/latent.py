"""Walks through the latent space, from one point to another, and the axes along which it varies most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Path = Literal["slerp", "lerp"]

PARALLEL = 1e-4  # radians: closer to 0 or π than this, two directions span no plane to turn in


def lerp(a: Tensor, b: Tensor, t: Tensor | Sequence[float]) -> Tensor:
    """Interpolate linearly from a to b, each (D,), at t, (T,), -> (T, D): t = 0 gives exactly a, t = 1 exactly b."""
    return torch.lerp(a, b, _check(a, b, t).to(a)[:, None])


def slerp(a: Tensor, b: Tensor, t: Tensor | Sequence[float]) -> Tensor:
    """Interpolate spherically from a to b: angle and length change linearly with t; shapes and ends as in `lerp`.

    In many dimensions nearly all of N(0, I) lies in a thin shell around the origin, which a straight line cuts short
    and this one follows (Shoemake 1985; White 2016, "Sampling Generative Networks"). Where a and b lie on one line
    through the origin there is no one way to turn, and the walk is straight.
    """
    # In float64, and by the arc tangent of half the angle: an arc cosine can't tell small angles from 0, nor large ones
    # from π (Kahan, "How Futile are Mindless Assessments of Roundoff", 2006, section 12).
    start, end, t = a.cpu().double(), b.cpu().double(), _check(a, b, t).cpu()  # there: MPS has no float64
    lengths = start.norm(), end.norm()
    u, v = start / lengths[0], end / lengths[1]
    angle = 2 * torch.atan2((u - v).norm(), (u + v).norm())
    if not PARALLEL < angle < torch.pi - PARALLEL:  # also where a or b is zero, and the angle not a number
        return lerp(a, b, t)
    t = t.double()[:, None]
    direction = (torch.sin((1 - t) * angle) * u + torch.sin(t * angle) * v) / torch.sin(angle)
    between = torch.lerp(*lengths, t) * direction
    return torch.where(t == 0, start, torch.where(t == 1, end, between)).to(a)


def interpolate(a: Tensor, b: Tensor, t: Tensor | Sequence[float], path: Path = "slerp") -> Tensor:
    """Return the points at t, (T,) in [0, 1], of the named walk from a to b, each (D,) -> (T, D).

    Raises ValueError if there is no such walk, or a shape doesn't fit.
    """
    if path not in get_args(Path):
        raise ValueError(f"path must be slerp or lerp, got {path!r}")
    return (slerp if path == "slerp" else lerp)(a, b, _check(a, b, t).to(a))


def _check(a: Tensor, b: Tensor, t: Tensor | Sequence[float]) -> Tensor:
    """Return t as a tensor, (T,). Raises ValueError if a shape doesn't fit."""
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"expected two latent vectors of one length, got shapes {(*a.shape,)} and {(*b.shape,)}")
    t = torch.as_tensor(t)
    if t.ndim != 1:
        raise ValueError(f"t should be a list of numbers or a tensor of one dimension, got shape {(*t.shape,)}")
    return t


def principal_axes(z: Tensor, count: int) -> Tensor:
    """Return the axes along which latent vectors, (N, D), vary most, each a standard deviation long -> (count, D).

    The widest comes first, and its largest number is positive. Fewer come if D or N is smaller.
    """
    centred = z - z.mean(dim=0)
    _, strength, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    return (axes * strength[:, None] / max(1, len(z) - 1) ** 0.5)[:count]
