"""What sets of pictures are compared by: the features of a small classifier, which comes with the package.

A Fréchet distance is only as telling as its features, and those of a network for photographs say little about digits.
So each dataset here has a classifier of its own, trained by `python -m vae.evaluate.features --dataset mnist`, which also judges
whether a picture shows what it should. Distances in the features of two networks can't be compared: the weights are
fixed, and their accuracy is on record.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vae.data import DATASETS, Attributes, Pictures, load_dataset
from vae.images import to_uint8, to_unit

FOLDER = Path(__file__).parents[1] / "classifiers"
CLASSIFIERS = "avatars", "mnist", "fashion-mnist"  # the datasets that have one
EPOCHS = 8
MIN_STEPS = 300  # of training, however few the pictures are
BATCH_SIZE = 128
PEAK_LR = 4e-3
CHUNK = 500  # pictures looked at at once, which bounds the memory
MIN_CELLS = 14  # a side, of the grid that the convolutions begin with
NOISE = 0.02  # in the colour pictures to learn from: flat drawings would leave small blemishes undefined


class Classifier(nn.Module):
    """Tell the value of each attribute of square pictures, (B, C, H, W) in [0, 1] -> logits, (B, sum of sizes).

    sizes: how many values each attribute has, whose logits follow one another.
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
        """Return what the last layer decides by, (B, C, H, W) in [0, 1] -> (B, 96)."""
        return self.trunk(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def predict(self, x: Tensor) -> Tensor:
        """Return the index of the likeliest value of each attribute, (B, C, H, W) in [0, 1] -> (B, attributes)."""
        return torch.stack([logits.argmax(1) for logits in self(x).split(self.sizes, dim=1)], dim=1)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


class Inception(nn.Module):
    """The network of the usual FID for photographs, (B, 1 or 3, H, W) in [0, 1] -> (B, 2048), by way of torchmetrics."""

    def __init__(self) -> None:
        super().__init__()
        # Its weights are a download in PyTorch's old format, of which nothing but tensors must be taken.
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        try:
            from torchmetrics.image.fid import NoTrainInceptionV3  # here, not above: it is no dependency

            self.network = NoTrainInceptionV3("inception-v3-compat", features_list=["2048"])
        except Exception as error:  # of the import, the network, or the file
            raise ValueError(
                f"the features `inception` need `pip install torchmetrics torch-fidelity` and a network to fetch the "
                f"weights: {str(error).partition(chr(10))[0]}"
            ) from error

    def features(self, x: Tensor) -> Tensor:
        return self.network(to_uint8(x).expand(-1, 3, -1, -1))


def load_features(name: str) -> Classifier | Inception:
    """Load the network called `name`, in `eval()` on the CPU; its `features` turn pictures in [0, 1] into (B, F).

    name: a dataset that has a classifier, or `inception`. Raises ValueError in one sentence if there is none.
    """
    if name == "inception":
        return Inception().eval()
    if name not in CLASSIFIERS:
        raise ValueError(f"no classifier comes for {name!r}: take features of {', '.join(CLASSIFIERS)} or inception")
    network = _new_classifier(DATASETS[name].channels, DATASETS[name].image_size, DATASETS[name].attributes)
    network.load_state_dict(load_file(FOLDER / f"{name}.safetensors"))  # float16 in the file, float32 here
    return network.eval()


def _new_classifier(channels: int, image_size: int, attributes: Attributes) -> Classifier:
    return Classifier(channels, image_size, [len(values) for values in attributes.values()])


@torch.no_grad()
def extract_features(network: Classifier | Inception, x: Tensor) -> Tensor:
    """Look at pictures of any number, (N, C, H, W) uint8 or in [0, 1], in chunks -> features, (N, F), on the network's device."""
    return torch.cat([network.features(part) for part in _parts(network, x)])


@torch.no_grad()
def classify(network: Classifier, x: Tensor) -> Tensor:
    """Look at pictures of any number, (N, C, H, W) uint8 or in [0, 1], in chunks -> predictions, (N, attributes), there, too."""
    return torch.cat([network.predict(part) for part in _parts(network, x)])


def accuracy(network: Classifier, pictures: Pictures) -> Tensor:
    """Return for each attribute the part of pictures whose value the classifier tells right, (attributes,) in [0, 1]."""
    return (classify(network, pictures.images).cpu() == pictures.labels.cpu()).double().mean(dim=0)


def _parts(network: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Yield pictures in chunks, each in [0, 1] and on the device of the network."""
    device = next(network.parameters()).device
    for part in x.split(CHUNK):
        part = part.to(device)
        yield to_unit(part) if part.dtype == torch.uint8 else part


def train(pictures: Pictures, *, mirror: bool, epochs: int = EPOCHS, seed: int = 0) -> Classifier:
    """Train a classifier on pictures and their labels; `mirror` shows half of them mirrored, the others move a pixel.

    Of few pictures there are more epochs than that: MIN_STEPS steps at the least. The same seed on the same machine gives the same classifier, in `eval()`.
    """
    from tqdm import trange

    channels, image_size = pictures.images.shape[1:3]
    batch_size = min(BATCH_SIZE, len(pictures.images))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _new_classifier(channels, image_size, pictures.attributes).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
        steps = len(pictures.images) // batch_size
        epochs = max(epochs, math.ceil(MIN_STEPS / steps))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=epochs * steps)
        for _ in trange(epochs, desc="epochs", disable=None):
            for batch in torch.randperm(len(pictures.images))[: steps * batch_size].split(batch_size):
                x, labels = to_unit(pictures.images[batch]), pictures.labels[batch]
                if mirror:
                    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x, x.flip(3))
                else:
                    x = x.roll(torch.randint(-1, 2, (2,)).tolist(), dims=(2, 3))  # little happens at the borders
                if channels > 1:
                    x = x + NOISE * torch.randn_like(x)
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
    output: Path = FOLDER,
    epochs: int = EPOCHS,
) -> None:
    """Train the classifier of a dataset and put it, in float16, where `load_features` finds it: a few minutes.

    Args:
        dataset: What to look at.
        data_dir: Where the files of the dataset are, as for train.py.
        output: Folder to write DATASET.safetensors into.
        epochs: Passes over the training pictures.
    """
    network = train(load_dataset(dataset, data_dir, "train"), mirror=dataset == "fashion-mnist", epochs=epochs).half()
    test = load_dataset(dataset, data_dir, "test")
    each = accuracy(network.float(), test)
    reached = each.mean().item()
    tensors = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    output.mkdir(parents=True, exist_ok=True)
    save_file(tensors, output / f"{dataset}.safetensors", metadata={"dataset": dataset, "accuracy": f"{reached:.4f}"})
    print(
        f"of the test pictures of {dataset}, "
        + ", ".join(
            f"the {name} of {100 * part:.2f} %" for name, part in zip(test.attributes, each.tolist(), strict=True)
        )
        + " is told right"
    )


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m vae.evaluate.features")
    except (ValueError, OSError) as error:
        sys.exit(f"vae.evaluate.features: {error}")
