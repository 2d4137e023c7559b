"""oneDNN's int8 convolution, called through torch so that the accumulators come out.

`torch.ops.onednn.qconv_pointwise` with float32 output and all scales 1 returns the int32 accumulator as a float32.
Whether the accumulator itself is exact on this CPU is what `probe` finds out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from srq_hw.graph.ir import Int
from srq_hw.simulate.storage import Array


def channels_last(rows: Array) -> torch.Tensor:
    """(H, W, C) as a torch tensor (1, C, H, W) over the same memory."""
    return torch.from_numpy(rows)[None].permute(0, 3, 1, 2)


def int8_convolution(weight: Int, groups: int) -> Callable[[Array], torch.Tensor]:
    """oneDNN's u8 x s8 convolution, valid padding, float32 (1, O, H, W), scale 1. weight: int64 OIHW in int8 range."""
    ones = torch.ones(weight.shape[0])
    zeros = torch.zeros(weight.shape[0], dtype=torch.int64)
    shape = [1, weight.shape[1] * groups, 16 + weight.shape[2], 64 + weight.shape[3]]  # a hint for the weight layout
    packed = torch.ops.onednn.qconv_prepack(
        torch.from_numpy(weight.astype(np.int8)), ones, 1.0, 0, [1, 1], [0, 0], [1, 1], groups, shape
    )
    call = torch.ops.onednn.qconv_pointwise.default

    def convolve(rows: Array) -> torch.Tensor:
        x = channels_last(rows)
        found = call(
            x, 1.0, 0, packed, ones, zeros, None, [1, 1], [0, 0], [1, 1], groups, 1.0, 0, torch.float32, "none", [], ""
        )
        assert isinstance(found, torch.Tensor)
        return found

    return convolve
