"""Small classifiers that come with the package: their features compare sets of pictures, their predictions judge edits.

A network for photographs is a poor judge of digits and drawings, so each dataset here has a classifier of its own,
trained by `python -m vae.evaluate.features --dataset mnist`. Distances in the features of two networks can't be
compared, so the weights are fixed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vae.data import DATASETS, Attributes, Pictures, load_dataset
from vae.images import to_unit

FOLDER = Path(__file__).parents[1] / "classifiers"
CLASSIFIERS = "avatars", "mnist", "fashion-mnist"  # the datasets that have one
EPOCHS = 8
MIN_STEPS = 300  # of training, however few the pictures are
BATCH_SIZE = 128  # pictures
PEAK_LR = 4e-3
CHUNK = 500  # pictures at once, which bounds the memory
MIN_CELLS = 14  # a side of the grid that the first convolution sees
NOISE = 0.02  # added to colour pictures in training, as flat drawings have none and small blemishes would confuse


class Classifier(nn.Module):
    """Predict the value of each attribute of square pictures, (B, C, H, W) in [0, 1] -> logits, (B, sum of sizes).

    sizes: how many values each attribute has; their logits follow one another.
    """

    def __init__(self, channels: int, image_size: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        patch = max(
            p for p in range(1, image_size + 1) if image_size % p == 0 and (p == 1 or image_size >= p * MIN_CELLS)
        )
        cells = image_size // patch  # 14 for 28 pixels, 16 for 64
        left = (cells // 2 + 1) // 2
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(patch),  # (B, C * patch**2, cells, cells)
            *_convolution(channels * patch**2, 48),
            nn.MaxPool2d(2),
            *_convolution(48, 80),
            *_convolution(80, 64, stride=2),  # (B, 64, left, left), which is 4 for 28 and 64 pixels
            nn.Flatten(),
            nn.Linear(64 * left * left, 96, bias=False),
            nn.BatchNorm1d(96),
            nn.ReLU(),
        )
        self.head = nn.Linear(96, sum(sizes))

    def features(self, x: Tensor) -> Tensor:
        """Compute the input of the last layer, (B, C, H, W) in [0, 1] -> (B, 96)."""
        return self.trunk(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def predict(self, x: Tensor) -> Tensor:
        """Predict the index of the value of each attribute, (B, C, H, W) in [0, 1] -> (B, attributes)."""
        return torch.stack([logits.argmax(1) for logits in self(x).split(self.sizes, dim=1)], dim=1)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def load_classifier(name: str) -> Classifier:
    """Load the classifier of the dataset called `name`, in `eval()` on the CPU. Raises ValueError if there is none."""
    if name not in CLASSIFIERS:
        raise ValueError(f"there is no classifier of {name!r}: choose one of {', '.join(CLASSIFIERS)}")
    network = _new_classifier(DATASETS[name].channels, DATASETS[name].image_size, DATASETS[name].attributes)
    network.load_state_dict(load_file(FOLDER / f"{name}.safetensors"))  # float16 in the file, float32 here
    return network.eval()


def _new_classifier(channels: int, image_size: int, attributes: Attributes) -> Classifier:
    return Classifier(channels, image_size, [len(values) for values in attributes.values()])


@torch.no_grad()
def extract_features(network: Classifier, x: Tensor) -> Tensor:
    """Compute features of pictures, (N, C, H, W) uint8 or in [0, 1], in chunks -> (N, F) on the network's device."""
    return torch.cat([network.features(part) for part in _parts(network, x)])


@torch.no_grad()
def classify(network: Classifier, x: Tensor) -> Tensor:
    """Predict attributes of pictures, (N, C, H, W) uint8 or in [0, 1], in chunks -> (N, attributes) on its device."""
    return torch.cat([network.predict(part) for part in _parts(network, x)])


def accuracy(network: Classifier, pictures: Pictures) -> Tensor:
    """Compute the accuracy on each attribute, (attributes,) in [0, 1]."""
    return (classify(network, pictures.images).cpu() == pictures.labels.cpu()).double().mean(dim=0)


def _parts(network: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Yield pictures in chunks, in [0, 1] and on the device of the network."""
    device = next(network.parameters()).device
    for part in x.split(CHUNK):
        part = part.to(device)
        yield to_unit(part) if part.dtype == torch.uint8 else part


def train(
    pictures: Pictures, *, mirror: bool, epochs: int = EPOCHS, seed: int = 0, device: torch.device | str = "cpu"
) -> Classifier:
    """Train a classifier on pictures and their labels, and return it in `eval()`.

    mirror: augment by mirroring half of the pictures, instead of moving them by up to a pixel.
    epochs: for few pictures there are more, to reach MIN_STEPS steps.
    device: to train on; the classifier is there.
    The same seed gives the same classifier on the CPU of the same machine.
    """
    from tqdm import trange

    channels, image_size = pictures.images.shape[1:3]
    batch_size = min(BATCH_SIZE, len(pictures.images))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _new_classifier(channels, image_size, pictures.attributes)
        network = network.to(memory_format=torch.channels_last).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
        steps = len(pictures.images) // batch_size
        epochs = max(epochs, math.ceil(MIN_STEPS / steps))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=epochs * steps)
        for _ in trange(epochs, desc="epochs", disable=None):
            for batch in torch.randperm(len(pictures.images))[: steps * batch_size].split(batch_size):
                x, labels = to_unit(pictures.images[batch].to(device)), pictures.labels[batch].to(device)
                if mirror:
                    x = torch.where(torch.rand(len(x), 1, 1, 1).to(device) < 0.5, x, x.flip(3))
                else:
                    x = x.roll(torch.randint(-1, 2, (2,)).tolist(), dims=(2, 3))
                if channels > 1:
                    x = x + NOISE * torch.randn(x.shape).to(device)
                each = zip(network(x).split(network.sizes, dim=1), labels.unbind(1), strict=True)
                loss = torch.stack([F.cross_entropy(logits, y, label_smoothing=0.05) for logits, y in each]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval()


def main(
    dataset: Literal["avatars", "mnist", "fashion-mnist"],
    data_dir: Path = Path("data"),
    epochs: int = EPOCHS,
) -> None:
    """Train the classifier of a dataset and write it, in float16, to where `load_classifier` finds it: a few minutes.

    Args:
        dataset: What to train on.
        data_dir: Where the files of the dataset are, as for train.py.
        epochs: Passes over the training pictures.
    """
    pictures, device = load_dataset(dataset, data_dir, "train"), PartialState().device
    network = train(pictures, mirror=dataset == "fashion-mnist", epochs=epochs, device=device).half()
    test = load_dataset(dataset, data_dir, "test")
    each = accuracy(network.float(), test)
    mean = each.mean().item()
    tensors = {
        key: value.half() if value.is_floating_point() else value for key, value in network.cpu().state_dict().items()
    }
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, FOLDER / f"{dataset}.safetensors", metadata={"dataset": dataset, "accuracy": f"{mean:.4f}"})
    for name, value in zip(test.attributes, each.tolist(), strict=True):
        print(f"accuracy on {name}: {100 * value:.2f} %")


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m vae.evaluate.features")
    except (ValueError, OSError) as error:
        sys.exit(f"vae.evaluate.features: {error}")
