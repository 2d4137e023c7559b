"""PSNR and SSIM on luma, as the super-resolution field reports them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from srq_hw.errors import InputError

Float64 = NDArray[np.float64]

# ITU-R BT.601 studio swing: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255 for R, G, B in 0..255.
_LUMA = np.array([65.481, 128.553, 24.966]) / 255.0
_LUMA_OFFSET = 16.0
_PEAK = 255.0

SSIM_WINDOW = 11  # pixels a side


def least_side(scale: int) -> int:
    """Smallest side of an image that can be scored at a scale: SSIM's window behind the border, a multiple of it."""
    return -(-(SSIM_WINDOW + 2 * scale) // scale) * scale


def rgb_to_y(image: NDArray[np.uint8]) -> Float64:
    """Luma (H, W) in 16..235, float64 and not rounded, of a uint8 RGB image (H, W, 3)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"rgb_to_y wants a uint8 image (H, W, 3), got {image.dtype} {image.shape}")
    return image.astype(np.float64) @ _LUMA + _LUMA_OFFSET


def luma(image: NDArray[np.uint8]) -> Float64:
    """rgb_to_y of an RGB image (H, W, 3); a uint8 image (H, W, 1) is luma already."""
    if image.ndim == 3 and image.shape[2] == 1 and image.dtype == np.uint8:
        return image[..., 0].astype(np.float64)
    return rgb_to_y(image)


def psnr_y(a: NDArray[np.uint8], b: NDArray[np.uint8], border: int) -> float:
    """PSNR in dB (peak 255) between the lumas of two images, `border` pixels cropped; inf if they are equal.

    a, b: uint8 (H, W, 3) RGB or (H, W, 1) luma. Raises InputError if they are too
    small for the border, ValueError if their shapes differ.
    """
    y_a, y_b = _cropped_lumas(a, b, border)
    mean_square = float(np.mean((y_a - y_b) ** 2))
    return math.inf if mean_square == 0.0 else 10.0 * math.log10(_PEAK**2 / mean_square)


def ssim_y(a: NDArray[np.uint8], b: NDArray[np.uint8], border: int) -> float:
    """SSIM between the lumas of two images (RGB or luma, as psnr_y), `border` pixels cropped.

    Wang et al. 2004 as its MATLAB script computes it: Gaussian window 11x11, sigma 1.5, K1 0.01, K2 0.03, L 255,
    population covariance, mean over the pixels whose whole window lies inside the image. Raises as psnr_y does.
    """
    y_a, y_b = _cropped_lumas(a, b, border)
    if min(y_a.shape) < SSIM_WINDOW:
        side = SSIM_WINDOW + 2 * border
        raise InputError(
            f"an image of {a.shape[1]}x{a.shape[0]} pixels is too small for SSIM: its window and the border "
            f"of {border} need at least {side}x{side}, use a larger image"
        )
    return float(
        structural_similarity(
            y_a, y_b, data_range=_PEAK, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, K1=0.01, K2=0.03
        )
    )


def _cropped_lumas(a: NDArray[np.uint8], b: NDArray[np.uint8], border: int) -> tuple[Float64, Float64]:
    if a.shape[:2] != b.shape[:2]:
        raise ValueError(f"images to compare differ in shape: {a.shape} and {b.shape}")
    if border < 0:
        raise ValueError(f"border {border} is negative")
    if min(a.shape[:2]) <= 2 * border:
        raise InputError(
            f"an image of {a.shape[1]}x{a.shape[0]} pixels cannot be scored: with a border of {border} it must be "
            f"more than {2 * border}x{2 * border}, use a larger image"
        )
    inside = (slice(border, a.shape[0] - border), slice(border, a.shape[1] - border))
    return luma(a)[inside], luma(b)[inside]
