"""What is said about calibration images: counted by hand, and against the patches that calibration really draws."""

from __future__ import annotations

import numpy as np
import pytest

from srq_hw.evaluate.material import different_patches, image_notes, in_both, shared_warnings
from srq_hw.quantize.calibrate import sample_patches
from srq_hw.quantize.recipe import load_recipe


@pytest.mark.parametrize(
    ("sizes", "side", "count", "wanted"),
    [
        ([(48, 48)], 48, 32, 1),
        ([(49, 50)], 48, 32, 6),
        ([(100, 100)], 48, 32, 32),
        ([(20, 90)], 48, 64, 43),  # the whole height, 43 places along the width
        ([(20, 20), (48, 48), (90, 90)], 48, 32, 1 + 1 + 10),  # 11, 11 and 10 draws
        ([(48, 48)] * 40, 48, 32, 32),
    ],
)
def test_how_many_patches_can_differ(sizes: list[tuple[int, int]], side: int, count: int, wanted: int) -> None:
    assert different_patches(sizes, side, count) == wanted


def test_no_draw_gives_more() -> None:
    """Calibration never finds more different patches than that, and with enough draws no fewer."""
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((17, 16), (9, 16), (16, 18))]
    recipe = load_recipe("minmax")
    patches = recipe.patches.model_copy(update={"count": 300, "size": 16})
    drawn = sample_patches(images, recipe.model_copy(update={"patches": patches}))
    found = {(patch.shape, patch.tobytes()) for patch in drawn}
    assert len(found) == different_patches([image.shape[:2] for image in images], 16, 300) == 2 + 1 + 3


def test_notes() -> None:
    usual = [(60, 60)] * 4
    assert image_notes("X", usual, 48, 32) == []
    (one,) = image_notes("X", [(60, 90)], 48, 32)
    assert one.startswith("calibration: X holds one image; all 32 patches are cut from it, so these are the ranges")
    assert one.endswith("use 32 or more")
    one, small = image_notes("X", [(40, 40)], 48, 32)
    assert "(no more than 1 can differ)" in one and "smaller than a patch of 48x48" in small
    (few,) = image_notes("X", [(48, 48)] * 3, 48, 32)
    assert "X holds 3 images, from which 32 patches of 48x48" in few and "(no more than 3 can differ)" in few
    (small,) = image_notes("X", [(60, 60)] * 31 + [(47, 50)], 48, 32, " at x2")
    assert "smallest has 50x47 at x2" in small


def test_shared() -> None:
    tests = [(f"t{number}", [str(number), f"low{number}"]) for number in range(9)]
    assert in_both({"2", "low7", "x"}, tests) == ["t2", "t7"]
    assert shared_warnings([]) == []
    (one,) = shared_warnings(["t2"])
    assert one.startswith("1 test image is also a calibration image (t2): figures on them")
    (many,) = shared_warnings(in_both({str(number) for number in range(9)}, tests))
    assert many.startswith("9 test images are also calibration images (t0, t1, t2, t3, t4 and 4 more)")
