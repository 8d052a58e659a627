"""The variational autoencoder, in reading order: encoder, reparameterization trick, decoder, and the model that joins them.

Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, https://arxiv.org/abs/1312.6114
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae.config import VAEConfig
from vae.pretrained import Pretrained

LARGE_PATCH = 8  # pixels a side; with one linear layer, plain areas beside outlines get a grain
HEAD_WIDENING = 3  # channels between those two layers, over those of the finest stage
LOGVAR_BOUND = 10.0  # std between 0.007 and 148, and exp(logvar) finite even in float16


# --- encoder: a picture becomes a Gaussian, from which a latent vector is drawn ---------------------------------------


class ResidualBlock(nn.Module):
    """Compute x + two pre-activation 3x3 convolutions of x, (B, C, H, W) -> same shape.

    He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, https://arxiv.org/abs/1603.05027
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


class Encoder(nn.Module):
    """Map pictures, (B, C, H, W), to their posterior: two heads give its mean and its log-variance, (B, D) each."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.stage_widths
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(config.patch),
            nn.Conv2d(config.channels * config.patch**2, widths[0], 3, padding=1),
        ]
        for stage, width in enumerate(widths):
            if stage > 0:
                layers.append(nn.Conv2d(widths[stage - 1], width, 2, stride=2))  # half the size
            layers.extend(ResidualBlock(width) for _ in range(config.depth))
        features = widths[-1] * (config.image_size // config.stride) ** 2
        self.trunk = nn.Sequential(*layers, nn.BatchNorm2d(widths[-1]), nn.SiLU(), nn.Flatten())
        self.mean = nn.Linear(features, config.latent_dim)
        self.logvar = nn.Linear(features, config.latent_dim)

    def forward(self, x: Tensor) -> DiagonalGaussian:
        features = self.trunk(x)  # (B, F)
        # In float32 whatever the trunk ran in: exp(logvar) and the KL are where half precision overflows.
        mean, logvar = self.mean(features).float(), self.logvar(features).float()  # (B, D) each
        # A smooth bound: clamp() has no gradient outside its range.
        return DiagonalGaussian(mean, LOGVAR_BOUND * torch.tanh(logvar / LOGVAR_BOUND))


class DiagonalGaussian(NamedTuple):
    """The posterior q(z|x): a Gaussian for each example, independent in each dimension; all tensors (B, D)."""

    mean: Tensor
    logvar: Tensor

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one z for each example, (B, D); gradients flow to mean and logvar."""
        return reparameterize(self.mean, self.logvar, generator=generator)

    def mode(self) -> Tensor:
        """Return the most likely z of each example, (B, D)."""
        return self.mean

    def repeat(self, times: int) -> DiagonalGaussian:
        """Return the posteriors of the whole batch repeated, (times * B, D) each."""
        return DiagonalGaussian(self.mean.repeat(times, 1), self.logvar.repeat(times, 1))

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute log q(z|x) of one z for each example in nats, (B, D) -> (B,)."""
        standardized = (z - self.mean) * torch.exp(-0.5 * self.logvar)
        return -0.5 * (standardized.square() + self.logvar + math.log(2 * math.pi)).sum(dim=1)

    def kl(self) -> Tensor:
        """Compute KL(q(z|x) || N(0, I)) in nats, one value per example, (B,)."""
        return kl_divergence(self.mean, self.logvar)


def reparameterize(
    mean: Tensor, logvar: Tensor, eps: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Draw z ~ N(mean, exp(logvar)) in a way that gradients flow through, (B, D): the reparameterization trick.

    Sampling itself has no derivative. But z = mean + std * eps with eps ~ N(0, I) has the same distribution, and
    there all randomness is in eps, which depends on no parameter: dz/dmean = 1 and dz/dstd = eps.
    """
    if eps is None:
        eps = torch.empty_like(mean).normal_(generator=generator)
    return mean + torch.exp(0.5 * logvar) * eps


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Compute KL(N(mean, exp(logvar)) || N(0, I)) in nats, one value per example, (B, D) -> (B,).

    Summed over latent dimensions, not averaged: averaging would silently change the weight of this term whenever
    latent_dim changes (Kingma & Welling, appendix B).
    """
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=1)


# --- decoder: a latent vector becomes a picture ----------------------------------------------------------------------


class Decoder(nn.Module):
    """Map latent vectors to the logits of pictures, (B, D) -> (B, C, H, W): the encoder's mirror image, but for large patches."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.stage_widths
        grid = config.image_size // config.stride
        layers: list[nn.Module] = [
            nn.Linear(config.latent_dim, widths[-1] * grid**2),
            nn.Unflatten(1, (widths[-1], grid, grid)),
        ]
        for stage in reversed(range(config.stages)):
            if stage < config.stages - 1:
                layers.append(nn.ConvTranspose2d(widths[stage + 1], widths[stage], 2, stride=2))  # twice the size
            layers.extend(ResidualBlock(widths[stage]) for _ in range(config.depth))
        self.trunk = nn.Sequential(*layers, nn.BatchNorm2d(widths[0]), nn.SiLU())
        self.head = nn.Sequential(*_head(widths[0], config), nn.PixelShuffle(config.patch))

    def forward(self, z: Tensor) -> Tensor:
        return self.head(self.trunk(z)).float()


