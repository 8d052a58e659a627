"""One attribute: a Gaussian for the pictures of each class, and optimal transport from one class to another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vae.attributes.model import (
    CHUNK,
    RIDGE,
    AttributeModel,
    check_labels,
    covariance,
    log_shares,
    noise_covariance,
)

SHARED = 0.1  # part of a class's covariance that is the one of all classes, at the least
MAX_DIM = 256  # of latent vectors: an edit finds the eigenvectors of a matrix of that size
MAX_NUMBERS = 4_000_000  # in the matrices of all classes


@dataclass(frozen=True, kw_only=True)
class ClassGaussians(AttributeModel):
    """A Gaussian N(means[v], L Lᵀ) for the pictures of each value, or class, v of one attribute.

    The same Gaussians tell the class of a latent vector (a quadratic discriminant), draw new pictures of a class, and edit:
    the linear optimal-transport map between the Gaussians of two classes moves a latent vector to the corresponding
    place in the other class, with the smallest mean squared displacement (Peyré & Cuturi, "Computational
    Optimal Transport", 2019, remark 2.31, https://arxiv.org/abs/1803.00567). Between two classes, the two
    edits are averaged.

    means: (V, D).
    scale_tril: the L, (V, D, D), lower triangular: Cholesky factors of the covariances of samples of posteriors.
    """

    means: Tensor
    scale_tril: Tensor

    @property
    def latent_dim(self) -> int:
        return self.means.shape[1]

    @staticmethod
    def shapes(latent_dim: int, sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor, by its name."""
        (values,) = sizes
        return {"shares": (values,), "means": (values, latent_dim), "scale_tril": (values, latent_dim, latent_dim)}

    @staticmethod
    def allows(latent_dim: int, sizes: Sequence[int]) -> bool:
        """Say whether there is but one attribute, with no more and no larger matrices than the limits."""
        return len(sizes) == 1 and latent_dim <= MAX_DIM and sizes[0] * latent_dim**2 <= MAX_NUMBERS

    @classmethod
    def fit(
        cls, z: Tensor, labels: Tensor, attributes: Mapping[str, Sequence[str]], variance: Tensor | float = 0.0
    ) -> ClassGaussians:
        """Fit them to latent vectors; arguments and errors as of `fit_attributes`.

        A part of each covariance is the one that all classes share: SHARED of it, and more where a class has few pictures
        (Friedman, "Regularized Discriminant Analysis", JASA 1989).
        """
        z, labels = check_labels(z, labels, attributes)
        ((_, values),) = attributes.items()
        own = [z[labels[:, 0] == value] for value in range(len(values))]  # V times (n, D)
        means = [(part.sum(dim=0) + RIDGE * z.mean(dim=0)) / (len(part) + RIDGE) for part in own]
        rest = [part - mean for part, mean in zip(own, means, strict=True)]
        shared, noise = covariance(torch.cat(rest)), noise_covariance(variance, z.shape[1])
        factors = []
        for part in rest:
            weight = max(SHARED, z.shape[1] / (z.shape[1] + len(part)))
            factors.append(torch.linalg.cholesky((part.T @ part / max(1, len(part))).lerp(shared, weight) + noise))
        return cls(
            attributes=attributes,
            shares=torch.tensor([len(part) / len(z) for part in own]),
            means=torch.stack(means).float(),
            scale_tril=torch.stack(factors).float().contiguous(),
        )

    def predict(self, z: Tensor) -> Tensor:
        return self._log_joint(z).argmax(dim=1, keepdim=True)

    def draw(self, values: Tensor, eps: Tensor) -> Tensor:
        z = self.means[values[:, 0]]
        for value in values.unique().tolist():
            own = values[:, 0] == value
            z[own] += eps[own] @ self.scale_tril[value].T
        return z

    def log_prob(self, z: Tensor) -> Tensor:
        return self._log_joint(z).logsumexp(dim=1).to(z.device)

    def shift(self, z: Tensor, old: Tensor, new: Tensor) -> Tensor:
        if not torch.equal(old, old.round()):
            raise ValueError(f"an edit starts at a class, not between two: got since of {old.flatten().tolist()[:5]}")
        shift = self._shift_to_class(z, old, new.floor())
        fraction = new - new.floor()
        return shift.lerp(self._shift_to_class(z, old, new.ceil()), fraction) if fraction.any() else shift

    def transport(self, a: int, b: int) -> Tensor:
        """Return the matrix A, (D, D) float64, of the map z -> means[b] + A (z - means[a]) from class a to class b.

        Of all linear maps that turn the covariance of class a into that of b, it is the only symmetric positive one:
            A = Σa^-½ (Σa^½ Σb Σa^½)^½ Σa^-½ = L^-ᵀ (Lᵀ Σb L)^½ L^-1,  where L Lᵀ = Σa.
        """
        factor, target = self.scale_tril[a].double(), self.scale_tril[b].double()
        root = factor.T @ target
        squares, axes = torch.linalg.eigh(root @ root.T)  # of Lᵀ Σb L, whose root has the roots of these
        half = torch.linalg.solve_triangular(factor.T, axes * squares.clamp(min=0) ** 0.25, upper=True)
        return half @ half.T

    def _shift_to_class(self, z: Tensor, old: Tensor, new: Tensor) -> Tensor:
        shift = torch.zeros_like(z)
        pairs = torch.cat([old, new], dim=1).long()  # (B, 2)
        for a, b in pairs.unique(dim=0).tolist():
            if a != b:
                own = (pairs == torch.tensor([a, b])).all(dim=1)
                moved = (z[own] - self.means[a]).double() @ self.transport(a, b)  # A is symmetric
                shift[own] = (self.means[b] + moved - z[own]).float()
        return shift

    def _log_joint(self, z: Tensor) -> Tensor:
        """Compute log share + log N(z; mean, L Lᵀ) of each class, (B, D) -> (B, V)."""
        self._check_latents(z)
        log_det = self.scale_tril.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        parts = []
        for part in z.detach().cpu().float().split(CHUNK):
            white = torch.linalg.solve_triangular(self.scale_tril, (part - self.means[:, None]).mT, upper=False)
            parts.append(-0.5 * (white.square() + math.log(2 * math.pi)).sum(dim=1).T)  # (V, D, B) -> (B, V)
        return torch.cat(parts) - log_det + log_shares(self.shares)
