"""The tab that sends a picture through the bottleneck and back."""

from __future__ import annotations

from typing import Literal

import gradio as gr
from PIL import Image

from vae.demo.models import Models
from vae.demo.page import example_gallery, in_one_sentence, output, upload
from vae.demo.uploads import read_upload
from vae.generate import reconstruct
from vae.images import psnr, to_pil
from vae.model import VAE

Invert = Literal["auto", "no", "yes"]


def give_back(model: VAE, picture: str | None, invert: Invert) -> tuple[Image.Image | None, Image.Image | None, str]:
    """Return what the model sees of the picture in a file, what it gives back, and how near that is, in words.

    invert: exchange light and dark; "auto" does so for a grey model, which knows light things on black, if the
    picture's border is rather light. Raises ValueError if the picture can't be read.
    """
    if picture is None:
        return None, None, ""
    config = model.config
    x, note = read_upload(picture, config.image_size, config.channels)
    border = (x.sum() - x[:, 1:-1, 1:-1].sum()) / (config.channels * 4 * (config.image_size - 1))
    if invert == "yes" or (invert == "auto" and config.channels == 1 and border > 0.5):
        x = 1 - x
    back = reconstruct(model, x[None])[0]
    decibel = psnr((back - x).square().mean().item())
    nearness = f"**{decibel:.1f} dB** PSNR, through {config.latent_dim} numbers"
    return to_pil(x), to_pil(back), f"{nearness}; {note}" if note else nearness


def reconstruct_tab(models: Models, page: gr.Blocks, model: gr.Radio) -> None:
    """Lay out the tab and connect it."""
    with gr.Tab("Reconstruct", id="reconstruct"):
        gr.Markdown(
            "The encoder squeezes a picture into a few numbers, the decoder draws it again from them alone. "
            "Try something the model was never trained on: it comes back as the nearest thing that it knows."
        )
        with gr.Row():
            picture = upload("Original", 320, "reconstruct-picture")
            seen = output("What the model sees", "reconstruct-seen", height=320)
            back = output("Reconstruction", "reconstruct-back", height=320)
        with gr.Row():
            invert = gr.Radio(
                ["auto", "no", "yes"],
                value="auto",
                label="Invert",
                info="grey models know light things on black",
                elem_id="reconstruct-invert",
            )
            nearness = gr.Markdown(elem_id="reconstruct-psnr")
        example_gallery(models, page, model, picture, first=7, columns=10, elem_id="reconstruct-examples")

        def handle(
            model: str, picture: str | None, invert: Invert
        ) -> tuple[Image.Image | None, Image.Image | None, str]:
            return give_back(models[model], picture, invert)

        gr.on(
            [model.change, picture.change, invert.change],
            in_one_sentence(handle),
            [model, picture, invert],
            [seen, back, nearness],
            api_name="reconstruct",
            trigger_mode="always_last",
            show_progress="hidden",
        )
