"""The tab that makes new pictures: the server knows what seeds stand for, the browser draws it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from vae.demo.models import Models
from vae.demo.page import MAX_SEED, Endpoints, choice_input, number, number_input, seed_input, table, whole_number
from vae.generate import decode, latents
from vae.images import to_pil
from vae.model import VAE
from vae.prior import Prior, StandardNormal

MAX_PICTURES = 64
PRIORS = ("fitted", "standard-normal")


def new_points(
    model: VAE,
    count: int,
    seed: int,
    temperature: float,
    prior: str = "fitted",
    where: Mapping[str, str | int] | None = None,
) -> tuple[list[int], Tensor]:
    """Return the seeds from `seed` on, `count` of them, and the latent vector of each, (count, D).

    prior: "fitted" is the model's own, "standard-normal" is N(0, I).
    where: attributes that the pictures shall have, such as {"digit": "7"}, instead of a prior.
    Raises ValueError if a number is out of its range, or there is no such prior, attribute or value.
    """
    count = whole_number(count, "the number of pictures", 1, MAX_PICTURES)
    seed = whole_number(seed, "the seed", 0, MAX_SEED)
    temperature = number(temperature, "the temperature", 0, 2)
    seeds = [(seed + offset) % (MAX_SEED + 1) for offset in range(count)]
    if prior not in PRIORS:
        raise ValueError(f"the prior must be {' or '.join(PRIORS)}, got {prior!r}")
    chosen: Prior | None = StandardNormal() if prior == "standard-normal" else None
    if where:
        if chosen is not None:
            raise ValueError("a class has a prior of its own: leave prior at fitted")
        if model.directions is None:
            raise ValueError("this model knows no classes: its training pictures had no labels")
        if not all(isinstance(value, str | int) for value in where.values()):
            raise ValueError(f"the values of where must be names, got {dict(where)!r:.100}")
        chosen = model.directions.prior_where(where)
    return seeds, latents(model, seeds, prior=chosen, temperature=temperature)


def describe_choices(models: Models, name: str) -> dict[str, Any]:
    """Tell what pictures can be drawn from: the priors, with their Fréchet distance if it was measured, and classes."""
    model, measured = models[name], models.figures(name).generation
    distances = {}
    if measured:
        distances = {"standard-normal": measured.standard_normal, "fitted": measured.prior}
    labels = {"fitted": "fitted to the data", "standard-normal": "N(0, I)"}
    own = PRIORS if not isinstance(model.prior, StandardNormal) else PRIORS[1:]
    return {
        "priors": [
            {"name": prior, "label": labels[prior], "frechet": row.frechet if (row := distances.get(prior)) else None}
            for prior in own
        ],
        "attributes": [
            {"name": attribute, "values": list(values)}
            for attribute, values in (model.directions.attributes if model.directions else {}).items()
        ],
    }


def generate_endpoints(endpoints: Endpoints) -> None:
    """Add what the tab calls."""
    models = endpoints.models

    def generate(
        model: str,
        count: int = 32,
        seed: int = 0,
        temperature: float = 1,
        prior: str = "fitted",
        where: dict[str, Any] | None = None,
    ) -> list[tuple[Image.Image, str]]:
        """Draw new pictures, one for each seed; the same seed always gives the same picture.

        Args:
            model: the name of the model.
            count: how many, from 1 to 64.
            seed: the first seed, a whole number; the others follow it.
            temperature: from 0 to 2; below 1 pictures get more typical and less varied.
            prior: where they are drawn from: "fitted" is the model's own, "standard-normal" is N(0, I).
            where: attributes that they shall have, such as {"digit": "7"}, where the model knows some.

        Returns:
            the pictures, each with its seed as caption
        """
        chosen = models[model]
        seeds, z = new_points(chosen, count, seed, temperature, prior, where)
        return [(to_pil(x), f"seed {seed}") for x, seed in zip(decode(chosen, z), seeds, strict=True)]

    def seed_points(
        model: str, count: int, seed: int, temperature: float, prior: str, where: dict[str, Any] | None
    ) -> dict[str, Any]:
        seeds, z = new_points(models[model], count, seed, temperature, prior, where)
        return {"seeds": seeds, "z": torch.round(z, decimals=5).tolist()}

    def generate_choices(model: str) -> dict[str, Any]:
        return describe_choices(models, model)

    inputs = [
        number_input("count", 32, 1, MAX_PICTURES, whole=True),
        seed_input(),
        number_input("temperature", 1, 0, 2),
        choice_input("prior", PRIORS),
        table("where"),
    ]
    endpoints.add(generate, inputs, gr.Gallery(label="pictures", format="png", visible=False))
    endpoints.add(seed_points, inputs, table("points"), public=False)
    endpoints.add(generate_choices, [], table("choices"), public=False)
