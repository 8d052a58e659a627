from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn.decomposition import PCA

from vae.latent import Path, interpolate, lerp, principal_axes, slerp


@pytest.fixture
def ends() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, generator=generator), torch.randn(32, generator=generator)


@pytest.mark.parametrize("path", ["slerp", "lerp"])
def test_the_ends_are_exact(ends: tuple[torch.Tensor, torch.Tensor], path: Path) -> None:
    a, b = ends
    points = interpolate(a, b, torch.linspace(0, 1, 9), path)
    assert points.shape == (9, 32)
    assert torch.equal(points[0], a)
    assert torch.equal(points[-1], b)


def test_lerp_is_straight_and_even(ends: tuple[torch.Tensor, torch.Tensor]) -> None:
    steps = interpolate(*ends, torch.linspace(0, 1, 9), "lerp").diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lengths", [(3.0, 3.0), (1.0, 5.0)])
def test_slerp_turns_at_a_steady_angle(ends: tuple[torch.Tensor, torch.Tensor], lengths: tuple[float, float]) -> None:
    a, b = (length * torch.nn.functional.normalize(end, dim=0) for end, length in zip(ends, lengths, strict=True))
    points = slerp(a, b, torch.linspace(0, 1, 9))
    torch.testing.assert_close(points.norm(dim=1), torch.linspace(*lengths, 9))
    cosines = torch.nn.functional.cosine_similarity(points[:-1], points[1:])
    torch.testing.assert_close(cosines, cosines[:1].expand(8), atol=1e-4, rtol=0)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 0.0])
def test_slerp_along_one_line_is_straight(ends: tuple[torch.Tensor, torch.Tensor], factor: float) -> None:
    a, t = ends[0], torch.linspace(0, 1, 5)
    torch.testing.assert_close(slerp(a, factor * a, t), interpolate(a, factor * a, t, "lerp"), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("away", [1e-5, 3e-5, 1e-4, 5e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_slerp_is_right_near_parallel_and_near_opposite(away: float, sign: float) -> None:
    """Against the great circle by exact arithmetic: b is `away` radians from a, or from -a."""
    generator = torch.Generator().manual_seed(0)
    a, other = torch.randn(2, 32, generator=generator, dtype=torch.float64)
    other = other - a * (a @ other) / (a @ a)
    other = other * a.norm() / other.norm()  # at a right angle, as long as a
    b = sign * (math.cos(away) * a + math.sin(away) * other)
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    angle = away if sign > 0 else math.pi - away
    turned = t[:, None] * angle
    circle = torch.cos(turned) * a + torch.sin(turned) * other * sign
    points = slerp(a.float(), b.float(), t.float())
    straight = torch.lerp(a, b, t[:, None])
    error = min((points - path).abs().max().item() for path in (circle, straight))
    # float32 rounds the ends by 1e-7 of their length, which tilts the plane of nearly opposite ones by 1e-7 / away.
    assert error < 2e-6 * a.norm().item() / (away if sign < 0 else 1)


def test_bad_input_is_refused(ends: tuple[torch.Tensor, torch.Tensor]) -> None:
    unknown: Any = "bezier"
    with pytest.raises(ValueError, match="got 'bezier'"):
        interpolate(*ends, torch.zeros(1), unknown)
    with pytest.raises(ValueError, match=r"one length, got shapes \(32,\) and \(31,\)"):
        interpolate(ends[0], ends[1][:31], torch.zeros(1))


@pytest.mark.parametrize("walk", [lerp, slerp, interpolate])
def test_a_walk_takes_places_as_a_list_or_of_any_type(ends: tuple[torch.Tensor, torch.Tensor], walk: Any) -> None:
    expected = walk(*ends, torch.tensor([0.0, 1.0]))
    for t in ([0.0, 1.0], [0, 1], torch.tensor([0, 1]), torch.tensor([0.0, 1.0], dtype=torch.float64)):
        assert torch.equal(walk(*ends, t), expected)
    for places in (0.5, torch.tensor(0.5), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="t should be a list of numbers or a tensor of one dimension"):
            walk(*ends, places)
    with pytest.raises(ValueError, match="two latent vectors of one length"):
        walk(ends[0], ends[1][:31], [0.5])


def test_principal_axes_are_those_of_scikit_learn() -> None:
    z = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 2, 1, 0.5, 0.2, 0.1])
    axes, pca = principal_axes(z, 4), PCA(4).fit(z.numpy())
    torch.testing.assert_close(axes.norm(dim=1), torch.from_numpy(pca.explained_variance_).sqrt(), atol=1e-4, rtol=0)
    cosine = (axes / axes.norm(dim=1, keepdim=True) * torch.from_numpy(pca.components_)).sum(1)
    torch.testing.assert_close(cosine.abs(), torch.ones(4), atol=1e-4, rtol=0)
    assert (axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all()
    assert principal_axes(z[:3], 4).shape == (3, 6)
