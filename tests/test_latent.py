from __future__ import annotations

import json
import re
from pathlib import Path as FilePath
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from vae.latent import Directions, Path, interpolate, load_directions, principal_axes, save_directions, slerp


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


def test_bad_input_is_refused(ends: tuple[torch.Tensor, torch.Tensor]) -> None:
    unknown: Any = "bezier"
    with pytest.raises(ValueError, match="got 'bezier'"):
        interpolate(*ends, torch.zeros(1), unknown)
    with pytest.raises(ValueError, match=r"one length, got shapes \(32,\) and \(31,\)"):
        interpolate(ends[0], ends[1][:31], torch.zeros(1))


# --- directions ------------------------------------------------------------------------------------------------------

ATTRIBUTES = {"size": ("small", "medium", "large"), "colour": ("red", "blue"), "only": ("one",)}


def labelled(n: int = 4000, noise: float = 0.05) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents that are sums of known effects, their labels, of which large ones are mostly blue, and the effects."""
    generator = torch.Generator().manual_seed(0)
    effects = torch.randn(6, 8, generator=generator)
    size = torch.randint(3, (n,), generator=generator)
    colour = (torch.rand(n, generator=generator) < torch.tensor([0.1, 0.5, 0.9])[size]).long()
    z = 5 + effects[size] + effects[3 + colour] + noise * torch.randn(n, 8, generator=generator)
    return z, torch.stack([size, colour, torch.zeros(n, dtype=torch.int64)], dim=1), effects


def test_effects_are_found_although_labels_go_together() -> None:
    z, labels, effects = labelled()
    directions = Directions.fit(z, labels, ATTRIBUTES)
    assert directions.effects.shape == directions.scores.shape == (6, 8)
    for part in (slice(0, 3), slice(3, 5)):
        found, true = directions.effects[part], effects[part]
        torch.testing.assert_close(found - found[:1], true - true[:1], atol=0.02, rtol=0)
    torch.testing.assert_close(directions.mean, z.mean(0))
    torch.testing.assert_close(directions.std, z.std(0))
    assert directions.effects[5].norm() < 1e-5  # of what is always so, nothing can be known
    assert (directions.tell(z) == labels).float().mean() > 0.999


def test_the_discriminants_are_those_of_scikit_learn() -> None:
    z, labels, _ = labelled(noise=1.0)
    directions = Directions.fit(z, labels[:, :1], {"size": ATTRIBUTES["size"]})
    theirs = torch.from_numpy(LinearDiscriminantAnalysis().fit(z.numpy(), labels[:, 0].numpy()).predict(z.numpy()))
    assert (directions.tell(z)[:, 0] == theirs).float().mean() > 0.995


def test_turning_replaces_an_effect_and_leaves_the_others() -> None:
    z, labels, effects = labelled()
    directions = Directions.fit(z, labels, ATTRIBUTES)
    turned = directions.turn(z, "size", 2)
    torch.testing.assert_close(turned - z, effects[2] - effects[labels[:, 0]], atol=0.05, rtol=0)
    assert (directions.tell(turned) == torch.tensor([2, 0, 0]) + labels * torch.tensor([0, 1, 0])).float().mean() > 0.99
    torch.testing.assert_close(directions.turn(turned, "size", labels[:, 0]), z, atol=1e-4, rtol=0)
    assert torch.equal(directions.turn(z, "size", labels[:, 0], labels[:, 0]), z)  # already there
    assert torch.equal(directions.turn(z, "only", 0), z)
    halfway = directions.turn(z[:1], "size", 1.5, 0.0) - directions.turn(z[:1], "size", 1.0, 0.0)
    torch.testing.assert_close(halfway[0], (directions.effects[2] - directions.effects[1]) / 2)


def test_an_orthogonal_turn_has_nothing_of_the_other_effects() -> None:
    z, labels, _ = labelled()
    directions = Directions.fit(z, labels, ATTRIBUTES)
    move = directions.turn(z, "colour", 1, 0, orthogonal=True) - z
    others = directions.effects[[0, 1, 2, 5]]
    assert (move[:1] @ others.T).abs().max() < 1e-3
    assert 0 < move[0].norm() < (directions.turn(z, "colour", 1, 0) - z)[0].norm()


@pytest.mark.parametrize(
    ("attribute", "to", "sentence"),
    [
        ("smell", 0.0, "there is no attribute 'smell': choose one of size, colour, only"),
        ("size", 2.5, "size goes from 0 to 2"),
        ("size", -0.1, "size goes from 0 to 2"),
        ("size", float("nan"), "size goes from 0 to 2"),
    ],
)
def test_turns_that_cannot_be_are_refused(attribute: str, to: float, sentence: str) -> None:
    z, labels, _ = labelled(100)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Directions.fit(z, labels, ATTRIBUTES).turn(z, attribute, to)


@pytest.mark.parametrize("attributes", [{}, {"size": ("small", "large"), "colour": ("red", "blue"), "only": ("one",)}])
def test_labels_that_do_not_fit_are_refused(attributes: dict[str, tuple[str, ...]]) -> None:
    z, labels, _ = labelled(100)
    with pytest.raises(ValueError, match="don't fit 100 latents"):
        Directions.fit(z, labels, attributes)


def test_directions_come_back_from_a_file(tmp_path: FilePath) -> None:
    z, labels, _ = labelled()
    directions = Directions.fit(z, labels, ATTRIBUTES)
    save_directions(directions, tmp_path / "latents.safetensors")
    again = load_directions(tmp_path / "latents.safetensors")
    assert {name: tuple(values) for name, values in again.attributes.items()} == ATTRIBUTES
    assert torch.equal(again.turn(z, "size", 1), directions.turn(z, "size", 1))


@pytest.mark.parametrize(
    ("changes", "names", "sentence"),
    [
        ({}, {"latent_dim": 8}, "described by latent_dim and attributes"),
        ({}, {"latent_dim": 9, "attributes": {"a": ["x", "y"]}}, "mean should be F32 [9]"),
        ({}, {"latent_dim": 8, "attributes": {"a": ["x"]}}, "effects should be F32 [1, 8]"),
        ({}, {"latent_dim": 8, "attributes": {"a": ["x", "y\n"]}}, "names should have 1 to 100 letters"),
        ({}, {"latent_dim": 8, "attributes": {"a": "xy"}}, "the attribute 'a' should have 1 to 1000 values"),
        ({}, {"latent_dim": 8, "attributes": {}}, "there should be 1 to 64 attributes"),
        ({}, {"latent_dim": 10**9, "attributes": {"a": ["x", "y"]}}, "latent_dim should be a whole number"),
        ({"effects": torch.full((2, 8), torch.nan)}, None, "values in effects are not finite"),
        ({"more": torch.zeros(1)}, None, "and no other tensors"),
    ],
)
def test_a_strangers_file_must_hold_directions_to_the_letter(
    tmp_path: FilePath, changes: dict[str, torch.Tensor], names: Any, sentence: str
) -> None:
    tensors = {key: torch.ones(8) for key in ("mean", "std")} | {key: torch.ones(2, 8) for key in ("effects", "scores")}
    description = {"latent_dim": 8, "attributes": {"a": ["x", "y"]}} if names is None else names
    path = tmp_path / "latents.safetensors"
    save_file(tensors | {"offsets": torch.ones(2)} | changes, path, metadata={"directions": json.dumps(description)})
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        load_directions(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_principal_axes_are_those_of_scikit_learn() -> None:
    z = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 2, 1, 0.5, 0.2, 0.1])
    axes, pca = principal_axes(z, 4), PCA(4).fit(z.numpy())
    torch.testing.assert_close(axes.norm(dim=1), torch.from_numpy(pca.explained_variance_).sqrt(), atol=1e-4, rtol=0)
    cosine = (axes / axes.norm(dim=1, keepdim=True) * torch.from_numpy(pca.components_)).sum(1)
    torch.testing.assert_close(cosine.abs(), torch.ones(4), atol=1e-4, rtol=0)
    assert (axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all()
    assert principal_axes(z[:3], 4).shape == (3, 6)
