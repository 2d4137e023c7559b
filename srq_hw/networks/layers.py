"""Layers that several networks share: convolutions, the mean shift of the image, sub-pixel stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

#: mean of the DIV2K training images, RGB in 0..1
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


def conv(channels_in: int, channels_out: int, kernel: int = 3, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    """Convolution that keeps the image size: stride 1, kernel // 2 pixels of zero padding; kernel is odd."""
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups, bias=bias)


def mean_shift(shift: Sequence[float]) -> nn.Conv2d:
    """1x1 convolution with the identity as weight that adds `shift` (one number per channel); not trained."""
    layer = nn.Conv2d(len(shift), len(shift), kernel_size=1)
    layer.requires_grad_(False)
    with torch.no_grad():
        assert layer.bias is not None
        layer.weight.copy_(torch.eye(len(shift)).reshape(len(shift), len(shift), 1, 1))
        layer.bias.copy_(torch.tensor(shift))
    return layer


def stages(scale: int) -> tuple[int, ...]:
    """Pixel-shuffle factors in a row that make `scale`: x4 is x2 twice. ValueError for a scale other than 2, 3, 4."""
    known = {2: (2,), 3: (3,), 4: (2, 2)}
    if scale not in known:
        raise ValueError(f"scale {scale}: sub-pixel stages exist for {sorted(known)}")
    return known[scale]