def _head(width: int, config: VAEConfig) -> list[nn.Module]:
    """Make what gives each cell the values of its patch: a convolution, and for large patches another layer after it."""
    values = config.channels * config.patch**2
    if config.patch < LARGE_PATCH:
        return [nn.Conv2d(width, values, 3, padding=1)]
    hidden = HEAD_WIDENING * width
    return [nn.Conv2d(width, hidden, 3, padding=1), nn.SiLU(), nn.Conv2d(hidden, values, 1)]


# --- the model -------------------------------------------------------------------------------------------------------


class VAEOutput(NamedTuple):
    """What one pass through the model gives.

    reconstruction: pictures in [0, 1], (B, C, H, W).
    posterior: q(z|x) of each picture.
    z: the sample that was decoded, (B, D).
    logits: the reconstruction before its sigmoid, (B, C, H, W); the Bernoulli likelihood needs its full precision.
    """

    reconstruction: Tensor
    posterior: DiagonalGaussian
    z: Tensor
    logits: Tensor


class VAE(Pretrained):
    """A variational autoencoder of square pictures: `encode`, `decode`, and both in `forward`.

    Works in the type of its own weights (float32, or after `.half()`, `.bfloat16()`, `.double()`); posteriors, noise,
    logits and likelihoods are float32. `vae.pretrained` adds `from_pretrained`, `save_pretrained` and `push_to_hub`.
    """

    log_scale: Tensor

    def __init__(self, config: VAEConfig | None = None) -> None:
        super().__init__(config or VAEConfig())
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        # ln of the calibrated σ of p(x|z), in units of the [0, 1] pixel range: one number, or one for each frequency
        # (spectral); see vae.loss. Measured after training by `vae.loss.calibrate`.
        size = self.config.image_size
        shape = (self.config.channels, size, size) if self.config.likelihood == "spectral" else ()
        self.register_buffer("log_scale", torch.zeros(shape))

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """Return the posterior q(z|x) of pictures x in [0, 1], (B, C, H, W). Raises ValueError on another shape or type."""
        check_pictures(x, self.config)
        return self.encoder(x.to(self.log_scale.dtype))  # the type of the weights, too

    def decode(self, z: Tensor) -> Tensor:
        """Return the pictures in [0, 1], (B, C, H, W), of latent vectors z, (B, D). Raises ValueError on another shape."""
        check_latents(z, self.config)
        return torch.sigmoid(self.decode_logits(z))

    def decode_logits(self, z: Tensor) -> Tensor:
        """Return the pictures of `decode` before their sigmoid."""
        return self.decoder(z.to(self.log_scale.dtype))

    def forward(
        self, x: Tensor, generator: torch.Generator | None = None, samples: int = 1, eps: Tensor | None = None
    ) -> VAEOutput:
        """Encode x, (B, C, H, W) in [0, 1], draw one z for each picture, and decode it.

        With several `samples`, the output equals that of x.repeat(samples, 1, 1, 1), but x is encoded only once.
        eps: noise to draw z with, (samples * B, D); None draws it, from `generator` if there is one.
        """
        posterior = self.encode(x).repeat(samples)
        z = reparameterize(posterior.mean, posterior.logvar, eps, generator)
        logits = self.decode_logits(z)
        return VAEOutput(torch.sigmoid(logits), posterior, z, logits)


def check_pictures(x: Tensor, config: VAEConfig) -> None:
    """Raise ValueError unless x are pictures of that model: floating-point, (B, C, H, W)."""
    expected = (config.channels, config.image_size, config.image_size)
    if x.ndim != 4 or x.shape[1:] != expected:
        raise ValueError(f"expected pictures of shape (batch, {', '.join(map(str, expected))}), got {(*x.shape,)}")
    if not x.is_floating_point():
        raise ValueError(f"expected floating-point pictures in [0, 1], got {x.dtype}: see vae.images.to_unit")


def check_latents(z: Tensor, config: VAEConfig) -> None:
    """Raise ValueError unless z are latent vectors of that model, (B, D)."""
    if z.ndim != 2 or z.shape[1] != config.latent_dim:
        raise ValueError(f"expected latents of shape (batch, {config.latent_dim}), got {(*z.shape,)}")
