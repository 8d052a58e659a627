"""Batches of training pictures: shuffled, augmented, binarized."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vae.images import to_unit

AHEAD = 3  # batches that are prepared


class Share(NamedTuple):
    """Which part of each batch a process has, of `processes` of equal size.

    Random numbers are drawn for the whole batch in every process, and each takes its part: however many processes share a
    batch, a picture is given the same ones.
    """

    rank: int = 0
    processes: int = 1

    def of(self, whole: Tensor, dim: int = 0) -> Tensor:
        """Take this process's part of what there is for a whole batch, along dim."""
        return whole.chunk(self.processes, dim)[self.rank]


ALONE = Share()


def shuffled(count: int, batch_size: int, *, seed: int, start: int = 0) -> Iterator[Tensor]:
    """Yield the indices of the pictures in each batch without end, (batch_size,), from batch number `start` on.

    Each of `count` pictures comes once in every pass, in an order of that pass, which depends on the seed alone. A batch may
    hold the end of one pass and the beginning of the next.
    """
    first, done = divmod(start * batch_size, count)
    left = _order(count, seed, first)[done:]
    for epoch in itertools.count(first + 1):
        while len(left) >= batch_size:
            yield left[:batch_size]
            left = left[batch_size:]
        left = torch.cat([left, _order(count, seed, epoch)])


def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def batches(images: Tensor, batch_size: int, *, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yield one epoch of shuffled batches, (batch_size, C, H, W) float32 in [0, 1], on the images' device.

    The order depends on seed and epoch alone. Pictures left over after the last whole batch wait for another epoch's order.
    Raises ValueError if the batch is larger than images.
    """
    if batch_size > len(images):
        raise ValueError(f"there are no batches of {batch_size} in {len(images)} pictures")
    for batch in _order(len(images), seed, epoch).to(images.device).split(batch_size):
        if len(batch) == batch_size:
            yield to_unit(images[batch])


def prefetched(batches: Iterator[Tensor], device: torch.device) -> Generator[Tensor, None, None]:
    """Yield batches on a device, of which a thread prepares the next ones in pinned memory; at once if they are there."""
    first = next(batches, None)
    if first is None or first.device.type == device.type:
        yield from () if first is None else itertools.chain([first], batches)
        return
    pool = ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(_pin_next, batches) for _ in range(AHEAD))
        yield first.to(device)
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(_pin_next, batches))
            yield batch.to(device, non_blocking=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _pin_next(batches: Iterator[Tensor]) -> Tensor | None:
    batch = next(batches, None)
    return batch if batch is None or not torch.accelerator.is_available() else batch.pin_memory()


def augment(x: Tensor, shift: int = 0, share: Share = ALONE) -> Tensor:
    """Move each of the pictures x, (B, C, H, W), by up to `shift` pixels: same shape.

    What comes in at an edge is the edge's own colour. The random numbers are those of the pictures' device.
    share: of a batch, that x is.
    """
    count, _, height, width = x.shape
    if shift:
        down, right = share.of(torch.randint(2 * shift + 1, (2, count * share.processes), device=x.device), dim=1)
        windows = F.pad(x, [shift] * 4, mode="replicate").unfold(2, height, 1).unfold(3, width, 1)
        x = windows[torch.arange(count, device=x.device), :, down, right]
    return x


def draw_binary(x: Tensor, share: Share = ALONE) -> Tensor:
    """Make each pixel of pictures x, (B, C, H, W) in [0, 1], white with a chance of its brightness, else black: same shape.

    The random numbers are those of the pictures' device.
    share: of a batch, that x is.
    """
    count, *shape = x.shape
    return (share.of(torch.rand(count * share.processes, *shape, device=x.device)) < x).to(x.dtype)


def binarize(images: Tensor, seed: int) -> Tensor:
    """Make each pixel of images, (N, C, H, W) uint8, white with a chance of its brightness, else black: same shape.

    (Salakhutdinov & Murray, "On the Quantitative Analysis of Deep Belief Networks", ICML 2008.) A seed gives the same
    on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [255 * torch.bernoulli(to_unit(part.cpu()), generator=generator).byte() for part in images.split(1000)]
    return torch.cat(parts).to(images.device)
