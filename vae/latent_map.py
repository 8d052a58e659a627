"""A map of the latent space in two dimensions: where the pictures of a test set lie, and the latent vector of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae.attributes.model import check_names
from vae.files import MAP, MAX_FIELDS, parse_metadata, read_tensors, write_tensors

MAX_MAPPED = 10_000  # pictures on a map
MAX_INTEGER = 127  # of 8 bits


@dataclass(frozen=True, kw_only=True)
class LatentMap:
    """N pictures on a map; everything is on the CPU.

    points: their places, (N, 2) float32. In a latent space of two dimensions these are the latent vectors themselves.
    latents: their posterior means, (N, D) float32.
    std: the standard deviations of their posteriors, (N, D) float32; only where D is 2, else None.
    labels: the number of the value of each attribute, (N, A) int64.
    attributes: the names of the values of each of the A attributes; empty if the pictures have no labels.
    """

    points: Tensor
    latents: Tensor
    std: Tensor | None
    labels: Tensor
    attributes: Mapping[str, Sequence[str]]


def save_map(chart: LatentMap, path: Path, **metadata: Any) -> None:
    """Write a map to a safetensors file; latent vectors of more than two dimensions as 8-bit numbers times a step."""
    attributes = [[name, list(values)] for name, values in chart.attributes.items()]
    tensors = {"points": chart.points.float(), "labels": chart.labels.to(torch.uint8)}
    if chart.std is not None:
        tensors["std"] = chart.std.float()
    else:
        step = chart.latents.abs().amax(dim=0) / MAX_INTEGER  # (D,)
        whole = (chart.latents / step.where(step > 0, 1)).round().to(torch.int8)
        tensors |= {"latents": whole, "step": step.float()}
    size = {"pictures": len(chart.points), "latent_dim": chart.latents.shape[1]}
    write_tensors(path, tensors, map=size | {"attributes": attributes}, **metadata)


def load_map(path: Path) -> LatentMap:
    """Load what `save_map` wrote. Raises ValueError in one sentence if the file doesn't hold just that."""

    def build(metadata: Mapping[str, str]) -> tuple[dict[str, list[str]], dict[str, Tensor]]:
        pictures, latent_dim, attributes = _parse(parse_metadata(metadata, "map"))
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "points": ((pictures, 2), torch.float32),
            "labels": ((pictures, len(attributes)), torch.uint8),
        }
        if latent_dim == 2:
            shapes["std"] = (pictures, 2), torch.float32
        else:
            shapes |= {"latents": ((pictures, latent_dim), torch.int8), "step": ((latent_dim,), torch.float32)}
        expected = {key: torch.empty(shape, dtype=dtype, device="meta") for key, (shape, dtype) in shapes.items()}
        return attributes, expected

    attributes, tensors = read_tensors(path, MAP, build)
    labels = tensors["labels"].long()
    if (labels >= torch.tensor([len(values) for values in attributes.values()])).any():
        raise ValueError(f"{path}: labels should be the numbers of values")
    points = tensors["points"]
    return LatentMap(
        points=points,
        latents=points if "std" in tensors else tensors["latents"] * tensors["step"],
        std=tensors.get("std"),
        labels=labels,
        attributes=attributes,
    )


def _parse(values: Any) -> tuple[int, int, dict[str, list[str]]]:
    """Return how many pictures of how many dimensions a file says it has, and their attributes. Raises ValueError."""
    if not isinstance(values, dict) or values.keys() != {"pictures", "latent_dim", "attributes"}:
        raise ValueError("its metadata should say pictures, latent_dim and attributes of a map")
    for key, most in (("pictures", MAX_MAPPED), ("latent_dim", MAX_FIELDS["latent_dim"])):
        if type(values[key]) is not int or not 1 <= values[key] <= most:
            raise ValueError(f"{key} of a map should be from 1 to {most}, got {values[key]!r:.100}")
    pairs = values["attributes"]
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError("the attributes of a map should be pairs of a name and values")
    if not all(isinstance(name, str) for name, _ in pairs):
        raise ValueError("the attributes of a map should have names")
    attributes = dict(pairs)
    if attributes:
        check_names(attributes)
    return values["pictures"], values["latent_dim"], attributes
