"""What a training needs before its first step: the processes and devices, pictures, and the weights to begin with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import parse_flag_from_env
from torch import Tensor

from vae.config import VAEConfig
from vae.data import HUB, Pictures, as_pictures, binarize, load_dataset, load_hub, spec_of, split_pictures
from vae.data.folder import Side
from vae.data.mapped import pages_given_back
from vae.data.stream import SHUFFLE_BUFFER, Stream, Streamed, open_stream
from vae.decode import Values
from vae.evaluate.fit import default_num_held_out
from vae.figures import DatasetFacts, Figures
from vae.files import read_config
from vae.hub import find_model
from vae.model import VAE
from vae.training.speed import choose_precision

LATENT_DIM = 64  # by default
PATIENCE = timedelta(hours=12)  # of processes with the one that loads pictures, or measures
TRACKED = "runs"  # folder for trackers that write files
MEMORY_FOR_PICTURES = 0.5  # part of a GPU's free memory
LABELLED = 5000  # training pictures whose labels say what sliders may turn; vae.evaluate looks at all of them


def join_processes() -> PartialState:
    """Join the processes that a launcher has started, and return what accelerate knows of them and of the device.

    It takes processes without an accelerator for programs of their own, unless it is told that they are to use the processor.
    """
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu, timeout=PATIENCE)


def make_accelerator(mixed_precision: str, tracker: str = "none") -> Accelerator:
    """Make what runs the model on the devices there are, and tells a tracker of it.

    mixed_precision: auto, no, bf16 or fp16, see `choose_precision`.
    Raises ValueError if they can't do that precision, or the tracker isn't installed.

    accelerate keeps one state for each program, and refuses another precision, or ignores another backend, until that
    is reset: a second training in a notebook has its own.
    """
    if tracker != "none" and tracker not in map(str, get_available_trackers()):
        raise ValueError(f"--tracker {tracker} needs a package that is not installed: pip install {tracker}")
    AcceleratorState._reset_state()
    torch.backends.cudnn.deterministic = True  # or --resume would not go on to the bit on a GPU
    return Accelerator(
        mixed_precision=choose_precision(mixed_precision, join_processes().device),
        dynamo_backend="no",  # vae.training.speed chooses
        log_with=None if tracker == "none" else tracker,
        project_dir=TRACKED,
    )


@dataclass
class ModelOptions:
    """The network, and the weights that it begins with."""

    latent_dim: int | None = None
    """Length of the latent vector: by default that of --init or of the dataset's recipe, else 64. More dimensions give
    sharper reconstructions, but a latent space that is harder to sample."""
    width: int | None = None
    """Channels at the finest resolution: by default those of --init or of the recipe, else 32."""
    depth: int | None = None
    """Residual blocks at each resolution: by default those of --init or of the recipe, else 2."""
    init: str | None = None
    """Start from the weights of this model (a folder, a bundled name or a Hub repo) instead of random ones: to train it
    for longer, or on other pictures."""


@dataclass
class DataOptions:
    """What to learn."""

    dataset: Literal["avatars", "mnist", "fashion-mnist", "celeba", "folder"] | str = "fashion-mnist"
    """`folder` takes every picture under --data-dir, of any format and size; `hub:owner/name[:split[:column]]` a dataset of
    the Hub, or a folder that `datasets` reads."""
    data_dir: Path = Path("data")
    """Where the files of the dataset are. mnist and fashion-mnist are downloaded into it if they are missing, avatars are
    drawn."""
    image_size: int | None = None
    """Side of the pictures in pixels, for `celeba` and `folder` (default 64) and `hub` (default: that of the first
    picture, at most 64)."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour, for `celeba` and `folder` (default 3) and `hub` (default: those of the first
    picture)."""
    pixel_range: Values = "auto"
    """How pictures of more than 8 bits become 8 bits, for `celeba`, `folder` and `hub`: `auto` scales each by the range
    it uses, `full` uses the whole range of the type, which keeps a dark picture dark."""
    validation: int | None = None
    """How many training pictures (the last ones) to hold out for choosing the best weights: by default a tenth, at most
    2,000."""
    shift: int = 0
    """Shift each training picture at random by up to this many pixels, against overfitting."""
    streaming: bool = False
    """Stream a `hub:` dataset in each epoch instead of holding it in memory: for datasets larger than memory."""
    binarize: Literal["dynamic"] | None = None
    """Binarize each picture at random in each step: a pixel of 0.3 is white with probability 0.3. With --likelihood
    bernoulli, this is the protocol of published log-likelihoods."""

    def __post_init__(self) -> None:
        spec_of(self.dataset)
        if self.streaming and not self.dataset.startswith(HUB):
            raise ValueError(f"--streaming is for --dataset {HUB}owner/name, got {self.dataset}")
        if self.streaming and self.validation is not None:
            raise ValueError("--validation is not for --streaming, which holds out 5 % of the pictures")
        if not 0 <= self.shift <= 16:
            raise ValueError(f"--shift must be a number of pixels from 0 to 16, got {self.shift}")
        if self.validation is not None and self.validation < 1:
            raise ValueError(f"--validation must be at least 1, got {self.validation}")


class Split(NamedTuple):
    """Pictures, (N, C, H, W) uint8 on the device that trains.

    train: to learn from, perhaps read anew in each pass; with `binarize`, they are drawn black and white anew in each step.
    measured: the same as the encoder sees them, for what is measured once.
    held_out: the last of the training pictures, not learnt from, to choose the best weights by.
    test: measured once, at the end.
    labelled: the first of the measured ones, with what is known of them.
    """

    train: Tensor | Stream
    measured: Tensor
    held_out: Tensor
    test: Tensor
    labelled: Pictures


def load_own(options: DataOptions, pictures: Any = None, known: VAEConfig | None = None) -> dict[Side, Pictures] | None:
    """Load pictures that say themselves which shape they have: given ones, or of the Hub; None if options name others.

    known: of a model that there is already, whose shape they get. Raises ValueError as `vae.data.as_pictures` does.
    """
    source = known or options
    shape: dict[str, Any] = {"image_size": source.image_size, "channels": source.channels}
    if pictures is not None:
        return split_pictures(as_pictures(pictures, pixel_range=options.pixel_range, **shape))
    if options.dataset.startswith(HUB):
        load = open_stream if options.streaming else load_hub
        return load(options.dataset, pixel_range=options.pixel_range, **shape)
    return None


def load_split(
    accelerator: Accelerator,
    options: DataOptions,
    config: VAEConfig,
    seed: int,
    own: Mapping[Side, Pictures] | None = None,
) -> Split:
    """Load the pictures of a model of that config onto the device, the main process first.

    own: what `load_own` has loaded before.
    seed: of the one black-and-white draw of each picture that is measured on, if they are binarized.
    Raises ValueError if the pictures can't be had, or none would be left to train on.
    """
    # Then the first of each other machine, which may have a disk of its own.
    with accelerator.main_process_first(), accelerator.local_main_process_first():
        load = (
            own.__getitem__
            if own
            else partial(
                load_dataset,
                options.dataset,
                options.data_dir,
                image_size=config.image_size,
                channels=config.channels,
                pixel_range=options.pixel_range,
            )
        )
        with pages_given_back():
            pictures = load("train")
            images, test = pictures.images, load("test").images
            if fits(images.numel() + test.numel(), accelerator.device):
                images, test = images.to(accelerator.device), test.to(accelerator.device)
    streamed = own if isinstance(own, Streamed) else None
    num_held_out = streamed.num_held_out if streamed else options.validation or default_num_held_out(len(images))
    if num_held_out >= len(images):
        raise ValueError(f"--validation must leave pictures to train on, got {num_held_out} of {len(images)}")
    train, held_out = images.tensor_split([-num_held_out])
    measured = train
    if options.binarize:
        measured, held_out, test = (binarize(part, seed) for part in (train, held_out, test))
    labels = pictures.labels[: len(train)][:LABELLED]
    labelled = Pictures(measured[:LABELLED], labels, pictures.attributes)
    accelerator.print(say_place(streamed.stream if streamed else images, accelerator.device))
    return Split(streamed.stream if streamed else train, measured, held_out.to(accelerator.device), test, labelled)


def fits(numbers: int, device: torch.device) -> bool:
    """Tell whether so many bytes of pictures may live on a device: on a GPU, in a part of what is free."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return numbers <= MEMORY_FOR_PICTURES * free


