"""`fold`: mean shifts, BatchNorm, constant factors and clamps go into convolutions and ReLUs; units are grey levels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from srq_hw.errors import InputError
from srq_hw.normalform.normal import Layer, NormalNet, users


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
