"""The optimizer, beside those of torch; the learning rate; the average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from conftest import small_model
from torch import Tensor, nn

from vae.model import ResidualBlock
from vae.prior import Flow
from vae.training.optim import EMA, MuonAdamW, make_optimizer, orthogonalize, ramp, schedule, set_learning_rate


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("shape", [(3, 8, 72), (2, 40, 10), (1, 1, 5)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_singular_values_come_near_to_one(shape: tuple[int, ...], scale: float) -> None:
    matrices = scale * torch.randn(shape, generator=seeded())
    result = orthogonalize(matrices)
    assert result.shape == shape
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # The nearest orthogonal matrix is UVᵀ, and lies in nearly the same direction.
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    for ours, nearest in zip(result, u @ vt, strict=True):
        assert torch.cosine_similarity(ours.flatten(), nearest.flatten(), dim=0) > 0.95


def test_nothing_stays_nothing() -> None:
    assert not orthogonalize(torch.zeros(2, 4, 6)).any()


def gradients(step: int, parameters: list[nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it since 2.9, and 2.8 is supported")
def test_it_does_what_the_one_of_torch_does_to_matrices() -> None:
    start = torch.randn(24, 8, 3, 3, generator=seeded())
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.flatten(1).clone())
    optimizer = MuonAdamW([{"params": [ours], "muon": True}], lr=0.01, weight_decay=0.1)
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        gradients(step, [ours])
        assert ours.grad is not None
        theirs.grad = ours.grad.flatten(1).clone()
        optimizer.step()
        reference.step()
    moved, expected = (ours.detach() - start).flatten(), (theirs.detach() - start.flatten(1)).flatten()
    torch.testing.assert_close(
        moved, expected, rtol=0.05, atol=0.05 * expected.abs().max().item()
    )  # theirs in bfloat16


def test_other_groups_are_those_of_adamw_and_no_gradient_is_lost() -> None:
    def parameters() -> list[nn.Parameter]:
        return [nn.Parameter(torch.randn(5, 3, generator=seeded())), nn.Parameter(torch.ones(4))]

    ours, theirs, convolution = parameters(), parameters(), nn.Parameter(torch.ones(6, 6, 3, 3))
    without_gradient = nn.Parameter(torch.ones(2, 2))
    groups: list[dict[str, Any]] = [
        {"params": [convolution, without_gradient], "muon": True},
        {"params": [*ours, nn.Parameter(torch.ones(2))]},
    ]
    optimizer = MuonAdamW(groups, lr=0.01, weight_decay=0.1)
    reference = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, betas=(0.9, 0.99))
    for step in range(3):
        gradients(step, [*ours, convolution])
        gradients(step, theirs)
        optimizer.step()
        reference.step()
        assert convolution.grad is not None
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(convolution, torch.ones(6, 6, 3, 3))
    assert torch.equal(without_gradient, torch.ones(2, 2))


def test_a_saved_optimizer_goes_on_as_if_nothing_had_happened() -> None:
    def make() -> tuple[list[nn.Parameter], MuonAdamW]:
        weights = [nn.Parameter(torch.randn(shape, generator=seeded())) for shape in ((4, 4, 3, 3), (5,))]
        return weights, MuonAdamW([{"params": weights[:1], "muon": True}, {"params": weights[1:]}], lr=0.01)

    weights, optimizer = make()
    for step in range(4):
        if step == 2:
            state = copy.deepcopy(optimizer.state_dict())
            halfway = [weight.detach().clone() for weight in weights]
        gradients(step, weights)
        optimizer.step()
    again, resumed = make()
    resumed.load_state_dict(state)
    for weight, value in zip(again, halfway, strict=True):
        weight.data.copy_(value)
    for step in (2, 3):
        gradients(step, again)
        resumed.step()
    for a, b in zip(weights, again, strict=True):
        assert torch.equal(a, b)


def test_muon_takes_the_convolutions_of_blocks_and_adamw_all_else() -> None:
    vae, flow = small_model(), Flow(6, 2, 8)
    muon, others = (group["params"] for group in make_optimizer([vae, flow]).param_groups)
    assert {tuple(weight.shape[2:]) for weight in muon} == {(3, 3)}
    blocks = [module for module in vae.modules() if isinstance(module, ResidualBlock)]
    assert len(muon) == 2 * len(blocks)
    assert len(muon) + len(others) == len([*vae.parameters(), *flow.parameters()])


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_the_layout_in_memory_makes_no_difference(format: torch.memory_format) -> None:
    def run(weight: Tensor) -> Tensor:
        parameter = nn.Parameter(weight)
        optimizer = MuonAdamW([{"params": [parameter], "muon": True}], lr=0.01)
        for step in range(3):
            gradients(step, [parameter])
            optimizer.step()
        assert parameter.stride() == weight.stride()
        return parameter.detach()

    weight = torch.randn(8, 8, 3, 3, generator=seeded())
    torch.testing.assert_close(run(weight.clone().to(memory_format=format)), run(weight.clone()))


def test_a_closure_gives_the_gradients_and_the_loss() -> None:
    weight = nn.Parameter(torch.randn(4, 4, 3, 3, generator=seeded()))
    optimizer = MuonAdamW([{"params": [weight], "muon": True}], lr=0.01)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_the_learning_rate_rises_for_3_percent_and_falls_along_a_cosine() -> None:
    assert schedule(0) == pytest.approx(0.01)
    assert schedule(0.03) == pytest.approx(1)
    assert schedule(0.515) == pytest.approx(0.5)
    assert schedule(1) == schedule(1.1) == 0
    optimizer = MuonAdamW([{"params": [nn.Parameter(torch.ones(2, 2))], "muon": True}, {"params": []}])
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize(("progress", "length", "expected"), [(0, 0, 1), (0, 0.5, 0), (0.25, 0.5, 0.5), (0.9, 0.5, 1)])
def test_the_weight_of_the_kl_rises_in_a_line(progress: float, length: float, expected: float) -> None:
    assert ramp(progress, length) == expected


def test_the_average_moves_by_less_and_less_and_copies_counters() -> None:
    model = small_model()
    parts = nn.ModuleList([model])
    ema = EMA(parts)
    ours, theirs = ema.model.state_dict(), model.state_dict()  # which share their memory with the models
    counters = [name for name in theirs if name.endswith("num_batches_tracked")]
    assert counters
    expected = {name: value.clone() for name, value in theirs.items() if name not in counters}
    for step in (*range(1, 4), 10**6):
        ema.steps.fill_(step)
        for value in theirs.values():
            value.add_(1)
        ema.set_decay()
        ema.update(parts)
        decay = min(0.999, step / (10 + step))
        for name, value in expected.items():
            expected[name] = decay * value + (1 - decay) * theirs[name]
            torch.testing.assert_close(ours[name], expected[name])
        assert all(torch.equal(ours[name], theirs[name]) for name in counters)
    assert int(ema.steps) == 10**6 + 1
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.parameters())


def test_a_learned_prior_is_averaged_with_its_model() -> None:
    model, flow = small_model(), Flow(6, 2, 8)
    ema = EMA(nn.ModuleList([model, flow]))
    before = [parameter.clone() for parameter in ema.model.prior.parameters()]
    for parameter in flow.parameters():
        parameter.data.add_(1)
    ema.set_decay()
    ema.update(nn.ModuleList([model, flow]))
    for old, new in zip(before, ema.model.prior.parameters(), strict=True):
        torch.testing.assert_close(new, old + 10 / 11)
    assert math.isfinite(ema.model.prior.log_prob(torch.zeros(1, 6)).item())
