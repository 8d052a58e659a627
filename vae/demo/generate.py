"""The tab that makes new pictures."""

from __future__ import annotations

import random

import gradio as gr
from PIL import Image

from vae.demo.models import Models
from vae.demo.page import MAX_SEED, in_one_sentence, number, whole_number
from vae.generate import generate
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
    pictures = generate(model, seeds, prior=chosen, temperature=temperature)
    return [(to_pil(picture), f"seed {seed}") for picture, seed in zip(pictures, seeds, strict=True)]


def generate_tab(models: Models, page: gr.Blocks, model: gr.Radio) -> None:
    """Lay out the tab and connect it."""
    with gr.Tab("Generate", id="generate"):
        gr.Markdown(
            "Draw a few random numbers, let the decoder turn them into pictures. No picture here was ever photographed "
            "or drawn; the same seed always gives the same one. The tutorials draw from **N(0, I)**, which the encoder "
            "was pulled towards; better pictures come from a prior **fitted** to where it really puts pictures."
        )
        with gr.Row():
            count = gr.Slider(1, MAX_PICTURES, 32, step=1, label="Pictures", elem_id="generate-count")
            temperature = gr.Slider(
                0, 2, 1, step=0.05, label="Temperature", info="lower is more typical", elem_id="generate-temperature"
            )
            prior = gr.Radio(
                [("fitted", "fitted"), ("N(0, I)", "standard-normal")],
                value="fitted",
                label="Prior",
                elem_id="generate-prior",
            )
            seed = gr.Number(0, label="First seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="generate-seed")
            again = gr.Button("Other seeds", variant="primary", elem_id="generate-others")
        gallery = gr.Gallery(
            show_label=False,
            format="png",
            columns=8,
            height="auto",
            object_fit="contain",
            buttons=["download"],
            elem_id="generate-gallery",
            elem_classes="large",
        )

        def handle(model: str, count: int, seed: int, temperature: float, prior: str) -> list[tuple[Image.Image, str]]:
            return new_pictures(models[model], count, seed, temperature, prior)

        gr.on(
            [page.load, model.change, count.change, seed.change, temperature.change, prior.change],
            in_one_sentence(handle),
            [model, count, seed, temperature, prior],
            gallery,
            api_name="generate",
            trigger_mode="always_last",
            show_progress="hidden",
        )
        again.click(lambda: random.randrange(1_000_000), None, seed, api_visibility="private")
