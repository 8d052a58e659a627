"""What labels know of the latent space: where pictures with known attributes lie, and how to edit one attribute."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vae.files import LATENTS, MAX_FIELDS, parse_metadata, read_tensors, write_tensors
from vae.prior import Prior, StandardNormal, draw_component

CHUNK = 4000  # latent vectors at once in fitting, which bounds the memory
MAX_COLUMNS = 5000  # combinations of values whose interplay is fitted
MAX_TRIPLES = 1000  # groups of three attributes to try
MIN_GAIN = 0.02  # part of the rest that a group of three must explain
MIN_PICTURES = 20  # for each combination of three values
REFINED_AT_ONCE = 500  # latent vectors
REFINING_ROUNDS = 2  # over all attributes
NEVER = 1e9  # nats
RIDGE = 1.0  # strength of the regularisation, in pictures: a value seen in so many counts half
SHRINKAGE = 1e-3  # part of the mean variance that is added to the covariance of what labels don't explain
MAX_ATTRIBUTES, MAX_VALUES, MAX_NAME = 64, 1000, 100  # attributes, values of all together, letters of a name


@dataclass(frozen=True)
class Directions:
    """Where in the latent space pictures lie whose attributes are known, fitted to encoded pictures and their labels.

    A model that is linear in the labels explains a latent vector by all that is said of its picture, one thing at a time
    and some things together,
        z  ≈  mean + Σ_a effects[value of a] + Σ_{groups a, b, ...} interplay[value of a, value of b, ...].
    So what beards have to do with hair is not said twice, a beard can be had without the hair that mostly comes with it,
    and a beard in the colour of the hair needs no direction of its own for each colour. To edit an attribute is to add
    what this model says of the new values and to take off what it says of the old ones.

    attributes: the names of the values of each of the A attributes, in the order in which a slider goes through them.
    mean: of the latent vectors, (D,).
    shares: how many of the pictures have each value, as parts of 1, (V,): the values of all attributes one after another.
    effects: how far each value moves a latent vector, the other attributes held fixed, (V, D). For the mean over pictures,
        those of an attribute cancel out.
    interplay: how much further the values of two or three attributes together move it, (P, D): those of all groups one
        after another. P is 0 where there is but one attribute, or too few pictures.
    groups: the attributes, by their numbers, of each group.
    spread: a lower triangular matrix, (D, D), the Cholesky factor of the covariance of what all these leave
        unexplained in samples of posteriors.
    scores, offsets: of the linear discriminants that predict the value of an attribute from a latent vector, (V, D), (V,).
    draws: whether `AttributePrior` of these is the prior of the model.
    """

    attributes: Mapping[str, Sequence[str]]
    mean: Tensor
    shares: Tensor
    effects: Tensor
    interplay: Tensor
    spread: Tensor
    scores: Tensor
    offsets: Tensor
    groups: Sequence[Sequence[int]] = ()
    draws: bool = False

    @property
    def latent_dim(self) -> int:
        """The length of the latent vectors."""
        return len(self.mean)

    @property
    def sizes(self) -> list[int]:
        """How many values each attribute has."""
        return [len(values) for values in self.attributes.values()]

    @classmethod
    def fit(
        cls,
        z: Tensor,
        labels: Tensor,
        attributes: Mapping[str, Sequence[str]],
        variance: Tensor | float = 0.0,
    ) -> Directions:
        """Fit them to latent vectors, (N, D), of pictures with labels, (N, A) int64, by ridge regression on the CPU.

        z: the means of the posteriors; variance: of a posterior, on average, (D,), or 0 if z are samples.
        First the effects; then, to what is left, the interplay of each two attributes; then that of those three together
        that explain the most of the rest. The discriminants are those of Gaussians of one covariance
        around the mean of each value's pictures (Fisher 1936). Raises ValueError if there are no attributes, a name of
        theirs is not fit to be shown, or shapes and labels don't fit them.
        """
        _check_names({name: list(values) for name, values in attributes.items()})
        sizes = [len(values) for values in attributes.values()]
        if labels.shape != (len(z), len(sizes)) or len(z) < 2:
            raise ValueError(
                f"labels of shape {(*labels.shape,)} don't fit {len(z)} latents and {len(sizes)} attributes"
            )
        labels = labels.cpu()
        if (labels < 0).any() or (labels >= torch.tensor(sizes)).any():
            raise ValueError(f"labels from {labels.min()} to {labels.max()} don't fit attributes of {sizes} values")
        z, one_hot = z.cpu().double(), [F.one_hot(labels[:, a], size).double() for a, size in enumerate(sizes)]
        mean, shares = z.mean(dim=0), torch.cat([own.mean(dim=0) for own in one_hot])
        rest = z - mean
        effects = _ridge(lambda part: torch.cat([own[part] for own in one_hot], dim=1), sizes, rest)
        rest = rest - torch.cat(one_hot, dim=1) @ effects
        groups: list[tuple[int, ...]] = []
        interplay = z.new_empty(0, z.shape[1])
        for more in (_pairs, _triples):
            found = more(sizes, labels, rest, MAX_COLUMNS - len(interplay))
            if found:
                columns = partial(_columns, one_hot, found)
                fitted = _ridge(columns, [_size(sizes, group) for group in found], rest)
                rest = torch.cat([rest[part] - columns(part) @ fitted for part in _chunks(len(z))])
                groups, interplay = groups + found, torch.cat([interplay, fitted])
        noise = torch.diag(torch.as_tensor(variance).cpu().double().expand(z.shape[1]))
        spread = torch.linalg.cholesky(_covariance(rest) + noise)
        scores, offsets = [], []
        for own, share in zip(one_hot, shares.split(sizes), strict=True):
            centre = own.T @ (z - mean) / own.sum(0).clamp(min=1)[:, None]  # of each value's pictures, (values, D)
            scores.append(torch.linalg.solve(_covariance(z - mean - own @ centre) + noise, centre.T).T)
            offsets.append(_log_shares(share) - 0.5 * (scores[-1] * centre).sum(dim=1))
        return cls(
            attributes,
            mean=mean.float(),
            shares=shares.float(),
            effects=effects.float(),
            interplay=interplay.float(),
            spread=spread.float().contiguous(),  # row by row, as it is when loaded: products round alike
            scores=torch.cat(scores).float(),
            offsets=torch.cat(offsets).float(),
            groups=groups,
        )

    def locate(self, positions: Tensor) -> Tensor:
        """Return where pictures lie whose sliders stand at positions, (B, A) -> (B, D), on the CPU.

        A position is 0 at the first value, 1 at the second; between them all changes evenly. Raises ValueError if one is
        beyond the values.
        """
        positions = positions.cpu().float()
        for name, size, column in zip(self.attributes, self.sizes, positions.T, strict=True):
            if not ((column >= 0) & (column <= size - 1)).all():
                raise ValueError(f"{name} goes from 0 to {size - 1}, got {column.tolist()[:5]}")
        shares = [
            (1 - (column[:, None] - torch.arange(size)).abs()).clamp(min=0)  # one or two values have a share: (B, size)
            for column, size in zip(positions.T, self.sizes, strict=True)
        ]
        place = self.mean + torch.cat(shares, dim=1) @ self.effects
        return place + _columns(shares, self.groups) @ self.interplay if self.groups else place

    def predict(self, z: Tensor) -> Tensor:
        """Predict the value of each attribute of latent vectors, (B, D) -> (B, A) int64, on the CPU.

        What the discriminants say is refined, one attribute at a time, until `locate` comes as near to z as it can.
        """
        z = z.detach().cpu().float()
        scores = (z - self.mean) @ self.scores.T + self.offsets
        values = torch.stack([part.argmax(dim=1) for part in scores.split(self.sizes, dim=1)], dim=1)
        if self.groups:
            values = torch.cat([self._refine(z[part], values[part]) for part in _chunks(len(z), REFINED_AT_ONCE)])
        return values

    def whiten(self, rest: Tensor) -> Tensor:
        """Make N(0, I) of what samples of posteriors have around their place, (B, D) -> (B, D)."""
        return torch.linalg.solve_triangular(self.spread, rest.T, upper=False).T

    def _refine(self, z: Tensor, values: Tensor) -> Tensor:
        for index, size in [*enumerate(self.sizes)] * REFINING_ROUNDS:
            tried = values.repeat(size, 1)  # every value of this attribute, the others as they are: (size * B, A)
            tried[:, index] = torch.arange(size).repeat_interleave(len(z))
            error = self.whiten(z.repeat(size, 1) - self.locate(tried)).square().sum(dim=1).view(size, -1)
            prior = _log_shares(self.shares.split(self.sizes)[index])
            values[:, index] = (prior[:, None] - 0.5 * error).argmax(dim=0)
        return values

    def edit(
        self,
        z: Tensor,
        to: Mapping[str, Tensor | float],
        since: Tensor | None = None,
    ) -> Tensor:
        """Move latent vectors, (B, D), so that attributes come to other positions: same shape, same device.

        to: the attributes to turn, and where to, (B,) or one position for all; see `locate`.
        since: where all attributes stand before, (B, A); by default what `predict` says.
        Raises ValueError on an unknown attribute or a position beyond its values.
        """
        old = (self.predict(z) if since is None else since.cpu()).float()
        new = old.clone()
        for name, position in to.items():
            new[:, self._index(name)] = torch.as_tensor(position, dtype=torch.float32).cpu()
        return z + (self.locate(new) - self.locate(old)).to(z)

    def _index(self, attribute: str) -> int:
        if attribute not in self.attributes:
            raise ValueError(f"there is no attribute {attribute!r}: choose one of {', '.join(self.attributes)}")
        return list(self.attributes).index(attribute)


class AttributePrior(Prior):
    """A mixture with a Gaussian for every combination of values, however many there are: what labels know of the latents.

    The value of each attribute is drawn by its share, as if they had nothing to do with each other, then a latent vector
    around the place of such pictures. Temperature multiplies the noise around the place, and leaves the choice of it
    alone.
    """

    def __init__(self, directions: Directions) -> None:
        super().__init__()
        self.latent_dim, self.directions = len(directions.mean), directions
        if self.latent_dim < len(directions.sizes):
            raise ValueError(f"{len(directions.sizes)} attributes can't be drawn from {self.latent_dim} numbers")

    def from_noise(self, eps: Tensor, temperature: float = 1.0) -> Tensor:
        directions, eps = self.directions, eps.cpu()
        values, noise = [], [eps[:, len(directions.sizes) :]]
        for own, shares in zip(eps.T, directions.shares.split(directions.sizes), strict=False):
            value, rest = draw_component(own, shares)
            values.append(value)
            noise.append(rest[:, None])
        place = directions.locate(torch.stack(values, dim=1))
        return place + temperature * torch.cat(noise, dim=1) @ directions.spread.T

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute log p(z) in nats, (B, D) -> (B,): a lower bound, of the likeliest combination alone.

        The others add next to nothing where pictures that differ in a value lie apart.
        """
        directions = self.directions
        values = directions.predict(z)
        picked = zip(values.T, directions.shares.split(directions.sizes), strict=True)
        log_share = torch.stack([_log_shares(shares)[value] for value, shares in picked]).sum(dim=0)
        white = directions.whiten(z.cpu().float() - directions.locate(values))
        log_det = directions.spread.diagonal().log().sum()
        return (log_share + StandardNormal().log_prob(white) - log_det).to(z.device)


