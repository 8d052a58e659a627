"""Checkpoints: all that a training needs to go on to the bit after it was stopped or killed.

A checkpoint holds tensors, numbers and texts, and is read with `torch.load(weights_only=True)`: nothing in it can run code.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import os
import pickle
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn
from tqdm import tqdm

from vae.figures import UNPUBLISHED
from vae.files import write
from vae.model import VAE
from vae.training.failures import first_line
from vae.training.optim import EMA
from vae.training.push import command

T = TypeVar("T")

FORMAT = 3  # of the files; another one is refused
FOLDER = "checkpoints"  # within the output folder
KEPT = 2  # the last checkpoints: a file may be damaged
# What zipfile and torch say of a file in which bits are flipped, or that ends too early.
DAMAGED = (
    *(OSError, RuntimeError, ValueError, EOFError, KeyError, struct.error),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)
# What may be another when a run goes on: where it stops, and what says nothing of the weights.
MAY_CHANGE = UNPUBLISHED | {"epochs", "minutes", "checkpoint_minutes", "resume", "evaluate", "new_pictures"}


# --- what moves from step to step ------------------------------------------------------------------------------------


@dataclass
class TrainingState:
    """All that changes from one step to the next, but for the clock and what was measured.

    facts: what must be the same in a run that goes on, as plain values: the configuration, the model's config, a flow's size.
    """

    accelerator: Accelerator
    parts: nn.ModuleList
    average: EMA
    optimizer: Any
    facts: dict[str, Any]

    def now(self) -> dict[str, Any]:
        """Return the weights, their average, and the state of the optimizer: the very tensors that a step changes."""
        scaler = self.accelerator.scaler  # of gradients in fp16
        return {
            "weights": self.parts.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "scaler": scaler.state_dict() if scaler else {},
        }

    def snapshot(self, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
        """Copy what is `now`, to where an earlier copy is, if there is one."""
        now = self.now()
        if earlier is None:
            return copy.deepcopy(now)
        copy_tensors(now, earlier)
        return earlier | {"scaler": now["scaler"]}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which stays as it is. Tensors stay where they are: a CUDA graph knows no other place."""
        copy_tensors(snapshot, self.now())
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(snapshot["scaler"])

    def is_finite(self) -> Tensor:
        """Tell, as a tensor of one bool, whether weights and buffers were finite after every step so far.

        The average says it of all steps: once it has met a number that is not finite, it stays so.
        """
        numbers = [tensor for tensor in self.average.state_dict().values() if tensor.is_floating_point()]
        return nn.utils.get_total_norm(numbers).isfinite()

    def checkpoint(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        """Return a snapshot, the random states of all processes, and what a run that goes on must have in common with it.

        All processes must call this together.
        """
        device = self.accelerator.device
        states = [torch.get_rng_state()]
        if device.type != "cpu":
            states.append(torch.get_device_module(device).get_rng_state())
        everyone = cast(Tensor, self.accelerator.gather(torch.cat(states)[None].to(device))).cpu()  # (processes, bytes)
        return {
            "facts": self.facts,
            "processes": self.accelerator.num_processes,
            "device": device.type,
            "threads": torch.get_num_threads(),
            "state": snapshot,
            "random": everyone,
        }

    def go_on(self, saved: dict[str, Any]) -> None:
        """Restore what `checkpoint` returned, with this process's random numbers, and the number of threads."""
        torch.set_num_threads(saved["threads"])  # another number would round otherwise
        self.restore(saved["state"])
        mine = saved["random"][self.accelerator.process_index]
        length = len(torch.get_rng_state())
        torch.set_rng_state(mine[:length].clone())
        if self.accelerator.device.type != "cpu":
            torch.get_device_module(self.accelerator.device).set_rng_state(mine[length:].clone())


def copy_tensors(source: dict[Any, Any], target: dict[Any, Any]) -> None:
    """Copy all tensors of a nested table into those of another one with the same keys, many at once."""
    alike: defaultdict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = defaultdict(
        lambda: ([], [])
    )

    def collect(source: dict[Any, Any], target: dict[Any, Any]) -> None:
        assert source.keys() == target.keys()
        for name, value in source.items():
            if isinstance(value, dict):
                collect(value, target[name])
            elif isinstance(value, Tensor):
                for tensors, each in zip(alike[target[name].device, value.dtype], (value, target[name]), strict=True):
                    tensors.append(each)

    collect(source, target)
    for sources, targets in alike.values():
        torch._foreach_copy_(targets, sources)


# --- configurations as plain values ----------------------------------------------------------------------------------


def to_plain(config: Any) -> dict[str, Any]:
    """Turn a configuration of nested dataclasses into numbers, texts and tables; paths become absolute."""

    def table(items: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in items}

    return dataclasses.asdict(config, dict_factory=table)


def from_plain(kind: type[T], values: dict[str, Any]) -> T:
    """Build the configuration of which `to_plain` made the values. Raises TypeError or KeyError if it didn't."""
    hints = get_type_hints(kind)
    built: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            built[name] = from_plain(cast(type, hints[name]), value)
        else:
            built[name] = Path(value) if value is not None and Path in (hints[name], *get_args(hints[name])) else value
    return kind(**built)


def options_of(values: dict[str, Any]) -> dict[str, Any]:
    """Return all options of a configuration of nested tables in one table."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= options_of(value) if isinstance(value, dict) else {name: value}
    return found


def stored_config(folder: Path, kind: type[T]) -> T:
    """Return the configuration of the run in `folder` that is to go on. Raises ValueError if there is none."""
    saved = read_checkpoint(folder)
    try:
        config: Any = from_plain(kind, saved["facts"]["config"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the checkpoints in {folder / FOLDER} are from another version: start a new run ({error})"
        ) from error
    config.output.output = config.run.resume = folder
    return cast(T, config)


# --- files -----------------------------------------------------------------------------------------------------------


class Checkpoints:
    """The last checkpoints of a run, in a folder within its output folder. They are never pushed."""

    def __init__(self, output: Path) -> None:
        self.folder = output / FOLDER
        self.written: list[Path] = []  # by this run, or by that which it goes on with

    def write(self, step: int, checkpoint: dict[str, Any]) -> None:
        """Write a checkpoint, whole or not at all, and remove older ones; say so, and go on, if that can't be done."""
        path = self.folder / f"step-{step:09}.pt"
        content = io.BytesIO()  # torch's own writer ends the program on a full disk
        torch.save(checkpoint | {"format": FORMAT}, content)
        try:
            self.folder.mkdir(exist_ok=True)
            write(path, lambda part: _write_through(part, content.getbuffer()))
            _synchronize(self.folder)
            self.written = [*(earlier for earlier in self.written if earlier != path), path][-KEPT:]
            for other in self.folder.iterdir():  # of this run, of an earlier one, or half of one
                if other not in self.written:
                    other.unlink()
        except OSError as error:
            tqdm.write(f"{error.strerror or error}: the run goes on without a new checkpoint")

    def remove(self) -> None:
        """Remove all: the run has ended in order."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def advice(self) -> str:
        """What to say of going on, after a semicolon; empty if there is no checkpoint."""
        if not self.written:
            return ""
        return f"; to resume: {command('--resume', str(self.folder.parent))}"


def read_checkpoint(output: Path) -> dict[str, Any]:
    """Read the last whole checkpoint of the run in the folder `output`, on the CPU; `path` in it says which it is.

    A damaged one is said, and the one before it taken. Raises ValueError in one sentence if there is none.
    """
    paths = sorted((output / FOLDER).glob("step-*.pt"), reverse=True)
    if not paths:
        raise ValueError(
            f"{output} has no checkpoint of a stopped run: start anew, or from its weights with --init {output}"
        )
    reasons = []
    for path in paths:
        try:
            return _read(path) | {"path": path}
        except ValueError as error:
            reasons.append(str(error))
            if path != paths[-1]:
                tqdm.write(f"{error}: using the one before it")
    raise ValueError(f"{reasons[-1]}, and there is no other: start a new run")


def load_checkpoint(config: Any, processes: PartialState) -> dict[str, Any]:
    """Read the checkpoint that `config.run.resume` names. Raises ValueError in one sentence if it can't go on to the bit."""
    folder, output = config.run.resume, config.output.output
    if output and output.resolve() != folder.resolve():
        raise ValueError(f"a resumed run writes to its own folder: leave out --output {output}, or copy {folder} first")
    saved = read_checkpoint(folder)
    before, now = (options_of(values) for values in (saved["facts"]["config"], to_plain(config)))
    for name in now.keys() - MAY_CHANGE:
        if name not in before or before[name] != now[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} is {before.get(name)} in {saved['path']} and can't become {now[name]}: "
                "only --epochs and --minutes may change when a run is resumed"
            )
    for what, value in (("processes", processes.num_processes), ("device", processes.device.type)):
        if saved[what] != value:
            raise ValueError(f"{what}: {saved['path']} is from {saved[what]}, this is {value}; resume with the same")
    return saved


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Raises ValueError, without an advice, if it is damaged or of another version."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load doesn't look at the checksums
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"checksum of {damaged}")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged ({first_line(error)})") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise ValueError(f"{path} is of another version")
    return checkpoint


def _write_through(path: Path, content: memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _synchronize(folder: Path) -> None:
    """Make a change of names in a folder last, where the system can: after a loss of power, too."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- models within a checkpoint --------------------------------------------------------------------------------------


def pack_model(model: VAE | None) -> dict[str, Tensor]:
    """Turn a model, with prior and directions, into the bytes of its files, by name: none if there is no model."""
    if model is None:
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        return {
            path.name: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            for path in Path(scratch).iterdir()
        }


def unpack_model(files: dict[str, Tensor]) -> VAE | None:
    """Make the model of which `pack_model` made the files, on the CPU. Raises ValueError if they are broken."""
    if not files:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in files.items():
            (Path(scratch) / Path(name).name).write_bytes(content.numpy().tobytes())
        model = VAE.from_pretrained(scratch)
    model.origin = None  # that folder is gone
    return model
