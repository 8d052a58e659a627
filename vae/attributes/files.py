"""Save and load what labels know of the latent space: latents.safetensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae.attributes.class_gaussians import MAX_DIM, MAX_NUMBERS, ClassGaussians
from vae.attributes.directions import Directions
from vae.attributes.model import AttributeModel, check_names
from vae.attributes.regression import MAX_COLUMNS, allows_groups, combinations
from vae.files import LATENTS, MAX_FIELDS, MAX_MAGNITUDE, parse_metadata, read_tensors, write_tensors

# Each kind with the names by which the file's metadata describes it; a file from before there were two has no kind.
KINDS = {
    "directions": ("latent_dim", "attributes", "groups", "draws"),
    "class-gaussians": ("latent_dim", "attributes", "draws"),
}


def save_directions(directions: AttributeModel, path: str | Path, **metadata: Any) -> None:
    """Write directions to a safetensors file; the names of attributes and values are JSON in the file's metadata."""
    check_names(names := {name: list(values) for name, values in directions.attributes.items()})
    kind, groups = "class-gaussians", []
    if isinstance(directions, Directions):
        kind, groups = "directions", [list(group) for group in directions.groups]
    values = {
        "latent_dim": directions.latent_dim,
        "attributes": names,
        "groups": groups,
        "draws": directions.draws,
    }
    description = {"kind": kind} | {key: values[key] for key in KINDS[kind]}
    tensors = {key: getattr(directions, key) for key in _shapes(kind, directions.latent_dim, directions.sizes, groups)}
    write_tensors(Path(path), tensors, directions=description, **metadata)


def load_directions(path: str | Path) -> AttributeModel:
    """Load what `save_directions` wrote. Raises ValueError in one sentence if the file doesn't hold just that."""

    def build(metadata: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values = _parse(parse_metadata(metadata, "directions"))
        sizes = [len(names) for names in values["attributes"].values()]
        shapes = _shapes(values["kind"], values["latent_dim"], sizes, values.get("groups", []))
        return values, {key: torch.empty(shape, dtype=torch.float32, device="meta") for key, shape in shapes.items()}

    path = Path(path)
    values, tensors = read_tensors(path, LATENTS, build, unused=("std",))  # which older files have
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}  # in memory that is aligned, as after fitting
    sizes = [len(names) for names in values["attributes"].values()]
    if (tensors["shares"] < 0).any():
        raise ValueError(f"{path}: shares should not be negative")
    if any(abs(own.sum() - 1) > 1e-3 for own in tensors["shares"].split(sizes)):
        raise ValueError(f"{path}: the shares of an attribute's values should sum to 1")
    key = "scale_tril" if values["kind"] == "class-gaussians" else "spread"
    matrices = tensors[key].view(-1, values["latent_dim"], values["latent_dim"])
    if (matrices.diagonal(dim1=1, dim2=2) <= 0).any() or matrices.triu(1).any():
        raise ValueError(f"{path}: {key} should be lower triangular with a positive diagonal")
    fields: dict[str, Any] = {key: values[key] for key in ("attributes", "draws")} | tensors
    if values["kind"] == "directions":
        return Directions(**fields, groups=values["groups"])
    inverse = torch.linalg.solve_triangular(
        matrices, torch.eye(values["latent_dim"], dtype=torch.float32, device="cpu"), upper=False
    )
    if not (inverse.abs() <= MAX_MAGNITUDE).all():  # which edits multiply by
        raise ValueError(f"{path}: {key} is too near to a matrix that can't be inverted")
    return ClassGaussians(**fields)


def _parse(description: Any) -> dict[str, Any]:
    """Return what the metadata describe, with its kind. Raises ValueError if it is not within the limits."""
    values = {"kind": "directions"} | description if isinstance(description, dict) else {"kind": None}
    kind = values["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"the kind of directions should be one of {', '.join(KINDS)}, got {kind!r:.100}")
    if set(values) != {"kind", *KINDS[kind]}:
        raise ValueError(f"{kind} are described by {', '.join(KINDS[kind])}")
    latent_dim, names, draws = values["latent_dim"], values["attributes"], values["draws"]
    if type(latent_dim) is not int or not 1 <= latent_dim <= MAX_FIELDS["latent_dim"]:
        raise ValueError(f"latent_dim should be from 1 to {MAX_FIELDS['latent_dim']}, got {latent_dim!r:.100}")
    check_names(names)
    sizes = [len(own) for own in names.values()]
    if type(draws) is not bool or (draws and latent_dim < len(names)):
        raise ValueError(f"draws should be true or false, and of at most {latent_dim} attributes, got {draws!r:.100}")
    if kind == "class-gaussians" and not ClassGaussians.allows(latent_dim, sizes):
        raise ValueError(
            f"class-gaussians should have one attribute, at most {MAX_DIM} dimensions and at most {MAX_NUMBERS:,} numbers "
            f"in their matrices, got {len(names)}, {latent_dim} and {sum(sizes) * latent_dim**2:,}"
        )
    if kind == "directions" and not _are_groups(values["groups"], sizes):
        raise ValueError(
            f"groups should be lists of the numbers of two or three attributes, of at most {MAX_COLUMNS} combinations of "
            f"values, got {values['groups']!r:.100}"
        )
    if kind == "directions" and values["groups"] and not allows_groups(latent_dim, sizes):
        raise ValueError(f"{sum(sizes)} values of {latent_dim} dimensions are too many to be predicted with groups")
    return values


def _are_groups(groups: Any, sizes: Sequence[int]) -> bool:
    return (
        isinstance(groups, list)
        and len(groups) <= MAX_COLUMNS
        and all(_is_group(group, len(sizes)) for group in groups)
        and sum(combinations(sizes, group) for group in groups) <= MAX_COLUMNS
    )


def _is_group(group: Any, attributes: int) -> bool:
    return (
        isinstance(group, list)
        and 2 <= len(group) <= 3
        and all(type(index) is int and 0 <= index < attributes for index in group)
        and len(set(group)) == len(group)
    )


def _shapes(
    kind: str, latent_dim: int, sizes: Sequence[int], groups: Sequence[Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    if kind == "class-gaussians":
        return ClassGaussians.shapes(latent_dim, sizes)
    return Directions.shapes(latent_dim, sizes, groups)
