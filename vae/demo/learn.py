"""What web/learn.js needs of the server: our own code, five tiny models, and where a picture lies in them."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae.data import load_examples
from vae.demo.explore import read_latent
from vae.demo.export import decoder_bytes
from vae.demo.map import packed
from vae.demo.models import Models
from vae.demo.page import Endpoints, picture_input, table
from vae.demo.uploads import read_upload
from vae.figures import Figures
from vae.files import LEARN, MAP
from vae.generate import decode, encode, generate, latents
from vae.hub import BUNDLED
from vae.images import to_unit
from vae.latent_map import LatentMap, load_map
from vae.loss import elbo, gaussian_log_likelihood
from vae.model import VAE, Decoder, DiagonalGaussian, Encoder, kl_divergence, reparameterize

EXAMPLE = 2 * 24 + 3  # of the bundled digits: a two, for those whose picture is no digit


# --- our code --------------------------------------------------------------------------------------------------------


class Excerpt(NamedTuple):
    """Lines of a function: from the one that begins with `start` to the one that begins with `end`, both included."""

    function: Callable[..., Any]
    start: str = "def "
    end: str = ""


EXCERPTS: dict[str, tuple[Excerpt, ...]] = {
    "squeeze": (Excerpt(Encoder.forward, "features", "return"),),
    "two vectors": (
        Excerpt(Encoder.__init__, "self.mean", "self.logvar"),
        Excerpt(DiagonalGaussian.std.fget),  # type: ignore[attr-defined]  # a property of a NamedTuple
    ),
    "noise": (Excerpt(reparameterize, "if eps is None", "return"),),
    "sample": (Excerpt(VAE.forward, "posterior", "return"),),
    "decode": (Excerpt(VAE.decode, "return"), Excerpt(Decoder.forward)),
    "balance": (
        Excerpt(gaussian_log_likelihood, "standardized", "return"),
        Excerpt(kl_divergence, "return"),
        Excerpt(elbo, "return"),
    ),
    "new pictures": (Excerpt(latents, "eps", "return"), Excerpt(generate, "return")),
}


def excerpt(wanted: Excerpt) -> str:
    """Return those lines as they stand in our source, without docstring. Raises LookupError if they are not there."""
    source = textwrap.dedent(inspect.getsource(wanted.function))
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.FunctionDef)
    lines = source.splitlines()
    if ast.get_docstring(tree):
        first = tree.body[0]
        del lines[first.lineno - 1 : first.end_lineno]
    begins = [index for index, line in enumerate(lines) if line.strip().startswith(wanted.start)]
    if not begins:
        raise LookupError(f"{wanted.function.__qualname__} has no line {wanted.start!r}")
    ends = [index for index, line in enumerate(lines) if line.strip().startswith(wanted.end) and index >= begins[0]]
    if not ends:
        raise LookupError(f"{wanted.function.__qualname__} has no line {wanted.end!r}")
    return textwrap.dedent("\n".join(lines[begins[0] : 1 + (ends[0] if wanted.end else ends[-1])]))


@lru_cache
def code() -> dict[str, list[dict[str, str]]]:
    """Return for each card our lines that do it, and where each part of them stands."""
    told = {}
    for card, wanted in EXCERPTS.items():
        told[card] = [
            {
                "place": f"{Path(inspect.getfile(inspect.unwrap(each.function))).name}, {each.function.__qualname__}",
                "lines": excerpt(each),
            }
            for each in wanted
        ]
    return told


# --- the tiny models -------------------------------------------------------------------------------------------------


class Tiny(NamedTuple):
    """One of the models with latent vectors of two numbers, and the map of its test pictures."""

    beta: float
    model: VAE
    chart: LatentMap
    figures: Figures


@lru_cache
def tiny_models() -> tuple[Tiny, ...]:
    """Load the tiny models, the one with the smallest β first; none if they don't come with this copy."""
    folders = (BUNDLED / LEARN).glob("beta-*") if BUNDLED else ()
    found = []
    for folder in folders:
        figures = Figures.read(folder)
        beta = float(folder.name.removeprefix("beta-"))
        found.append(Tiny(beta, VAE.from_pretrained(folder), load_map(folder / MAP), figures))
    return tuple(sorted(found, key=lambda tiny: tiny.beta))


def describe_tiny(tiny: Tiny, models: Models) -> dict[str, Any]:
    """Tell the browser a tiny model; its decoder is fetched like those of the others."""
    content = decoder_bytes(tiny.model)
    digest = hashlib.sha256(content).hexdigest()
    models.sent[digest] = content
    assert tiny.chart.std is not None
    test = tiny.figures.test
    return {
        "beta": tiny.beta,
        "weights": digest,
        "points": packed(tiny.chart.points, "<f4"),
        "std": packed(tiny.chart.std, "<f4"),
        "labels": packed(tiny.chart.labels, "<i2"),
        "error": test.mse * tiny.model.config.image_size**2 if test else None,  # summed over the pixels, as below
        "kl": test.kl if test else None,
    }


# --- the present picture ---------------------------------------------------------------------------------------------


@torch.no_grad()
def place(model: VAE, picture: str | None, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Tell what the model and the tiny ones make of a picture: the one in a file, or that of a latent vector, {"z": …}.

    mean, logvar: of the posterior.
    digit: the picture that the tiny models are shown, grey values of 28x28: the same, if the model is one of small grey
        pictures, else an example. is_own tells which.
    tiny: for each of them mean and std of the posterior, its KL divergence, and the squared error of the reconstruction.
    """
    config = model.config
    if picture is not None:
        x = read_upload(picture, config.image_size, config.channels)[0][None]
    else:
        x = decode(model, read_latent(model, (given or {}).get("z"))[None])
    is_own = (config.image_size, config.channels) == (28, 1)
    digit = x if is_own else _example()
    posterior = encode(model, x)
    return {
        "mean": posterior.mean[0].tolist(),
        "logvar": posterior.logvar[0].tolist(),
        "is_own": is_own,
        "digit": packed((255 * digit).round(), "<u1"),
        "tiny": [_place(tiny.model, digit) for tiny in tiny_models()],
    }


def _place(model: VAE, x: Tensor) -> dict[str, Any]:
    posterior = encode(model, x)
    return {
        "mean": posterior.mean[0].tolist(),
        "std": posterior.std[0].tolist(),
        "error": (decode(model, posterior.mode()) - x).square().sum().item(),
        "kl": posterior.kl().item(),
    }


@lru_cache
def _example() -> Tensor:
    return to_unit(load_examples("mnist").images[EXAMPLE : EXAMPLE + 1])


def learn_endpoints(endpoints: Endpoints) -> None:
    """Add what the tab calls."""
    models = endpoints.models

    def tutorial(model: str) -> dict[str, Any]:
        config = models[model].config
        shape = [config.channels, config.image_size, config.latent_dim]
        return {
            "code": code(),
            "shape": shape,
            "width": config.stage_widths[-1],
            "grid": config.image_size // config.stride,
            "tiny": [describe_tiny(tiny, models) for tiny in tiny_models()],
        }

    def place_picture(model: str, picture: str | None, given: dict[str, Any] | None) -> dict[str, Any]:
        return place(models[model], picture, given)

    endpoints.add(tutorial, [], table("tutorial"), public=False)
    endpoints.add(place_picture, [picture_input(), table("given")], table("place"), public=False)
