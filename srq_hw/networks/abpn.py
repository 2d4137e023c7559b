"""ABPN (Du et al. 2021), "anchor-based plain net": plain convolutions that learn what to add to the repeated image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srq_hw.networks.layers import conv


class Abpn(nn.Module):
    """D4C28: `blocks`+1 convolutions, two to the sub-pixels, the image repeated scale**2 times added, shuffle, clip.

    RGB 0..255 in and out. Channel order is PyTorch's (each colour scale**2 times in a row), so that adding the repeated
    image in front of the shuffle equals adding the nearest-neighbour enlargement behind it.
    """

    def __init__(self, scale: int, features: int = 28, blocks: int = 4) -> None:
        super().__init__()
        out = 3 * scale * scale
        layers: list[nn.Module] = [conv(3, features), nn.ReLU()]
        for _ in range(blocks):
            layers += [conv(features, features), nn.ReLU()]
        self.body = nn.Sequential(*layers, conv(features, out), nn.ReLU(), conv(out, out))
        self.scale = scale
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W)."""
        repeated = torch.cat([x[:, c : c + 1] for c in range(3) for _ in range(self.scale**2)], dim=1)
        out: Tensor = self.shuffle(self.body(x) + repeated)
        return torch.clamp(out, 0.0, 255.0)
