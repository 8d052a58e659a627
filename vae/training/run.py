"""Everything in a training that isn't the idea: batches and the clock, what is measured, said, kept, and survived."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from vae.data import Share
from vae.data.mapped import pages_given_back
from vae.data.stream import serve
from vae.evaluate.fit import directions_of
from vae.evaluate.measure import draw_samples, evaluate
from vae.evaluate.metrics import pca_mse
from vae.figures import Figures, Look, TestMetrics, parse, to_json
from vae.model import VAE
from vae.training import failures
from vae.training.bound import CALIBRATION
from vae.training.checkpoint import Checkpoints, TrainingState, pack_model, unpack_model
from vae.training.options import RunOptions
from vae.training.output import Output
from vae.training.setup import Split
from vae.training.tracker import track

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_MEASURING = 0.1  # part of the time that measuring in the course of the run may take
FORWARD = 1 / 3  # of the arithmetic of a training step
LOOK_EVERY = 10  # steps between two looks at the clock and the figures, each of which waits for the device
MAX_NOT_FINITE = 20  # steps in a row


class Run:
    """One training, as a context in which its steps are taken.

    What it has reached, which a checkpoint must hold besides weights and optimizer:
        step, seconds: steps taken, and the time since the end of the first, in which a compilation may be.
        history, looks, looking_seconds: what was measured in its course, how often, and how long that took.
        skipped, in_a_row: steps that were taken back because something wasn't finite, and how many of them just now.
        best, kept: the highest bound on held-out pictures, and the model whose bound it is (or the last, if that is kept).

    figures: what is known before the first step, of the pictures and of how the model is trained.
    bound: measures a model on pictures: the bound to choose by, in nats, and all else.
    state: the weights and whatever else the steps change; its average is what is measured and kept.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        options: RunOptions,
        split: Split,
        output: Output,
        figures: Figures,
        bound: Callable[[VAE, Tensor], tuple[float, TestMetrics]],
        state: TrainingState,
    ) -> None:
        processes = accelerator.num_processes
        if options.batch_size % processes:
            raise ValueError(f"--batch-size must be divisible by the {processes} processes, got {options.batch_size}")
        self.step, self.seconds = 0, 0.0
        self.history = list(figures.history)  # of the weights to begin with
        self.inherited = len(self.history)
        self.looks, self.looking_seconds = 0, 0.0
        self.skipped = self.in_a_row = 0
        self.best = -math.inf
        self.kept: VAE | None = None

        self.accelerator, self.options, self.split, self.output = accelerator, options, split, output
        self.figures, self.bound, self.state = figures, bound, state
        self.checkpoints = Checkpoints(output.folder)
        self.batch_size = min(options.batch_size, len(split.train) // processes * processes)
        if not self.batch_size:
            raise ValueError(f"{len(split.train)} training pictures are too few for {processes} processes: use fewer")
        self.share = Share(accelerator.process_index, processes)
        self.total_steps = max(1, round(options.epochs * len(split.train) / self.batch_size))
        self.progress = 0.0  # from 0 to 1, of epochs or minutes
        self.untrained = math.nan  # the bound of a model with random weights, once it was needed
        self.finished, self.failure = False, ""
        self._interrupted = self._stopped = False
        self._context = ExitStack()
        self._start: float | None = None  # of the clock
        self._seen: list[Tensor] = []  # PARTS of the steps since the last look, on the device
        self._said = (math.nan, math.nan, math.nan)  # reconstruction, KL and scale of the last good look
        self._checkpoint_seconds = 0.0  # when the last one was written

    # --- the context: signals, the progress bar, errors in words -----------------------------------------------------

    def __enter__(self) -> Self:
        """Begin. Raises OSError if nothing can be written into the output folder."""
        is_main = self.accelerator.is_main_process
        if is_main:
            self.output.prepare()
            if self.kept and self.figures.weights != self.output.fingerprint():  # it went on after the checkpoint
                self.figures = self.output.replace(self.kept, self.figures, draw_samples(self.kept, self.split.test))
            if not self.checkpoints.written and self.checkpoints.folder.exists():
                print(f"an earlier run was stopped: --resume {self.output.folder} would continue it")
        self._context.enter_context(pages_given_back())
        self._good = self.state.snapshot()
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
        self._context.close()
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"stopped at once; {self.what_is_kept()}{self.checkpoints.advice}") from None
        if isinstance(error, OSError | ValueError):
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"{reason}; {self.what_is_kept()}{self.checkpoints.advice}") from error
        if error is not None and failures.is_out_of_memory(error):
            raise ValueError(f"{failures.OUT_OF_MEMORY_ADVICE}; {self.what_is_kept()}") from error

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ask the run to end in order, at the first Ctrl-C or SIGTERM; end it at the second."""
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    # --- step by step ------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Tensor]:
        """Yield this process's share of each batch, in [0, 1], from the step on that the run has reached, without end."""
        options, device = self.options, self.accelerator.device
        return serve(
            self.split.train, self.batch_size, seed=options.seed, start=self.step, share=self.share, device=device
        )

    def after_step(self, step: int, parts: Tensor) -> None:
        """Take note of a step; now and then look at the clock, say how it goes, measure the averaged weights, keep them.

        parts: what `failures.PARTS` names, (4,), of this process's share of the batch.
        """
        minutes_given = self.options.minutes
        self.step = step
        if self._start is None:
            self._start = time.monotonic() - self.seconds
        if minutes_given is None:
            self.progress = step / self.total_steps
        self._seen.append(parts)
        if step % LOOK_EVERY and (step != self.total_steps or minutes_given):
            return

        # All processes see the same figures, and so take the same turn.
        clock = [(time.monotonic() - self._start) / 60, self._interrupted]
        numbers = torch.cat([*self._seen, torch.tensor(clock, device=parts.device), ~self.state.is_finite()[None]])
        everyone = self.accelerator.gather(numbers[None]).cpu()  # (processes, PARTS of each step, and 3 numbers)
        minutes, stopped, broken = everyone[:, -3:].amax(0).tolist()
        seen = everyone[:, :-3].mean(0).view(-1, len(failures.PARTS))
        self._seen.clear()
        self.seconds = 60 * minutes
        self.progress = minutes / minutes_given if minutes_given else step / self.total_steps
        if broken or not seen[:, :-1].isfinite().all():
            self._take_back(seen)
        else:
            self.in_a_row = 0
            self._said = tuple(seen[-1, :-1].tolist())
        self._stopped = stopped > 0 and self.progress < 1
        self.finished = self.progress >= 1 or self._stopped or bool(self.failure)
        self._say()
        measured = self._look_is_due() or (self.finished and not self._stopped)
        if measured:
            self._look()
        if not self.in_a_row:
            self._good = self.state.snapshot(self._good)
        is_time = self.seconds - self._checkpoint_seconds >= 60 * self.options.checkpoint_minutes
        if self._stopped or (is_time and not self.finished):
            self._write_checkpoint()
        if self._stopped and not measured:  # after the checkpoint, which knows nothing of it
            self._look()

    def _take_back(self, parts: Tensor) -> None:
        """Go back to the last good look: weights, average and optimizer, but neither the clock nor the data.

        To see every step at once whether it was finite, the processor would have to wait for the device every time. And to
        leave out a gradient would not be enough: batch norm has taken the activations in, and the average the weights.
        parts: PARTS of each step since that look, (steps, 4).
        """
        self.state.restore(self._good)
        steps = len(parts)
        self.skipped += steps
        self.in_a_row += steps
        found = failures.first_not_finite(parts, self.step - steps + 1)
        if self.in_a_row >= MAX_NOT_FINITE:
            self.failure = f"{found}, for {self.in_a_row} steps: try a lower --lr or --mixed-precision no"
        elif self.accelerator.is_main_process:
            tqdm.write(f"{found}: the last {steps} steps are undone")

    def _say(self) -> None:
        reconstruction, kl, scale = self._said
        images_per_second = (self.step - 1) * self.batch_size / (self.seconds + 1e-9)
        self.bar.set_postfix_str(
            f"{images_per_second:,.0f} images/s, ELBO {reconstruction - kl:.1f} = {reconstruction:.1f} - {kl:.1f} "
            f"nats, σ {scale:.4f}",
            refresh=False,  # at most ten times a second, as the bar itself
        )
        self.bar.update(min(100, 100 * self.progress) - self.bar.n)

    def _look_is_due(self) -> bool:
        """Tell whether to measure now: often enough, and without spending more than MAX_MEASURING on it.

        By the clock if the run is; else by the number of pictures, which is the same whenever a run is repeated.
        """
        if self.options.minutes:
            is_quick = self.looking_seconds <= MAX_MEASURING * self.seconds
        else:
            split = self.split
            pictures = min(CALIBRATION, len(split.measured)) + 2 * len(split.held_out) + len(split.labelled.images)
            is_quick = self.looks * FORWARD * pictures <= MAX_MEASURING * self.step * self.batch_size
        return is_quick and self.progress * self.options.evaluations >= self.looks + 1

    def _look(self) -> None:
        """Measure the averaged weights in the main process."""
        began = time.monotonic()
        if self.accelerator.is_main_process and math.isfinite(self._said[0]):  # else no step was good yet
            self._measure(self.state.average.model, self._said[0] - self._said[1])
        self.looks += 1
        self.looking_seconds += time.monotonic() - began

    @property
    def epochs(self) -> float:
        """Passes over the training pictures so far, without steps that were taken back."""
        return (self.step - self.skipped) * self.batch_size / len(self.split.train)

    # --- checkpoints -------------------------------------------------------------------------------------------------

    PROGRESS = "step", "seconds", "looks", "looking_seconds", "inherited", "skipped", "in_a_row", "best", "untrained"

    def _write_checkpoint(self) -> None:
        """Write all that `resume` needs. All processes must call this together."""
        self._checkpoint_seconds = self.seconds
        checkpoint = self.state.checkpoint(self._good)
        if self.accelerator.is_main_process:
            self.checkpoints.write(
                self.step,
                checkpoint
                | {
                    "pictures": [len(self.split.train), len(self.split.held_out)],
                    "progress": {name: getattr(self, name) for name in self.PROGRESS} | {"said": list(self._said)},
                    "figures": to_json(self.figures),
                    "history": [asdict(look) for look in self.history],
                    "kept": pack_model(self.kept),
                },
            )

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint: the next step, if nothing draws random numbers before it, is the one after it.

        Raises ValueError if the pictures are others.
        """
        if saved["pictures"] != [len(self.split.train), len(self.split.held_out)]:
            raise ValueError(
                f"{saved['path']} is from a run with {saved['pictures'][0]} training pictures, but there are "
                f"{len(self.split.train)} now: start a new run"
            )
        for name in self.PROGRESS:
            setattr(self, name, saved["progress"][name])
        self._said = tuple(saved["progress"]["said"])
        self._checkpoint_seconds = self.seconds
        minutes = self.options.minutes
        self.progress = self.seconds / 60 / minutes if minutes else self.step / self.total_steps
        self.history = [parse(Look, look, "history") for look in saved["history"]]
        figures, now = parse(Figures, saved["figures"], "figures"), self.figures.training
        if now and figures.training:  # the command may have another --epochs
            figures = replace(figures, training=replace(figures.training, command=now.command))
        self.figures = figures
        if self.accelerator.is_main_process:
            kept = unpack_model(saved["kept"])
            if kept:
                self.kept = kept.to(self.accelerator.device).to(memory_format=torch.channels_last)
                self.kept.prior.to(self.accelerator.device)  # a model doesn't take it along
        self.checkpoints.written = sorted(self.checkpoints.folder.glob("step-*.pt"))
        self.state.go_on(saved)

    # --- what is measured and kept -----------------------------------------------------------------------------------

    def _measure(self, model: VAE, train_elbo: float) -> None:
        """Measure the model on held-out pictures, and keep it if it is better than untrained and than those before."""
        bound, validation = self.bound(model, self.split.held_out)
        minutes, steps = self.seconds / 60, self.step - self.skipped
        where = f"epoch {self.epochs:.1f}, {minutes:.1f} min"
        if not math.isfinite(bound + validation.elbo):
            tqdm.write(f"{where}: the averaged weights give no finite ELBO")
            return
        tqdm.write(
            f"{where}: held-out ELBO {validation.elbo:.2f} = {validation.reconstruction:.2f} - {validation.kl:.2f} nats, "
            f"MSE {validation.mse:.5f}, σ {validation.scale:.4f}, {validation.active_units} active units"
        )
        if failures.has_collapsed(validation.active_units, model.config.latent_dim):
            tqdm.write(failures.COLLAPSE_ADVICE)
        before = self.history[self.inherited - 1] if self.inherited else None  # the curves of --init go on
        self.history.append(
            Look(
                step=steps + (before.step if before else 0),
                epochs=self.epochs + (before.epochs if before else 0),
                minutes=minutes + (before.minutes if before else 0),
                train_elbo=train_elbo,
                validation_elbo=validation.elbo,
                validation_kl=validation.kl,
                validation_mse=validation.mse,
            )
        )
        speed = (self.step - 1) * self.batch_size / (self.seconds + 1e-9)
        track(self.accelerator, self.step, self.history[-1], validation, self._said, speed, model, self.split.held_out)
        if (self.options.keep == "last" or bound >= self.best) and self._is_better_than_untrained(model, bound):
            model.directions = directions_of(model, self.split.labelled)
            assert self.figures.training
            record = replace(self.figures.training, steps=steps, epochs=self.epochs, seconds=self.seconds)
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
            torch.default_generator.manual_seed(self.options.seed)  # the CPU's alone
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
            if self.accelerator.is_main_process and not self._stopped and not self.failure and self.kept:
                self.checkpoints.remove()
        finally:
            self.accelerator.wait_for_everyone()  # who leaves first while another still measures may abort
            self.accelerator.end_training()
        if not self.accelerator.is_main_process:
            return
        ended = f"{'stopped' if self._stopped else 'trained'} after {self.seconds / 60:.1f} minutes"
        if self.kept is None and not self.failure:
            found = f"{self.history[-1].validation_elbo:.6g}" if self.history[self.inherited :] else "not finite"
            self.failure = (
                f"{ended}, the weights are no better than untrained ones (held-out ELBO {found}, untrained "
                f"{self.untrained:.6g} nats): train for longer, or with a lower --lr"
            )
        if self.failure:
            raise ValueError(f"{self.failure}; {self.what_is_kept()}")
        if self.skipped:
            print(f"{self.skipped} of {self.step} steps were undone: they gave values that were not finite")
        print(f"{ended}; {self.what_is_kept()}{self.checkpoints.advice if self._stopped else ''}")

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
