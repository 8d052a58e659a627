"""Metrics: features, latent vectors and pictures in, numbers out."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vae.config import Likelihood
from vae.model import DiagonalGaussian

ACTIVE_VARIANCE = 0.01  # Burda, Grosse & Salakhutdinov 2016, section 5.2
PCA_NUMBERS = 100_000_000  # pixel values that PCA is fitted to at most
SMALL = 3072  # pixel values of pictures whose covariance is computed, in memory that doesn't grow with their number


def bits_per_dimension(elbo: float, dimensions: int, likelihood: Likelihood) -> float | None:
    """Convert an ELBO in nats to the bits that one 8-bit pixel value takes under the model.

    A density over [0, 1] times the width 1/255 of a pixel value is a probability, to good accuracy where the scale of
    the likelihood is much wider. None for `bernoulli`, which is no density, and for `mse`, whose σ is not fitted.
    """
    if likelihood not in ("gaussian", "spectral"):
        return None
    return -elbo / (dimensions * math.log(2)) + math.log2(255)


# --- distances between two sets of pictures, by their features -------------------------------------------------------


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Compute the squared Fréchet distance of the Gaussians fitted to two sets of features, (N, F) and (M, F).

        |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)                                     Heusel et al. 2017, equation 6

    ("GANs Trained by a Two Time-Scale Update Rule", NIPS 2017, https://arxiv.org/abs/1706.08500.) With fewer pictures
    it is larger, so compare only sets of equal size. Raises ValueError on other shapes, fewer than two rows or features
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
    """The fractions of generated pictures that lie among real ones, and of real ones among generated ones."""

    precision: float
    recall: float


def precision_recall(real: Tensor, generated: Tensor, k: int = 3, chunk: int = 1000) -> PrecisionRecall:
    """Compute improved precision and recall, from 0 to 1, of features, (N, F) and (M, F).

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
    shares = (
        part.cpu().double().mean().item() for part in (torch.cat(among_real), torch.stack(among_generated).any(dim=0))
    )
    return PrecisionRecall(*shares)


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
    """Count the latent dimensions whose posterior mean, (N, D), has a variance over the data above ACTIVE_VARIANCE."""
    return int((means.cpu().double().var(dim=0, correction=0) > ACTIVE_VARIANCE).sum())


class LatentUse(NamedTuple):
    """The mean KL(q(z|x) || N(0, I)) and its two parts, in nats: kl = mutual_information + marginal_kl."""

    kl: float
    mutual_information: float
    marginal_kl: float


def latent_use(mean: Tensor, logvar: Tensor, z: Tensor, chunk: int = 1000) -> LatentUse:
    """Split the mean KL divergence into the mutual information of x and z and the KL of the aggregate posterior.

    mean, logvar: of the posterior of N pictures, (N, D); z: one sample of each, (N, D). The aggregate posterior q(z) is
    taken to be the mixture of these N posteriors. Up to the noise of the samples,
        mutual_information: is exact for a draw among these N pictures, so at most log N, and a lower bound for the
            distribution that they are from (Poole et al., "On Variational Bounds of Mutual Information", ICML 2019)
        marginal_kl: is KL(q(z) || N(0, I)), in the same way exact for these and an upper bound for their distribution
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
    """Compute the mean squared error, pixels in [0, 1], of PCA fitted to train on test, both (N, C, H, W) uint8.

    PCA is the best linear autoencoder of the same size: a VAE should do better.
    """
    train = train[:: math.ceil(train.numel() / PCA_NUMBERS)]
    is_covariance_smaller = train[0].numel() <= min(SMALL, len(train))
    mean, directions = (_principal if is_covariance_smaller else _principal_at_once)(train, components)
    squared_error = 0.0
    for part in test.flatten(1).split(1000):
        x = part.cpu().float() / 255 - mean
        squared_error += (x - x @ directions @ directions.T).square().sum(dtype=torch.float64).item()
    return squared_error / test.numel()


def _principal(train: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Return the mean, (F,), and the principal directions, (F, components), of pictures, a few at a time."""
    features = train[0].numel()
    total, squares = torch.zeros(features).double(), torch.zeros(features, features).double()
    for part in train.split(1000):
        x = part.flatten(1).cpu().float() / 255
        total += x.sum(dim=0)
        squares += x.T @ x
    mean = total / len(train)
    vectors = torch.linalg.eigh(squares / len(train) - mean.outer(mean)).eigenvectors
    return mean.float(), vectors[:, -min(components, len(train)) :].float()


def _principal_at_once(train: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Return the same, from all pictures at once: for few, or such whose covariance is large.

    Halko, Martinsson & Tropp, "Finding structure with randomness", SIAM Review 2011, with twice as many random directions as components.
    """
    x = train.cpu().flatten(1).float().div_(255)
    mean = x.mean(dim=0)
    x -= mean
    with torch.random.fork_rng(devices=[]):  # the random numbers of the training stay as they are
        torch.default_generator.manual_seed(0)
        directions = torch.svd_lowrank(x, min(2 * components, *x.shape), niter=2)[2]
    return mean, directions[:, :components]
