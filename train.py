"""Train a variational autoencoder: python train.py --dataset fashion-mnist

One loop, on any device and any number of processes that accelerate knows. It leaves a whole folder that
`VAE.from_pretrained` loads: weights, configuration, figures measured on the test set, pictures and a card.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import platform
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import torch
import tyro
from accelerate import Accelerator
from accelerate.utils import set_seed
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from vae.card import MALFORMED, describe_runs, model_card
from vae.config import Likelihood, VAEConfig
from vae.data import DATASETS, Pictures, augment, batches, binarize, load_dataset
from vae.evaluate.fit import default_num_held_out, directions_of
from vae.evaluate.measure import calibrate, draw_samples, evaluate
from vae.evaluate.metrics import pca_mse
from vae.files import CARD, CURVES, GENERATED, METRICS, SAMPLES, read_metrics, write, write_json
from vae.hub import check_write, find_model
from vae.images import to_unit
from vae.loss import (
    SPECTRAL_TILT,
    elbo,
    importance_weighted,
    importance_weighted_bound,
    mean_error,
    optimal_log_scale,
    overall_scale,
)
from vae.model import VAE, ResidualBlock
from vae.prior import Flow, StandardNormal
from vae.training.optim import Muon

WARMUP = 0.03  # part of the run in which the learning rate rises
EMA_DECAY = 0.999  # the weights that are kept are an average over about the last 1,000 steps
MAX_GRAD_NORM = 1.0
FLOW_LAYERS, FLOW_WIDTH = 8, 128  # of a prior that is learned
LABELLED = 5000  # training pictures whose labels say what sliders may turn; vae.evaluate looks at all of them
CALIBRATION = 5000  # training pictures on which the scale of the likelihood is measured
MAX_MEASURING = 0.1  # part of the time that measuring in the course of the run may take
LOOK_EVERY = 10  # steps between two looks at the clock and the figures, each of which waits for the device


@dataclasses.dataclass
class TrainConfig:
    """Train a variational autoencoder and write it, with figures and pictures, into a folder."""

    dataset: Literal["avatars", "mnist", "fashion-mnist", "celeba", "folder"] = "fashion-mnist"
    """What to learn. `folder` takes every picture under --data-dir, of any format and size."""
    data_dir: Path = Path("data")
    """Where the files of the dataset are. mnist and fashion-mnist are downloaded into it if they are missing, avatars are
    drawn."""
    output: Path | None = None
    """Folder to write, by default weights/DATASET. A model that is there is replaced."""
    init: str | None = None
    """Begin with the weights of this model (a folder, a bundled name or a Hub repo) instead of random ones: to train it
    for longer, or on other pictures."""
    epochs: float = 30
    """Passes over the training pictures."""
    minutes: float | None = None
    """Train for so long instead of for a number of epochs, however fast the machine is."""
    batch_size: int = 64
    """Pictures in a step, over all processes together. More than 128 learn less in the same time, unless the device is
    much faster with them."""
    lr: float = 4e-3
    """Peak learning rate: it rises over the first 3 % of the run, then falls along a cosine."""
    latent_dim: int = 64
    """Numbers in a latent vector. More give sharper reconstructions and a latent space that is harder to sample."""
    width: int = 32
    """Channels at the finest resolution; twice as many take about three times as long."""
    depth: int = 2
    """Residual blocks at each resolution."""
    image_size: int | None = None
    """Side of the pictures; only for `celeba` and `folder`, which otherwise take 64."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour; only for `celeba` and `folder`, which otherwise take 3."""
    likelihood: Likelihood = "spectral"
    """How a pixel is scored: gaussian and spectral measure their own noise, so that no weight needs tuning;
    spectral, which measures it for each frequency, is the sharpest; bernoulli is for black-and-white pictures; mse is
    the tutorial's, and blurs."""
    samples: int = 1
    """Latent vectors to draw for each picture. More than one train the importance-weighted bound (IWAE), which comes nearer
    to the log-likelihood, at the cost of a decoding each: good for the end of a training (--init)."""
    beta: float = 1.0
    """Weight of the KL divergence. 1 gives the evidence lower bound; more gives fewer and smoother latents."""
    tilt: float = SPECTRAL_TILT
    """How far the scales of `spectral` follow the spectrum of the errors, from 0 (not at all) to 1. More is sharper, and
    too much from the start lets a training fail."""
    prior: Literal["normal", "flow"] = "normal"
    """What the KL divergence pulls towards: N(0, I), or a flow that learns with the model where its latents lie, and is
    saved as its prior."""
    binarize: Literal["dynamic"] | None = None
    """Turn every picture into black and white by chance, anew each time: a grey of 0.3 is white in 3 of 10 cases. With
    --likelihood bernoulli, this is how the log-likelihoods in papers are measured."""
    shift: int = 0
    """Move every training picture by up to so many pixels, anew each time, which delays learning by heart."""
    flip: bool = False
    """Mirror half of the training pictures, anew each time, if a mirror image could be as real."""
    kl_warmup: float = 0.0
    """Part of the run, 0 to 1, in which the weight of the KL divergence rises from 0 to beta."""
    validation: int | None = None
    """Training pictures to hold out, the last ones, and to choose the best weights by: by default a tenth of them, 2,000
    at most."""
    seed: int = 0
    """The same seed on the same machine gives the same initial weights, order of pictures and noise."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """bf16 is up to twice as fast on recent GPUs and CPUs (AVX-512 BF16, AMX); fp16 is for older GPUs."""
    compile: bool = False
    """Compile the model with torch.compile: a minute at the start, then faster steps on most GPUs. On a CPU it needs a
    C++ compiler and seldom pays."""
    evaluations: int = 10
    """How often to measure and save in the course of the run, if that takes no more than a tenth of the time."""
    keep: Literal["best", "last"] = "best"
    """Which weights to keep: the best by the bound on pictures held out from training, or the last. The bound may stand
    still while pictures get sharper."""
    push_to_hub: str | None = None
    """Repo on the Hub (owner/name) to push the model to. It is created before the training, if it isn't there, and the
    right to write to it checked; the token is that of `hf auth login` or HF_TOKEN."""
    push_only: Path | None = None
    """Push the model in this folder instead of training one."""
    private: bool = False
    """Let nobody else see the repo, if it is created."""

    def __post_init__(self) -> None:
        for name in ("epochs", "minutes", "lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                raise ValueError(f"--{name} must be more than 0 and less than a million, got {value}")
        if not 0 <= self.tilt <= 1:
            raise ValueError(f"--tilt must be from 0 to 1, got {self.tilt}")
        if not 0 <= self.shift <= 16:
            raise ValueError(f"--shift must be a number of pixels from 0 to 16, got {self.shift}")
        for name in ("batch_size", "evaluations", "validation", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"--beta must be 0 or a positive number, got {self.beta}")
        if self.binarize and self.likelihood != "bernoulli":
            raise ValueError(f"--binarize needs --likelihood bernoulli, got {self.likelihood}")
        if self.prior == "flow" and self.latent_dim < 2:
            raise ValueError(f"--prior flow needs --latent-dim 2 or more, got {self.latent_dim}")
        if not 0 <= self.kl_warmup <= 1:
            raise ValueError(f"--kl-warmup is a part of the run, from 0 to 1, got {self.kl_warmup}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"--seed must be a number from 0 to {2**31 - 1}, got {self.seed}")
        if self.push_to_hub is None and (self.push_only or self.private):
            raise ValueError("--push-only and --private need --push-to-hub owner/name")


def train(config: TrainConfig) -> None:
    """Train as config says. Raises ValueError, in one sentence, if that is not possible."""
    spec = DATASETS[config.dataset]
    first = VAE.from_pretrained(config.init) if config.init else None
    credits = [spec.attribution] + ([first.config.attribution] if first else [])
    model_config = VAEConfig(
        spec.image_size if config.image_size is None else config.image_size,
        spec.channels if config.channels is None else config.channels,
        config.latent_dim,
        config.width,
        config.depth,
        config.likelihood,
        ". ".join(dict.fromkeys(filter(None, credits))),
    )
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, dynamo_backend="inductor" if config.compile else "no"
    )
    if config.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("--mixed-precision fp16 does not train on a CPU: take bf16 or no")
    set_seed(config.seed, device_specific=True)

    if (
        first
        and first.origin
        and first.origin.resolve() == (config.output or Path("weights", config.dataset)).resolve()
    ):
        raise ValueError(f"--output would replace the weights to begin with: name another folder than {first.origin}")

    # Data: all of it as bytes on the device; some pictures are held out, to choose the best weights by.
    with accelerator.main_process_first():
        size = {"image_size": model_config.image_size, "channels": model_config.channels}
        pictures = load_dataset(config.dataset, config.data_dir, "train", **size)
        images = pictures.images.to(accelerator.device)
        test_images = load_dataset(config.dataset, config.data_dir, "test", **size).images.to(accelerator.device)
    num_held_out = config.validation or default_num_held_out(len(images))
    if num_held_out >= len(images):
        raise ValueError(f"--validation must leave pictures to train on, got {num_held_out} of {len(images)}")
    images, held_out = images.tensor_split([-num_held_out])
    if config.binarize:  # one draw of each picture to measure on; those to train on are drawn anew each time
        held_out, test_images = binarize(held_out, config.seed), binarize(test_images, config.seed)
    if config.batch_size % accelerator.num_processes:
        raise ValueError(
            f"--batch-size must be divisible by the {accelerator.num_processes} processes, got {config.batch_size}"
        )
    batch_size = min(config.batch_size, len(images) // accelerator.num_processes * accelerator.num_processes)

    if config.push_to_hub and accelerator.is_main_process:
        check_write(config.push_to_hub, private=config.private or None)

    # Model, optimizer, and the moving average of the weights, which is what is measured and kept.
    model: torch.nn.Module = VAE(model_config) if first is None else beginning(first, model_config)
    model = model.to(memory_format=torch.channels_last).to(accelerator.device)
    average = copy.deepcopy(cast(VAE, model)).eval()  # before accelerate wraps the model: it stays in float32
    parts = [model]
    if config.prior == "flow":
        known = first.prior if first and isinstance(first.prior, Flow) else None
        flow = known or Flow(model_config.latent_dim, FLOW_LAYERS, FLOW_WIDTH)
        parts.append(flow.requires_grad_(True).to(accelerator.device))
        average.prior = copy.deepcopy(flow).requires_grad_(False)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    blocks = [module for module in model.modules() if isinstance(module, ResidualBlock)]
    convolutions = {parameter for block in blocks for parameter in block.parameters() if parameter.ndim == 4}
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in parameters if parameter in convolutions], "orthogonal": True},
        {"params": [parameter for parameter in parameters if parameter not in convolutions]},
    ]
    optimizer = Muon(groups, betas=(0.9, 0.99), weight_decay=0.01)
    *parts, optimizer = accelerator.prepare(*parts, optimizer)
    plain_parts = [accelerator.unwrap_model(part, keep_torch_compile=False) for part in parts]
    model, log_prior = parts[0], parts[1] if len(parts) > 1 else None
    if log_prior is None and config.samples > 1:
        log_prior = StandardNormal().log_prob  # of each sample, where the known KL would be a mean over all of them

    seen = binarize(images, config.seed) if config.binarize else images  # as the encoder sees them
    pictures = pictures._replace(images=seen[:LABELLED], labels=pictures.labels[: len(seen)][:LABELLED])
    results = Results(config, accelerator, model_config, seen, held_out, test_images, pictures)
    total_steps = max(1, round(config.epochs * (len(images) // batch_size)))
    start, progress = time.monotonic(), 0.0
    with interruptions(results) as interrupted, progress_bar(accelerator) as bar:
        for step, x in enumerate(shuffled_forever(images, batch_size, config.seed, accelerator), start=1):
            # How far are we, from 0 to 1? The learning rate and the weight of the KL follow.
            if config.minutes is None:
                progress = (step - 1) / total_steps
            for group in optimizer.param_groups:
                group["lr"] = config.lr * learning_rate(progress)
            beta = config.beta * min(1.0, progress / config.kl_warmup if config.kl_warmup else 1.0)

            x = augment(x, config.shift, config.flip)
            if config.binarize:
                x = torch.bernoulli(x)

            # Encode, sample, decode. The loss is the negative bound, in nats per pixel value.
            output = model(x, samples=config.samples)
            x = x.repeat(config.samples, 1, 1, 1)
            error = mean_error(x, output.reconstruction.detach(), config.likelihood)
            log_scale = optimal_log_scale(
                accelerator.reduce(error, "mean"), config.likelihood, config.tilt
            )  # of the whole batch
            bound = elbo(x, output, config.likelihood, log_scale, beta, log_prior)
            loss = -importance_weighted(bound.total, config.samples).mean() / x[0].numel()

            # Follow the gradient; the average follows the weights.
            optimizer.zero_grad()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(parameters, MAX_GRAD_NORM)
            optimizer.step()
            for ours, theirs in zip((average, average.prior), plain_parts, strict=False):
                follow(ours, theirs, step)

            # Now and then look up. All processes see the same figures, and so take the same turn.
            if step == 1:
                start = time.monotonic()  # after the compilation, if there is one
            if step % LOOK_EVERY and (step != total_steps or config.minutes):
                continue
            minutes = (time.monotonic() - start) / 60
            seen = torch.stack(
                [bound.reconstruction.detach().mean(), bound.kl.detach().mean(), overall_scale(log_scale)]
            )
            clock = torch.tensor([minutes, len(interrupted)], device=seen.device)
            everyone = accelerator.gather(torch.cat([seen, clock])[None])  # (processes, 5)
            reconstruction, kl, scale = everyone[:, :3].mean(0).tolist()
            minutes, stop = everyone[:, 3:].amax(0).tolist()
            for part, value in (("reconstruction", reconstruction), ("KL divergence", kl), ("scale", scale)):
                if not math.isfinite(value):
                    raise ValueError(
                        f"the {part} is {value} at step {step}: try a lower --lr than {config.lr} or --mixed-precision "
                        f"no; {results.what_is_kept()}"
                    )

            progress = minutes / config.minutes if config.minutes else step / total_steps
            images_per_second = (step - 1) * batch_size / (60 * minutes + 1e-9)
            bar.set_postfix_str(
                f"{images_per_second:,.0f} images/s, ELBO {reconstruction - kl:.1f} = {reconstruction:.1f} - {kl:.1f} "
                f"nats, σ {scale:.4f}"
            )
            bar.update(min(100, 100 * progress) - bar.n)
            finished = progress >= 1 or stop > 0
            if accelerator.is_main_process and (finished or results.are_due(progress, minutes)):
                results.add(average, step, step * batch_size / len(images), minutes, reconstruction, kl)
            if finished:
                break
    if accelerator.is_main_process:
        print(f"{'stopped' if stop else 'trained'} after {minutes:.1f} minutes; {results.what_is_kept()}")
    accelerator.wait_for_everyone()  # who leaves first while another still measures may abort
    accelerator.end_training()
    if accelerator.is_main_process and config.push_to_hub:
        if stop:
            print(f"not pushed; to push it: {push_command(config, results.folder)}")
        else:
            push(config, results.folder)


def push(config: TrainConfig, folder: Path) -> None:
    """Push the model in folder to the Hub.

    Raises ValueError, which says how to try again, if that can't be done.
    """
    assert config.push_to_hub
    try:
        model = VAE.from_pretrained(folder)
        print("pushed:", model.push_to_hub(config.push_to_hub, private=config.private or None))
    except (ValueError, OSError, KeyboardInterrupt) as error:
        why = "stopped while pushing" if isinstance(error, KeyboardInterrupt) else error
        raise ValueError(f"{why}; {folder} is as it was, to try again: {push_command(config, folder)}") from None


def push_command(config: TrainConfig, folder: Path) -> str:
    """Say what to type to push the model in folder."""
    command = ["python", "train.py", "--push-only", str(folder), "--push-to-hub", str(config.push_to_hub)]
    return shlex.join([*command, "--private"] if config.private else command)


def beginning(first: VAE, config: VAEConfig) -> VAE:
    """Make a model of that config with the weights of the first. Raises ValueError if they don't fit each other."""
    for field in dataclasses.fields(config):
        theirs, ours = getattr(first.config, field.name), getattr(config, field.name)
        if field.name not in ("likelihood", "attribution") and theirs != ours:  # the scale is measured anew
            raise ValueError(
                f"the weights in {first.origin} are of {field.name} {theirs}, and {ours} is asked for: give "
                f"--{field.name.replace('_', '-')} {theirs}"
            )
    model = VAE(config)
    for ours, theirs in ((model.encoder, first.encoder), (model.decoder, first.decoder)):
        ours.load_state_dict(theirs.state_dict())
    return model


