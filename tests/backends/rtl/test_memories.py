"""Memory files: lane order, two's complement, mixed widths, what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from srq_hw.backends.rtl.memories import conv_bias, conv_weights, hex_words, offsets, requant_entries, threshold_steps


def test_lane_0_is_lowest_and_the_last_line_ends():
    assert hex_words(np.array([[1, -1], [-8, 7]]), 4) == "f1\n78\n"
    assert hex_words(np.array([[1, -1]]), [3, 5]) == "f9\n"  # 0b11111_001


@pytest.mark.parametrize(("value", "bits"), [(16, 4), (-9, 4), (2, 1)])
def test_a_value_that_does_not_fit_is_refused(value: int, bits: int):
    with pytest.raises(ValueError, match="does not fit"):
        hex_words(np.array([[value]]), bits)


def test_conv_files():
    weight = np.arange(8).reshape(2, 2, 1, 2)  # O, I, KH, KW
    assert conv_weights(weight, pe=2, simd=1, bits=4) == "40\n62\n51\n73\n"
    assert conv_weights(weight, pe=1, simd=2, bits=4) == "20\n31\n64\n75\n"
    assert conv_weights(weight[:, :1], pe=2, simd=2, bits=4, depthwise=True) == "40\n51\n"
    assert conv_bias(np.array([1, -1]), pe=2, bits=8) == "ff01\n"
    with pytest.raises(ValueError, match="does not divide"):
        conv_weights(weight, pe=2, simd=3, bits=4)


def test_offsets():
    assert offsets(np.array([1, -1, 7, -128]), lanes=2, bits=8) == "ff01\n8007\n"
    with pytest.raises(ValueError, match="does not fit"):
        offsets(np.array([1, -129]), lanes=2, bits=8)


def test_requant_entries_leave_out_what_is_constant():
    multiplier, shift, slope = np.array([3, 5]), np.array([9, 8]), np.array([-1, 2])
    assert requant_entries(multiplier, shift, None, 1, 4, 8, 9) == "07\n0a\n"  # {M, S - 8}
    assert requant_entries(multiplier, shift * 0 + 8, slope, 2, 4, 8, 8) == "25f3\n"  # {-M, M} twice, no S
    assert requant_entries(multiplier, shift * 0 + 8, None, 2, 0, 8, 8) == ""


def test_threshold_files_hold_the_search_tree():
    levels = np.array([[10, 20, 30], [11, 21, 31]])
    assert threshold_steps(levels, 2, 8, "t") == {
        "t_0_000.hex": "14\n",
        "t_0_001.hex": "15\n",
        "t_1_000.hex": "0a\n1e\n",
        "t_1_001.hex": "0b\n1f\n",
    }
    with pytest.raises(ValueError, match="power of two"):
        threshold_steps(levels[:, :2], 1, 8, "t")
