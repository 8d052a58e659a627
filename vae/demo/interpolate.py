"""The tab that walks through the latent space from one picture to another."""

from __future__ import annotations

from typing import get_args

import torch
from PIL import Image

from vae.demo.page import (
    Endpoints,
    choice_input,
    end_point,
    number,
    number_input,
    picture_input,
    picture_output,
    seed_input,
    whole_number,
)
from vae.generate import decode
from vae.images import grid, to_pil
from vae.latent import Path
from vae.latent import interpolate as points_between
from vae.model import VAE

MAX_STEPS = 16


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
