"""Compare our pictures with those of pythae, the research library, after the same time of training on the same data.

    pip install pythae
    python tests/benchmarks/quality.py --minutes 4

Each model trains for so many minutes on this machine, one after another, on the same pictures: pythae's VAE with its
own convolutional network, pythae's VAE and RAE with our encoder and decoder, all by pythae's own trainer with the
settings of its README, in float32 (its mixed precision is for CUDA), and ours by train.py with bf16. Each then draws by
its own best way, which for pythae's is a Gaussian mixture fitted to its latents. The Fréchet distances are by the same
code, features and test pictures for all.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from pythae import models as pythae_models
from pythae.data.datasets import BaseDataset
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.models.nn.benchmarks.mnist import Decoder_Conv_AE_MNIST, Encoder_Conv_VAE_MNIST
from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor

from vae import VAE, GaussianMixture, VAEConfig, generate, reconstruct
from vae.data import load_dataset
from vae.evaluate.features import extract_features, load_classifier
from vae.evaluate.fit import default_num_held_out
from vae.evaluate.metrics import frechet_distance
from vae.figures import Figures
from vae.generate import encode
from vae.images import enlarge, grid, to_unit
from vae.model import Decoder, Encoder

ROOT = Path(__file__).parents[2]
CHUNK = 500
LATENT_DIM = 64  # of our network, whoever trains it
FITTED = 20_000  # training pictures that a mixture is fitted to
COLUMNS = 20  # new pictures of each model on the sheet


class Contestant(NamedTuple):
    """A trained model: how to reconstruct pictures, (B, C, H, W) in [0, 1], and how to draw n new ones."""

    parameters: int
    images_per_second: float
    reconstruct: Callable[[Tensor], Tensor]
    draw: Callable[[int], Tensor]


class OurEncoder(BaseEncoder):
    """Our encoder in pythae's terms."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.latent_dim = config.latent_dim
        self.encoder = Encoder(config)

    def forward(self, x: Tensor) -> ModelOutput:
        posterior = self.encoder(x)
        return ModelOutput(embedding=posterior.mean, log_covariance=posterior.logvar)


class OurDecoder(BaseDecoder):
    """Our decoder in pythae's terms."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.decoder = Decoder(config)

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=torch.sigmoid(self.decoder(z)))


class OutOfTimeError(Exception):
    """The minutes are over: the way out of pythae's own loop."""


class Clock(TrainingCallback):
    """Count the steps, and end the training when its time is up."""

    def __init__(self, minutes: float) -> None:
        self.end, self.steps = time.monotonic() + 60 * minutes, 0

    def on_train_step_end(self, training_config: BaseTrainerConfig, **kwargs: Any) -> None:
        self.steps += 1
        if time.monotonic() > self.end:
            raise OutOfTimeError


def train_pythae(model: Any, images: Tensor, held_out: Tensor, minutes: float, components: int) -> Contestant:
    """Train a model of pythae's by pythae's trainer, with the settings of its README."""
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=10_000,  # until the time is up
            learning_rate=1e-3,
            per_device_train_batch_size=200,
            per_device_eval_batch_size=200,
            optimizer_cls="AdamW",
            optimizer_params={"weight_decay": 0.05, "betas": (0.91, 0.995)},
            scheduler_cls="ReduceLROnPlateau",
            scheduler_params={"patience": 5, "factor": 0.5},
            seed=0,
        )
        data, validation = (BaseDataset(to_unit(part), torch.zeros(len(part))) for part in (images, held_out))
        clock = Clock(minutes)
        trainer = BaseTrainer(model, data, validation, config, callbacks=[clock])
        with contextlib.suppress(OutOfTimeError):
            trainer.train()
    model.eval()
    sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=components))
    sampler.fit(to_unit(images[:FITTED]))

    def draw(n: int) -> Tensor:
        return sampler.sample(n, batch_size=CHUNK)

    def again(x: Tensor) -> Tensor:
        return model.decoder(model.encoder(x).embedding).reconstruction

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Contestant(parameters, clock.steps * config.per_device_train_batch_size / (60 * minutes), again, draw)


