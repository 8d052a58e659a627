"""Priors p(z): where the latent vectors of new pictures come from.

Training pulls every q(z|x) towards N(0, I), but their mixture, the aggregate posterior, fills it unevenly: it has
gaps that the decoder was never trained on. The best prior of a trained encoder and decoder is the
aggregate posterior itself (Tomczak & Welling, "VAE with a VampPrior", AISTATS 2018, https://arxiv.org/abs/1705.07120),
so a density fitted to samples of it gives better pictures (Ghosh et al., "From Variational to Deterministic
Autoencoders", ICLR 2020, https://arxiv.org/abs/1903.12436).
"""

from __future__ import annotations

from vae.prior.base import Prior, StandardNormal, noise
from vae.prior.files import check_prior, load_prior, save_prior
from vae.prior.flow import Flow
from vae.prior.mixture import GaussianMixture, draw_component

__all__ = [
    "Flow",
    "GaussianMixture",
    "Prior",
    "StandardNormal",
    "check_prior",
    "draw_component",
    "load_prior",
    "noise",
    "save_prior",
]
