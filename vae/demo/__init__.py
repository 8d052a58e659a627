"""The page: one file for each tab, each with its pure handlers first and its layout below; here is what they share."""

from __future__ import annotations

import functools
import html
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from gradio.processing_utils import encode_pil_to_bytes, hash_bytes
from PIL import Image
from torch import Tensor

from vae.card import error
from vae.data import DATASETS, load_examples
from vae.files import plain, read_metrics
from vae.generate import latents
from vae.hub import bundled_names, find_model, resolve_model
from vae.images import to_pil, to_tensor, to_unit
from vae.model import VAE

MAX_SEED = 2**31 - 1
EXAMPLES = 10  # shown of a dataset whose pictures are of no one class

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
footer { visibility: hidden; }
"""
# Browsers smooth what they enlarge, which is right for a face of 64 pixels a side and wrong for a digit of 28.
JS = """() => document.addEventListener("load", ({target}) => {
    if (target.tagName === "IMG") target.style.imageRendering = target.naturalHeight < 64 ? "pixelated" : "auto";
}, true)"""


class Models:
    """The models that the page offers, by name; each is loaded when it is first asked for, once for all visitors.

    Nobody waits long for a Hub that is down: there is the copy in the cache instead, or the bundled models.

    names: what is offered, first what can be had at once.
    notices: what the visitor should know of it, a sentence each.
    refused: why a model that was named is not offered, by its name.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.notices: list[str] = []
        self.refused: dict[str, str] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._loaded: dict[str, tuple[VAE, dict[str, Any]]] = {}
        ready, awaited = [], []
        with ThreadPoolExecutor(max(1, len(names))) as executor:
            searches = {name: executor.submit(resolve_model, name) for name in names}
        for name, search in searches.items():
            try:
                notice = search.result()[1]
                ready.append(name)
            except ConnectionError as error:
                awaited.append(name)
                notice = f"{error}. Choose it again later"
            except ValueError as error:
                self.refused[name] = notice = str(error)
            if notice:
                self.notices.append(notice)
        if not ready:
            ready = bundled_names()
            self.notices.append("The models shown here come with the page")
        self.names = [*ready, *awaited]

    def __getitem__(self, name: str) -> VAE:
        """Return the model called `name`. Raises ValueError if it isn't offered or can't be loaded."""
        return self._load(name)[0]

    def _load(self, name: str) -> tuple[VAE, dict[str, Any]]:
        if name not in self.names:
            raise ValueError(f"there is no model {name!r} here: choose one of {', '.join(self.names)}")
        if name in self._loaded:
            return self._loaded[name]
        try:
            options, _ = resolve_model(name)
        except ConnectionError as error:
            raise ValueError(str(error)) from None
        with self._locks.setdefault(name, threading.Lock()):  # who waits for one doesn't keep others from theirs
            if name not in self._loaded:
                folder = find_model(name, **options)
                try:
                    self._loaded[name] = VAE.from_pretrained(folder), read_metrics(folder)
                except ValueError as error:
                    raise ValueError(str(error).replace(str(folder), name)) from None  # not where our cache is
            return self._loaded[name]

    def notice(self) -> str:
        """Return the notices as Markdown."""
        return "\n".join(f"- {html.escape(notice, quote=False)}." for notice in self.notices)

    def choices(self) -> list[tuple[str, str]]:
        """Return what to show and the name of each model: the last part of its path, if that tells them apart."""
        short = [Path(name.partition("@")[0]).name + "".join(name.partition("@")[1:]) for name in self.names]
        return list(zip(short if len(set(short)) == len(short) else self.names, self.names, strict=True))

    def describe(self, name: str) -> str:
        """Say in a line of Markdown what the model called `name` is."""
        model, metrics = self._load(name)
        config = model.config
        dataset, test = str(metrics.get("dataset")), metrics.get("test")
        title = DATASETS[dataset].title if dataset in DATASETS else Path(name).name
        line = (
            f"**{title}** · {config.channels}×{config.image_size}×{config.image_size} = "
            f"{config.channels * config.image_size**2:,} numbers → **{config.latent_dim}** → back"
        )
        mse = test.get("mse") if isinstance(test, dict) else None
        if isinstance(mse, float) and 0 <= mse <= 1:
            line += f" · mean squared error on the test set {error(mse)}"
        credit = plain(config.attribution)
        return line + (f"\n\n{credit}." if credit else "")

    def examples(self, name: str) -> list[tuple[Image.Image, str]]:
        """Return ten test pictures of the model's dataset and, if there are, their classes; empty if none come with us."""
        try:
            images, labels, attributes = load_examples(str(self._load(name)[1].get("dataset")))
        except ValueError:
            return []
        if len(attributes) > 1:
            return [(to_pil(to_unit(image)), "") for image in images[:EXAMPLES]]
        ((_, names),) = attributes.items()
        first = [int((labels[:, 0] == label).nonzero()[0]) for label in range(len(names))]
        return [(to_pil(to_unit(images[index])), names[int(labels[index, 0])]) for index in first]


