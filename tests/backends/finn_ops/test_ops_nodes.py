"""Nodes and lanes without FINN: attributes lose nothing, and lanes and cycles are those of the RTL's folding."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto
from op_cases import Case, all_cases

from srq_hw.backends.finn.ops.lanes import limits, node_lanes, set_lanes
from srq_hw.backends.finn.ops.nodes import input_reach, make_node, node_graph, one_node
from srq_hw.backends.finn.ops.wrapper import hardware, wrapper_text
from srq_hw.backends.rtl.folding import Goal, fold
from srq_hw.errors import InputError
from srq_hw.graph.check import bounds, ends
from srq_hw.graph.ir import IntGraph
from tests.support.graph_strategies import graphs

CASES = {case.name: case for case in all_cases()}


@given(graphs(), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 7, 60, 500, 10**6]))
@settings(max_examples=60)
def test_every_node_of_a_random_graph_comes_back_with_the_lanes_of_its_folding(
    graph: IntGraph, height: int, width: int, cycles: int
) -> None:
    folding = fold(graph, Goal((height, width), cycles)) if graph.nodes else None
    reach = bounds(graph)
    for node in graph.nodes:
        made = make_node(graph, node, (height, width), [f"x{i}" for i in range(len(node.inputs))], "y", "name")
        made = NodeProto.FromString(made.SerializeToString())
        assert node_graph(made).content_sha256 == one_node(graph, node, "name").content_sha256
        assert [(int(b.lo[0]), int(b.hi[0])) for b in input_reach(made).values()] == [
            ends(reach[name]) for name in node.inputs
        ]
        assert folding is not None
        wanted = folding.nodes[node.name]
        set_lanes(made, wanted)
        found = node_lanes(made)
        assert (found.inputs, found.output, found.cycles) == (wanted.inputs, wanted.output, wanted.cycles), node.op
        assert found.core == wanted.core


@pytest.mark.parametrize("name", CASES)
def test_lanes_that_do_not_divide_are_refused(name: str) -> None:
    case = CASES[name]
    for key, number in limits(case.onnx_node()).items():
        for bad in (0, -1, number + 1, *(n for n in range(2, number) if number % n)):
            wrong = Case(case.name, case.graph, case.node, case.lanes | {key: bad}, case.size, case.outputs)
            with pytest.raises(InputError, match=rf"node {name} .*: {key} = {bad} .*Allowed: .*{number}"):
                node_lanes(wrong.onnx_node())


def test_a_depthwise_convolution_has_one_number_of_lanes() -> None:
    case = CASES["conv_depthwise"]
    with pytest.raises(InputError, match="PE = 2 and SIMD = 4 of a depthwise"):
        node_lanes(Case(case.name, case.graph, case.node, {"PE": 2, "SIMD": 4}).onnx_node())


def test_damaged_attributes_are_named() -> None:
    made = CASES["conv_point"].onnx_node()
    kept = [item for item in made.attribute if item.name != "bias"]
    del made.attribute[:]
    made.attribute.extend(kept)
    with pytest.raises(InputError, match=r"conv_point \(SrqConv\): attributes \['bias'\] are missing"):
        node_graph(made)
    wrong = CASES["add"].onnx_node()
    next(item for item in wrong.attribute if item.name == "inputDataTypes").strings[0] = b"FLOAT32"
    with pytest.raises(InputError, match="'FLOAT32' is no integer type"):
        node_graph(wrong)


def test_the_wrapper_says_where_its_memories_are() -> None:
    made = hardware(CASES["requant_thresholds"].onnx_node(), 27)
    text = wrapper_text("top", made, "/some/folder")
    assert made.memories
    stem = "/some/folder/requant_thresholds.threshold"
    assert f'"{stem}"' in text
    assert all(name.startswith("requant_thresholds.threshold_") for name in made.memories)


def test_nodes_need_no_finn() -> None:
    code = (
        "import sys; import srq_hw.backends.finn.ops.nodes, srq_hw.backends.finn.ops.lanes, "
        "srq_hw.backends.finn.ops.wrapper; sys.exit('finn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
