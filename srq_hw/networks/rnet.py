"""RNet: the plain residual network that CARN's authors compare with; ReLU behind every addition, no BatchNorm."""

from __future__ import annotations

from torch import Tensor, nn

from srq_hw.networks.layers import DIV2K_MEAN, conv, mean_shift, stages


class MeanShift(nn.Module):
    """Adds sign * mean to the image; the 1x1 convolution is named `shifter` in the checkpoints of CARN and RNet."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.shifter = mean_shift([sign * mean for mean in DIV2K_MEAN])

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the same shape."""
        out: Tensor = self.shifter(x)
        return out


class SubPixel(nn.Module):
    """Per stage convolution, ReLU, pixel shuffle."""

    def __init__(self, features: int, scale: int, groups: int = 1) -> None:
        super().__init__()
        body: list[nn.Module] = []
        for factor in stages(scale):
            body += [conv(features, factor * factor * features, groups=groups), nn.ReLU(), nn.PixelShuffle(factor)]
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to (N, features, scale*H, scale*W)."""
        out: Tensor = self.body(x)
        return out


class Block(nn.Module):
    """relu(x + conv(relu(conv(x))))."""

    def __init__(self, features: int, bias: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(features, features, bias=bias), nn.ReLU(), conv(features, features, bias=bias))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to the same shape."""
        out: Tensor = self.relu(x + self.body(x))
        return out


class RNet(nn.Module):
    """Convolutions of entry and blocks without bias; RGB 0..1. The upsampler is named after its scale."""

    def __init__(self, features: int = 64, blocks: int = 9, scale: int = 4) -> None:
        super().__init__()
        self.sub_mean = MeanShift(-1.0)
        self.entry = conv(3, features, bias=False)
        self.blocks = nn.Sequential(*(Block(features, bias=False) for _ in range(blocks)))
        self.add_module(f"upsamplex{scale}", SubPixel(features, scale))
        self.exit = conv(features, 3)
        self.add_mean = MeanShift(1.0)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W)."""
        h: Tensor = self.entry(self.sub_mean(x))
        upsample = self.get_submodule(f"upsamplex{self.scale}")
        out: Tensor = self.add_mean(self.exit(upsample(self.blocks(h) + h)))
        return out
