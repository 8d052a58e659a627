"""What is known of each dataset before it is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from vae.data.avatars import ATTRIBUTES as AVATAR_ATTRIBUTES
from vae.figures import REPO, last_part

Attributes = Mapping[str, Sequence[str]]  # what is known of each picture: the names of the values of each attribute


@dataclass(frozen=True)
class DatasetSpec:
    """What is known about a dataset before opening it.

    attributes: what its labels say of each picture; ordered: those whose values have an order, with something between two
        of them; hub_id: its name on the Hub, if it is there.
    model_licence: that of a model trained on it and shipped here, as the Hub calls it, if one is.
    attribution: what whoever shows the pictures, or a model's of them, has to say of where they are from, if anything.
    recipe: options of train.py, other than its usual ones, that are good for these pictures.
    """

    title: str
    channels: int
    image_size: int
    source: str
    licence: str
    attributes: Attributes = field(default_factory=dict)
    ordered: Sequence[str] = ()
    hub_id: str | None = None
    model_licence: str = ""
    attribution: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)


DATASETS = {
    "avatars": DatasetSpec(
        title="Avatars",
        channels=3,
        image_size=128,
        source="drawn by DiceBear (https://www.dicebear.com) in the style toon-head",
        licence="CC BY 4.0",
        attributes=AVATAR_ATTRIBUTES,
        ordered=("skin colour",),
        model_licence="cc-by-4.0",
        attribution=(
            "The avatars are a remix of “ToonHead” (https://www.figma.com/community/file/1589627891082866389) by Johan "
            "Melin, licensed under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)"
        ),
        recipe={
            "width": 40,
            "depth": 1,
            "beta": 20.0,  # fewer latents are used, and each turns something that can be named
            "epochs": 8.0,
            "batch_size": 32,
            "lr": 0.003,
            "keep": "last",
            "evaluate": True,
            "new_pictures": "attributes",
        },
    ),
    "mnist": DatasetSpec(
        title="MNIST",
        channels=1,
        image_size=28,
        source="Yann LeCun, Corinna Cortes and Christopher J. C. Burges, http://yann.lecun.com/exdb/mnist/",
        licence="CC BY-SA 3.0",
        attributes={"digit": tuple("0123456789")},
        hub_id="ylecun/mnist",
        model_licence="apache-2.0",
        recipe={
            "latent_dim": 32,
            "likelihood": "gaussian",
            "epochs": 25.0,
            "evaluations": 3,
            "evaluate": True,
            "new_pictures": "mixture",
        },
    ),
    "fashion-mnist": DatasetSpec(
        title="Fashion-MNIST",
        channels=1,
        image_size=28,
        source="Han Xiao, Kashif Rasul and Roland Vollgraf, Zalando SE, https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        attributes={
            "class": (
                *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
                *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
            )
        },
        hub_id="zalando-datasets/fashion_mnist",
        model_licence="apache-2.0",
        recipe={
            "latent_dim": 128,
            "epochs": 20.0,
            "keep": "last",
            "evaluate": True,
            "new_pictures": "mixture",
        },
    ),
    "celeba": DatasetSpec(
        title="CelebA",
        channels=3,
        image_size=64,
        source="Ziwei Liu, Ping Luo, Xiaogang Wang and Xiaoou Tang, https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        licence="for non-commercial research only",
    ),
    "folder": DatasetSpec(
        title="Folder of pictures",
        channels=3,
        image_size=64,
        source="your own pictures",
        licence="as your pictures are",
    ),
}
HUB = "hub:"  # before owner/name[:split[:column]], a dataset of the Hub
HUB_NAME = re.compile(  # a place may begin with the drive of Windows, as in C:\pictures
    rf"{HUB}(?P<place>([A-Za-z]:(?=[\\/]))?[^:]+)(:(?P<split>[^:\[]*(\[[^\]]*\])?)(:(?P<column>.+))?)?"
)
OWN = "own"  # what `train` was given from Python


def spec_of(name: str) -> DatasetSpec:
    """Return what is known of a dataset: of DATASETS, of the Hub, or one's own. Raises ValueError if there is none."""
    if name in DATASETS:
        return DATASETS[name]
    if name == OWN:
        return DatasetSpec("Own pictures", 3, 64, "your own pictures", "as your pictures are")
    if name.startswith(HUB):
        place = hub_place(name)
        if Path(place).exists() or not REPO.fullmatch(place):
            return DatasetSpec(short_name(name), 3, 64, "a dataset of your own", "as your pictures are")
        source = f"https://huggingface.co/datasets/{place}"
        return DatasetSpec(place, 3, 64, source, "as its page on the Hub says", hub_id=place)
    raise ValueError(
        f"there is no dataset {name!r}: choose one of {', '.join(DATASETS)}, or {HUB}owner/name of the Hub"
    )


def short_name(name: str) -> str:
    """Return what to call a folder for a model of that dataset: of one of the Hub, the last part of its name."""
    return last_part(hub_place(name)).rpartition("/")[2] if name.startswith(HUB) else name


def hub_place(name: str) -> str:
    """Return owner/name, or the folder, of hub:owner/name[:split[:column]]; empty if there is none."""
    match = HUB_NAME.match(name)
    return match["place"] if match else ""


class Pictures(NamedTuple):
    """A split of a dataset.

    images: (N, C, H, W) uint8.
    labels: the index of the value of each attribute of each picture, (N, A) int64; A is 0 where nothing is known.
    attributes: the A attributes, and the names of their values.
    """

    images: Tensor
    labels: Tensor
    attributes: Attributes