def training_of(init: str | None) -> dict[str, Any] | None:
    """Read how the weights to begin with were trained; None if they don't say it, or not as this program does."""
    try:
        training = read_metrics(find_model(init)).get("training") if init else None
        return training if training and describe_runs(training) else None
    except MALFORMED:
        return None


def learning_rate(progress: float) -> float:
    """Return the part of the peak learning rate due at a progress from 0 to 1: a linear rise, then half a cosine."""
    if progress < WARMUP:
        return 0.01 + 0.99 * progress / WARMUP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARMUP) / (1 - WARMUP))))


@torch.no_grad()
def follow(average: torch.nn.Module, model: torch.nn.Module, step: int) -> None:
    """Move the average a little towards the model, by more in the beginning, when the weights are still random."""
    decay = min(EMA_DECAY, step / (10 + step))
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    floating = [(ours, theirs) for ours, theirs in pairs if ours.is_floating_point()]
    torch._foreach_lerp_([ours for ours, _ in floating], [theirs for _, theirs in floating], 1 - decay)
    for ours, theirs in pairs:
        if not ours.is_floating_point():
            ours.copy_(theirs)  # the counters of the batch normalisations


def shuffled_forever(images: Tensor, batch_size: int, seed: int, accelerator: Accelerator) -> Iterator[Tensor]:
    """Yield this process's share of every batch, epoch after epoch."""
    rank, world_size = accelerator.process_index, accelerator.num_processes
    for epoch in itertools.count():
        yield from batches(images, batch_size, seed=seed, epoch=epoch, rank=rank, world_size=world_size)


