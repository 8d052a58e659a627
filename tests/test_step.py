"""One training step: nothing in it waits for a GPU, and as a CUDA graph it does what it does without."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from conftest import small_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import train
from vae import VAE, VAEConfig
from vae.prior import Flow, StandardNormal
from vae.training.checkpoint import TrainingState
from vae.training.optim import EMA, make_optimizer, set_learning_rate
from vae.training.step import WARM_UP, GraphedStep

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class NoHost(TorchDispatchMode):
    """Refuse every operation that reads or makes a tensor of the CPU: on a GPU it would be copied, or waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        assert {tensor.device.type for tensor in tensors} <= {"cuda"}, func
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return result


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize(
    ("loss", "data"),
    [
        ({"prior": "flow"}, {"shift": 2}),
        ({"likelihood": "bernoulli", "samples": 3}, {"binarize": "dynamic"}),
        ({"likelihood": "mse"}, {}),
    ],
)
def test_nothing_in_a_step_waits_for_a_gpu_or_copies_to_it(
    loss: dict[str, Any], data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = train.TrainConfig(data=train.DataOptions(**data), loss=train.LossOptions(**loss))
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda self, memo: self, raising=False)
    # Of tensors that say they are on a GPU, and need none; where there is one, of real ones, as fakes of it can't be copied.
    with nullcontext() if torch.cuda.is_available() else FakeTensorMode():
        with torch.device("cuda"):
            vae = VAE(VAEConfig(width=8, depth=1, latent_dim=6, likelihood=config.loss.likelihood))
            parts = nn.ModuleList([vae, Flow(6, 2, 8)] if config.loss.prior == "flow" else [vae])
            x, beta = torch.rand(16, 1, 28, 28), torch.zeros(())
        log_prior = parts[1] if len(parts) > 1 else StandardNormal().log_prob if config.loss.samples > 1 else None

        def backward(loss: Tensor) -> None:  # all of it is torch's own, and its threads want a real GPU
            assert loss.requires_grad
            for weight in parts.parameters():
                weight.grad = torch.ones_like(weight)

        monkeypatch.setattr(accelerator, "backward", backward)
        ema, optimizer = EMA(parts), make_optimizer(parts)
        set_learning_rate(optimizer, 1e-3)
        ema.set_decay()
        with NoHost():
            result = train.training_step(
                x,
                config=config,
                accelerator=accelerator,
                model=vae,
                log_prior=log_prior,
                beta=beta,
                optimizer=optimizer,
                parts=parts,
                ema=ema,
            )
    assert result.shape == (4,)
    assert result.device.type == "cuda"
    assert not result.requires_grad


# --- as a CUDA graph -------------------------------------------------------------------------------------------------


