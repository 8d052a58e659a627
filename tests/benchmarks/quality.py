"""Compare our pictures with those of pythae and diffusers after the same time of training on the same data.

    pip install pythae
    python tests/benchmarks/quality.py --minutes 15

Each model trains for so many minutes on this machine, one after another, on the same pictures. pythae's VAE has its own
convolutional network; its VAE, β-VAE, VAMP and RAE have our encoder and decoder; all are trained by pythae's own trainer
with the settings of its README, in float32 (its mixed precision is for CUDA), and ours by train.py. Each then draws by
pythae's samplers, or by ours. The Fréchet distances are by the same code, features and test pictures for all, in the
features of the package's classifier and of the second one beside this file.

    pip install diffusers requests
    python tests/benchmarks/quality.py --dataset avatars --pictures 1000

compares reconstructions of avatars with those of diffusers' AutoencoderKL, of as many latents and about as many
parameters.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from accelerate import PartialState
from pythae import models, samplers
from pythae.data.datasets import BaseDataset
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.models.nn.benchmarks.mnist import Decoder_Conv_AE_MNIST, Encoder_Conv_VAE_MNIST
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from second_classifier import features, fit, load_second
from torch import Tensor
from torch.nn import functional as F

from vae import VAE, VAEConfig, generate, reconstruct
from vae.data import DATASETS, load_dataset
from vae.evaluate.features import extract_features, load_classifier
from vae.evaluate.fit import PICTURES_PER_DIMENSION, default_num_held_out
from vae.evaluate.measure import encode_images
from vae.evaluate.metrics import frechet_distance
from vae.figures import Figures
from vae.images import enlarge, grid, to_unit
from vae.model import Decoder, Encoder

ROOT = Path(__file__).parents[2]
CHUNK = 500  # pictures at once
FITTED = 20_000  # training pictures that a mixture or a flow is fitted to
COLUMNS = 20  # pictures of each model on the sheet
BETA = 0.01  # of pythae's β-VAE: with its squared error of variance 1, about what a calibrated variance amounts to
MAF_EPOCHS, IAF_EPOCHS = 50, 1  # of the samplers' flows; a step of the second takes 100 times as long
KL_SCALE = 1e-6  # of AutoencoderKL, as in its paper (Rombach et al. 2022, https://arxiv.org/abs/2112.10752)

Draw = Callable[[int], Tensor]  # n new pictures


class Contestant(NamedTuple):
    """A trained model: how to reconstruct pictures, (B, C, H, W) in [0, 1], and how to draw n new ones, in several ways.

    A way is fitted when it is asked for.
    """

    parameters: int
    images_per_second: float
    reconstruct: Callable[[Tensor], Tensor]
    samplers: Mapping[str, Callable[[], Draw]]


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


def train_ours(
    dataset: str, data_dir: Path, images: Tensor, held_out: Tensor, labels: Tensor, minutes: float, components: int
) -> Contestant:
    """Train our model by train.py; fit a mixture, and one of each class, (N, A) labels, as vae.evaluate does."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--dataset", dataset, "--data-dir", data_dir, "--output", folder, "--minutes", minutes]
        options += ["--evaluations", 1, "--no-evaluate"]
        subprocess.run([sys.executable, ROOT / "train.py", *map(str, options)], check=True)
        model = VAE.from_pretrained(folder).to(memory_format=torch.channels_last)
        training = Figures.read(Path(folder)).training
        assert training is not None
    model = model.to(PartialState().device)

    def mixture(labels: Tensor | None = None) -> Draw:
        prior = fit(encode_images(model, torch.cat([images[:FITTED], held_out])), components, labels)
        return lambda n: torch.cat([generate(model, range(i, i + CHUNK), prior=prior) for i in range(0, n, CHUNK)])

    known = torch.cat([labels[:FITTED], labels[-len(held_out) :]])
    ways = {"mixture": mixture}
    if known.shape[1] == 1:
        ways["mixture of classes"] = partial(mixture, known[:, 0])
    rate = training.epochs * training.pictures / training.seconds
    return Contestant(training.parameters, rate, partial(reconstruct, model), ways)


