"""The tab that makes new pictures."""

from __future__ import annotations

import gradio as gr
from PIL import Image

from vae.demo.page import MAX_SEED, Endpoints, choice_input, number, number_input, seed_input, whole_number
from vae.generate import generate as generate_pictures
from vae.images import to_pil
from vae.model import VAE
from vae.prior import StandardNormal

MAX_PICTURES = 64


def new_pictures(
    model: VAE, count: int, seed: int, temperature: float, prior: str = "fitted"
) -> list[tuple[Image.Image, str]]:
    """Make `count` pictures from the seeds from `seed` on, each with its seed as caption.

    prior: "fitted" is the model's own, "standard-normal" is N(0, I). Raises ValueError if a number is out of its range.
    """
    count = whole_number(count, "the number of pictures", 1, MAX_PICTURES)
    seed = whole_number(seed, "the seed", 0, MAX_SEED)
    temperature = number(temperature, "the temperature", 0, 2)
    seeds = [(seed + offset) % (MAX_SEED + 1) for offset in range(count)]
    if prior not in ("fitted", "standard-normal"):
        raise ValueError(f"the prior must be fitted or standard-normal, got {prior!r}")
    chosen = StandardNormal() if prior == "standard-normal" else None
    pictures = generate_pictures(model, seeds, prior=chosen, temperature=temperature)
    return [(to_pil(picture), f"seed {seed}") for picture, seed in zip(pictures, seeds, strict=True)]


def generate_endpoints(endpoints: Endpoints) -> None:
    """Add what the tab calls."""

    def generate(model: str, count: int, seed: int, temperature: float, prior: str) -> list[tuple[Image.Image, str]]:
        """Make new pictures, one for each seed from `seed` on.

        temperature: below 1 pictures get more typical and less varied.
        prior: "fitted" is the model's own, "standard-normal" is N(0, I).
        """
        return new_pictures(endpoints.models[model], count, seed, temperature, prior)

    endpoints.add(
        generate,
        [
            number_input("count", 32, 1, MAX_PICTURES, whole=True),
            seed_input(),
            number_input("temperature", 1, 0, 2),
            choice_input("prior", ["fitted", "standard-normal"]),
        ],
        gr.Gallery(label="pictures", format="png", visible=False),
    )
