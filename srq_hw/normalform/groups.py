"""Grouped convolutions as dense ones, for targets that have none: zeros where a group does not look. Exact."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from srq_hw.normalform.normal import Layer, NormalNet
from srq_hw.target import Target


def dense_groups(net: NormalNet, target: Target) -> NormalNet:
    """The network with every grouped convolution expanded where the target's Conv has no groups; else unchanged."""
    if target.integer.ops.Conv.groups:
        return net
    return replace(net, layers=tuple(_dense(layer) for layer in net.layers))


def dense_weight(conv: Layer) -> Tensor:
    """Weights (O, I, kh, kw) of a convolution without groups that does the same."""
    assert conv.weight is not None
    outs, per_group, rows, columns = conv.weight.shape
    size = outs // conv.groups
    weight = torch.zeros(outs, per_group * conv.groups, rows, columns, dtype=conv.weight.dtype)
    for group in range(conv.groups):
        own = slice(group * size, (group + 1) * size)
        weight[own, group * per_group : (group + 1) * per_group] = conv.weight[own]
    return weight


def _dense(layer: Layer) -> Layer:
    if layer.op != "conv" or layer.groups == 1:
        return layer
    return replace(layer, weight=dense_weight(layer), groups=1)
