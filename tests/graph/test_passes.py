"""Passes never change a bit of the output, and each does what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srq_hw.errors import InputError
from srq_hw.graph import check, passes
from srq_hw.graph.ir import IntGraph, Node, Tensor
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph
from srq_hw.simulate import reference
from tests.support.graph_strategies import graphs, random_image

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("rewrite", [*passes.PASSES, passes.run_passes], ids=lambda f: f.__name__)
@settings(max_examples=80)
@given(graph=graphs(), seed=seeds)
def test_output_stays(rewrite: Callable[[IntGraph], IntGraph], graph: IntGraph, seed: int) -> None:
    rewritten = rewrite(graph)
    check.verify(rewritten)
    image = random_image(graph, 4, 5, seed)
    np.testing.assert_array_equal(reference.run(rewritten, image), reference.run(graph, image))
    out, before = rewritten.tensors[rewritten.output], graph.tensors[graph.output]
    assert (out.channels, out.upscale, out.zero_point) == (before.channels, before.upscale, before.zero_point)


@settings(max_examples=40)
@given(graph=graphs())
def test_running_the_passes_again_changes_nothing(graph: IntGraph) -> None:
    once = passes.run_passes(graph)
    assert passes.run_passes(once).content_sha256 == once.content_sha256


@settings(max_examples=60)
@given(graph=graphs(), seed=seeds)
def test_every_integer_fits_its_proven_type_after_the_passes(graph: IntGraph, seed: int) -> None:
    small = passes.run_passes(graph)
    for name, values in reference.trace(small, random_image(small, 4, 5, seed)).items():
        lo, hi = small.tensors[name].range
        assert values.min() >= lo and values.max() <= hi, name


def unit_requant(build: GraphBuilder, source: str, name: str, m: int = 1, s: int = 0, bits: int = 8) -> str:
    return build.requant(source, np.array([m]), np.array([s]), bits, False, name, "half_up")


def test_dead_nodes_go() -> None:
    build = GraphBuilder(4)
    used = unit_requant(build, "image", "used", 3, 1)
    unit_requant(build, "used", "dead", 3, 1)
    build.depth_to_space("dead", 2, "dead_too")
    graph = build.finish(used, "g")
    kept = passes.remove_dead_nodes(graph)
    assert [node.name for node in kept.nodes] == ["used"]
    assert set(kept.tensors) == {"image", "used"}


def test_identity_requants_go_wherever_they_stand() -> None:
    build = GraphBuilder(4)
    first = unit_requant(build, "image", "identity1")
    second = unit_requant(build, first, "identity2", 4, 2)
    real = unit_requant(build, second, "real", 3, 1)
    graph = build.finish(build.depth_to_space(unit_requant(build, real, "identity3"), 2, "out"), "g")
    kept = passes.remove_identity_requants(graph)
    assert [node.name for node in kept.nodes] == ["real", "out"]
    assert kept.nodes[0].inputs == ("image",) and kept.nodes[1].inputs == ("real",)
    check.verify(kept)
    image = np.arange(4 * 12).reshape(3, 4, 4)
    np.testing.assert_array_equal(reference.run(kept, image), reference.run(graph, image))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"m": 3, "s": 1}, "a factor"),
        ({"m": 2, "s": 0}, "a factor"),
        ({"m": 1, "s": 1}, "a factor"),
        ({"m": 1, "s": -1}, "a factor"),
        ({"bits": 7}, "a narrower type clamps"),
        ({"bits": 9}, "another type"),
    ],
)
def test_requants_that_do_something_stay(change: dict[str, int], reason: str) -> None:
    build = GraphBuilder(4)
    graph = build.finish(build.depth_to_space(unit_requant(build, "image", "r", **change), 2, "out"), "g")
    assert [node.name for node in passes.remove_identity_requants(graph).nodes] == ["r", "out"], reason


def test_a_clamp_in_reach_a_slope_and_the_output_stay() -> None:
    build = GraphBuilder(4, signed=True)
    attrs = {"rounding": "half_up", "lo": 0, "hi": 127, "zero_point": 0}
    params = {"multiplier": np.array([1]), "shift": np.array([0])}
    relu = build.add_node(Node("Requant", "relu", ("image",), "relu", attrs, params), 4, 8, True, 1)
    slope = {**params, "negative_multiplier": np.array([1])}
    lower = {**attrs, "lo": -128}
    leaky = build.add_node(Node("Requant", "leaky", (relu,), "leaky", lower, slope), 4, 8, True, 1)
    last = build.add_node(Node("Requant", "last", (leaky,), "last", lower, params), 4, 8, True, 1)
    graph = build.finish(last, "g")
    assert [node.name for node in passes.remove_identity_requants(graph).nodes] == ["relu", "leaky", "last"]


def test_accumulators_get_the_narrowest_type() -> None:
    build = GraphBuilder(1)
    acc = build.conv("image", np.array([[[[1]]], [[[-1]]]]), np.array([0, 0]), "acc")
    unsigned = build.conv("image", np.array([[[[2]]]]), np.array([1]), "unsigned")
    graph = replace(build.finish(unsigned, "g"), output=acc)
    small = passes.minimize_accumulators(graph)
    assert small.tensors["acc"].dtype == "INT9"  # -255..255
    assert small.tensors["unsigned"].dtype == "UINT9"  # 1..511
    exact = build.conv("image", np.array([[[[2]]]]), np.array([2]), "exact")  # 2..512
    assert passes.minimize_accumulators(build.finish(exact, "g")).tensors["exact"].dtype == "UINT10"


def test_an_accumulator_that_is_moved_on_keeps_the_type_its_readers_declare() -> None:
    build = GraphBuilder(4)
    recentred = build.offset("image", np.array([-10, -20, -30, -40]), 12, "recentred")
    other = build.offset("image", np.array([0, 0, 0, 0]), 12, "other")
    tensor = Tensor("both", 8, 12, True)
    build.nodes.append(Node("Concat", "both", (recentred, other), "both"))
    build.tensors["both"] = tensor
    graph = build.finish(build.depth_to_space("both", 2, "out"), "g")
    small = passes.run_passes(graph)
    assert small.tensors["recentred"].dtype == small.tensors["both"].dtype == "INT12"


def test_passes_refuse_a_graph_that_is_not_well_formed() -> None:
    graph = edsr_graph(2, 1)
    with pytest.raises(InputError, match="no node makes the output"):
        passes.run_passes(replace(graph, output="nowhere"))
    with pytest.raises(InputError, match="before anything makes it"):
        passes.run_passes(replace(graph, nodes=graph.nodes[::-1]))
