from __future__ import annotations

import math

import pytest
import torch
from conftest import small_model
from torch.distributions import Normal

from vae.evaluate import calibrate, evaluate
from vae.images import to_unit
from vae.metrics import active_units, bits_per_dimension, pca_mse, psnr


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


def test_pca_agrees_with_the_singular_value_decomposition() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(300, 5, generator=generator) @ torch.randn(5, 64, generator=generator)
    pictures = (128 + 8 * factors).clamp(0, 255).byte().view(300, 1, 8, 8)
    train, test = pictures[:200], pictures[200:]
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
    assert figures["scale"] == pytest.approx(sigma.item(), rel=1e-4)
    log_p = Normal(output.reconstruction, sigma).log_prob(x).sum((1, 2, 3)).mean().item()
    kl = torch.distributions.kl_divergence(Normal(posterior.mean, posterior.std), Normal(0, 1)).sum(1).mean().item()
    assert figures["reconstruction"] == pytest.approx(log_p, rel=1e-4)
    assert figures["kl"] == pytest.approx(kl, rel=1e-4)
    assert figures["elbo"] == pytest.approx(log_p - kl, rel=1e-4)
    assert figures["mse"] == pytest.approx((mean_picture - x).square().mean().item(), rel=1e-4)
    assert figures["pictures"] == 30
    assert evaluate(model, images) == figures  # measured twice, the same
