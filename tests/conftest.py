"""What several test files share: small models with known weights, and the bundled examples."""

from __future__ import annotations

import os
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: tests make no network call

import pytest
import torch
from torch import Tensor

from vae import VAE, VAEConfig
from vae.data import load_examples
from vae.images import to_unit


def small_model(**changes: Any) -> VAE:
    """Make an untrained model whose batch normalisations have seen data, as a trained one's have."""
    config = VAEConfig(**{"width": 8, "depth": 1, "latent_dim": 6} | changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VAE(config)
        for _ in range(3):
            model(torch.rand(16, config.channels, config.image_size, config.image_size))
    return model.eval()


@pytest.fixture
def model() -> VAE:
    return small_model()


@pytest.fixture(scope="session")
def sneakers() -> Tensor:
    """24 sneakers of Fashion-MNIST's test set, (24, 1, 28, 28) in [0, 1]."""
    images, labels = load_examples("fashion-mnist")
    assert labels is not None
    return to_unit(images[labels == 7])
