"""ResizeFilter as the RTL computes it: a convolution with repeated edges to factor**2 images, then DepthToSpace."""

from __future__ import annotations

import numpy as np

from srq_hw.graph.ir import Int, Node


def filter_conv(node: Node, channels: int, mode: str = "DCR") -> tuple[Int, int]:
    """Weights of the Conv that makes every phase of a ResizeFilter node a channel, and its groups.

    The Conv repeats edge pixels (srq_conv with EDGE = 1), its zero point correction is the one of any Conv,
    ``-zero_point * weight.sum((1, 2, 3))``; DepthToSpace with the node's factor as block and this mode follows.

    channels: C of the node's input. mode: order of the C * factor**2 output channels, see `depth_to_space_order`.
    DCR: a group of a Conv holds neighbouring outputs, here neighbours come from different inputs; so the weights are
    dense, zero but for each output's own input, int64 (C*f*f, C, K, K), one group. CRD: each input has its f*f outputs
    side by side, int64 (C*f*f, 1, K, K), C groups. With C = 1 both are the same.
    """
    taps, factor = node.params["taps"], node.int_attr("factor")
    size = taps.shape[1]
    planes = np.einsum("ia,jb->ijab", taps, taps).reshape(factor**2, size, size)  # phase dy * factor + dx
    if mode == "CRD":
        return np.tile(planes, (channels, 1, 1))[:, None], channels
    if mode != "DCR":
        raise ValueError(f"mode {mode!r} is neither CRD nor DCR")
    weight = np.zeros((factor**2, channels, channels, size, size), np.int64)
    own = np.arange(channels)
    weight[:, own, own] = planes[:, None]
    return weight.reshape(-1, channels, size, size), 1
