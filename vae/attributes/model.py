"""A distribution of latent vectors given the attributes of their pictures: predict attributes, edit them, draw pictures."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vae.prior import Prior, draw_component

CHUNK = 500  # latent vectors at once in predicting, which bounds the memory
RIDGE = 1.0  # strength of the regularization, in pictures: a value seen in so many counts half
SHRINKAGE = 1e-3  # part of the mean variance that is added to each variance
MIN_VARIANCE = 1e-8  # added to each variance, where latent vectors have next to none
NEVER = -1e9  # nats: the log share of a value that no picture has
MAX_ATTRIBUTES = 64
MAX_VALUES = 1000  # of all attributes together
MAX_NAME_LENGTH = 100  # characters


@dataclass(frozen=True, kw_only=True)
class AttributeModel(ABC):
    """A distribution of latent vectors given the attributes of their pictures.

    A position is the number of a value, 0 for the first; fractions lie between two values. Everything is float32 on the
    CPU.

    attributes: the names of the values of each of the A attributes, in the order in which a slider goes through them.
    shares: how many of the pictures have each value, as parts of 1, (V,): the values of all attributes one after another.
    draws: whether `AttributePrior` of these is the prior of the model.
    """

    attributes: Mapping[str, Sequence[str]]
    shares: Tensor
    draws: bool = False

    @property
    def sizes(self) -> list[int]:
        """How many values each attribute has."""
        return [len(values) for values in self.attributes.values()]

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """The length D of the latent vectors."""

    @abstractmethod
    def predict(self, z: Tensor) -> Tensor:
        """Predict the value of each attribute of latent vectors, (B, D) -> (B, A) int64."""

    @abstractmethod
    def draw(self, values: Tensor, eps: Tensor) -> Tensor:
        """Turn standard normal noise, (B, D), into latent vectors of pictures with values, (B, A) int64 -> (B, D)."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Compute log p(z) in nats, (B, D) -> (B,), or a lower bound, where values have their shares."""

    @abstractmethod
    def shift(self, z: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """Return what an edit from old to new positions, (B, A) float32, adds to z, (B, D) -> (B, D)."""

    def edit(self, z: Tensor, to: Mapping[str, Tensor | float | str], since: Tensor | None = None) -> Tensor:
        """Edit latent vectors, (B, D), so that attributes get new values: same shape, same device.

        to: the attributes to edit, and where to: the name of a value, or positions, (B,) or one for all.
        since: the values of all attributes before, (B, A); by default what `predict` says.
        Raises ValueError on an unknown attribute or value, a position beyond the values, or shapes that don't fit.
        """
        self._check_latents(z)
        old = (self.predict(z) if since is None else torch.as_tensor(since).cpu()).float()
        if old.shape != (len(z), len(self.sizes)):
            raise ValueError(
                f"since should be of shape {(len(z), len(self.sizes))}, the values of all attributes before, "
                f"got {(*old.shape,)}"
            )
        new = old.clone()
        for name, position in to.items():
            new[:, self._index(name)] = self._positions(name, position, len(z))
        self._check(old)
        self._check(new)
        return z + self.shift(z.detach().cpu().float(), old, new).to(z)

    def prior_where(self, where: Mapping[str, str | int]) -> AttributePrior:
        """Return the distribution of latent vectors of pictures with certain values, such as {"digit": 7}.

        where: the name or the number of a value for some attributes; the others are drawn by their shares. Raises
        ValueError if there is no such attribute or value.
        """
        return AttributePrior(self, where)

    def given(self, where: Mapping[str, str | int]) -> AttributeModel:
        """Return the same with shares that are 1 for certain values of some attributes; see `prior_where`."""
        shares = [own.clone() for own in self.shares.split(self.sizes)]
        for name, value in where.items():
            own = shares[self._index(name)]
            own.zero_()
            own[self._number(name, value)] = 1
        return dataclasses.replace(self, shares=torch.cat(shares))

    def _index(self, attribute: str) -> int:
        if attribute not in self.attributes:
            raise ValueError(f"there is no attribute {attribute!r:.100}: choose one of {', '.join(self.attributes)}")
        return list(self.attributes).index(attribute)

    def _number(self, attribute: str, value: str | int) -> int:
        """Return the number of a value that is given by its name or its number."""
        names = list(self.attributes.values())[self._index(attribute)]
        if isinstance(value, str) and value in names:
            return list(names).index(value)
        if type(value) is int and 0 <= value < len(names):
            return value
        raise ValueError(
            f"{attribute} should be one of {', '.join(names)}, or 0 to {len(names) - 1}, got {value!r:.100}"
        )

    def _positions(self, attribute: str, position: Any, count: int) -> Tensor:
        """Return where to edit an attribute of so many latent vectors, (count,) or one for all, float32."""
        if isinstance(position, str):
            position = self._number(attribute, position)
        try:
            positions = torch.as_tensor(position, dtype=torch.float32).cpu()
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"{attribute} should be the name of a value, or positions, got {position!r:.100}"
            ) from None
        if positions.shape not in ((), (1,), (count,)):
            raise ValueError(
                f"{attribute} should be one position or {count}, one for each latent vector, "
                f"got shape {(*positions.shape,)}"
            )
        return positions

    def _check_latents(self, z: Tensor) -> None:
        """Raise ValueError if these are not latent vectors of the model, (B, D)."""
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"latent vectors should be of shape (B, {self.latent_dim}), got {(*z.shape,)}")

    def _check(self, positions: Tensor) -> None:
        """Raise ValueError if positions, (B, A), are beyond the values."""
        for name, size, own in zip(self.attributes, self.sizes, positions.T, strict=True):
            if not ((own >= 0) & (own <= size - 1)).all():
                raise ValueError(f"{name} goes from 0 to {size - 1}, got {own.tolist()[:5]}")