def train_ours(
    dataset: str, data_dir: Path, images: Tensor, held_out: Tensor, minutes: float, components: int
) -> Contestant:
    """Train our model by train.py, and fit the mixture as vae.evaluate does."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--dataset", dataset, "--data-dir", data_dir, "--output", folder, "--minutes", minutes]
        options += ["--latent-dim", LATENT_DIM, "--likelihood", "spectral", "--mixed-precision", "bf16"]
        options += ["--evaluations", 1]
        subprocess.run([sys.executable, ROOT / "train.py", *map(str, options)], check=True)
        model = VAE.from_pretrained(folder).to(memory_format=torch.channels_last)
        training = Figures.read(Path(folder)).training
        assert training is not None
    known, others = (encode(model, part) for part in (images[:FITTED], held_out))
    mixture = GaussianMixture.fit(known.mean, components, variance=known.logvar.exp())
    model.prior = mixture.calibrate(others.sample(torch.Generator().manual_seed(0)))
    return Contestant(
        training.parameters,
        training.epochs * training.pictures / training.seconds,
        lambda x: reconstruct(model, x),
        lambda n: generate(model, range(n)),
    )


@torch.no_grad()
def main(
    dataset: Literal["mnist", "fashion-mnist"] = "fashion-mnist",
    data_dir: Path = Path("data"),
    minutes: float = 4.0,
    components: int = 100,
    output: Path = Path("quality"),
) -> None:
    """Train all, print a table, and write it and a sheet of pictures.

    Args:
        dataset: What to train on.
        data_dir: Where its files are.
        minutes: How long each trains.
        components: Gaussians in the mixture that each draws from.
        output: Folder for quality.json and quality.png.
    """
    images, test = (load_dataset(dataset, data_dir, split).images for split in ("train", "test"))
    images, held_out = images.tensor_split([-default_num_held_out(len(images))])
    network = load_classifier(dataset)
    real = extract_features(network, test)
    ours = VAEConfig(latent_dim=LATENT_DIM)
    shape = {"input_dim": (1, 28, 28)}

    def pythae(model: Callable[[], Any]) -> Contestant:
        torch.manual_seed(0)
        with torch.enable_grad():
            return train_pythae(model(), images, held_out, minutes, components)

    def own() -> Any:
        config = pythae_models.VAEConfig(**shape, latent_dim=16)
        return pythae_models.VAE(config, Encoder_Conv_VAE_MNIST(config), Decoder_Conv_AE_MNIST(config))

    def theirs_with_our_network(kind: Any, config: Any) -> Any:
        return kind(config(**shape, latent_dim=LATENT_DIM), OurEncoder(ours), OurDecoder(ours))

    contestants = {
        "pythae VAE, its MNIST network": lambda: pythae(own),
        "pythae VAE, our network": lambda: pythae(
            lambda: theirs_with_our_network(pythae_models.VAE, pythae_models.VAEConfig)
        ),
        "pythae RAE-L2, our network": lambda: pythae(
            lambda: theirs_with_our_network(pythae_models.RAE_L2, pythae_models.RAE_L2_Config)
        ),
        "ours": lambda: train_ours(dataset, data_dir, images, held_out, minutes, components),
    }
    table: dict[str, dict[str, float]] = {}
    rows = [to_unit(test[:COLUMNS])]
    for name, train in contestants.items():
        contestant = train()
        again = torch.cat([contestant.reconstruct(to_unit(part)) for part in test.split(CHUNK)])
        new = contestant.draw(len(test))
        table[name] = {
            "parameters": contestant.parameters,
            "images_per_second": contestant.images_per_second,
            "mse": (again - to_unit(test)).square().mean().item(),
            "frechet_reconstruction": frechet_distance(real, extract_features(network, again)),
            "frechet_new": frechet_distance(real, extract_features(network, new)),
        }
        rows += [again[:COLUMNS], new[: 2 * COLUMNS]]
        print(name, table[name], flush=True)
    output.mkdir(parents=True, exist_ok=True)
    sheet = grid(torch.cat(rows), columns=COLUMNS)
    enlarge(sheet, 2 * max(sheet.size)).save(output / "quality.png")
    settings = {"dataset": dataset, "minutes": minutes, "components": components, "threads": torch.get_num_threads()}
    (output / "quality.json").write_text(json.dumps({**settings, "models": table}, indent=2) + "\n")
    print("| model | parameters | images/s | MSE | Fréchet distance, reconstructions | new pictures |")
    print("|---|---|---|---|---|---|")
    for name, row in table.items():
        print(
            f"| {name} | {row['parameters']:,} | {row['images_per_second']:.0f} | {row['mse']:.5f} | "
            f"{row['frechet_reconstruction']:.3f} | {row['frechet_new']:.3f} |"
        )


if __name__ == "__main__":
    tyro.cli(main)
