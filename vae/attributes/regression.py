"""Regress latent vectors on labels: what each value of an attribute adds, and what values of two or three add together.

Attributes go by their number, a group is the numbers of two or three of them, and `sizes` says how many values each has.
Columns of the regression are the values of all attributes, or the combinations of values of each group, one attribute or
group after another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vae.attributes.model import RIDGE, chunks

CHUNK = 4000  # latent vectors at once, which bounds the memory
MAX_COLUMNS = 5000  # combinations of values, of all groups together
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
    one_hot = [F.one_hot(own, size).to(y.dtype) for own, size in zip(labels.T, sizes, strict=True)]
    effects = _ridge(lambda part: torch.cat([own[part] for own in one_hot], dim=1), sizes, y)
    rest = y - torch.cat(one_hot, dim=1) @ effects
    groups: list[Group] = []
    interplay = y.new_empty(0, y.shape[1])
    for choose in (_pairs, _triples):
        found = choose(sizes, labels, rest, MAX_COLUMNS - len(interplay))
        if found:
            design = partial(columns, one_hot, found)
            fitted = _ridge(design, [combinations(sizes, group) for group in found], rest)
            rest = torch.cat([rest[part] - design(part) @ fitted for part in chunks(len(y), CHUNK)])
            groups, interplay = groups + found, torch.cat([interplay, fitted])
    return Regression(effects, interplay, groups, rest)


def combinations(sizes: Sequence[int], group: Sequence[int]) -> int:
    """Count the combinations of values of a group of attributes."""
    return math.prod(sizes[index] for index in group)


def columns(shares: Sequence[Tensor], groups: Sequence[Sequence[int]], part: slice = slice(None)) -> Tensor:
    """Multiply the shares of the values of the attributes of each group, A times (B, size) -> (B, P)."""
    blocks = []
    for first, *others in groups:
        block = shares[first][part]
        for other in others:
            block = (block[:, :, None] * shares[other][part][:, None, :]).flatten(1)
        blocks.append(block)
    return torch.cat(blocks, dim=1)


def row_numbers(sizes: Sequence[int], groups: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return how values say which rows of [effects, interplay] they add up: offsets + values @ strides.

    offsets, (A + G,): the first row of each attribute and group. strides, (A, A + G): how many rows further the next
    value of an attribute lies, 0 where it has no part.
    """
    every = [*((index,) for index in range(len(sizes))), *groups]
    counts = torch.tensor([combinations(sizes, group) for group in every])
    strides = torch.zeros(len(sizes), len(every), dtype=torch.int64)
    for column, group in enumerate(every):
        for place, index in enumerate(group):
            strides[index, column] = combinations(sizes, group[place + 1 :])
    return counts.cumsum(0) - counts, strides


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


def _ridge(design: Callable[[slice], Tensor], blocks: Sequence[int], y: Tensor) -> Tensor:
    """Regress y, (N, D) of mean 0, on columns, of which a slice of rows is asked for at a time -> (columns, D).

    In each block of columns one column of a row is 1 and the others are 0, so a block can take up any constant: the
    answer is that of a block whose mean over rows is 0.
    """
    width = sum(blocks)
    gram, target, total = y.new_zeros(width, width), y.new_zeros(width, y.shape[1]), y.new_zeros(width)
    for part in chunks(len(y), CHUNK):
        x = design(part)
        gram += x.T @ x
        target += x.T @ y[part]
        total = total + x.sum(dim=0)
    gram -= torch.outer(total, total) / len(y)
    answer = torch.linalg.solve(gram + RIDGE * torch.eye(len(gram), dtype=y.dtype), target)
    shares = (total / len(y)).split([*blocks])
    return torch.cat([own - share @ own for own, share in zip(answer.split([*blocks]), shares, strict=True)])
