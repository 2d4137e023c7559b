"""Pairs of a folder, and the demonstration images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srq_hw.errors import InputError
from srq_hw.evaluate.datasets import iter_pairs, make_pair
from srq_hw.evaluate.demo import demo_calibration_images, demo_images
from srq_hw.evaluate.images import write_png
from srq_hw.evaluate.resize import downscale


@pytest.mark.parametrize(("scale", "size"), [(2, (18, 20)), (3, (18, 21)), (4, (16, 20))])
def test_pairs_are_cropped_at_right_and_bottom(tmp_path: Path, scale: int, size: tuple[int, int]) -> None:
    image = np.random.default_rng(2).integers(0, 256, (19, 21, 3), dtype=np.uint8)
    write_png(tmp_path / "b.png", image)
    write_png(tmp_path / "a.png", image[::-1])
    first, second = iter_pairs(tmp_path, scale)
    assert (first.name, second.name) == ("a", "b")
    assert second.hr.shape == (*size, 3)
    assert np.array_equal(second.hr, image[: size[0], : size[1]])
    assert np.array_equal(second.lr, downscale(image[: size[0], : size[1]], scale))
    assert tuple(side * scale for side in second.lr.shape[:2]) == size


def test_image_below_one_output_pixel_is_refused() -> None:
    with pytest.raises(InputError, match="tiny: 9x3 pixels; at least 4x4"):
        make_pair("tiny", np.zeros((3, 9, 3), dtype=np.uint8), 4)


def test_demonstration_images_are_there_and_disjoint() -> None:
    test, calibration = demo_images(), demo_calibration_images()
    assert len(test) == 2
    assert len(calibration) == 4
    assert len({image.rgb.tobytes() for image in test + calibration}) == 6
    for image in test + calibration:
        assert image.rgb.dtype == np.uint8
        assert image.rgb.ndim == 3
        assert image.rgb.std() > 20  # pictures, not flat fields
