"""What the tabs share: parts of the layout, and checks of numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from vae.demo.border import told
from vae.demo.models import Models
from vae.demo.uploads import read_upload
from vae.generate import latents
from vae.model import VAE

MAX_SEED = 2**31 - 1

THEME = gr.themes.Soft(
    primary_hue="indigo",
    font=["system-ui", "sans-serif"],  # what the visitor's machine has: no font is fetched from elsewhere
    font_mono=["ui-monospace", "monospace"],
)
# Gradio shows a picture at its own size at the most: 28 pixels would be a stamp.
CSS = """
.large img { width: 100% !important; height: 100% !important; object-fit: contain; }
.large .image-container { padding-top: 2.3rem; box-sizing: border-box; }
.large .grid-wrap { max-height: none !important; min-height: 0 !important; height: auto !important; }
.large .grid-container { grid-template-columns: repeat(var(--grid-cols), minmax(0, 1fr)) !important; grid-auto-rows: auto; }
.large .caption-label { font-size: 0.7rem; padding: 0 0.3rem; }
.strip img, .strip button, .strip .image-frame { width: 100% !important; height: auto !important; object-fit: contain; }
@media (max-width: 640px) { .large .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; } }
#notice { border-left: 4px solid var(--color-accent); padding: 0.2rem 0.8rem; background: var(--color-accent-soft); }
#title .md { display: flex; flex-wrap: wrap; align-items: baseline; column-gap: 1rem; }
footer { visibility: hidden; }
"""
# Browsers smooth what they enlarge, which is right for a face of 64 pixels a side and wrong for a digit of 28.
JS = """() => document.addEventListener("load", ({target}) => {
    if (target.tagName === "IMG") target.style.imageRendering = target.naturalHeight < 64 ? "pixelated" : "auto";
}, true)"""


def upload(label: str, height: int, elem_id: str) -> gr.Image:
    """Lay out an image input for a file, the webcam or the clipboard, which hands over the path of the file."""
    return gr.Image(
        label=label,
        type="filepath",
        format="png",
        sources=["upload", "webcam", "clipboard"],
        height=height,
        buttons=["fullscreen"],
        elem_id=elem_id,
        elem_classes="large",
    )


def output(label: str | None, elem_id: str, *, height: int | None = None, elem_classes: str = "large") -> gr.Image:
    """Lay out a picture that the page shows."""
    return gr.Image(
        label=label,
        show_label=label is not None,
        format="png",  # gradio's default, WebP, changes small pictures visibly
        height=height,
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id=elem_id,
        elem_classes=elem_classes,
    )


def in_one_sentence(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler so that its ValueError is shown to the visitor as the sentence it is."""

    @functools.wraps(handler)
    def wrapped(*args: Any) -> Any:
        try:
            return handler(*args)
        except ValueError as error:
            raise told(error) from None

    return wrapped


def whole_number(value: float | None, name: str, low: int, high: int) -> int:
    """Return value as an int. Raises ValueError if it is no whole number from low to high."""
    if value is None or not low <= value <= high or value != int(value):
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value}")
    return int(value)


def number(value: float | None, name: str, low: float, high: float) -> float:
    """Return value. Raises ValueError if it is no number from low to high."""
    if not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {value}")
    return float(value)


def end_point(model: VAE, picture: str | None, seed: int) -> Tensor:
    """Return the latent vector, (D,), of the picture in a file or, where there is none, of a seed."""
    if picture is None:
        return latents(model, [whole_number(seed, "the seed", 0, MAX_SEED)])[0]
    return encode_file(model, picture)


@lru_cache(maxsize=256)  # gradio names an upload after its content; a photograph is decoded once, not at every slide
@torch.no_grad()
def encode_file(model: VAE, path: str) -> Tensor:
    """Return the posterior mean, (D,), of the picture in a visitor's file."""
    x, _ = read_upload(path, model.config.image_size, model.config.channels)
    return model.encode(x[None]).mode()[0]


def example_gallery(
    models: Models,
    page: gr.Blocks,
    model: gr.Radio,
    picture: gr.Image,
    *,
    first: int | None,
    columns: int,
    elem_id: str,
) -> None:
    """Lay out a row of examples that fill `picture` when clicked.

    The example at index `first`, if there is one, fills it from the start and whenever the model changes, unless the
    visitor has put a picture of their own there.
    """
    gallery = gr.Gallery(
        show_label=False,
        format="png",
        columns=columns,
        height="auto",
        allow_preview=False,
        object_fit="contain",
        interactive=False,
        buttons=[],
        elem_id=elem_id,
        elem_classes="large",
    )
    is_own = gr.State(False)

    def refresh(model: str, is_own: bool) -> tuple[Any, Any]:
        examples = models.examples(model)
        filled = gr.skip() if is_own else examples[first][0] if examples and first is not None else None
        return gr.update(value=examples, visible=bool(examples), selected_index=None), filled

    def choose(model: str, event: gr.SelectData) -> tuple[Image.Image, bool]:
        examples = models.examples(model)
        index = whole_number(event.index, "the number of the example", 0, len(examples) - 1)
        return examples[index][0], False

    gr.on(
        [page.load, model.change],
        in_one_sentence(refresh),
        [model, is_own],
        [gallery, picture],
        api_visibility="private",
        show_progress="hidden",
    )
    gallery.select(
        in_one_sentence(choose), [model], [picture, is_own], api_visibility="private", show_progress="hidden"
    )
    picture.input(lambda: True, None, is_own, api_visibility="private", show_progress="hidden")
