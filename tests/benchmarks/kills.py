"""Kill a training again and again, go on each time, and compare its weights with those of one that nobody disturbed:

python tests/benchmarks/kills.py --kills 20

The system ends it (SIGKILL) a few milliseconds after steps drawn by chance: within a step, or while a checkpoint is written.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import tyro

from train import ModelOptions, OutputOptions, RunOptions, TrainConfig, train
from vae.data import load_examples
from vae.files import fingerprint
from vae.training.checkpoint import stored_config
from vae.training.run import Run

MAX_DELAY = 0.05  # seconds between a step and the kill
NEVER = 0


def train_until(kill: int, output: Path, steps: int) -> None:
    """Train a tiny model, from the last checkpoint if there is one; end the program soon after the step `kill`."""
    after_step = Run.after_step

    def count(run: Run, step: int, *rest: Any) -> None:
        if step == kill:
            delay = random.uniform(0, MAX_DELAY)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        after_step(run, step, *rest)

    mock.patch.object(Run, "after_step", count).start()
    pictures = load_examples("mnist").images
    config = TrainConfig(
        model=ModelOptions(latent_dim=8, width=8, depth=1),
        run=RunOptions(epochs=steps / (len(pictures) // 16), batch_size=16, checkpoint_minutes=1e-6, evaluations=4),
        output=OutputOptions(output=output),
    )
    if (output / "checkpoints").exists():
        config = stored_config(output, TrainConfig)
    train(config, pictures)


def run(kill: int, output: Path, steps: int, processes: int) -> int:
    """Do `train_until` in programs of their own; return the exit status."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), __file__, "--output", str(output)]
    command += ["--steps", str(steps), "--until", str(kill)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"ACCELERATE_USE_CPU": "true"} if processes > 1 else {})
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def main(
    kills: int = 20,
    steps: int = 1500,
    processes: int = 1,
    seed: int = 0,
    until: int | None = None,
    output: Path = Path(),
) -> None:
    """Train once undisturbed and once with kills, print both fingerprints, and fail if they differ.

    Args:
        kills: How many.
        steps: Of each training.
        processes: That train together, on the CPU if there are several.
        seed: Of the steps to kill at.
        until: Used by the script itself: the step to end at.
        output: Used by the script itself: the folder to train into.
    """
    if until is not None:
        train_until(until, output, steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        assert run(NEVER, whole, steps, processes) == 0, "the undisturbed training failed"
        for number, step in enumerate(sorted(random.Random(seed).sample(range(20, steps - 20), kills)), start=1):
            status = run(step, killed, steps, processes)
            written = sorted(path.name for path in (killed / "checkpoints").iterdir())
            print(f"kill {number} at step {step}: exit status {status}, {', '.join(written)}", flush=True)
            assert status != 0, "it came to its end before the kill"
        assert run(NEVER, killed, steps, processes) == 0, "it did not go on to its end"
        prints = [fingerprint(path) for path in (whole, killed)]
        print(f"undisturbed {prints[0]}\nkilled      {prints[1]}")
        if prints[0] != prints[1]:
            sys.exit("the weights differ")


if __name__ == "__main__":
    tyro.cli(main)
