"""The page: one element that web/page.js fills, and the endpoints that it calls; and what the tabs' handlers share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import torch
from gradio.components import Component
from torch import Tensor

from vae.data import DATASETS
from vae.demo.border import told
from vae.demo.cache import CACHE
from vae.demo.models import Models
from vae.demo.prepare import prepare_upload
from vae.generate import latents
from vae.model import VAE, DiagonalGaussian

MAX_SEED = 2**31 - 1
MAX_LATENT = 1e4  # of a latent vector's numbers, as a link gives them

THEME = gr.themes.Soft(
    primary_hue="indigo",
    font=["system-ui", "sans-serif"],  # what the visitor's machine has: no font is fetched from elsewhere
    font_mono=["ui-monospace", "monospace"],
).set(body_background_fill="#f7f6fa", body_background_fill_dark="#121118")  # as in web/style.css
# The address of the page's own modules is relative, as is all that they ask for: the page may be anywhere on a host.
START = """
import(new URL("web/page.js", document.baseURI)).then(
    ({ start }) => start(element, props.page),
    (error) => { element.textContent = `This page needs a newer browser (${error.message}).`; },
);
"""
# Until the modules are there: the picture that the first model begins with. early.js hides it where a link names another.
FIRST = """<div class="vae"><header class="top">
<div class="name"><h1>unvaelievable</h1><p>It squeezes a picture into a few numbers and redraws it. Change the numbers.</p></div>
<div class="cards"><div class="card"><img class="first" src="./web/faces/0" alt="" width="56" height="56" /></div></div>
</header><div class="rooms"><div class="side"><div class="stage">
<img class="picture first" src="./web/faces/0" alt="" />
</div></div></div></div>"""
MIN_HEIGHT = 880  # pixels, so that nothing moves when the element is filled


def page_element(models: Models) -> gr.HTML:
    """Lay out the element that web/page.js fills."""
    titles = [
        {"label": DATASETS[name].title if name in DATASETS else label, "name": name} for label, name in models.choices()
    ]
    return gr.HTML(
        html_template=FIRST,
        js_on_load=START,
        page={"models": titles, "notices": models.notices},
        apply_default_css=False,
        min_height=MIN_HEIGHT,
        elem_id="page",
    )


class Endpoints:
    """What the page calls by name, and what of it programs may call, too: events of inputs that nobody sees."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._model = gr.Radio(models.choices(), value=models.names[0], label="model", visible=False)
        self._button = gr.Button(visible=False)

    def add(
        self,
        handler: Callable[..., Any],
        inputs: Sequence[Component],
        outputs: Component | Sequence[Component],
        *,
        public: bool = True,
    ) -> None:
        """Add an endpoint that is called and described as its handler is.

        handler: takes the name of a model, which it may trust, and the values of the inputs; ValueError is for visitors.
        public: whether it is listed, with its docstring, as part of the API.
        """
        self._button.click(
            in_one_sentence(handler),
            [self._model, *inputs],
            outputs,
            api_name=handler.__name__,
            api_visibility="public" if public else "undocumented",
            queue=False,  # the page calls it directly; border.py makes room
        )


def about_endpoints(endpoints: Endpoints) -> None:
    """Add what the header calls."""

    def about(model: str) -> dict[str, Any]:
        return endpoints.models.about(model)

    endpoints.add(about, [], table("about"), public=False)


def number_input(label: str, value: float, low: float, high: float, *, whole: bool = False) -> gr.Number:
    """Make an input that takes a number from low to high."""
    return gr.Number(value, label=label, minimum=low, maximum=high, precision=0 if whole else None, visible=False)


def seed_input(label: str = "seed", value: int = 0) -> gr.Number:
    """Make an input that takes a seed."""
    return number_input(label, value, 0, MAX_SEED, whole=True)


def choice_input(label: str, choices: Sequence[str]) -> gr.Radio:
    """Make an input that takes one of some words, the first if none is given."""
    return gr.Radio(list(choices), value=choices[0], label=label, visible=False)


def picture_input(label: str = "picture") -> gr.Image:
    """Make an input that takes a picture that was uploaded, and hands over the path of its file."""
    return gr.Image(label=label, type="filepath", format="png", visible=False)


def picture_output(label: str) -> gr.Image:
    """Make an output for a picture."""
    return gr.Image(label=label, format="png", visible=False)  # gradio's default, WebP, changes small pictures visibly


def table(label: str) -> gr.JSON:
    """Make an input or output for a table; pictures in it go out as the paths of their files."""
    made = gr.JSON(label=label, visible=False)
    # Gradio's own schema of it is none, and programs that check theirs refuse it. A class of one's own would do, but for
    # such gradio writes a file beside the class's.
    vars(made)["api_info"] = lambda: {"anyOf": [{"type": "object"}, {"type": "null"}]}
    return made


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


def read_latent(model: VAE, z: Any) -> Tensor:
    """Return the latent vector, (D,), that a browser sent. Raises ValueError if it is none of this model."""
    dimension = model.config.latent_dim
    is_list = isinstance(z, list) and len(z) == dimension and all(type(value) in (int, float) for value in z)
    if not is_list or not all(abs(value) <= MAX_LATENT for value in z):
        raise ValueError(f"z must be {dimension} numbers, from {-MAX_LATENT:g} to {MAX_LATENT:g}")
    return torch.tensor(z, dtype=torch.float32)


def end_point(model: VAE, picture: str | None, seed: int) -> Tensor:
    """Return the latent vector, (D,), of the picture in a file or, where there is none, of a seed."""
    if picture is None:
        return latents(model, [whole_number(seed, "the seed", 0, MAX_SEED)])[0]
    return encode_file(picture, model).mode()


@CACHE.remember(maxsize=256)
@torch.no_grad()
def encode_file(path: str, model: VAE) -> DiagonalGaussian:
    """Return the posterior, (D,), of the picture in a visitor's file, made like those of the model."""
    mean, logvar = model.encode(prepare_upload(model, path).x[None])
    return DiagonalGaussian(mean[0], logvar[0])
