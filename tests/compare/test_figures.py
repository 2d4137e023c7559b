"""What the figures show, by the numbers they are drawn from, and that they repeat byte for byte."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srq_hw.compare import crops
from srq_hw.compare.clipping_figure import clipping_figure, clipping_lines
from srq_hw.compare.crops import CROP_SIDE, ZOOM, Version, sheet, window
from srq_hw.compare.figures import most_different
from srq_hw.evaluate.metrics import luma

from .conftest import picture


def record(rows: list[tuple[str, int, float, float, float, float]], equalized: bool = False) -> dict[str, Any]:
    keys = ("layer", "bits", "lower", "upper", "data_min", "data_max")
    ranges = [dict(zip(keys, row, strict=True), name=f"{row[0]}_quant", signed=True) for row in rows]
    return {"ranges": ranges, "equalized": equalized}


PLAIN = record([("a", 4, -8.0, 7.0, -4.0, 10.0), ("b", 4, 0.0, 3.0, 0.0, 6.0)])
EQUAL = record([("a", 4, -1.0, 1.0, -2.0, 4.0), ("b", 4, 0.0, 5.0, 0.0, 10.0)], equalized=True)


def test_kept_bounds() -> None:
    layers, data, lines = clipping_lines({"plain": PLAIN, "equal": EQUAL})
    assert layers == ["a", "b"] and data == [(-4.0, 10.0), (0.0, 6.0)]
    assert lines["plain"] == [(-4.0, 7.0), (0.0, 3.0)]  # a lower bound beyond the data cuts nothing
    assert lines["equal"] == [(-2.0, 2.5), (0.0, 3.0)]  # half of its minimum, a quarter and half of its maxima


def test_the_basis_is_a_network_as_it_is() -> None:
    _, data, lines = clipping_lines({"equal": EQUAL, "plain": PLAIN})
    assert data == [(-4.0, 10.0), (0.0, 6.0)] and lines["equal"][0] == (-2.0, 2.5)
    _, data, lines = clipping_lines({"equal": EQUAL})
    assert data[0] == (-2.0, 4.0) and lines["equal"][0] == (-1.0, 1.0)


def test_the_narrower_of_two_quantizers_counts() -> None:
    both = record([("a", 16, -4.0, 10.0, -4.0, 10.0), ("a", 4, -2.0, 2.0, -4.0, 10.0)])
    assert clipping_lines({"x": both})[2]["x"] == [(-2.0, 2.0)]
    assert clipping_lines({"plain": PLAIN, "x": both})[2]["x"] == [(-2.0, 2.0), None]


def test_figure_repeats() -> None:
    hostile = record([("$x_$<&", 4, -8.0, 7.0, -4.0, 10.0), *[(f"l{i}", 4, 0.0, 3.0, 0.0, 6e3) for i in range(30)]])
    panels = {"W8A8": {"plain": PLAIN, "equal": EQUAL}, "W4A4": {"a<b>$": hostile}}
    svg, png = clipping_figure("net_$1", panels)
    assert (svg, png) == clipping_figure("net_$1", panels)
    text = svg.decode()
    assert "W4A4" in text and "equal (rescaled)" in text and "a&lt;b&gt;$" in text and "net_$1" in text
    assert b"dc:date" not in svg
    assert Image.open(io.BytesIO(png)).size[0] > 1000


def test_the_image_where_methods_differ_most() -> None:
    scores = {
        "W8A8": {"A": [{"float": 30.0, "x": 29.0, "y": 29.1}, {"float": 33.0, "x": 30.5, "y": None}]},
        "W4A4": {"A": [{"float": 30.0, "x": 20.0, "y": 23.0}, {"float": 33.0, "x": 25.0, "y": 28.0}]},
    }
    assert most_different(scores) == ("W4A4", "A", 0)  # the first of equals
    assert most_different({"W8A8": scores["W8A8"]}) == ("W8A8", "A", 1)  # one method: against float
    assert most_different({"W8A8": {"A": [{"float": 1.0, "x": None}]}}) is None


def test_window_finds_the_difference() -> None:
    base = picture(1, 150, 200)
    one, two = base.copy(), base.copy()
    one[100:120, 130:150] ^= 64
    two[2:5, 2:5] ^= 16
    top, left, height, width = window(base, [one, two])
    assert (height, width) == (CROP_SIDE, CROP_SIDE)
    assert top <= 100 and left <= 130 and top + height >= 120 and left + width >= 150
    sums = {}
    span = np.rint(np.ptp(np.stack([luma(base), luma(one), luma(two)]), axis=0) * 256)
    for y in range(0, 150 - CROP_SIDE + 1, crops.STRIDE):
        for x in range(0, 200 - CROP_SIDE + 1, crops.STRIDE):
            sums[y, x] = span[y : y + CROP_SIDE, x : x + CROP_SIDE].sum()
    assert (top, left) == max(sums, key=lambda place: sums[place])


def test_window_of_a_small_image() -> None:
    base = picture(1, 40, 100)
    assert window(base, [base])[2:] == (40, CROP_SIDE)


@pytest.mark.parametrize("count", [3, 7])
def test_sheet_shows_the_pixels(count: int) -> None:
    """Every crop stands in the sheet as it is, each pixel ZOOM pixels wide."""
    versions = [Version(f"v{n}", picture(n, 90, 120), "30.00 / 0.9") for n in range(count)]
    box = (8, 24, CROP_SIDE, CROP_SIDE)
    found = sheet("A title", versions, box)
    assert np.array_equal(found, sheet("A title", versions, box))
    for version in versions:
        crop = version.picture[8:72, 24:88].repeat(ZOOM, 0).repeat(ZOOM, 1)
        assert contains(found, crop)


def contains(whole: np.ndarray, part: np.ndarray) -> bool:
    height, width = part.shape[:2]
    starts = np.argwhere((whole[: -height + 1, : -width + 1] == part[0, 0]).all(-1))
    return any(np.array_equal(whole[y : y + height, x : x + width], part) for y, x in starts)
