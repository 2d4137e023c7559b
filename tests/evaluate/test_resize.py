"""imresize against an exact rational evaluation of MATLAB's definition, pixel by pixel."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from srq_hw.evaluate.images import list_images, read_rgb
from srq_hw.evaluate.metrics import psnr_y
from srq_hw.evaluate.resize import downscale, imresize, upscale


def cubic(x: Fraction) -> Fraction:
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    if x <= 2:
        return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2
    return Fraction(0)


def resize_line(line: list[int], scale: Fraction) -> list[int]:
    """One line of pixels, 1-based as in MATLAB's `contributions`, exact until the final rounding."""
    n = len(line)
    mirrored = line + line[::-1]
    shrink = min(scale, Fraction(1))
    width = 4 / shrink
    out = []
    for i in range(1, math.ceil(n * scale) + 1):
        u = i / scale + Fraction(1, 2) * (1 - 1 / scale)
        left = math.floor(u - width / 2)
        total = Fraction(0)
        weight_sum = Fraction(0)
        for position in range(left, left + math.ceil(width) + 2):
            weight = shrink * cubic(shrink * (u - position))
            total += weight * mirrored[(position - 1) % (2 * n)]
            weight_sum += weight
        value = total / weight_sum
        out.append(min(255, max(0, math.floor(value + Fraction(1, 2)))))
    return out


def slow_imresize(image: np.ndarray, scale: Fraction) -> np.ndarray:
    rows = np.array([resize_line(column, scale) for column in image.T.tolist()]).T
    return np.array([resize_line(row, scale) for row in rows.tolist()]).astype(np.uint8)


@pytest.mark.parametrize(
    "scale", [Fraction(1, 4), Fraction(1, 3), Fraction(1, 2), Fraction(2), Fraction(3), Fraction(4)]
)
@pytest.mark.parametrize("shape", [(12, 24), (13, 9), (8, 30)])
def test_equals_exact_definition(scale: Fraction, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(imresize(noise, scale), slow_imresize(noise, scale))
    black_and_white = (rng.integers(0, 2, shape) * 255).astype(np.uint8)
    assert np.array_equal(imresize(black_and_white, scale), slow_imresize(black_and_white, scale))


def test_step_edge_by_hand() -> None:
    # Taps at 0.25, 0.75, 1.25, 1.75 of the cubic, halved: 0.43359375, 0.11328125, -0.03515625, -0.01171875.
    step = np.repeat(np.array([[0, 200]], dtype=np.uint8), 8, axis=1)
    step = np.repeat(step, 8, axis=0)
    # The outer three taps of output pixel 3 lie right of the edge: 200 * (0.11328125 - 0.03515625 - 0.01171875) = 13.3.
    # Of pixel 2 only the outermost does: 200 * -0.01171875 < 0, clipped. Right of the edge: 200 - 13.3 and 200 + 2.3.
    assert downscale(step, 2)[0].tolist() == [0, 0, 0, 13, 187, 202, 200, 200]


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_constant_stays_constant(value: int) -> None:
    flat = np.full((15, 17, 3), value, dtype=np.uint8)
    for factor in (2, 3, 4):
        assert np.all(downscale(flat, factor) == value)
        assert np.all(upscale(flat, factor) == value)


def test_channels_are_independent_and_axes_keep_their_order() -> None:
    image = np.random.default_rng(3).integers(0, 256, (20, 14, 3), dtype=np.uint8)
    small = downscale(image, 2)
    assert small.shape == (10, 7, 3)
    assert small.flags["C_CONTIGUOUS"]
    for channel in range(3):
        assert np.array_equal(small[..., channel], downscale(image[..., channel], 2))


def test_unit_scale_changes_nothing() -> None:
    image = np.random.default_rng(4).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    assert np.array_equal(imresize(image, Fraction(1)), image)


@pytest.mark.parametrize(
    ("image", "scale"),
    [
        (np.zeros((4, 4), dtype=np.float32), Fraction(2)),
        (np.zeros((4,), dtype=np.uint8), Fraction(2)),
        (np.zeros((0, 4), dtype=np.uint8), Fraction(2)),
        (np.zeros((4, 4), dtype=np.uint8), Fraction(0)),
    ],
)
def test_refuses_wrong_use(image: np.ndarray, scale: Fraction) -> None:
    with pytest.raises(ValueError, match="imresize wants"):
        imresize(image, scale)


def mean_bicubic_psnr(folder: Path, scale: int) -> float:
    values = []
    for path in list_images(folder):
        image = read_rgb(path)
        hr = image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]
        values.append(psnr_y(upscale(downscale(hr, scale), scale), hr, border=scale))
    return float(np.mean(values))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "scale", "psnr"),
    [
        ("Set5", 2, 33.673),
        ("Set5", 4, 28.429),
        ("Set14", 2, 30.325),
        ("Set14", 4, 26.088),
        ("BSD100", 2, 29.560),
        ("BSD100", 4, 25.961),
    ],
)
def test_known_bicubic_figures(shared_data: Path, name: str, scale: int, psnr: float) -> None:
    assert round(mean_bicubic_psnr(shared_data / name, scale), 3) == psnr
