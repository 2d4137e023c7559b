"""RGB pictures and networks that see luma only."""

from __future__ import annotations

import math

import numpy as np
import pytest

from srq_hw.errors import InputError
from srq_hw.evaluate.colour import network_view, picture_of, unrounded_luma
from srq_hw.evaluate.metrics import luma, psnr_y, rgb_to_y, ssim_y
from srq_hw.evaluate.resize import downscale, downscale_exact, upscale


def random_picture(height: int = 24, width: int = 20, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_view_of_known_colours() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    assert network_view(colours, 1)[0, :, 0].tolist() == [16, 235, 81, 145, 41]  # BT.601 studio swing
    assert network_view(colours, 3) is colours
    with pytest.raises(InputError, match="reads 4 channels"):
        network_view(colours, 4)


def test_a_grey_result_is_a_grey_picture() -> None:
    low = np.repeat(random_picture()[..., :1], 3, axis=2)
    wide = upscale(low, 2)
    found = picture_of(network_view(wide, 1), low)
    assert found.shape == wide.shape
    assert np.abs(found.astype(int) - wide).max() <= 1  # 219 levels of luma for 255 of grey


def test_luma_of_the_picture_is_the_result() -> None:
    low = np.clip(random_picture() // 2 + 64, 0, 255).astype(np.uint8)  # far from what clipping would change
    result = network_view(upscale(low, 2), 1)
    picture = picture_of(result, low)
    assert np.abs(rgb_to_y(picture) - result[..., 0]).max() <= 0.5


def test_three_channels_are_the_picture() -> None:
    image = random_picture()
    assert picture_of(image, image) is image
    with pytest.raises(InputError, match="gives 2 channels"):
        picture_of(image[..., :2], image)


def test_luma_is_scored_against_the_luma_of_a_picture() -> None:
    original = random_picture(40, 36)
    y = network_view(original, 1)
    assert np.array_equal(luma(y), y[..., 0])
    error = y[3:-3, 3:-3, 0] - rgb_to_y(original)[3:-3, 3:-3]
    assert psnr_y(y, original, 3) == pytest.approx(10 * math.log10(255**2 / np.mean(error**2)), abs=1e-12)
    assert psnr_y(y, original, 3) > 58  # rounding alone
    assert psnr_y(y, y, 3) == math.inf
    assert 0.999 < ssim_y(y, original, 3) < 1
    with pytest.raises(ValueError, match="differ in shape"):
        psnr_y(y[1:], original, 3)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_unrounded_shrinking_agrees_with_the_rounded_one(factor: int) -> None:
    image = random_picture(24, 36, factor)
    exact = downscale_exact(image.astype(np.float64), factor)
    # one rounding of at most 1/2 per pass, the first one spread by taps whose absolute values sum to less than 1.3
    assert np.abs(np.clip(exact, 0, 255) - downscale(image, factor)).max() <= 0.5 + 0.5 * 1.3
    grey = unrounded_luma(image, factor)
    assert grey.shape == (24 // factor, 36 // factor, 1)
    assert np.array_equal(grey[..., 0], downscale_exact(np.rint(rgb_to_y(image)), factor))
    constant = np.full((12, 12, 3), 77, np.uint8)
    assert np.allclose(unrounded_luma(constant, factor), np.rint(rgb_to_y(constant))[0, 0], atol=1e-12)
