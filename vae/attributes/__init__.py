"""Attributes in the latent space: predict those of a picture, edit them, draw new pictures that have them.

With one attribute (the digit) each of its values gets a Gaussian, `ClassGaussians`. With several (hair, beard, ...) each
combination of values would have too few pictures for that, and a linear model adds up what each value does, `Directions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from vae.attributes.class_gaussians import ClassGaussians
from vae.attributes.directions import Directions
from vae.attributes.files import load_directions, save_directions
from vae.attributes.model import AttributeModel, AttributePrior, check_labels

__all__ = [
    "AttributeModel",
    "AttributePrior",
    "ClassGaussians",
    "Directions",
    "fit_attributes",
    "load_directions",
    "save_directions",
]


def fit_attributes(
    z: Tensor, labels: Tensor, attributes: Mapping[str, Sequence[str]], variance: Tensor | float = 0.0
) -> AttributeModel:
    """Fit an attribute model to latent vectors, (N, D), and their labels, (N, A) integers, on the CPU.

    z: the means of the posteriors.
    attributes: the names of the A attributes and of their values.
    variance: of a posterior, on average, (D,), or 0 if z are samples.
    Raises ValueError if there are no attributes, a name is not fit to be shown, shapes and labels don't fit them, or
    latent vectors are not finite.
    """
    z, labels = check_labels(z, labels, attributes)
    sizes = [len(values) for values in attributes.values()]
    kind = ClassGaussians if ClassGaussians.allows(z.shape[1], sizes) else Directions
    return kind.fit(z, labels, attributes, variance)