@contextmanager
def interruptions(results: Results) -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM instead of dying of them, so that the run can end in order; a second one ends it."""
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        received.append(number)
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    except KeyboardInterrupt:
        sys.exit(f"train.py: stopped at once; {results.what_is_kept()}")
    finally:
        restore()


def progress_bar(accelerator: Accelerator) -> tqdm:
    """Make a bar in percent on the main process, if anybody watches."""
    disable = None if accelerator.is_main_process else True
    return tqdm(total=100, bar_format="{l_bar}{bar:20}| {elapsed} + {remaining} left{postfix}", disable=disable)


class Results:
    """What the run has reached: measured now and then, and the best of it kept in the output folder."""

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        model_config: VAEConfig,
        images: Tensor,
        held_out: Tensor,
        test_images: Tensor,
        labelled: Pictures,
    ) -> None:
        self.config, self.model_config = config, model_config
        self.is_main_process = accelerator.is_main_process
        self.images, self.held_out, self.test_images, self.labelled = images, held_out, test_images, labelled
        self.folder = config.output or Path("weights") / config.dataset
        self.count, self.minutes = 0, 0.0  # how often was measured, and how long that took
        self.history: list[dict[str, float]] = []
        self.best = -math.inf
        self.metrics: dict[str, Any] = {}
        if not accelerator.is_main_process:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):  # now, not after an hour: may we write here?
            pass
        self.pca_mse = pca_mse(images, test_images, config.latent_dim)
        num_parameters = sum(parameter.numel() for parameter in VAE(model_config).parameters())
        self.setting = {
            "command": shlex.join(["python", *sys.argv]),
            "pictures": len(images),
            "validation_pictures": len(held_out),
            "parameters": num_parameters,
            "device": accelerator.device.type,
            "processes": accelerator.num_processes,
            "mixed_precision": config.mixed_precision,
            "seed": config.seed,
            "prior": config.prior,
            "binarize": config.binarize,
            "keep": config.keep,
            "samples": config.samples,
            "init": training_of(config.init),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "accelerate")},
        }

    def add(self, model: VAE, step: int, epochs: float, minutes: float, reconstruction: float, kl: float) -> bool:
        """Measure the averaged model and, if it is the one to keep so far, save it: tell whether."""
        began = time.monotonic()
        is_kept = self._measure(model, step, epochs, minutes, reconstruction, kl)
        self.count += 1
        self.minutes += (time.monotonic() - began) / 60
        return is_kept

    def _measure(self, model: VAE, step: int, epochs: float, minutes: float, reconstruction: float, kl: float) -> bool:
        calibrate(model, self.images[:CALIBRATION], self.config.tilt)
        validation = evaluate(model, self.held_out, model.prior)
        reached = validation["reconstruction"] - self.config.beta * validation["kl"]
        if self.config.samples > 1:
            x, generator = to_unit(self.held_out), torch.Generator(self.held_out.device).manual_seed(0)
            bounds = importance_weighted_bound(model, x, self.config.samples, prior=model.prior, generator=generator)
            reached = bounds.mean().item()
        is_kept = math.isfinite(reached) and (self.config.keep == "last" or reached >= self.best)
        if is_kept:
            model.directions = directions_of(model, self.labelled)
            model.save_pretrained(self.folder)  # first of all: whoever launched us may not wait for the rest
        test = evaluate(model, self.test_images, model.prior)
        if not math.isfinite(reached + test["elbo"]):
            tqdm.write(f"epoch {epochs:.1f}, {minutes:.1f} min: the averaged weights give no finite ELBO")
            return False
        self.history.append(
            {
                "step": step,
                "epochs": epochs,
                "minutes": minutes,
                "train_elbo": reconstruction - kl,
                "validation_elbo": validation["elbo"],
                **{f"test_{name}": test[name] for name in ("elbo", "reconstruction", "kl", "mse", "scale")},
            }
        )
        tqdm.write(
            f"epoch {epochs:.1f}, {minutes:.1f} min: test ELBO {test['elbo']:.2f} = {test['reconstruction']:.2f} - "
            f"{test['kl']:.2f} nats (validation {validation['elbo']:.2f}), MSE {test['mse']:.5f}, "
            f"σ {test['scale']:.4f}, {test['active_units']} active units"
        )
        if is_kept:
            self.best = reached
            training = self.setting | {"steps": step, "epochs": epochs, "seconds": 60 * minutes}
            self.metrics = {
                "dataset": self.config.dataset,
                "test": test | {"pca_mse": self.pca_mse},
                "training": training,
            }
            (self.folder / GENERATED).unlink(missing_ok=True)  # it would be of other weights
            write(self.folder / SAMPLES, draw_samples(model, self.test_images).save)
        write(self.folder / CURVES, self.draw_curves().savefig)
        write_json(self.folder / METRICS, self.metrics | {"history": self.history})
        name = self.folder.name if self.config.output is None else self.folder.as_posix()
        card = model_card(name, self.model_config, self.metrics, (SAMPLES, CURVES))
        write(self.folder / CARD, lambda path: path.write_text(card, encoding="utf-8"))
        return is_kept

    def are_due(self, progress: float, minutes: float) -> bool:
        """Tell whether to measure now: as often as was asked for, as long as that takes a tenth of the run at most."""
        return progress * self.config.evaluations >= self.count + 1 and self.minutes <= MAX_MEASURING * minutes

    def what_is_kept(self) -> str:
        """Say in half a sentence what the output folder holds by now."""
        if not self.is_main_process:
            return "the first process says what is kept"
        if not self.metrics:
            return f"nothing was written to {self.folder}"
        return (
            f"the {self.config.keep} weights, of epoch {self.metrics['training']['epochs']:.1f}, are in {self.folder} "
            f"(test ELBO {self.metrics['test']['elbo']:.2f} nats)"
        )

    def draw_curves(self) -> Figure:
        """Draw how the bound, the KL divergence and the error went."""
        epochs = [row["epochs"] for row in self.history]
        figure = Figure(figsize=(11, 3.2), layout="constrained")
        panels = figure.subplots(1, 3)
        for panel, title, names in (
            (panels[0], "ELBO (nats)", ("train_elbo", "validation_elbo", "test_elbo")),
            (panels[1], "KL divergence (nats)", ("test_kl",)),
            (panels[2], "mean squared error", ("test_mse",)),
        ):
            for name in names:
                panel.plot(epochs, [row[name] for row in self.history], marker=".", label=name.partition("_")[0])
            panel.set(title=title, xlabel="epoch")
            panel.grid(alpha=0.3)
            panel.legend()
        return figure


def main() -> None:
    try:
        config = tyro.cli(TrainConfig, prog="train.py")
        if config.push_only:
            push(config, config.push_only)
        else:
            train(config)
    except (ValueError, OSError) as error:
        sys.exit(f"train.py: {error}")
    except KeyboardInterrupt:
        sys.exit("train.py: stopped before training began, nothing was written")


if __name__ == "__main__":
    main()
