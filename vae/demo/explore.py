"""The tab that turns what can be said of a picture, with a slider for each attribute that the model's labels knew."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from vae.demo.models import Models
from vae.demo.page import MAX_SEED, end_point, example_gallery, in_one_sentence, number, output, upload
from vae.generate import decode
from vae.images import to_pil
from vae.latent import principal_axes
from vae.model import VAE

MAX_SLIDERS, MAX_LISTED = 40, 12  # on the page, and values named at each
AXES = 8  # sliders of a model that knows no attributes
AXIS_SAMPLES = 2000  # draws from its prior that they are found by
REACH = 3.0  # standard deviations to either side


class Slider(NamedTuple):
    """A slider of the page: what it turns, the values along it, where it goes from and to, and where it stands."""

    name: str
    info: str
    low: float
    high: float
    start: float


def sliders(model: VAE, z: Tensor) -> list[Slider]:
    """Return the sliders of a model, as they stand for a latent vector, (D,).

    One for each attribute of its directions; where it has none, one for each of the axes along which its latent vectors
    vary most.
    """
    if model.directions is None:
        count = min(AXES, model.config.latent_dim)
        return [Slider(f"axis {index + 1}", "", -REACH, REACH, 0.0) for index in range(count)]
    told = model.directions.predict(z[None])[0].tolist()
    return [
        Slider(name, _listed(values), 0, len(values) - 1, value)
        for (name, values), value in zip(model.directions.attributes.items(), told, strict=True)
    ]


def _listed(values: Sequence[str]) -> str:
    """Name values in a line, the last one instead of too many; gradio would take what is in a stranger's for Markdown."""
    shown = [*values] if len(values) <= MAX_LISTED else [*values[: MAX_LISTED - 1], "…", values[-1]]
    return re.sub(r"[\[\]()<>`*_#!|~$\\]", " ", " · ".join(shown))


def turn(model: VAE, z: Tensor, described: Sequence[Slider], positions: Mapping[str, float]) -> Tensor:
    """Move a latent vector, (D,), for which `sliders` described how they stand, to where those named stand: same shape.

    Raises ValueError if there is no such slider or it doesn't go so far.
    """
    if not isinstance(positions, Mapping):
        raise ValueError(f"positions must be a table of sliders and where they stand, got {positions!r:.100}")
    known = {slider.name: slider for slider in described}
    for name in positions:
        if name not in known:
            raise ValueError(f"there is no slider {name!r}: choose from {', '.join(known)}")
    to = {name: number(value, name, known[name].low, known[name].high) for name, value in positions.items()}
    if model.directions is not None:
        return model.directions.edit(z[None], to, torch.tensor([[slider.start for slider in described]]))[0]
    moved = torch.tensor([to.get(name, 0.0) for name in known])
    return z + (moved @ axes(model)).to(z)


@lru_cache(maxsize=16)  # not anew at every slide
def axes(model: VAE) -> Tensor:
    """Return the axes along which the latent vectors of a model's own prior vary most, (AXES, D)."""
    return principal_axes(model.prior.sample(AXIS_SAMPLES, torch.Generator().manual_seed(0)), AXES)


@lru_cache(maxsize=256)  # encoded and told once, not at every slide
def begin(model: VAE, picture: str | None, seed: int) -> tuple[Tensor, list[Slider]]:
    """Return the latent vector, (D,), of the picture in a file or, where there is none, of a seed, and its sliders."""
    z = end_point(model, picture, seed)
    return z, sliders(model, z)


def explore(model: VAE, picture: str | None, seed: int, positions: Mapping[str, float]) -> Image.Image:
    """Return the picture in a file, or where there is none that of a seed, with attributes turned to positions.

    Raises ValueError if the picture can't be read or a number is out of its range.
    """
    z, described = begin(model, picture, seed)
    return to_pil(decode(model, turn(model, z, described, positions)[None])[0])


def explore_tab(models: Models, page: gr.Blocks, model: gr.Radio) -> None:
    """Lay out the tab and connect it."""
    quietly: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    with gr.Tab("Explore", id="explore"):
        gr.Markdown(
            "A picture is a point in the latent space, and what can be said of it is a direction there. Begin with a new "
            "picture, or with one of your own, and turn it."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                here = output(None, "explore-here", height=420)
                with gr.Row():
                    again = gr.Button("Another", variant="primary", elem_id="explore-another")
                    reset = gr.Button("Reset", elem_id="explore-reset")
            turning = gr.Column(scale=3, min_width=320)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                picture = upload("Begin with a picture of your own", 240, "explore-picture")
                seed = gr.Number(
                    0,
                    label="or with a seed, if there is no picture",
                    precision=0,
                    minimum=0,
                    maximum=MAX_SEED,
                    elem_id="explore-seed",
                )
            with gr.Column(scale=3, min_width=320):
                example_gallery(models, page, model, picture, first=None, columns=5, elem_id="explore-examples")
        resets = gr.State(0)
        beginning = [model, picture, seed, resets]
        changes = [model.change, picture.change, seed.change, resets.change]

        def lay_out_sliders(name: str, picture: str | None, seed: int, resets: int) -> None:
            _, described = begin(models[name], picture, seed)
            laid_out: list[gr.Slider] = []
            shown = [slider for slider in described if slider.low < slider.high][:MAX_SLIDERS]
            for row in range(0, len(shown), 2):
                with gr.Row():
                    for slider in shown[row : row + 2]:
                        laid_out.append(
                            gr.Slider(
                                slider.low,
                                slider.high,
                                slider.start,
                                step=0.05,
                                label=slider.name,
                                info=slider.info or None,
                                interactive=True,  # which gradio forgets where sliders are laid out anew
                                buttons=[],
                                min_width=240,
                                elem_id=f"explore-slider-{len(laid_out)}",
                            )
                        )

            def show(*positions: float) -> Image.Image:
                names = [slider.name for slider in shown]
                return explore(models[name], picture, seed, dict(zip(names, positions, strict=True)))

            moved = [slider.input for slider in laid_out]
            gr.on(moved, in_one_sentence(show), laid_out, here, queue=False, trigger_mode="always_last", **quietly)

        def handle(model: str, picture: str | None, seed: int, positions: dict[str, float] | None) -> Image.Image:
            return explore(models[model], picture, seed, positions or {})

        with turning:
            gr.render(beginning)(in_one_sentence(lay_out_sliders))
        gr.on(
            [page.load, *changes],
            in_one_sentence(lambda name, picture, seed, _: handle(name, picture, seed, None)),
            beginning,
            here,
            trigger_mode="always_last",
            **quietly,
        )
        again.click(lambda: (None, random.randrange(1_000_000)), None, [picture, seed], **quietly)
        reset.click(lambda resets: resets + 1, resets, resets, **quietly)
        # For the API: all sliders at once, by name.
        positions, by_name = gr.JSON(visible=False), gr.Button(visible=False)
        by_name.click(in_one_sentence(handle), [model, picture, seed, positions], here, api_name="explore")
