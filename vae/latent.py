"""Walks through the latent space: from one picture to another, and towards what labels say of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from vae.prior import load_described

Path = Literal["slerp", "lerp"]

PARALLEL = 1e-4  # radians: closer to 0 or π than this, two directions span no plane to turn in
RIDGE = 1.0  # strength of the regularisation, in pictures: what a value seen so often says counts half
SHRINKAGE = 1e-3  # part of the mean variance that is added to the covariance of what labels don't explain
MAX_ATTRIBUTES, MAX_VALUES, MAX_NAME = 64, 1000, 100  # of attributes, of their values, and of the letters of a name


# --- from one picture to another -------------------------------------------------------------------------------------


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Walk straight from a to b, each (D,): the points at t, (T,), of which 0 is exactly a and 1 exactly b -> (T, D)."""
    return torch.lerp(a, b, t[:, None])


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Turn from a to b at a steady angle while the length changes evenly; shapes and ends as in `lerp`.

    In many dimensions nearly all of N(0, I) lies in a thin shell around the origin, which a straight line cuts short
    and this one follows (Shoemake 1985; White 2016, "Sampling Generative Networks"). Where a and b lie on one line
    through the origin there is no one way to turn, and the walk is straight.
    """
    lengths = a.norm(), b.norm()
    cosine = torch.dot(a, b) / (lengths[0] * lengths[1])
    angle = torch.acos(cosine.clamp(-1, 1))
    if not PARALLEL < angle < torch.pi - PARALLEL:  # also where a or b is zero, and the angle not a number
        return lerp(a, b, t)
    t = t[:, None]
    direction = (torch.sin((1 - t) * angle) * a / lengths[0] + torch.sin(t * angle) * b / lengths[1]) / torch.sin(angle)
    between = torch.lerp(*lengths, t) * direction
    return torch.where(t == 0, a, torch.where(t == 1, b, between))


def interpolate(a: Tensor, b: Tensor, t: Tensor, path: Path = "slerp") -> Tensor:
    """Return the points at t, (T,) in [0, 1], of the named walk from a to b, each (D,) -> (T, D)."""
    if path not in get_args(Path):
        raise ValueError(f"path must be slerp or lerp, got {path!r}")
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"expected two latent vectors of one length, got shapes {(*a.shape,)} and {(*b.shape,)}")
    return (slerp if path == "slerp" else lerp)(a, b, t.to(a))


def principal_axes(z: Tensor, count: int) -> Tensor:
    """Return the axes along which latent vectors, (N, D), vary most, each a standard deviation long -> (count, D).

    The widest comes first, and its largest number is positive. Fewer come if D or N is smaller.
    """
    centred = z - z.mean(dim=0)
    _, strength, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    return (axes * strength[:, None] / max(1, len(z) - 1) ** 0.5)[:count]


# --- towards what labels say -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Directions:
    """Where in the latent space pictures lie whose attributes are known, fitted to encoded pictures and their labels.

    One linear model explains a latent vector by all of its picture's labels at once,
        z  ≈  mean + Σ_attributes effects[value],
    so that what beards have to do with hair is not said twice, and a beard can be had without the hair that mostly
    comes with it. To turn an attribute is to replace its effect by that of another value.

    attributes: the names of the values of each attribute, in the order in which a slider goes through them.
    mean, std: of the latent vectors, (D,).
    effects: how far each value moves a latent vector, the other attributes held fixed, (V, D): the values of all
        attributes one after another; for the mean over pictures, those of an attribute cancel out.
    scores, offsets: of the linear discriminants that tell the value of an attribute from a latent vector, (V, D), (V,).
    """

    attributes: Mapping[str, Sequence[str]]
    mean: Tensor
    std: Tensor
    effects: Tensor
    scores: Tensor
    offsets: Tensor

    @property
    def sizes(self) -> list[int]:
        """How many values each attribute has."""
        return [len(values) for values in self.attributes.values()]

    @classmethod
    def fit(cls, z: Tensor, labels: Tensor, attributes: Mapping[str, Sequence[str]]) -> Directions:
        """Fit them to latent vectors, (N, D), of pictures with labels, (N, A) int64: ridge regression, then discriminants.

        The discriminants are those of Gaussians of one covariance, around the mean of each value's pictures (Fisher 1936). Raises ValueError if there are no attributes, or shapes and labels don't fit them.
        """
        from sklearn.linear_model import Ridge  # here: turning has no need of it

        sizes = [len(values) for values in attributes.values()]
        if not sizes or labels.shape != (len(z), len(sizes)) or (labels.amax(0) >= torch.tensor(sizes)).any():
            raise ValueError(f"labels of shape {(*labels.shape,)} don't fit {len(z)} latents and {sizes} values")
        z = z.double()
        present = torch.cat([F.one_hot(column, size) for column, size in zip(labels.T, sizes, strict=True)], dim=1)
        share = present.double().mean(dim=0)  # (V,)
        fitted = Ridge(alpha=RIDGE).fit(present.numpy(), z.numpy())
        effects = torch.from_numpy(fitted.coef_).T  # (V, D)
        centred = [
            part - (weight[:, None] * part).sum(0)
            for part, weight in zip(effects.split(sizes), share.split(sizes), strict=True)
        ]
        effects = torch.cat(centred)
        scores, offsets = [], []
        for own, weight in zip(present.double().split(sizes, dim=1), share.split(sizes), strict=True):
            centre = own.T @ (z - z.mean(0)) / own.sum(0).clamp(min=1)[:, None]  # of each value's pictures, (values, D)
            covariance = torch.cov((z - z.mean(0) - own @ centre).T).view(z.shape[1], -1)
            covariance += (SHRINKAGE * covariance.diagonal().mean() + 1e-8) * torch.eye(len(covariance))
            scores.append(torch.linalg.solve(covariance, centre.T).T)
            offsets.append(weight.clamp(min=0.5 / len(z)).log() - 0.5 * (scores[-1] * centre).sum(dim=1))
        tensors = (z.mean(0), z.std(0), effects, torch.cat(scores), torch.cat(offsets))
        return cls(attributes, *(tensor.float() for tensor in tensors))

    def tell(self, z: Tensor) -> Tensor:
        """Tell the value of each attribute of latent vectors, (B, D) -> (B, A) int64, on the CPU."""
        scores = (z.cpu().float() - self.mean) @ self.scores.T + self.offsets
        return torch.stack([part.argmax(dim=1) for part in scores.split(self.sizes, dim=1)], dim=1)

    def effect(self, attribute: str, position: Tensor, *, orthogonal: bool = False) -> Tensor:
        """Return the effect of an attribute at a position on its slider, (B,) -> (B, D), on the CPU.

        position: 0 is the first value, 1 the second; between them it changes evenly.
        orthogonal: leave out what lies along the effects of the other attributes, so that no linear reading of those
            changes; it turns less, and less of the rest.
        Raises ValueError on an unknown attribute or a position beyond its values.
        """
        names = list(self.attributes)
        if attribute not in names:
            raise ValueError(f"there is no attribute {attribute!r}: choose one of {', '.join(names)}")
        index = names.index(attribute)
        parts = list(self.effects.split(self.sizes))
        own = parts.pop(index)
        position = position.cpu().float()
        if not ((position >= 0) & (position <= len(own) - 1)).all():
            raise ValueError(f"{attribute} goes from 0 to {len(own) - 1}, got {position.tolist()}")
        if orthogonal and parts:
            _, strength, basis = torch.linalg.svd(torch.cat(parts), full_matrices=False)
            basis = basis[strength > 1e-4 * strength[0]]
            own = own - own @ basis.T @ basis
        below = position.floor().long().clamp(max=max(0, len(own) - 2))
        above = (below + 1).clamp(max=len(own) - 1)
        return torch.lerp(own[below], own[above], (position - below)[:, None])

    def turn(
        self,
        z: Tensor,
        attribute: str,
        to: Tensor | float,
        since: Tensor | float | None = None,
        *,
        orthogonal: bool = False,
    ) -> Tensor:
        """Move latent vectors, (B, D), so that an attribute comes from one position to another: same shape, same device.

        to, since: positions on its slider, (B,) or one for all, see `effect`; None is the value that `tell` tells.
        """
        if since is None:
            since = self.tell(z)[:, list(self.attributes).index(attribute)] if attribute in self.attributes else 0
        ends = [torch.as_tensor(end, dtype=torch.float32).expand(len(z)) for end in (to, since)]
        new, old = (self.effect(attribute, end, orthogonal=orthogonal) for end in ends)
        return z + (new - old).to(z)


def save_directions(directions: Directions, path: str | FilePath) -> None:
    """Write directions to a safetensors file; the names of attributes and values are JSON in the file's metadata."""
    _check_names(names := {name: list(values) for name, values in directions.attributes.items()})
    tensors = {
        key: getattr(directions, key).detach().cpu().contiguous() for key in _shapes(directions.mean.shape[0], 1)
    }
    description = {"latent_dim": directions.mean.shape[0], "attributes": names}
    FilePath(path).write_bytes(save(tensors, metadata={"directions": json.dumps(description)}))


