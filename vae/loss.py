"""The evidence lower bound: reconstruction log-likelihood minus KL divergence, per example, in nats.

    log p(x)  >=  E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z))                     Kingma & Welling 2014, equation 3

The first term rewards a decoder that gives the picture back, the second an encoder that stays near the prior. Their
balance is not a matter of taste: it follows from how much noise p(x|z) assumes in a pixel. The tutorial's mean squared
error is a Gaussian whose σ is 1, far more than the whole pixel range, so the KL wins and pictures blur.
`gaussian` measures σ instead (Rybkin, Daniilidis & Levine, "Simple and Effective VAE Training with Calibrated
Decoders", ICML 2021, https://arxiv.org/abs/2006.13202): the most likely σ of a batch is its root mean squared error.

One σ for all pixels still assumes that the errors of neighbouring pixels are independent. In fact they are correlated:
most of the error is smooth, and a σ large enough for that drowns fine detail. `spectral` transforms the error by a DCT
and measures one σ per frequency; detail, whose σ is smaller, then counts for more.
(Scoring in the frequency domain: Barron, "A General and Adaptive Robust Loss Function", CVPR 2019,
https://arxiv.org/abs/1701.03077.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from vae.config import Likelihood
from vae.images import check_range, to_unit
from vae.model import VAE, VAEOutput, kl_divergence
from vae.prior import Prior, StandardNormal

# Rounding to 8 bits leaves noise of this standard deviation in a pixel; no σ below it is worth believing.
ROUNDING_STD = 1 / (255 * math.sqrt(12))

# How far the σ of `spectral` follow the spectrum of the errors, from 0, one σ for all, to 1, all the way. With 1 a
# training from the start can fail: what is not yet learnt is taken for noise, and what is taken for noise is not learnt.
SPECTRAL_TILT = 0.3


def gaussian_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor | float = 0.0) -> Tensor:
    """Compute log N(x; mean, σ²) with σ = exp(log_scale), summed over pixels: (B, C, H, W) -> (B,) in nats."""
    log_scale = (
        log_scale.float() if isinstance(log_scale, Tensor) else torch.full((), float(log_scale), device=x.device)
    )
    standardized = (x - mean) * torch.exp(-log_scale)
    return -(0.5 * standardized.square() + log_scale + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def spectral_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor | float = 0.0) -> Tensor:
    """Compute log p(x) where x - mean is noise of σ = exp(log_scale), (C, H, W), at each frequency: (B,) in nats.

    The cosine transform is a rotation of the space of pictures: this is the density of the pixels, too.
    """
    return gaussian_log_likelihood(cosine_transform(x - mean), torch.zeros_like(x), log_scale)


def cosine_transform(x: Tensor) -> Tensor:
    """Write pictures as sums of cosines by the orthonormal two-dimensional DCT-II, (..., H, W) -> same shape.

    The lowest frequency comes first: at [..., 0, 0] is sqrt(H W) times the mean.
    """
    rows, columns = (_cosines(size, x.device) for size in x.shape[-2:])
    return rows @ x @ columns.T


def _cosines(size: int, device: torch.device) -> Tensor:
    """Make the orthonormal matrix whose k-th row is a cosine of k half waves, (size, size)."""
    k = torch.arange(size, device=device)
    waves = torch.cos(math.pi / size * k[:, None] * (k + 0.5)) * math.sqrt(2 / size)
    waves[0] *= math.sqrt(0.5)
    return waves


def bernoulli_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """Compute log Bernoulli(x; sigmoid(logits)), summed over pixels: (B, C, H, W) -> (B,) in nats.

    For x strictly between 0 and 1 this is the usual cross-entropy, but no longer the logarithm of a probability.
    """
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def log_likelihood(x: Tensor, logits: Tensor, likelihood: Likelihood, log_scale: Tensor | float = 0.0) -> Tensor:
    """Compute log p(x|z) from the decoder's logits under the named likelihood: (B, C, H, W) -> (B,) in nats, float32."""
    x = x.float()
    if likelihood == "gaussian":
        return gaussian_log_likelihood(x, torch.sigmoid(logits), log_scale)
    if likelihood == "spectral":
        return spectral_log_likelihood(x, torch.sigmoid(logits), log_scale)
    if likelihood == "bernoulli":
        return bernoulli_log_likelihood(x, logits)
    if likelihood == "mse":
        return gaussian_log_likelihood(x, torch.sigmoid(logits))
    raise ValueError(f"likelihood must be one of {', '.join(get_args(Likelihood))}, got {likelihood!r}")