class Counter:
    """A step that can be counted: it returns the sum of what it was given and of how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.sum() + 100 * self.calls


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Pretend that there is a GPU: a graph is captured by calling the step, and replayed by calling it again."""
    pretended = SimpleNamespace(capturing=None, fails=False, streams=[], random=[])

    class Graph:
        captured: tuple[Callable[[Tensor], Tensor], Tensor, Tensor]

        def replay(self) -> None:
            step, x, result = self.captured
            result.copy_(step(x))

    @contextmanager
    def graph(graph: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        pretended.capturing = graph
        yield
        if pretended.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    def capture(self: GraphedStep, x: Tensor) -> None:
        real(self, x)
        if self.graph:
            self.graph.captured = (self.step, self.x, self.result)  # type: ignore[attr-defined]

    real = GraphedStep._capture
    generator = SimpleNamespace(clone_state=lambda: "random", graphsafe_set_state=pretended.random.append)
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "Stream": lambda: stream,
        "stream": lambda stream: nullcontext(),
        "current_stream": lambda: stream,
        "set_stream": pretended.streams.append,
        "current_device": lambda: 0,
        "default_generators": (generator,),
        "CUDAGraph": Graph,
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(GraphedStep, "_capture", capture)
    return pretended


def test_a_graph_is_captured_once_and_replayed_with_each_new_batch(cuda: SimpleNamespace) -> None:
    count = Counter()
    step = GraphedStep(count)
    batches = [torch.full((2,), float(number)) for number in range(8)]
    results = [step(x) for x in batches]
    assert count.calls == WARM_UP + 1 + 5  # the capture itself counts here, and takes no step on a GPU
    assert [int(result) % 100 for result in results] == [int(x.sum()) for x in batches]
    assert len({int(result) for result in results}) == 8  # none was written over by the next
    captured = cuda.capturing
    assert int(step(torch.ones(3))) % 100 == 3  # of another size: called as it is
    assert int(step(torch.ones(2))) % 100 == 2
    assert cuda.capturing is captured


def test_a_step_that_cannot_be_captured_is_called_as_it_is(
    cuda: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    cuda.fails = True
    step, x = GraphedStep(Counter()), torch.ones(2)
    results = [int(step(x)) % 100 for _ in range(6)]
    assert results == [2] * 6
    said = capsys.readouterr().out
    assert said.count("can't be captured as a CUDA graph (operation not permitted when stream is capturing)") == 1
    assert len(cuda.streams) == 1  # as before the capture
    assert cuda.random == ["random"]
    required = GraphedStep(Counter(), is_required=True)
    for _ in range(WARM_UP):
        required(x)
    with pytest.raises(ValueError, match="leave out --cuda-graph on"):
        required(x)


def trained(device: str, wrap: Callable[[Any], Any], steps: int, take_back: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Take steps of a small model on a device; return its average and what the last step returned."""
    torch.manual_seed(0)
    config = train.TrainConfig(data=train.DataOptions(shift=1), loss=train.LossOptions(prior="flow"))
    accelerator = Accelerator(cpu=device == "cpu")
    parts = nn.ModuleList([small_model(likelihood="spectral").train(), Flow(6, 2, 8)]).to(device)
    ema, optimizer, beta = EMA(parts), make_optimizer(parts), torch.zeros((), device=device)
    step = wrap(
        partial(
            train.training_step,
            config=config,
            accelerator=accelerator,
            model=parts[0],
            log_prior=parts[1],
            beta=beta,
            optimizer=optimizer,
            parts=parts,
            ema=ema,
        )
    )
    state = TrainingState(accelerator, parts, ema, optimizer, {})
    pictures = torch.rand(steps, 16, 1, 28, 28, generator=torch.Generator().manual_seed(1)).to(device)
    start = state.snapshot()
    result = torch.empty(4)
    for number, x in enumerate(pictures):
        if take_back and number == steps // 2:
            good = state.snapshot(start)
            random = torch.get_device_module(device).get_rng_state() if device != "cpu" else torch.get_rng_state()
            step(x + float("nan"))
            assert not state.is_finite()
            state.restore(good)
            assert state.is_finite()
            (torch.get_device_module(device).set_rng_state if device != "cpu" else torch.set_rng_state)(random)
        set_learning_rate(optimizer, 1e-3 * (number + 1))
        beta.fill_(number / steps)
        ema.set_decay()
        result = step(x)
    return copy.deepcopy(ema.state_dict()), result.cpu()


def test_a_step_that_was_taken_back_leaves_no_trace() -> None:
    plain, expected = trained("cpu", lambda step: step, 6, take_back=False)
    again, result = trained("cpu", lambda step: step, 6, take_back=True)
    assert torch.equal(result, expected)
    for name, value in plain.items():
        assert torch.equal(again[name], value), name


@needs_cuda
@pytest.mark.parametrize("take_back", [False, True])
def test_on_a_gpu_a_graph_does_what_the_step_does(take_back: bool) -> None:
    torch.backends.cudnn.deterministic = True
    plain, expected = trained("cuda", lambda step: step, 12, take_back=False)
    again, result = trained("cuda", GraphedStep, 12, take_back)
    assert torch.equal(result, expected)
    for name, value in plain.items():
        assert torch.equal(again[name], value), name
