"""Where training pictures come from: torchvision, CelebA, avatars, folders of pictures."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae.data.avatars import load_avatars
from vae.data.specs import DATASETS, Pictures
from vae.images import to_pixels

MIN_PICTURES = 10  # in a folder, of which a tenth is test and as much is held out from training
AVATAR_SEEDS = {"train": range(60_000), "test": range(100_000, 110_000)}
CELEBA_PARTITIONS = {"train": "0", "test": "2"}  # 1 is for validation, for which train.py holds out pictures itself
MAX_VALUES, MAX_NAME = 1000, 100  # folders that are taken for labels, and letters in the name of one


def load_dataset(
    name: str,
    data_dir: str | Path,
    split: Literal["train", "test"],
    *,
    image_size: int | None = None,
    channels: int | None = None,
) -> Pictures:
    """Load a split of the dataset called `name` in DATASETS from the files in data_dir.

    mnist, fashion-mnist: torchvision's files, downloaded if they are missing and there is a network.
    avatars: drawn, if they are not there yet; the pictures of a seed are always the same.
    celeba: its files as they come; the aligned pictures, with their 40 attributes.
    folder: every picture under data_dir; a tenth, chosen by a fixed seed, is test. Where all lie in folders within
        data_dir, at most 1,000, the name of that folder is the picture's attribute "folder".
    image_size, channels: of celeba and folder, whose pictures are cut to squares; the others have their own.
    Raises ValueError in one sentence that says what is missing and what to do.
    """
    if name not in DATASETS:
        raise ValueError(f"there is no dataset {name!r}: choose one of {', '.join(DATASETS)}")
    spec, data_dir = DATASETS[name], Path(data_dir)
    if name in ("celeba", "folder"):
        load = _load_celeba if name == "celeba" else _load_folder
        return load(
            data_dir,
            split,
            spec.image_size if image_size is None else image_size,
            spec.channels if channels is None else channels,
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
    count = 60_000 if train else 10_000
    if dataset.data.shape != (count, 28, 28) or len(dataset.targets) != count:
        raise ValueError(
            f"{raw} holds {len(dataset.data)} pictures instead of {count}: delete its files and {put_them}"
        )
    return Pictures(dataset.data.unsqueeze(1), dataset.targets[:, None], DATASETS[name].attributes)


def _load_folder(folder: Path, split: str, image_size: int, channels: int) -> Pictures:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: name one that holds pictures with --data-dir")
    suffixes = Image.registered_extensions()
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    images, kept = _decode(paths, folder, image_size, channels, report=split == "train")
    within = [path.relative_to(folder).parts for path, is_kept in zip(paths, kept, strict=True) if is_kept]
    names = sorted({parts[0] for parts in within})
    attributes = {}
    labels = torch.empty(len(within), 0, dtype=torch.int64)
    if 1 < len(names) <= MAX_VALUES and all(len(parts) > 1 and len(parts[0]) <= MAX_NAME for parts in within):
        attributes = {"folder": ["".join(c if c.isprintable() else " " for c in name) for name in names]}
        labels = torch.tensor([[names.index(parts[0])] for parts in within])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test = len(images) // 10
    chosen = order[:test] if split == "test" else order[test:]
    return Pictures(images[chosen], labels[chosen], attributes)


def _load_celeba(data_dir: Path, split: str, image_size: int, channels: int) -> Pictures:
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
    paths = [pictures / file for file in rows]
    images, kept = _decode(paths, pictures, image_size, channels, report=True)
    attributes = {name.replace("_", " ").lower(): ("no", "yes") for name in names}
    return Pictures(images, labels[torch.from_numpy(kept)], attributes)


def _decode(
    paths: list[Path], folder: Path, image_size: int, channels: int, *, report: bool
) -> tuple[Tensor, np.ndarray]:
    """Decode pictures under folder once, and keep the result in folder/.vae-cache.

    Returns those that could be read, (N, C, H, W) uint8, and for each of the paths whether it could. Raises ValueError
    if they are fewer than MIN_PICTURES; `report` says, on stderr, which could not be read.
    """
    from tqdm import tqdm

    state = [
        (str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else str(path)
        for path in paths
    ]
    fingerprint = hashlib.sha256(repr(state).encode()).hexdigest()[:16]
    cache = folder / ".vae-cache" / f"{channels}x{image_size}x{image_size}-{fingerprint}.npz"
    try:
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            images, kept, broken = stored["images"], stored["kept"], stored["broken"].tolist()
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # not there yet, or not whole: decode
        with ThreadPoolExecutor() as pool:
            read = partial(_read_or_reason, image_size=image_size, channels=channels)
            results = list(tqdm(pool.map(read, paths), total=len(paths), desc="reading pictures", disable=None))
        kept = np.array([not isinstance(result, str) for result in results], bool)
        good = [result for result in results if not isinstance(result, str)]
        broken = [result for result in results if isinstance(result, str)]
        images = np.stack(good) if good else np.empty((0, channels, image_size, image_size), np.uint8)
        _store(cache, images=images, kept=kept, broken=np.array(broken, dtype=np.str_))
    if broken and report:
        named = "; ".join(broken[:5]) + (f"; and {len(broken) - 5} more" if len(broken) > 5 else "")
        print(f"{len(broken)} of {len(paths)} files are left out: {named}", file=sys.stderr)
    if len(images) < MIN_PICTURES:
        raise ValueError(f"{folder} holds {len(images)} readable pictures: at least {MIN_PICTURES} are needed")
    return torch.from_numpy(images), kept


def _read_or_reason(path: Path, image_size: int, channels: int) -> np.ndarray | str:
    try:
        return to_pixels(path, image_size, channels).numpy()
    except ValueError as error:
        return str(error)


def _store(cache: Path, **arrays: np.ndarray) -> None:
    try:
        cache.parent.mkdir(exist_ok=True)
        part = cache.with_suffix(".part.npz")
        np.savez(part, allow_pickle=False, **arrays)
        part.replace(cache)  # whole or not at all
    except OSError as error:
        print(f"the decoded pictures could not be kept for the next time: {error}", file=sys.stderr)
