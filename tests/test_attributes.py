from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.linalg import sqrtm
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.nn import functional as F

import vae.attributes.class_gaussians
import vae.attributes.regression
from vae import VAE
from vae.attributes import (
    AttributeModel,
    AttributePrior,
    ClassGaussians,
    Directions,
    fit_attributes,
    load_directions,
    save_directions,
)
from vae.attributes.model import RIDGE
from vae.data import load_examples
from vae.evaluate.features import load_classifier
from vae.generate import generate, latents
from vae.images import to_unit
from vae.prior import StandardNormal

ATTRIBUTES = {"size": ("small", "medium", "large"), "colour": ("red", "blue"), "only": ("one",)}


def labelled(n: int = 4000, noise: float = 0.05, twist: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
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
    torch.testing.assert_close(directions.shares[3:5].sum(), torch.tensor(1.0))
    assert directions.effects[5].norm() < 1e-5  # of what is always so, nothing can be known
    assert (directions.predict(z) == labels).float().mean() > 0.999


def test_the_regression_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.attributes.regression, "CHUNK", 700)
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


def test_an_edit_replaces_one_effect_and_leaves_the_others() -> None:
    z, labels, effects = labelled()
    directions = Directions.fit(z, labels, ATTRIBUTES)
    edited = directions.edit(z, {"size": 2})
    torch.testing.assert_close(edited - z, effects[2] - effects[labels[:, 0]], atol=0.05, rtol=0)
    assert (
        directions.predict(edited) == torch.tensor([2, 0, 0]) + labels * torch.tensor([0, 1, 0])
    ).float().mean() > 0.99
    torch.testing.assert_close(directions.edit(edited, {"size": labels[:, 0]}), z, atol=1e-4, rtol=0)
    assert torch.equal(directions.edit(z, {"size": labels[:, 0]}, labels), z)  # already there
    assert torch.equal(directions.edit(z, {"only": 0}), z)
    assert torch.equal(directions.edit(z, {}), z)
    both = directions.edit(z, {"size": 2, "colour": 0}, labels)
    since = labels * torch.tensor([0, 1, 1]) + torch.tensor([2, 0, 0])
    torch.testing.assert_close(both, directions.edit(edited, {"colour": 0}, since), atol=0.01, rtol=0)


def test_the_interplay_of_two_attributes_is_found_and_predicted() -> None:
    z, labels, _ = labelled(twist=1.0)
    directions = Directions.fit(z, labels, ATTRIBUTES)
    assert (z - directions.locate(labels)).std() < 0.06  # nothing but the noise is left
    assert (directions.predict(z) == labels).float().mean() > 0.999
    edited = directions.edit(z, {"size": 1})
    for colour in (0, 1):
        there = z[(labels[:, 0] == 1) & (labels[:, 1] == colour)].mean(0)
        torch.testing.assert_close(edited[labels[:, 1] == colour].mean(0), there, atol=0.02, rtol=0)
    between = directions.locate(torch.tensor([[1.5, 0.25, 0]]))
    corners = torch.cartesian_prod(torch.tensor([1, 2]), torch.tensor([0, 1]), torch.tensor([0]))
    weights = torch.tensor([0.5 * 0.75, 0.5 * 0.25, 0.5 * 0.75, 0.5 * 0.25])
    torch.testing.assert_close(between[0], weights @ directions.locate(corners), atol=1e-4, rtol=0)


def test_the_interplay_of_three_attributes_is_found_among_others() -> None:
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
    predicted = directions.predict(z)
    assert (predicted == labels)[:, [1, 3, 4]].float().mean() > 0.999
    edited = directions.edit(z, {"b": 2}, labels)
    there = z[(labels[:, 1] == 2) & (cells % 9 == 5)].mean(0)
    torch.testing.assert_close(edited[cells % 9 == 5].mean(0), there, atol=0.03, rtol=0)


def test_few_pictures_give_no_interplay() -> None:
    z, labels, _ = labelled(10)
    directions = Directions.fit(z, labels, ATTRIBUTES)
    assert directions.interplay.shape == (0, 8)
    assert directions.edit(z, {"size": 1}).shape == z.shape


def test_a_value_that_no_picture_has_is_never_predicted() -> None:
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
def test_impossible_edits_are_refused(attribute: str, to: float, sentence: str) -> None:
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


