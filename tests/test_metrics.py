from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from conftest import small_model
from scipy.linalg import sqrtm
from scipy.ndimage import correlate1d
from torch import Tensor
from torch.distributions import Independent, MixtureSameFamily, MultivariateNormal, Normal

from vae import StandardNormal
from vae.config import Likelihood
from vae.evaluate.measure import evaluate
from vae.evaluate.metrics import (
    PrecisionRecall,
    active_units,
    bits_per_dimension,
    frechet_distance,
    latent_use,
    pca_mse,
    precision_recall,
)
from vae.images import psnr, ssim, to_unit
from vae.loss import calibrate, elbo, importance_weighted, importance_weighted_bound, log_likelihood
from vae.model import DiagonalGaussian
from vae.prior import Flow, GaussianMixture


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class LinearGaussian:
    """Probabilistic PCA as a VAE: x = 1/2 + W z + σ ε, so that log p(x) is known (Tipping & Bishop 1999)."""

    def __init__(self, posterior_variance: float) -> None:
        self.weight = 0.03 * torch.randn(64, 3, generator=seeded())
        self.sigma, self.posterior_variance = 0.05, posterior_variance
        self.config = SimpleNamespace(likelihood="gaussian")
        self.log_scale = torch.tensor(math.log(self.sigma))
        covariance = self.weight @ self.weight.T + self.sigma**2 * torch.eye(64)
        self.marginal = MultivariateNormal(torch.full((64,), 0.5), covariance)

    def draw(self, n: int) -> Tensor:
        z, noise = torch.randn(n, 3, generator=seeded(3)), torch.randn(n, 64, generator=seeded(4))
        return (0.5 + z @ self.weight.T + self.sigma * noise).view(n, 1, 8, 8)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        precision = torch.eye(3) + self.weight.T @ self.weight / self.sigma**2
        mean = torch.linalg.solve(precision, self.weight.T @ (x.flatten(1) - 0.5).T / self.sigma**2).T
        return DiagonalGaussian(mean, torch.log(self.posterior_variance / precision.diagonal()).expand_as(mean))

    def decode_logits(self, z: Tensor) -> Tensor:
        return torch.logit(0.5 + z @ self.weight.T).view(-1, 1, 8, 8)


def test_psnr() -> None:
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(0) == math.inf
    assert math.isnan(psnr(math.nan))


def test_bits_of_a_narrow_gaussian_are_those_of_its_rounded_values() -> None:
    """Code values 0 to 255 drawn from a Gaussian: the entropy of the rounded values is what the bound comes to."""
    sigma = 0.05
    value = torch.arange(256) / 255
    width = 1 / 255
    normal = Normal(0.5, sigma)
    probability = normal.cdf(value + width / 2) - normal.cdf(value - width / 2)
    entropy = -(torch.xlogy(probability, probability).sum() / math.log(2)).item()
    expected_log_density = (probability * normal.log_prob(value)).sum().item()
    assert bits_per_dimension(10 * expected_log_density, 10, "gaussian") == pytest.approx(entropy, abs=1e-3)
    assert bits_per_dimension(-100.0, 10, "bernoulli") is None


def test_active_units_counts_what_varies() -> None:
    means = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.2, 0.05, 0.0])
    assert active_units(means) == 2


@pytest.mark.parametrize("count", [200, 40])  # more and fewer pictures than pixel values
def test_pca_agrees_with_the_singular_value_decomposition(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(300, 5, generator=generator) @ torch.randn(5, 64, generator=generator)
    pictures = (128 + 8 * factors).clamp(0, 255).byte().view(300, 1, 8, 8)
    train, test = pictures[:count], pictures[200:]
    x, y = to_unit(train).flatten(1), to_unit(test).flatten(1)
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:3]
    back = (y - x.mean(0)) @ axes.T @ axes + x.mean(0)
    assert pca_mse(train, test, 3) == pytest.approx((back - y).square().mean().item(), rel=1e-4)
    assert pca_mse(train, test, 64) < 1e-6
    assert pca_mse(train[:2], test, 64) > 0  # fewer pictures than components


