"""The optimizer, beside those of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vae.training.optim import Muon, orthogonalize


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
    optimizer = Muon([{"params": [ours], "orthogonal": True}], lr=0.01, weight_decay=0.1)
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


def test_other_groups_are_those_of_adamw() -> None:
    def parameters() -> list[nn.Parameter]:
        return [nn.Parameter(torch.randn(5, 3, generator=seeded())), nn.Parameter(torch.ones(4))]

    ours, theirs, convolution = parameters(), parameters(), nn.Parameter(torch.ones(6, 6, 3, 3))
    groups: list[dict[str, Any]] = [{"params": [convolution], "orthogonal": True}, {"params": ours}]
    optimizer = Muon(groups, lr=0.01, weight_decay=0.1)
    reference = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1)
    for step in range(3):
        gradients(step, [*ours, convolution])
        gradients(step, theirs)
        optimizer.step()
        reference.step()
        assert convolution.grad is None
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(convolution, torch.ones(6, 6, 3, 3))


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_the_layout_in_memory_makes_no_difference(format: torch.memory_format) -> None:
    def run(weight: Tensor) -> Tensor:
        parameter = nn.Parameter(weight)
        optimizer = Muon([{"params": [parameter], "orthogonal": True}], lr=0.01)
        for step in range(3):
            gradients(step, [parameter])
            optimizer.step()
        assert parameter.stride() == weight.stride()
        return parameter.detach()

    weight = torch.randn(8, 8, 3, 3, generator=seeded())
    torch.testing.assert_close(run(weight.clone().to(memory_format=format)), run(weight.clone()))


def test_a_closure_gives_the_gradients_and_the_loss() -> None:
    weight = nn.Parameter(torch.randn(4, 4, 3, 3, generator=seeded()))
    optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=0.01)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
