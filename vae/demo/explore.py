"""Where the shared point begins, and the tab that edits it: web/explore.js shows it, here is what only the server knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from vae.demo.border import keep
from vae.demo.cache import CACHE
from vae.demo.models import Models
from vae.demo.page import (
    Endpoints,
    encode_file,
    end_point,
    number,
    picture_input,
    picture_output,
    read_latent,
    seed_input,
    table,
)
from vae.demo.prepare import prepare_upload
from vae.generate import decode
from vae.images import to_pil
from vae.latent import principal_axes
from vae.model import VAE

AXES = 8  # further sliders, of every model
AXIS_SAMPLES = 2000  # draws from its prior that they are found by
REACH = 3.0  # standard deviations to either side
MAX_FAILURES = 0.2  # of the edits to a value that is offered


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


def begin(model: VAE, picture: str | None, seed: int) -> tuple[Tensor, list[Slider]]:
    """Return the latent vector, (D,), of the picture in a file or, where there is none, of a seed, and its sliders."""
    return _begin_seed(seed, model) if picture is None else _begin_file(picture, model)


@CACHE.remember(maxsize=256)  # encoded and told once, not at every slide
def _begin_file(path: str, model: VAE) -> tuple[Tensor, list[Slider]]:
    z = end_point(model, path, 0)
    return z, sliders(model, z)


@lru_cache(maxsize=256)
def _begin_seed(seed: int, model: VAE) -> tuple[Tensor, list[Slider]]:
    z = end_point(model, None, seed)
    return z, sliders(model, z)


def edit_picture(model: VAE, picture: str | None, seed: int, positions: Mapping[str, float]) -> Image.Image:
    """Return the picture in a file, or where there is none that of a seed, with attributes turned to positions.

    Raises ValueError if the picture can't be read or a number is out of its range.
    """
    z, described = begin(model, picture, seed)
    return to_pil(decode(model, turn(model, z, described, positions)[None])[0])


def describe_point(
    models: Models, name: str, picture: str | None, seed: int, given: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Tell the browser a latent vector, and what can be done with it: what web/state.js calls a Point.

    given: {"z": the vector itself}, as a link has it, instead of a picture or a seed.
    """
    model = models[name]
    if given:
        z = read_latent(model, given.get("z"))
        described = sliders(model, z)
    else:
        z, described = begin(model, picture, seed)
    point = {
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
    if picture is not None and not given:
        posterior = encode_file(picture, model)
        point |= {"mean": posterior.mean.tolist(), "logvar": posterior.logvar.tolist()}
        point["seen"] = to_pil(prepare_upload(model, picture).x)
    return point


def explore_endpoints(endpoints: Endpoints) -> None:
    """Add what the tab calls."""
    models = endpoints.models

    def explore(
        model: str, picture: str | None = None, seed: int = 0, positions: dict[str, float] | None = None
    ) -> Image.Image:
        """Change attributes of a picture, or of the picture that a seed stands for, and draw it again.

        Attributes that are not named stay as they are.

        Args:
            model: the name of the model.
            picture: the picture to begin with; leave it out to begin with a seed.
            seed: a whole number that stands for a picture, if none is given.
            positions: attributes and the numbers of their values, such as {"beard": 2}; "axis 1" to "axis 8" from -3 to 3.

        Returns:
            the picture
        """
        return edit_picture(models[model], picture, seed, positions or {})

    def point(model: str, picture: str | None, seed: int, given: dict[str, Any] | None) -> dict[str, Any]:
        return describe_point(models, model, picture, seed, given)

    def draw_point(model: str, point: dict[str, Any] | None) -> tuple[Image.Image, dict[str, Any]]:
        chosen, point = models[model], point or {}
        z = read_latent(chosen, point.get("z"))
        moved = turn(chosen, z, sliders(chosen, z), point.get("positions") or {})
        return to_pil(decode(chosen, moved[None])[0]), {"z": moved.tolist()}

    def examples(model: str) -> dict[str, Any]:
        shown = [(keep(picture), label) for picture, label in models.examples(model)]
        CACHE.pinned.update(path for path, _ in shown)  # the page names them for as long as it is open
        return {"examples": [{"picture": path, "label": label} for path, label in shown]}

    endpoints.add(explore, [picture_input(), seed_input(), table("positions")], picture_output("picture"))
    endpoints.add(point, [picture_input(), seed_input(), table("given")], table("point"), public=False)
    endpoints.add(draw_point, [table("point")], [picture_output("picture"), table("latent vector")], public=False)
    endpoints.add(examples, [], table("examples"), public=False)
