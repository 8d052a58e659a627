"""Variational autoencoders of pictures, to read, to train and to play with.

    from vae import VAE, generate
    model = VAE.from_pretrained("fashion-mnist")
    pictures = generate(model, seeds=range(16))  # (16, 1, 28, 28) in [0, 1]

Read in this order:
    model       encoder, reparameterization trick, decoder, VAE (its configuration: config)
    loss        reconstruction log-likelihood, KL divergence, the bound
    train.py    the loop (around it: training)
    generate    new pictures, reconstructions, scores
    prior       where new pictures come from
    latent, attributes   walks through the latent space, and edits by label
    evaluate, data, demo   how good a model is, what it learns from, the page
    pretrained, hub, card, figures, files, decode   models and pictures as files, here and on the Hub

Everywhere: pictures are (B, C, H, W) in [0, 1], latent vectors (B, D), likelihoods and divergences in nats. Bad input raises
ValueError with one sentence that says what was wrong and what to do.
"""

from vae.attributes import AttributePrior, ClassGaussians, Directions
from vae.config import VAEConfig
from vae.generate import decode, encode, generate, reconstruct, score, typicality
from vae.latent import interpolate
from vae.loss import calibrate
from vae.model import VAE
from vae.prior import Flow, GaussianMixture, StandardNormal, load_prior, save_prior

__all__ = [
    "VAE",
    "AttributePrior",
    "ClassGaussians",
    "Directions",
    "Flow",
    "GaussianMixture",
    "StandardNormal",
    "VAEConfig",
    "calibrate",
    "decode",
    "encode",
    "generate",
    "interpolate",
    "load_prior",
    "reconstruct",
    "save_prior",
    "score",
    "typicality",
]
__version__ = "0.1.0"
