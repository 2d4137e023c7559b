"""MSRResNet, the BatchNorm-free SRResNet of BasicSR (the "SRResNet" of Tu et al. 2023), with its key names."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from srq_hw.networks.layers import conv, stages

#: slope of LeakyReLU for negative values
SLOPE = 0.1


class Block(nn.Module):
    """x + conv2(relu(conv1(x)))."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = conv(features, features)
        self.relu = nn.ReLU()
        self.conv2 = conv(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to the same shape."""
        out: Tensor = x + self.conv2(self.relu(self.conv1(x)))
        return out


class MsrResNet(nn.Module):
    """Blocks without a long skip; what the network adds to the bilinearly enlarged image. RGB 0..1 in and out.

    act_after_up: LeakyReLU behind every sub-pixel stage (BasicSR, MMSR); OpenMMLab's MMEditing has none there.
    """

    def __init__(self, features: int, blocks: int, scale: int, act_after_up: bool = True) -> None:
        super().__init__()
        factors = stages(scale)
        self.scale = scale
        self.conv_first = conv(3, features)
        self.body = nn.Sequential(*(Block(features) for _ in range(blocks)))
        self.upconv1 = conv(features, features * factors[0] ** 2)
        self.upconv2 = conv(features, features * factors[1] ** 2) if len(factors) == 2 else None
        self.shuffle = nn.PixelShuffle(factors[0])
        self.conv_hr = conv(features, features)
        self.conv_last = conv(features, 3)
        self.lrelu = nn.LeakyReLU(SLOPE)
        self.act_after_up = act_after_up

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W)."""
        y: Tensor = self.body(self.lrelu(self.conv_first(x)))
        for stage in (self.upconv1, self.upconv2):
            if stage is not None:
                y = self.shuffle(stage(y))
                y = self.lrelu(y) if self.act_after_up else y
        y = self.conv_last(self.lrelu(self.conv_hr(y)))
        return y + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
