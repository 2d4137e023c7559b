"""Image folders: identity by pixels, the limit, what is too small, and images that calibrate and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srq_hw.compare.sets import calibration_notes, calibration_set, find_sets, in_both, one_pair, pairs, read_set
from srq_hw.errors import InputError
from srq_hw.evaluate.datasets import make_pair
from srq_hw.evaluate.images import read_rgb, write_png

from .conftest import picture


def test_digests_are_of_pixels(images: Path, tmp_path: Path) -> None:
    """Another name and format with the same pixels is the same image; one changed pixel is another."""
    image = read_rgb(images / "A" / "p1.png")
    Image.fromarray(image).save(tmp_path / "z.bmp")
    image[0, 0, 0] ^= 1
    write_png(tmp_path / "y.png", image)
    other, same = read_set("copy", tmp_path).digests
    first = read_set("A", images / "A").digests[0]
    assert same == first != other


def test_a_set_knows_names_and_order(images: Path) -> None:
    found = read_set("A", images / "A")
    assert [path.name for path in found.files] == ["p1.png", "p2.png"]
    assert (found.pixels, found.smallest) == (41 * 52 + 42 * 52, (41, 52))
    assert read_set("A", images / "A", 1).sha256 != found.sha256
    assert len(read_set("A", images / "A", 1).files) == 1


def test_pairs_are_those_of_the_protocol(images: Path) -> None:
    found = list(pairs(read_set("A", images / "A"), 3))
    wanted = make_pair("p1", read_rgb(images / "A" / "p1.png"), 3)
    assert [pair.name for pair in found] == ["p1", "p2"]
    assert np.array_equal(found[0].lr, wanted.lr) and np.array_equal(found[0].hr, wanted.hr)
    assert found[0].hr.shape == (39, 51, 3)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(1, 40, 40))
    found = read_set("x", tmp_path)
    write_png(tmp_path / "a.png", picture(2, 40, 40))
    with pytest.raises(InputError, match="changed while the comparison ran"):
        one_pair(found, 0, 2)


def test_by_name_and_by_path(images: Path) -> None:
    found = find_sets(("A", str(images / "B")), images, None, [2])
    assert [item.name for item in found] == ["A", "B"]


def test_refused_sets(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"General10: no such folder \(did you mean 'General100'\?\)"):
        find_sets(("General10",), images, None, [2])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        find_sets(("empty",), tmp_path, None, [2])
    (tmp_path / "A").mkdir()
    write_png(tmp_path / "A" / "x.png", picture(1, 40, 40))
    with pytest.raises(InputError, match="two folders are called A"):
        find_sets(("A", str(tmp_path / "A")), images, None, [2])


def test_too_small_to_score(tmp_path: Path) -> None:
    """SSIM needs 11 pixels inside a border of 4 at x4: 19, so 20 as a multiple of the factor."""
    (tmp_path / "tiny").mkdir()
    write_png(tmp_path / "tiny" / "x.png", picture(1, 40, 40)[:19, :30])
    with pytest.raises(InputError, match=r"30x19 pixels; at least 20x20"):
        find_sets(("tiny",), tmp_path, None, [2, 4])
    assert find_sets(("tiny",), tmp_path, None, [2])


@pytest.mark.parametrize("low", [False, True])
def test_images_in_both(images: Path, tmp_path: Path, low: bool) -> None:
    """By content; of low-resolution calibration images also where they are a test image made smaller."""
    tests = find_sets(("A", "B"), images, None, [2])
    original = read_rgb(images / "A" / "p2.png")
    write_png(tmp_path / "renamed.png", make_pair("", original, 2).lr if low else original)
    write_png(tmp_path / "other.png", picture(99, 40, 40))
    assert in_both(calibration_set(tmp_path, low), tests, [2]) == ["A/p2"]
    assert in_both(calibration_set(images / "General100", low), tests, [2]) == []


def test_notes(images: Path) -> None:
    one = calibration_set(images / "B", False)
    notes = calibration_notes(one, 2, 16, 32)
    assert len(notes) == 1 and "holds one image; all 32 patches" in notes[0] and "use 32 or more" in notes[0]
    assert calibration_notes(calibration_set(images / "General100", False), 2, 16, 2) == []
    small = calibration_notes(calibration_set(images / "General100", False), 4, 16, 2)
    assert len(small) == 1 and "smaller than a patch of 16x16" in small[0] and "13x12 at x4" in small[0]


def test_the_digest_says_whether_low(images: Path) -> None:
    assert calibration_set(images / "B", False).sha256 != calibration_set(images / "B", True).sha256