KINDS = [ClassGaussians, Directions]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_integers_and_latents_finite_of_any_type(kind: Any) -> None:
    z, labels, _ = labelled(100)
    labels, size = labels[:, :1], {"size": ATTRIBUTES["size"]}
    expected = kind.fit(z, labels, size).predict(z)
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(kind.fit(z, labels.to(dtype), size).predict(z), expected)
    fitted = fit_attributes(z.double().requires_grad_(True), labels, size, torch.ones(8, requires_grad=True))
    assert not fitted.edit(z, {"size": 1}).requires_grad
    with pytest.raises(ValueError, match=r"labels should be integers, the numbers of values, got torch.float32"):
        kind.fit(z, labels + 0.5, size)
    with pytest.raises(ValueError, match="latent vectors should be finite"):
        kind.fit(z.clone().fill_(torch.nan), labels, size)
    with pytest.raises(ValueError, match=r"variance should be one number or 8, got shape \(3,\)"):
        kind.fit(z, labels, size, torch.ones(3))
    with pytest.raises(ValueError, match=r"latent vectors should be of shape \(N, D\), got \(100,\)"):
        fit_attributes(z[:, 0], labels, size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("z", "to", "since", "sentence"),
    [
        (torch.zeros(5, 7), 1, None, "latent vectors should be of shape (B, 8), got (5, 7)"),
        (torch.zeros(8), 1, None, "latent vectors should be of shape (B, 8), got (8,)"),
        (torch.zeros(5, 8), torch.ones(3), None, "size should be one position or 5, one for each latent vector, got"),
        (torch.zeros(5, 8), None, None, "size should be the name of a value, or positions, got None"),
        (torch.zeros(5, 8), 1, torch.zeros(4, 1), "since should be of shape (5, 1)"),
        (torch.zeros(5, 8), 1, torch.zeros(5), "since should be of shape (5, 1)"),
        (torch.zeros(5, 8), 1, torch.full((5, 1), 3), "size goes from 0 to 2"),
    ],
)
def test_edits_of_other_shapes_are_refused(kind: Any, z: Tensor, to: Any, since: Any, sentence: str) -> None:
    latents, labels, _ = labelled(100)
    model = kind.fit(latents, labels[:, :1], {"size": ATTRIBUTES["size"]})
    with pytest.raises(ValueError, match=re.escape(sentence)):
        model.edit(z, {"size": to}, since)
    if z.shape != (5, 8):
        for method in (model.predict, model.log_prob):
            with pytest.raises(ValueError, match=re.escape(sentence)):
                method(z)


def test_an_edit_between_gaussians_starts_at_a_class() -> None:
    z, labels = classes(100)
    with pytest.raises(ValueError, match="an edit starts at a class, not between two"):
        ClassGaussians.fit(z, labels, SIZES).edit(z, {"size": 1}, torch.full((100, 1), 0.5))


def test_drawn_latents_are_like_those_fitted_to() -> None:
    z, labels, _ = labelled(20_000, noise=0.3, twist=1.0)
    pair = {"size": ATTRIBUTES["size"], "colour": ATTRIBUTES["colour"]}
    labels[:, 1] = labels[torch.randperm(len(z), generator=torch.Generator().manual_seed(1)), 1]  # go together no more
    z = Directions.fit(z, labelled(20_000)[1][:, :2], pair).locate(labels[:, :2])
    z = z + 0.3 * torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    directions = Directions.fit(z, labels[:, :2], pair)
    prior = AttributePrior(directions)
    drawn = prior.sample(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), z.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(z.T), atol=0.08, rtol=0)
    predicted = directions.predict(drawn)
    for column, size in ((0, 3), (1, 2)):
        shares = [F.one_hot(values[:, column], size).float().mean(0) for values in (predicted, labels)]
        torch.testing.assert_close(*shares, atol=0.02, rtol=0)
    cold = prior.sample(500, torch.Generator().manual_seed(0), temperature=0.0)
    torch.testing.assert_close(cold, directions.locate(directions.predict(cold)))
    eps = torch.randn(20, 8, generator=torch.Generator().manual_seed(3))
    alone = torch.cat([prior.from_noise(row[None]) for row in eps])
    torch.testing.assert_close(alone, prior.from_noise(eps), atol=1e-5, rtol=0)

    # Its density is that of the mixture of all combinations, seen from just below.
    every = torch.cartesian_prod(torch.arange(3), torch.arange(2))
    weights = torch.outer(directions.shares[:3], directions.shares[3:]).flatten()
    normals = MultivariateNormal(directions.locate(every), scale_tril=directions.spread)
    exact = MixtureSameFamily(Categorical(weights), normals)
    difference = exact.log_prob(drawn) - prior.log_prob(drawn)
    assert difference.min() > -1e-3
    assert difference.mean() < 0.1


