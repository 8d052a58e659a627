"""The evidence lower bound: reconstruction log-likelihood minus KL divergence, per example, in nats.

    log p(x)  >=  E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z))                     Kingma & Welling 2014, equation 3

The first term rewards a decoder that gives the picture back, the second an encoder that stays near the prior. Their
balance is not a matter of taste: it follows from how much noise p(x|z) assumes in a pixel. The tutorial's mean squared
error is a Gaussian whose σ is 1, far more than the whole pixel range, so the KL wins and pictures blur. The default
`gaussian` measures σ instead (Rybkin, Daniilidis & Levine, "Simple and Effective VAE Training with Calibrated
Decoders", ICML 2021, https://arxiv.org/abs/2006.13202): the most likely σ of a batch is its root mean squared error.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vae.model import DiagonalGaussian, Likelihood, VAEOutput

# Rounding to 8 bits leaves noise of this standard deviation in a pixel; no σ below it is worth believing.
ROUNDING_STD = 1 / (255 * math.sqrt(12))


def gaussian_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor | float = 0.0) -> Tensor:
    """Compute log N(x; mean, σ²) with σ = exp(log_scale), summed over pixels: (B, C, H, W) -> (B,) in nats."""
    log_scale = torch.as_tensor(log_scale, device=x.device)
    standardized = (x - mean) * torch.exp(-log_scale)
    return -(0.5 * standardized.square() + log_scale + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def laplace_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor | float = 0.0) -> Tensor:
    """Compute log Laplace(x; mean, b) with b = exp(log_scale), summed over pixels: (B, C, H, W) -> (B,) in nats."""
    log_scale = torch.as_tensor(log_scale, device=x.device)
    return -((x - mean).abs() * torch.exp(-log_scale) + log_scale + math.log(2)).flatten(1).sum(1)


def bernoulli_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """Compute log Bernoulli(x; sigmoid(logits)), summed over pixels: (B, C, H, W) -> (B,) in nats.

    For x strictly between 0 and 1 this is the usual cross-entropy, but no longer the logarithm of a probability.
    """
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def log_likelihood(x: Tensor, logits: Tensor, likelihood: Likelihood, log_scale: Tensor | float = 0.0) -> Tensor:
    """Compute log p(x|z) from the decoder's logits under the named likelihood: (B, C, H, W) -> (B,) in nats."""
    if likelihood == "gaussian":
        return gaussian_log_likelihood(x, torch.sigmoid(logits), log_scale)
    if likelihood == "laplace":
        return laplace_log_likelihood(x, torch.sigmoid(logits), log_scale)
    if likelihood == "bernoulli":
        return bernoulli_log_likelihood(x, logits)
    if likelihood == "mse":
        return gaussian_log_likelihood(x, torch.sigmoid(logits))
    raise ValueError(f"likelihood must be gaussian, laplace, bernoulli or mse, got {likelihood!r}")


def mean_error(x: Tensor, mean: Tensor, likelihood: Likelihood) -> Tensor:
    """Compute what the best scale is made of, a scalar: the mean squared error, for `laplace` the mean absolute error.

    The mean over parts of equal size is that of the whole, which is how several processes or chunks share one scale.
    """
    return (x - mean).abs().mean() if likelihood == "laplace" else (x - mean).square().mean()


def optimal_log_scale(error: Tensor, likelihood: Likelihood) -> Tensor:
    """Compute the log_scale that makes pictures of that `mean_error` most likely: Rybkin et al. 2021, equation 6.

    For `gaussian` the logarithm of the root mean squared error, for `laplace` of the mean absolute error, for the
    others, which have no scale, 0.
    """
    if likelihood == "gaussian":
        return 0.5 * torch.log(error + ROUNDING_STD**2)
    if likelihood == "laplace":
        return torch.log(error + ROUNDING_STD)
    return torch.zeros_like(error)


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Compute KL(N(mean, exp(logvar)) || N(0, I)), summed over dimensions: (B, D) -> (B,) in nats."""
    return DiagonalGaussian(mean, logvar).kl()


class ELBO(NamedTuple):
    """The bound and its two parts, each (B,) in nats: total = reconstruction - beta * kl. Higher is better."""

    reconstruction: Tensor
    kl: Tensor
    total: Tensor


def elbo(x: Tensor, output: VAEOutput, likelihood: Likelihood, log_scale: Tensor, beta: float = 1.0) -> ELBO:
    """Compute the evidence lower bound of pictures x, (B, C, H, W) in [0, 1], from one pass through the model.

    log_scale: the model's own, to evaluate; `optimal_log_scale` of the batch, to train. No gradient need flow through
        the latter: at the optimum the bound does not change with the scale.
    beta: weight of the KL; anything but 1 is no longer a bound on log p(x) (Higgins et al. 2017, "beta-VAE").
    """
    reconstruction = log_likelihood(x, output.logits, likelihood, log_scale)
    kl = output.posterior.kl()
    return ELBO(reconstruction, kl, reconstruction - beta * kl)
