"""Everything in a training that isn't the idea: batches and the clock, what is measured, said, kept, and survived."""

from __future__ import annotations

import copy
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Literal

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from vae.data import batches
from vae.evaluate.fit import directions_of
from vae.evaluate.measure import draw_samples, evaluate
from vae.evaluate.metrics import pca_mse
from vae.figures import Figures, Look, TestMetrics
from vae.images import to_unit
from vae.loss import ELBO, calibrate, importance_weighted_bound, overall_scale
from vae.model import VAE
from vae.training.output import Output
from vae.training.setup import Split

if TYPE_CHECKING:
    from typing_extensions import Self

CALIBRATION = 5000  # training pictures on which the scale of the likelihood is measured
MAX_MEASURING = 0.1  # part of the time that measuring in the course of the run may take
LOOK_EVERY = 10  # steps between two looks at the clock and the figures, each of which waits for the device
# What torch's errors say when memory ran out: on Linux, on Windows, on a GPU, within a library that it calls.
OUT_OF_MEMORY = "can't allocate memory", "not enough memory", "out of memory", "bad_alloc"


@dataclass
class RunOptions:
    """How long to train, and which weights to keep."""

    epochs: float = 30
    """Passes over the training pictures."""
    minutes: float | None = None
    """Train for so long instead of for a number of epochs, however fast the machine is."""
    batch_size: int = 64
    """Pictures in a step, over all processes together. More than 128 learn less in the same time, unless the device is
    much faster with them."""
    evaluations: int = 10
    """How often to measure and save in the course of the run, if that takes no more than a tenth of the time."""
    keep: Literal["best", "last"] = "best"
    """Which weights to keep: the best by the bound on pictures held out from training, or the last. The bound may stand
    still while pictures get sharper."""
    seed: int = 0
    """The same seed on the same machine, with the same number of threads, gives the same initial weights, order of
    pictures and noise."""

    def __post_init__(self) -> None:
        for name in ("epochs", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                raise ValueError(f"--{name} must be more than 0 and less than a million, got {value}")
        for name in ("batch_size", "evaluations"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"--seed must be a number from 0 to {2**31 - 1}, got {self.seed}")


class Run:
    """One training, as a context in which its steps are taken.

    What it has reached, which a checkpoint must hold besides weights and optimizer:
        step, seconds: steps taken, and the time since the end of the first, in which a compilation may be.
        history, looks, looking_seconds: what was measured in its course, how often, and how long that took.
        best, kept: the highest bound on held-out pictures, and the model whose bound it is (or the last, if that is kept).

    figures: what is known before the first step, of the pictures and of how the model is trained.
    bound: measures a model on pictures: the bound to choose by, in nats, and all else.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        options: RunOptions,
        split: Split,
        output: Output,
        figures: Figures,
        bound: Callable[[VAE, Tensor], tuple[float, TestMetrics]],
    ) -> None:
        processes = accelerator.num_processes
        if options.batch_size % processes:
            raise ValueError(f"--batch-size must be divisible by the {processes} processes, got {options.batch_size}")
        self.step, self.seconds = 0, 0.0
        self.history: list[Look] = []
        self.looks, self.looking_seconds = 0, 0.0
        self.best = -math.inf
        self.kept: VAE | None = None

        self.accelerator, self.options, self.split, self.output = accelerator, options, split, output
        self.figures, self.bound = figures, bound
        self.batch_size = min(options.batch_size, len(split.train) // processes * processes)
        self.steps_per_epoch = len(split.train) // self.batch_size
        self.total_steps = max(1, round(options.epochs * self.steps_per_epoch))
        self.progress = 0.0  # from 0 to 1, of epochs or minutes
        self.finished = False
        self.untrained = math.nan  # the bound of a model with random weights, once it was needed
        self.failure = ""
        self._interrupted = self._stopped = False

    # --- the context: signals, the progress bar, errors in words -----------------------------------------------------

    def __enter__(self) -> Self:
        """Begin. Raises OSError if nothing can be written into the output folder."""
        is_main = self.accelerator.is_main_process
        if is_main:
            self.output.prepare()
        self.accelerator.init_trackers(self.output.folder.resolve().name)
        bar_format = "{l_bar}{bar:20}| {elapsed} + {remaining} left{postfix}"
        self.bar = tqdm(total=100, bar_format=bar_format, disable=None if is_main else True)
        self._handlers = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self.bar.close()
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"stopped at once; {self.what_is_kept()}") from None
        if isinstance(error, OSError):
            raise ValueError(f"{error.strerror or error}; {self.what_is_kept()}") from error
        if error is not None and is_out_of_memory(error):
            raise ValueError(f"{OUT_OF_MEMORY_ADVICE}; {self.what_is_kept()}") from error

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ask the run to end in order, at the first Ctrl-C or SIGTERM; end it at the second."""
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    # --- step by step ------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Tensor]:
        """Yield this process's share of each batch from the step on that the run has reached, epoch after epoch."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        first_epoch, done = divmod(self.step, self.steps_per_epoch)
        for epoch in itertools.count(first_epoch):
            shares = batches(
                self.split.train,
                self.batch_size,
                seed=self.options.seed,
                epoch=epoch,
                rank=rank,
                world_size=processes,
            )
            yield from itertools.islice(shares, done if epoch == first_epoch else 0, None)

    def after_step(self, step: int, bound: ELBO, log_scale: Tensor, model: VAE) -> None:
        """Take note of a step; now and then look at the clock, say how it goes, measure the model and keep it.

        bound: of this process's share of the batch; log_scale: of the likelihood; model: the averaged weights.
        """
        minutes_given = self.options.minutes
        self.step = step
        if step == 1:
            self._start = time.monotonic()
        if minutes_given is None:
            self.progress = step / self.total_steps
        if step % LOOK_EVERY and (step != self.total_steps or minutes_given):
            return

        # All processes see the same figures, and so take the same turn.
        seen = torch.stack([bound.reconstruction.detach().mean(), bound.kl.detach().mean(), overall_scale(log_scale)])
        clock = torch.tensor([(time.monotonic() - self._start) / 60, self._interrupted], device=seen.device)
        everyone = self.accelerator.gather(torch.cat([seen, clock])[None])  # (processes, 5)
        reconstruction, kl, scale = everyone[:, :3].mean(0).tolist()
        minutes, stopped = everyone[:, 3:].amax(0).tolist()
        self.seconds, self._stopped = 60 * minutes, stopped > 0
        for part, value in (("reconstruction", reconstruction), ("KL divergence", kl), ("scale", scale)):
            if not math.isfinite(value):
                self.failure = f"the {part} is {value} at step {step}: try a lower --lr or --mixed-precision no"
                self.finished = True
                return

        self.progress = minutes / minutes_given if minutes_given else step / self.total_steps
        images_per_second = (step - 1) * self.batch_size / (self.seconds + 1e-9)
        self.bar.set_postfix_str(
            f"{images_per_second:,.0f} images/s, ELBO {reconstruction - kl:.1f} = {reconstruction:.1f} - {kl:.1f} "
            f"nats, σ {scale:.4f}"
        )
        self.bar.update(min(100, 100 * self.progress) - self.bar.n)
        self.finished = self.progress >= 1 or self._stopped
        is_due = self.progress * self.options.evaluations >= self.looks + 1
        is_quick = self.looking_seconds <= MAX_MEASURING * self.seconds
        if self.accelerator.is_main_process and (self.finished or (is_due and is_quick)):
            began = time.monotonic()
            self._measure(model, reconstruction - kl)
            self.looks += 1
            self.looking_seconds += time.monotonic() - began

    @property
    def epochs(self) -> float:
        """Passes over the training pictures so far."""
        return self.step * self.batch_size / len(self.split.train)

    # --- what is measured and kept -----------------------------------------------------------------------------------

    def _measure(self, model: VAE, train_elbo: float) -> None:
        """Measure the model on held-out pictures, and keep it if it is better than untrained and than those before."""
        bound, validation = self.bound(model, self.split.held_out)
        minutes = self.seconds / 60
        where = f"epoch {self.epochs:.1f}, {minutes:.1f} min"
        if not math.isfinite(bound + validation.elbo):
            tqdm.write(f"{where}: the averaged weights give no finite ELBO")
            return
        tqdm.write(
            f"{where}: held-out ELBO {validation.elbo:.2f} = {validation.reconstruction:.2f} - {validation.kl:.2f} nats, "
            f"MSE {validation.mse:.5f}, σ {validation.scale:.4f}, {validation.active_units} active units"
        )
        self.history.append(
            Look(
                step=self.step,
                epochs=self.epochs,
                minutes=minutes,
                train_elbo=train_elbo,
                validation_elbo=validation.elbo,
                validation_kl=validation.kl,
                validation_mse=validation.mse,
            )
        )
        shown = asdict(self.history[-1]) | {
            "validation_reconstruction": validation.reconstruction,
            "scale": validation.scale,
            "active_units": validation.active_units,
            "images_per_second": (self.step - 1) * self.batch_size / (self.seconds + 1e-9),
        }
        del shown["step"]  # which trackers have of their own
        self.accelerator.log({name: value for name, value in shown.items() if value is not None}, step=self.step)
        if (self.options.keep == "last" or bound >= self.best) and self._is_better_than_untrained(model, bound):
            model.directions = directions_of(model, self.split.labelled)
            assert self.figures.training
            record = replace(self.figures.training, steps=self.step, epochs=self.epochs, seconds=self.seconds)
            figures = replace(self.figures, training=record, history=self.history)
            self.figures = self.output.replace(model, figures, draw_samples(model, self.split.test))
            self.best, self.kept = bound, copy.deepcopy(model)
        elif self.kept:
            self.figures = replace(self.figures, history=self.history)
            self.output.update(self.figures)

    def _is_better_than_untrained(self, model: VAE, bound: float) -> bool:
        """Compare a model's bound on held-out pictures with that of random weights.

        A model that has learnt a few pictures by heart may score all others far worse: then those that it learnt count.
        """
        with torch.random.fork_rng(devices=[]):  # the random numbers of the training stay as they are
            torch.manual_seed(self.options.seed)
            untrained = VAE(model.config).to(model.log_scale.device).eval()
        if math.isnan(self.untrained):
            self.untrained = self.bound(untrained, self.split.held_out)[0]
        if bound > self.untrained:
            return True
        learnt = self.split.measured[: len(self.split.held_out)]
        return self.bound(model, learnt)[0] > self.bound(untrained, learnt)[0]

    def finish(self) -> None:
        """Measure the kept model on the test set, once, and complete the output folder.

        Raises ValueError if training diverged, or nothing was better than untrained weights.
        """
        try:
            if self.kept is not None:
                test = evaluate(self.kept, self.split.test, self.kept.prior)
                error = pca_mse(self.split.measured, self.split.test, self.kept.config.latent_dim)
                self.figures = replace(self.figures, test=replace(test, pca_mse=error))
                self.output.update(self.figures)
                self.output.write_card(self.kept, self.figures)
        finally:
            self.accelerator.wait_for_everyone()  # who leaves first while another still measures may abort
            self.accelerator.end_training()
        if not self.accelerator.is_main_process:
            return
        ended = f"{'stopped' if self._stopped else 'trained'} after {self.seconds / 60:.1f} minutes"
        if self.kept is None and not self.failure:
            found = f"{self.history[-1].validation_elbo:.6g}" if self.history else "not finite"
            self.failure = (
                f"{ended}, the weights are no better than untrained ones (held-out ELBO {found}, untrained "
                f"{self.untrained:.6g} nats): train for longer, or with a lower --lr"
            )
        if self.failure:
            raise ValueError(f"{self.failure}; {self.what_is_kept()}")
        print(f"{ended}; {self.what_is_kept()}")

    @property
    def is_stopped(self) -> bool:
        """Whether a signal ended the run before its time."""
        return self._stopped

    def what_is_kept(self) -> str:
        """Say in half a sentence what the output folder holds by now."""
        if not self.accelerator.is_main_process:
            return "the first process says what is kept"
        if self.kept is None:
            return f"nothing was written to {self.output.folder}"
        assert self.figures.training
        elbo = self.figures.test.elbo if self.figures.test else None
        reached = f"held-out bound {self.best:.2f} nats" if elbo is None else f"test ELBO {elbo:.2f} nats"
        epoch = self.figures.training.epochs
        return f"the {self.options.keep} weights, of epoch {epoch:.1f}, are in {self.output.folder} ({reached})"


@torch.no_grad()
def measure_bound(
    model: VAE, images: Tensor, calibration: Tensor, *, tilt: float, beta: float, samples: int
) -> tuple[float, TestMetrics]:
    """Measure a model in `eval()` on images, once its scale is calibrated on others, both (N, C, H, W) uint8.

    Returns the bound that it is trained for, in nats, and the figures of `evaluate`.
    """
    calibrate(model, calibration[:CALIBRATION], tilt)
    metrics = evaluate(model, images, model.prior)
    if samples == 1:
        return metrics.reconstruction - beta * metrics.kl, metrics
    generator = torch.Generator(images.device).manual_seed(0)
    bounds = importance_weighted_bound(model, to_unit(images), samples, prior=model.prior, generator=generator)
    return bounds.mean().item(), metrics


OUT_OF_MEMORY_ADVICE = "not enough memory: lower --batch-size, --samples, --width or --depth"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of Python, NumPy or torch says that memory ran out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)
    )