def _size(sizes: Sequence[int], group: Sequence[int]) -> int:
    """Count the combinations of values of a group of attributes."""
    return math.prod(sizes[index] for index in group)


def _columns(shares: Sequence[Tensor], groups: Sequence[Sequence[int]], part: slice = slice(None)) -> Tensor:
    """Multiply the shares of the values of the attributes of each group, A times (B, size) -> (B, P)."""
    blocks = []
    for first, *others in groups:
        block = shares[first][part]
        for other in others:
            block = (block[:, :, None] * shares[other][part][:, None, :]).flatten(1)
        blocks.append(block)
    return torch.cat(blocks, dim=1)


def _pairs(sizes: Sequence[int], labels: Tensor, rest: Tensor, room: int) -> list[tuple[int, ...]]:
    """Return every two attributes, or none if there is no room for so many columns, or too few pictures to fit them."""
    pairs: list[tuple[int, ...]] = [*itertools.combinations(range(len(sizes)), 2)]
    return pairs if sum(_size(sizes, pair) for pair in pairs) <= min(room, len(rest)) else []


def _triples(sizes: Sequence[int], labels: Tensor, rest: Tensor, room: int) -> list[tuple[int, ...]]:
    """Return those three attributes that explain more of the rest, (N, D), than MIN_GAIN, the best first, as there is room."""
    triples = list(itertools.combinations(range(len(sizes)), 3))
    gains = {}
    for triple in triples if len(triples) <= MAX_TRIPLES else []:
        size = _size(sizes, triple)
        if size * MIN_PICTURES <= len(rest):
            cell = torch.zeros(len(rest), dtype=torch.int64)
            for index in triple:
                cell = cell * sizes[index] + labels[:, index]
            sums = rest.new_zeros(size, rest.shape[1]).index_add_(0, cell, rest)
            explained = (
                sums.square().sum(dim=1) / cell.bincount(minlength=size).clamp(min=1)
            ).sum() / rest.square().sum()
            gains[triple] = explained.item() - size / len(rest)  # less what so many means explain of mere noise
    chosen: list[tuple[int, ...]] = []
    for triple in sorted(gains, key=lambda triple: gains[triple], reverse=True):
        if gains[triple] > MIN_GAIN and _size(sizes, triple) <= room:
            chosen.append(triple)
            room -= _size(sizes, triple)
    return chosen