def test_evaluate_agrees_with_the_textbook() -> None:
    model = small_model()
    images = torch.randint(256, (30, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    calibrate(model, images)
    figures = evaluate(model, images)
    x = to_unit(images)
    with torch.no_grad():
        posterior = model.encode(x)
        output = model(x, torch.Generator().manual_seed(0))
        mean_picture = model.decode(posterior.mean)
    sigma = (output.reconstruction - x).square().mean().sqrt()
    assert figures.scale == pytest.approx(sigma.item(), rel=1e-4)
    log_p = Normal(output.reconstruction, sigma).log_prob(x).sum((1, 2, 3)).mean().item()
    kl = torch.distributions.kl_divergence(Normal(posterior.mean, posterior.std), Normal(0, 1)).sum(1).mean().item()
    assert figures.reconstruction == pytest.approx(log_p, rel=1e-4)
    assert figures.kl == pytest.approx(kl, rel=1e-4)
    assert figures.elbo == pytest.approx(log_p - kl, rel=1e-4)
    assert figures.mse == pytest.approx((mean_picture - x).square().mean().item(), rel=1e-4)
    assert figures.pictures == 30
    assert evaluate(model, images) == figures  # measured twice, the same


# --- the importance-weighted bound -----------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", get_args(Likelihood))
def test_the_bound_of_one_sample_is_the_elbo_of_that_sample(likelihood: Likelihood) -> None:
    model = small_model(likelihood=likelihood)
    model.log_scale.fill_(-1.5)
    x = torch.rand(5, 1, 28, 28, generator=seeded())
    with torch.no_grad():
        output = model(x, seeded(1))
        q = Normal(output.posterior.mean, output.posterior.std)
        expected = log_likelihood(x, output.logits, likelihood, model.log_scale)
        expected += (Normal(0, 1).log_prob(output.z) - q.log_prob(output.z)).sum(1)
    torch.testing.assert_close(importance_weighted_bound(model, x, 1, generator=seeded(1)), expected)


def test_the_bound_rises_with_the_samples_to_the_known_log_likelihood() -> None:
    model: Any = LinearGaussian(posterior_variance=2.0)
    x = model.draw(200)
    exact = model.marginal.log_prob(x.flatten(1))
    gaps = [
        (exact - importance_weighted_bound(model, x, k, generator=seeded())).mean().item() for k in (1, 5, 50, 2000)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.2
    assert abs(gaps[-1]) < 0.02


@pytest.mark.parametrize(("learned", "beta"), [(False, 1.0), (True, 1.0), (False, 4.0)])
def test_what_is_trained_for_with_more_samples_is_that_bound(learned: bool, beta: float) -> None:
    model = small_model(likelihood="bernoulli")
    prior = Flow(model.config.latent_dim, 2, 8) if learned else StandardNormal()
    x = torch.rand(5, 1, 28, 28, generator=seeded()).round()
    with torch.no_grad():
        output = model(x, seeded(1), samples=3)
        again = elbo(x.repeat(3, 1, 1, 1), output, "bernoulli", model.log_scale, beta, prior.log_prob)
        bound = importance_weighted(again.total, 3)
        expected = importance_weighted_bound(model, x, 3, prior=prior, beta=beta, generator=seeded(1))
    assert bound.shape == (5,)
    torch.testing.assert_close(bound, expected)
    torch.testing.assert_close(importance_weighted(again.total, 1), again.total)


def test_the_bound_does_not_depend_on_the_chunk_and_covers_all_pictures() -> None:
    model: Any = LinearGaussian(posterior_variance=1.0)
    x = model.draw(7)
    exact = model.marginal.log_prob(x.flatten(1))
    for chunk in (1, 3, 7, 20, 10_000):  # less than the pictures, as many, more, all at once
        bound = importance_weighted_bound(model, x, 300, chunk=chunk, generator=seeded())
        torch.testing.assert_close(bound, exact, atol=0.3, rtol=0)
    with pytest.raises(ValueError, match="at least 1, got 0 and 500"):
        importance_weighted_bound(model, x, 0)


def test_the_bound_takes_another_prior() -> None:
    """The prior N(m, s² I) in the place of N(0, I) makes another Gaussian of x, which is known as well."""
    model: Any = LinearGaussian(posterior_variance=1.0)
    prior = GaussianMixture(3, 1)
    prior.means.fill_(0.5)
    prior.scale_tril.mul_(0.8)
    x = model.draw(50)
    mean = 0.5 + model.weight @ prior.means[0]
    covariance = 0.8**2 * model.weight @ model.weight.T + model.sigma**2 * torch.eye(64)
    exact = MultivariateNormal(mean, covariance).log_prob(x.flatten(1))
    bound = importance_weighted_bound(model, x, 2000, prior=prior, generator=seeded())
    torch.testing.assert_close(bound.mean(), exact.mean(), atol=0.02, rtol=0)


# --- pictures beside pictures ----------------------------------------------------------------------------------------


def test_ssim_agrees_with_the_formula_on_scipys_filters() -> None:
    x = torch.rand(3, 3, 20, 31, generator=seeded())
    y = (x + 0.2 * torch.randn(x.shape, generator=seeded(1))).clamp(0, 1)
    window = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))

    def blur(maps: np.ndarray) -> np.ndarray:
        for axis in (2, 3):
            maps = correlate1d(maps, window / window.sum(), axis=axis)
        return maps[:, :, 5:-5, 5:-5]

    a, b = x.double().numpy(), y.double().numpy()
    var_a, var_b = blur(a * a) - blur(a) ** 2, blur(b * b) - blur(b) ** 2
    numerator = (2 * blur(a) * blur(b) + 1e-4) * (2 * (blur(a * b) - blur(a) * blur(b)) + 9e-4)
    expected = numerator / ((blur(a) ** 2 + blur(b) ** 2 + 1e-4) * (var_a + var_b + 9e-4))
    np.testing.assert_allclose(ssim(x, y).numpy(), expected.mean((1, 2, 3)), atol=1e-5)


def test_ssim_is_one_for_equal_pictures_and_symmetric() -> None:
    x, y = torch.rand(2, 4, 1, 28, 28, generator=seeded())
    torch.testing.assert_close(ssim(x, x), torch.ones(4))
    torch.testing.assert_close(ssim(x, y), ssim(y, x))
    assert ssim(x, y).max() < 0.2
    for a, b in ((x, x[:2]), (x[0], x[0]), (x[..., :10], x[..., :10])):
        with pytest.raises(ValueError, match="expected two batches of pictures of 11x11 or more"):
            ssim(a, b)


# --- sets of features ------------------------------------------------------------------------------------------------


def test_frechet_distance_agrees_with_scipys_square_root() -> None:
    mix = torch.randn(12, 12, generator=seeded())
    a = torch.randn(500, 12, generator=seeded(1)) @ mix
    b = 0.7 * torch.randn(400, 12, generator=seeded(2)) @ mix.T + 0.3
    cov_a, cov_b = np.cov(a.double().numpy().T), np.cov(b.double().numpy().T)
    shift = (a.double().mean(0) - b.double().mean(0)).square().sum().item()
    expected = shift + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_independent_gaussians_is_known() -> None:
    """|μ_a - μ_b|² + Σ (σ_a - σ_b)² where the covariances are diagonal."""
    a = torch.randn(200_000, 3, generator=seeded()) * torch.tensor([1.0, 2.0, 0.5])
    b = torch.randn(200_000, 3, generator=seeded(1)) * torch.tensor([2.0, 2.0, 0.1]) + torch.tensor([0.0, 1.0, 0.0])
    assert frechet_distance(a, b) == pytest.approx(1 + 1 + 0.4**2, rel=0.02)


def test_features_of_broken_pictures_are_refused() -> None:
    x = torch.randn(10, 3, generator=seeded())
    broken = x.clone()
    broken[0, 0] = math.nan
    for compare in (frechet_distance, precision_recall):
        with pytest.raises(ValueError, match="features are not finite"):
            compare(x, broken)


def test_frechet_distance_of_a_set_from_itself_is_zero() -> None:
    x = torch.randn(300, 40, generator=seeded())
    dead = torch.cat([x.relu(), torch.zeros(300, 5)], dim=1)  # features that are always zero
    for features in (x, x[:20], dead, dead.bfloat16(), x[:, :1]):  # also fewer rows than features, and one feature
        assert frechet_distance(features, features) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(x, x + 2) == pytest.approx(4 * 40)


def test_precision_and_recall_of_obvious_cases() -> None:
    x = torch.randn(200, 5, generator=seeded())
    two_kinds = torch.cat([x, x + 100])
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 100) == (0, 0)
    assert precision_recall(two_kinds, x) == (1, 0.5)  # all real, but one kind is missing
    assert precision_recall(x, two_kinds) == (0.5, 1)  # all kinds, but half is not real


