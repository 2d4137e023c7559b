"""Cross-layer range equalisation: channels of unlike range are scaled alike, the factors move into the weights around.

A channel that is divided by t behind its convolution and multiplied by t inside the next one leaves the network's
function as it is (ReLU and PReLU are positively homogeneous; Nagel et al., ICCV 2019, "Data-Free Quantization"), yet a
quantizer with one scale for all channels then wastes less of its range. Channels that meet in a sum share their factor
along the whole skip; the image, the output and everything that reaches a sum with them keep theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srq_hw.normalform.normal import Layer, NormalNet, evaluate, real_image, users
from srq_hw.quantize.recipe import Equalize

Image = npt.NDArray[np.uint8]
Int = npt.NDArray[np.int64]

#: a channel weaker than this part of its tensor's mean range counts as that strong; a dead one (range 0) has no say
WEAKEST = 1e-3


def equalize(net: NormalNet, images: Sequence[Image], options: Equalize) -> NormalNet:
    """The same function with channel ranges drawn together; images: uint8 (H, W, C), low resolution.

    A channel's factor is (its range / its tensor's mean range) ** strength, the geometric mean over the tensors that
    share the factor.
    """
    classes, bound = channel_classes(net)
    ranges = _ranges(net, images, options.statistic)
    logs: dict[int, list[float]] = {}
    for name, found in ranges.items():
        mean = float(found.mean())
        for index, value in zip(classes[name], found, strict=True):
            if value > 0:
                logs.setdefault(int(index), []).append(float(np.log(max(value / mean, WEAKEST))))
    factors = {
        index: float(np.exp(options.strength * np.mean(values))) for index, values in logs.items() if index not in bound
    }
    return scale_channels(net, classes, factors)


def channel_classes(net: NormalNet) -> tuple[dict[str, Int], set[int]]:
    """Layer -> class of each channel, int64 (C,); classes that must keep factor 1.

    Channels of one class share a factor.
    """
    parent: list[int] = []

    def fresh(count: int) -> Int:
        start = len(parent)
        parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def find(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    def join(groups: Sequence[Int]) -> Int:
        for other in groups[1:]:
            for a, b in zip(groups[0], other, strict=True):
                parent[find(int(b))] = find(int(a))
        return groups[0]

    classes: dict[str, Int] = {}
    bound: list[int] = []
    for layer in net.layers:
        sources = [classes[name] for name in layer.inputs]
        if layer.op == "image":
            found = fresh(net.channels)
            bound.extend(int(index) for index in found)
        elif layer.op == "conv":
            assert layer.weight is not None
            found = fresh(layer.weight.shape[0])
        elif layer.op == "add":
            found = join(sources)
        elif layer.op == "concat":
            found = np.concatenate(sources)
        elif layer.op == "slice":
            assert layer.span is not None
            found = sources[0][slice(*layer.span)]
        elif layer.op == "shuffle":
            found = join(list(sources[0].reshape(-1, layer.factor**2).T))
        else:  # relu, prelu, resize, filter: channel by channel
            found = sources[0]
            if layer.limits is not None:  # an upper limit is not homogeneous
                bound.extend(int(index) for index in found)
        classes[layer.name] = found
    bound.extend(int(index) for index in classes[net.output])
    roots = {name: np.array([find(int(index)) for index in found], np.int64) for name, found in classes.items()}
    return roots, {find(index) for index in bound}


def scale_channels(net: NormalNet, classes: dict[str, Int], factors: dict[int, float]) -> NormalNet:
    """Divide every channel by its class's factor (1 where it has none); convolutions take the factors up."""

    def factor(name: str) -> Tensor:
        return torch.tensor([factors.get(int(index), 1.0) for index in classes[name]], dtype=torch.float64)

    def scaled(layer: Layer) -> Layer:
        if layer.op != "conv":
            return layer
        assert layer.weight is not None and layer.bias is not None
        out = factor(layer.name)
        weight = layer.weight * by_weight(layer, factor(layer.inputs[0])) / out[:, None, None, None]
        return replace(layer, weight=weight, bias=layer.bias / out)

    return replace(net, layers=tuple(scaled(layer) for layer in net.layers))


def by_weight(conv: Layer, inside: Tensor) -> Tensor:
    """The value of each weight's input channel, (O, I/g, 1, 1), from one per input channel, (I,)."""
    assert conv.weight is not None
    outs, per_group = conv.weight.shape[:2]
    rows = inside.reshape(conv.groups, 1, per_group).expand(-1, outs // conv.groups, -1)
    return rows.reshape(outs, per_group, 1, 1)


def _ranges(net: NormalNet, images: Sequence[Image], statistic: str) -> dict[str, npt.NDArray[np.float64]]:
    """Tensor -> range of each channel, float64 (C,), of every tensor that a convolution reads."""
    read = {layer.name for layer in net.layers if any(reader.op == "conv" for reader in users(net.layers, layer.name))}
    found: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in read}

    def tap(name: str, values: Tensor) -> None:
        if name in read:
            flat = values.double().permute(1, 0, 2, 3).flatten(1)
            rows = flat.abs().amax(1) if statistic == "max" else flat.square().mean(1).sqrt()
            found[name].append(rows.numpy())

    with torch.inference_mode():
        for image in images:
            evaluate(net, real_image(net, image), tap)
    gather = np.max if statistic == "max" else np.mean
    return {name: gather(rows, axis=0) for name, rows in found.items()}
