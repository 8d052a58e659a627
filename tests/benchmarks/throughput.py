"""Images per second of the same network in four trainers, side by side: python tests/benchmarks/throughput.py

    bare       a batch that is in memory, forward, backward, a step of our optimizer, and nothing else
    examples   the loop of pytorch/examples' VAE, written anew: DataLoader, Adam, a print of the loss from time to time
    pythae     its BaseTrainer
    lightning  its Trainer
    ours       train.py

In each round all take a turn at the same batch size and precision; the table has the median of images/s over the rounds, and
the median of our ratio to each within a round, as other programs disturb both in the same way. pythae and lightning are
left out if they are not installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal
from unittest import mock

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

import train
from vae import VAE, VAEConfig
from vae.data import load_dataset
from vae.images import to_unit
from vae.loss import elbo, mean_error, optimal_log_scale
from vae.model import kl_divergence
from vae.training.optim import make_optimizer, set_learning_rate
from vae.training.run import Run
from vae.training.speed import choose_precision

LATENT_DIM = 64
CONFIG = VAEConfig(latent_dim=LATENT_DIM, likelihood="spectral")
WARM_UP = 10  # steps that are not timed: of ours, a graph is captured in them
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16}
NAMES = {"no": "float32", "bf16": "bfloat16"}
LIGHTNING_PRECISION = {"no": "32-true", "bf16": "bf16-mixed"}

Trainer = Callable[[Tensor, int, int, str], float]  # pictures, batch size, steps, precision -> images per second


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Stopwatch:
    """Measure images per second from the WARM_UP-th step to the last."""

    clock: ClassVar[Callable[[], float]] = time.perf_counter

    def __init__(self, batch_size: int, steps: int) -> None:
        self.batch_size, self.steps, self.count = batch_size, steps, 0
        self.began = self.images_per_second = 0.0

    def tick(self) -> bool:
        """Take note of a step; return whether it was the last."""
        self.count += 1
        if self.count == WARM_UP:
            synchronize()
            self.began = Stopwatch.clock()
        if self.count == WARM_UP + self.steps:
            synchronize()
            self.images_per_second = self.steps * self.batch_size / (Stopwatch.clock() - self.began)
        return self.count >= WARM_UP + self.steps


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def new_model() -> VAE:
    torch.manual_seed(0)
    return VAE(CONFIG).to(memory_format=torch.channels_last).to(device())


def autocast(precision: str) -> torch.autocast:
    return torch.autocast(device().type, DTYPES[precision], enabled=precision != "no")


def standard_loss(model: VAE, x: Tensor) -> Tensor:
    """The loss of pytorch/examples: cross-entropy and KL divergence, both summed."""
    output = model(x)
    return (
        F.binary_cross_entropy_with_logits(output.logits, x, reduction="sum")
        + kl_divergence(output.posterior.mean, output.posterior.logvar).sum()
    )


# --- those who train -------------------------------------------------------------------------------------------------


def train_bare(images: Tensor, batch_size: int, steps: int, precision: str) -> float:
    model = new_model()
    optimizer = make_optimizer([model])
    set_learning_rate(optimizer, 1e-3)
    x, watch = to_unit(images[:batch_size]).to(device()), Stopwatch(batch_size, steps)
    while True:
        with autocast(precision):
            output = model(x)
        log_scale = optimal_log_scale(mean_error(x, output.reconstruction.detach(), "spectral"), "spectral")
        loss = -elbo(x, output, "spectral", log_scale).total.mean() / x[0].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if watch.tick():
            return watch.images_per_second


class Pictures(Dataset[Tensor]):
    """What torchvision's MNIST with ToTensor is: each picture is turned from a PIL image into a tensor when it is asked for."""

    def __init__(self, images: Tensor) -> None:
        from torchvision.transforms.functional import to_pil_image, to_tensor

        self.pictures, self.to_tensor = [to_pil_image(image) for image in images], to_tensor

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self.to_tensor(self.pictures[index])


def train_examples(images: Tensor, batch_size: int, steps: int, precision: str) -> float:
    model = new_model().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    workers: dict[str, Any] = {"num_workers": 1, "pin_memory": True} if torch.cuda.is_available() else {}
    loader = DataLoader(Pictures(images), batch_size, shuffle=True, drop_last=True, **workers)
    watch, total = Stopwatch(batch_size, steps), 0.0
    for batch, data in enumerate(forever(loader)):
        x = data.to(device())
        optimizer.zero_grad()
        with autocast(precision):
            loss = standard_loss(model, x)
        loss.backward()
        total += loss.item()
        optimizer.step()
        if batch % 10 == 0:
            print(f"loss: {loss.item() / len(x):.6f}")
        if watch.tick():
            break
    return watch.images_per_second


def forever(loader: Iterable[Tensor]) -> Iterator[Tensor]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


class StopTrainingError(Exception):
    """The way out of a trainer's own loop."""


def train_pythae(images: Tensor, batch_size: int, steps: int, precision: str) -> float:
    from pythae import models
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback
    from quality import OurDecoder, OurEncoder  # beside this file

    watch = Stopwatch(batch_size, steps)

    class Clock(TrainingCallback):
        def on_train_step_end(self, training_config: Any, **kwargs: Any) -> None:
            if watch.tick():
                raise StopTrainingError

    torch.manual_seed(0)
    if torch.cuda.is_available():
        torch.set_autocast_dtype("cuda", torch.bfloat16)  # its own is float16
    config = models.VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT_DIM)
    model = models.VAE(config, OurEncoder(CONFIG), OurDecoder(CONFIG)).to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=10_000,
            learning_rate=1e-3,
            per_device_train_batch_size=batch_size,
            amp=precision != "no",
            seed=0,
        )
        data = BaseDataset(to_unit(images), torch.zeros(len(images)))
        trainer = BaseTrainer(model, data, None, settings, callbacks=[Clock()])
        with contextlib.suppress(StopTrainingError):
            trainer.train()
    return watch.images_per_second


