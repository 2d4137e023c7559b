"""Every number of the worked example in docs/arithmetic.md, recomputed."""

from __future__ import annotations

import numpy as np

from srq_hw.fixedpoint import dyadic, requantize, round_real, thresholds


def test_the_example_by_hand() -> None:
    assert dyadic(0.01 / 0.5, 16) == (41943, 21)
    x, w = np.array([12, 200, 7]), np.array([3, -2, 5])
    assert int(x @ w) + 1563 == 1234
    assert int(x @ w) + 300 == -29
    assert requantize([1234, -29], 41943, 21, "half_even", -8, 7).tolist() == [7, -1]
    assert round(1234 * 41943 / 2**21, 2) == 24.68


def test_the_thresholds_of_the_example() -> None:
    assert thresholds(41943, 21, "half_even", 0, 3, -500, 500).tolist() == [[26, 76, 126]]
    assert thresholds(1, 1, "half_even", 0, 6, -50, 50).tolist() == [[2, 3, 6, 7, 10, 11]]
    assert thresholds(1, 1, "half_up", 0, 6, -50, 50).tolist() == [[1, 3, 5, 7, 9, 11]]


def test_the_table_of_rules() -> None:
    values = [2.5, 3.5, -2.5]
    table = {
        "half_even": [2, 4, -2],
        "half_up": [3, 4, -2],
        "half_away": [3, 4, -3],
        "floor": [2, 3, -3],
        "trunc": [2, 3, -2],
    }
    assert {rule: round_real(values, rule).tolist() for rule in table} == table
