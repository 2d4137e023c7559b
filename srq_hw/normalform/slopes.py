"""PReLU slopes below what a target allows, as rectifiers of the negated channel. Exact in real arithmetic.

A learned slope may be negative: prelu(x) = relu(x) + |a| * relu(-x). Hardware that counts thresholds cannot fall and
rise. So the convolution in front makes the negated channel as well, both are rectified, and the convolutions behind
read the second one with their weights times |a|.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from srq_hw.normalform.normal import Layer, NormalNet, users
from srq_hw.target import Target


def split_negative_slopes(net: NormalNet, target: Target) -> NormalNet:
    """The network without negative slopes where the target has none and convolutions stand on both sides; else as is.

    What stays negative is refused by `freeze` with the layer's name.
    """
    if target.integer.ops.Requant.slope_min < 0:
        return net
    for name in [layer.name for layer in net.layers if layer.slope is not None and bool((layer.slope < 0).any())]:
        net = _split(net, next(layer for layer in net.layers if layer.name == name))
    return net


def _split(net: NormalNet, act: Layer) -> NormalNet:
    before = next(layer for layer in net.layers if layer.name == act.inputs[0])
    repeat, readers = _readers_behind_shuffles(net, act)
    dense = all(layer.op == "conv" and layer.groups == 1 for layer in (before, *readers))
    if not dense or not readers or len(users(net.layers, before.name)) != 1:
        return net
    assert act.slope is not None and before.weight is not None and before.bias is not None
    slope = act.slope.expand(before.weight.shape[0])
    each = slope.reshape(-1, repeat)  # a channel behind the shuffles, its channels in front of them
    if not bool((each == each[:, :1]).all()):
        return net
    falling = torch.nonzero(each[:, 0] < 0).reshape(-1)
    early = torch.nonzero(slope < 0).reshape(-1)
    changed = {
        before.name: replace(
            before,
            weight=torch.cat([before.weight, -before.weight[early]]),
            bias=torch.cat([before.bias, -before.bias[early]]),
        ),
        act.name: replace(act, slope=torch.cat([slope.clamp(min=0), torch.zeros_like(slope[early])])),
    }
    for reader in readers:
        assert reader.weight is not None
        more = reader.weight[:, falling] * each[falling, 0].abs()[None, :, None, None]
        changed[reader.name] = replace(reader, weight=torch.cat([reader.weight, more], dim=1))
    return replace(net, layers=tuple(changed.get(layer.name, layer) for layer in net.layers))


def _readers_behind_shuffles(net: NormalNet, layer: Layer) -> tuple[int, list[Layer]]:
    """How many channels become one, and the readers behind all pixel shuffles that follow one another."""
    repeat, readers = 1, users(net.layers, layer.name)
    while len(readers) == 1 and readers[0].op == "shuffle":
        repeat, readers = repeat * readers[0].factor ** 2, users(net.layers, readers[0].name)
    return repeat, readers