def mean_error(x: Tensor, mean: Tensor, likelihood: Likelihood) -> Tensor:
    """Compute the mean squared error, a scalar, from which the best scale follows.

    For `spectral`, the mean squared error at each frequency, (C, H, W). The mean over parts of equal size is that of
    the whole, which is how several processes or chunks share one scale.
    """
    x = x.float()
    if likelihood == "spectral":
        return cosine_transform(x - mean).square().mean(dim=0)
    return (x - mean).square().mean()


def optimal_log_scale(error: Tensor, likelihood: Likelihood, tilt: float = SPECTRAL_TILT) -> Tensor:
    """Compute the log_scale that makes pictures of that `mean_error` most likely: Rybkin et al. 2021, equation 6.

    For `gaussian` the logarithm of the root mean squared error; for `bernoulli` and `mse`, which have no scale, 0. For
    `spectral` a spectrum, (C, H, W): its shape follows that of the errors as far as `tilt` says, from 0 to 1, and its level
    is the most likely one.
    """
    if likelihood == "gaussian":
        return 0.5 * torch.log(error + ROUNDING_STD**2)
    if likelihood == "spectral":
        error = error + ROUNDING_STD**2
        spectrum = 0.5 * torch.log(error)
        shape = tilt * (spectrum - spectrum.mean())
        return shape + 0.5 * torch.log((error * torch.exp(-2 * shape)).mean())
    return torch.zeros_like(error)


def overall_scale(log_scale: Tensor) -> Tensor:
    """Compute σ from a log_scale of any shape, a scalar: over frequencies, the root mean square."""
    return (2 * log_scale).exp().mean().sqrt()


@torch.no_grad()
def calibrate(model: VAE, images: Tensor, tilt: float = SPECTRAL_TILT, *, chunk: int = 500) -> None:
    """Set the scale of a trained model's likelihood to its maximum-likelihood value on images; change nothing else.

    Until then the scale is 1, far too wide for the ELBO: call this at the end of your own training loop.
    images: a few thousand of the training set, (N, C, H, W) uint8 or float in [0, 1], on any device.
    chunk: pictures at once, which bounds the memory.
    Raises ValueError if there are none, or values beyond [0, 1].
    """
    if len(images) == 0:
        raise ValueError("there are no images to calibrate on")
    likelihood, device, was_training = model.config.likelihood, model.log_scale.device, model.training
    generator = torch.Generator(device).manual_seed(0)
    error = torch.zeros_like(model.log_scale)
    model.eval()
    try:
        for part in images.split(chunk):
            x = (to_unit(part) if part.dtype == torch.uint8 else part).to(device)
            check_range(x)
            error += mean_error(x, model(x, generator).reconstruction, likelihood) * (len(part) / len(images))
    finally:
        model.train(was_training)
    model.log_scale.copy_(optimal_log_scale(error, likelihood, tilt))


class ELBO(NamedTuple):
    """The bound and its two parts, each (B,) in nats: total = reconstruction - beta * kl. Higher is better."""

    reconstruction: Tensor
    kl: Tensor
    total: Tensor


