"""What the page sends to the browser, once for each model: the decoder, and where attributes lie, in one file.

The file is in the safetensors format. The large matrices are of 16-bit whole numbers, times a step of each row: half as
much to send as float32, and pictures 5 to 8 times as exact as with float16. All else is float32.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from vae.attributes import AttributeModel, ClassGaussians, Directions
from vae.model import VAE, Decoder, ResidualBlock

MAX_INTEGER = 2**15 - 1  # of 16 bits
STEP = ".step"  # after the name of such a matrix: what 1 stands for in each of its rows
ROUNDED = ("weight", "interplay")  # the last part of their names


@dataclass(frozen=True)
class Layer:
    """A layer as web/decoder.js runs it.

    kind: the name of the method that runs it.
    name: the prefix of its tensors.
    size: of its input, pixels a side.
    inputs, outputs: channels for each pixel of its input.
    """

    kind: str
    name: str
    size: int
    inputs: int
    outputs: int


def decoder_bytes(model: VAE) -> bytes:
    """Return the file that `Model.load` of web/model.js takes; equal models give equal bytes."""
    layers = []
    tensors: dict[str, Tensor] = {}
    for layer, own in _layers(model):
        layers.append(dataclasses.asdict(layer))
        tensors |= {f"{layer.name}.{key}": tensor for key, tensor in own.items()}
    directions = None
    if model.directions is not None:
        directions, own = _directions(model.directions)
        tensors |= {f"directions.{key}": tensor for key, tensor in own.items()}
    config = dataclasses.asdict(model.config) | {"patch": model.config.patch}
    ready: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        exact = tensor.detach().cpu().float().contiguous()
        ready |= _round(name, exact) if name.endswith(ROUNDED) else {name: exact}
    # All metadata under one key: safetensors writes several in any order.
    return save(ready, {"description": json.dumps({"config": config, "layers": layers, "directions": directions})})


def _directions(directions: AttributeModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what edits need, and the tensors."""
    # In pairs: a JavaScript object would put names that are numbers first.
    attributes = [[name, list(values)] for name, values in directions.attributes.items()]
    if isinstance(directions, ClassGaussians):
        rows, columns = torch.tril_indices(directions.latent_dim, directions.latent_dim)
        tensors = {"means": directions.means, "scale_tril": directions.scale_tril[:, rows, columns]}
        return {"kind": "class-gaussians", "attributes": attributes, "groups": []}, tensors
    assert isinstance(directions, Directions)
    groups = [list(group) for group in directions.groups]
    tensors = {key: getattr(directions, key) for key in ("mean", "effects", "interplay")}
    return {"kind": "directions", "attributes": attributes, "groups": groups}, tensors


def _round(name: str, matrix: Tensor) -> dict[str, Tensor]:
    """Make a matrix, (R, K), one of 16-bit numbers and the step of each row."""
    step = matrix.abs().amax(dim=1) / MAX_INTEGER  # (R,)
    numbers = (matrix / step.where(step > 0, 1)[:, None]).round()
    return {name: numbers.to(torch.int16), name + STEP: step}


def _layers(model: VAE) -> Iterator[tuple[Layer, dict[str, Tensor]]]:
    """Yield the layers of a decoder with their tensors, of which the weights are matrices, (outputs, inputs to each)."""
    config, decoder = model.config, model.decoder
    size, width = config.image_size // config.stride, config.stage_widths[-1]
    for index, module in enumerate(decoder.trunk):
        name = f"trunk.{index}"
        if isinstance(module, nn.Linear):
            weight, bias = (_channels_last(tensor, size) for tensor in (module.weight, module.bias))
            yield Layer("linear", name, 1, config.latent_dim, len(bias)), {"weight": weight, "bias": bias}
        elif isinstance(module, ResidualBlock):
            norm1, _, conv1, norm2, _, conv2 = module.residual
            own: dict[str, Tensor] = {}
            for half, norm, convolution in (("1", norm1, conv1), ("2", norm2, conv2)):
                tensors = {"weight": _taps(convolution)} | _scale_and_shift(norm)
                own |= {f"{half}.{key}": tensor for key, tensor in tensors.items()}
            yield Layer("block", name, size, width, width), own
        elif isinstance(module, nn.ConvTranspose2d):  # gives each pixel the channels of four
            weight, bias = module.weight.permute(2, 3, 1, 0).flatten(0, 2), module.get_parameter("bias").repeat(4)
            yield Layer("up", name, size, width, len(bias)), {"weight": weight, "bias": bias}
            size, width = 2 * size, module.out_channels
    yield from _head(decoder, config.patch, size, width)


def _head(decoder: Decoder, patch: int, size: int, width: int) -> Iterator[tuple[Layer, dict[str, Tensor]]]:
    """Yield the last normalisation and convolutions, one or two, which give each pixel the channels of patch x patch."""
    *_, norm, _ = decoder.trunk
    *first, last, _ = decoder.head
    weight, bias = (_channels_last(tensor, patch) for tensor in (_taps(last), last.get_parameter("bias")))
    tensors = {"weight": weight, "bias": bias}
    if not first:
        yield Layer("head", "head", size, width, len(bias)), tensors | _scale_and_shift(norm)
        return
    hidden = first[0].get_parameter("bias")
    own = {"weight": _taps(first[0]), "bias": hidden} | _scale_and_shift(norm)
    yield Layer("conv", "head.0", size, width, len(hidden)), own
    yield Layer("patches", "head.2", size, len(hidden), len(bias)), tensors


def _scale_and_shift(norm: nn.Module) -> dict[str, Tensor]:
    """Return what a trained batch normalisation does: the factor for each channel, and the number to add."""
    assert isinstance(norm, nn.BatchNorm2d)
    variance, mean = norm.get_buffer("running_var"), norm.get_buffer("running_mean")
    scale = norm.weight / torch.sqrt(variance + norm.eps)
    return {"scale": scale, "shift": norm.bias - mean * scale}


def _taps(convolution: nn.Module) -> Tensor:
    """Order the weights of a convolution as its input lies, (O, I, K, K) -> (O, K · K · I)."""
    return convolution.get_parameter("weight").permute(0, 2, 3, 1).flatten(1)


def _channels_last(tensor: Tensor, side: int) -> Tensor:
    """Put the channels of each of side x side pixels next to each other, (C · side · side, …) -> (side · side · C, …)."""
    return tensor.unflatten(0, (-1, side**2)).transpose(0, 1).flatten(0, 1)
