"""The tab that sends a picture through the bottleneck and back."""

from __future__ import annotations

from typing import Literal, get_args

import gradio as gr
from PIL import Image

from vae.demo.page import Endpoints, choice_input, picture_input, picture_output
from vae.demo.uploads import read_upload
from vae.generate import reconstruct as give_pictures_back
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
    back = give_pictures_back(model, x[None])[0]
    decibel = psnr((back - x).square().mean().item())
    nearness = f"**{decibel:.1f} dB** PSNR, through {config.latent_dim} numbers"
    return to_pil(x), to_pil(back), f"{nearness}; {note}" if note else nearness


def reconstruct_endpoints(endpoints: Endpoints) -> None:
    """Add what the tab calls."""

    def reconstruct(
        model: str, picture: str | None, invert: Invert
    ) -> tuple[Image.Image | None, Image.Image | None, str]:
        """Squeeze a picture through the model: what the model sees of it, what it draws again, and how near that is.

        invert: exchange light and dark; "auto" does so where a model of light things on black is given dark ones on white.
        """
        return give_back(endpoints.models[model], picture, invert)

    endpoints.add(
        reconstruct,
        [picture_input(), choice_input("invert", get_args(Invert))],
        [picture_output("seen"), picture_output("reconstruction"), gr.Markdown(visible=False)],
    )
