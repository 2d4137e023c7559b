"""The normal form of a float SR network: a flat list of layers that integer hardware knows, and what they compute.

Image, convolutions with bias, ReLU/PReLU (a ReLU may have an upper limit), adds, concats, channel slices, pixel
shuffles, nearest, bilinear and bicubic upsampling: nothing else is left once `fold.fold` has moved every mean shift,
BatchNorm and constant factor into a convolution. All values are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from srq_hw.graph.taps import filter_taps


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer. Which fields count depends on op:

    image    offset: integer grey levels added so that the padding value is 0 (None: nothing to add)
    conv     weight (O, I/groups, kh, kw), bias (O,), groups
    relu     limits: (0, upper limit), or None
    prelu    slope (1,) or (C,)
    add, concat, slice (span: first and last + 1 channel), shuffle (factor, PyTorch order), resize (factor, nearest)
    filter   factor, kernel (a name of `graph.taps.KERNELS`): upsampling with half-pixel centres, edge pixels repeated
    affine, clamp exist only before `fold`: x * scale + shift with (1,) or (C,) each; clamp to limits
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    weight: Tensor | None = None
    bias: Tensor | None = None
    groups: int = 1
    slope: Tensor | None = None
    factor: int = 1
    scale: Tensor | None = None
    shift: Tensor | None = None
    limits: tuple[float, float] | None = None
    offset: tuple[int, ...] | None = None
    span: tuple[int, int] | None = None
    kernel: str | None = None


@dataclass(frozen=True)
class Guide:
    """What `quantize.guide` has put into a network: a convolution of the image by that name, whose channels are read
    beside the operands of ``convs``."""

    name: str
    channels: int
    convs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class NormalNet:
    """Layers in execution order; the first is the image, the last makes the output.

    input_max: real value of grey level 255 at the input and at the output; channels: of the input image.
    """

    name: str
    layers: tuple[Layer, ...]
    input_max: float
    channels: int = 3
    guide: Guide | None = None

    @property
    def grey_level(self) -> float:
        """Real step between two grey levels."""
        return self.input_max / 255.0

    @property
    def output(self) -> str:
        """Name of the layer that makes the output image."""
        return self.layers[-1].name


def users(layers: Sequence[Layer], name: str) -> list[Layer]:
    """Layers that read the tensor."""
    return [layer for layer in layers if name in layer.inputs]


def channel_counts(layers: Sequence[Layer], image_channels: int) -> dict[str, int]:
    """Channels of every layer's output."""
    found: dict[str, int] = {}
    for layer in layers:
        ins = [found[name] for name in layer.inputs]
        if layer.op == "image":
            found[layer.name] = image_channels
        elif layer.op == "conv":
            assert layer.weight is not None
            found[layer.name] = int(layer.weight.shape[0])
        elif layer.op == "concat":
            found[layer.name] = sum(ins)
        elif layer.op == "slice":
            assert layer.span is not None
            found[layer.name] = layer.span[1] - layer.span[0]
        elif layer.op == "shuffle":
            found[layer.name] = ins[0] // layer.factor**2
        else:
            found[layer.name] = ins[0]
    return found


def upscales(net: NormalNet) -> dict[str, int]:
    """Layer -> pixels of its output per pixel of the image, along one side."""
    found: dict[str, int] = {}
    for layer in net.layers:
        own = layer.factor if layer.op in ("shuffle", "resize", "filter") else 1
        found[layer.name] = own * (found[layer.inputs[0]] if layer.inputs else 1)
    return found


def real_image(net: NormalNet, image: npt.NDArray[np.uint8]) -> Tensor:
    """What the network reads of an image: uint8 (H, W, C) to float32 (1, C, H, W) in 0..input_max."""
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] * net.grey_level


def evaluate(
    net: NormalNet, image: Tensor, tap: Callable[[str, Tensor], None] | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The float network, folded or not yet. image: (N, C, H, W) in 0..input_max; `tap` sees every layer's output."""
    values: dict[str, Tensor] = {}
    for layer in net.layers:
        values[layer.name] = _compute(layer, [values[name] for name in layer.inputs], image.to(dtype), net, dtype)
        if tap:
            tap(layer.name, values[layer.name])
    return values[net.output]


def _compute(layer: Layer, ins: list[Tensor], image: Tensor, net: NormalNet, dtype: torch.dtype) -> Tensor:
    if layer.op == "image":
        if layer.offset is None:
            return image
        return image + image.new_tensor(layer.offset)[None, :, None, None] * net.grey_level
    if layer.op == "conv":
        assert layer.weight is not None and layer.bias is not None
        rows, columns = layer.weight.shape[2:]
        weight, bias = layer.weight.to(dtype), layer.bias.to(dtype)
        return F.conv2d(ins[0], weight, bias, padding=(rows // 2, columns // 2), groups=layer.groups)
    return LAYER_FUNCTIONS[layer.op](layer, ins)


def _prelu(layer: Layer, ins: list[Tensor]) -> Tensor:
    assert layer.slope is not None
    return F.prelu(ins[0], layer.slope.to(ins[0].dtype))


def _affine(layer: Layer, ins: list[Tensor]) -> Tensor:
    assert layer.scale is not None and layer.shift is not None
    scale, shift = (value.to(ins[0].dtype).reshape(1, -1, 1, 1) for value in (layer.scale, layer.shift))
    return ins[0] * scale + shift


def _relu(layer: Layer, ins: list[Tensor]) -> Tensor:
    return F.relu(ins[0]) if layer.limits is None else ins[0].clamp(*layer.limits)


def _slice(layer: Layer, ins: list[Tensor]) -> Tensor:
    assert layer.span is not None
    return ins[0][:, layer.span[0] : layer.span[1]]


def _filter(layer: Layer, ins: list[Tensor]) -> Tensor:
    """The integer taps of the hardware, over their denominator: in float64 exact for an image of grey levels."""
    assert layer.kernel is not None
    taps, denominator = filter_taps(layer.kernel, layer.factor)
    rows = torch.from_numpy(taps).to(ins[0]) / denominator
    weight = (rows[:, None, :, None] * rows[None, :, None, :]).reshape(-1, 1, taps.shape[1], taps.shape[1])
    batch, channels, height, width = ins[0].shape
    radius = taps.shape[1] // 2
    # planes of their own: a kernel of all factor**2 phases for each, then the shuffle
    planes = F.pad(ins[0].reshape(-1, 1, height, width), (radius,) * 4, mode="replicate")
    return F.pixel_shuffle(F.conv2d(planes, weight), layer.factor).reshape(batch, channels, height * layer.factor, -1)


def _clamp(layer: Layer, ins: list[Tensor]) -> Tensor:
    assert layer.limits is not None
    return ins[0].clamp(*layer.limits)


#: what a layer without weights computes; shared by the float and the quantized network
LAYER_FUNCTIONS: dict[str, Callable[[Layer, list[Tensor]], Tensor]] = {
    "relu": _relu,
    "prelu": _prelu,
    "affine": _affine,
    "clamp": _clamp,
    "add": lambda layer, ins: ins[0] + ins[1],
    "concat": lambda layer, ins: torch.cat(ins, dim=1),
    "slice": _slice,
    "shuffle": lambda layer, ins: F.pixel_shuffle(ins[0], layer.factor),
    "resize": lambda layer, ins: F.interpolate(ins[0], scale_factor=layer.factor, mode="nearest"),
    "filter": _filter,
}
