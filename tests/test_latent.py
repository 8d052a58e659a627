from __future__ import annotations

import json
import math
import re
from pathlib import Path as FilePath
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.nn import functional as F

import vae.latent
from vae.attributes import RIDGE, AttributePrior, Directions, load_directions, save_directions
from vae.latent import Path, interpolate, principal_axes, slerp


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


# --- directions ------------------------------------------------------------------------------------------------------

ATTRIBUTES = {"size": ("small", "medium", "large"), "colour": ("red", "blue"), "only": ("one",)}


def labelled(n: int = 4000, noise: float = 0.05, twist: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents that are sums of known effects, their labels, of which large ones are mostly blue, and the effects.

    twist: how far latents also depend on what no attribute does alone, but size and colour together.
    """
    generator = torch.Generator().manual_seed(0)
    effects = torch.randn(6, 8, generator=generator)
    size = torch.randint(3, (n,), generator=generator)
    colour = (torch.rand(n, generator=generator) < torch.tensor([0.1, 0.5, 0.9])[size]).long()
    together = twist * torch.randn(6, 8, generator=generator)[2 * size + colour]
    z = 5 + effects[size] + effects[3 + colour] + together + noise * torch.randn(n, 8, generator=generator)
    return z, torch.stack([size, colour, torch.zeros(n, dtype=torch.int64)], dim=1), effects


def test_effects_are_found_although_labels_go_together() -> None:
    z, labels, effects = labelled()
    directions = Directions.fit(z, labels, ATTRIBUTES)
    assert directions.effects.shape == directions.scores.shape == (6, 8)
    assert directions.interplay.shape == (3 * 2 + 3 + 2, 8)
    for part in (slice(0, 3), slice(3, 5)):
        found, true = directions.effects[part], effects[part]
        torch.testing.assert_close(found - found[:1], true - true[:1], atol=0.02, rtol=0)
    torch.testing.assert_close(directions.mean, z.mean(0))
    torch.testing.assert_close(directions.std, z.std(0))
    torch.testing.assert_close(directions.shares[3:5].sum(), torch.tensor(1.0))
    assert directions.effects[5].norm() < 1e-5  # of what is always so, nothing can be known
    assert (directions.predict(z) == labels).float().mean() > 0.999


def test_the_regression_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.latent, "CHUNK", 700)
    z, labels, _ = labelled(noise=1.0)
    directions = Directions.fit(z, labels[:, :2], {"size": ATTRIBUTES["size"], "colour": ATTRIBUTES["colour"]})
    one_hot = torch.cat([F.one_hot(labels[:, 0], 3), F.one_hot(labels[:, 1], 2)], dim=1).double()
    theirs = torch.from_numpy(Ridge(alpha=RIDGE).fit(one_hot.numpy(), z.double().numpy()).coef_).T.float()
    ours = directions.effects
    torch.testing.assert_close(ours[:3] - ours[0], theirs[:3] - theirs[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(ours[3:] - ours[3], theirs[3:] - theirs[3], atol=1e-4, rtol=0)


def test_the_discriminants_are_those_of_scikit_learn() -> None:
    z, labels, _ = labelled(noise=1.0)
    directions = Directions.fit(z, labels[:, :1], {"size": ATTRIBUTES["size"]})
    theirs = torch.from_numpy(LinearDiscriminantAnalysis().fit(z.numpy(), labels[:, 0].numpy()).predict(z.numpy()))
    assert (directions.predict(z)[:, 0] == theirs).float().mean() > 0.995


def test_class_means_are_the_means_of_the_classes() -> None:
    z, labels, _ = labelled()
    means = Directions.fit(z, labels[:, :1], {"size": ATTRIBUTES["size"]}).means("size")
    for value, mean in enumerate(means):
        torch.testing.assert_close(mean, z[labels[:, 0] == value].mean(0), atol=0.01, rtol=0)
    with pytest.raises(ValueError, match="there is no attribute 'smell'"):
        Directions.fit(z, labels, ATTRIBUTES).means("smell")


def test_turning_replaces_an_effect_and_leaves_the_others() -> None:
    z, labels, effects = labelled()
    directions = Directions.fit(z, labels, ATTRIBUTES)
    turned = directions.edit(z, {"size": 2})
    torch.testing.assert_close(turned - z, effects[2] - effects[labels[:, 0]], atol=0.05, rtol=0)
    assert (
        directions.predict(turned) == torch.tensor([2, 0, 0]) + labels * torch.tensor([0, 1, 0])
    ).float().mean() > 0.99
    torch.testing.assert_close(directions.edit(turned, {"size": labels[:, 0]}), z, atol=1e-4, rtol=0)
    assert torch.equal(directions.edit(z, {"size": labels[:, 0]}, labels), z)  # already there
    assert torch.equal(directions.edit(z, {"only": 0}), z)
    assert torch.equal(directions.edit(z, {}), z)
    both = directions.edit(z, {"size": 2, "colour": 0}, labels)
    since = labels * torch.tensor([0, 1, 1]) + torch.tensor([2, 0, 0])
    torch.testing.assert_close(both, directions.edit(turned, {"colour": 0}, since), atol=0.01, rtol=0)


def test_what_two_attributes_do_together_is_known_and_told() -> None:
    z, labels, _ = labelled(twist=1.0)
    directions = Directions.fit(z, labels, ATTRIBUTES)
    assert (z - directions.locate(labels)).std() < 0.06  # nothing but the noise is left
    assert (directions.predict(z) == labels).float().mean() > 0.999
    turned = directions.edit(z, {"size": 1})
    for colour in (0, 1):
        there = z[(labels[:, 0] == 1) & (labels[:, 1] == colour)].mean(0)
        torch.testing.assert_close(turned[labels[:, 1] == colour].mean(0), there, atol=0.02, rtol=0)
    between = directions.locate(torch.tensor([[1.5, 0.25, 0]]))
    corners = torch.cartesian_prod(torch.tensor([1, 2]), torch.tensor([0, 1]), torch.tensor([0]))
    weights = torch.tensor([0.5 * 0.75, 0.5 * 0.25, 0.5 * 0.75, 0.5 * 0.25])
    torch.testing.assert_close(between[0], weights @ directions.locate(corners), atol=1e-4, rtol=0)


def test_what_three_attributes_do_together_is_found_among_others() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([torch.randint(3, (6000,), generator=generator) for _ in range(5)], dim=1)
    attributes = dict.fromkeys("abcde", ("x", "y", "z"))
    cells = 9 * labels[:, 1] + 3 * labels[:, 3] + labels[:, 4]
    z = 0.5 * torch.randn(27, 8, generator=generator)[cells] + 0.05 * torch.randn(6000, 8, generator=generator)
    for column in (1, 3, 4):
        z += torch.randn(3, 8, generator=generator)[labels[:, column]]
    directions = Directions.fit(z, labels, attributes)
    assert [group for group in directions.groups if len(group) == 3] == [(1, 3, 4)]
    assert (z - directions.locate(labels)).std() < 0.08
    told = directions.predict(z)
    assert (told == labels)[:, [1, 3, 4]].float().mean() > 0.999
    turned = directions.edit(z, {"b": 2}, labels)
    there = z[(labels[:, 1] == 2) & (cells % 9 == 5)].mean(0)
    torch.testing.assert_close(turned[cells % 9 == 5].mean(0), there, atol=0.03, rtol=0)


def test_few_pictures_say_nothing_of_two_attributes_together() -> None:
    z, labels, _ = labelled(10)
    directions = Directions.fit(z, labels, ATTRIBUTES)
    assert directions.interplay.shape == (0, 8)
    assert directions.edit(z, {"size": 1}).shape == z.shape


def test_a_value_that_no_picture_has_is_never_told() -> None:
    generator = torch.Generator().manual_seed(0)
    size, colour = torch.randint(4, (400,), generator=generator), torch.randint(2, (400,), generator=generator)
    z = 20 * torch.eye(8)[size] + 5 * torch.eye(8)[4 + colour] + torch.randn(400, 8, generator=generator)
    labels = torch.stack([size, colour], dim=1)
    attributes = {"size": ("xs", "s", "m", "l", "never"), "colour": ("red", "blue")}
    middle = z.mean(0) + torch.randn(50, 8, generator=generator)
    for count in (1, 2):
        some = dict(list(attributes.items())[:count])
        assert (Directions.fit(z, labels[:, :count], some).predict(middle)[:, 0] < 4).all()


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
        Directions.fit(z, labels, ATTRIBUTES).edit(z, {attribute: to})


@pytest.mark.parametrize(
    ("change", "attributes", "sentence"),
    [
        (0, {}, "there should be 1 to 64 attributes"),
        (0, {"size": ATTRIBUTES["size"]}, "labels of shape (100, 3) don't fit 100 latents and 1 attributes"),
        (0, ATTRIBUTES | {"size": ("small", "large")}, "labels from 0 to 2 don't fit attributes of [2, 2, 1] values"),
        (-1, ATTRIBUTES, "labels from -1 to 1 don't fit"),
        (0, ATTRIBUTES | {"only": ("a\nb",)}, "names should have 1 to 100 letters"),
    ],
)
def test_labels_that_do_not_fit_are_refused(change: int, attributes: dict[str, tuple[str, ...]], sentence: str) -> None:
    z, labels, _ = labelled(100)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Directions.fit(z, labels + change, attributes)


def test_labels_draw_latents_like_those_they_were_fitted_to() -> None:
    z, labels, _ = labelled(20_000, noise=0.3, twist=1.0)
    pair = {"size": ATTRIBUTES["size"], "colour": ATTRIBUTES["colour"]}
    labels[:, 1] = labels[torch.randperm(len(z), generator=torch.Generator().manual_seed(1)), 1]  # go together no more
    z = Directions.fit(z, labelled(20_000)[1][:, :2], pair).locate(labels[:, :2])
    z = z + 0.3 * torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    prior = AttributePrior(Directions.fit(z, labels[:, :2], pair))
    drawn = prior.sample(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), z.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(z.T), atol=0.08, rtol=0)
    told = prior.directions.predict(drawn)
    for column, size in ((0, 3), (1, 2)):
        shares = [F.one_hot(values[:, column], size).float().mean(0) for values in (told, labels)]
        torch.testing.assert_close(*shares, atol=0.02, rtol=0)
    cold = prior.sample(500, torch.Generator().manual_seed(0), temperature=0.0)
    torch.testing.assert_close(cold, prior.directions.locate(prior.directions.predict(cold)))
    eps = torch.randn(20, 8, generator=torch.Generator().manual_seed(3))
    alone = torch.cat([prior.from_noise(row[None]) for row in eps])
    torch.testing.assert_close(alone, prior.from_noise(eps), atol=1e-5, rtol=0)

    # Its density is that of the mixture of all combinations, seen from just below.
    directions = prior.directions
    every = torch.cartesian_prod(torch.arange(3), torch.arange(2))
    weights = torch.outer(directions.shares[:3], directions.shares[3:]).flatten()
    normals = MultivariateNormal(directions.locate(every), scale_tril=directions.spread)
    exact = MixtureSameFamily(Categorical(weights), normals)
    difference = exact.log_prob(drawn) - prior.log_prob(drawn)
    assert difference.min() > -1e-3
    assert difference.mean() < 0.1


def test_what_is_drawn_has_the_spread_of_the_posteriors() -> None:
    z, labels, _ = labelled(noise=0.1)
    variance = torch.linspace(0.1, 0.8, 8)
    drawn = AttributePrior(Directions.fit(z, labels, ATTRIBUTES, variance)).sample(
        20_000, torch.Generator().manual_seed(0)
    )
    plain = AttributePrior(Directions.fit(z, labels, ATTRIBUTES)).sample(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.var(0) - plain.var(0), variance, atol=0.06, rtol=0)


def test_fewer_numbers_than_attributes_draw_nothing() -> None:
    z, labels, _ = labelled(100)
    with pytest.raises(ValueError, match="3 attributes can't be drawn from 2 numbers"):
        AttributePrior(Directions.fit(z[:, :2], labels, ATTRIBUTES))


@pytest.mark.parametrize("count", [4000, 10])
def test_directions_come_back_from_a_file(tmp_path: FilePath, count: int) -> None:
    z, labels, _ = labelled(count)
    directions = Directions.fit(z, labels, ATTRIBUTES)
    save_directions(directions, tmp_path / "latents.safetensors")
    again = load_directions(tmp_path / "latents.safetensors")
    assert {name: tuple(values) for name, values in again.attributes.items()} == ATTRIBUTES
    assert torch.equal(again.edit(z, {"size": 1}), directions.edit(z, {"size": 1}))


@pytest.mark.parametrize(
    ("changes", "names", "sentence"),
    [
        ({}, {"latent_dim": 8}, "described by latent_dim, attributes, groups, draws"),
        ({}, {"latent_dim": 9}, "mean should be F32 [9]"),
        ({}, {"attributes": {"a": ["x"]}}, "shares should be F32 [1]"),
        ({}, {"attributes": {"a": ["x", "y\n"]}}, "names should have 1 to 100 letters"),
        ({}, {"attributes": {"a": "xy"}}, "the attribute 'a' should have 1 to 1000 values"),
        ({}, {"attributes": {}}, "there should be 1 to 64 attributes"),
        ({}, {"attributes": {str(a): ["x"] * 1000 for a in range(9)}, "groups": [[1, 2, 3]]}, "it asks for"),
        ({}, {"latent_dim": 10**9}, "latent_dim should be a whole number"),
        ({}, {"groups": 1}, "groups should be lists of the numbers of two or three attributes, got 1"),
        ({}, {"groups": [[0, 1]]}, "groups should be lists"),
        ({}, {"groups": [[0, 0]]}, "groups should be lists"),
        ({}, {"groups": [[0, "1"]]}, "groups should be lists"),
        ({}, {"groups": [[[0], 0]]}, "groups should be lists"),
        ({}, {"draws": None}, "draws should be true or false"),
        ({"effects": torch.full((2, 8), torch.nan)}, {}, "values in effects are not finite"),
        ({"spread": torch.ones(8, 8)}, {}, "spread should be lower triangular with a positive diagonal"),
        ({"shares": torch.ones(2)}, {}, "the shares of an attribute's values should sum to 1"),
        ({"shares": torch.tensor([-1.0, 2.0])}, {}, "std and shares should not be negative"),
        ({"more": torch.zeros(1)}, {}, "and no other tensors"),
    ],
)
def test_a_strangers_file_must_hold_directions_to_the_letter(
    tmp_path: FilePath, changes: dict[str, torch.Tensor], names: dict[str, Any], sentence: str
) -> None:
    tensors = {key: torch.ones(8) for key in ("mean", "std")} | {key: torch.ones(2, 8) for key in ("effects", "scores")}
    tensors |= {
        "shares": torch.full((2,), 0.5),
        "offsets": torch.ones(2),
        "spread": torch.eye(8),
        "interplay": torch.ones(0, 8),
    }
    description = {"latent_dim": 8, "attributes": {"a": ["x", "y"]}, "groups": [], "draws": False}
    if names != {"latent_dim": 8}:
        description |= names
    else:
        description = names
    path = tmp_path / "latents.safetensors"
    save_file(tensors | changes, path, metadata={"directions": json.dumps(description)})
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
