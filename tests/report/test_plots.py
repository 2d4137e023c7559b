"""The drawings show the figures they are given: axes, bars, clip lines, shares, and how numbers are written."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srq_hw.report.axis import Axis, real, round_ticks, value_axis
from srq_hw.report.html import count, fixed, percent, small_share
from srq_hw.report.plots import clipped_share, clipping_plot, histogram_plot, shorten, tradeoff_plot


def layer(**changes: Any) -> dict[str, Any]:
    row = {"name": "conv", "lower": -1.0, "upper": 1.0, "data_min": -2.0, "data_max": 2.0, "fixed": False}
    return row | {"histogram": [1, 4, 4, 1]} | changes


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1, "1"), (-1.5, "−1.5"), (0.00392157, "0.003922"), (123.456, "123.5"), (12345.6, "12346"),
     (200.0, "200"), (1.5e-5, "1.500e−05"), (-3e7, "−3.000e+07"), (None, "–")],
)  # fmt: skip
def test_numbers_keep_four_digits(value: float | None, text: str):
    assert real(value) == text


def test_counts_shares_and_decimals():
    assert [count(value) for value in (0, 1234567, -1234, 38.5, None)] == [
        "0",
        "1\u202f234\u202f567",
        "−1\u202f234",
        "38.5",
        "–",
    ]
    shares = [percent(value) for value in (0.0, 0.5, 0.0004, 3.5, None)]
    assert shares == ["0.0\u202f%", "50.0\u202f%", "< 0.1\u202f%", "350.0\u202f%", "–"]
    assert [small_share(value) for value in (0.0, 0.0123, 3.4e-5, None)] == [
        "0.00\u202f%",
        "1.23\u202f%",
        "34\u202fppm",
        "–",
    ]
    assert [fixed(value) for value in (36.805, -1.0, None)] == ["36.80", "−1.00", "–"]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low: float, span: float):
    ticks = round_ticks(low, low + span)
    slack = 1e-6 * (span + abs(low))
    assert 2 <= len(ticks) <= 8
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-3)


def test_a_linear_axis_and_one_for_very_different_layers():
    axis = Axis(-1.0, 3.0, 100.0, 0.0)
    assert [axis(value) for value in (-1, 0, 1, 3)] == [100.0, 75.0, 50.0, 0.0]
    assert value_axis([-4, 5], [4, 5, 3], 0, 1).knee == 0
    wide = value_axis([-0.1, 1000], [0.1, 0.2, 1000], 300, 0)
    assert wide.knee > 0
    places = [wide(value) for value in (-0.1, 0, 0.1, 1, 10, 100, 1000)]
    assert places == sorted(places, reverse=True) and len(set(places)) == len(places)
    assert 0.0 in wide.ticks() and 100.0 in wide.ticks()


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, 0.2),  # the outer bins
        ({"lower": -0.5, "upper": 0.5}, 0.6),  # half of each inner bin as well
        ({"lower": -2.0, "upper": 2.0}, 0.0),
        ({"lower": 0.0, "upper": 1.0}, 0.6),
        ({"lower": 3.0, "upper": 4.0}, 1.0),
        ({"data_min": 0.5, "data_max": 0.5}, 0.0),
        ({"data_min": 1.5, "data_max": 1.5}, 1.0),
        ({"histogram": []}, None),
        ({"histogram": [0, 0]}, None),
    ],
)
def test_the_clipped_share(changes: dict[str, Any], share: float | None):
    found = clipped_share(layer(**changes))
    assert found == share if share is None else found == pytest.approx(share)


def test_the_clipping_plot_puts_bounds_and_data_in_place():
    rows = [layer(name="image", fixed=True, upper=255.0), layer(name="a"), layer(name="b", lower=0.0, upper=2.0)]
    text = str(clipping_plot(rows))
    assert "image" not in text and text.count("<rect") == 2
    assert "a: keeps −1 to 1, data −2 to 2" in text and "b: keeps 0 to 2, data −2 to 2" in text
    upper, lower = (
        [tuple(map(float, point.split(","))) for point in line.split()]
        for line in re.findall(r'<polyline points="([^"]+)"', text)
    )
    assert upper[0][1] > upper[1][1]  # b keeps more; y grows downwards
    assert lower[0][1] > lower[1][1]
    assert [x for x, _ in upper] == [x for x, _ in lower]
    middle = (upper[0][1] + lower[0][1]) / 2  # a's bounds are symmetric about 0, where b's lower bound is
    assert middle == pytest.approx(lower[1][1], abs=0.11)
    boxes = re.findall(r'<rect x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)" class="band"', text)
    assert boxes[0] == boxes[1]
    assert float(boxes[0][1]) == pytest.approx(2 * (lower[0][1] - upper[0][1]), abs=0.3)
    assert str(clipping_plot(rows[:1])) == "" and str(clipping_plot([])) == ""


def test_the_histogram_tells_kept_from_clipped():
    text = str(histogram_plot(layer()))
    kept = re.search(r'<path d="([^"]+)" class="kept"', text)
    cut = re.search(r'<path d="([^"]+)" class="cut"', text)
    assert kept is not None and cut is not None
    assert kept[1].count("M") == 2 and cut[1].count("M") == 2
    tops = [float(value) for value in re.findall(r"V([\d.]+)H", kept[1] + cut[1])]
    assert tops[0] == tops[1] < tops[2] == tops[3]
    everything = str(histogram_plot(layer(lower=-2.0, upper=2.0)))
    assert 'class="cut"' not in everything


def test_many_bins_are_joined_without_moving():
    counts = [0] * 130
    counts[-1] = 5
    text = str(histogram_plot(layer(histogram=counts, lower=-2.0, upper=2.0)))
    bars = re.findall(r"M([\d.]+) [\d.]+V[\d.]+H([\d.]+)V", text)
    width = 236 / 1.04  # of the data's range; the rest is the margin
    assert len(bars) == 1
    assert float(bars[0][1]) == pytest.approx(2 + 236 - 236 * 0.02 / 1.04, abs=0.2)  # ends at data_max
    assert float(bars[0][1]) - float(bars[0][0]) == pytest.approx(width / 130, abs=0.2)  # 130 = 43 * 3 + 1


def test_long_names_lose_their_middle():
    assert shorten("short", 20) == "short"
    assert shorten("body.0.block.conv1.relu.quant", 20) == "body.0.bl…relu.quant"
    assert len(shorten("x" * 500, 20)) == 20


def folding(fps: float, **shares: float) -> dict[str, Any]:
    return {"fps": fps, "bottleneck": "conv<1>", "shares": {"lut": 0.1, "dsp": 0.2, "uram": 0.0} | shares}


NAMES = {"lut": "LUT", "dsp": "DSP", "uram": "URAM"}


def test_a_trade_off_has_a_line_per_resource_in_use_and_its_figures_as_text():
    rows = [folding(10.0), folding(100.0, lut=0.4, dsp=0.9), folding(1000.0, dsp=9.0)]
    text = str(tradeoff_plot(rows, 20.0, 0.8, NAMES))
    lines = re.findall(r'<polyline points="([^"]+)" class="trade (\w+)"', text)
    assert [key for _, key in lines] == ["lut", "dsp"]  # no UltraRAM is used, and nine devices are not drawn
    points = [[float(n) for n in pair.split(",")] for pair in lines[1][0].split()]
    assert len(points) == 2 and points[0][0] < points[1][0] and points[0][1] > points[1][1]
    assert "100 frames/s: DSP 90.0 %, slowest conv&lt;1&gt;" in text and "this design" in text
    assert ">50<" in text and ">100<" in text and ">100 %<" in text


def test_a_trade_off_of_one_folding_is_no_drawing():
    assert tradeoff_plot([folding(10.0), folding(20.0, lut=2.0)], 10.0, 0.8, NAMES) == ""


def test_a_design_beside_the_curve_is_on_the_drawing():
    text = str(tradeoff_plot([folding(10.0), folding(20.0)], 40.0, 0.8, NAMES))
    here = re.search(r'<line x1="([\d.]+)" y1="[\d.]+" x2="\1" y2="[\d.]+" class="chosen"', text)
    right = max(float(x) for x in re.findall(r'cx="([\d.]+)"', text))
    assert here is not None and right < float(here[1]) <= 960