def pythae_contestants(
    dataset: str, images: Tensor, held_out: Tensor, minutes: float, components: int
) -> dict[str, Callable[[], Contestant]]:
    """Name pythae's models and how to train each by pythae's trainer, with the settings of its README."""

    def settings(folder: str, epochs: int) -> BaseTrainerConfig:
        return BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            learning_rate=1e-3,
            per_device_train_batch_size=200,
            per_device_eval_batch_size=200,
            optimizer_cls="AdamW",
            optimizer_params={"weight_decay": 0.05, "betas": (0.91, 0.995)},
            scheduler_cls="ReduceLROnPlateau",
            scheduler_params={"patience": 5, "factor": 0.5},
            seed=0,
        )

    def train(make: Callable[[], Any], kinds: list[str]) -> Contestant:
        torch.manual_seed(0)
        with torch.enable_grad(), tempfile.TemporaryDirectory() as folder:
            model = make()
            data, validation = (BaseDataset(to_unit(part), torch.zeros(len(part))) for part in (images, held_out))
            clock = Clock(minutes)
            trainer = BaseTrainer(model, data, validation, settings(folder, 10_000), callbacks=[clock])
            with contextlib.suppress(OutOfTimeError):
                trainer.train()
        model.eval()
        ways = {
            "N(0, I)": lambda: samplers.NormalSampler(model),
            "mixture": lambda: samplers.GaussianMixtureSampler(
                model, samplers.GaussianMixtureSamplerConfig(n_components=components)
            ),
            "MAF": lambda: samplers.MAFSampler(model),
            "IAF": lambda: samplers.IAFSampler(model),
            "VAMP": lambda: samplers.VAMPSampler(model),
        }

        def fitted(kind: str) -> Draw:
            sampler = ways[kind]()
            with tempfile.TemporaryDirectory() as folder, torch.enable_grad():
                if kind == "mixture":
                    sampler.fit(to_unit(images[:FITTED]))
                elif kind in ("MAF", "IAF"):
                    epochs = MAF_EPOCHS if kind == "MAF" else IAF_EPOCHS
                    sampler.fit(to_unit(images[:FITTED]), to_unit(held_out), settings(folder, epochs))
            return lambda n: sampler.sample(n, batch_size=CHUNK)

        def again(x: Tensor) -> Tensor:
            return model.decoder(model.encoder(x).embedding).reconstruction

        parameters = sum(parameter.numel() for parameter in model.parameters())
        rate = clock.steps * 200 / (60 * minutes)
        return Contestant(parameters, rate, again, {kind: partial(fitted, kind) for kind in kinds})

    ours = our_config(dataset)
    shape = {"input_dim": (1, 28, 28)}

    def own() -> Any:
        config = models.VAEConfig(**shape, latent_dim=16)
        return models.VAE(config, Encoder_Conv_VAE_MNIST(config), Decoder_Conv_AE_MNIST(config))

    def with_our_network(kind: Any, config: Any, **options: Any) -> Any:
        settings = config(**shape, latent_dim=ours.latent_dim, **options)
        return kind(settings, OurEncoder(ours), OurDecoder(ours))

    kinds: dict[str, tuple[Callable[[], Any], list[str]]] = {
        "pythae VAE, its MNIST network": (own, ["mixture"]),
        "pythae VAE": (
            lambda: with_our_network(models.VAE, models.VAEConfig),
            ["N(0, I)", "mixture", "MAF", "IAF"],
        ),
        f"pythae β-VAE, β = {BETA}": (
            lambda: with_our_network(models.BetaVAE, models.BetaVAEConfig, beta=BETA),
            ["mixture", "MAF"],
        ),
        "pythae VAMP": (lambda: with_our_network(models.VAMP, models.VAMPConfig), ["VAMP"]),
        "pythae RAE-L2": (lambda: with_our_network(models.RAE_L2, models.RAE_L2_Config), ["mixture", "MAF"]),
    }
    return {name: partial(train, *how) for name, how in kinds.items()}


