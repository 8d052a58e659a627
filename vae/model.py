"""The variational autoencoder, top to bottom in the order in which the idea is told.

Configuration, encoder, reparameterization trick, decoder, and the model that joins them.

Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, https://arxiv.org/abs/1312.6114
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from vae.latent import Directions
    from vae.prior import Prior

Likelihood = Literal["gaussian", "spectral", "laplace", "bernoulli", "mse"]

MAX_PARAMETERS = 100_000_000  # 400 MB: a config from a stranger must not ask for more
COARSEST_GRID = 7  # halving stops at this many cells a side or fewer
MAX_WIDENING = 4  # channels double at each stage, up to this multiple of the width
MAX_ATTRIBUTION = 1000  # characters
LOGVAR_BOUND = 10.0  # std between 0.007 and 148, and exp(logvar) finite even in float16


# --- configuration ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VAEConfig:
    """Describe a model completely: together with its weights this is all there is to save.

    image_size: pixels a side, 16 to 256; it must be divisible by `stride`, which follows from it.
    channels: 1 (grey) or 3 (RGB).
    latent_dim: length of the latent vector z.
    width: channels of the finest stage; each coarser stage has twice as many, up to four times.
    depth: residual blocks in each stage. The number of stages follows from image_size.
    likelihood: what the decoder's output means, see `vae.loss`.
    attribution: what whoever shows the model's pictures has to say of those it was trained on, if anything: it has no
        part in the model, and a config.json may lack it.

    Raises ValueError naming the field and the value if a value is of the wrong type, out of range or too large.
    """

    image_size: int = 28
    channels: int = 1
    latent_dim: int = 32
    width: int = 32
    depth: int = 2
    likelihood: Likelihood = "gaussian"
    attribution: str = ""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("image_size", 16, 256),
            ("channels", 1, 3),
            ("latent_dim", 1, 4096),
            ("width", 4, 512),
            ("depth", 1, 16),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
        if self.channels == 2:
            raise ValueError("channels must be 1 (grey) or 3 (RGB), got 2")
        if self.likelihood not in get_args(Likelihood):
            raise ValueError(f"likelihood must be one of {', '.join(get_args(Likelihood))}, got {self.likelihood!r}")
        if not isinstance(self.attribution, str) or len(self.attribution) > MAX_ATTRIBUTION:
            raise ValueError(f"attribution must be a text of at most {MAX_ATTRIBUTION} characters")
        if self.image_size % self.stride:
            sizes = [size for size in range(16, 257) if size % _stride(size) == 0]
            below, above = max(filter(self.image_size.__gt__, sizes)), min(filter(self.image_size.__lt__, sizes))
            raise ValueError(
                f"image_size must be one that can be halved evenly to {COARSEST_GRID} cells a side or fewer, got "
                f"{self.image_size}: the nearest sizes are {below} and {above}"
            )
        if self.num_parameters > MAX_PARAMETERS:
            raise ValueError(
                f"width {self.width}, depth {self.depth} and latent_dim {self.latent_dim} together ask for "
                f"{self.num_parameters:,} parameters, more than the {MAX_PARAMETERS:,} allowed"
            )

    @property
    def patch(self) -> int:
        """Side of the square of pixels that the stem folds into channels, so that no work is done at full size."""
        return _patch(self.image_size)

    @property
    def stages(self) -> int:
        """Number of resolutions, each half the one before, down to COARSEST_GRID cells a side or fewer."""
        return _stages(self.image_size)

    @property
    def stride(self) -> int:
        """Pixels a side of one cell of the coarsest grid."""
        return _stride(self.image_size)

    @property
    def stage_widths(self) -> list[int]:
        """Channels of each stage, finest first."""
        return [self.width * min(2**stage, MAX_WIDENING) for stage in range(self.stages)]

    @property
    def num_parameters(self) -> int:
        """Trained numbers of the model, counted without taking memory for them."""
        with torch.device("meta"):
            parts = Encoder(self), Decoder(self)
        return sum(parameter.numel() for part in parts for parameter in part.parameters())

    @classmethod
    def from_dict(cls, values: Any) -> VAEConfig:
        """Build a config from what a config.json holds. Raises ValueError on a missing or unknown key."""
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(values, dict):
            raise ValueError(f"a config must be a table of {', '.join(names)}, got {type(values).__name__}")
        for key in values:
            if key not in names:
                raise ValueError(f"unknown config key {key!r}: expected {', '.join(names)}")
        for name in names:
            if name not in values and name != "attribution":  # which older models have not
                raise ValueError(f"config key {name!r} is missing")
        return cls(**values)


def _patch(image_size: int) -> int:
    return 2 if image_size <= 32 else 4


def _stages(image_size: int) -> int:
    return 1 + max(0, math.ceil(math.log2(image_size / _patch(image_size) / COARSEST_GRID)))


def _stride(image_size: int) -> int:
    return _patch(image_size) * 2 ** (_stages(image_size) - 1)


# --- encoder: a picture becomes a Gaussian ---------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """Add two normalised 3x3 convolutions to their input, (B, C, H, W) -> same shape (He et al. 2016, v2)."""

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
        return DiagonalGaussian(
            mean, LOGVAR_BOUND * torch.tanh(logvar / LOGVAR_BOUND)
        )  # smooth: no edge stops learning


@dataclass(frozen=True)
class DiagonalGaussian:
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
        """Return the posteriors of all examples, over and over, (times * B, D) each."""
        return DiagonalGaussian(self.mean.repeat(times, 1), self.logvar.repeat(times, 1))

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute log q(z|x) of one z for each example in nats, (B, D) -> (B,)."""
        standardized = (z - self.mean) * torch.exp(-0.5 * self.logvar)
        return -0.5 * (standardized.square() + self.logvar + math.log(2 * math.pi)).sum(dim=1)

    def kl_per_dimension(self) -> Tensor:
        """Compute KL(q(z|x) || N(0, I)) in nats for each latent dimension, (B, D) (Kingma & Welling, appendix B)."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar)

    def kl(self) -> Tensor:
        """Compute KL(q(z|x) || N(0, I)) in nats, one value per example, (B,).

        Summed over latent dimensions, not averaged: averaging would silently change the weight of this term
        whenever latent_dim changes.
        """
        return self.kl_per_dimension().sum(dim=1)


# --- the reparameterization trick ------------------------------------------------------------------------------------


def reparameterize(
    mean: Tensor, logvar: Tensor, eps: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Draw z ~ N(mean, exp(logvar)) in a way that gradients flow through, (B, D).

    Sampling itself has no derivative. But z = mean + std * eps with eps ~ N(0, I) has the same distribution, and
    there all randomness is in eps, which depends on no parameter: dz/dmean = 1 and dz/dstd = eps.
    """
    if eps is None:
        eps = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + torch.exp(0.5 * logvar) * eps


