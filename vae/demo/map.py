"""What web/map.js needs of the server: the map of a model's latent space, in few bytes."""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae.demo.page import Endpoints, table
from vae.files import MAP, fingerprint, read_metadata
from vae.latent import principal_axes
from vae.latent_map import LatentMap, load_map
from vae.model import VAE

DRAWN = 1000  # points of a map without test pictures
MAX_INTEGER = 127  # of 8 bits


@lru_cache(maxsize=16)
def map_of(model: VAE) -> tuple[LatentMap, bool]:
    """Return the map that a model brings, or one that is made of its prior, and whether its points are test pictures."""
    folder = model.origin
    if folder and (folder / MAP).is_file():
        try:
            chart = load_map(folder / MAP)
            fits = read_metadata(folder / MAP).get("weights") == json.dumps(fingerprint(folder))
            if fits and chart.latents.shape[1] == model.config.latent_dim:
                return chart, True
        except ValueError:  # the page is of more use without a stranger's broken file than not at all
            pass
    return draw_prior(model), False


@torch.no_grad()
def draw_prior(model: VAE) -> LatentMap:
    """Draw latent vectors from a model's own prior, lay them out along the two widest axes, and predict their labels."""
    z = model.prior.sample(DRAWN, torch.Generator().manual_seed(0)).cpu()
    directions = principal_axes(z, 2)
    points = (z - z.mean(dim=0)) @ (directions / directions.square().sum(dim=1, keepdim=True)).T
    points = torch.nn.functional.pad(points, (0, 2 - points.shape[1]))  # of one dimension there is one axis
    attributes = model.directions.attributes if model.directions else {}
    labels = model.directions.predict(z) if model.directions else torch.empty(DRAWN, 0, dtype=torch.int64)
    scale = points.abs().max()
    return LatentMap(points=points / scale, latents=z, std=None, labels=labels, attributes=attributes)


def describe_map(model: VAE) -> dict[str, Any]:
    """Tell the browser a map: what web/points.js calls a Chart."""
    chart, has_pictures = map_of(model)
    step = chart.latents.abs().amax(dim=0) / MAX_INTEGER  # (D,)
    whole = (chart.latents / step.where(step > 0, 1)).round()
    return {
        "has_pictures": has_pictures,
        "points": packed(chart.points, "<f4"),
        "latents": packed(whole, "<i1"),
        "step": step.tolist(),
        "labels": packed(chart.labels, "<i2"),
        # In pairs: a JavaScript object would put names that are numbers first.
        "attributes": [[name, list(values)] for name, values in chart.attributes.items()],
    }


def packed(values: Tensor, kind: str) -> str:
    """Write numbers row by row in the bytes of a numpy type, and these in base64."""
    return base64.b64encode(np.ascontiguousarray(values.numpy().astype(kind)).tobytes()).decode()


def map_endpoints(endpoints: Endpoints) -> None:
    """Add what the tab calls."""

    def map_points(model: str) -> dict[str, Any]:
        return describe_map(endpoints.models[model])

    endpoints.add(map_points, [], table("map"), public=False)
