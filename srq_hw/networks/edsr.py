"""EDSR-style networks (Lim et al. 2017): residual blocks without BatchNorm, sub-pixel upsampling.

Standard layers only, so that torch.fx can trace them and the quantizer can replace layer by layer.
Key names: head, body.<i>.c1, body.<i>.c2, tail, up (and last where there is one).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """3x3 convolution with bias, stride 1, one pixel of zero padding."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)


class ResidualBlock(nn.Module):
    """x + c2(relu(c1(x))) with two 3x3 convolutions."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.c1 = conv3x3(features, features)
        self.relu = nn.ReLU()
        self.c2 = conv3x3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to the same shape."""
        out: Tensor = x + self.c2(self.relu(self.c1(x)))
        return out


class Edsr(nn.Module):
    """The light EDSR of mobile and FPGA work: one convolution straight to the sub-pixels, no mean shift.

    Input RGB (N, 3, H, W), output RGB (N, 3, scale*H, scale*W) in the units of the input, not clipped.
    """

    def __init__(self, features: int, blocks: int, scale: int = 2) -> None:
        super().__init__()
        self.head = conv3x3(3, features)
        self.body = nn.Sequential(*(ResidualBlock(features) for _ in range(blocks)))
        self.tail = conv3x3(features, features)
        self.up = conv3x3(features, 3 * scale * scale)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W)."""
        h: Tensor = self.head(x)
        out: Tensor = self.shuffle(self.up(self.tail(self.body(h)) + h))
        return out


class EdsrMeanShift(nn.Module):
    """EDSR x2 with a mean shift and a last convolution after the sub-pixel layer; input RGB 0..1.

    h = head((x + mean_in) * 2), out = last(shuffle(up(tail(body(h)) + h))) * 0.5 + mean_out; the means are buffers
    (1, 3, 1, 1) and come with the checkpoint.
    """

    mean_in: Tensor
    mean_out: Tensor

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("mean_in", torch.zeros(1, 3, 1, 1))
        self.register_buffer("mean_out", torch.zeros(1, 3, 1, 1))
        self.head = conv3x3(3, features)
        self.body = nn.Sequential(*(ResidualBlock(features) for _ in range(blocks)))
        self.tail = conv3x3(features, features)
        self.up = conv3x3(features, 4 * features)
        self.shuffle = nn.PixelShuffle(2)
        self.last = conv3x3(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, 2H, 2W)."""
        h: Tensor = self.head((x + self.mean_in) * 2.0)
        y: Tensor = self.tail(self.body(h)) + h
        out: Tensor = self.last(self.shuffle(self.up(y))) * 0.5 + self.mean_out
        return out
