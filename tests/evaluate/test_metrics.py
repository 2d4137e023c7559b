"""Luma, PSNR and SSIM against values worked out by hand and a direct evaluation of the formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from srq_hw.errors import InputError
from srq_hw.evaluate.metrics import psnr_y, rgb_to_y, ssim_y


def random_pair(seed: int, shape: tuple[int, int] = (24, 30)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    b = np.clip(a.astype(np.int64) + rng.integers(-20, 21, a.shape), 0, 255).astype(np.uint8)
    return a, b


@pytest.mark.parametrize(
    ("rgb", "luma"),
    [
        ((0, 0, 0), 16.0),
        ((255, 255, 255), 235.0),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
        ((10, 20, 30), 16 + (654.81 + 2571.06 + 748.98) / 255),
    ],
)
def test_luma_of_known_colours(rgb: tuple[int, int, int], luma: float) -> None:
    image = np.array([[rgb]], dtype=np.uint8)
    assert rgb_to_y(image)[0, 0] == pytest.approx(luma, abs=1e-12)


def test_psnr_of_a_known_difference() -> None:
    a = np.full((10, 12, 3), 100, dtype=np.uint8)
    b = np.full((10, 12, 3), 110, dtype=np.uint8)
    difference = 10 * 219 / 255
    assert psnr_y(a, b, border=2) == pytest.approx(20 * math.log10(255 / difference), abs=1e-10)


def test_psnr_ignores_exactly_the_border() -> None:
    a = np.zeros((10, 12, 3), dtype=np.uint8)
    b = a.copy()
    b[:2], b[-2:], b[:, :2], b[:, -2:] = 9, 9, 9, 9
    assert psnr_y(a, b, border=2) == math.inf
    assert psnr_y(a, b, border=1) < math.inf


def test_ssim_equals_the_formula_summed_window_by_window() -> None:
    a, b = random_pair(5)
    border = 2
    y_a, y_b = (rgb_to_y(image)[border:-border, border:-border] for image in (a, b))
    axis = np.arange(-5, 6)
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(y_a.shape[0] - 10):
        for left in range(y_a.shape[1] - 10):
            p, q = (y[top : top + 11, left : left + 11] for y in (y_a, y_b))
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * p * p).sum() - mean_p**2, (window * q * q).sum() - mean_q**2
            cov = (window * p * q).sum() - mean_p * mean_q
            values.append(
                (2 * mean_p * mean_q + c1) * (2 * cov + c2) / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))
            )
    assert ssim_y(a, b, border) == pytest.approx(float(np.mean(values)), abs=1e-10)


def test_equal_images() -> None:
    a, _ = random_pair(6)
    assert psnr_y(a, a, border=0) == math.inf
    assert ssim_y(a, a, border=0) == 1.0


def test_metrics_are_symmetric() -> None:
    a, b = random_pair(8)
    assert psnr_y(a, b, 2) == psnr_y(b, a, 2)
    assert ssim_y(a, b, 2) == pytest.approx(ssim_y(b, a, 2), abs=1e-14)


def test_refuses_what_cannot_be_compared() -> None:
    a, b = random_pair(9)
    with pytest.raises(ValueError, match="differ in shape"):
        psnr_y(a, b[:-1], 2)
    with pytest.raises(InputError, match=r"30x24 pixels cannot be scored: .*more than 24x24"):
        psnr_y(a, b, 12)
    with pytest.raises(ValueError, match="rgb_to_y wants"):
        rgb_to_y(a[..., 0])
    with pytest.raises(ValueError, match="rgb_to_y wants"):
        rgb_to_y(a.astype(np.float64))
    assert ssim_y(a, b, 6) < 1
    with pytest.raises(InputError, match=r"30x24 pixels is too small for SSIM: .*at least 25x25"):
        ssim_y(a, b, 7)
