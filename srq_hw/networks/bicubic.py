"""Bicubic enlargement as a layer: what some networks add their result to."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: source pixels on either side of the nearest one that an output pixel may see
REACH = 2


def keys_kernel(x: Fraction) -> Fraction:
    """Cubic convolution kernel with a = -1/2 (Keys 1981)."""
    a = abs(x)
    if a <= 1:
        return Fraction(3, 2) * a**3 - Fraction(5, 2) * a**2 + 1
    if a < 2:
        return Fraction(-1, 2) * a**3 + Fraction(5, 2) * a**2 - 4 * a + 2
    return Fraction(0)


def bicubic_taps(factor: int) -> tuple[tuple[Fraction, ...], ...]:
    """Exact weights of one axis: row p holds those of output pixel factor*i + p for source pixels i-2 .. i+2.

    Pixel centres are half way (output pixel j lies at (j + 1/2) / factor - 1/2). Each row sums to 1. The common
    denominator is 128 at factor 2, 54 at 3, 1024 at 4. ValueError for a factor under 2.
    """
    if factor < 2:
        raise ValueError(f"bicubic enlargement by {factor}; a whole factor from 2 on is possible")
    centres = [Fraction(2 * p + 1, 2 * factor) - Fraction(1, 2) for p in range(factor)]
    return tuple(tuple(keys_kernel(centre - tap) for tap in range(-REACH, REACH + 1)) for centre in centres)


class BicubicUpsample(nn.Module):
    """Enlarges by a whole factor with Keys' kernel (a = -1/2), edge pixels repeated outwards, nothing rounded.

    (N, C, H, W) to (N, C, factor*H, factor*W). Inside the image it agrees with MATLAB's imresize before rounding;
    within `factor` pixels of the edge MATLAB mirrors instead. The layer multiplies by whole numbers (`numerators`,
    (factor**2, 1, 5, 5)) and divides by `denominator`, so that no tap is rounded, whatever the floating-point type.
    """

    numerators: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        taps = bicubic_taps(factor)
        common = lcm(*(tap.denominator for row in taps for tap in row))
        rows = torch.tensor([[int(tap * common) for tap in row] for row in taps], dtype=torch.float32)
        kernel = rows[:, None, :, None] * rows[None, :, None, :]  # (phase y, phase x, tap y, tap x)
        self.factor = factor
        self.denominator = float(common**2)
        self.register_buffer("numerators", kernel.reshape(factor**2, 1, *kernel.shape[2:]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, factor*H, factor*W)."""
        channels = x.shape[1]
        padded = F.pad(x, (REACH, REACH, REACH, REACH), mode="replicate")
        phases = F.conv2d(padded, self.numerators.repeat(channels, 1, 1, 1), groups=channels) / self.denominator
        return F.pixel_shuffle(phases, self.factor)
