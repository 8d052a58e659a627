"""Stream a dataset of the Hub during training: for datasets too large for memory or disk."""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae.data.batches import ALONE, Share, prefetched, shuffled
from vae.data.cache import MAX_WORKERS
from vae.data.folder import TEST_PART, Side
from vae.data.own import Picture, check_wanted, fit, hub_rows, open_splits, own_shape, usable_labels
from vae.data.specs import Pictures
from vae.decode import Values
from vae.images import to_unit

SHUFFLE_BUFFER = 10_000  # files that wait to be drawn from, besides the shards, whose order is drawn, too
HELD_OUT_PART = 0.05
LOOKED_AT = 20_000  # pictures that are read before the training, to measure by; and of a split for testing
MEASURED = 5_000  # of them, for training


class Stream:
    """Training pictures of a dataset of `datasets` that is read again in each pass.

    A picture's side follows from the SHA-256 of its file: about a tenth is test, a twentieth is held out.

    test: hashes of pictures that are test, if there is a split of them: then no others are.
    """

    def __init__(
        self,
        dataset: Any,
        column: str | None,
        shape: tuple[int, int, int],
        pixel_range: Values,
        test: set[bytes] | None,
    ) -> None:
        self.dataset, self.column, self.shape, self.pixel_range, self.test = dataset, column, shape, pixel_range, test
        self.length = 0
        self._refused: set[bytes] = set()  # hashes of pictures that can't be read

    def __len__(self) -> int:
        return self.length

    def side(self, digest: bytes) -> Side | None:
        """Return the side of a picture by its hash; None if it is held out."""
        value = int.from_bytes(digest[:4], "big") / 2**32
        if digest in self.test if self.test is not None else value < TEST_PART:
            return "test"
        return None if 0 <= value - TEST_PART < HELD_OUT_PART else "train"

    def batches(self, batch_size: int, *, seed: int, start: int = 0, share: Share = ALONE) -> Iterator[Tensor]:
        """Yield a process's share of each batch without end, (batch_size / processes, C, H, W) uint8, from batch `start` on.

        Each process reads shards of its own, in an order of each pass, through a buffer of SHUFFLE_BUFFER files. A picture
        that can't be read is said on stderr, once, and another one of its batch takes its place.
        Raises ValueError if none of a batch can be read.
        """
        size = batch_size // share.processes
        files = itertools.islice(self._files(seed, share), start * size, None)
        with ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as pool:
            while True:
                found = list(pool.map(self._decode, itertools.islice(files, size)))
                good = [picture for picture in found if isinstance(picture, Tensor)]
                if not good:
                    raise ValueError(f"no picture of a batch can be read: one {found[0]}")
                yield torch.stack([picture if isinstance(picture, Tensor) else good[0] for picture in found])

    def _decode(self, file: Picture) -> Tensor | str:
        """Return the pixels of a file, or why there are none."""
        try:
            return fit(file, self.shape, self.pixel_range)
        except ValueError as error:
            reason = str(error).strip()
            digest = _digest(file)
            if digest not in self._refused:
                self._refused.add(digest)
                print(f"a picture of the stream is left out: it {reason}", file=sys.stderr)
            return reason

    def _files(self, seed: int, share: Share) -> Iterator[Picture]:
        for epoch in itertools.count():
            file = None
            for file in self.read(share, seed, epoch):
                yield file
            if file is None:
                raise ValueError(f"process {share.rank} has no picture to train on: take fewer processes")

    def read(self, share: Share, seed: int, epoch: int) -> Iterator[Picture]:
        """Yield the files of a pass that a process has."""
        from datasets.distributed import split_dataset_by_node

        mine = split_dataset_by_node(self.dataset, share.rank, share.processes)
        # By a generator of each pass: what set_epoch sets gets lost where columns are selected.
        order = mine.shuffle(generator=np.random.default_rng((seed, epoch)), buffer_size=SHUFFLE_BUFFER)
        for file, _ in hub_rows(order, self.column)[0]:
            if self.side(_digest(file)) == "train":
                yield file


def serve(
    images: Tensor | Stream, batch_size: int, *, seed: int, start: int, share: Share, device: torch.device
) -> Iterator[Tensor]:
    """Yield a process's share of each batch without end, in [0, 1], on its device, from batch number `start` on."""
    if isinstance(images, Stream):
        shares = images.batches(batch_size, seed=seed, start=start, share=share)
    else:
        order = shuffled(len(images), batch_size, seed=seed, start=start)
        shares = (images[share.of(batch).to(images.device)] for batch in order)
    return map(to_unit, prefetched(shares, device))


class Streamed(dict[Side, Pictures]):
    """Pictures of a stream to measure by; the last `num_held_out` of those to train on are held out.

    stream: to train on.
    """

    stream: Stream
    num_held_out: int


def open_stream(
    name: str, *, image_size: int | None = None, channels: int | None = None, pixel_range: Values = "auto"
) -> Streamed:
    """Open hub:owner/name[:split[:column]] for reading while training, and read what is measured by.

    Raises ValueError in one sentence if it can't be had, or its first pictures are too few.
    """
    check_wanted(image_size, channels, pixel_range)
    train, tests, column = open_splits(name, is_streamed=True)
    try:
        rows, attributes = hub_rows(train, column)
        (first, _), rows = _peek(rows)
        own_channels, own_size = own_shape(first)
        size = image_size or own_size
        stream = Stream(train, column, (channels or own_channels, size, size), pixel_range, None)
        test = list(itertools.islice(hub_rows(tests[0], column)[0], LOOKED_AT)) if tests else []
        stream.test = {_digest(file) for file, _ in test} if tests else None
        parts: dict[Side | None, list[tuple[Picture, Any]]] = {"train": [], "test": test, None: []}
        seen = counted = 0
        for seen, row in enumerate(rows, start=1):
            side = stream.side(_digest(row[0]))
            counted += side == "train"
            if seen <= LOOKED_AT and (side != "train" or counted <= MEASURED) and not (side == "test" and tests):
                parts[side].append(row)
            if seen == LOOKED_AT and (total := _length(train)):
                counted, seen = round(counted * total / seen), total
                break
        if not all(parts.values()):
            raise ValueError(f"{seen} pictures are too few for streaming, of which a twentieth is held out")
        stream.length = counted
        pictures = Streamed()
        for side, chosen in (("train", parts["train"] + parts[None]), ("test", parts["test"])):
            images = torch.stack([fit(file, stream.shape, pixel_range) for file, _ in chosen])
            labels = torch.tensor([values for _, values in chosen], dtype=torch.int64)
            pictures[side] = Pictures(images, *usable_labels(labels, attributes))  # type: ignore[index]
        pictures.stream, pictures.num_held_out = stream, len(parts[None])
        return pictures
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _peek(rows: Iterable[Any]) -> tuple[Any, Iterator[Any]]:
    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        raise ValueError("there are no pictures")
    return first, itertools.chain([first], iterator)


def _length(dataset: Any) -> int | None:
    """Return the number of rows of a streamed split, if its dataset says it."""
    splits = dataset.info.splits or {}
    return splits[dataset.split].num_examples if dataset.split in splits else None


def _digest(file: Picture) -> bytes:
    assert isinstance(file, bytes)
    return hashlib.sha256(file).digest()
