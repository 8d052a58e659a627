"""How a training computes: in which precision, with a compiled model or not, with each step as a CUDA graph or not."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import TorchDynamoPlugin
from torch import Tensor

from vae.images import to_unit
from vae.model import VAE
from vae.training.failures import first_line
from vae.training.options import OptimizerOptions, RunOptions
from vae.training.step import WARM_UP, GraphedStep

FAST_BF16 = 8, 0  # compute capability of CUDA devices, that of Ampere
COMPILE_SECONDS = 30  # which torch.compile takes for a model of the usual size on a machine with a GPU
MIN_RUN = 4 * COMPILE_SECONDS  # a shorter one can't save as much as compiling takes
TRIAL_PASSES = 20


class Speed(NamedTuple):
    """What was chosen, and what to say of it."""

    mixed_precision: str
    compile: bool
    cuda_graph: bool
    said: str

    @property
    def options(self) -> dict[str, str]:
        """What a run that goes on must do alike, as options. Whether steps are a graph follows from the device."""
        return {"mixed_precision": self.mixed_precision, "compile": "on" if self.compile else "off"}


def name_of(device: torch.device) -> str:
    """Name the hardware, as the figures of a training do."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def choose_speed(
    options: OptimizerOptions,
    run: RunOptions,
    accelerator: Accelerator,
    model: VAE,
    images: Tensor,
    pictures: int,
    samples: int,
) -> Speed:
    """Choose what the options leave to `auto`; the precision is the accelerator's, see `choose_precision`.

    images: some training pictures, a batch or more, (N, C, H, W) uint8 on any device; pictures: how many there are in all;
    samples: of latent vectors for each.
    Raises ValueError if --cuda-graph on can't be had.
    """
    precision = accelerator.mixed_precision
    graph = choose_graph(options.cuda_graph, accelerator)
    compiled, why = choose_compile(options.compile, run, accelerator, model, images, pictures, samples, graph)
    said = f"computing in {'float32' if precision == 'no' else precision}"
    if accelerator.device.type == "cuda":
        said += f", each step {'as one CUDA graph' if graph else 'kernel by kernel'}"
    said += f", {'compiled' if compiled else 'not compiled'}{f' ({why})' if why else ''}"
    return Speed(precision, compiled, graph, said)


def choose_precision(choice: str, device: torch.device) -> str:
    """Return no, bf16 or fp16; for `auto`, bf16 where the device is fast in it.

    Raises ValueError if the device can't train in that precision.
    """
    if choice == "fp16" and device.type == "cpu":
        raise ValueError("--mixed-precision fp16 does not train on a CPU: take auto, bf16 or no")
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= FAST_BF16 else "no"
    if device.type == "cpu":
        return "bf16" if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported() else "no"
    return "no"


def choose_graph(choice: str, accelerator: Accelerator) -> bool:
    """Tell whether each step shall be one CUDA graph. Raises ValueError if it must and can't."""
    is_possible = (
        accelerator.device.type == "cuda"
        and accelerator.num_processes == 1
        and accelerator.mixed_precision != "fp16"  # whose scaler waits for the device in each step
    )
    if choice == "on" and not is_possible:
        raise ValueError(
            "--cuda-graph on needs one process on a CUDA device, in another precision than fp16: take auto"
        )
    return is_possible and choice != "off"


def choose_compile(
    choice: str,
    run: RunOptions,
    accelerator: Accelerator,
    model: VAE,
    images: Tensor,
    pictures: int,
    samples: int,
    graph: bool,
) -> tuple[bool, str]:
    """Tell whether to compile the model, and why; arguments are those of `choose_speed`.

    For `auto`, a copy of the model is tried with and without, as the run would use it, if that may pay. No random number
    of the run is used up.
    """
    if choice != "auto" or accelerator.device.type != "cuda":
        return choice == "on", ""
    if accelerator.num_processes > 1:
        return False, "not tried with several processes"
    x = to_unit(images[: run.batch_size])

    def seconds(compiled: bool) -> float:
        return time_pass(copy.deepcopy(model), x, samples, accelerator.mixed_precision, compiled=compiled, graph=graph)

    with torch.random.fork_rng(devices=[accelerator.device]):
        plain = seconds(compiled=False)
        steps = run.epochs * pictures / len(x) if run.minutes is None else 60 * run.minutes / plain
        if steps * plain < MIN_RUN:
            return False, "the run is too short for it to pay off"
        began = time.monotonic()
        try:
            fast = seconds(compiled=True)
        except (RuntimeError, ImportError, OSError) as error:  # there may be no compiler
            return False, f"it fails here: {first_line(error)}"
        spent = time.monotonic() - began
    why = f"tried: {1e3 * fast:.2f} ms compiled and {1e3 * plain:.2f} ms not, without the optimizer"
    return steps * (plain - fast) > spent, why  # as much as it took, to be had again: some of it is cached


def time_pass(model: VAE, x: Tensor, samples: int, mixed_precision: str, *, compiled: bool, graph: bool) -> float:
    """Measure the seconds of one pass forward and backward on a CUDA device; the model is changed by it."""
    x = x.to(model.log_scale.device)
    forward: Callable[..., tuple[Tensor, ...]] = torch.compile(model) if compiled else model
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed_precision)

    def run(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=half, enabled=half is not None):
            output = forward(x, samples=samples)
        loss = output[0].float().mean() + output[2].float().mean()  # reconstruction and z: of all weights
        model.zero_grad()
        loss.backward()
        return loss.detach()

    step = GraphedStep(run) if graph else run
    for _ in range(WARM_UP + 1):
        step(x)
    torch.cuda.synchronize()
    began = time.monotonic()
    for _ in range(TRIAL_PASSES):
        step(x)
    torch.cuda.synchronize()
    return (time.monotonic() - began) / TRIAL_PASSES


def compile_with(accelerator: Accelerator) -> None:
    """Let accelerate compile the models that it prepares from now on."""
    accelerator.state.dynamo_plugin = TorchDynamoPlugin(backend="inductor")
