"""CARN and CARN-M (Ahn et al. 2018): residual blocks in cascades that concatenate and fuse by 1x1 convolutions.

Key names are those of the authors' checkpoints; one scale per module (`upsample.up<scale>`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from srq_hw.networks.layers import conv
from srq_hw.networks.rnet import Block, MeanShift, SubPixel

#: residual blocks in a cascade, and cascades in the network
DEPTH = 3


class GroupedBlock(nn.Module):
    """CARN-M's residual block: relu(x + conv1x1(relu(gconv(relu(gconv(x)))))), gconv in groups."""

    def __init__(self, features: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(features, features, groups=groups),
            nn.ReLU(),
            conv(features, features, groups=groups),
            nn.ReLU(),
            conv(features, features, 1),
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to the same shape."""
        out: Tensor = self.relu(x + self.body(x))
        return out


class Fusion(nn.Module):
    """1x1 convolution and ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels_in, channels_out, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, H, W) to (N, channels_out, H, W)."""
        out: Tensor = self.body(x)
        return out


def cascade(x: Tensor, blocks: Sequence[nn.Module], fusions: Sequence[nn.Module]) -> Tensor:
    """c = o = x; for every block c = cat(c, block(o)), o = fusion(c); o at the end. All (N, features, H, W)."""
    joined, out = x, x
    for block, fusion in zip(blocks, fusions, strict=True):
        joined = torch.cat([joined, block(out)], dim=1)
        out = fusion(joined)
    return out


class Cascade(nn.Module):
    """The inner cascade. CARN has three blocks b1..b3; CARN-M (groups > 1) has one, b1, used three times."""

    def __init__(self, features: int, groups: int) -> None:
        super().__init__()
        self.b1: nn.Module
        if groups == 1:
            self.b1, self.b2, self.b3 = (Block(features) for _ in range(DEPTH))
        else:
            self.b1 = GroupedBlock(features, groups)
        self.c1, self.c2, self.c3 = (Fusion((i + 2) * features, features) for i in range(DEPTH))
        self.shared = groups != 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to the same shape."""
        blocks = [self.b1] * DEPTH if self.shared else [self.b1, self.b2, self.b3]
        return cascade(x, blocks, [self.c1, self.c2, self.c3])


class Carn(nn.Module):
    """CARN (groups 1) or CARN-M (groups 4) at one scale; RGB 0..1 in and out."""

    def __init__(self, scale: int, groups: int = 1, features: int = 64) -> None:
        super().__init__()
        self.sub_mean = MeanShift(-1.0)
        self.entry = conv(3, features)
        self.b1, self.b2, self.b3 = (Cascade(features, groups) for _ in range(DEPTH))
        self.c1, self.c2, self.c3 = (Fusion((i + 2) * features, features) for i in range(DEPTH))
        self.upsample = nn.Sequential()
        self.upsample.add_module(f"up{scale}", SubPixel(features, scale, groups))
        self.exit = conv(features, 3)
        self.add_mean = MeanShift(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W)."""
        h = cascade(self.entry(self.sub_mean(x)), [self.b1, self.b2, self.b3], [self.c1, self.c2, self.c3])
        out: Tensor = self.add_mean(self.exit(self.upsample(h)))
        return out
