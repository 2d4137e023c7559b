"""XLSR (Ayazoglu 2021): grouped convolutions with pointwise ones behind them, and a clipped ReLU as output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srq_hw.networks.layers import conv


class GroupBlock(nn.Module):
    """3x3 convolution in 4 groups, ReLU, 1x1 convolution."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.spatial = conv(features, features, groups=4)
        self.relu = nn.ReLU()
        self.mix = conv(features, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to the same shape."""
        out: Tensor = self.mix(self.relu(self.spatial(x)))
        return out


class Xlsr(nn.Module):
    """Three group blocks beside one convolution of the image, joined, fused, shuffled, clipped to 0..1; RGB 0..1."""

    def __init__(self, scale: int, features: int = 32, side: int = 16) -> None:
        super().__init__()
        self.residual = conv(3, side)
        self.head = nn.Sequential(conv(3, features), nn.ReLU(), conv(features, features, 1))
        self.body = nn.Sequential(*(GroupBlock(features) for _ in range(3)))
        self.fuse = conv(features + side, features, 1)
        self.relu = nn.ReLU()
        self.last = conv(features, 3 * scale * scale)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W)."""
        joined = torch.cat([self.body(self.head(x)), self.residual(x)], dim=1)
        out: Tensor = self.shuffle(self.last(self.relu(self.fuse(joined))))
        return torch.clamp(out, 0.0, 1.0)
