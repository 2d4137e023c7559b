"""FSRCNN (Dong et al. 2016): shrink, map, expand, all at low resolution, then one transposed convolution. Y only."""

from __future__ import annotations

from torch import Tensor, nn

from srq_hw.networks.layers import conv

KERNEL = 9  # of the published transposed convolution, padding 4


class Fsrcnn(nn.Module):
    """FSRCNN(d, s, m) at one scale with one PReLU slope per channel; Y 0..1 in and out.

    The published 9x9 transposed convolution has an output padding of scale-1; here its kernel is 8 + scale wide,
    filled up with zeros at the end, which computes the same without one.
    """

    def __init__(self, scale: int, d: int = 56, s: int = 12, m: int = 4) -> None:
        super().__init__()
        middle: list[nn.Module] = [conv(d, s, 1), nn.PReLU(s)]
        for _ in range(m):
            middle += [conv(s, s), nn.PReLU(s)]
        self.first_part = nn.Sequential(conv(1, d, 5), nn.PReLU(d))
        self.mid_part = nn.Sequential(*middle, conv(s, d, 1), nn.PReLU(d))
        self.last_part = nn.ConvTranspose2d(d, 1, KERNEL - 1 + scale, stride=scale, padding=(KERNEL - 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) to (N, 1, scale*H, scale*W)."""
        out: Tensor = self.last_part(self.mid_part(self.first_part(x)))
        return out
