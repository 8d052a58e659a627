"""Where training pictures come from: torchvision, CelebA, avatars, folders of pictures, the Hub."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from vae.data.avatars import load_avatars
from vae.data.cache import Entry, PictureCache
from vae.data.folder import Side, choose_test, count, describe_left_out, find_files, look_at, printable, read_layout
from vae.data.own import MIN_PICTURES, check_wanted, load_hub
from vae.data.specs import DATASETS, HUB, OWN, Pictures, spec_of
from vae.data.start import Start, load_start, save_start
from vae.decode import Values

AVATAR_SEEDS = {"train": range(60_000), "test": range(100_000, 110_000)}
CELEBA_PARTITIONS = {"train": "0", "test": "2"}  # 1 is for validation, for which train.py holds out pictures itself
NO_SIDE = "is in none of the folders for training and testing"
_last_said = ""  # of a folder, on stderr


def load_dataset(
    name: str,
    data_dir: str | Path,
    split: Side,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    pixel_range: Values = "auto",
) -> Pictures:
    """Load a split of the dataset called `name` from the files in data_dir, or from the Hub.

    mnist, fashion-mnist: torchvision's files, downloaded if they are missing and there is a network.
    avatars: drawn, if they are not there yet; the pictures of a seed are always the same.
    celeba: its files as they come; the aligned pictures, with their 40 attributes.
    folder: every picture under data_dir, whatever its name. Where it has folders train and val (or test), those are the
        splits; else about a tenth is test, by the hash of each file (`vae.data.folder.choose_test`). Where pictures lie in
        several folders, at most 1,000, the name of its folder is each picture's attribute "folder". What was understood
        and which files are left out is said on stderr. Pictures are mapped from the cache (`vae.data.cache`).
    hub:owner/name[:split[:column]]: a dataset of the Hub, see `vae.data.own.load_hub`.
    image_size, channels: of celeba, folder and hub, whose pictures are cut to squares; the others have their own.
    pixel_range: of the same: how pictures of more than 8 bits become 8 bits, see `vae.decode.read_picture`.
    Raises ValueError in one sentence that says what is missing and what to do.
    """
    spec, data_dir = spec_of(name), Path(data_dir)
    if split not in get_args(Side):
        raise ValueError(f"split should be {' or '.join(get_args(Side))}, got {split!r:.100}")
    check_wanted(image_size, channels, pixel_range)
    if name == OWN:
        raise ValueError("own pictures are given from Python: train(TrainConfig(), pictures=...)")
    if name.startswith(HUB):
        return load_hub(name, image_size=image_size, channels=channels, pixel_range=pixel_range)[split]
    if name in ("celeba", "folder"):
        load = _load_celeba if name == "celeba" else _load_folder
        return load(
            data_dir,
            split,
            spec.image_size if image_size is None else image_size,
            spec.channels if channels is None else channels,
            pixel_range,
        )
    if image_size not in (None, spec.image_size) or channels not in (None, spec.channels):
        raise ValueError(
            f"{name} has pictures of {spec.channels}x{spec.image_size}x{spec.image_size}: "
            "leave image_size and channels to it"
        )
    if name == "avatars":
        images, labels = load_avatars(data_dir, AVATAR_SEEDS[split])
        return Pictures(torch.from_numpy(images), torch.from_numpy(labels), spec.attributes)
    return _load_torchvision(name, data_dir, split == "train")


def _load_torchvision(name: str, data_dir: Path, train: bool) -> Pictures:
    from torchvision import datasets

    kind = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[name]
    raw = data_dir / kind.__name__ / "raw"
    files = [
        f"{part}-ubyte" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    ]
    put_them = f"put {', '.join(files)} (or their .gz) into {raw}"
    all_there = all((raw / file).is_file() for file in files)
    try:
        dataset = kind(str(data_dir), train=train, download=not all_there)
    except (RuntimeError, OSError, AssertionError, ValueError, KeyError, IndexError) as error:  # as torchvision raises
        if all_there:
            raise ValueError(f"the files of {name} are broken: delete them and {put_them}") from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{name} is not in {data_dir} and could not be downloaded ({reason}): {put_them}") from error
    number = 60_000 if train else 10_000
    if dataset.data.shape != (number, 28, 28) or len(dataset.targets) != number:
        raise ValueError(
            f"{raw} holds {len(dataset.data)} pictures instead of {number}: delete its files and {put_them}"
        )
    return Pictures(dataset.data.unsqueeze(1), dataset.targets[:, None], DATASETS[name].attributes)


def _load_folder(folder: Path, split: Side, image_size: int, channels: int, pixel_range: Values) -> Pictures:
    cache = PictureCache(folder, image_size, channels, pixel_range)
    known = load_start(cache)
    if known is None:
        known = _read_folder(folder, cache)
    start, images, classes = known
    _say(split, start.said)
    first = 0 if split == "test" else start.counts["test"]
    chosen = slice(first, first + start.counts[split])
    pixels = torch.from_numpy(images[chosen])
    if start.names is None:
        return Pictures(pixels, torch.empty(len(pixels), 0, dtype=torch.int64), {})
    return Pictures(pixels, torch.from_numpy(classes[chosen].astype(np.int64))[:, None], {"folder": start.names})


def _read_folder(folder: Path, cache: PictureCache) -> tuple[Start, np.ndarray, np.ndarray]:
    """Look at every file of a folder, decode what is new, and note for the next start what was found."""
    changed: dict[str, int] = {}
    now = time.time_ns()
    files, left_out = find_files(folder, changed)
    total, unseen = len(files) + len(left_out), [reason for _, reason in left_out if reason != "is hidden"]
    entries = cache.read(files)
    left_out += [(entry.path, entry.text or "") for entry in entries if entry.row < 0]
    # In the order of their hashes, which mixes the folders: whoever holds out the last ones has some of each.
    pictures = sorted((entry for entry in entries if entry.row >= 0), key=lambda entry: (entry.sha256, entry.path))
    layout = read_layout([entry.path for entry in pictures])
    sides, how = _assign_sides(pictures, layout.sides, cache.sides)
    left_out += [(entry.path, NO_SIDE) for entry, side in zip(pictures, sides, strict=True) if side is None]
    counts = Counter(sides)
    said = f"{count(counts['train'], 'picture')} to train on and {counts['test']:,} to test{how}; {layout.said}"
    said = _describe(f"{printable(folder)}: {said}", pictures, describe_left_out(left_out, total))
    if not counts["train"] or counts["train"] + counts["test"] < MIN_PICTURES:
        _say("train", said)
    _check_enough(folder, counts["train"] + counts["test"])
    if not counts["train"]:
        raise ValueError(f"all pictures in {printable(folder)} are the same: at least two different ones are needed")
    order = sorted(range(len(pictures)), key=lambda index: ("test", "train", None).index(sides[index]))
    images = cache.arrange([pictures[index] for index in order])
    start = Start(said, {"train": counts["train"], "test": counts["test"]}, layout.names if layout.classes else None)
    classes = np.array([layout.classes[index] for index in order] if layout.classes else [], np.int32)
    if not unseen:  # a link or a closed folder would have to be looked at again
        save_start(cache, start, classes, files, changed, now)
    return start, images, classes


def _assign_sides(
    pictures: Sequence[Entry], by_folder: Sequence[Side | None] | None, known: dict[str, str]
) -> tuple[Sequence[Side | None], str]:
    """Return the side of each picture, and in words how it was found: by the folders if they say it, else by hashes."""
    if by_folder is None:
        test = choose_test([entry.sha256 for entry in pictures], known)
        return ["test" if entry.sha256 in test else "train" for entry in pictures], ""
    test = {entry.sha256 for entry, side in zip(pictures, by_folder, strict=True) if side == "test"}
    # No test picture is trained on, so neither is a copy of one.
    sides = ["test" if side and entry.sha256 in test else side for entry, side in zip(pictures, by_folder, strict=True)]
    copies = sum(old != new for old, new in zip(by_folder, sides, strict=True))
    how = ", as the folders say"
    return (
        sides,
        f"{how} but for {count(copies, 'copy', 'copies')} of test pictures among the others" if copies else how,
    )


def _load_celeba(data_dir: Path, split: Side, image_size: int, channels: int, pixel_range: Values) -> Pictures:
    """Read CelebA's files, as torchvision lays them out; whose licence must be accepted is not downloaded."""
    folder = data_dir / "celeba"
    tables = [folder / "list_eval_partition.txt", folder / "list_attr_celeba.txt"]
    pictures = folder / "img_align_celeba"
    for path in (*tables, pictures):
        if not path.exists():
            raise ValueError(
                f"there is no {path}: fetch list_eval_partition.txt, list_attr_celeba.txt and img_align_celeba.zip from "
                f"{DATASETS['celeba'].source.rpartition(' ')[2]}, and unpack them into {folder}"
            )
    try:
        partition, lines = (path.read_text(encoding="utf-8").splitlines() for path in tables)
        wanted = {name for name, part in map(str.split, partition) if part == CELEBA_PARTITIONS[split]}
        names = lines[1].split()  # the first line is the number of pictures
        rows = {file: values for file, *values in map(str.split, lines[2:]) if file in wanted}
        labels = torch.tensor([[int(value) > 0 for value in values] for values in rows.values()]).long()
        if len(rows) != len(wanted) or labels.shape != (len(rows), len(names)):
            raise ValueError(f"{len(rows)} of {len(wanted)} pictures have attributes")
    except (OSError, ValueError, IndexError) as error:
        raise ValueError(f"{tables[1]} or {tables[0].name} is broken, fetch it again ({error})") from error
    files, left_out = look_at(pictures, rows)
    cache = PictureCache(pictures, image_size, channels, pixel_range, f"{split}-")
    entries = cache.read(files)
    left_out += [(entry.path, entry.text or "") for entry in entries if entry.row < 0]
    good = [entry for entry in entries if entry.row >= 0]
    _say("celeba", _describe("", good, describe_left_out(left_out, len(rows))))
    _check_enough(pictures, len(good))
    positions = {name: position for position, name in enumerate(rows)}
    attributes = {name.replace("_", " ").lower(): ("no", "yes") for name in names}
    images = torch.from_numpy(cache.arrange(good))
    return Pictures(images, labels[[positions[entry.path] for entry in good]], attributes)


def _describe(said: str, pictures: Sequence[Entry], left_out: str) -> str:
    """Say what was understood of a folder, what was done to its pictures, and what is left out."""
    scaled = Counter(entry.text for entry in pictures if entry.text)
    if scaled:
        ((note, _),) = scaled.most_common(1)
        said += (
            f"\n{count(scaled.total(), 'picture')} of more than 8 bits: each is scaled by the range it uses, mostly: {note}"
            " (--pixel-range full takes the whole range of the type)"
        )
    return "\n".join(filter(None, (said, left_out)))


def _say(split: str, text: str) -> None:
    """Say something of a folder on stderr; for test, not what was just said for train."""
    global _last_said
    if text and not (split == "test" and text == _last_said):
        print(text, file=sys.stderr)
    _last_said = text


def _check_enough(folder: Path, number: int) -> None:
    if number < MIN_PICTURES:
        raise ValueError(
            f"{printable(folder)} holds {count(number, 'readable picture')}: at least {MIN_PICTURES} are needed"
        )
