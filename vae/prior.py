"""Priors p(z): where the latent vectors of new pictures come from.

Training pulls every q(z|x) towards N(0, I), but all of them together, the aggregate posterior, fill it unevenly: in
between lie gaps that the decoder was never asked about. The best prior of a trained encoder and decoder is the
aggregate posterior itself (Tomczak & Welling, "VAE with a VampPrior", AISTATS 2018, https://arxiv.org/abs/1705.07120),
so a density fitted to samples of it gives better pictures (Ghosh et al., "From Variational to Deterministic
Autoencoders", ICLR 2020, https://arxiv.org/abs/1903.12436).
"""

from __future__ import annotations

import itertools
import math
import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from vae.files import MAX_PRIOR_NUMBERS, PRIOR, parse_metadata, read_tensors, write_tensors

CHUNK = (
    250  # latent vectors that a mixture draws or scores at once: larger pieces of memory are allocated anew each time
)
MIN_VARIANCE = 1e-4  # added to the variances of a mixture, so that none of its components collapses onto a few points
MAX_ROUNDS = 30  # of expectation-maximization
MIN_GAIN = 1e-3  # nats per vector, for another round
SHARES = 0.0, 0.1, 0.2, 0.3, 0.5  # of what all components have in common, to try in each covariance
ROUNDNESS = 0.0, 0.03, 0.1, 0.3, 0.6, 1.0  # of the covariance of N(0, I), to try in all of them
FACTORS = 1.0, 1.03, 1.06, 1.1, 1.2, 1.4, 1.7  # to try all covariances by
FLOW_BATCH = 512
FLOW_EPOCHS = 100  # at most, over the latents that a flow is fitted to: more, over a few, learns them by heart
MAX_LOG_SCALE = 2.0  # a coupling layer stretches by e**2 at the most, so that no layer can overflow


def noise(seeds: Iterable[int], latent_dim: int) -> Tensor:
    """Draw the standard normal noise of each seed, (n, latent_dim), on the CPU: a seed gives the same row anywhere.

    Raises ValueError if a seed is no whole number from 0 to 2**63 - 1.
    """
    rows = [torch.empty(0, latent_dim)]
    for seed in seeds:  # each with a generator of its own, on the CPU: neither its neighbours nor the device matter
        if not hasattr(seed, "__index__") or not 0 <= operator.index(seed) < 2**63:
            raise ValueError(f"a seed must be a whole number from 0 to 2**63 - 1, got {seed!r:.100}")
        rows.append(torch.randn(1, latent_dim, generator=torch.Generator().manual_seed(operator.index(seed))))
    return torch.cat(rows)


