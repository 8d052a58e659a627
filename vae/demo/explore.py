"""The tab that edits a picture, in the browser: web/explore.js shows it, and here is what it asks the server for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from vae.demo.models import Models
from vae.demo.page import MAX_SEED, end_point, example_gallery, in_one_sentence, number, upload
from vae.generate import decode
from vae.images import to_pil
from vae.latent import principal_axes
from vae.model import VAE

MAX_ATTRIBUTES = 40  # on the page
AXES = 8  # further sliders, of every model
AXIS_SAMPLES = 2000  # draws from its prior that they are found by
REACH = 3.0  # standard deviations to either side
MAX_LATENT = 1e4  # of a latent vector's numbers, as a link gives them
MAX_FAILURES = 0.2  # of the edits to a value that is offered

# The address of the page's own modules is relative, as is all that they ask for: the page may be anywhere on a host.
START = """
import(new URL("web/explore.js", document.baseURI)).then(
    ({ start }) => start(element, props.models, () => trigger("clear")),
    (error) => { element.textContent = `This page needs a newer browser (${error.message}).`; },
);
"""
# The model and the picture that gradio's own inputs hold.
TELL = """(model, picture) => {
    globalThis.exploreInput = { model, picture: picture?.path ?? null };
    globalThis.dispatchEvent(new Event("exploreinput"));
    return [];
}"""
# A link names a model, see web/state.js.
MODEL_OF_LINK = """(model) => {
    const named = new URLSearchParams(location.hash.slice(1)).get("model");
    return %s.includes(named) ? named : model;
}"""


class Slider(NamedTuple):
    """What a visitor can set: an attribute with its values, numbered from 0, or an axis of the latent space, without."""

    name: str
    values: Sequence[str]
    low: float
    high: float
    start: float


def sliders(model: VAE, z: Tensor) -> list[Slider]:
    """Return what can be set, as it stands for a latent vector, (D,): first the attributes, then the widest axes."""
    found = []
    if model.directions is not None:
        told = model.directions.predict(z[None])[0].tolist()
        found = [
            Slider(name, values, 0, len(values) - 1, value)
            for (name, values), value in zip(model.directions.attributes.items(), told, strict=True)
        ]
    taken = {slider.name for slider in found}
    names = [f"axis {index + 1}" for index in range(len(axes(model)))]
    return found + [Slider(name + "*" * (name in taken), (), -REACH, REACH, 0.0) for name in names]


def turn(model: VAE, z: Tensor, described: Sequence[Slider], positions: Mapping[str, float]) -> Tensor:
    """Move a latent vector, (D,), for which `sliders` described how they stand, to where those named stand: same shape.

    First along the axes, then from value to value. Raises ValueError if there is no such slider or it doesn't go so far.
    """
    if not isinstance(positions, Mapping):
        raise ValueError(f"positions must be a table of sliders and where they stand, got {positions!r:.100}")
    known = {slider.name: slider for slider in described}
    for name in positions:
        if name not in known:
            raise ValueError(f"there is no slider {name!r:.100}: choose from {', '.join(known)}")
    to = {name: number(value, name, known[name].low, known[name].high) for name, value in positions.items()}
    along = torch.tensor([to.pop(slider.name, 0.0) for slider in described if not slider.values])
    z = z + (along @ axes(model)).to(z)
    if not to:
        return z
    assert model.directions is not None
    since = torch.tensor([[slider.start for slider in described if slider.values]])
    return model.directions.edit(z[None], to, since)[0]


@lru_cache(maxsize=16)  # not anew at every slide
def axes(model: VAE) -> Tensor:
    """Return the axes along which the latent vectors of a model's own prior vary most, (at most AXES, D)."""
    return principal_axes(model.prior.sample(AXIS_SAMPLES, torch.Generator().manual_seed(0)), AXES)


@lru_cache(maxsize=256)  # encoded and told once, not at every slide
def begin(model: VAE, picture: str | None, seed: int) -> tuple[Tensor, list[Slider]]:
    """Return the latent vector, (D,), of the picture in a file or, where there is none, of a seed, and its sliders."""
    z = end_point(model, picture, seed)
    return z, sliders(model, z)


