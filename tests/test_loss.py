from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import scipy.fft
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from vae import VAE
from vae.config import Likelihood
from vae.loss import (
    ROUNDING_STD,
    bernoulli_log_likelihood,
    calibrate,
    cosine_transform,
    elbo,
    gaussian_log_likelihood,
    log_likelihood,
    mean_error,
    optimal_log_scale,
    overall_scale,
    spectral_log_likelihood,
)
from vae.model import kl_divergence


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 3, 16, 16, generator=generator), torch.randn(4, 3, 16, 16, generator=generator)


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
def test_likelihoods_agree_with_torch_distributions(pair: tuple[Tensor, Tensor], scale: float) -> None:
    x, logits = pair
    mean, log_scale = logits.sigmoid(), math.log(scale)
    for computed, distribution in (
        (gaussian_log_likelihood(x, mean, log_scale), Normal(mean, scale)),
        (bernoulli_log_likelihood(x.round(), logits), Bernoulli(logits=logits)),
    ):
        target = x.round() if isinstance(distribution, Bernoulli) else x
        torch.testing.assert_close(computed, distribution.log_prob(target).sum((1, 2, 3)))


def test_named_likelihoods_are_those_functions(pair: tuple[Tensor, Tensor]) -> None:
    x, logits = pair
    mean, log_scale = logits.sigmoid(), torch.tensor(-2.0)
    assert torch.equal(log_likelihood(x, logits, "gaussian", log_scale), gaussian_log_likelihood(x, mean, log_scale))
    assert torch.equal(log_likelihood(x, logits, "bernoulli", log_scale), bernoulli_log_likelihood(x, logits))
    unit = -0.5 * (x - mean).square().sum((1, 2, 3)) - 0.5 * x[0].numel() * math.log(2 * math.pi)
    torch.testing.assert_close(log_likelihood(x, logits, "mse", log_scale), unit)
    unknown: Any = "poisson"
    with pytest.raises(ValueError, match="got 'poisson'"):
        log_likelihood(x, logits, unknown)


def test_bernoulli_is_exact_where_a_sigmoid_would_round() -> None:
    logits = torch.full((1, 1, 16, 16), 80.0)
    torch.testing.assert_close(bernoulli_log_likelihood(torch.zeros_like(logits), logits), torch.tensor([-80.0 * 256]))


@pytest.mark.parametrize("likelihood", ["gaussian", "spectral"])
def test_no_other_scale_makes_the_batch_more_likely(pair: tuple[Tensor, Tensor], likelihood: Likelihood) -> None:
    x, logits = pair
    best = optimal_log_scale(mean_error(x, logits.sigmoid(), likelihood), likelihood)
    highest = log_likelihood(x, logits, likelihood, best).sum()
    for factor in (0.9, 0.98, 1.02, 1.1):
        assert log_likelihood(x, logits, likelihood, best + math.log(factor)).sum() < highest


@pytest.mark.parametrize("likelihood", get_args(Likelihood))
def test_a_perfect_reconstruction_is_finite(likelihood: Likelihood) -> None:
    x = torch.rand(2, 1, 16, 16)
    log_scale = optimal_log_scale(mean_error(x, x, likelihood), likelihood)
    least = 0 if likelihood in ("bernoulli", "mse") else math.log(ROUNDING_STD)
    torch.testing.assert_close(log_scale, torch.full_like(log_scale, least))
    assert log_likelihood(x, torch.logit(x), likelihood, log_scale).isfinite().all()


def test_kl_divergence_agrees_with_torch_distributions_and_sums_over_dimensions() -> None:
    mean, logvar = torch.randn(5, 4), torch.randn(5, 4)
    expected = torch.distributions.kl_divergence(Normal(mean, torch.exp(0.5 * logvar)), Normal(0, 1)).sum(1)
    torch.testing.assert_close(kl_divergence(mean, logvar), expected)
    assert torch.equal(kl_divergence(torch.zeros(2, 4), torch.zeros(2, 4)), torch.zeros(2))


@pytest.mark.parametrize("likelihood", get_args(Likelihood))
def test_elbo_is_its_parts_per_example(model: VAE, likelihood: Likelihood) -> None:
    x = torch.rand(4, 1, 28, 28)
    output, log_scale = model(x), torch.tensor(-1.0)
    bound = elbo(x, output, likelihood, log_scale, beta=3.0)
    assert bound.total.shape == bound.reconstruction.shape == bound.kl.shape == (4,)
    assert torch.equal(bound.total, bound.reconstruction - 3 * bound.kl)
    assert torch.equal(bound.kl, output.posterior.kl())
    assert torch.equal(bound.reconstruction, log_likelihood(x, output.logits, likelihood, log_scale))


def test_the_cosine_transform_agrees_with_scipy_and_is_a_rotation(pair: tuple[Tensor, Tensor]) -> None:
    x = pair[0][..., :12]  # not square
    transformed = cosine_transform(x)
    expected = scipy.fft.dctn(x.double().numpy(), axes=(2, 3), norm="ortho")
    torch.testing.assert_close(transformed, torch.from_numpy(expected).float())
    torch.testing.assert_close(transformed.square().sum((1, 2, 3)), x.square().sum((1, 2, 3)))


