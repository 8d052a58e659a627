"""A prior's file: what kind it is and of which sizes in the metadata, its numbers as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae.files import MAX_PRIOR_NUMBERS, PRIOR, parse_metadata, read_tensors, write_tensors
from vae.prior.base import Prior
from vae.prior.flow import Flow
from vae.prior.mixture import GaussianMixture

# Each kind with the whole numbers that it is made from, and the range of each.
KINDS: dict[str, tuple[type[Prior], dict[str, tuple[int, int]]]] = {
    "gaussian-mixture": (GaussianMixture, {"latent_dim": (1, 4096), "components": (1, 10_000)}),
    "flow": (Flow, {"latent_dim": (2, 4096), "layers": (1, 64), "width": (1, 4096)}),
}


def save_prior(prior: Prior, path: str | Path, **metadata: Any) -> None:
    """Write a prior to a safetensors file; what kind it is, and of which sizes, is JSON in the file's metadata.

    Raises ValueError as `check_prior` does.
    """
    kind = check_prior(prior)
    assert prior.latent_dim is not None
    sizes: dict[str, int] = {"latent_dim": prior.latent_dim}
    if isinstance(prior, GaussianMixture):
        sizes["components"] = prior.components
    if isinstance(prior, Flow):
        sizes |= {"layers": len(prior.layers), "width": prior.width}
    tensors = prior.state_dict()
    if isinstance(prior, GaussianMixture):
        rows, columns = _triangle(prior)
        triangles = prior.scale_tril[:, rows, columns]
        half = triangles.half()
        tensors["scale_tril"] = half if torch.equal(half.float(), triangles) else triangles
    write_tensors(Path(path), tensors, prior={"kind": kind, **sizes}, **metadata)


def check_prior(prior: Prior) -> str:
    """Return of which of KINDS a prior is. Raises ValueError if it is of another kind, or too large to be loaded again."""
    kind = next((kind for kind, (cls, _) in KINDS.items() if type(prior) is cls), None)
    if kind is None or prior.latent_dim is None:
        raise ValueError(f"only {', '.join(KINDS)} of a known latent_dim can be saved, got {prior}")
    numbers = sum(tensor.numel() for tensor in prior.state_dict().values())
    if numbers > MAX_PRIOR_NUMBERS:
        raise ValueError(
            f"the prior has {numbers:,} numbers, more than the {MAX_PRIOR_NUMBERS:,} that are loaded again"
        )
    return kind


def load_prior(path: str | Path) -> Prior:
    """Load what `save_prior` wrote, on the CPU and with no gradients asked for.

    Raises ValueError in one sentence if the file is missing, broken, asks for too much, or doesn't hold to the letter
    what its description says; that is found out before memory is taken for it.
    """

    def build(metadata: Mapping[str, str]) -> tuple[Prior, Mapping[str, Tensor]]:
        with torch.device("meta"):  # shapes only
            prior = _build(parse_metadata(metadata, "prior")).float()  # whatever torch's default is
            expected = prior.state_dict()
            if isinstance(prior, GaussianMixture):
                latent_dim = expected["means"].shape[1]
                numbers = latent_dim * (latent_dim + 1) // 2
                expected["scale_tril"] = expected["means"].new_empty(prior.components, numbers)
        numbers = sum(tensor.numel() for tensor in prior.state_dict().values())
        if numbers > MAX_PRIOR_NUMBERS:
            raise ValueError(f"it asks for {numbers:,} numbers, more than the {MAX_PRIOR_NUMBERS:,} allowed")
        return prior, expected

    path = Path(path)
    prior, tensors = read_tensors(path, PRIOR, build, halves=["scale_tril"])
    if isinstance(prior, GaussianMixture):
        weights = tensors["weights"]
        scale_tril = torch.zeros_like(prior.scale_tril, device="cpu")
        rows, columns = _triangle(prior)
        scale_tril[:, rows, columns] = tensors["scale_tril"]
        tensors["scale_tril"] = scale_tril
        if (weights <= 0).any() or abs(weights.sum() - 1) > 1e-3:
            raise ValueError(f"{path}: weights should be positive and their sum 1")
        if (scale_tril.diagonal(dim1=1, dim2=2) <= 0).any():
            raise ValueError(f"{path}: scale_tril should have a positive diagonal")
    if isinstance(prior, Flow) and (tensors["std"] <= 0).any():
        raise ValueError(f"{path}: std should be positive")
    prior.load_state_dict(tensors, assign=True)
    return prior.requires_grad_(False)


def _triangle(prior: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of what a file holds of each matrix of scale_tril: its lower triangle, row by row."""
    rows, columns = torch.tril_indices(prior.means.shape[1], prior.means.shape[1])
    return rows, columns


def _build(values: Any) -> Prior:
    """Make the prior that a description names, untrained. Raises ValueError if it is not exactly that of a known kind."""
    kind = values.pop("kind", None) if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"the kind of a prior should be one of {', '.join(KINDS)}, got {kind!r:.100}")
    cls, ranges = KINDS[kind]
    if set(values) != set(ranges):
        raise ValueError(f"a {kind} is described by {', '.join(ranges)}, got {', '.join(values):.100}")
    for name, (low, high) in ranges.items():
        if type(values[name]) is not int or not low <= values[name] <= high:
            raise ValueError(f"{name} should be a whole number from {low} to {high}, got {values[name]!r:.100}")
    return cls(**values)
