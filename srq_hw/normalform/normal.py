"""The normal form of a float SR network: a flat list of layers that integer hardware knows.

Image, convolutions with bias, ReLU/PReLU (a ReLU may have an upper limit), adds, concats, channel slices, pixel
shuffles, nearest, bilinear and bicubic upsampling: nothing else is left once `fold` has moved every mean shift,
BatchNorm and constant factor into a convolution. All values are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from srq_hw.errors import InputError
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


@dataclass(frozen=True, eq=False)
class NormalNet:
    """Layers in execution order; the first is the image, the last makes the output.

    input_max: real value of grey level 255 at the input and at the output; channels: of the input image.
    """

    name: str
    layers: tuple[Layer, ...]
    input_max: float
    channels: int = 3

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


def fold(net: NormalNet) -> NormalNet:
    """Remove every affine and clamp layer and let the network speak grey levels (0..255 in and out).

    Exact in real arithmetic. InputError names what cannot be removed.
    """
    layers = list(net.layers)
    layers = _merge_affines(layers)
    layers = _drop_output_clamp(layers, net)
    layers = [_clipped_relu(layer) for layer in layers]
    layers = _fold_behind_conv(layers)
    layers = _fold_behind_image(layers, net)
    layers = _activate_before_shuffle(layers)
    for layer in layers:
        if layer.op == "affine":
            raise InputError(
                f"network {net.name}, layer {layer.name}: a constant factor or shift that follows no convolution "
                "cannot run on integers. Move it behind (or into) a convolution of the model."
            )
        if layer.op == "clamp":
            raise InputError(
                f"network {net.name}, layer {layer.name}: clamp to {layer.limits} inside the network is not supported; "
                f"only one that starts at 0 is, and a last clamp to the image range (0, {net.input_max:g}). Use ReLU, "
                "ReLU6 or remove it."
            )
    return replace(net, layers=tuple(_to_grey_levels(layers, net)), input_max=255.0)


def _without(layers: list[Layer], gone: Layer) -> list[Layer]:
    """The layer taken out, its readers joined to its input."""
    source = gone.inputs[0]
    return [
        replace(layer, inputs=tuple(source if name == gone.name else name for name in layer.inputs))
        for layer in layers
        if layer.name != gone.name
    ]


def _merge_affines(layers: list[Layer]) -> list[Layer]:
    """affine(affine(x)) becomes one; x * 1 + 0 disappears."""
    index = 0
    while index < len(layers):
        layer = layers[index]
        if layer.op == "affine":
            assert layer.scale is not None and layer.shift is not None
            before = next(item for item in layers if item.name == layer.inputs[0])
            if bool((layer.scale == 1).all()) and bool((layer.shift == 0).all()):
                layers = _without(layers, layer)
                continue
            if before.op == "affine" and len(users(layers, before.name)) == 1:
                assert before.scale is not None and before.shift is not None
                merged = replace(
                    layer,
                    inputs=before.inputs,
                    scale=layer.scale * before.scale,
                    shift=layer.scale * before.shift + layer.shift,
                )
                layers = [merged if item is layer else item for item in layers if item is not before]
                index -= 1
                continue
        index += 1
    return layers


def _drop_output_clamp(layers: list[Layer], net: NormalNet) -> list[Layer]:
    """The output quantizer clamps to the image range, so a clamp that does the same is redundant.

    It may stand last or in front of a last shuffle.
    """
    tail = len(layers) - 1
    while tail > 0 and layers[tail].op == "shuffle":
        tail -= 1
    last = layers[tail]
    if last.op == "clamp" and last.limits == (0.0, net.input_max):
        return _without(layers, last)
    return layers


def _clipped_relu(layer: Layer) -> Layer:
    """clamp(0, v) is a ReLU with an upper limit; one without is a ReLU."""
    if layer.op != "clamp" or layer.limits is None or layer.limits[0] != 0 or not layer.limits[1] > 0:
        return layer
    return replace(layer, op="relu", limits=None if layer.limits[1] == float("inf") else layer.limits)


def _fold_behind_conv(layers: list[Layer]) -> list[Layer]:
    """conv [shuffle] affine: the factor goes into the weights, the shift into the bias."""
    for name in [item.name for item in layers if item.op == "affine"]:
        layer = next(item for item in layers if item.name == name)
        found = _conv_in_front(layers, layer)
        if found is None:
            continue
        conv, repeat = found
        assert conv.weight is not None and conv.bias is not None
        assert layer.scale is not None and layer.shift is not None
        channels = conv.weight.shape[0]
        scale = _per_channel(layer.scale, channels, repeat)
        shift = _per_channel(layer.shift, channels, repeat)
        folded = replace(conv, weight=conv.weight * scale[:, None, None, None], bias=conv.bias * scale + shift)
        layers = [folded if item.name == conv.name else item for item in _without(layers, layer)]
    return layers


def _conv_in_front(layers: list[Layer], layer: Layer) -> tuple[Layer, int] | None:
    """The convolution whose only reader chain (shuffles) leads here, and how often each channel constant repeats."""
    repeat, name = 1, layer.inputs[0]
    while True:
        source = next(item for item in layers if item.name == name)
        if len(users(layers, name)) != 1:
            return None
        if source.op == "conv":
            return source, repeat
        if source.op != "shuffle":
            return None
        repeat, name = repeat * source.factor**2, source.inputs[0]


def _per_channel(values: Tensor, channels: int, repeat: int) -> Tensor:
    """(1,) or (C_out,) constants on the channels in front of pixel shuffles (PyTorch order: out channel major)."""
    if values.numel() == 1:
        return values.reshape(1).expand(channels)
    return values.repeat_interleave(repeat)


def _fold_behind_image(layers: list[Layer], net: NormalNet) -> list[Layer]:
    """Input mean shift: x' = k*x + c. The integer image is recentred by the grey level nearest to where x' is 0.

    The convolution behind pads with x' = 0, so the padding value of the recentred image is 0 too; what is left of c
    (less than half a grey level) and k go into bias and weights. Only a border pixel's padding sees the difference.
    """
    image = layers[0]
    affines = [layer for layer in users(layers, image.name) if layer.op == "affine"]
    if not affines:
        return layers
    if len(affines) != 1 or len(users(layers, image.name)) != 1:
        raise InputError(f"network {net.name}: the image is used both with and without a mean shift; use one of them")
    affine = affines[0]
    assert affine.scale is not None and affine.shift is not None
    readers = users(layers, affine.name)
    if any(reader.op != "conv" or reader.groups != 1 for reader in readers):
        names = ", ".join(reader.name for reader in readers if reader.op != "conv" or reader.groups != 1)
        raise InputError(
            f"network {net.name}, layer {affine.name}: a mean-shifted image may only feed dense "
            f"convolutions, not {names}"
        )
    scale = affine.scale.expand(net.channels) if affine.scale.numel() == 1 else affine.scale
    shift = affine.shift.expand(net.channels) if affine.shift.numel() == 1 else affine.shift
    if not bool((scale != 0).all()):
        raise InputError(
            f"network {net.name}, layer {affine.name}: multiplies a colour of the image by 0; leave it out"
        )
    offset = torch.round(shift / (scale * net.grey_level))
    rest = shift - offset * scale * net.grey_level
    layers = _without(layers, affine)
    for reader in readers:
        assert reader.weight is not None and reader.bias is not None
        folded = replace(
            next(item for item in layers if item.name == reader.name),
            weight=reader.weight * scale[None, :, None, None],
            bias=reader.bias + (reader.weight.sum((2, 3)) * rest[None, :]).sum(1),
        )
        layers = [folded if item.name == reader.name else item for item in layers]
    if bool((offset != 0).any()):
        recentred = replace(image, offset=tuple(int(value) for value in offset))
        layers = [recentred if item.name == image.name else item for item in layers]
    return layers


def _activate_before_shuffle(layers: list[Layer]) -> list[Layer]:
    """shuffle then activation becomes activation then shuffle, so that conv, activation and quantizer are one unit."""
    for name in [item.name for item in layers if item.op in ("relu", "prelu")]:
        act = next(item for item in layers if item.name == name)
        shuffle = next(item for item in layers if item.name == act.inputs[0])
        if shuffle.op != "shuffle" or len(users(layers, shuffle.name)) != 1:
            continue
        slope = act.slope
        if slope is not None and slope.numel() > 1:
            slope = slope.repeat_interleave(shuffle.factor**2)
        early = replace(act, inputs=shuffle.inputs, slope=slope)
        late = replace(shuffle, inputs=(act.name,))
        swap = {shuffle.name: early, act.name: late}
        layers = [swap.get(item.name, item) for item in layers]
        layers = [_renamed(item, act.name, shuffle.name) if item not in (early, late) else item for item in layers]
    return layers


def _to_grey_levels(layers: list[Layer], net: NormalNet) -> list[Layer]:
    """Input and output in grey levels: the unit goes into the first and last weights; a quantizer step is exactly 1."""
    unit = net.grey_level
    if unit == 1.0:
        return layers
    changed: dict[str, Layer] = {}

    def scale_conv(conv: Layer, weight_factor: float, bias_factor: float) -> None:
        assert conv.weight is not None and conv.bias is not None
        changed[conv.name] = replace(conv, weight=conv.weight * weight_factor, bias=conv.bias * bias_factor)

    pixels = {layers[0].name}  # what holds image values, moved or filtered
    for layer in layers:
        if layer.op in ("slice", "concat", "shuffle", "resize", "filter") and pixels.issuperset(layer.inputs):
            pixels.add(layer.name)
        elif layer.op == "conv" and layer.inputs[0] in pixels:
            scale_conv(layer, unit, 1.0)
    by_name = {layer.name: layer for layer in layers}
    waiting, seen = [layers[-1].name], set()
    while waiting:
        name = waiting.pop()
        layer = by_name[name]
        if name in seen or layer.op == "image":
            continue
        seen.add(name)
        if layer.op == "conv":
            scale_conv(changed.get(name, layer), 1.0 / unit, 1.0 / unit)
        else:  # sums, shuffles, ReLU, PReLU, filters: multiplying the inputs multiplies the output
            if layer.op == "relu" and layer.limits is not None:
                changed[name] = replace(layer, limits=(0.0, layer.limits[1] / unit))
            waiting.extend(layer.inputs)
    shared = [name for name in seen - pixels if any(reader.name not in seen for reader in users(layers, name))]
    readers = [item for name in pixels for item in users(layers, name) if item.op != "conv"]
    strays = [item.name for item in readers if item.name not in seen | pixels]
    if shared or strays:
        raise InputError(
            f"network {net.name}, layer {(shared + strays)[0]}: the image or the output is also used in the middle "
            "of the network, where its unit matters. Let only convolutions read the image and only the last layer make "
            "the output."
        )
    return [changed.get(layer.name, layer) for layer in layers]


def _renamed(layer: Layer, old: str, new: str) -> Layer:
    return replace(layer, inputs=tuple(new if name == old else name for name in layer.inputs))


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
