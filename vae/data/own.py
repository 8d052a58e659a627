"""Pictures of one's own, from Python or from the Hub: tensors, arrays, datasets of torch and of Hugging Face."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from vae.attributes.model import MAX_ATTRIBUTES
from vae.data.folder import MAX_VALUES, Side, choose_test, count, distinct_names, printable
from vae.data.specs import HUB, HUB_NAME, Pictures
from vae.decode import Values, read_picture
from vae.figures import REPO
from vae.images import OVERSAMPLING, to_pixels, to_uint8

MIN_PICTURES = 10
SHARDS = 64  # of a dataset on the disk, to be shared by processes
MAX_DEFAULT_SIZE = 64  # pixels: pictures in files are made no larger, unless --image-size asks for it
TEST_SPLITS = "test", "validation", "val", "valid"  # as datasets on the Hub call them; the first that is there counts

Picture = Tensor | Image.Image | bytes
Row = tuple[Picture, Sequence[int]]  # a picture and its labels


def as_pictures(
    source: Any,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    pixel_range: Values = "auto",
    column: str | None = None,
) -> Pictures:
    """Read pictures into memory, in the order in which they come.

    source: one of
        a tensor or an array, (N, H, W), (N, C, H, W) or (N, H, W, C), of 1 or 3 channels, uint8 or numbers in [0, 1];
        a `torch.utils.data.Dataset` of pictures, or of pictures and labels, which are whole numbers; the names of labels
            are its `classes`, if it has such. A picture is a tensor or an array without the N, or one of PIL;
        a `datasets.Dataset` of Hugging Face: the pictures are in its first image column, its ClassLabel columns are labels.
    image_size, channels: of the pictures; by default those of the first, files and pictures of PIL made no larger than 64
        pixels. Others are cut to squares and resized.
    pixel_range: how pictures of more than 8 bits become 8 bits, see `vae.decode.read_picture`.
    column: of a `datasets.Dataset`, the one that holds the pictures.
    Raises ValueError in one sentence that says what is not as it should be.
    """
    check_wanted(image_size, channels, pixel_range)
    rows, attributes = _rows(source, column)
    images: list[Tensor] = []
    labels: list[Sequence[int]] = []
    for index, (picture, values) in enumerate(rows):
        try:
            if not images:
                own_channels, own_size = own_shape(picture)
                image_size, channels = image_size or own_size, channels or own_channels
                shape = channels, image_size, image_size
            images.append(fit(picture, shape, pixel_range))
        except ValueError as error:
            raise ValueError(f"picture {index} {str(error).strip()}") from error
        labels.append(values)
    if len(images) < MIN_PICTURES:
        raise ValueError(f"there are {count(len(images), 'picture')}: at least {MIN_PICTURES} are needed")
    if len(set(map(len, labels))) > 1:
        raise ValueError("some pictures have labels and some have none: give all of them a label, or none")
    return Pictures(torch.stack(images), *usable_labels(torch.tensor(labels, dtype=torch.int64), attributes))


def check_wanted(image_size: int | None, channels: int | None, pixel_range: str) -> None:
    """Raise ValueError if no pictures can be made like this; None stands for what they have."""
    if image_size is not None and (not isinstance(image_size, Integral) or image_size < 1):
        raise ValueError(f"image_size should be a whole number of pixels, 1 or more, got {image_size!r:.100}")
    if channels not in (None, 1, 3):
        raise ValueError(f"channels should be 1 or 3, got {channels!r:.100}")
    if pixel_range not in get_args(Values):
        raise ValueError(f"pixel_range should be {' or '.join(get_args(Values))}, got {pixel_range!r:.100}")


def split_pictures(train: Pictures, test: Pictures | None = None) -> dict[Side, Pictures]:
    """Split pictures for training and testing, in the order of the hashes of their pixels, which mixes classes.

    About a tenth is test, by these hashes: a picture never changes sides, whatever other pictures there are. If test
    pictures are given, these are test, and copies of them are not trained on. Says on stderr what it did.
    Raises ValueError if all pictures are the same.
    """
    hashes = _hashes(train)
    sides: dict[Side, Pictures]
    if test is None:
        chosen = choose_test(hashes, {})
        sides = {"train": _sort(train, hashes, set(hashes) - chosen), "test": _sort(train, hashes, chosen)}
    else:
        theirs = _hashes(test)
        sides = {"train": _sort(train, hashes, set(hashes) - set(theirs)), "test": _sort(test, theirs, set(theirs))}
    if not len(sides["train"].images):
        raise ValueError("all pictures are the same, or are test pictures: at least two different ones are needed")
    said = "; ".join(f"{name}: {count(len(values), 'value')}" for name, values in train.attributes.items())
    number = len(sides["test"].images)
    print(
        f"{count(len(sides['train'].images), 'picture')} to train on and {number:,} to test; {said or 'no labels'}",
        file=sys.stderr,
    )
    return sides


def load_hub(
    name: str, *, image_size: int | None = None, channels: int | None = None, pixel_range: Values = "auto"
) -> dict[Side, Pictures]:
    """Load hub:owner/name[:split[:column]] through `datasets`, from the Hub or a folder with a dataset of that kind.

    Without a split, its splits for training and testing are taken as they are, if it has both. See `as_pictures`.
    Raises ValueError in one sentence if it can't be had.
    """
    train, tests, column = open_splits(name)
    try:
        options: dict[str, Any] = {"pixel_range": pixel_range, "column": column}
        pictures = as_pictures(train, image_size=image_size, channels=channels, **options)
        if not tests:
            return split_pictures(pictures)
        size, channels = pictures.images.shape[-1], pictures.images.shape[1]
        return split_pictures(pictures, as_pictures(tests[0], image_size=size, channels=channels, **options))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def open_splits(name: str, is_streamed: bool = False) -> tuple[Any, list[Any], str | None]:
    """Open hub:owner/name[:split[:column]]; return its split for training, those for testing, and the column.

    Raises ValueError in one sentence if it can't be had.
    """
    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} names no dataset of the Hub: write {HUB}owner/name[:split[:column]]")
    place, split, column = match["place"], match["split"] or None, match["column"]
    found = _open_hub(place, split, is_streamed)
    tests = []
    if isinstance(found, Mapping):
        splits = dict(found)
        train = splits.get(split or "train")
        if train is None:
            raise ValueError(
                f"{place} has no split {split or 'train'!r}: choose one of {', '.join(splits)}, as {HUB}…:SPLIT"
            )
        tests = [splits[known] for known in TEST_SPLITS if known in splits and not split]
    else:
        train = found
    return train, tests, column


# --- what there is ---------------------------------------------------------------------------------------------------


def _rows(source: Any, column: str | None) -> tuple[Iterable[Row], dict[str, Sequence[str] | None]]:
    """Return the pictures and labels of any source, and the attributes; None for names that are not known."""
    if isinstance(source, Mapping):
        raise ValueError(f"these are several splits: give one of {', '.join(map(str, source))}")
    if isinstance(source, Tensor | np.ndarray):
        pixels = _to_pixels(source, 1, "the pictures")
        return ((picture, ()) for picture in pixels), {}
    if any(base.__module__.startswith("datasets.") for base in type(source).__mro__):
        return hub_rows(source, column)
    if isinstance(source, Dataset):
        if not isinstance(source, IterableDataset) and not hasattr(source, "__len__"):
            raise ValueError("the dataset has no length: give it __len__, or make it an IterableDataset")
        return _torch_rows(source), {"class": _class_names(source)}
    raise ValueError(
        "pictures should be a tensor, an array, a torch.utils.data.Dataset or a datasets.Dataset, "
        f"got {type(source).__name__}"
    )


def _class_names(dataset: Any) -> Any:
    names = getattr(dataset, "classes", None)
    if names is not None and (isinstance(names, str) or not isinstance(names, Collection)):
        raise ValueError(f"the classes of the dataset should be the names of its labels, got {names!r:.100}")
    return names


def _torch_rows(dataset: Any) -> Iterator[Row]:
    items = dataset if isinstance(dataset, IterableDataset) else (dataset[index] for index in range(len(dataset)))
    for index, item in enumerate(items):
        picture, *labels = item if isinstance(item, tuple | list) else (item,)
        if isinstance(picture, np.ndarray | Tensor):
            picture = _to_pixels(picture, 0, f"picture {index}")
        elif not isinstance(picture, Image.Image):
            raise ValueError(
                f"picture {index} should be a tensor, an array or one of PIL, got {type(picture).__name__}"
            )
        elif 0 in picture.size:
            raise ValueError(f"picture {index} has no pixels: leave it out")
        if len(labels) > 1:
            raise ValueError(
                f"picture {index} comes with {len(labels)} more things: give a picture, or it and its label"
            )
        yield picture, [_to_label(label, index) for label in labels]


def _to_label(label: Any, index: int) -> int:
    # As a list a tensor can be read wherever it is, whatever its type, and if it requires a gradient.
    value = np.asarray(label.tolist() if isinstance(label, Tensor) else label)
    if value.size != 1 or value.dtype.kind not in "iub":
        raise ValueError(f"the label of picture {index} should be a whole number, got {label!r:.100}")
    return int(value.item())


def hub_rows(dataset: Any, column: str | None) -> tuple[Iterator[Row], dict[str, Sequence[str] | None]]:
    import datasets
    import fsspec

    features = dataset.features
    if features is None:
        raise ValueError("the dataset doesn't say what its columns are: give it features")
    columns = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if not columns or column not in (None, *columns):
        raise ValueError(
            f"there is no column of pictures {'' if column is None else repr(column) + ' '}among {', '.join(features)}: "
            + (
                f"choose one of {', '.join(columns)}"
                if columns
                else "make one with cast_column(name, datasets.Image())"
            )
        )
    column = column or columns[0]
    names = {name: feature.names for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    undecoded = dataset.with_format(None).select_columns([column, *names])
    undecoded = undecoded.cast_column(column, datasets.Image(decode=False))  # decoded here, within our limits

    def rows() -> Iterator[Row]:
        for index, row in enumerate(undecoded):
            file = row[column]
            if file is None:
                raise ValueError(f"picture {index} is missing: filter the dataset before")
            data = file["bytes"]
            if data is None:  # a file on the disk or, of a streamed dataset, elsewhere
                with fsspec.open(file["path"], "rb") as opened:
                    data = opened.read()
            yield data, [-1 if row[name] is None else row[name] for name in names]

    return rows(), names


def _open_hub(place: str, split: str | None, is_streamed: bool) -> Any:
    """Return the dataset, or the splits of it, that is in a folder or on the Hub."""
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{HUB}{place} is read by the package datasets: pip install datasets") from None
    if Path(place).is_dir():
        place = str(Path(place).resolve())  # a name alone, as "parquet", is a format to `datasets`
    elif not REPO.fullmatch(place):
        raise ValueError(f"{place} is neither owner/name of the Hub nor a folder")
    try:
        if any(Path(place, file).is_file() for file in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(place)
            return _stream(found) if is_streamed else found
        return datasets.load_dataset(place, split=split, streaming=is_streamed)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"the dataset {place} can't be loaded ({reason})") from error


def _stream(found: Any) -> Any:
    """Make a dataset on the disk, or the splits of one, be read as if it came over the network."""
    if isinstance(found, Mapping):
        return {name: _stream(split) for name, split in found.items()}
    return found.to_iterable_dataset(num_shards=min(SHARDS, len(found)))


# --- pictures and labels ---------------------------------------------------------------------------------------------


def _to_pixels(values: Tensor | np.ndarray, channel: int, name: str) -> Tensor:
    """Make pictures of any layout and range uint8 pixels, (N, C, H, W), or one, (C, H, W).

    channel: where the channels come in the result, 1 or 0. name: what to call them in errors.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "biuf":
            raise ValueError(f"{name} should be uint8, or numbers from 0 to 1, got {values.dtype}")
        is_torchs = values.flags.writeable and all(stride >= 0 for stride in values.strides)
        dtype = np.dtype(np.float64) if values.dtype.char == "g" else values.dtype  # torch has no long doubles
        values = torch.from_numpy(values.astype(dtype.newbyteorder("="), copy=not is_torchs))
    x = values.detach().cpu()
    if x.ndim == channel + 2:
        x = x.unsqueeze(channel)
    elif x.ndim == channel + 3 and x.shape[channel] not in (1, 3):
        x = x.movedim(-1, channel)
    if x.ndim != channel + 3 or x.shape[channel] not in (1, 3) or 0 in x.shape[channel:]:
        n = "N, " * channel
        places = f"({n}H, W), ({n}C, H, W) or ({n}H, W, C)"
        raise ValueError(f"{name} should be {places} with 1 or 3 channels, got {(*values.shape,)}")
    if x.dtype == torch.uint8:
        return x
    if x.dtype == torch.bool:
        return 255 * x.byte()
    if not x.is_floating_point():
        raise ValueError(f"{name} should be uint8, or numbers from 0 to 1, got {x.dtype}")
    if len(x) and not (x.amin() >= 0 and x.amax() <= 1):  # NaN is neither
        raise ValueError(f"{name} should be numbers from 0 to 1, got {x.amin():.6g} to {x.amax():.6g}: rescale them")
    return to_uint8(x)


