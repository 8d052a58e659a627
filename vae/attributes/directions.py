"""Several attributes: a linear model adds up what each value does to a latent vector, and what two or three do together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from vae.attributes.model import (
    NEVER,
    AttributeModel,
    check_labels,
    covariance,
    log_shares,
    noise_covariance,
)
from vae.attributes.regression import cells, columns, combinations, one_hot_values, regress
from vae.prior import StandardNormal

REFINING_ROUNDS = 2  # over all attributes
REFINED_AT_ONCE = 3000  # latent vectors times values, which bounds the memory


@dataclass(frozen=True, kw_only=True)
class Directions(AttributeModel):
    """A model of latent vectors that is linear in the labels, one thing at a time and some things together:

        z  ≈  mean + Σ_a effects[value of a] + Σ_{groups a, b, ...} interplay[value of a, value of b, ...].

    So correlated attributes, such as beard and hair, are not counted twice, one can be edited without the other,
    and a beard in the colour of the hair needs no direction of its own for each colour. An edit adds the terms of the
    new values and subtracts those of the old ones, linearly between two values.

    mean: of the latent vectors, (D,).
    effects: how far each value moves a latent vector, the other attributes held fixed, (V, D). For the mean over pictures,
        those of an attribute cancel out.
    interplay: how much further the values of two or three attributes together move it, (P, D): those of all groups one
        after another. P is 0 where there is but one attribute, or too few pictures.
    groups: the attributes, by their numbers, of each group.
    spread: a lower triangular matrix, (D, D), the Cholesky factor of the covariance of what all these leave
        unexplained in samples of posteriors.
    scores, offsets: of the linear discriminants that predict the value of an attribute from a latent vector, (V, D), (V,).
    """

    mean: Tensor
    effects: Tensor
    interplay: Tensor
    spread: Tensor
    scores: Tensor
    offsets: Tensor
    groups: Sequence[Sequence[int]] = ()

    @property
    def latent_dim(self) -> int:
        return len(self.mean)

    @staticmethod
    def shapes(latent_dim: int, sizes: Sequence[int], groups: Sequence[Sequence[int]]) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor, by its name."""
        return {
            "shares": (sum(sizes),),
            "mean": (latent_dim,),
            "effects": (sum(sizes), latent_dim),
            "interplay": (sum(combinations(sizes, group) for group in groups), latent_dim),
            "spread": (latent_dim, latent_dim),
            "scores": (sum(sizes), latent_dim),
            "offsets": (sum(sizes),),
        }

    @classmethod
    def fit(
        cls, z: Tensor, labels: Tensor, attributes: Mapping[str, Sequence[str]], variance: Tensor | float = 0.0
    ) -> Directions:
        """Fit them to latent vectors by ridge regression; arguments and errors as of `fit_attributes`.

        The discriminants are those of Gaussians of one covariance around the mean of each value's pictures (Fisher 1936).
        """
        z, labels = check_labels(z, labels, attributes)
        sizes = [len(values) for values in attributes.values()]
        mean, noise = z.mean(dim=0), noise_covariance(variance, z.shape[1])
        shares, scores, offsets = [], [], []
        for own, size in zip(labels.T, sizes, strict=True):
            one_hot = F.one_hot(own, size).double()
            centre = (
                one_hot.T @ (z - mean) / one_hot.sum(0).clamp(min=1)[:, None]
            )  # of each value's pictures, (size, D)
            shares.append(one_hot.mean(dim=0))
            scores.append(torch.linalg.solve(covariance(z - mean - centre[own]) + noise, centre.T).T)
            log_share = shares[-1].clamp(min=1 / len(z)).log()  # `predict` leaves out values that no picture has
            offsets.append(log_share - 0.5 * (scores[-1] * centre).sum(dim=1))
        found = regress(z - mean, labels, sizes)
        tensors = {
            "shares": torch.cat(shares),
            "mean": mean,
            "effects": found.effects,
            "interplay": found.interplay,
            "spread": torch.linalg.cholesky(covariance(found.rest) + noise),
            "scores": torch.cat(scores),
            "offsets": torch.cat(offsets),
        }
        # Laid out row by row, as they are when loaded, so that products round alike.
        tensors = {key: tensor.float().contiguous() for key, tensor in tensors.items()}
        return cls(attributes=attributes, groups=found.groups, **tensors)

    def locate(self, positions: Tensor) -> Tensor:
        """Return the mean of latent vectors of pictures with these positions, (B, A) -> (B, D).

        Raises ValueError if a position is beyond the values.
        """
        positions = positions.cpu().float()
        self._check(positions)
        each = zip(positions.T, self.sizes, strict=True)
        # The share of each value: of one or, between two, of both.
        shares = torch.cat([(1 - (own[:, None] - torch.arange(size)).abs()).clamp(min=0) for own, size in each], dim=1)
        place = self.mean + shares @ self.effects  # (B, D)
        return place + columns(shares, self._cells) @ self.interplay if self.groups else place

    @cached_property
    def _cells(self) -> Tensor:
        return cells(self.sizes, self.groups)

    def shift(self, z: Tensor, old: Tensor, new: Tensor) -> Tensor:
        return self.locate(new) - self.locate(old)

    def draw(self, values: Tensor, eps: Tensor) -> Tensor:
        return self.locate(values) + eps @ self.spread.T

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute a lower bound of log p(z) in nats, (B, D) -> (B,): that of the likeliest combination of values alone.

        The others add next to nothing where pictures that differ in a value lie apart.
        """
        values = self.predict(z)
        picked = zip(values.T, self.shares.split(self.sizes), strict=True)
        log_share = torch.stack([log_shares(shares)[value] for value, shares in picked]).sum(dim=0)
        white = self.whiten(z.cpu().float() - self.locate(values))
        log_det = self.spread.diagonal().log().sum()
        return (log_share + StandardNormal().log_prob(white) - log_det).to(z.device)

    def predict(self, z: Tensor) -> Tensor:
        """Predict the value of each attribute of latent vectors, (B, D) -> (B, A) int64.

        What the discriminants say is refined, one attribute at a time, until `locate` comes as near to z as it can.
        """
        self._check_latents(z)
        z = z.detach().cpu().float()
        scores = ((z - self.mean) @ self.scores.T + self.offsets).masked_fill(self.shares == 0, NEVER)
        values = torch.stack([part.argmax(dim=1) for part in scores.split(self.sizes, dim=1)], dim=1)
        if self.groups:
            at_once = max(1, REFINED_AT_ONCE // max(self.sizes))
            parts = zip(z.split(at_once), values.split(at_once), strict=True)
            values = torch.cat([self._refine(*part) for part in parts])
        return values

    def whiten(self, rest: Tensor) -> Tensor:
        """Make N(0, I) of what samples of posteriors have around their place, (B, D) -> (B, D)."""
        return torch.linalg.solve_triangular(self.spread, rest.T, upper=False).T

    def _refine(self, z: Tensor, values: Tensor) -> Tensor:
        """Set one attribute after another to the value that is likeliest if the others are as they are, (B, A) -> (B, A)."""
        rest, rows = z - self.locate(values), torch.arange(len(z))
        starts = [0, *itertools.accumulate(self.sizes)]
        for index, size in [*enumerate(self.sizes)] * REFINING_ROUNDS:
            if size == 1:
                continue
            # What each value of this attribute adds: its effect, and its interplay with the values that the others have.
            here = (self._cells >= starts[index]) & (self._cells < starts[index + 1])  # (P, 3)
            own = here.any(dim=1).nonzero()[:, 0]
            order = self._cells[own][here[own]].argsort(stable=True)
            own = own[order].view(size, len(own) // size)  # the combinations with each value, (size, Q)
            others = self._cells.masked_fill(here, starts[-1])[own.flatten()]  # the same without it
            weights = columns(one_hot_values(values, self.sizes).float(), others)  # (B, size * Q)
            weights = weights.unflatten(1, own.shape).transpose(0, 1)  # (size, B, Q)
            effects = self.effects[starts[index] : starts[index + 1], None]  # (size, 1, D)
            added = effects + weights @ self.interplay[own]  # (size, B, D)
            left = rest + added[values[:, index], rows] - added  # (size, B, D)
            error = self.whiten(left.flatten(0, 1)).square().sum(dim=1).view(size, -1)
            log_share = log_shares(self.shares[starts[index] : starts[index + 1]])
            values[:, index] = (log_share[:, None] - 0.5 * error).argmax(dim=0)
            rest = left[values[:, index], rows]
        return values
