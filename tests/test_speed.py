"""In which precision, compiled or not, as a graph or not: what `auto` chooses on devices that are not there."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import small_model

from vae.training import speed
from vae.training.options import OptimizerOptions, RunOptions
from vae.training.speed import choose_compile, choose_graph, choose_precision, choose_speed

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
PICTURES = torch.zeros(640, 1, 28, 28, dtype=torch.uint8)


def machine(device: torch.device, processes: int = 1, mixed_precision: str = "no") -> Any:
    return SimpleNamespace(device=device, num_processes=processes, mixed_precision=mixed_precision)


@pytest.mark.parametrize(
    ("device", "has_amx", "capability", "expected"),
    [
        (CPU, False, None, "no"),
        (CPU, True, None, "bf16"),
        (CUDA, False, (7, 5), "no"),
        (CUDA, False, (8, 0), "bf16"),
        (CUDA, False, (10, 0), "bf16"),
        (MPS, True, None, "no"),
    ],
)
def test_bf16_is_taken_where_it_is_fast(
    device: torch.device, has_amx: bool, capability: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", device) == expected
    assert choose_precision("bf16", device) == "bf16"
    assert choose_precision("no", device) == "no"


def test_fp16_is_refused_on_a_cpu() -> None:
    assert choose_precision("fp16", CUDA) == "fp16"
    with pytest.raises(ValueError, match="--mixed-precision fp16 does not train on a CPU: take auto, bf16 or no"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("device", "processes", "precision", "is_possible"),
    [(CUDA, 1, "bf16", True), (CUDA, 1, "fp16", False), (CUDA, 2, "no", False), (CPU, 1, "no", False)],
)
def test_a_step_is_a_graph_on_one_gpu(device: torch.device, processes: int, precision: str, is_possible: bool) -> None:
    where = machine(device, processes, precision)
    assert choose_graph("auto", where) == is_possible
    assert not choose_graph("off", where)
    if is_possible:
        assert choose_graph("on", where)
    else:
        with pytest.raises(ValueError, match="--cuda-graph on needs one process on a CUDA device"):
            choose_graph("on", where)


@pytest.mark.parametrize(
    ("plain", "fast", "epochs", "minutes", "expected", "said"),
    [
        (0.002, 0.001, 1, None, False, "short"),  # 10 steps
        (0.002, 0.001, 10_000, None, True, "1.00 ms compiled and 2.00 ms not"),
        (0.002, 0.001, 1, 60.0, True, "1.00 ms compiled"),  # it is the clock that counts
        (0.002, 0.001, 10_000, 1.0, False, "short"),
        (0.002, 0.00199, 8_000, None, False, "1.99 ms compiled"),  # saves 0.8 s, and takes 25
        (0.002, RuntimeError("no compiler\n…"), 10_000, None, False, "it fails here: no compiler"),
    ],
)
def test_a_model_is_compiled_if_that_saves_time(
    plain: float,
    fast: Any,
    epochs: float,
    minutes: float | None,
    expected: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, model = [0.0], small_model()

    def time_pass(model: Any, x: Any, samples: int, precision: str, *, compiled: bool, graph: bool) -> float:
        assert len(x) == 64
        clock[0] += 25 if compiled else 1
        if compiled and isinstance(fast, Exception):
            raise fast
        return fast if compiled else plain

    monkeypatch.setattr(speed, "time_pass", time_pass)
    monkeypatch.setattr(speed.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())
    run = RunOptions(epochs=epochs, minutes=minutes)
    arguments = (run, machine(CUDA), model, PICTURES, len(PICTURES), 1, True)
    compiled, why = choose_compile("auto", *arguments)
    assert compiled == expected
    assert said in why
    assert choose_compile("on", *arguments) == (True, "")
    assert choose_compile("off", *arguments) == (False, "")


def test_a_processor_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", None)
    options, run = OptimizerOptions(), RunOptions(epochs=10_000)
    chosen = choose_speed(options, run, machine(CPU), small_model(), PICTURES, len(PICTURES), 1)
    assert chosen.options == {"mixed_precision": "no", "compile": "off"}
    assert not chosen.cuda_graph
    assert chosen.said == "computing in float32, not compiled"