class AttributePrior(Prior):
    """A prior that draws a value of each attribute, then a latent vector of a picture with these values.

    Values are drawn by their shares, each attribute independently. Temperature multiplies the noise, not the choice of
    values.

    where: values that are not drawn but always these, as in `AttributeModel.prior_where`.
    """

    def __init__(self, directions: AttributeModel, where: Mapping[str, str | int] | None = None) -> None:
        super().__init__()
        self.latent_dim, self.directions, self.where = directions.latent_dim, directions, dict(where or {})
        self._given = directions.given(self.where)
        if self.latent_dim < len(directions.sizes):
            raise ValueError(f"{len(directions.sizes)} attributes can't be drawn from {self.latent_dim} numbers")

    def from_noise(self, eps: Tensor, temperature: float = 1.0) -> Tensor:
        # The first numbers choose the values, one for each attribute; what is left of them is noise again.
        eps, sizes = eps.cpu().float(), self._given.sizes
        values, noise = [], [eps[:, len(sizes) :]]
        for own, shares in zip(eps.T, self._given.shares.split(sizes), strict=False):
            value, left = draw_component(own, shares)
            values.append(value)
            noise.append(left[:, None])
        return self.directions.draw(torch.stack(values, dim=1), temperature * torch.cat(noise, dim=1))

    def log_prob(self, z: Tensor) -> Tensor:
        return self._given.log_prob(z)


def log_shares(shares: Tensor) -> Tensor:
    """Return the logarithms of shares, NEVER for 0, so that a value that no picture had is never predicted."""
    return torch.where(shares > 0, shares.clamp(min=1e-30).log(), NEVER)


def covariance(rest: Tensor) -> Tensor:
    """Return the covariance of latent vectors, (N, D) of mean 0, with a little added to each variance -> (D, D)."""
    result = rest.T @ rest / len(rest)
    added = SHRINKAGE * result.diagonal().mean() + MIN_VARIANCE
    return result + added * torch.eye(len(result), dtype=rest.dtype)


def noise_covariance(variance: Tensor | float, latent_dim: int) -> Tensor:
    """Make a diagonal matrix, (D, D) float64, of the mean variance of posteriors, (D,) or one number."""
    variance = torch.as_tensor(variance).detach().cpu().double()
    if variance.shape not in ((), (latent_dim,)):
        raise ValueError(f"variance should be one number or {latent_dim}, got shape {(*variance.shape,)}")
    return torch.diag(variance.expand(latent_dim))


def chunks(count: int, size: int) -> list[slice]:
    """Cut so many rows into slices of `size` rows, the last of fewer."""
    return [slice(start, start + size) for start in range(0, count, size)]


def check_labels(z: Tensor, labels: Tensor, attributes: Mapping[str, Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Return latent vectors as float64, and labels as int64, on the CPU.

    Raises ValueError if these and attributes don't fit, labels are not integers, or latent vectors not finite.
    """
    check_names({name: list(values) for name, values in attributes.items()})
    sizes = [len(values) for values in attributes.values()]
    if z.ndim != 2:
        raise ValueError(f"latent vectors should be of shape (N, D), got {(*z.shape,)}")
    if not z.isfinite().all():
        raise ValueError("latent vectors should be finite, got some with NaN or infinity")
    if labels.shape != (len(z), len(sizes)) or len(z) < 2:
        raise ValueError(f"labels of shape {(*labels.shape,)} don't fit {len(z)} latents and {len(sizes)} attributes")
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels should be integers, the numbers of values, got {labels.dtype}")
    labels = labels.cpu().long()
    if (labels < 0).any() or (labels >= torch.tensor(sizes)).any():
        raise ValueError(f"labels from {labels.min()} to {labels.max()} don't fit attributes of {sizes} values")
    return z.detach().cpu().double(), labels


def check_names(names: Any) -> None:
    """Raise ValueError if names are not those of a few attributes and of the values of each."""
    if not isinstance(names, dict) or not 1 <= len(names) <= MAX_ATTRIBUTES:
        raise ValueError(f"there should be 1 to {MAX_ATTRIBUTES} attributes")
    for name, values in names.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"the attribute {name!r:.100} should have a list of values")
        for text in (name, *values):
            if not isinstance(text, str) or not 1 <= len(text) <= MAX_NAME_LENGTH or not text.isprintable():
                raise ValueError(f"names should have 1 to {MAX_NAME_LENGTH} letters, got {text!r:.100}")
    if (count := sum(map(len, names.values()))) > MAX_VALUES:
        raise ValueError(f"all attributes together should have at most {MAX_VALUES} values, got {count}")