def say_place(images: Tensor | Stream, device: torch.device) -> str:
    """Say in a line where the training pictures live."""
    if isinstance(images, Stream):
        return f"about {len(images):,} training pictures are read anew in each pass, through a buffer of {SHUFFLE_BUFFER:,}"
    size = f"{len(images):,} training pictures, {images.numel() / 1e6:,.0f} MB,"
    if images.device.type == device.type:
        return f"{size} live on the device ({device.type})"
    return f"{size} stay in memory: too large for the device, which gets batches that are prepared in advance"


def fit_shape(given: dict[str, int | None], default: VAEConfig, first: VAE | None) -> VAEConfig:
    """Make the config with the fields that are given, not None, and for the others those of `first`, or the default.

    Raises ValueError if a given one is not that of `first`.
    """
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if first is None:
        return dataclasses.replace(default, **chosen)
    for name, value in chosen.items():
        known = getattr(first.config, name)
        if value != known:
            raise ValueError(
                f"the weights in {first.origin} have {name} {known}, not {value}: leave out --{name.replace('_', '-')}"
            )
    return first.config


def initial_model(config: VAEConfig, first: VAE | None) -> VAE:
    """Make a model with random weights, or those of `first`, of the same architecture; the scale is measured anew."""
    model = VAE(config)
    if first is not None:
        model.encoder.load_state_dict(first.encoder.state_dict())
        model.decoder.load_state_dict(first.decoder.state_dict())
    return model


def initial_figures(init: str | None, dataset: DatasetFacts, config: VAEConfig) -> Figures:
    """Read how the weights to begin with were trained; no more than they say, and nothing if they say it wrongly.

    Their curves are left out if those of a model of this config on this dataset can't go on from them.
    """
    try:
        if init is None:
            return Figures()
        folder = find_model(init)
        figures, likelihood = Figures.read(folder), read_config(folder).likelihood
    except ValueError:
        return Figures()
    same = figures.dataset and figures.dataset.name == dataset.name and likelihood == config.likelihood
    return figures if same else dataclasses.replace(figures, history=[])