def own_shape(picture: Picture) -> tuple[int, int]:
    """Return the channels and the size that a picture comes with."""
    if isinstance(picture, Tensor):
        return picture.shape[0], min(picture.shape[1:])
    image = read_picture(picture, "").image if isinstance(picture, bytes) else picture
    is_grey = image.mode in ("1", "L", "F") or image.mode.startswith("I")
    return 1 if is_grey else 3, min(*image.size, MAX_DEFAULT_SIZE)


def fit(picture: Picture, shape: tuple[int, int, int], pixel_range: Values) -> Tensor:
    """Make a picture pixels of that shape, (C, S, S) uint8."""
    channels, size, _ = shape
    if isinstance(picture, Tensor):
        if picture.shape == shape:
            return picture
        values = picture.permute(1, 2, 0).numpy()
        picture = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    elif isinstance(picture, bytes):
        picture = read_picture(picture, "", OVERSAMPLING * size, pixel_range).image
    return to_pixels(picture, size, channels, pixel_range)


def usable_labels(
    labels: Tensor, attributes: Mapping[str, Sequence[str] | None]
) -> tuple[Tensor, dict[str, Sequence[str]]]:
    """Return the labels, (N, A), that sliders can be made of, and the names; say on stderr which are left out, and why."""
    kept: dict[str, Sequence[str]] = {}
    columns = []
    for column, (name, names) in zip(labels.T, attributes.items(), strict=False):  # no column where there are no labels
        size = int(column.amax()) + 1
        if names is None or len(names) < size:
            names = [str(value) for value in range(min(size, MAX_VALUES + 1))]
        reason = None
        if column.amin() < 0:
            reason = "some pictures have no value of it"
        elif len(names) < 2:
            reason = "it has only one value"
        elif sum(map(len, kept.values())) + len(names) > MAX_VALUES:
            reason = f"more than {MAX_VALUES:,} values are too many"
        elif len(kept) == MAX_ATTRIBUTES:
            reason = f"more than {MAX_ATTRIBUTES} labels are too many"
        if reason:
            print(f"the label {printable(name)!r} is left out: {reason}", file=sys.stderr)
            continue
        kept[name] = distinct_names([str(value) or str(index) for index, value in enumerate(names)])
        columns.append(column)
    shown = dict(zip(distinct_names(kept), kept.values(), strict=True))
    return torch.stack(columns, dim=1) if columns else labels[:, :0], shown


def _hashes(pictures: Pictures) -> list[str]:
    return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in pictures.images]


def _sort(pictures: Pictures, hashes: Sequence[str], wanted: set[str]) -> Pictures:
    """Take the pictures whose hashes are wanted, in the order of these."""
    order = [index for index in sorted(range(len(hashes)), key=hashes.__getitem__) if hashes[index] in wanted]
    return Pictures(pictures.images[order], pictures.labels[order], pictures.attributes)
