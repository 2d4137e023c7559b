"""`parity.compare` finds one wrong integer among many, says where, and never calls an empty comparison equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srq_hw.errors import RunError
from srq_hw.parity import compare


@given(st.integers(0, 59), st.sampled_from([np.int8, np.int64, np.uint8]), st.booleans())
def test_one_wrong_integer_is_found(where: int, dtype: type, in_second: bool) -> None:
    a = {"x": np.arange(60).reshape(1, 4, 5, 3).astype(dtype), "y": np.zeros((1, 4, 5, 3), dtype)}
    b = {name: values.astype(np.int64) for name, values in a.items()}
    assert compare(a, b).equal and compare(a, b).first is None
    name = "y" if in_second else "x"
    index = np.unravel_index(where, (1, 4, 5, 3))
    b[name][index] += 1
    found = compare(a, b)
    assert (found.equal, found.mismatches, found.elements, found.tensors) == (False, 1, 120, 2)
    assert found.first is not None
    assert (found.first.tensor, found.first.index) == (name, tuple(int(i) for i in index))
    assert found.first.right - found.first.left == 1
    assert str(found.first) == f"{name} at {found.first.index}: {found.first.left} against {found.first.right}"


def test_first_means_first_in_the_order_of_the_left_side() -> None:
    wrong = {"late": np.array([1]), "early": np.array([1])}
    right = {"early": np.array([0]), "late": np.array([0])}
    found = compare(wrong, right)
    assert found.first is not None and found.first.tensor == "late"
    assert found.mismatches == 2


def test_all_mismatches_are_counted_and_the_first_is_in_row_order() -> None:
    a = np.zeros((1, 2, 2, 2), np.int64)
    b = a.copy()
    b[0, 1, 0, 1] = b[0, 0, 1, 0] = b[0, 1, 1, 1] = -7
    found = compare({"t": a}, {"t": b})
    assert found.mismatches == 3
    assert found.first is not None and found.first.index == (0, 0, 1, 0)
    assert (found.first.left, found.first.right) == (0, -7)


def test_unsigned_against_signed_does_not_wrap() -> None:
    assert not compare({"t": np.array([255], np.uint8)}, {"t": np.array([-1], np.int8)}).equal
    assert not compare({"t": np.array([2**64 - 1], np.uint64)}, {"t": np.array([-1], np.int64)}).equal


def test_nothing_compared_is_not_equal() -> None:
    assert not compare({"t": np.zeros((0, 3), np.int64)}, {"t": np.zeros((0, 3), np.int64)}).equal
    with pytest.raises(RunError, match="no tensor in common"):
        compare({"a": np.zeros(1, np.int64)}, {"b": np.zeros(1, np.int64)})
    with pytest.raises(RunError, match=r"t has shape \(2,\).*\(1, 2\)"):
        compare({"t": np.zeros(2, np.int64)}, {"t": np.zeros((1, 2), np.int64)})