class Prior(nn.Module, ABC):
    """A distribution of latent vectors, written as a map that makes them of standard normal noise, row by row.

    So the noise of one seed becomes the same latent vector, alone or among others. `latent_dim`, D, is None where any
    will do. Everything is float32, on the device that the module was moved to.
    """

    latent_dim: int | None

    @abstractmethod
    def from_noise(self, eps: Tensor, temperature: float = 1.0) -> Tensor:
        """Turn standard normal noise into latent vectors, (B, D) -> (B, D); `temperature` multiplies the noise."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Compute log p(z) in nats, (B, D) -> (B,), differentiable."""

    def forward(self, z: Tensor) -> Tensor:
        """Compute `log_prob`, by the name that lets accelerate train a prior on many devices; always in float32."""
        with torch.autocast(z.device.type, enabled=False):
            return self.log_prob(z.float())

    def sample(self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """Draw n latent vectors, (n, D), from noise of the CPU. Raises ValueError if the dimension is not known."""
        if self.latent_dim is None:
            raise ValueError(f"{type(self).__name__}() has no dimension: give it latent_dim to sample without a model")
        return self.from_noise(torch.randn(n, self.latent_dim, generator=generator), temperature)


class StandardNormal(Prior):
    """The prior of the tutorial, N(0, I): it has nothing to fit. `latent_dim` is only needed to `sample`."""

    def __init__(self, latent_dim: int | None = None) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def from_noise(self, eps: Tensor, temperature: float = 1.0) -> Tensor:
        return temperature * eps

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)


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
        eps = eps.to(self.means.device)
        k, first = draw_component(eps[:, 0], self.weights)
        eps = torch.cat([first[:, None], eps[:, 1:]], dim=1)
        parts = zip(k.split(CHUNK), eps.split(CHUNK), strict=True)  # of which each row takes a matrix of its own
        noise = torch.cat([(self.scale_tril[own] @ part[:, :, None])[:, :, 0] for own, part in parts])
        return self.means[k] + temperature * noise

    def log_prob(self, z: Tensor) -> Tensor:
        return self._log_joint(z).logsumexp(dim=1)

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
    def fit(cls, z: Tensor, components: int = 100, seed: int = 0, *, variance: Tensor | None = None) -> GaussianMixture:
        """Fit a mixture to vectors, (N, D), by expectation-maximization on their device.

        variance: (N, D); then z are the means of as many Gaussians, such as posteriors, and the mixture is fitted to these
            themselves, as if each had been sampled without end: what a single sample adds by chance isn't learnt.
        Raises ValueError if there are fewer vectors than components.
        """
        from sklearn.cluster import KMeans  # here: sampling and scoring have no need of it
        from sklearn.exceptions import ConvergenceWarning

        z, variance = z.detach().float(), None if variance is None else variance.detach().float()
        # No less than what float32 can tell from rounding, whatever the scale of the latents.
        ridge = max(MIN_VARIANCE, 1e-5 * z.var(dim=0).max().item())
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
        """Let latent vectors that it was not fitted to, (N, D), say how wide its components should be; returns itself.

        A component that was fitted to a few hundred vectors hugs them. Each covariance becomes a mean of its own, of what all
        have in common and of that of N(0, I), which training pulls towards, times a factor: those shares and that factor
        which make z most likely (Friedman, "Regularized Discriminant Analysis", JASA 1989).
        """
        own = self.scale_tril.double() @ self.scale_tril.double().mT  # (K, D, D)
        common = (self.weights[:, None, None] * own).sum(dim=0)  # (D, D)
        shares = SHARES if self.components > 1 else (0.0,)
        covariances = [own.lerp(common, share) for share in shares]
        identity = torch.eye(own.shape[1], dtype=own.dtype, device=own.device)
        best = -math.inf, self.scale_tril
        for covariance, roundness in itertools.product(covariances, ROUNDNESS):
            shape = torch.linalg.cholesky(covariance.lerp(identity, roundness)).float()
            for factor in FACTORS:
                self.scale_tril = shape * math.sqrt(factor)
                best = max(best, (self.log_prob(z).mean().item(), self.scale_tril), key=lambda tried: tried[0])
        self.scale_tril = best[1]
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