def test_drawn_latents_have_the_variance_of_the_posteriors() -> None:
    z, labels, _ = labelled(noise=0.1)
    variance = torch.linspace(0.1, 0.8, 8)
    drawn = AttributePrior(Directions.fit(z, labels, ATTRIBUTES, variance)).sample(
        20_000, torch.Generator().manual_seed(0)
    )
    plain = AttributePrior(Directions.fit(z, labels, ATTRIBUTES)).sample(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.var(0) - plain.var(0), variance, atol=0.06, rtol=0)


def test_fewer_dimensions_than_attributes_are_refused() -> None:
    z, labels, _ = labelled(100)
    with pytest.raises(ValueError, match="3 attributes can't be drawn from 2 numbers"):
        AttributePrior(Directions.fit(z[:, :2], labels, ATTRIBUTES))


def test_predicted_values_are_the_likeliest_there_are() -> None:
    z, labels, _ = labelled(noise=1.0, twist=1.0)
    directions = Directions.fit(z, labels, ATTRIBUTES)
    predicted = directions.predict(z)

    def log_joint(values: Tensor) -> Tensor:  # by the definition, of each row
        log_share = directions.shares.log()[values + torch.tensor([0, 3, 5])].sum(dim=1)
        normal = MultivariateNormal(torch.zeros(8), scale_tril=directions.spread)
        return log_share + normal.log_prob(z - directions.locate(values))

    for index, size in enumerate(directions.sizes):
        for value in range(size):
            other = predicted.clone()
            other[:, index] = value
            better = log_joint(other) > log_joint(predicted) + 1e-3
            assert better.float().mean() < 0.02  # those few that a third round would change


# --- a Gaussian for each class -----------------------------------------------------------------------------------------

SIZES = {"size": ATTRIBUTES["size"]}


