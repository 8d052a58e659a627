"""What the page sends to the browser, once for each model: the decoder, and where attributes lie, in one file.

The file is in the safetensors format. Its weights lie as the loop in web/kernel.js reads them, channels last.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from vae.model import VAE, ResidualBlock
from vae.prior import noise

LANES = 8  # output channels that the loop computes at once
TOLERANCE = 1e-3  # of the [0, 1] pixel range: how far float16 weights may move a pixel
CHECKED_SEEDS = range(16)


def decoder_bytes(model: VAE) -> bytes:
    """Return the file that `Model.load` of web/model.js takes; equal models give equal bytes.

    Weights are float16, half as much to send, if no pixel of the pictures of some seeds moves by more than TOLERANCE;
    else float32. All that is small or multiplies many weights (biases, normalisations, directions) is float32.
    """
    weights_dtype = torch.float16 if _half_precision_error(model) <= TOLERANCE else torch.float32
    tensors, layers = {}, []
    size, width = model.config.image_size // model.config.stride, model.config.stage_widths[-1]
    for name, module in model.decoder.named_modules():
        if isinstance(module, nn.Linear):
            matrix = module.weight.unflatten(0, (width, size**2)).transpose(0, 1).flatten(0, 1)  # channels last
            bias = module.bias.unflatten(0, (width, size**2)).T.flatten()
            tensors |= {f"{name}.weight": _pack(matrix, weights_dtype), f"{name}.bias": bias}
            layers.append({"kind": "linear", "name": name, "size": 1, "inputs": matrix.shape[1], "outputs": len(bias)})
        elif isinstance(module, ResidualBlock):
            tensors |= _residual_block(name, module, weights_dtype)
            layers.append({"kind": "block", "name": name, "size": size, "inputs": width, "outputs": width})
        elif isinstance(module, nn.ConvTranspose2d):
            # A product for each pixel, which gives the channels of four pixels: (2, 2, outputs).
            matrix = module.weight.permute(2, 3, 1, 0).flatten(0, 2)
            tensors |= {f"{name}.weight": _pack(matrix, weights_dtype), f"{name}.bias": _of(module.bias).repeat(4)}
            layers.append({"kind": "up", "name": name, "size": size, "inputs": width, "outputs": len(matrix)})
            size, width = 2 * size, module.out_channels
    *_, norm, _ = model.decoder.trunk
    convolution, _ = model.decoder.head
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(convolution, nn.Conv2d)
    patch = model.config.patch
    weight, bias = (_patches_first(tensor, patch) for tensor in (convolution.weight, _of(convolution.bias)))
    tensors |= {"head.weight": _pack(_taps(weight), weights_dtype), "head.bias": bias}
    tensors |= _scale_and_shift("head", norm)
    layers.append({"kind": "head", "name": "head", "size": size, "inputs": width, "outputs": len(bias), "patch": patch})

    description: dict[str, Any] = {"config": dataclasses.asdict(model.config), "layers": layers, "directions": None}
    if model.directions is not None:
        directions = model.directions
        tensors |= {f"directions.{key}": getattr(directions, key) for key in ("mean", "effects", "interplay")}
        # In pairs: a JavaScript object would put names that are numbers first.
        attributes = [[name, list(values)] for name, values in directions.attributes.items()]
        description["directions"] = {"attributes": attributes, "groups": [list(group) for group in directions.groups]}
    ready = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return save(ready, metadata={"description": json.dumps(description)})  # more than one key would come in any order


@torch.no_grad()
def _half_precision_error(model: VAE) -> float:
    """Return the largest change of a pixel in the pictures of CHECKED_SEEDS when weights are rounded to float16."""
    rounded = copy.deepcopy(model.decoder)
    for module in rounded.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.weight.copy_(module.weight.half())
    weight = next(model.decoder.parameters())
    z = model.prior.from_noise(noise(CHECKED_SEEDS, model.config.latent_dim)).to(weight)
    error = (torch.sigmoid(rounded(z)) - torch.sigmoid(model.decoder(z))).abs().max().item()
    return error if error == error else torch.inf  # not a number where a weight is beyond float16


def _of(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _residual_block(name: str, block: ResidualBlock, dtype: torch.dtype) -> dict[str, Tensor]:
    norm1, _, conv1, norm2, _, conv2 = block.residual
    tensors = {}
    for index, norm, convolution in ((1, norm1, conv1), (2, norm2, conv2)):
        tensors |= _scale_and_shift(f"{name}.{index}", norm)
        tensors[f"{name}.{index}.weight"] = _pack(_taps(convolution.weight), dtype)
    return tensors


def _scale_and_shift(name: str, norm: nn.BatchNorm2d) -> dict[str, Tensor]:
    """Return what a trained batch normalisation is: a factor for each channel and a number to add."""
    scale = norm.weight / torch.sqrt(_of(norm.running_var) + norm.eps)
    return {f"{name}.scale": scale, f"{name}.shift": norm.bias - _of(norm.running_mean) * scale}


def _taps(weight: Tensor) -> Tensor:
    """Order the weights of a convolution as its input lies, row by row, channels last: (O, I, 3, 3) -> (O, 9 I)."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _patches_first(tensor: Tensor, patch: int) -> Tensor:
    """Put the channels of a pixel side by side, (C patch patch, ...) -> (patch patch C, ...)."""
    return tensor.unflatten(0, (-1, patch**2)).transpose(0, 1).flatten(0, 1)


def _pack(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Lay out a matrix as the loop reads it, (O, K) -> (O / LANES, K, LANES), with zeros where O ends early."""
    padded = F.pad(matrix.detach(), (0, 0, 0, -len(matrix) % LANES))
    return padded.unflatten(0, (-1, LANES)).transpose(1, 2).to(dtype)
