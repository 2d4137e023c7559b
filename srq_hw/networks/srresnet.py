"""SRResNet (Ledig et al. 2017) with BatchNorm and PReLU: 9x9 head and tail, long skip, sub-pixel stages."""

from __future__ import annotations

from torch import Tensor, nn

from srq_hw.networks.layers import conv, stages


class Block(nn.Module):
    """x + b2(c2(a(b1(c1(x))))) with `slopes` PReLU slopes: one per channel, or 1."""

    def __init__(self, features: int, slopes: int) -> None:
        super().__init__()
        self.c1 = conv(features, features)
        self.b1 = nn.BatchNorm2d(features)
        self.a = nn.PReLU(slopes)
        self.c2 = conv(features, features)
        self.b2 = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to the same shape."""
        out: Tensor = x + self.b2(self.c2(self.a(self.b1(self.c1(x)))))
        return out


class SrResNet(nn.Module):
    """A PReLU of its own at every place, every convolution with bias; RGB 0..1.

    per_layer: one slope for all channels of a place, else one per channel.
    The last convolution gives -1..1: the output is that * 0.5 + 0.5.
    """

    def __init__(self, features: int = 64, blocks: int = 8, scale: int = 4, per_layer: bool = False) -> None:
        super().__init__()
        factors = stages(scale)
        slopes = 1 if per_layer else features
        self.head = conv(3, features, 9)
        self.ha = nn.PReLU(slopes)
        self.body = nn.Sequential(*(Block(features, slopes) for _ in range(blocks)))
        self.tail = conv(features, features)
        self.tb = nn.BatchNorm2d(features)
        self.up1 = conv(features, factors[0] ** 2 * features)
        self.a1 = nn.PReLU(slopes)
        self.up2 = conv(features, factors[1] ** 2 * features) if len(factors) == 2 else None
        self.a2 = nn.PReLU(slopes) if len(factors) == 2 else None
        self.shuffle = nn.PixelShuffle(factors[0])
        self.last = conv(features, 3, 9)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W)."""
        h: Tensor = self.ha(self.head(x))
        y: Tensor = self.tb(self.tail(self.body(h))) + h
        y = self.a1(self.shuffle(self.up1(y)))
        if self.up2 is not None and self.a2 is not None:
            y = self.a2(self.shuffle(self.up2(y)))
        out: Tensor = self.last(y) * 0.5 + 0.5
        return out


class SharedBlock(nn.Module):
    """x + bn2(conv2(act(bn1(conv1(x))))); `act` may belong to the whole network."""

    def __init__(self, features: int, act: nn.PReLU) -> None:
        super().__init__()
        self.conv1 = conv(features, features, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.act = act
        self.conv2 = conv(features, features, bias=False)
        self.bn2 = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, H, W) to the same shape."""
        out: Tensor = x + self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return out


class SrResNetShared(nn.Module):
    """SRResNet as CADyQ runs it, with its key names: no biases, one PReLU slope shared by head and blocks; RGB 0..255.

    The sub-pixel stages have a slope of their own each. per_layer: so have the head and every block.
    """

    def __init__(self, features: int, blocks: int, scale: int, per_layer: bool = False) -> None:
        super().__init__()
        act = nn.PReLU()
        up: list[nn.Module] = []
        for factor in stages(scale):
            up += [conv(features, factor * factor * features, bias=False), nn.PixelShuffle(factor), nn.PReLU()]
        self.head = nn.Sequential(conv(3, features, 9, bias=False), act)
        self.body = nn.Sequential(
            *(SharedBlock(features, nn.PReLU() if per_layer else act) for _ in range(blocks)),
            conv(features, features, bias=False),
            nn.BatchNorm2d(features),
        )
        self.tail = nn.Sequential(nn.Sequential(*up), conv(features, 3, 9, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W)."""
        h: Tensor = self.head(x)
        out: Tensor = self.tail(self.body(h) + h)
        return out
