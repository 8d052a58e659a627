"""Training pictures: known datasets and folders of pictures, held as one uint8 tensor and served in batches from it."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vae.images import open_picture, to_pixels, to_unit

EXAMPLES = Path(__file__).parent / "examples"
MIN_PICTURES = 10  # in a folder, of which a tenth is test and as much is held out from training


@dataclass(frozen=True)
class DatasetSpec:
    """What is known about a dataset before opening it.

    labels: the names of its classes, if it has any; hub_id: its name on the Hub, if it is there.
    """

    title: str
    channels: int
    image_size: int
    source: str
    licence: str
    labels: tuple[str, ...] = ()
    hub_id: str | None = None


DATASETS = {
    "mnist": DatasetSpec(
        title="MNIST",
        channels=1,
        image_size=28,
        source="Yann LeCun, Corinna Cortes and Christopher J. C. Burges, http://yann.lecun.com/exdb/mnist/",
        licence="CC BY-SA 3.0",
        labels=tuple("0123456789"),
        hub_id="ylecun/mnist",
    ),
    "fashion-mnist": DatasetSpec(
        title="Fashion-MNIST",
        channels=1,
        image_size=28,
        source="Han Xiao, Kashif Rasul and Roland Vollgraf, Zalando SE, https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        labels=(
            *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        hub_id="zalando-datasets/fashion_mnist",
    ),
    "folder": DatasetSpec(
        title="Folder of pictures",
        channels=3,
        image_size=64,
        source="your own pictures",
        licence="as your pictures are",
    ),
}


class Pictures(NamedTuple):
    """A split of a dataset: images (N, C, H, W) uint8, and the class of each, (N,) int64, where there are classes."""

    images: Tensor
    labels: Tensor | None = None


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
    folder: every picture under data_dir, cut to squares of image_size; a tenth, chosen by a fixed seed, is test.
    Raises ValueError in one sentence that says what is missing and what to do.
    """
    if name not in DATASETS:
        raise ValueError(f"there is no dataset {name!r}: choose one of {', '.join(DATASETS)}")
    spec = DATASETS[name]
    if name == "folder":
        image_size = spec.image_size if image_size is None else image_size
        channels = spec.channels if channels is None else channels
        images = _load_folder(Path(data_dir), image_size, channels, report=split == "train")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        test = len(images) // 10
        return Pictures(images[order[:test] if split == "test" else order[test:]])
    if image_size not in (None, spec.image_size) or channels not in (None, spec.channels):
        raise ValueError(
            f"{name} has pictures of {spec.channels}x{spec.image_size}x{spec.image_size}: "
            "leave image_size and channels to it"
        )
    return _load_torchvision(name, Path(data_dir), split == "train")


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
    return Pictures(dataset.data.unsqueeze(1), dataset.targets)


def _load_folder(folder: Path, image_size: int, channels: int, *, report: bool) -> Tensor:
    """Decode every picture under folder once, (N, C, H, W) uint8, and keep the result in folder/.vae-cache."""
    from tqdm import tqdm

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
    state = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    fingerprint = hashlib.sha256(repr(state).encode()).hexdigest()[:16]
    cache = folder / ".vae-cache" / f"{channels}x{image_size}x{image_size}-{fingerprint}.npz"
    try:
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            images, broken = stored["images"], stored["broken"].tolist()
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # not there yet, or not whole: decode
        with ThreadPoolExecutor() as pool:
            read = partial(_read_or_reason, image_size=image_size, channels=channels)
            results = list(tqdm(pool.map(read, paths), total=len(paths), desc="reading pictures", disable=None))
        good = [result for result in results if not isinstance(result, str)]
        broken = [result for result in results if isinstance(result, str)]
        images = np.stack(good) if good else np.empty((0, channels, image_size, image_size), np.uint8)
        _store(cache, images, broken)
    if broken and report:
        named = "; ".join(broken[:5]) + (f"; and {len(broken) - 5} more" if len(broken) > 5 else "")
        print(f"{len(broken)} of {len(paths)} files are left out: {named}", file=sys.stderr)
    if len(images) < MIN_PICTURES:
        raise ValueError(f"{folder} holds {len(images)} readable pictures: at least {MIN_PICTURES} are needed")
    return torch.from_numpy(images)


def _read_or_reason(path: Path, image_size: int, channels: int) -> np.ndarray | str:
    try:
        return to_pixels(path, image_size, channels).numpy()
    except ValueError as error:
        return str(error)


def _store(cache: Path, images: np.ndarray, broken: list[str]) -> None:
    try:
        cache.parent.mkdir(exist_ok=True)
        part = cache.with_suffix(".part.npz")
        np.savez(part, images=images, broken=np.array(broken, dtype=np.str_))
        part.replace(cache)  # whole or not at all
    except OSError as error:
        print(f"the decoded pictures could not be kept for the next time: {error}", file=sys.stderr)


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


def augment(x: Tensor, shift: int = 0, flip: bool = False) -> Tensor:
    """Move each of the pictures x, (B, C, H, W), by up to `shift` pixels, and mirror half of them: same shape.

    What comes in at an edge is the edge's own colour. The random numbers are those of the pictures' device.
    """
    count, _, height, width = x.shape
    if shift:
        down, right = torch.randint(2 * shift + 1, (2, count), device=x.device)
        windows = F.pad(x, [shift] * 4, mode="replicate").unfold(2, height, 1).unfold(3, width, 1)
        x = windows[torch.arange(count, device=x.device), :, down, right]
    if flip:
        mirrored = torch.rand(count, 1, 1, 1, device=x.device) < 0.5
        x = torch.where(mirrored, x.flip(3), x)
    return x


def binarize(images: Tensor, seed: int) -> Tensor:
    """Make each pixel of images, (N, C, H, W) uint8, white with a chance of its brightness, else black: same shape.

    (Salakhutdinov & Murray, "On the Quantitative Analysis of Deep Belief Networks", ICML 2008.) A seed gives the same
    on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [255 * torch.bernoulli(to_unit(part.cpu()), generator=generator).byte() for part in images.split(1000)]
    return torch.cat(parts).to(images.device)


def load_examples(name: str) -> Pictures:
    """Load the 240 test pictures of a dataset that come with the package, 24 of each class: no download, no data_dir.

    Raises ValueError if none come for that name.
    """
    sheet = EXAMPLES / f"{name}.png"
    if name not in DATASETS or not sheet.is_file():
        known = ", ".join(sorted(path.stem for path in EXAMPLES.glob("*.png")))
        raise ValueError(f"no example pictures come for {name!r}, only for {known}")
    spec = DATASETS[name]
    size = spec.image_size
    pixels = torch.from_numpy(np.array(open_picture(sheet)))  # one row of the sheet is one class
    tiles = pixels.view(pixels.shape[0] // size, size, pixels.shape[1] // size, size, spec.channels)
    images = tiles.permute(0, 2, 4, 1, 3).flatten(0, 1).contiguous()  # (N, C, H, W)
    return Pictures(images, torch.arange(tiles.shape[0]).repeat_interleave(tiles.shape[2]))
