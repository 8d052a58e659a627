"""Kill a training again and again, go on each time, and compare its weights with those of one that nobody disturbed:

python tests/benchmarks/kills.py --kills 20

The system ends it (SIGKILL) a few milliseconds after steps drawn by chance: within a step, or while a checkpoint is written.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import tyro

from train import ModelOptions, OutputOptions, RunOptions, TrainConfig, train
from vae.data import load_examples
from vae.figures import Figures
from vae.files import fingerprint
from vae.training.checkpoint import stored_config
from vae.training.run import Run

MAX_DELAY = 0.05  # seconds between a step and the kill
NEVER = 0


def train_until(kill: int, output: Path, steps: int) -> None:
    """Train a tiny model, from the last checkpoint if there is one; end the process soon after the step `kill`."""
    with open(os.devnull, "w") as nowhere:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere.fileno(), stream.fileno())
    after_step = Run.after_step

    def count(run: Run, step: int, *rest: Any) -> None:
        if step == kill:
            threading.Timer(random.uniform(0, MAX_DELAY), os.kill, (os.getpid(), signal.SIGKILL)).start()
        after_step(run, step, *rest)

    mock.patch.object(Run, "after_step", count).start()
    pictures = load_examples("mnist").images
    config = TrainConfig(
        model=ModelOptions(latent_dim=8, width=8, depth=1),
        run=RunOptions(epochs=steps / (len(pictures) // 16), batch_size=16, checkpoint_minutes=1e-6, evaluations=4),
        output=OutputOptions(output=output),
    )
    if list((output / "checkpoints").glob("step-*.pt")):
        config = stored_config(output, TrainConfig)
    train(config, pictures)


def run(kill: int, output: Path, steps: int) -> int:
    """Do `train_until` in a process of its own; return its exit status."""
    fork = multiprocessing.get_context("fork")  # what is imported is imported once
    child = fork.Process(target=train_until, args=(kill, output, steps))
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def main(kills: int = 20, steps: int = 600, seed: int = 0) -> None:
    """Train once undisturbed and once with kills, print both fingerprints, and fail if they differ.

    Args:
        kills: How many.
        steps: Of each training, about.
        seed: Of the steps to kill at.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # or the load of the machine would have a say
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        assert run(NEVER, whole, steps) == 0, "the undisturbed training failed"
        training = Figures.read(whole).training
        assert training
        drawn = random.Random(seed).sample(range(5, training.steps - 20), kills)
        for number, step in enumerate(sorted(drawn), start=1):
            status = run(step, killed, steps)
            written = sorted(path.name for path in (killed / "checkpoints").glob("*"))
            print(f"kill {number} at step {step}: exit status {status}, {', '.join(written)}", flush=True)
            assert status != 0, "it came to its end before the kill"
        assert run(NEVER, killed, steps) == 0, "it did not go on to its end"
        prints = [fingerprint(path) for path in (whole, killed)]
        print(f"undisturbed {prints[0]}\nkilled      {prints[1]}")
        if prints[0] != prints[1]:
            sys.exit("the weights differ")


if __name__ == "__main__":
    tyro.cli(main)
