"""Walks through the latent space: straight lines, great circles, and the points along them."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Path = Literal["slerp", "lerp"]

PARALLEL = 1e-4  # radians: closer to 0 or π than this, two directions span no plane to turn in


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Walk straight from a to b, each (D,): the points at t, (T,), of which 0 is exactly a and 1 exactly b -> (T, D)."""
    return torch.lerp(a, b, t[:, None])


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Turn from a to b at a steady angle while the length changes evenly; shapes and ends as in `lerp`.

    In many dimensions nearly all of N(0, I) lies in a thin shell around the origin, which a straight line cuts short
    and this one follows (Shoemake 1985; White 2016, "Sampling Generative Networks"). Where a and b lie on one line
    through the origin there is no one way to turn, and the walk is straight.
    """
    lengths = a.norm(), b.norm()
    cosine = torch.dot(a, b) / (lengths[0] * lengths[1])
    angle = torch.acos(cosine.clamp(-1, 1))
    if not PARALLEL < angle < torch.pi - PARALLEL:  # also where a or b is zero, and the angle not a number
        return lerp(a, b, t)
    t = t[:, None]
    direction = (torch.sin((1 - t) * angle) * a / lengths[0] + torch.sin(t * angle) * b / lengths[1]) / torch.sin(angle)
    between = torch.lerp(*lengths, t) * direction
    return torch.where(t == 0, a, torch.where(t == 1, b, between))


def interpolate(a: Tensor, b: Tensor, t: Tensor, path: Path = "slerp") -> Tensor:
    """Return the points at t, (T,) in [0, 1], of the named walk from a to b, each (D,) -> (T, D)."""
    if path not in get_args(Path):
        raise ValueError(f"path must be slerp or lerp, got {path!r}")
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"expected two latent vectors of one length, got shapes {(*a.shape,)} and {(*b.shape,)}")
    return (slerp if path == "slerp" else lerp)(a, b, t.to(a))
