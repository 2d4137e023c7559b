"""Bicubic resizing that agrees with MATLAB's `imresize(image, scale)` on uint8 images.

The field scores super-resolution against low-resolution images made by MATLAB: cubic kernel with a = -0.5 (Keys 1981),
widened by 1/scale when shrinking (antialiasing), image mirrored with the edge pixel repeated, one axis after the other
(rows first) and, because the image is uint8, rounded and clipped to 0..255 after each of the two passes.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

UInt8Image = NDArray[np.uint8]

_KERNEL_WIDTH = 4


def downscale(image: UInt8Image, factor: int) -> UInt8Image:
    """Shrink a uint8 image (H, W) or (H, W, C) by an integer factor; the result has ceil(H/factor) rows."""
    return imresize(image, Fraction(1, factor))


def upscale(image: UInt8Image, factor: int) -> UInt8Image:
    """Enlarge a uint8 image (H, W) or (H, W, C) by an integer factor."""
    return imresize(image, Fraction(factor))


def downscale_exact(image: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Shrink a float64 image (H, W) or (H, W, C) as `downscale` does, but without any rounding."""
    rows = _weighted_rows(image, Fraction(1, factor))
    return np.ascontiguousarray(np.swapaxes(_weighted_rows(np.swapaxes(rows, 0, 1), Fraction(1, factor)), 0, 1))


def imresize(image: UInt8Image, scale: Fraction) -> UInt8Image:
    """Resize both axes of a uint8 image (H, W) or (H, W, C) by `scale`; output length is ceil(length * scale).

    Raises ValueError for another type or rank, or a scale that is not positive.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"imresize wants a uint8 image (H, W) or (H, W, C), got {image.dtype} {image.shape}")
    if scale <= 0:
        raise ValueError(f"imresize wants a positive scale, got {scale}")
    return _resize_columns(_resize_rows(image, scale), scale)


def _resize_columns(image: UInt8Image, scale: Fraction) -> UInt8Image:
    return np.ascontiguousarray(np.swapaxes(_resize_rows(np.swapaxes(image, 0, 1), scale), 0, 1))


def _resize_rows(image: UInt8Image, scale: Fraction) -> UInt8Image:
    return np.clip(np.floor(_weighted_rows(image, scale) + 0.5), 0, 255).astype(np.uint8)


def _weighted_rows(image: UInt8Image | NDArray[np.float64], scale: Fraction) -> NDArray[np.float64]:
    weights, indices = _contributions(image.shape[0], scale)
    total = np.zeros((weights.shape[0], *image.shape[1:]), dtype=np.float64)
    per_row = (slice(None), *(np.newaxis,) * (image.ndim - 1))
    for tap in range(weights.shape[1]):
        total += weights[:, tap][per_row] * image[indices[:, tap]]
    return total


def _contributions(length: int, scale: Fraction) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Weights and source positions, both (output length, taps); the weights of an output pixel sum to 1."""
    out_length = -(-length * scale.numerator // scale.denominator)
    ratio = float(scale)
    shrink = min(ratio, 1.0)
    width = _KERNEL_WIDTH / shrink
    # Centre of output pixel i in source coordinates, pixel centres at whole numbers from 0.
    centre = (np.arange(out_length) + 0.5) / ratio - 0.5
    left = np.floor(centre - width / 2).astype(np.int64)
    positions = left[:, None] + np.arange(int(np.ceil(width)) + 2)
    weights = _cubic(shrink * (centre[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    used = np.any(weights != 0.0, axis=0)
    return weights[:, used], _mirror(positions[:, used], length)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel, a = -0.5."""
    a = np.abs(x)
    inner = (1.5 * a - 2.5) * a * a + 1.0
    outer = ((-0.5 * a + 2.5) * a - 4.0) * a + 2.0
    return np.where(a <= 1, inner, np.where(a <= 2, outer, 0.0))


def _mirror(positions: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Fold positions outside 0..length-1 back: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ..."""
    folded = np.mod(positions, 2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)