def train_lightning(images: Tensor, batch_size: int, steps: int, precision: str) -> float:
    import lightning

    watch = Stopwatch(batch_size, steps)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model()

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            return standard_loss(self.model, batch[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

        def on_train_batch_end(self, *rest: Any) -> None:
            watch.tick()

    loader = DataLoader(TensorDataset(to_unit(images)), batch_size, shuffle=True, drop_last=True)
    trainer = lightning.Trainer(
        max_steps=WARM_UP + steps,
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        precision=LIGHTNING_PRECISION[precision],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), loader)
    return watch.images_per_second


def train_ours(images: Tensor, batch_size: int, steps: int, precision: str) -> float:
    watch = Stopwatch(batch_size, steps)

    class TimedRun(Run):
        def after_step(self, step: int, parts: Tensor) -> None:
            last = watch.tick()  # before the look that measures the weights, which comes once here
            self.finished = last
            if not last:
                super().after_step(step, parts)

        def finish(self) -> None:  # nor do the test pictures that are measured then count
            raise StopTrainingError

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(train, "Run", TimedRun):
        config = train.TrainConfig(
            model=train.ModelOptions(latent_dim=LATENT_DIM),
            optimizer=train.OptimizerOptions(mixed_precision=precision),  # type: ignore[arg-type]
            run=train.RunOptions(batch_size=batch_size, epochs=1000, evaluations=1),
            output=train.OutputOptions(output=Path(folder)),
        )
        with contextlib.suppress(StopTrainingError):
            train.train(config, images)
    return watch.images_per_second


TRAINERS: dict[str, Trainer] = {
    "bare": train_bare,
    "examples": train_examples,
    "pythae": train_pythae,
    "lightning": train_lightning,
    "ours": train_ours,
}


# --- side by side ----------------------------------------------------------------------------------------------------


def measure(
    trainers: dict[str, Trainer], images: Tensor, batch_size: int, steps: int, rounds: int, precision: str
) -> dict[str, dict[str, float]]:
    """Let all take turns; return of each the median of images per second, and that of our ratio to it."""
    speeds: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(rounds):
        for name, run in trainers.items():
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                speeds[name].append(run(images, batch_size, steps, precision))
    ours = speeds["ours"]
    return {
        name: {
            "images_per_second": statistics.median(theirs),
            "ours_to_it": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        }
        for name, theirs in speeds.items()
    }


def draw(results: dict[int, dict[str, dict[str, float]]], title: str) -> Figure:
    """Draw images per second over batch sizes."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in next(iter(results.values())):
        speeds = [row[name]["images_per_second"] for row in results.values()]
        axes.plot(list(results), speeds, marker="o", label=name, linewidth=2.5 if name == "ours" else 1.2)
    axes.set(xscale="log", xlabel="batch size", ylabel="images/s", ylim=(0, None), title=title)
    axes.set_xticks(list(results), [str(size) for size in results])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def main(
    data_dir: Path = Path("data"),
    batch_sizes: tuple[int, ...] = (64,),
    steps: int = 20,
    rounds: int = 5,
    precision: Literal["auto", "no", "bf16"] = "auto",
    clock: Literal["wall", "cpu"] = "wall",
    only: tuple[str, ...] = (),
    output: Path | None = None,
) -> None:
    """Train side by side and print a table.

    Args:
        data_dir: Where Fashion-MNIST is, as for train.py.
        batch_sizes: To try, one after the other.
        steps: Of each trainer in each round, after ten to warm up; 500 or more on a GPU.
        rounds: In which all take a turn.
        precision: For all; auto is what train.py chooses.
        clock: cpu counts seconds of the processor, which others on a shared machine hardly disturb; not for a GPU.
        only: Names of those who train besides ours, by default all that are installed.
        output: Folder for throughput.json and throughput.png.
    """
    Stopwatch.clock = CLOCKS[clock]
    warnings.simplefilter("ignore")
    for name in ("pythae", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    trainers = dict(TRAINERS)
    for name in ("pythae", "lightning"):
        if importlib.util.find_spec(name) is None:
            print(f"{name} is left out: it is not installed")
            del trainers[name]
    trainers = {name: run for name, run in trainers.items() if not only or name in (*only, "ours")}
    precision = choose_precision(precision, device())  # type: ignore[assignment]
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # or train.py would choose another number
    threads = torch.get_num_threads()
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {threads} threads"
    print(f"{hardware}, precision {precision}, {rounds} rounds of {steps} steps, by the {clock} clock")
    images = load_dataset("fashion-mnist", data_dir, "train").images[:10_000]
    print("| batch size | trainer | images/s | ours / it |\n|---|---|---|---|")
    results = {}
    for batch_size in batch_sizes:
        results[batch_size] = measure(trainers, images, batch_size, steps, rounds, precision)
        for name, row in results[batch_size].items():
            print(f"| {batch_size} | {name} | {row['images_per_second']:,.0f} | {row['ours_to_it']:.2f} |", flush=True)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        settings = {"hardware": hardware, "precision": precision, "clock": clock, "steps": steps, "rounds": rounds}
        (output / "throughput.json").write_text(json.dumps({**settings, "batch_sizes": results}, indent=2) + "\n")
        draw(results, f"Fashion-MNIST, {hardware}, {NAMES[precision]}").savefig(output / "throughput.png", dpi=80)


if __name__ == "__main__":
    tyro.cli(main)
