"""Regress latent vectors on labels: what each value of an attribute adds, and what values of two or three add together.

Attributes go by their number, a group is the numbers of two or three of them, and `sizes` says how many values each has.
A column of the regression is a combination of values of the attributes of a group.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vae.attributes.model import RIDGE, chunks

CHUNK = 4000  # latent vectors at once, which bounds the memory
MAX_COLUMNS = 5000  # combinations of values, of all groups together
MAX_TRIED_NUMBERS = 200_000_000  # values times D²: with groups, predicting tries each value, by so many multiplications
MAX_TRIPLES = 1000  # groups of three attributes to try
MIN_GAIN = 0.02  # part of the unexplained variance that a group of three must explain
MIN_PICTURES = 20  # for each combination of three values

Group = tuple[int, ...]


class Regression(NamedTuple):
    """What `regress` found: see `Directions`; rest, (N, D), is what it leaves unexplained."""

    effects: Tensor
    interplay: Tensor
    groups: list[Group]
    rest: Tensor


def regress(y: Tensor, labels: Tensor, sizes: Sequence[int]) -> Regression:
    """Regress y, (N, D) float64 of mean 0, on labels, (N, A) int64.

    First come the effects of single values; then, on what is left, the interplay of every two attributes; then that of
    those three together that explain the most of the rest.
    """
    one_hot = one_hot_values(labels, sizes).to(y.dtype)
    effects, rest = _ridge(y, one_hot, sizes, [(index,) for index in range(len(sizes))])
    groups: list[Group] = []
    interplay = y.new_empty(0, y.shape[1])
    for choose in (_pairs, _triples) if allows_groups(y.shape[1], sizes) else ():
        found = choose(sizes, labels, rest, MAX_COLUMNS - len(interplay))
        if found:
            fitted, rest = _ridge(rest, one_hot, sizes, found)
            groups, interplay = groups + found, torch.cat([interplay, fitted])
    return Regression(effects, interplay, groups, rest)


def allows_groups(latent_dim: int, sizes: Sequence[int]) -> bool:
    """Say whether predicting with groups takes no longer than the limit."""
    return sum(sizes) * latent_dim**2 <= MAX_TRIED_NUMBERS


def one_hot_values(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return 1 for the value of each attribute and 0 for the others, (B, A) int64 -> (B, V) int64."""
    return torch.cat([F.one_hot(own, size) for own, size in zip(values.T, sizes, strict=True)], dim=1)


def combinations(sizes: Sequence[int], group: Sequence[int]) -> int:
    """Count the combinations of values of a group of attributes."""
    return math.prod(sizes[index] for index in group)


def cells(sizes: Sequence[int], groups: Sequence[Sequence[int]]) -> Tensor:
    """Return the values, counted through all attributes, of each combination of each group, (P, 3) int64.

    Where a group has fewer attributes, the numbers that are left are the count of all values, which is that of none.
    """
    starts, none = [0, *itertools.accumulate(sizes)][:-1], torch.tensor([sum(sizes)])
    found = [torch.empty(0, 3, dtype=torch.int64)]
    for group in groups:
        values = [starts[index] + torch.arange(sizes[index]) for index in group]
        found.append(torch.cartesian_prod(*values, *[none] * (3 - len(group))))
    return torch.cat(found)


def columns(shares: Tensor, cells: Tensor) -> Tensor:
    """Multiply the shares of the values, (B, V), of each combination, (P, 3) -> (B, P)."""
    first, second, third = cells.T
    shares = F.pad(shares, (0, 1), value=1)  # that of no value
    return shares[:, first] * shares[:, second] * shares[:, third]


def _pairs(sizes: Sequence[int], labels: Tensor, rest: Tensor, room: int) -> list[Group]:
    """Return every two attributes, or none if they have more combinations than there is room or there are pictures."""
    pairs: list[Group] = [*itertools.combinations(range(len(sizes)), 2)]
    return pairs if sum(combinations(sizes, pair) for pair in pairs) <= min(room, len(rest)) else []


def _triples(sizes: Sequence[int], labels: Tensor, rest: Tensor, room: int) -> list[Group]:
    """Return those three attributes that explain more of the rest, (N, D), than MIN_GAIN, the best first, as there is room."""
    triples = list(itertools.combinations(range(len(sizes)), 3))
    gains = {}
    for triple in triples if len(triples) <= MAX_TRIPLES else []:
        size = combinations(sizes, triple)
        if size * MIN_PICTURES <= len(rest):
            cell = torch.zeros(len(rest), dtype=torch.int64)
            for index in triple:
                cell = cell * sizes[index] + labels[:, index]
            sums = rest.new_zeros(size, rest.shape[1]).index_add_(0, cell, rest)
            of_cells = sums.square().sum(dim=1) / cell.bincount(minlength=size).clamp(min=1)
            explained = of_cells.sum() / rest.square().sum()
            gains[triple] = explained.item() - size / len(rest)  # less what so many means explain of mere noise
    chosen: list[Group] = []
    for triple in sorted(gains, key=lambda triple: gains[triple], reverse=True):
        if gains[triple] > MIN_GAIN and combinations(sizes, triple) <= room:
            chosen.append(triple)
            room -= combinations(sizes, triple)
    return chosen


def _ridge(y: Tensor, one_hot: Tensor, sizes: Sequence[int], groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
    """Regress y, (N, D) of mean 0, on the combinations of values of groups -> (P, D), and what is left of y, (N, D).

    In each group one column of a row is 1 and the others are 0, so a group can take up any constant: the answer is that
    of a group whose mean over rows is 0.
    """
    places, parts = cells(sizes, groups), chunks(len(y), CHUNK)
    width = len(places)
    gram, target, total = y.new_zeros(width, width), y.new_zeros(width, y.shape[1]), y.new_zeros(width)
    for part in parts:
        x = columns(one_hot[part], places)
        gram += x.T @ x
        target += x.T @ y[part]
        total = total + x.sum(dim=0)
    gram -= torch.outer(total, total) / len(y)
    answer = torch.linalg.solve(gram + RIDGE * torch.eye(width, dtype=y.dtype), target)
    blocks = [combinations(sizes, group) for group in groups]
    shares = (total / len(y)).split(blocks)
    answer = torch.cat([own - share @ own for own, share in zip(answer.split(blocks), shares, strict=True)])
    return answer, torch.cat([y[part] - columns(one_hot[part], places) @ answer for part in parts])
