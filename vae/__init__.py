"""Variational autoencoders of pictures, to read, to train and to play with.

Read the modules in this order: `model` (encoder, reparameterization trick, decoder), `loss` (reconstruction and KL),
`train.py` (the loop), `generate` (new pictures), `prior` (where they come from), `latent` (walks between them, and towards
what labels say), `demo` (the page).

    from vae import VAE, generate
    model = VAE.from_pretrained("fashion-mnist")
    pictures = generate(model, seeds=range(16))  # (16, 1, 28, 28) in [0, 1]
"""

from vae.attributes import AttributePrior, Directions
from vae.config import VAEConfig
from vae.generate import decode, encode, generate, reconstruct, score
from vae.latent import interpolate
from vae.model import VAE
from vae.prior import Flow, GaussianMixture, StandardNormal, load_prior, save_prior

__all__ = [
    "VAE",
    "AttributePrior",
    "Directions",
    "Flow",
    "GaussianMixture",
    "StandardNormal",
    "VAEConfig",
    "decode",
    "encode",
    "generate",
    "interpolate",
    "load_prior",
    "reconstruct",
    "save_prior",
    "score",
]
__version__ = "0.1.0"
