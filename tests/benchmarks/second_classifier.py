"""A second classifier, of another architecture and seed than the package's, to judge pictures by two that differ.

    python tests/benchmarks/second_classifier.py train --dataset fashion-mnist
    python tests/benchmarks/second_classifier.py compare weights/fashion-mnist

A distance in the features of one network can be lowered by what only that network sees. This one is a residual network
with group normalisation, without folding pixels into channels, and averages its features over the picture.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vae import VAE, GaussianMixture, StandardNormal, generate
from vae.data import DATASETS, load_dataset
from vae.evaluate.features import extract_features, load_classifier
from vae.evaluate.fit import default_num_held_out
from vae.evaluate.measure import encode_images
from vae.evaluate.metrics import frechet_distance
from vae.figures import Figures
from vae.images import to_unit
from vae.model import DiagonalGaussian

FOLDER = Path(__file__).parent
SEED = 1
EPOCHS = 6
BATCH_SIZE = 256
PEAK_LR = 3e-3
CHUNK = 500  # pictures at once
Dataset = Literal["mnist", "fashion-mnist"]


class Block(nn.Module):
    """Compute silu(x' + two 3x3 convolutions of x), where x' is x, or its convolution of half the size."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.GroupNorm(8, outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.GroupNorm(8, outputs),
        )
        self.skip = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.skip(x) + self.body(x))


class SecondClassifier(nn.Module):
    """Predict the class of pictures, (B, 1, 28, 28) in [0, 1] -> (B, classes) logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1, bias=False),
            nn.GroupNorm(8, 24),
            nn.SiLU(),
            Block(24, 24, 1),
            Block(24, 48, 2),
            Block(48, 96, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(96, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def load_second(dataset: str, device: torch.device) -> SecondClassifier:
    """Load the classifier from beside this file, in `eval()`."""
    network = SecondClassifier(len(next(iter(DATASETS[dataset].attributes.values()))))
    network.load_state_dict(load_file(FOLDER / f"second-{dataset}.safetensors"))  # float16 in the file
    return network.eval().to(device)


@torch.no_grad()
def features(network: SecondClassifier, x: Tensor) -> Tensor:
    """Compute the input of the last layer, (N, 1, 28, 28) uint8 or in [0, 1] -> (N, 96), in chunks."""
    device = network.head.weight.device
    parts = (part.to(device) for part in x.split(CHUNK))
    return torch.cat([network.trunk(to_unit(part) if part.dtype == torch.uint8 else part) for part in parts])


def train(dataset: Dataset = "fashion-mnist", data_dir: Path = Path("data")) -> None:
    """Train the classifier and write it beside this file.

    Args:
        dataset: What to train on.
        data_dir: Where its files are.
    """
    device = PartialState().device
    torch.manual_seed(SEED)
    pictures, test = (load_dataset(dataset, data_dir, split) for split in ("train", "test"))
    images, labels = pictures.images.to(device), pictures.labels[:, 0].to(device)
    network = SecondClassifier(len(next(iter(pictures.attributes.values())))).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    steps = EPOCHS * (len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps)
    for step in range(steps):
        batch = torch.randint(len(images), (BATCH_SIZE,)).to(device)
        x = to_unit(images[batch]).roll(torch.randint(-2, 3, (2,)).tolist(), dims=(2, 3))
        if dataset == "fashion-mnist" and step % 2:
            x = x.flip(3)
        loss = F.cross_entropy(network(x), labels[batch], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        predicted = network.head(features(network, test.images)).argmax(dim=1).cpu()
    print(f"accuracy {100 * (predicted == test.labels[:, 0]).double().mean().item():.2f} %")
    tensors = {key: value.half().cpu().contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, FOLDER / f"second-{dataset}.safetensors")


@torch.no_grad()
def compare(
    models: Annotated[list[Path], tyro.conf.Positional],
    data_dir: Path = Path("data"),
    components: int | None = None,
    by_class: bool = False,
) -> None:
    """Print, for each model, how far pictures are from the test pictures, by the package's classifier and the second.

    Fréchet distances of 10,000 pictures: reconstructions, decoded samples of the posteriors of training pictures, which
    are what a perfect prior gives, new pictures of the prior, and of N(0, I).

    Args:
        models: Folders that train.py wrote, of one dataset.
        data_dir: Where its files are.
        components: Of a mixture to fit, instead of taking the model's own prior.
        by_class: Fit one to each class, of as many components together.
    """
    device = PartialState().device
    first = Figures.read(models[0]).dataset
    if first is None or first.name not in ("mnist", "fashion-mnist"):
        raise ValueError(f"{models[0]} was not trained on mnist or fashion-mnist")
    (train, labels, _), (test, *_) = (load_dataset(first.name, data_dir, split) for split in ("train", "test"))
    judges: list[Callable[[Tensor], Tensor]] = [
        partial(extract_features, load_classifier(first.name).to(device)),
        partial(features, load_second(first.name, device)),
    ]
    real = [judge(test) for judge in judges]
    print("| model | MSE | reconstructions | training posteriors | new pictures | N(0, I) |\n|---|---|---|---|---|---|")
    for folder in models:
        model = VAE.from_pretrained(folder).to(memory_format=torch.channels_last).to(device)
        known, others = encode_images(model, train), encode_images(model, test)
        if (figures := Figures.read(folder).dataset) is None or figures.name != first.name:
            raise ValueError(f"{folder} was not trained on {first.name}, as {models[0]} was")
        prior = fit(known, components, labels[:, 0] if by_class else None) if components else model.prior
        seeds = range(len(test))
        rows = [
            decode(model, others.mean),
            decode(model, known.sample(torch.Generator().manual_seed(0))[: len(test)]),
            *(
                torch.cat([generate(model, part, prior=p) for part in batched(seeds)])
                for p in (prior, StandardNormal())
            ),
        ]
        error = (rows[0].cpu() - to_unit(test)).square().mean().item()
        both = (
            " / ".join(f"{frechet_distance(a, judge(row)):.3f}" for a, judge in zip(real, judges, strict=True))
            for row in rows
        )
        print(f"| {folder} | {error:.5f} | {' | '.join(both)} |", flush=True)


def fit(posterior: DiagonalGaussian, components: int, labels: Tensor | None = None) -> GaussianMixture:
    """Fit a mixture as `vae.evaluate.fit` does: the last training pictures calibrate it. With labels, (N,), one for each class."""
    held_out = default_num_held_out(len(posterior.mean))
    z = posterior.sample(torch.Generator().manual_seed(0))
    device = PartialState().device
    mean, variance = (part[:-held_out].to(device) for part in (posterior.mean, posterior.logvar.exp()))
    labels = None if labels is None else labels[:-held_out]
    mixture = GaussianMixture.fit(mean, components, variance=variance, labels=labels).cpu()
    return mixture.calibrate(z[-held_out : -held_out // 2])


def batched(seeds: range) -> Iterator[range]:
    """Cut seeds into chunks."""
    return (seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK))


def decode(model: VAE, z: Tensor) -> Tensor:
    """Decode latents in chunks, (N, D) -> (N, 1, 28, 28)."""
    return torch.cat([model.decode(part.to(model.log_scale.device)) for part in z.split(CHUNK)])


if __name__ == "__main__":
    try:
        tyro.extras.subcommand_cli_from_dict({"train": train, "compare": compare})
    except (ValueError, OSError) as error:
        sys.exit(f"second_classifier.py: {error}")