def _chunks(count: int, size: int = CHUNK) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def _ridge(columns: Callable[[slice], Tensor], blocks: list[int], y: Tensor) -> Tensor:
    """Regress y, (N, D) of mean 0, on columns, of which a slice of rows is asked for at a time -> (columns, D).

    In each block of columns one column of a row is 1 and the others are 0, so that an intercept can be shared out: the
    answer is that of a block whose mean over rows is 0.
    """
    width = sum(blocks)
    gram, target, total = y.new_zeros(width, width), y.new_zeros(width, y.shape[1]), y.new_zeros(width)
    for part in _chunks(len(y)):
        x = columns(part)
        gram += x.T @ x
        target += x.T @ y[part]
        total = total + x.sum(dim=0)
    gram -= torch.outer(total, total) / len(y)
    answer = torch.linalg.solve(gram + RIDGE * torch.eye(len(gram), dtype=y.dtype), target)
    shares = (total / len(y)).split(blocks)
    return torch.cat([own - share @ own for own, share in zip(answer.split(blocks), shares, strict=True)])


def _covariance(rest: Tensor) -> Tensor:
    """Return the covariance of latent vectors, (N, D) of mean 0, made a little rounder -> (D, D)."""
    covariance = rest.T @ rest / len(rest)
    roundness = SHRINKAGE * covariance.diagonal().mean() + 1e-8
    return covariance + roundness * torch.eye(len(covariance), dtype=rest.dtype)


