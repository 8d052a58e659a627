"""A mixture of Gaussians, fitted to posteriors by expectation-maximization."""

from __future__ import annotations

import itertools
import math
import warnings

import torch
from torch import Tensor, nn

from vae.prior.base import Prior

CHUNK = (
    250  # latent vectors that a mixture draws or scores at once: larger pieces of memory are allocated anew each time
)
MIN_VARIANCE = 1e-4  # added to the variances of a mixture, so that none of its components collapses onto a few points
MAX_ROUNDS = 30  # of expectation-maximization
MIN_GAIN = 1e-3  # nats per vector, for another round
SHARES = 0.0, 0.1, 0.2, 0.3, 0.5  # of what all components have in common, to try in each covariance
ROUNDNESS = 0.0, 0.03, 0.1, 0.3, 0.6, 1.0  # of the covariance of N(0, I), to try in all of them
MIN_HALF = 1e-4  # half precision holds fewer digits of what is smaller
FACTORS = 1.0, 1.03, 1.06, 1.1, 1.2, 1.4, 1.7  # to try all covariances by


class GaussianMixture(Prior):
    """Gaussians with full covariances, Σ_k w_k N(μ_k, L_k L_kᵀ): simple, quick to fit and hard to beat.

    Temperature multiplies the noise within a component and leaves the choice of it alone: at 0 the μ_k remain.
    """

    weights: Tensor  # (K,), their sum is 1
    means: Tensor  # (K, D)
    scale_tril: Tensor  # (K, D, D), the L_k, lower triangular

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__()
        self.latent_dim, self.components = latent_dim, components
        self.register_buffer("weights", torch.full((components,), 1 / components))
        self.register_buffer("means", torch.zeros(components, latent_dim))
        identities = torch.zeros(components, latent_dim, latent_dim)
        identities.diagonal(dim1=1, dim2=2).fill_(1)  # torch.eye would import all of torch.compile on the device "meta"
        self.register_buffer("scale_tril", identities)

    def from_noise(self, eps: Tensor, temperature: float = 1.0) -> Tensor:
        eps = eps.to(self.means)
        k, first = draw_component(eps[:, 0], self.weights)
        eps = torch.cat([first[:, None], eps[:, 1:]], dim=1)
        parts = zip(k.split(CHUNK), eps.split(CHUNK), strict=True)  # of which each row takes a matrix of its own
        noise = torch.cat([(self.scale_tril[own] @ part[:, :, None])[:, :, 0] for own, part in parts])
        return self.means[k] + temperature * noise

    def log_prob(self, z: Tensor) -> Tensor:
        return self._log_joint(z.to(self.means.dtype)).logsumexp(dim=1)

    def _log_joint(self, z: Tensor, variance: Tensor | None = None) -> Tensor:
        """Compute log w_k + log N(z; μ_k, L_k L_kᵀ), (B, D) -> (B, K); with variance, its mean over N(z, variance)."""
        identity = torch.eye(z.shape[1], device=z.device)
        whiten = torch.linalg.solve_triangular(self.scale_tril, identity, upper=False)  # (K, D, D)
        centres = (whiten @ self.means[:, :, None])[:, :, 0]  # (K, D)
        log_weight = self.weights.log() - self.scale_tril.diagonal(dim1=1, dim2=2).log().sum(dim=1)  # (K,)
        log_weight = log_weight - 0.5 * math.log(2 * math.pi) * z.shape[1]
        rows = []
        for part in z.split(CHUNK):
            white = (part @ whiten.flatten(0, 1).T).unflatten(1, centres.shape) - centres  # (B, K, D)
            rows.append(log_weight - 0.5 * white.square().sum(dim=2))
        joint = torch.cat(rows)
        return joint if variance is None else joint - 0.5 * variance @ whiten.square().sum(dim=1).T

    @staticmethod
    def numbers(latent_dim: int, components: int) -> int:
        """Count the numbers of a mixture; `save_prior` refuses more than MAX_PRIOR_NUMBERS."""
        return components * (1 + latent_dim + latent_dim**2)

    @classmethod
    def fit(
        cls,
        z: Tensor,
        components: int = 100,
        seed: int = 0,
        *,
        variance: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> GaussianMixture:
        """Fit a mixture to vectors, (N, D), by expectation-maximization on their device.

        variance: (N, D); then z are the means of N Gaussians, such as posteriors, and the mixture is fitted to these,
            as if each had infinitely many samples: the noise of single samples isn't learnt.
        labels: (N,), the class of each; then each class gets a mixture of its own, with its share of the components (at
            least one), and the result joins them. No component lies between two classes, and fitting is faster.
        Raises ValueError if there are fewer vectors than components, or no component.
        """
        if z.ndim != 2 or not 1 <= components <= len(z):
            raise ValueError(
                "a mixture needs 1 component or more, and a latent vector, (N, D), for each: "
                f"got {components} components and latent vectors of shape {(*z.shape,)}"
            )
        if labels is not None:
            return cls._fit_classes(z, components, seed, variance, labels.to(z.device))
        from sklearn.cluster import KMeans  # here: sampling and scoring have no need of it
        from sklearn.exceptions import ConvergenceWarning

        z, variance = z.detach().float(), None if variance is None else variance.detach().float()
        # No less than what float32 can tell from rounding, whatever the scale of the latents.
        ridge = max(MIN_VARIANCE, 1e-5 * z.var(dim=0, correction=0).max().item())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of vectors that are alike: some components stay empty
            labels = KMeans(components, n_init=1, random_state=seed).fit(z.cpu().numpy()).labels_
        nearest = nn.functional.one_hot(torch.from_numpy(labels).long(), components).to(z)  # (N, K)
        prior = cls(z.shape[1], components).to(z.device)
        prior._maximize(z, variance, nearest, ridge)
        bound = -math.inf
        for _ in range(MAX_ROUNDS):
            joint = prior._log_joint(z, variance)
            prior._maximize(z, variance, joint.softmax(dim=1), ridge)
            before, bound = bound, joint.logsumexp(dim=1).mean().item()
            if bound - before < MIN_GAIN:  # little is left to gain
                break
        return prior

    @classmethod
    def _fit_classes(
        cls, z: Tensor, components: int, seed: int, variance: Tensor | None, labels: Tensor
    ) -> GaussianMixture:
        classes, sizes = labels.unique(return_counts=True)
        counts = torch.ones_like(sizes)
        for _ in range(components - len(classes)):
            counts[(sizes / counts).argmax()] += 1
        parts = []
        for label, count in zip(classes, counts.tolist(), strict=True):
            own = labels == label
            parts.append(cls.fit(z[own], count, seed, variance=None if variance is None else variance[own]))
        mixture = cls(z.shape[1], sum(part.components for part in parts))
        mixture.weights = torch.cat([size * part.weights for size, part in zip(sizes / len(z), parts, strict=True)])
        mixture.means = torch.cat([part.means for part in parts])
        mixture.scale_tril = torch.cat([part.scale_tril for part in parts])
        return mixture

    def _maximize(self, z: Tensor, variance: Tensor | None, shares: Tensor, ridge: float) -> None:
        """Set the Gaussians to those that are likeliest where (N, K) shares say what belongs to which component."""
        sizes = shares.sum(dim=0).clamp(min=1e-6)  # (K,)
        self.weights = sizes / sizes.sum()
        self.means = shares.T @ z / sizes[:, None]
        covariances = []
        for k, size in enumerate(sizes):
            own = shares[:, k].nonzero()[:, 0]
            share, centred = shares[own, k, None], z[own] - self.means[k]
            covariance = (share * centred).T @ centred
            if variance is not None:
                covariance += torch.diag((share * variance[own]).sum(dim=0))
            covariances.append(covariance / size)
        self.scale_tril = torch.linalg.cholesky(
            torch.stack(covariances) + ridge * torch.eye(z.shape[1], device=z.device)
        )

    def calibrate(self, z: Tensor) -> GaussianMixture:
        """Set the widths of the components by held-out latent vectors z, (N, D); returns itself.

        A component fitted to a few hundred vectors overfits them. Each covariance is shrunk towards the mean
        covariance of all components and towards that of N(0, I), then multiplied by a factor: the shrinkage and
        factor that make z most likely (Friedman, "Regularized Discriminant Analysis", JASA 1989). The result is rounded
        to half precision, if its range allows that, so that its file has half the size.
        """
        factors = self.scale_tril.cpu().double()  # there: MPS has no float64
        own = factors @ factors.mT  # (K, D, D)
        common = (self.weights.cpu()[:, None, None] * own).sum(dim=0)  # (D, D)
        shares = SHARES if self.components > 1 else (0.0,)
        covariances = [own.lerp(common, share) for share in shares]
        identity = torch.eye(own.shape[1], dtype=own.dtype)
        best = -math.inf, self.scale_tril
        for covariance, roundness in itertools.product(covariances, ROUNDNESS):
            shape = torch.linalg.cholesky(covariance.lerp(identity, roundness)).float().to(z.device)
            for factor in FACTORS:
                self.scale_tril = shape * math.sqrt(factor)
                best = max(best, (self.log_prob(z).mean().item(), self.scale_tril), key=lambda tried: tried[0])
        rounded = best[1].half().float()
        fits = rounded.isfinite().all() and (rounded.diagonal(dim1=1, dim2=2) > MIN_HALF).all()
        self.scale_tril = rounded if fits else best[1]
        return self


def draw_component(eps: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one of K components by standard normal noise, (B,), and weights, (K,): its index and what noise is left, (B,).

    The number, as a quantile, picks the component. Where in the component's share it fell is uniform and independent of the
    choice: made normal again, it serves as noise, and no second draw is needed.
    """
    ends = weights.cumsum(0)  # (K,)
    quantile = torch.special.ndtr(eps.contiguous())  # (B,)
    k = torch.searchsorted(ends, quantile).clamp(max=len(weights) - 1)  # (B,)
    within = 1 - (ends[k] - quantile) / weights[k].clamp(min=1e-12)  # (B,) in [0, 1] but for rounding
    return k, torch.special.ndtri(within.clamp(1e-6, 1 - 1e-6))  # within 4.8 standard deviations
