"""The float network on images of any size: in tiles that overlap by its receptive field, so that memory is bounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from srq_hw.graph.taps import filter_taps
from srq_hw.networks.loading import FloatNetwork, run_levels
from srq_hw.normalform.normal import NormalNet, channel_counts, upscales
from srq_hw.simulate.tiles import tiles

Image = NDArray[np.uint8] | NDArray[np.float64]

#: memory for feature maps of one image or tile
FLOAT_BYTES = 1 << 30
#: feature maps of the widest layer that are alive at a time: input, output, im2col or a skip, and one to spare
ALIVE = 4


def receptive_radius(net: NormalNet) -> int:
    """How many pixels around its own an output pixel can depend on, in pixels of the input image.

    Backwards through the layers: a neighbourhood adds its radius, an upscaling divides what is behind it, rounded up.
    """
    scale = upscales(net)
    need = dict.fromkeys(scale, 0)
    for layer in reversed(net.layers):
        radius = 0
        if layer.op == "conv":
            assert layer.weight is not None
            radius = int(max(layer.weight.shape[2:])) // 2
        elif layer.op == "filter":
            assert layer.kernel is not None
            radius = int(filter_taps(layer.kernel, layer.factor)[0].shape[1]) // 2
        for name in layer.inputs:
            need[name] = max(need[name], -(-need[layer.name] * scale[name] // scale[layer.name]) + radius)
    return need[net.layers[0].name]


def bytes_per_pixel(net: NormalNet) -> int:
    """Feature-map memory per input pixel, float32, from the widest layer."""
    scale = upscales(net)
    channels = channel_counts(net.layers, net.channels)
    return ALIVE * 4 * max(channels[name] * scale[name] ** 2 for name in scale)


def float_side(net: NormalNet, height: int, width: int, limit: int = FLOAT_BYTES) -> int:
    """Side of the tiles an image of this size is cut into; the longer side of the image where it fits whole."""
    pixels = limit // bytes_per_pixel(net)
    if height * width <= pixels:
        return max(height, width)
    margin = receptive_radius(net)
    return max(int(pixels**0.5) - 2 * margin, margin, 16)


def run_tiled(net: FloatNetwork, normal: NormalNet | None, image: Image, side: int | None = None) -> NDArray[np.uint8]:
    """`run_levels` tile by tile: uint8 (scale*h, scale*w, channels) of grey levels (h, w, channels).

    normal: the same network in normal form, which says how far it sees; None: nobody knows, so the image is run whole.
    side: of the tiles, None: whole where that fits into FLOAT_BYTES. Every pixel of a tile's own
    area sees all it depends on; what is left is float32 rounding inside the convolution library, whose order of
    summation may depend on the size of the tile.
    """
    if normal is None:
        return run_levels(net, image)
    height, width = image.shape[:2]
    side = float_side(normal, height, width) if side is None else side
    if max(height, width) <= side:
        return run_levels(net, image)
    scale = net.scale
    result = np.empty((height * scale, width * scale, image.shape[2]), np.uint8)
    for rows, columns in tiles(height, width, side, receptive_radius(normal)):
        out = run_levels(net, image[rows.outer, columns.outer])
        result[rows.image(scale), columns.image(scale)] = out[rows.inside(scale), columns.inside(scale)]
    return result