def elbo(
    x: Tensor,
    output: VAEOutput,
    likelihood: Likelihood,
    log_scale: Tensor,
    beta: float | Tensor = 1.0,
    log_prior: Callable[[Tensor], Tensor] | None = None,
) -> ELBO:
    """Compute the evidence lower bound of pictures x, (B, C, H, W) in [0, 1], from one pass through the model.

    log_scale: the model's own, to evaluate; `optimal_log_scale` of the batch, to train. No gradient need flow through
        the latter: at the optimum the bound does not change with the scale.
    beta: weight of the KL; anything but 1 is no longer a bound on log p(x) (Higgins et al. 2017, "beta-VAE").
    log_prior: log p(z) in nats, (B, D) -> (B,); None is N(0, I). The KL from N(0, I) is known, that from any other
        prior is estimated at the one sample that was decoded.
    """
    reconstruction = log_likelihood(x, output.logits, likelihood, log_scale)
    if log_prior is None:
        kl = kl_divergence(output.posterior.mean, output.posterior.logvar)
    else:
        kl = output.posterior.log_prob(output.z) - log_prior(output.z)
    return ELBO(reconstruction, kl, reconstruction - beta * kl)


def importance_weighted(log_weights: Tensor, samples: int) -> Tensor:
    """Combine K = `samples` bounds per picture, (K * B,) in nats, into a tighter one, (B,): log 1/K Σ_k exp(log w_k).

    A bound of one sample is the logarithm of a weight, log w = log p(x|z) + log p(z) - log q(z|x); the mean of the weights
    themselves comes closer to p(x) as K grows. Training for it lets q be less like the true posterior (Burda,
    Grosse & Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016, https://arxiv.org/abs/1509.00519).
    The K bounds of a picture must be B apart, as `VAE.forward` gives them.
    """
    return log_weights.view(samples, -1).logsumexp(dim=0) - math.log(samples)


@torch.no_grad()
def importance_weighted_bound(
    model: VAE,
    x: Tensor,
    samples: int,
    *,
    prior: Prior | None = None,
    beta: float = 1.0,
    chunk: int = 500,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Compute a lower bound of log p(x) in nats, (B,), for pictures x, (B, C, H, W) in [0, 1].

        log p(x)  >=  E[log 1/K Σ_k p(x|z_k) p(z_k) / q(z_k|x)],  z_k ~ q(z|x)         Burda et al. 2016, equation 8

    with K = `samples`: 1 gives the ELBO, more come closer to log p(x) ("Importance Weighted Autoencoders", ICLR 2016,
    https://arxiv.org/abs/1509.00519). `bernoulli` scores x as it is: binarize it first, if that is meant.
    prior: p(z), on the model's device; None is N(0, I).
    beta: weighs log p(z) - log q(z|x), as in `elbo`; only with 1 it is a bound.
    chunk: latent vectors decoded at once, over pictures and samples together, which bounds the memory.
    Raises ValueError if samples or chunk is below 1.
    """
    if samples < 1 or chunk < 1:
        raise ValueError(f"samples and chunk must be at least 1, got {samples} and {chunk}")
    prior = StandardNormal() if prior is None else prior
    bounds = [torch.empty(0, device=model.log_scale.device)]
    for part in x.split(chunk) if len(x) else ():
        posterior = model.encode(part)
        log_sum = torch.full((len(part),), -math.inf, device=x.device)
        at_once = max(1, chunk // len(part))  # samples of each picture
        for start in range(0, samples, at_once):
            k = min(at_once, samples - start)
            repeated = posterior.repeat(k)  # (k * B, D)
            z = repeated.sample(generator)
            log_x = log_likelihood(
                part.repeat(k, 1, 1, 1), model.decode_logits(z), model.config.likelihood, model.log_scale
            )  # log p(x|z), (k * B,)
            log_weight = (log_x + beta * (prior.log_prob(z) - repeated.log_prob(z))).view(k, len(part))
            log_sum = torch.logaddexp(log_sum, log_weight.logsumexp(dim=0))  # (B,)
        bounds.append(log_sum - math.log(samples))
    return torch.cat(bounds)
