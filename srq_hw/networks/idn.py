"""IDN (Hui et al. 2018): units that split their channels, 1x1 compression, one large transposed convolution.

Two published variants differ; the switches of `Idn` say which one a checkpoint belongs to.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srq_hw.networks.bicubic import BicubicUpsample
from srq_hw.networks.layers import conv

SLOPE = 0.05  # of every LeakyReLU
FEATURES = 64
SPLIT = 16  # channels of the first half that go straight to the concatenation
KERNEL = 17  # of the published transposed convolution, padding 8


def _chain(channels: tuple[int, int, int, int]) -> nn.Sequential:
    """Three 3x3 convolutions, the middle one in 4 groups, LeakyReLU behind each."""
    a, b, c, d = channels
    return nn.Sequential(
        conv(a, b), nn.LeakyReLU(SLOPE), conv(b, c, groups=4), nn.LeakyReLU(SLOPE), conv(c, d), nn.LeakyReLU(SLOPE)
    )


class TorchBicubic(nn.Module):
    """Enlarges by a whole factor with PyTorch's bicubic: a = -3/4, half-pixel centres, edge pixels repeated."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, factor*H, factor*W)."""
        return F.interpolate(x, scale_factor=self.factor, mode="bicubic", align_corners=False)


class Block(nn.Module):
    """t = first(x) is split: one part is joined to x, one goes through `second`; the sum of both is compressed."""

    def __init__(self, slice_first: bool, act_after_1x1: bool) -> None:
        super().__init__()
        self.first = _chain((FEATURES, 48, 32, FEATURES))
        self.second = _chain((FEATURES - SPLIT, FEATURES, 48, FEATURES + SPLIT))
        self.compress = conv(FEATURES + SPLIT, FEATURES, 1)
        self.act = nn.LeakyReLU(SLOPE) if act_after_1x1 else None
        self.slice_first = slice_first

    def forward(self, x: Tensor) -> Tensor:
        """(N, 64, H, W) to the same shape."""
        t: Tensor = self.first(x)
        if self.slice_first:
            kept, sent = t[:, :SPLIT], t[:, SPLIT:]
        else:
            kept, sent = t[:, FEATURES - SPLIT :], t[:, : FEATURES - SPLIT]
        out: Tensor = self.compress(torch.cat([x, kept], dim=1) + self.second(sent))
        return out if self.act is None else self.act(out)


class Idn(nn.Module):
    """IDN at one scale: four blocks, transposed convolution, added to the bicubically enlarged input; 0..1 in and out.

    channels: 1 (Y) or 3 (RGB). slice_first: the first 16 channels of a split are joined to the block's input (the
    authors' Caffe code), else the last 16. act_after_1x1: LeakyReLU behind the 1x1 compression (the Caffe code).
    torch_bicubic: the skip is PyTorch's bicubic (kernel with a = -3/4) instead of MATLAB's (a = -1/2).
    The published 17x17 transposed convolution leaves scale-1 rows and columns open at one edge; here its kernel is
    16 + scale wide, filled up with zeros, so that the output is scale*H x scale*W (see `converters`).
    """

    def __init__(
        self,
        scale: int,
        channels: int = 1,
        slice_first: bool = True,
        act_after_1x1: bool = True,
        torch_bicubic: bool = False,
    ) -> None:
        super().__init__()
        self.feature = nn.Sequential(
            conv(channels, FEATURES), nn.LeakyReLU(SLOPE), conv(FEATURES, FEATURES), nn.LeakyReLU(SLOPE)
        )
        self.blocks = nn.Sequential(*(Block(slice_first, act_after_1x1) for _ in range(4)))
        self.upsample = nn.ConvTranspose2d(
            FEATURES, channels, KERNEL - 1 + scale, stride=scale, padding=(KERNEL - 1) // 2
        )
        self.bicubic: nn.Module = TorchBicubic(scale) if torch_bicubic else BicubicUpsample(scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, channels, scale*H, scale*W)."""
        out: Tensor = self.upsample(self.blocks(self.feature(x))) + self.bicubic(x)
        return out
