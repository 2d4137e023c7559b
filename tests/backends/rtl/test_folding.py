"""Lanes for a number of cycles: every unit in time where it can be, none with a cheaper form that would do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srq_hw.backends.rtl.arrange import arrange
from srq_hw.backends.rtl.folding import ConvShape, Goal, conv_shape, divisors, fold, packed_lanes
from srq_hw.backends.rtl.generate import generate
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph


@pytest.mark.parametrize(
    ("pe", "weight_bits", "act_bits", "narrow", "lanes"),
    [(8, 8, 8, False, 2), (1, 8, 8, False, 1), (8, 4, 8, False, 3), (8, 4, 4, False, 4), (8, 16, 16, True, 1),
     (8, 8, 12, False, 1), (8, 8, 12, True, 2), (3, 4, 4, False, 3)],
)  # fmt: skip
def test_weights_that_share_a_multiplier(pe: int, weight_bits: int, act_bits: int, narrow: bool, lanes: int):
    assert packed_lanes(pe, weight_bits, act_bits, narrow) == lanes


@given(st.integers(1, 500_000), st.sampled_from([(8, 8), (4, 4), (2, 8)]))
def test_every_unit_is_in_time_or_as_fast_as_it_can_be(cycles: int, bits: tuple[int, int]):
    graph = arrange(edsr_graph(8, 1, weight_bits=bits[0], act_bits=bits[1]))
    folding = fold(graph, Goal((12, 10), cycles))
    fastest = fold(graph, Goal((12, 10), 1))
    for node in graph.nodes:
        lanes, best = folding.nodes[node.name], fastest.nodes[node.name]
        assert lanes.cycles <= cycles or lanes == best
        assert all(graph.tensors[name].channels % n == 0 for name, n in zip(node.inputs, lanes.inputs, strict=True))
        assert graph.tensors[node.output].channels % lanes.output == 0


def test_the_cheapest_convolution_that_is_in_time_is_taken():
    graph = arrange(edsr_graph(16, 0))
    node = next(node for node in graph.nodes if node.name == "tail")
    shape = conv_shape(graph, node, (16, 16))
    for cycles in (2_000, 20_000, 147_456, 10**7):
        pe, simd = fold(graph, Goal((16, 16), cycles)).nodes["tail"].core
        in_time = [pair for pair in shape.foldings() if shape.cycles(*pair) <= cycles] or [(16, 16)]
        assert shape.dsps(pe, simd) == min(shape.dsps(*pair) for pair in in_time)


def test_depthwise_and_grouped_convolutions_fold_within_a_group():
    build = GraphBuilder(12)
    rng = np.random.default_rng(0)
    shapes: list[ConvShape] = []
    for groups in (1, 3, 12):
        name = build.conv("image", rng.integers(-9, 9, (12, 12 // groups, 3, 3)), np.zeros(12), f"c{groups}", groups)
        graph = build.finish(name, "groups")
        shapes.append(conv_shape(graph, graph.nodes[-1], (4, 4)))
    plain, grouped, depthwise = shapes
    assert max(plain.foldings()) == (12, 12) and max(grouped.foldings()) == (4, 4)
    assert depthwise.depthwise and depthwise.foldings() == [(n, n) for n in divisors(12)]
    assert plain.cycles(12, 12) == 16 * 9 and grouped.cycles(4, 4) == 3 * 16 * 9 and depthwise.cycles(12, 12) == 16 * 9


def test_half_the_cycles_never_cost_fewer_multipliers():
    graph = arrange(edsr_graph(16, 1))
    counts = []
    for cycles in (1 << n for n in range(20, 8, -1)):
        folding = fold(graph, Goal((8, 8), cycles))
        convs = [node for node in graph.nodes if node.op == "Conv"]
        counts.append(sum(conv_shape(graph, node, (8, 8)).dsps(*folding.nodes[node.name].core) for node in convs))
    assert counts == sorted(counts) and counts[0] < counts[-1]


@pytest.mark.parametrize("cycles", [4_147_199, 2_073_599, 3_333_333])
def test_another_frame_size_keeps_the_lanes_and_the_cycles_per_pixel(cycles: int):
    """The first two are counts at which folding anew would choose other lanes for the smaller frame."""
    graph = arrange(edsr_graph(16, 2))
    folding = fold(graph, Goal((180, 320), cycles))
    small = folding.resized((180, 320), (45, 80))
    assert {name: (n.inputs, n.output, n.core) for name, n in small.nodes.items()} == {
        name: (n.inputs, n.output, n.core) for name, n in folding.nodes.items()
    }
    assert small.cycles * 16 == folding.cycles and small.bottleneck == folding.bottleneck
    design = generate(graph, (45, 80), small.wanted, folding=small)
    assert design.cycles == small.cycles
    assert any(fold(graph, Goal((45, 80), small.wanted)).nodes[name] != n for name, n in small.nodes.items()) or (
        cycles == 3_333_333
    )