def classes(n: int = 6000) -> tuple[Tensor, Tensor]:
    """Latents of three classes, each with a Gaussian of its own, and their labels, (n, 1)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), n, replacement=True, generator=generator)
    means, mixing = 2 * torch.randn(3, 4, generator=generator), torch.randn(3, 4, 4, generator=generator)
    z = means[labels] + (mixing[labels] @ torch.randn(n, 4, 1, generator=generator))[:, :, 0]
    return z, labels[:, None]


def test_one_attribute_gets_gaussians_and_several_get_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels, _ = labelled(400)
    assert isinstance(fit_attributes(z, labels[:, :1], SIZES), ClassGaussians)
    assert isinstance(fit_attributes(z, labels, ATTRIBUTES), Directions)
    monkeypatch.setattr(vae.attributes.class_gaussians, "MAX_NUMBERS", 3 * 8 * 8 - 1)
    assert isinstance(fit_attributes(z, labels[:, :1], SIZES), Directions)  # and what is saved can be loaded


def test_edits_are_optimal_transport() -> None:
    gaussians = ClassGaussians.fit(*classes(), SIZES)
    first, second = (factor.double() @ factor.double().T for factor in gaussians.scale_tril[:2])
    matrix = gaussians.transport(0, 1)
    torch.testing.assert_close(matrix, matrix.T)
    assert (torch.linalg.eigvalsh(matrix) > 0).all()
    root = torch.from_numpy(sqrtm(first.numpy()).real)
    inner = torch.from_numpy(sqrtm((root @ second @ root).numpy()).real)
    torch.testing.assert_close(matrix, torch.linalg.inv(root) @ inner @ torch.linalg.inv(root))
    torch.testing.assert_close(matrix @ first @ matrix, second)
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    expected = gaussians.means[1] + (z - gaussians.means[0]) @ matrix.float()
    torch.testing.assert_close(gaussians.edit(z, {"size": 1}, torch.zeros(5, 1)), expected)
    torch.testing.assert_close(gaussians.transport(1, 0) @ matrix, torch.eye(4, dtype=torch.float64))


def test_the_pictures_of_a_class_become_those_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.attributes.class_gaussians, "SHARED", 0)
    z, labels = classes(20_000)
    gaussians = ClassGaussians.fit(z, labels, SIZES)
    edited = gaussians.edit(z, {"size": "large"}, labels)
    for value in range(3):
        own = edited[labels[:, 0] == value]
        torch.testing.assert_close(own.mean(0), gaussians.means[2], atol=0.01, rtol=0)
        covariance = gaussians.scale_tril[2] @ gaussians.scale_tril[2].T
        torch.testing.assert_close(torch.cov(own.T), covariance, atol=0.02, rtol=0.01)
    assert torch.equal(edited[labels[:, 0] == 2], z[labels[:, 0] == 2])  # already there
    assert torch.equal(gaussians.edit(z, {}), z)
    assert (gaussians.predict(edited) == 2).float().mean() > 0.9
    rows = torch.cat(
        [gaussians.edit(row[None], {"size": 2}, own[None]) for row, own in zip(z[:9], labels, strict=False)]
    )
    torch.testing.assert_close(rows, edited[:9])


def test_half_way_between_two_classes_lies_the_middle_of_two_edits() -> None:
    z, labels = classes(200)
    gaussians = ClassGaussians.fit(z, labels, SIZES)
    below, above = (gaussians.edit(z, {"size": value}, labels) for value in (1, 2))
    between = gaussians.edit(z, {"size": 1.25}, labels)
    torch.testing.assert_close(between, torch.lerp(below, above, 0.25))
    positions = torch.linspace(0, 2, 200)
    rows = [gaussians.edit(z[i : i + 1], {"size": positions[i]}, labels[i : i + 1]) for i in range(200)]
    torch.testing.assert_close(gaussians.edit(z, {"size": positions}, labels), torch.cat(rows), atol=1e-4, rtol=0)


def test_the_gaussians_predict_as_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.attributes.class_gaussians, "SHARED", 0)
    z, labels = classes()
    gaussians = ClassGaussians.fit(z, labels, SIZES)
    theirs = QuadraticDiscriminantAnalysis().fit(z.numpy(), labels[:, 0].numpy())
    predicted = gaussians.predict(z)
    assert predicted.shape == (6000, 1)
    assert (predicted[:, 0] == torch.from_numpy(theirs.predict(z.numpy()))).float().mean() > 0.995
    assert (predicted == labels).float().mean() > 0.9


def test_the_gaussians_are_the_prior_of_all_pictures_and_of_each_class() -> None:
    z, labels = classes(20_000)
    variance = torch.tensor([0.1, 0.2, 0.3, 0.4])
    gaussians = ClassGaussians.fit(z, labels, SIZES, variance)
    prior = AttributePrior(gaussians)
    drawn = prior.sample(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), z.mean(0), atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(z.T) + variance.diag(), atol=0.3, rtol=0)
    normals = MultivariateNormal(gaussians.means, scale_tril=gaussians.scale_tril)
    exact = MixtureSameFamily(Categorical(gaussians.shares), normals)
    torch.testing.assert_close(prior.log_prob(drawn), exact.log_prob(drawn))
    large = gaussians.prior_where({"size": "large"})
    drawn = large.sample(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), gaussians.means[2], atol=0.1, rtol=0)
    torch.testing.assert_close(large.log_prob(drawn), normals.log_prob(drawn[:, None])[:, 2])
    assert torch.equal(
        drawn[:9], gaussians.prior_where({"size": 2}).sample(20_000, torch.Generator().manual_seed(0))[:9]
    )
    cold = large.sample(5, torch.Generator().manual_seed(0), temperature=0.0)
    torch.testing.assert_close(cold, gaussians.means[2].expand(5, 4))


def test_values_can_be_given_where_there_are_several_attributes() -> None:
    z, labels, _ = labelled(twist=1.0)
    directions = Directions.fit(z, labels, ATTRIBUTES)
    prior = directions.prior_where({"colour": "blue"})
    drawn = prior.sample(4000, torch.Generator().manual_seed(0))
    predicted = directions.predict(drawn)
    assert (predicted[:, 1] == 1).float().mean() > 0.999
    shares = F.one_hot(predicted[:, 0], 3).float().mean(0)
    torch.testing.assert_close(shares, directions.shares[:3], atol=0.03, rtol=0)
    difference = prior.log_prob(drawn) - AttributePrior(directions).log_prob(drawn)
    torch.testing.assert_close(difference, -directions.shares[4].log().expand(4000), atol=1e-3, rtol=0)
    red = z[labels[:, 1] == 0]
    assert (prior.log_prob(red) < prior.log_prob(drawn).min()).all()  # of no red picture


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"smell": 0}, "there is no attribute 'smell': choose one of size"),
        ({"size": "huge"}, "size should be one of small, medium, large, or 0 to 2, got 'huge'"),
        ({"size": 3}, "or 0 to 2, got 3"),
        ({"size": -1}, "or 0 to 2, got -1"),
        ({"size": 0.5}, "or 0 to 2, got 0.5"),
        ({"size": True}, "or 0 to 2, got True"),
        ({"size": None}, "or 0 to 2, got None"),
    ],
)
def test_what_no_picture_can_have_is_refused(where: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ClassGaussians.fit(*classes(50), SIZES).prior_where(where)


def test_a_prior_of_one_class_makes_pictures_but_is_not_saved(model: VAE, tmp_path: Path) -> None:
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    model.directions = fit_attributes(z, (z[:, :1] > 0).long(), {"beard": ("no", "yes")})
    prior = model.directions.prior_where({"beard": "yes"})
    assert generate(model, [1, 2], prior=prior).shape == (2, 1, 28, 28)
    assert (latents(model, range(200), prior=prior)[:, 0] > 0).float().mean() > 0.9
    model.prior = prior
    with pytest.raises(ValueError, match=r"a prior of pictures with \{'beard': 'yes'\} can't be saved"):
        model.save_pretrained(tmp_path)


def test_a_model_whose_prior_is_its_classes_comes_back(model: VAE, tmp_path: Path) -> None:
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    model.directions = fit_attributes(z, (z[:, :1] > 0).long(), {"beard": ("no", "yes")})
    model.prior = AttributePrior(model.directions)
    model.save_pretrained(tmp_path)
    loaded = VAE.from_pretrained(tmp_path)
    assert isinstance(loaded.directions, ClassGaussians)
    assert isinstance(loaded.prior, AttributePrior)
    torch.testing.assert_close(generate(loaded, range(4)), generate(model, range(4)))
    model.prior = StandardNormal(6)
    model.save_pretrained(tmp_path)
    assert isinstance(VAE.from_pretrained(tmp_path).prior, StandardNormal)


def test_a_class_with_few_pictures_has_a_gaussian_too() -> None:
    z, labels = classes(100)
    rare = torch.cat([labels[:97], torch.full((3, 1), 3)])
    gaussians = ClassGaussians.fit(z, rare, {"size": (*ATTRIBUTES["size"], "huge", "never")})
    assert gaussians.predict(z).max() < 4
    for value in ("huge", "never"):
        edited = gaussians.edit(z, {"size": value})
        assert edited.isfinite().all()
    shared = gaussians.scale_tril[4] @ gaussians.scale_tril[4].T  # what no picture has varies as all classes do
    within = z - gaussians.means[rare[:, 0]]
    torch.testing.assert_close(shared, torch.cov(within.T, correction=0), atol=0.02, rtol=0)


@pytest.mark.parametrize(("name", "edited", "drawn"), [("mnist", 0.9, 0.9), ("fashion-mnist", 0.8, 0.8)])
def test_bundled_models_give_the_class_asked_for(name: str, edited: float, drawn: float) -> None:
    model, network = VAE.from_pretrained(name), load_classifier(name)
    directions = model.directions
    assert isinstance(directions, ClassGaussians)
    ((attribute, values),) = directions.attributes.items()
    images, labels, _ = load_examples(name)
    with torch.no_grad():
        z = model.encode(to_unit(images)).mean
        target = (labels[:, 0] + 1 + torch.arange(len(labels)) % 9) % 10
        seen = network.predict(model.decode(directions.edit(z, {attribute: target})))[:, 0]
    assert (seen == target).float().mean() > edited
    right = [
        (network.predict(generate(model, range(20), prior=directions.prior_where({attribute: value}))) == number).sum()
        for number, value in enumerate(values)
    ]
    assert sum(right) / 200 > drawn


# --- files -----------------------------------------------------------------------------------------------------------


def tensors_of(directions: AttributeModel) -> dict[str, Tensor]:
    return {key: value for key, value in vars(directions).items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("count", [4000, 10])
@pytest.mark.parametrize("attributes", [SIZES, ATTRIBUTES], ids=["one", "several"])
def test_directions_come_back_from_a_file(
    tmp_path: Path, count: int, attributes: Mapping[str, tuple[str, ...]]
) -> None:
    z, labels, _ = labelled(count)
    fitted = fit_attributes(z, labels[:, : len(attributes)], attributes)
    save_directions(fitted, tmp_path / "latents.safetensors")
    loaded = load_directions(tmp_path / "latents.safetensors")
    assert type(loaded) is type(fitted)
    assert {name: tuple(values) for name, values in loaded.attributes.items()} == attributes
    assert tensors_of(loaded).keys() == tensors_of(fitted).keys()
    for key, tensor in tensors_of(loaded).items():
        assert torch.equal(tensor, tensors_of(fitted)[key])
        # In memory they lie alike: products of tensors that don't may round otherwise.
        assert tensors_of(fitted)[key].is_contiguous()
        assert tensor.stride() == tensors_of(fitted)[key].stride()
        assert tensor.data_ptr() % 64 == 0
    torch.testing.assert_close(loaded.edit(z, {"size": 1}), fitted.edit(z, {"size": 1}))


def test_a_file_from_before_there_were_two_kinds_holds_directions(tmp_path: Path) -> None:
    z, labels, _ = labelled(200)
    fitted = Directions.fit(z, labels[:, :1], SIZES)
    path = tmp_path / "latents.safetensors"
    save_directions(fitted, path)
    description = {"latent_dim": 8, "attributes": {"size": [*SIZES["size"]]}, "groups": [], "draws": True}
    save_file(load_file(path) | {"std": torch.ones(8)}, path, metadata={"directions": json.dumps(description)})
    loaded = load_directions(path)
    assert isinstance(loaded, Directions)
    assert loaded.draws
    torch.testing.assert_close(loaded.edit(z, {"size": 1}), fitted.edit(z, {"size": 1}))


@pytest.mark.parametrize(
    ("changes", "described", "sentence"),
    [
        ({}, {"draws": ...}, "directions are described by latent_dim, attributes, groups, draws"),
        ({}, {"kind": "magic"}, "the kind of directions should be one of directions, class-gaussians, got 'magic'"),
        ({}, {"latent_dim": 9}, "effects should be F32 [2, 9]"),
        ({}, {"attributes": {"a": ["x"]}}, "effects should be F32 [1, 8]"),
        ({}, {"attributes": {"a": ["x", "y\n"]}}, "names should have 1 to 100 letters"),
        ({}, {"attributes": {"a": "xy"}}, "the attribute 'a' should have a list of values"),
        ({}, {"attributes": {}}, "there should be 1 to 64 attributes"),
        ({}, {"attributes": {str(a): ["x"] * 501 for a in range(2)}}, "at most 1000 values, got 1002"),
        ({}, {"attributes": {str(a): ["x"] * 20 for a in range(9)}, "groups": [[1, 2, 3]]}, "groups should be lists"),
        ({}, {"latent_dim": 10**9}, "latent_dim should be from 1 to 4096"),
        ({}, {"groups": 1}, "groups should be lists of the numbers of two or three attributes, of at most 5000"),
        ({}, {"groups": [[0, 1]]}, "groups should be lists"),
        ({}, {"groups": [[0, 0]]}, "groups should be lists"),
        ({}, {"groups": [[0, "1"]]}, "groups should be lists"),
        ({}, {"groups": [[[0], 0]]}, "groups should be lists"),
        (
            {},
            {"latent_dim": 1000, "attributes": {"a": ["x"] * 200, "b": ["y"]}, "groups": [[0, 1]]},
            "201 values of 1000 dimensions are too many to be predicted with groups",
        ),
        ({}, {"draws": None}, "draws should be true or false"),
        ({"effects": torch.full((2, 8), torch.nan)}, {}, "values in effects are not finite"),
        ({"spread": torch.ones(8, 8)}, {}, "spread should be lower triangular with a positive diagonal"),
        ({"shares": torch.ones(2)}, {}, "the shares of an attribute's values should sum to 1"),
        ({"shares": torch.tensor([-1.0, 2.0])}, {}, "shares should not be negative"),
        ({"more": torch.zeros(1)}, {}, "it has the tensor 'more', which it should not"),
    ],
)
def test_a_strangers_file_must_hold_directions_to_the_letter(
    tmp_path: Path, changes: dict[str, Tensor], described: dict[str, Any], sentence: str
) -> None:
    tensors = {"mean": torch.ones(8)} | {key: torch.ones(2, 8) for key in ("effects", "scores")}
    tensors |= {
        "shares": torch.full((2,), 0.5),
        "offsets": torch.ones(2),
        "spread": torch.eye(8),
        "interplay": torch.ones(0, 8),
    }
    description = {"kind": "directions", "latent_dim": 8, "attributes": {"a": ["x", "y"]}, "groups": [], "draws": False}
    refused(tmp_path, tensors | changes, description | described, sentence)


@pytest.mark.parametrize(
    ("changes", "described", "sentence"),
    [
        ({}, {"groups": []}, "class-gaussians are described by latent_dim, attributes, draws"),
        ({}, {"attributes": {"a": ["x", "y"], "b": ["x"]}}, "class-gaussians should have one attribute"),
        ({}, {"latent_dim": 257}, "at most 256 dimensions"),
        ({}, {"latent_dim": 256, "attributes": {"a": ["x"] * 62}}, "at most 4,000,000 numbers in their matrices"),
        ({}, {"latent_dim": 7}, "means should be F32 [2, 7]"),
        ({"shares": torch.ones(2)}, {}, "the shares of an attribute's values should sum to 1"),
        ({"means": torch.full((2, 8), torch.inf)}, {}, "values in means are not finite"),
        ({"scale_tril": torch.ones(2, 8, 8)}, {}, "scale_tril should be lower triangular with a positive diagonal"),
        ({"scale_tril": torch.zeros(2, 8, 8)}, {}, "scale_tril should be lower triangular with a positive diagonal"),
        ({"scale_tril": 1e-9 * torch.eye(8).repeat(2, 1, 1)}, {}, "too near to a matrix that can't be inverted"),
        ({"scale_tril": (torch.eye(8) + 999 * torch.ones(8, 8).tril(-1)).repeat(2, 1, 1)}, {}, "too near to a matrix"),
        ({"effects": torch.ones(2, 8)}, {}, "it has the tensor 'effects', which it should not"),
    ],
)
def test_a_strangers_file_must_hold_gaussians_to_the_letter(
    tmp_path: Path, changes: dict[str, Tensor], described: dict[str, Any], sentence: str
) -> None:
    tensors = {"shares": torch.full((2,), 0.5), "means": torch.ones(2, 8), "scale_tril": torch.eye(8).repeat(2, 1, 1)}
    description = {"kind": "class-gaussians", "latent_dim": 8, "attributes": {"a": ["x", "y"]}, "draws": False}
    refused(tmp_path, tensors | changes, description | described, sentence)


def refused(folder: Path, tensors: dict[str, Tensor], description: dict[str, Any], sentence: str) -> None:
    path = folder / "latents.safetensors"
    described = {key: value for key, value in description.items() if value is not ...}
    save_file(tensors, path, metadata={"directions": json.dumps(described)})
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        load_directions(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_more_groups_are_fitted_than_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels, _ = labelled(400)
    assert Directions.fit(z, labels, ATTRIBUTES).groups
    monkeypatch.setattr(vae.attributes.regression, "MAX_TRIED_NUMBERS", 6 * 8 * 8 - 1)
    assert not Directions.fit(z, labels, ATTRIBUTES).groups


def test_too_many_values_are_refused_when_fitted_and_not_only_when_loaded() -> None:
    z, labels = torch.randn(20, 4), torch.zeros(20, 2, dtype=torch.int64)
    values = tuple(map(str, range(501)))
    with pytest.raises(ValueError, match="at most 1000 values, got 1002"):
        fit_attributes(z, labels, {"a": values, "b": values})