def load_directions(path: str | FilePath) -> Directions:
    """Load what `save_directions` wrote. Raises ValueError in one sentence if the file doesn't hold just that."""

    def build(description: Any) -> tuple[dict[str, list[str]], dict[str, Sequence[int]]]:
        if not isinstance(description, dict) or set(description) != {"latent_dim", "attributes"}:
            raise ValueError("they are described by latent_dim and attributes")
        latent_dim, names = description["latent_dim"], description["attributes"]
        if type(latent_dim) is not int or not 1 <= latent_dim <= 4096:
            raise ValueError(f"latent_dim should be a whole number from 1 to 4096, got {latent_dim!r:.100}")
        _check_names(names)
        return names, _shapes(latent_dim, sum(map(len, names.values())))

    names, tensors = load_described(path, "directions", build)
    if (tensors["std"] < 0).any():
        raise ValueError(f"{path} holds no directions: std should not be negative")
    return Directions(names, **tensors)


def _shapes(latent_dim: int, values: int) -> dict[str, Sequence[int]]:
    return {
        "mean": (latent_dim,),
        "std": (latent_dim,),
        "effects": (values, latent_dim),
        "scores": (values, latent_dim),
        "offsets": (values,),
    }


def _check_names(names: Any) -> None:
    """Raise ValueError if names are not those of a few attributes and of the values of each."""
    if not isinstance(names, dict) or not 1 <= len(names) <= MAX_ATTRIBUTES:
        raise ValueError(f"there should be 1 to {MAX_ATTRIBUTES} attributes")
    for name, values in names.items():
        if not isinstance(values, list) or not 1 <= len(values) <= MAX_VALUES:
            raise ValueError(f"the attribute {name!r:.100} should have 1 to {MAX_VALUES} values")
        for text in (name, *values):
            if not isinstance(text, str) or not 1 <= len(text) <= MAX_NAME or not text.isprintable():
                raise ValueError(f"names should have 1 to {MAX_NAME} letters, got {text!r:.100}")