class Coupling(nn.Module):
    """Shift and stretch one half of a vector by what a small network says of the other half, which stays as it is.

    Both ways take one pass, and the logarithm of the determinant is a sum (Dinh, Sohl-Dickstein & Bengio, "Density
    estimation using Real NVP", ICLR 2017, https://arxiv.org/abs/1605.08803).
    """

    def __init__(self, latent_dim: int, width: int) -> None:
        super().__init__()
        self.halves = [latent_dim // 2, latent_dim - latent_dim // 2]
        self.network = nn.Sequential(
            *(nn.Linear(self.halves[0], width), nn.SiLU()),
            *(nn.Linear(width, width), nn.SiLU()),
            nn.Linear(width, 2 * self.halves[1]),
        )
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)  # at first, nothing is moved

    def shift_and_log_scale(self, half: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = self.network(half).chunk(2, dim=1)
        return shift, MAX_LOG_SCALE * torch.tanh(raw / MAX_LOG_SCALE)

    def from_noise(self, eps: Tensor) -> Tensor:
        """Turn a vector nearer to the noise into one nearer to the data, (B, D) -> (B, D)."""
        kept, moved = eps.split(self.halves, dim=1)
        shift, log_scale = self.shift_and_log_scale(kept)
        return torch.cat([kept, moved * log_scale.exp() + shift], dim=1)

    def to_noise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `from_noise`; the second tensor, (B,), is the logarithm of the determinant of the undoing."""
        kept, moved = z.split(self.halves, dim=1)
        shift, log_scale = self.shift_and_log_scale(kept)
        return torch.cat([kept, (moved - shift) * torch.exp(-log_scale)], dim=1), -log_scale.sum(dim=1)


def deal(z: Tensor) -> Tensor:
    """Put the numbers of each row into two piles, every other one first, so that all get moved by ever other ones."""
    return torch.cat([z[:, 1::2], z[:, 0::2]], dim=1)


def undeal(z: Tensor) -> Tensor:
    """Undo `deal`."""
    half = z.shape[1] // 2
    back = torch.empty_like(z)
    back[:, 1::2], back[:, 0::2] = z[:, :half], z[:, half:]
    return back


class Flow(Prior):
    """Coupling layers, of which each moves half of the vector: an exact density, and both ways in one pass.

    Temperature multiplies the noise that goes in. As a module whose log_prob is differentiable in its own parameters,
    it can also be trained together with a VAE, in the place of N(0, I).
    """

    mean: Tensor  # (D,) and
    std: Tensor  # (D,) of the data, taken off before the first layer

    def __init__(self, latent_dim: int, layers: int, width: int) -> None:
        super().__init__()
        if latent_dim < 2:
            raise ValueError(f"a flow needs two latent dimensions or more, got {latent_dim}")
        self.latent_dim, self.width = latent_dim, width
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))
        layer_list = nn.ModuleList(Coupling(latent_dim, width) for _ in range(layers))
        self.layers = cast(list[Coupling], layer_list)  # which it is to the reader

    def from_noise(self, eps: Tensor, temperature: float = 1.0) -> Tensor:
        z = temperature * eps.to(self.mean.device)
        for layer in self.layers:
            z = deal(layer.from_noise(z))
        return z * self.std + self.mean

    def log_prob(self, z: Tensor) -> Tensor:
        eps, log_det = (z - self.mean) / self.std, -self.std.log().sum()
        for layer in reversed(self.layers):
            eps, change = layer.to_noise(undeal(eps))
            log_det = log_det + change
        return StandardNormal().log_prob(eps) + log_det

    @classmethod
    def fit(cls, z: Tensor, layers: int = 16, width: int = 128, steps: int = 3000, seed: int = 0) -> Flow:
        """Fit a flow to samples of the aggregate posterior, (N, D), by maximum likelihood on their device.

        steps: of batches of FLOW_BATCH, at most: fewer for less than FLOW_EPOCHS of them.
        """
        steps = min(steps, math.ceil(FLOW_EPOCHS * len(z) / FLOW_BATCH))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            flow = cls(z.shape[1], layers, width)
        flow.mean.copy_(z.mean(dim=0))
        flow.std.copy_(z.std(dim=0).clamp(min=math.sqrt(MIN_VARIANCE)))
        flow.to(z.device)
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(flow.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
        for _ in range(steps):
            batch = torch.randint(len(z), (FLOW_BATCH,), generator=generator).to(z.device)
            loss = -flow.log_prob(z[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(flow.parameters(), max_norm=5.0)
            optimizer.step()
            schedule.step()
        return flow.requires_grad_(False)


# --- files -----------------------------------------------------------------------------------------------------------

# Each kind with the whole numbers that it is made from, and the range of each.
KINDS: dict[str, tuple[type[Prior], dict[str, tuple[int, int]]]] = {
    "gaussian-mixture": (GaussianMixture, {"latent_dim": (1, 4096), "components": (1, 10_000)}),
    "flow": (Flow, {"latent_dim": (2, 4096), "layers": (1, 64), "width": (1, 4096)}),
}


def save_prior(prior: Prior, path: str | Path, **metadata: Any) -> None:
    """Write a prior to a safetensors file; what kind it is, and of which sizes, is JSON in the file's metadata."""
    kind = next((kind for kind, (cls, _) in KINDS.items() if type(prior) is cls), None)
    if kind is None or prior.latent_dim is None:
        raise ValueError(f"only {', '.join(KINDS)} of a known latent_dim can be saved, got {prior}")
    sizes: dict[str, int] = {"latent_dim": prior.latent_dim}
    if isinstance(prior, GaussianMixture):
        sizes["components"] = prior.components
    if isinstance(prior, Flow):
        sizes |= {"layers": len(prior.layers), "width": prior.width}
    tensors = prior.state_dict()
    numbers = sum(tensor.numel() for tensor in tensors.values())
    if numbers > MAX_PRIOR_NUMBERS:
        raise ValueError(
            f"the prior has {numbers:,} numbers, more than the {MAX_PRIOR_NUMBERS:,} that are loaded again"
        )
    if isinstance(prior, GaussianMixture):
        rows, columns = _triangle(prior)
        tensors["scale_tril"] = prior.scale_tril[:, rows, columns].contiguous()
    write_tensors(Path(path), tensors, prior={"kind": kind, **sizes}, **metadata)


def load_prior(path: str | Path) -> Prior:
    """Load what `save_prior` wrote, on the CPU and with no gradients asked for.

    Raises ValueError in one sentence if the file is missing, broken, asks for too much, or doesn't hold to the letter
    what its description says; that is found out before memory is taken for it.
    """

    def build(metadata: Mapping[str, str]) -> tuple[Prior, Mapping[str, Tensor]]:
        with torch.device("meta"):  # shapes only
            prior = _build(parse_metadata(metadata, "prior"))
            expected = prior.state_dict()
            if isinstance(prior, GaussianMixture):
                latent_dim = expected["means"].shape[1]
                expected["scale_tril"] = torch.empty(prior.components, latent_dim * (latent_dim + 1) // 2)
        numbers = sum(tensor.numel() for tensor in prior.state_dict().values())
        if numbers > MAX_PRIOR_NUMBERS:
            raise ValueError(f"it asks for {numbers:,} numbers, more than the {MAX_PRIOR_NUMBERS:,} allowed")
        return prior, expected

    path = Path(path)
    prior, tensors = read_tensors(path, PRIOR, build)
    if isinstance(prior, GaussianMixture):
        weights = tensors["weights"]
        scale_tril = torch.zeros(prior.scale_tril.shape)
        rows, columns = _triangle(prior)
        scale_tril[:, rows, columns] = tensors["scale_tril"]
        tensors["scale_tril"] = scale_tril
        if (weights <= 0).any() or abs(weights.sum() - 1) > 1e-3:
            raise ValueError(f"{path}: weights should be positive and their sum 1")
        if (scale_tril.diagonal(dim1=1, dim2=2) <= 0).any():
            raise ValueError(f"{path}: scale_tril should have a positive diagonal")
    if isinstance(prior, Flow) and (tensors["std"] <= 0).any():
        raise ValueError(f"{path}: std should be positive")
    prior.load_state_dict(tensors, assign=True)
    return prior.requires_grad_(False)


def _triangle(prior: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of what a file holds of each matrix of scale_tril: its lower triangle, row by row."""
    rows, columns = torch.tril_indices(prior.means.shape[1], prior.means.shape[1])
    return rows, columns


def _build(values: Any) -> Prior:
    """Make the prior that a description names, untrained. Raises ValueError if it is not exactly that of a known kind."""
    kind = values.pop("kind", None) if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"the kind of a prior should be one of {', '.join(KINDS)}, got {kind!r:.100}")
    cls, ranges = KINDS[kind]
    if set(values) != set(ranges):
        raise ValueError(f"a {kind} is described by {', '.join(ranges)}, got {', '.join(values):.100}")
    for name, (low, high) in ranges.items():
        if type(values[name]) is not int or not low <= values[name] <= high:
            raise ValueError(f"{name} should be a whole number from {low} to {high}, got {values[name]!r:.100}")
    return cls(**values)
