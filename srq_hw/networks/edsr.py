"""EDSR-style networks (Lim et al. 2017): residual blocks without BatchNorm, sub-pixel upsampling.

Standard layers only, so that torch.fx can trace them and the quantizer can replace layer by layer. `Edsr` and
`EdsrMeanShift` name their layers head, body.<i>.c1, body.<i>.c2, tail, up (and last); `EdsrOfficial` bears the names of
the authors' PyTorch checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srq_hw.networks.layers import DIV2K_MEAN, conv, mean_shift, stages


def conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """3x3 convolution with bias, stride 1, one pixel of zero padding."""
    return conv(channels_in, channels_out)


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


class ScaledBlock(nn.Module):
    """x + res_scale * body(x), body being convolution, ReLU, convolution."""

    def __init__(self, features: int, res_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(features, features), nn.ReLU(), conv3x3(features, features))
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to the same shape."""
        y: Tensor = self.body(x)
        return x + y if self.res_scale == 1.0 else x + y * self.res_scale


class EdsrOfficial(nn.Module):
    """EDSR as published: mean shift, blocks, one more convolution, long skip, sub-pixel stages, last convolution.

    RGB 0..255 in and out. `res_scale` multiplies what each block adds (0.1 in the 32x256 network, 1 in the baseline).
    """

    def __init__(self, features: int, blocks: int, scale: int, res_scale: float = 1.0) -> None:
        super().__init__()
        up: list[nn.Module] = []
        for factor in stages(scale):
            up += [conv3x3(features, factor * factor * features), nn.PixelShuffle(factor)]
        self.sub_mean = mean_shift([-255.0 * mean for mean in DIV2K_MEAN])
        self.head = nn.Sequential(conv3x3(3, features))
        self.body = nn.Sequential(
            *(ScaledBlock(features, res_scale) for _ in range(blocks)), conv3x3(features, features)
        )
        self.tail = nn.Sequential(nn.Sequential(*up), conv3x3(features, 3))
        self.add_mean = mean_shift([255.0 * mean for mean in DIV2K_MEAN])

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W)."""
        h: Tensor = self.head(self.sub_mean(x))
        out: Tensor = self.add_mean(self.tail(self.body(h) + h))
        return out