def _log_shares(shares: Tensor) -> Tensor:
    """Return logarithms of shares; a value that no picture had is never told."""
    return torch.where(shares > 0, shares, 1).log() - torch.where(shares > 0, 0.0, NEVER)


def save_directions(directions: Directions, path: str | Path, **metadata: Any) -> None:
    """Write directions to a safetensors file; the names of attributes and values are JSON in the file's metadata."""
    _check_names(names := {name: list(values) for name, values in directions.attributes.items()})
    groups = [list(group) for group in directions.groups]
    tensors = {key: getattr(directions, key) for key in _shapes(directions.latent_dim, directions.sizes, groups)}
    description = {
        "latent_dim": directions.latent_dim,
        "attributes": names,
        "groups": groups,
        "draws": directions.draws,
    }
    write_tensors(Path(path), tensors, directions=description, **metadata)


def load_directions(path: str | Path) -> Directions:
    """Load what `save_directions` wrote. Raises ValueError in one sentence if the file doesn't hold just that."""

    def build(metadata: Mapping[str, str]) -> tuple[Any, dict[str, Tensor]]:
        description = parse_metadata(metadata, "directions")
        keys = "latent_dim", "attributes", "groups", "draws"
        if not isinstance(description, dict) or set(description) != set(keys):
            raise ValueError(f"directions are described by {', '.join(keys)}")
        latent_dim, names, groups, draws = (description[key] for key in keys)
        if type(latent_dim) is not int or not 1 <= latent_dim <= MAX_FIELDS["latent_dim"]:
            raise ValueError(f"latent_dim should be from 1 to {MAX_FIELDS['latent_dim']}, got {latent_dim!r:.100}")
        _check_names(names)
        sizes = [len(values) for values in names.values()]
        if sum(sizes) > MAX_VALUES:
            raise ValueError(f"all attributes together should have at most {MAX_VALUES} values, got {sum(sizes)}")
        if (
            not isinstance(groups, list)
            or len(groups) > MAX_COLUMNS
            or not all(_is_group(group, len(names)) for group in groups)
            or sum(_size(sizes, group) for group in groups) > MAX_COLUMNS
        ):
            raise ValueError(
                f"groups should be lists of the numbers of two or three attributes, of at most {MAX_COLUMNS} "
                f"combinations of values, got {groups!r:.100}"
            )
        if type(draws) is not bool or (draws and latent_dim < len(names)):
            raise ValueError(
                f"draws should be true or false, and of at most {latent_dim} attributes, got {draws!r:.100}"
            )
        shapes = _shapes(latent_dim, sizes, groups)
        return (names, groups, draws), {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}

    path = Path(path)
    (names, groups, draws), tensors = read_tensors(path, LATENTS, build, unused=("std",))  # which older files have
    if (tensors["shares"] < 0).any():
        raise ValueError(f"{path}: shares should not be negative")
    if (tensors["spread"].diagonal() <= 0).any() or tensors["spread"].triu(1).any():
        raise ValueError(f"{path}: spread should be lower triangular with a positive diagonal")
    if any(abs(own.sum() - 1) > 1e-3 for own in tensors["shares"].split([len(values) for values in names.values()])):
        raise ValueError(f"{path}: the shares of an attribute's values should sum to 1")
    return Directions(names, **tensors, groups=groups, draws=draws)


def _is_group(group: Any, attributes: int) -> bool:
    return (
        isinstance(group, list)
        and 2 <= len(group) <= 3
        and len(set(map(repr, group))) == len(group)
        and all(type(index) is int and 0 <= index < attributes for index in group)
    )


def _shapes(latent_dim: int, sizes: Sequence[int], groups: Sequence[Sequence[int]]) -> dict[str, Sequence[int]]:
    return {
        "mean": (latent_dim,),
        "shares": (sum(sizes),),
        "effects": (sum(sizes), latent_dim),
        "interplay": (sum(_size(sizes, group) for group in groups), latent_dim),
        "spread": (latent_dim, latent_dim),
        "scores": (sum(sizes), latent_dim),
        "offsets": (sum(sizes),),
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