def upload(label: str, height: int, elem_id: str) -> gr.Image:
    """Lay out an image input for a file, the webcam or the clipboard, which hands over the path of the file."""
    image = gr.Image(
        label=label,
        type="filepath",
        format="png",
        sources=["upload", "webcam", "clipboard"],
        height=height,
        buttons=["fullscreen"],
        elem_id=elem_id,
        elem_classes="large",
    )
    decode = image.preprocess

    def preprocess(payload: Any) -> Any:
        return payload.path if payload is not None and payload.path else decode(payload)

    # Gradio would open the file itself and, if it is broken or huge, fail in its own words. vae.images reads it better.
    # On the object, since gradio writes a stub file beside the source of any class that is derived from a component.
    image.preprocess = preprocess  # type: ignore[method-assign]
    return image


def output(label: str | None, elem_id: str, *, height: int | None = None, elem_classes: str = "large") -> gr.Image:
    """Lay out a picture that the page shows."""
    image = gr.Image(
        label=label,
        show_label=label is not None,
        format="png",  # gradio's default, WebP, changes small pictures visibly
        height=height,
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id=elem_id,
        elem_classes=elem_classes,
    )
    encode = image.postprocess

    def postprocess(value: Any) -> Any:
        return encode(keep(value, image.GRADIO_CACHE) if isinstance(value, Image.Image) else value)

    image.postprocess = postprocess  # type: ignore[method-assign]
    return image


def keep(picture: Image.Image, cache: str) -> str:
    """Write a picture to the very file of its cache that gradio would write, and return its path.

    But whole or not at all, and only if it isn't there: gradio would write it again for every visitor, while others fetch
    it, who then get half of it.
    """
    content = encode_pil_to_bytes(picture, "png")
    path = Path(cache, hash_bytes(content), "image.png")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            part.write(content)
        os.replace(part.name, path)
    return str(path)


def in_one_sentence(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler so that its ValueError is shown to the visitor as the sentence it is."""

    @functools.wraps(handler)
    def wrapped(*args: Any) -> Any:
        try:
            return handler(*args)
        except ValueError as error:
            sentence = html.escape(str(error), quote=False)  # it may repeat what a stranger wrote
            raise gr.Error(sentence[:1].upper() + sentence[1:] + ".", print_exception=False) from None

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
    """Return the posterior mean, (D,), of the picture in a file."""
    x = to_tensor(path, model.config.image_size, model.config.channels)
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
        return models.examples(model)[event.index][0], False

    gr.on(
        [page.load, model.change],
        in_one_sentence(refresh),
        [model, is_own],
        [gallery, picture],
        api_visibility="private",
        show_progress="hidden",
    )
    gallery.select(choose, [model], [picture, is_own], api_visibility="private", show_progress="hidden")
    picture.input(lambda: True, None, is_own, api_visibility="private", show_progress="hidden")