def train_autoencoder_kl(images: Tensor, minutes: float, latent_dim: int) -> Contestant:
    """Train diffusers' AutoencoderKL by squared error and its paper's weight of the KL, with AdamW."""
    from diffusers.models import AutoencoderKL

    device = PartialState().device
    torch.manual_seed(0)
    widths = 32, 64, 96, 96, 96
    smallest = images.shape[-1] >> (len(widths) - 1)
    model = AutoencoderKL(
        in_channels=images.shape[1],
        out_channels=images.shape[1],
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=max(1, latent_dim // smallest**2),
        sample_size=images.shape[-1],
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    generator = torch.Generator().manual_seed(0)
    batch_size, seen, began = 16, 0, time.monotonic()
    with torch.enable_grad():
        while time.monotonic() - began < 60 * minutes:
            x = to_unit(images[torch.randint(len(images), (batch_size,), generator=generator)]).to(device)
            posterior = model.encode(2 * x - 1).latent_dist
            error = F.mse_loss(model.decode(posterior.sample()).sample, 2 * x - 1)
            loss = error + KL_SCALE * posterior.kl().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            seen += batch_size
    rate = seen / (time.monotonic() - began)
    model.eval()

    def again(x: Tensor) -> Tensor:
        z = model.encode(2 * x.to(device) - 1).latent_dist.mode()
        return ((model.decode(z).sample + 1) / 2).clamp(0, 1)

    return Contestant(sum(parameter.numel() for parameter in model.parameters()), rate, again, {})


def our_config(dataset: str) -> VAEConfig:
    """Return the configuration of the bundled model of a dataset."""
    spec = DATASETS[dataset]
    fields = {name: spec.recipe[name] for name in ("latent_dim", "width", "depth") if name in spec.recipe}
    return VAEConfig(image_size=spec.image_size, channels=spec.channels, **{"latent_dim": 64, **fields})


@torch.no_grad()
def main(
    dataset: Literal["mnist", "fashion-mnist", "avatars"] = "fashion-mnist",
    data_dir: Path = Path("data"),
    minutes: float = 6.0,
    pictures: int = 10_000,
    output: Path = Path("quality"),
) -> None:
    """Train all, print a table, and write it and a sheet of pictures.

    Args:
        dataset: What to train on.
        data_dir: Where its files are.
        minutes: How long each trains.
        pictures: Test pictures to compare with, and new pictures, at most: AutoencoderKL is slow.
        output: Folder for DATASET.json and DATASET.png.
    """
    (images, labels, _), (test, *_) = (load_dataset(dataset, data_dir, split) for split in ("train", "test"))
    test = test[:pictures]
    images, held_out = images.tensor_split([-default_num_held_out(len(images))])
    device = PartialState().device
    judges: list[Callable[[Tensor], Tensor]] = [partial(extract_features, load_classifier(dataset).to(device))]
    if dataset != "avatars":
        judges.append(partial(features, load_second(dataset, device)))
    real = [judge(test) for judge in judges]

    def distances(x: Tensor) -> list[float]:
        return [frechet_distance(known, judge(x)) for known, judge in zip(real, judges, strict=True)]

    latent_dim = our_config(dataset).latent_dim
    components = FITTED // (PICTURES_PER_DIMENSION * latent_dim)
    if dataset == "avatars":
        contestants = {"diffusers AutoencoderKL": lambda: train_autoencoder_kl(images, minutes, latent_dim)}
    else:
        contestants = pythae_contestants(dataset, images, held_out, minutes, components)
    contestants["ours"] = lambda: train_ours(dataset, data_dir, images, held_out, labels, minutes, components)
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    sheet = [to_unit(test[:COLUMNS])]
    for name, train in contestants.items():
        contestant = train()
        again = torch.cat([contestant.reconstruct(to_unit(part)).cpu() for part in test.split(CHUNK)])
        sheet.append(again[:COLUMNS])
        model: dict[str, Any] = {
            "model": name,
            "parameters": contestant.parameters,
            "images_per_second": contestant.images_per_second,
            "mse": (again - to_unit(test)).square().mean().item(),
            "frechet_reconstruction": distances(again),
        }
        for way, make in contestant.samplers.items():
            began = time.monotonic()
            draw = make()
            seconds = time.monotonic() - began
            new = draw(len(test)).cpu()
            sheet.append(new[torch.randperm(len(new), generator=torch.Generator().manual_seed(0))[:COLUMNS]])
            rows.append({**model, "sampler": way, "fit_seconds": seconds, "frechet_new": distances(new)})
        rows += [] if contestant.samplers else [model]
        settings: dict[str, Any] = {"dataset": dataset, "minutes": minutes, "components": components}
        settings["pictures"] = len(test)
        settings |= {"device": str(device), "threads": torch.get_num_threads()}
        (output / f"{dataset}.json").write_text(json.dumps({**settings, "models": rows}, indent=2) + "\n")
        print(json.dumps(rows[-1]), flush=True)
    drawn = grid(torch.cat(sheet), columns=COLUMNS)
    enlarge(drawn, max(drawn.size) * (2 if dataset != "avatars" else 1)).save(output / f"{dataset}.png")
    print("| model | parameters | images/s | MSE | reconstructions | new pictures by | distance |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        both = [" / ".join(f"{d:.3f}" for d in row.get(f"frechet_{kind}", [])) for kind in ("reconstruction", "new")]
        print(
            f"| {row['model']} | {row['parameters']:,} | {row['images_per_second']:.0f} | {row['mse']:.5f} | "
            f"{both[0]} | {row.get('sampler', '')} | {both[1]} |"
        )


if __name__ == "__main__":
    tyro.cli(main)
