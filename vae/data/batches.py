"""Batches of training pictures: shuffled, augmented, binarized."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from vae.images import to_unit


def batches(
    images: Tensor, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world_size: int = 1
) -> Iterator[Tensor]:
    """Yield one epoch of shuffled batches, (batch_size / world_size, C, H, W) float32 in [0, 1], on the images' device.

    The order depends on seed and epoch alone: `world_size` processes together see the same batches as one would,
    each the part of its rank. Pictures left over after the last whole batch wait for another epoch's order.
    Raises ValueError if the batch is larger than images or can't be shared equally.
    """
    if batch_size > len(images) or batch_size % world_size:
        raise ValueError(f"{world_size} processes can't share batches of {batch_size} out of {len(images)} pictures")
    share = batch_size // world_size
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    for batch in order.to(images.device).split(batch_size):
        if len(batch) == batch_size:
            yield to_unit(images[batch[rank * share : (rank + 1) * share]])


def augment(x: Tensor, shift: int = 0) -> Tensor:
    """Move each of the pictures x, (B, C, H, W), by up to `shift` pixels: same shape.

    What comes in at an edge is the edge's own colour. The random numbers are those of the pictures' device.
    """
    count, _, height, width = x.shape
    if shift:
        down, right = torch.randint(2 * shift + 1, (2, count), device=x.device)
        windows = F.pad(x, [shift] * 4, mode="replicate").unfold(2, height, 1).unfold(3, width, 1)
        x = windows[torch.arange(count, device=x.device), :, down, right]
    return x


def binarize(images: Tensor, seed: int) -> Tensor:
    """Make each pixel of images, (N, C, H, W) uint8, white with a chance of its brightness, else black: same shape.

    (Salakhutdinov & Murray, "On the Quantitative Analysis of Deep Belief Networks", ICML 2008.) A seed gives the same
    on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [255 * torch.bernoulli(to_unit(part.cpu()), generator=generator).byte() for part in images.split(1000)]
    return torch.cat(parts).to(images.device)
