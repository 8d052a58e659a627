"""Draw the map of a model's latent space, for the page: python -m vae.evaluate.map mnist"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from vae.data import DATASETS, binarize, load_dataset
from vae.decode import Values
from vae.figures import Figures
from vae.files import MAP, fingerprint, replace_unprintable
from vae.generate import encode
from vae.hub import bundled_names, find_model, is_folder
from vae.images import to_unit
from vae.latent_map import MAX_MAPPED, LatentMap, save_map
from vae.model import VAE

MIN_MAPPED = 5  # pictures
MAX_VALUES = 256  # of an attribute, that a map can hold; and that can be told apart on it
MIN_SPREAD = 1e-12  # latents that differ by less are laid out as equal


@dataclass(frozen=True)
class Options:
    """Encode test pictures, lay them out in two dimensions, and write that beside the model as map.safetensors."""

    model: tyro.conf.Positional[str]
    """A bundled name, or a folder that train.py wrote."""
    data_dir: Path = Path("data")
    """Where the files of the dataset are, as for train.py."""
    pictures: int = 2000
    """How many test pictures, the first ones."""
    pixel_range: Values = "auto"
    """How pictures of more than 8 bits become 8 bits, as for train.py."""

    def __post_init__(self) -> None:
        if not MIN_MAPPED <= self.pictures <= MAX_MAPPED:
            raise ValueError(f"--pictures must be from {MIN_MAPPED} to {MAX_MAPPED}, got {self.pictures}")


def main(options: Options) -> None:
    """Draw the map and write it. Raises ValueError if the model doesn't say what it was trained on."""
    if not (is_folder(options.model) or options.model in bundled_names()):
        raise ValueError(f"a map is written into a folder of yours, and {options.model} is in the cache of the Hub")
    folder = find_model(options.model)
    figures = Figures.read(folder)
    dataset = figures.dataset
    if dataset is None or dataset.name not in DATASETS:
        raise ValueError(f"{options.model} doesn't say which of {', '.join(DATASETS)} it was trained on")
    model = VAE.from_pretrained(folder)
    if model.config.latent_dim < 2:
        raise ValueError(f"a map needs at least two latents, and {options.model} has one")
    pictures = load_dataset(
        dataset.name,
        options.data_dir,
        "test",
        image_size=model.config.image_size,
        channels=model.config.channels,
        pixel_range=options.pixel_range,
    )
    images, labels = pictures.images[: options.pictures], pictures.labels[: options.pictures]
    if figures.training and figures.training.binarize:  # as the model knows them
        images = binarize(images, figures.training.seed)
    if len(images) < MIN_MAPPED:
        raise ValueError(f"a map needs {MIN_MAPPED} test pictures at least, and there are {len(images)}")
    chart = draw_map(model, images)
    if pictures.attributes and all(len(values) <= MAX_VALUES for values in pictures.attributes.values()):
        chart = LatentMap(**vars(chart) | {"labels": labels, "attributes": pictures.attributes})
    save_map(chart, folder / MAP, weights=fingerprint(folder))
    print(f"{folder / MAP}: {len(chart.points)} pictures, {(folder / MAP).stat().st_size:,} bytes")


def draw_map(model: VAE, images: Tensor) -> LatentMap:
    """Encode pictures, (N, C, H, W) uint8, and lay them out in two dimensions, without labels.

    A latent space of two dimensions is its own map. Others are laid out by t-SNE: neighbours there are neighbours here.
    """
    posterior = encode(model, to_unit(images))
    labels = torch.empty(len(images), 0, dtype=torch.int64)
    if model.config.latent_dim == 2:
        mean = posterior.mean
        return LatentMap(points=mean, latents=mean, std=posterior.std, labels=labels, attributes={})
    points = lay_out(posterior.mean)
    return LatentMap(points=points, latents=posterior.mean, std=None, labels=labels, attributes={})


def lay_out(z: Tensor) -> Tensor:
    """Lay latent vectors, (N, D), out in the plane so that neighbours stay neighbours: (N, 2) within [-1, 1].

    van der Maaten & Hinton, "Visualizing Data using t-SNE", JMLR 2008. Two runs on one machine give the same.
    All points are at the origin if all latent vectors are equal.
    """
    from sklearn.manifold import TSNE  # of the extra `train`

    if (z - z[:1]).abs().max() < MIN_SPREAD:  # here scikit-learn's t-SNE ends the process by a segmentation fault
        return torch.zeros(len(z), 2)
    perplexity = min(30.0, (len(z) - 1) / 3)
    placed = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(z.double().numpy())
    points = torch.from_numpy(placed).float()
    points = points - (points.amax(dim=0) + points.amin(dim=0)) / 2
    return points / points.abs().max().clamp(min=torch.finfo(points.dtype).tiny)


def run() -> None:
    """Do as the arguments of the command line say; errors end the program with a sentence."""
    replace_unprintable()
    try:
        main(tyro.cli(Options, prog="python -m vae.evaluate.map"))
    except (ValueError, OSError) as error:
        sys.exit(f"vae.evaluate.map: {error}")


if __name__ == "__main__":
    run()
