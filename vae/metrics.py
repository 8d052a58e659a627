"""Figures of merit: features and pictures in, numbers out."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from vae.model import Likelihood

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
    if likelihood not in ("gaussian", "laplace"):
        return None
    return -elbo / (dimensions * math.log(2)) + math.log2(255)


def active_units(means: Tensor) -> int:
    """Count the latent dimensions whose posterior mean, (N, D), varies over the data by more than 0.01 (Burda et al.)."""
    return int((means.cpu().double().var(dim=0, correction=0) > ACTIVE_VARIANCE).sum())


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
