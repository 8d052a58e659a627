"""Figures of merit: features and pictures in, numbers out."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vae.loss import log_likelihood
from vae.model import VAE, DiagonalGaussian, Likelihood
from vae.prior import Prior, StandardNormal

ACTIVE_VARIANCE = 0.01  # Burda, Grosse & Salakhutdinov 2016, section 5.2
PCA_NUMBERS = 100_000_000  # pixels that PCA is fitted to at the most: 400 MB


def psnr(mse: float) -> float:
    """Compute the peak signal-to-noise ratio in dB from the mean squared error of pixels in [0, 1]; inf for 0."""
    return math.inf if mse == 0 else -10 * math.log10(mse)


def bits_per_dimension(elbo: float, dimensions: int, likelihood: Likelihood) -> float | None:
    """Convert an ELBO in nats to the bits that one 8-bit pixel value takes under the model.

    A density over [0, 1] becomes a probability by the width 1/255 of a pixel value, which is exact as far as the scale of
    the likelihood is much wider than that. None for `bernoulli`, which is no density of grey pictures, and for `mse`,
    whose σ of 1 is none of theirs.
    """
    if likelihood not in ("gaussian", "spectral", "laplace"):
        return None
    return -elbo / (dimensions * math.log(2)) + math.log2(255)


# --- how likely pictures are -----------------------------------------------------------------------------------------


@torch.no_grad()
def importance_weighted_bound(
    model: VAE,
    x: Tensor,
    samples: int,
    *,
    prior: Prior | None = None,
    chunk: int = 500,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Compute a lower bound of log p(x) in nats, (B,), for pictures x, (B, C, H, W) in [0, 1].

        log p(x)  >=  E[log 1/K Σ_k p(x|z_k) p(z_k) / q(z_k|x)],  z_k ~ q(z|x)         Burda et al. 2016, equation 8

    with K = `samples`: 1 gives the ELBO, more come closer to log p(x) ("Importance Weighted Autoencoders", ICLR 2016,
    https://arxiv.org/abs/1509.00519). `bernoulli` scores x as it is: binarize it first, if that is meant.
    prior: p(z), on the model's device; None is N(0, I).
    chunk: latent vectors decoded at once, over pictures and samples together, which bounds the memory.
    Raises ValueError if samples or chunk is below 1.
    """
    if samples < 1 or chunk < 1:
        raise ValueError(f"samples and chunk must be at least 1, got {samples} and {chunk}")
    prior = StandardNormal() if prior is None else prior
    bounds = []
    for part in x.split(chunk):
        posterior = model.encode(part)
        log_sum = torch.full((len(part),), -math.inf, device=x.device)
        at_once = max(1, chunk // len(part))  # samples of each picture
        for start in range(0, samples, at_once):
            k = min(at_once, samples - start)
            repeated = posterior.repeat(k)  # (k * B, D)
            z = repeated.sample(generator)
            log_x = log_likelihood(
                part.repeat(k, 1, 1, 1), model.decoder(z), model.config.likelihood, model.log_scale
            )  # log p(x|z), (k * B,)
            log_weight = (log_x + prior.log_prob(z) - repeated.log_prob(z)).view(k, len(part))
            log_sum = torch.logaddexp(log_sum, log_weight.logsumexp(dim=0))  # (B,)
        bounds.append(log_sum - math.log(samples))
    return torch.cat(bounds)


# --- how alike two pictures are --------------------------------------------------------------------------------------


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Compute the structural similarity of pictures in [0, 1], two (B, C, H, W) of at least 11x11 -> (B,), 1 if equal.

    A Gaussian window of 11x11, σ = 1.5, and the mean over where it fits and over channels (Wang, Bovik, Sheikh &
    Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004).
    Raises ValueError on other shapes.
    """
    if x.shape != y.shape or x.ndim != 4 or min(x.shape[2:]) < 11:
        raise ValueError(f"expected two batches of pictures of 11x11 or more, got {(*x.shape,)} and {(*y.shape,)}")
    offset = torch.arange(-5.0, 6.0, device=x.device)
    window = torch.softmax(-offset.square() / (2 * 1.5**2), dim=0)
    # As two matrix products, which on small pictures are much faster than convolutions.
    rows, columns = (torch.eye(size, device=x.device).unfold(0, 11, 1) @ window for size in x.shape[2:])

    def blur(maps: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H - 10, W - 10)
        return rows @ maps @ columns.T

    x, y = x.float(), y.float()
    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x) - mean_x.square() + blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).flatten(1).mean(dim=1)


# --- how alike two sets of pictures are, by their features -----------------------------------------------------------


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Compute the squared Fréchet distance of the Gaussians fitted to two sets of features, (N, F) and (M, F).

        |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)                                     Heusel et al. 2017, equation 6

    ("GANs Trained by a Two Time-Scale Update Rule", NIPS 2017, https://arxiv.org/abs/1706.08500.) With fewer pictures
    it comes out larger, so compare only equal numbers. Raises ValueError on other shapes, fewer than two rows or features
    that are not finite.
    """
    _check_features(a, b, more_than=1)
    a, b = a.detach().cpu().double(), b.detach().cpu().double()  # there: MPS has no float64
    roots, trace = [], 0.0
    for features in (a, b):
        covariance = torch.cov(features.T).view(features.shape[1], -1)  # (F, F)
        values, vectors = torch.linalg.eigh(covariance)
        roots.append(vectors * values.clamp(min=0).sqrt() @ vectors.T)
        trace += covariance.trace().item()
    # With R = Σ^½, the eigenvalues of Σ_a Σ_b are those of (R_a R_b)(R_a R_b)ᵀ: the squared singular values of R_a R_b.
    overlap = torch.linalg.svdvals(roots[0] @ roots[1]).sum().item()
    return max(0.0, (a.mean(0) - b.mean(0)).square().sum().item() + trace - 2 * overlap)


class PrecisionRecall(NamedTuple):
    """The part of generated pictures that lie among real ones, and of real ones that lie among generated ones."""

    precision: float
    recall: float


def precision_recall(real: Tensor, generated: Tensor, k: int = 3, chunk: int = 1000) -> PrecisionRecall:
    """Compute improved precision and recall of features, (N, F) and (M, F): are they real, and are all kinds there?

    A picture lies among others if it is no further from one of them than that one's k-th nearest neighbour among them
    (Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019,
    https://arxiv.org/abs/1904.06991). `chunk` rows of distances are held at once, which bounds the memory.
    Raises ValueError on other shapes, no more than k rows or features that are not finite.
    """
    _check_features(real, generated, more_than=k)
    real, generated = real.detach().float(), generated.detach().float()
    radii = []
    for points in (real, generated):
        # The nearest of all is the point itself: the k-th neighbour is the one after k.
        rows = [torch.cdist(part, points).topk(k + 1, largest=False).values[:, k] for part in points.split(chunk)]
        radii.append(torch.cat(rows))
    among_real, among_generated = [], []
    for part, radius in zip(generated.split(chunk), radii[1].split(chunk), strict=True):
        distance = torch.cdist(part, real)  # (chunk, N)
        among_real.append((distance <= radii[0]).any(dim=1))
        among_generated.append((distance <= radius[:, None]).any(dim=0))
    precision = torch.cat(among_real).double().mean().item()
    return PrecisionRecall(precision, torch.stack(among_generated).any(dim=0).double().mean().item())


def _check_features(a: Tensor, b: Tensor, more_than: int) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) <= more_than:
        raise ValueError(
            f"expected two sets of more than {more_than} rows of equally many features, "
            f"got shapes {(*a.shape,)} and {(*b.shape,)}"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("features are not finite: the weights give broken pictures")


# --- how the latent space is used ------------------------------------------------------------------------------------


def active_units(means: Tensor) -> int:
    """Count the latent dimensions whose posterior mean, (N, D), varies over the data by more than 0.01 (Burda et al.)."""
    return int((means.cpu().double().var(dim=0, correction=0) > ACTIVE_VARIANCE).sum())


class LatentUse(NamedTuple):
    """The mean KL(q(z|x) || N(0, I)) and its two parts, in nats: kl = mutual_information + marginal_kl."""

    kl: float
    mutual_information: float
    marginal_kl: float


def latent_use(mean: Tensor, logvar: Tensor, z: Tensor, chunk: int = 1000) -> LatentUse:
    """Split the KL into what z tells of x and how far the aggregate posterior is from the prior (Hoffman & Johnson).

    mean, logvar: of the posterior of N pictures, (N, D); z: one sample of each, (N, D). The aggregate posterior q(z) is
    taken to be the mixture of these N posteriors. Then, but for the noise of the samples,
        mutual_information: is exact for a draw among these N pictures, so at most log N, and a lower bound where they
            stand for more (Poole et al., "On Variational Bounds of Mutual Information", ICML 2019)
        marginal_kl: is KL(q(z) || N(0, I)), exact and an upper bound by the same token
    Hoffman & Johnson, "ELBO surgery", NIPS 2016 workshop. Computed in float64 on the CPU, `chunk` rows at once.
    """
    mean, logvar, z = (tensor.detach().cpu().double() for tensor in (mean, logvar, z))
    own = DiagonalGaussian(mean, logvar).log_prob(z)  # log q(z_n|x_n), (N,)
    precision = torch.exp(-logvar)
    constant = -0.5 * (logvar + math.log(2 * math.pi) + mean.square() * precision).sum(dim=1)  # (N,)
    rows = []
    for part in z.split(chunk):
        log_q = constant + part @ (mean * precision).T - 0.5 * part.square() @ precision.T  # log q(z|x_m), (chunk, N)
        rows.append(log_q.logsumexp(dim=1) - math.log(len(mean)))
    kl = DiagonalGaussian(mean, logvar).kl().mean().item()
    mutual_information = (own - torch.cat(rows)).mean().item()
    return LatentUse(kl, mutual_information, kl - mutual_information)


def pca_mse(train: Tensor, test: Tensor, components: int) -> float:
    """Compute the mean squared error of test pictures given back by PCA fitted to train, both (N, C, H, W) uint8.

    The linear autoencoder of the same size: what a VAE's error should be compared with. In units of [0, 1] squared.
    """
    from sklearn.decomposition import PCA  # here: the page uses this module and has no need of scikit-learn

    step = math.ceil(train.numel() / PCA_NUMBERS)
    fitted = train[::step].cpu().flatten(1).numpy().astype(np.float32) / 255
    pca = PCA(min(components, *fitted.shape), random_state=0).fit(fitted)
    squared_error = 0.0
    for part in test.cpu().flatten(1).split(1000):
        asked = part.numpy().astype(np.float32) / 255
        squared_error += np.square(asked - pca.inverse_transform(pca.transform(asked))).sum(dtype=np.float64)
    return float(squared_error / test.numel())
