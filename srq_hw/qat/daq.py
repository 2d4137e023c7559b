"""DAQ (Hong et al., WACV 2022) as a reference to compare with. NOT a static integer form.

Every channel of every image gets its own step from its standard deviation while the network runs, so no fixed
multiplier and shift describes it; nothing here can be frozen, lowered or built. It is fake quantization in float32 of
what the convolutions read and of their weights; sums, activations and the image stay real. METHODS 2.8.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from srq_hw.errors import InputError
from srq_hw.normalform.normal import LAYER_FUNCTIONS, Layer, NormalNet, real_image, users

Image = npt.NDArray[np.uint8]

#: bits -> step of the best uniform quantizer of a Gaussian of variance 1 (mean squared error)
GAUSSIAN_STEPS = {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.335, 5: 0.188, 6: 0.104, 7: 0.057, 8: 0.031}


def run_daq(net: NormalNet, image: Image, weight_bits: int, act_bits: int) -> Image:
    """The network on one image, uint8 (H, W, C) in and out, its inner convolutions quantized by DAQ.

    What the first convolutions read (the image) and every convolution that makes the output stay real, as in the
    paper's experiments. InputError for bits outside 1..8.
    """
    for bits in (weight_bits, act_bits):
        if bits not in GAUSSIAN_STEPS:
            raise InputError(f"DAQ: {bits} bits; allowed are 1 to {max(GAUSSIAN_STEPS)}")
    inner = inner_convs(net)
    quantized = replace(net, layers=tuple(_daq_layer(layer, weight_bits, layer.name in inner) for layer in net.layers))
    x = real_image(net, image)
    with torch.inference_mode():
        y = _evaluate(quantized, x, inner, act_bits) / net.grey_level
    levels = torch.round(y[0]).clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    return np.ascontiguousarray(levels.numpy())


def inner_convs(net: NormalNet) -> set[str]:
    """Convolutions that neither read the image nor stand last."""
    image = net.layers[0].name

    def last(name: str) -> bool:
        return all(reader.op != "conv" and last(reader.name) for reader in users(net.layers, name))

    return {
        layer.name for layer in net.layers if layer.op == "conv" and image not in layer.inputs and not last(layer.name)
    }


def quantize_channels(x: Tensor, bits: int) -> Tensor:
    """Each channel of each image on a grid of its own: (N, C, H, W), same shape.

    mean and sigma of the channel; (x - mean) / sigma to the uniform quantizer of a unit Gaussian (mid-rise: 2**bits
    levels on both sides of the mean) and back. A channel without a negative value (behind a ReLU) takes its statistics
    from its positive values, and its zeros stay zeros. A constant channel stays as it is.
    """
    rectified = (x >= 0).flatten(2).all(2)[:, :, None, None]
    counted = torch.where(rectified, x > 0, torch.ones_like(x, dtype=torch.bool))
    count = counted.sum((2, 3), keepdim=True).clamp_min(1)
    mean = (x * counted).sum((2, 3), keepdim=True) / count
    sigma = (((x - mean) * counted).square().sum((2, 3), keepdim=True) / count).sqrt()
    safe = torch.where(sigma > 0, sigma, torch.ones_like(sigma))
    found = mean + safe * _gaussian((x - mean) / safe, bits)
    return torch.where(counted & (sigma > 0), found, x)


def quantize_weight(weight: Tensor, bits: int) -> Tensor:
    """One grid for the tensor, by the same rule."""
    sigma = weight.std(correction=0)
    mean = weight.mean()
    return weight if sigma == 0 else mean + sigma * _gaussian((weight - mean) / sigma, bits)


def _gaussian(x: Tensor, bits: int) -> Tensor:
    """Uniform mid-rise quantizer of 2**bits levels for a unit Gaussian."""
    step, half = GAUSSIAN_STEPS[bits], 2 ** (bits - 1)
    return (torch.floor(x / step).clamp(-half, half - 1) + 0.5) * step


def _daq_layer(layer: Layer, bits: int, inner: bool) -> Layer:
    if not inner:
        return layer
    assert layer.weight is not None
    return replace(layer, weight=quantize_weight(layer.weight, bits))


def _evaluate(net: NormalNet, image: Tensor, inner: set[str], bits: int) -> Tensor:
    """`normal.evaluate` with what the inner convolutions read quantized; other readers of it see it as it was."""
    values: dict[str, Tensor] = {}
    for layer in net.layers:
        ins = [values[name] for name in layer.inputs]
        if layer.op == "conv":
            values[layer.name] = _conv(layer, quantize_channels(ins[0], bits) if layer.name in inner else ins[0])
        elif layer.op == "image":
            offset = 0.0 if layer.offset is None else image.new_tensor(layer.offset)[None, :, None, None]
            values[layer.name] = image + offset * net.grey_level
        else:
            values[layer.name] = LAYER_FUNCTIONS[layer.op](layer, ins)
    return values[net.output]


def _conv(layer: Layer, x: Tensor) -> Tensor:
    assert layer.weight is not None and layer.bias is not None
    rows, columns = layer.weight.shape[2:]
    weight, bias = layer.weight.to(x.dtype), layer.bias.to(x.dtype)
    return F.conv2d(x, weight, bias, padding=(rows // 2, columns // 2), groups=layer.groups)
