from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Laplace, Normal

from vae import VAE
from vae.loss import (
    ROUNDING_STD,
    bernoulli_log_likelihood,
    elbo,
    gaussian_log_likelihood,
    kl_divergence,
    laplace_log_likelihood,
    log_likelihood,
    mean_error,
    optimal_log_scale,
)
from vae.model import Likelihood


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
        (laplace_log_likelihood(x, mean, log_scale), Laplace(mean, scale)),
        (bernoulli_log_likelihood(x.round(), logits), Bernoulli(logits=logits)),
    ):
        target = x.round() if isinstance(distribution, Bernoulli) else x
        torch.testing.assert_close(computed, distribution.log_prob(target).sum((1, 2, 3)))


def test_named_likelihoods_are_those_functions(pair: tuple[Tensor, Tensor]) -> None:
    x, logits = pair
    mean, log_scale = logits.sigmoid(), torch.tensor(-2.0)
    assert torch.equal(log_likelihood(x, logits, "gaussian", log_scale), gaussian_log_likelihood(x, mean, log_scale))
    assert torch.equal(log_likelihood(x, logits, "laplace", log_scale), laplace_log_likelihood(x, mean, log_scale))
    assert torch.equal(log_likelihood(x, logits, "bernoulli", log_scale), bernoulli_log_likelihood(x, logits))
    unit = -0.5 * (x - mean).square().sum((1, 2, 3)) - 0.5 * x[0].numel() * math.log(2 * math.pi)
    torch.testing.assert_close(log_likelihood(x, logits, "mse", log_scale), unit)
    unknown: Any = "poisson"
    with pytest.raises(ValueError, match="got 'poisson'"):
        log_likelihood(x, logits, unknown)


def test_bernoulli_is_exact_where_a_sigmoid_would_round() -> None:
    logits = torch.full((1, 1, 16, 16), 80.0)
    torch.testing.assert_close(bernoulli_log_likelihood(torch.zeros_like(logits), logits), torch.tensor([-80.0 * 256]))


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
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
    assert log_scale.item() == pytest.approx(math.log(ROUNDING_STD) if likelihood in ("gaussian", "laplace") else 0)
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


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_the_optimal_scale_needs_no_gradient_of_its_own(pair: tuple[Tensor, Tensor], likelihood: Likelihood) -> None:
    """Rybkin et al. differentiate through it; where the bound is at its maximum in the scale, that adds nothing."""
    x, logits = pair
    gradients = []
    for detach in (False, True):
        leaf = logits.clone().requires_grad_()
        log_scale = optimal_log_scale(mean_error(x, leaf.sigmoid(), likelihood), likelihood)
        log_likelihood(x, leaf, likelihood, log_scale.detach() if detach else log_scale).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-4)  # but for ROUNDING_STD


@pytest.mark.parametrize("likelihood", get_args(Likelihood))
def test_parts_of_equal_size_share_the_scale_of_the_whole(pair: tuple[Tensor, Tensor], likelihood: Likelihood) -> None:
    x, mean = pair[0], pair[1].sigmoid()
    parts = torch.stack([mean_error(x[half], mean[half], likelihood) for half in (slice(0, 2), slice(2, 4))])
    torch.testing.assert_close(parts.mean(), mean_error(x, mean, likelihood))


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