def test_the_spectral_likelihood_is_a_density_of_pixels(pair: tuple[Tensor, Tensor]) -> None:
    """A Gaussian with the covariance that the σ of the frequencies give to the pixels."""
    x, mean = pair[0][:, :1], pair[1][:, :1].sigmoid()
    log_scale = 0.5 * torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(1)) - 1
    waves = cosine_transform(torch.eye(256).view(256, 1, 16, 16)).flatten(1).T  # (frequencies, pixels)
    covariance = waves.T @ (2 * log_scale).exp().flatten().diag() @ waves
    expected = torch.distributions.MultivariateNormal(mean.flatten(1), covariance).log_prob(x.flatten(1))
    torch.testing.assert_close(spectral_log_likelihood(x, mean, log_scale), expected, rtol=1e-4, atol=1e-2)


def test_with_one_scale_for_all_the_spectral_likelihood_is_the_gaussian(pair: tuple[Tensor, Tensor]) -> None:
    x, mean = pair[0], pair[1].sigmoid()
    torch.testing.assert_close(
        spectral_log_likelihood(x, mean, torch.full((3, 16, 16), -1.5)), gaussian_log_likelihood(x, mean, -1.5)
    )


def test_frequencies_with_smaller_errors_get_smaller_scales() -> None:
    generator = torch.Generator().manual_seed(0)
    x, coarse = torch.full((64, 1, 16, 16), 0.5), torch.randn(64, 1, 4, 4, generator=generator)
    noise = torch.nn.functional.interpolate(coarse, size=16, mode="bilinear")  # smooth
    log_scale = optimal_log_scale(mean_error(x, x + 0.1 * noise, "spectral"), "spectral")
    assert log_scale.shape == (1, 16, 16)
    assert log_scale[0, :3, :3].mean() > log_scale[0, 8:, 8:].mean() + 0.5
    spread = (2 * log_scale).exp().mean().sqrt()  # at a pixel, over all frequencies
    torch.testing.assert_close(overall_scale(log_scale), spread)


def test_the_optimal_scale_needs_no_gradient_of_its_own(pair: tuple[Tensor, Tensor]) -> None:
    """Rybkin et al. differentiate through it; where the bound is at its maximum in the scale, that adds nothing."""
    x, logits = pair
    gradients = []
    for detach in (False, True):
        leaf = logits.clone().requires_grad_()
        log_scale = optimal_log_scale(mean_error(x, leaf.sigmoid(), "gaussian"), "gaussian")
        log_likelihood(x, leaf, "gaussian", log_scale.detach() if detach else log_scale).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-4)  # but for ROUNDING_STD


@pytest.mark.parametrize("likelihood", get_args(Likelihood))
def test_parts_of_equal_size_share_the_scale_of_the_whole(pair: tuple[Tensor, Tensor], likelihood: Likelihood) -> None:
    x, mean = pair[0], pair[1].sigmoid()
    parts = torch.stack([mean_error(x[half], mean[half], likelihood) for half in (slice(0, 2), slice(2, 4))])
    torch.testing.assert_close(parts.mean(dim=0), mean_error(x, mean, likelihood))


def test_under_another_prior_the_kl_is_estimated_at_the_sample(model: VAE) -> None:
    x = torch.rand(4, 1, 28, 28)
    output = model(x)
    prior = Normal(1.0, 2.0)
    bound = elbo(x, output, "mse", torch.tensor(0.0), log_prior=lambda z: prior.log_prob(z).sum(1))
    posterior = Normal(output.posterior.mean, output.posterior.std)
    expected = (posterior.log_prob(output.z) - prior.log_prob(output.z)).sum(1)
    torch.testing.assert_close(bound.kl, expected)
    torch.testing.assert_close(bound.total, bound.reconstruction - expected)


def test_the_bound_is_below_the_log_likelihood_and_tight_for_the_true_posterior() -> None:
    """One latent, x = z + noise in each of 256 pixels: everything is Gaussian, so log p(x) is known exactly."""
    sigma = 0.5
    x = 0.3 + sigma * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    pixels, total = x.numel(), x.sum()
    covariance = sigma**2 * torch.eye(pixels) + 1
    exact = torch.distributions.MultivariateNormal(torch.zeros(pixels), covariance).log_prob(x.flatten())
    variance = 1 / (1 + pixels / sigma**2)
    mean = variance * total / sigma**2

    def bound(mean: Tensor, variance: float) -> float:
        z = mean + math.sqrt(variance) * torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(1))
        reconstruction = gaussian_log_likelihood(x, z.expand(-1, 1, 16, 16), math.log(sigma)).mean()
        return (reconstruction - kl_divergence(mean.view(1, 1), torch.tensor([[math.log(variance)]]))).item()

    assert bound(mean, variance) == pytest.approx(exact.item(), abs=0.05)
    assert bound(mean + 0.05, variance) < exact.item() - 0.5
    assert bound(mean, 4 * variance) < exact.item() - 0.5


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.empty(0, 1, 28, 28), "no images"),
        (torch.full((3, 1, 28, 28), 200.0), "values from 0 to 1, got 200 to 200"),
    ],
)
def test_a_scale_is_not_calibrated_on_anything(model: VAE, images: Tensor, sentence: str) -> None:
    model.train()
    with pytest.raises(ValueError, match=sentence):
        calibrate(model, images)
    assert model.training
    assert model.log_scale == 0