@pytest.mark.parametrize("chunk", [7, 1000])
def test_precision_and_recall_agree_with_counting_one_by_one(chunk: int) -> None:
    real = torch.randn(40, 3, generator=seeded())
    generated = 0.8 * torch.randn(30, 3, generator=seeded(1)) + 0.5

    def lie_among(points: Tensor, others: Tensor) -> float:
        count = 0
        for point in points:
            for other in others:
                third = sorted((other - neighbour).norm().item() for neighbour in others)[3]  # after itself
                if (point - other).norm().item() <= third:
                    count += 1
                    break
        return count / len(points)

    expected = PrecisionRecall(lie_among(generated, real), lie_among(real, generated))
    assert precision_recall(real, generated, chunk=chunk) == pytest.approx(expected)


def test_feature_sets_that_do_not_fit_are_refused() -> None:
    x = torch.rand(10, 4)
    for other in (torch.rand(10, 5), torch.rand(10), torch.rand(1, 4)):
        with pytest.raises(ValueError, match="expected two sets of more than 1 rows"):
            frechet_distance(x, other)
    with pytest.raises(ValueError, match="expected two sets of more than 3 rows"):
        precision_recall(x, x[:3])


# --- the latent space ------------------------------------------------------------------------------------------------


def test_the_kl_splits_into_information_and_the_aggregate_posterior() -> None:
    mean, logvar = torch.randn(50, 3, generator=seeded()), torch.randn(50, 3, generator=seeded(1)) - 2
    posterior = DiagonalGaussian(mean, logvar)
    z = posterior.sample(seeded(2))
    components = Independent(Normal(mean.double(), posterior.std.double()), 1)
    aggregate = MixtureSameFamily(torch.distributions.Categorical(torch.ones(50).double()), components)
    use = latent_use(mean, logvar, z, chunk=7)
    expected = (components.log_prob(z.double()) - aggregate.log_prob(z.double())).mean().item()
    assert use.mutual_information == pytest.approx(expected, rel=1e-7)
    assert use.kl == pytest.approx(posterior.kl().mean().item(), rel=1e-6)
    assert use.kl == pytest.approx(use.mutual_information + use.marginal_kl)


def test_information_is_nothing_for_a_collapsed_encoder_and_the_logarithm_of_n_for_a_sharp_one() -> None:
    zeros = torch.zeros(100, 4)
    z = StandardNormal(4).sample(100, seeded())
    collapsed = latent_use(zeros, zeros, z)
    assert collapsed.kl == pytest.approx(0, abs=1e-9)
    assert collapsed.mutual_information == pytest.approx(0, abs=1e-9)
    sharp = latent_use(z, torch.full((100, 4), -12.0), z)
    assert sharp.mutual_information == pytest.approx(math.log(100), abs=1e-6)