def read_latent(model: VAE, z: Any) -> Tensor:
    """Return the latent vector, (D,), that a browser sent. Raises ValueError if it is none of this model."""
    dimension = model.config.latent_dim
    is_list = isinstance(z, list) and len(z) == dimension and all(type(value) in (int, float) for value in z)
    if not is_list or not all(abs(value) <= MAX_LATENT for value in z):
        raise ValueError(f"z must be {dimension} numbers, from {-MAX_LATENT:g} to {MAX_LATENT:g}")
    return torch.tensor(z, dtype=torch.float32)


def explore(model: VAE, picture: str | None, seed: int, positions: Mapping[str, float]) -> Image.Image:
    """Return the picture in a file, or where there is none that of a seed, with attributes turned to positions.

    Raises ValueError if the picture can't be read or a number is out of its range.
    """
    z, described = begin(model, picture, seed)
    return to_pil(decode(model, turn(model, z, described, positions)[None])[0])


def describe_point(
    models: Models, name: str, picture: str | None, seed: int, given: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Tell the browser a latent vector, and what can be done with it: what web/server.js calls a Point.

    given: {"z": the vector itself}, as a link has it, instead of a picture or a seed.
    """
    model = models[name]
    if given:
        z = read_latent(model, given.get("z"))
        described = sliders(model, z)
    else:
        z, described = begin(model, picture, seed)
    return {
        "z": z.tolist(),
        "size": model.config.image_size,
        "axes": axes(model).tolist(),
        "weights": models.weights(name),
        "controls": [
            slider._asdict()
            | {
                "ordered": slider.name in models.ordered(name),
                "offered": models.offered(name, slider.name, MAX_FAILURES),
            }
            for slider in described
        ],
    }


def explore_tab(models: Models, page: gr.Blocks, model: gr.Radio) -> None:
    """Lay out the tab and connect it."""
    with gr.Tab("Explore", id="explore-tab"):
        stage = gr.HTML(
            html_template="",
            js_on_load=START,
            models=[[label, name] for label, name in models.choices()],
            apply_default_css=False,
            min_height=480,  # so that what is below stays where it is when this is filled
            elem_id="explore",
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                picture = upload("Begin with a picture of your own", 240, "explore-picture")
            with gr.Column(scale=3, min_width=320):
                example_gallery(models, page, model, picture, first=None, columns=5, elem_id="explore-examples")
        page.load(None, model, model, js=MODEL_OF_LINK % json.dumps(models.names))
        gr.on([model.change, picture.change], None, [model, picture], None, js=TELL)
        stage.clear(None, None, picture, js="() => null")  # another picture was begun with

        def draw(model: str, picture: str | None, seed: int, positions: dict[str, float] | None) -> Image.Image:
            return explore(models[model], picture, seed, positions or {})

        def draw_point(model: str, point: dict[str, Any] | None) -> Image.Image:
            chosen, point = models[model], point or {}
            z = read_latent(chosen, point.get("z"))
            moved = turn(chosen, z, sliders(chosen, z), point.get("positions") or {})
            return to_pil(decode(chosen, moved[None])[0])

        def describe(model: str, picture: str | None, seed: int, given: dict[str, Any] | None) -> dict[str, Any]:
            return describe_point(models, model, picture, seed, given)

        # For the API, and for the browser, which calls them by name.
        seed = gr.Number(0, label="the seed", precision=0, minimum=0, maximum=MAX_SEED, visible=False)
        positions, point = gr.JSON(label="positions", visible=False), gr.JSON(label="the point", visible=False)
        drawn, by_name = gr.Image(format="png", visible=False), gr.Button(visible=False)
        own: dict[str, Any] = {"api_visibility": "undocumented", "queue": False}
        by_name.click(in_one_sentence(draw), [model, picture, seed, positions], drawn, api_name="explore")
        by_name.click(in_one_sentence(describe), [model, picture, seed, point], positions, api_name="point", **own)
        by_name.click(in_one_sentence(draw_point), [model, point], drawn, api_name="draw_point", **own)
