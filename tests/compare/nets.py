"""Networks small enough to be quantized in a moment, made by factories as a user's own are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """Head, one residual block, sub-pixels, x2."""

    def __init__(self, channels: int, features: int = 4) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, features, 3, padding=1)
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        self.tail = nn.Conv2d(features, 4 * channels, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.srq_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in 0..1."""
        h = self.head(x)
        h = h + self.second(torch.relu(self.first(h)))
        y: Tensor = self.shuffle(self.tail(h))
        return y


def _made(channels: int) -> Small:
    """Seeded weights that pass most of the image on: the tail repeats what the head lets through."""
    torch.manual_seed(7)
    net = Small(channels)
    with torch.no_grad():
        for weight in (net.head.weight, net.tail.weight):
            weight.mul_(0.2)
        for c in range(channels):
            net.head.weight[c, c, 1, 1] += 1.0
            net.tail.weight[4 * c : 4 * c + 4, c, 1, 1] += 1.0
    return net


def rgb() -> nn.Module:
    """x2 on RGB."""
    return _made(3)


def luma() -> nn.Module:
    """x2 on Y."""
    return _made(1)


def exact() -> nn.Module:
    """x2 on RGB, grey levels in and out; weights are 0 or +-1/2, so few that float32 sums are never rounded."""
    net = Small(3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            draw = torch.randint(-5, 6, parameter.shape, generator=generator)
            parameter.copy_((draw == 5) / 2 - (draw == -5) / 2)
    net.srq_input_max = 255.0  # type: ignore[assignment]
    return net


def poisoned() -> nn.Module:
    """A weight is not a number."""
    net = _made(3)
    with torch.no_grad():
        net.first.weight[0, 0, 0, 0] = torch.nan
    return net


def tanh() -> nn.Module:
    """Runs as a float network, but no integer hardware has a tanh."""
    return nn.Sequential(_made(3), nn.Tanh())