# --- decoder: a latent vector becomes a picture ----------------------------------------------------------------------


class Decoder(nn.Module):
    """Map latent vectors to the logits of pictures, (B, D) -> (B, C, H, W): the encoder's mirror image."""

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
        self.head = nn.Sequential(
            nn.Conv2d(widths[0], config.channels * config.patch**2, 3, padding=1),
            nn.PixelShuffle(config.patch),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.head(self.trunk(z)).float()


# --- the model -------------------------------------------------------------------------------------------------------


class VAEOutput(NamedTuple):
    """What one pass through the model gives.

    reconstruction: pictures in [0, 1], (B, C, H, W).
    posterior: q(z|x) of each picture.
    z: the sample that was decoded, (B, D).
    logits: the reconstruction before its sigmoid, (B, C, H, W), from which likelihoods are computed without rounding.
    """

    reconstruction: Tensor
    posterior: DiagonalGaussian
    z: Tensor
    logits: Tensor


class VAE(nn.Module):
    """A variational autoencoder of square pictures: `encode`, `decode`, and both in `forward`.

    prior: where `generate` draws latent vectors from, N(0, I) unless another was fitted. It stays on the CPU, and is
        not part of `state_dict()`: it is fitted after training, and has a file of its own.
    directions: where pictures of known attributes lie, see `vae.latent`; None if the training pictures had no labels.
    """

    log_scale: Tensor
    prior: Prior
    directions: Directions | None = None
    origin: Path | None = None  # the folder that it was loaded from

    def __init__(self, config: VAEConfig | None = None) -> None:
        super().__init__()
        self.config = config or VAEConfig()
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        # ln of the calibrated σ (gaussian) or b (laplace) of p(x|z), in units of the [0, 1] pixel range, or of the σ of
        # each frequency (spectral): see vae.loss.
        size = self.config.image_size
        shape = (self.config.channels, size, size) if self.config.likelihood == "spectral" else ()
        self.register_buffer("log_scale", torch.zeros(shape))
        from vae.prior import StandardNormal  # here, not above: the maths of this file has no need of it

        self.prior = StandardNormal(self.config.latent_dim)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "prior":
            object.__setattr__(self, name, value)  # past nn.Module, which would make it a part of the state_dict
        else:
            super().__setattr__(name, value)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """Return the posterior q(z|x) of pictures x in [0, 1], (B, C, H, W). Raises ValueError on another shape."""
        expected = (self.config.channels, self.config.image_size, self.config.image_size)
        if x.ndim != 4 or x.shape[1:] != expected:
            raise ValueError(f"expected pictures of shape (batch, {', '.join(map(str, expected))}), got {(*x.shape,)}")
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Return the pictures in [0, 1], (B, C, H, W), of latent vectors z, (B, D). Raises ValueError on another shape."""
        if z.ndim != 2 or z.shape[1] != self.config.latent_dim:
            raise ValueError(f"expected latents of shape (batch, {self.config.latent_dim}), got {(*z.shape,)}")
        return torch.sigmoid(self.decoder(z))

    def forward(self, x: Tensor, generator: torch.Generator | None = None, samples: int = 1) -> VAEOutput:
        """Encode x, (B, C, H, W) in [0, 1], draw one z for each picture, and decode it.

        With more `samples` than one, the output is as if of x.repeat(samples, 1, 1, 1), which is encoded only once.
        """
        posterior = self.encode(x).repeat(samples)
        z = posterior.sample(generator)
        logits = self.decoder(z)
        return VAEOutput(torch.sigmoid(logits), posterior, z, logits)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> VAE:
        """Load a model, ready for use (`eval()`): a folder, a bundled name ("fashion-mnist") or a Hub repo ("owner/name").

        Reads config.json and safetensors files (the weights, and prior and directions where they are), nothing that could
        run code. The options are for Hub repos, and those of `huggingface_hub.hf_hub_download`. Raises ValueError in one sentence if the model can't be had or its files
        don't fit together.
        """
        from vae.hub import load_model  # here, not above: the hub builds on the model, not the model on the hub

        return load_model(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, the weights, a fitted prior and directions into folder, creating it if need be."""
        from vae.hub import save_model

        save_model(self, folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model",
        create_pr: bool = False,
        token: str | None = None,
    ) -> str:
        """Push the model to the Hub repo "owner/name", creating it if need be, and return the address of the commit.

        One commit holds weights, a fitted prior, directions, configuration, a card and pictures, and, if the weights are
        those of the folder that the model was loaded from, the figures that are there. Raises ValueError in one sentence if that can't be done.
        """
        from vae.hub import push_model

        return push_model(
            self,
            repo_id,
            private=private,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
            token=token,
        )
