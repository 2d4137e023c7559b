"""Ratios of activation scales: exactly dyadic where a sum is requantized, near the wish, fixed ones untouched."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srq_hw.fixedpoint import dyadic
from srq_hw.quantize.scales import solve_scales

SCALES = st.floats(1e-6, 1e4)


def assert_dyadic(scales: dict[str, float], edges: list[tuple[str, str]], bits: int) -> None:
    for a, b in edges:
        m, s = dyadic(scales[a] / scales[b], bits)
        wanted = Fraction(m) / Fraction(2) ** s
        assert abs(Fraction(scales[a]) / Fraction(scales[b]) / wanted - 1) < Fraction(1, 2**51)


@settings(max_examples=200)
@given(data=st.data(), bits=st.integers(1, 20))
def test_trees(data: st.DataObject, bits: int) -> None:
    """Any tree, edges in any order and direction, one fixed group or none."""
    count = data.draw(st.integers(2, 8))
    names = [f"g{i}" for i in range(count)]
    desired = {name: data.draw(SCALES) for name in names}
    edges = []
    for i in range(1, count):
        pair = (names[data.draw(st.integers(0, i - 1))], names[i])
        edges.append(pair if data.draw(st.booleans()) else pair[::-1])
    edges = data.draw(st.permutations(edges))
    fixed = set(data.draw(st.lists(st.sampled_from(names), max_size=1)))
    found = solve_scales(desired, fixed, edges, bits)
    assert found.keys() == desired.keys()
    assert_dyadic(found, edges, bits)
    for name in fixed:
        assert found[name] == desired[name]
    slack = (1 + 2.0**-bits) ** count * (1.5**count if bits == 1 else 1.0) * (1 + 1e-9)
    assert all(1 / slack <= found[n] / desired[n] <= slack for n in names)


@settings(max_examples=150)
@given(data=st.data(), bits=st.integers(2, 20))
def test_loops_become_one_group(data: st.DataObject, bits: int) -> None:
    """Any graph at all: each edge ends dyadic (1 inside a loop), and a merged group takes the largest wish."""
    count = data.draw(st.integers(2, 7))
    names = [f"g{i}" for i in range(count)]
    desired = {name: data.draw(SCALES) for name in names}
    pairs = st.tuples(st.sampled_from(names), st.sampled_from(names))
    edges = data.draw(st.lists(pairs, max_size=10))
    fixed = set(data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True)))
    desired |= dict.fromkeys(fixed, 1.0)
    found = solve_scales(desired, fixed, edges, bits)
    assert all(found[name] == 1.0 for name in fixed)
    assert_dyadic(found, edges, bits)
    assert found == solve_scales(desired, fixed, edges, bits)


def test_a_triangle() -> None:
    found = solve_scales({"a": 1.0, "b": 3.0, "c": 0.7}, set(), [("a", "b"), ("b", "c"), ("c", "a")], 16)
    assert set(found.values()) == {3.0}


def test_a_loop_through_fixed_groups_keeps_them() -> None:
    found = solve_scales({"image": 1.0, "out": 1.0, "b": 7.3}, {"image", "out"}, [("image", "b"), ("b", "out")], 16)
    assert found["image"] == found["out"] == found["b"] == 1.0


def test_no_edges_and_a_generator_of_edges() -> None:
    assert solve_scales({"a": 0.3, "b": 0.7}, set(), [], 8) == {"a": 0.3, "b": 0.7}
    edges = [("a", "b")]
    assert solve_scales({"a": 0.3, "b": 0.7}, set(), iter(edges), 8) == solve_scales(
        {"a": 0.3, "b": 0.7}, set(), edges, 8
    )


@pytest.mark.parametrize("bits", [1, 4, 16])
def test_a_chain_from_a_fixed_group(bits: int) -> None:
    edges = [("c", "b"), ("image", "c"), ("b", "a")]
    found = solve_scales({"image": 1.0, "a": 0.37, "b": 1.9, "c": 5.1}, {"image"}, edges, bits)
    assert found["image"] == 1.0
    assert_dyadic(found, edges, bits)
