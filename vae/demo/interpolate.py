"""The tab that walks through the latent space: web/interpolate.js shows it, here is the API's walk, and the GIF."""

from __future__ import annotations

import io
from typing import Any, get_args

import torch
from PIL import Image
from torch import Tensor

from vae.demo.border import keep_bytes
from vae.demo.page import (
    Endpoints,
    choice_input,
    end_point,
    number,
    number_input,
    picture_input,
    picture_output,
    read_latent,
    seed_input,
    table,
    whole_number,
)
from vae.generate import decode
from vae.images import grid, to_pil
from vae.latent import Path
from vae.latent import interpolate as points_between
from vae.model import VAE

MAX_STEPS = 16
GIF_FRAMES = 24  # of the way there; 22 lead back
GIF_FRAME_MS = 60
GIF_SIDE = 252  # pixels, at least
CRISP_BELOW = 64  # pixels a side of a picture: smaller ones are enlarged to squares, see web/dom.js


def walk(
    model: VAE,
    picture_a: str | None,
    seed_a: int,
    picture_b: str | None,
    seed_b: int,
    t: float,
    steps: int,
    path: Path,
) -> tuple[Image.Image, Image.Image]:
    """Return the picture at t, 0 to 1, on the way from a to b, and a strip of `steps` pictures of the whole way.

    Raises ValueError if a picture can't be read or a number is out of its range.
    """
    steps = whole_number(steps, "the number of steps", 2, MAX_STEPS)
    t = number(t, "t", 0, 1)
    a, b = end_point(model, picture_a, seed_a), end_point(model, picture_b, seed_b)
    at = torch.cat([torch.tensor([t]), torch.linspace(0, 1, steps)])
    pictures = decode(model, points_between(a, b, at.to(a.device), path))
    return to_pil(pictures[0]), grid(pictures[1:], columns=steps, gap=1)


def gif(model: VAE, a: Tensor, b: Tensor, path: Path) -> bytes:
    """Return an animated GIF of the walk from a to b, each (D,), and back."""
    t = torch.linspace(0, 1, GIF_FRAMES)
    there = [larger(to_pil(picture)) for picture in decode(model, points_between(a, b, t, path))]
    first, *rest = [*there, *there[-2:0:-1]]
    file = io.BytesIO()
    first.save(file, "gif", save_all=True, append_images=rest, duration=GIF_FRAME_MS, loop=0)
    return file.getvalue()


def larger(picture: Image.Image) -> Image.Image:
    """Enlarge a picture by a whole factor to GIF_SIDE pixels a side or a little more, as the page shows it."""
    side = -(-GIF_SIDE // picture.width) * picture.width
    return picture.resize(
        (side, side), Image.Resampling.NEAREST if picture.width < CRISP_BELOW else Image.Resampling.BICUBIC
    )


def interpolate_endpoints(endpoints: Endpoints) -> None:
    """Add what the tab calls."""

    def interpolate(
        model: str,
        picture_a: str | None,
        seed_a: int,
        picture_b: str | None,
        seed_b: int,
        t: float,
        steps: int,
        path: Path,
    ) -> tuple[Image.Image, Image.Image]:
        """Walk from one picture, A, to another, B: the picture at t, and a strip of the whole way.

        Each end is a picture that was uploaded or, where there is none, that of a seed.
        t: from 0, which is A, to 1, which is B.
        path: "slerp" turns from A to B, "lerp" goes straight.
        """
        return walk(endpoints.models[model], picture_a, seed_a, picture_b, seed_b, t, steps, path)

    def interpolate_gif(model: str, walk: dict[str, Any] | None) -> dict[str, str]:
        chosen, walk = endpoints.models[model], walk or {}
        a, b = (read_latent(chosen, walk.get(end)) for end in ("a", "b"))
        content = gif(chosen, a, b, walk.get("path", "slerp"))
        return {"path": keep_bytes(content, "interpolation.gif")}

    endpoints.add(interpolate_gif, [table("walk")], table("file"), public=False)
    endpoints.add(
        interpolate,
        [
            picture_input("picture_a"),
            seed_input("seed_a"),
            picture_input("picture_b"),
            seed_input("seed_b", 1),
            number_input("t", 0.5, 0, 1),
            number_input("steps", 9, 2, MAX_STEPS, whole=True),
            choice_input("path", get_args(Path)),
        ],
        [picture_output("picture"), picture_output("strip")],
    )
