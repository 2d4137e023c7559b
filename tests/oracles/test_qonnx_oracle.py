"""The oracle itself: a wrong program is a mismatch, named, and never passes as a float32 tie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from srq_hw.exchange.lower import lower
from srq_hw.exchange.qonnx_export import export_qonnx
from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.oracles.qonnx import qonnx_oracle
from tests.quantize.nets import COMPARED, HEIGHT, NETS, WIDTH, image, pow2_target, target
from tests.quantize.test_freeze import frozen_net

PIXELS = image(4)


def pair(aim, name: str = "residual", bits: int = 8):
    frozen, _ = frozen_net(NETS[name](), aim, bits)
    model = export_qonnx(frozen, aim, (HEIGHT, WIDTH))
    return model, lower(model, aim)


def swapped(graph: IntGraph, old: Node, new: Node) -> IntGraph:
    return replace(graph, nodes=tuple(new if node is old else node for node in graph.nodes))


@pytest.mark.parametrize("name", NETS)
def test_the_right_program_agrees(name: str) -> None:
    model, graph = pair(target(), name)
    found = qonnx_oracle(model, graph, PIXELS)
    assert (found.mismatches, found.first) == (0, "")
    assert found.elements > 1000 and found.tensors == sum(node.op in COMPARED for node in graph.nodes)


def test_every_wrong_parameter_is_a_mismatch_at_its_node() -> None:
    """Each node reads the reference's integers, so a difference is local: the first wrong tensor is the node's."""
    model, graph = pair(target())
    for node in graph.nodes:
        for key, values in node.params.items():
            wrong = values.copy()
            steps = {"weight": 64, "bias": 1 << 14, "shift": 1, "multiplier": 1 + int(values.ravel()[0]) // 16}
            wrong.ravel()[0] += steps[key]
            damaged = swapped(graph, node, replace(node, params={**node.params, key: wrong}))
            found = qonnx_oracle(model, damaged, PIXELS)
            reader = node if node.op == "Requant" else graph.consumers(node.output)[0]
            assert found.mismatches > 0, (node.name, key)
            assert found.first == reader.output
            assert found.ties <= found.mismatches // 10 + 2


def test_one_accumulator_step_of_bias_is_seen() -> None:
    """Pow2 with large ratios: a bias wrong by one step moves ties, and those are no float32 ties."""
    model, graph = pair(pow2_target(), bits=8)
    seen = 0
    for node in graph.nodes:
        if node.op == "Conv":
            bias = node.params["bias"] + 1
            found = qonnx_oracle(
                model, swapped(graph, node, replace(node, params={**node.params, "bias": bias})), PIXELS
            )
            seen += found.mismatches
            assert found.ties == 0
    assert seen > 0


@pytest.mark.parametrize("kind", ["pow2", "dyadic"])
@pytest.mark.parametrize("rule", sorted(ROUNDINGS))
def test_a_wrong_rounding_rule_is_a_mismatch_and_no_tie(kind: str, rule: str) -> None:
    """half_even against half_up differs at exact ties only: one step off, distance to the border 0, and still wrong."""
    aim = pow2_target(rule) if kind == "pow2" else target(**{"requant.rounding": rule})
    model, graph = pair(aim, bits=8)
    for other in sorted(set(ROUNDINGS) - {rule}):
        nodes = tuple(
            replace(node, attrs={**node.attrs, "rounding": other}) if node.op == "Requant" else node
            for node in graph.nodes
        )
        wrong = replace(graph, nodes=nodes)
        found = qonnx_oracle(model, wrong, PIXELS)
        if kind == "pow2" or not (rule.startswith("half") and other.startswith("half")):
            assert found.mismatches > 0, other
        assert found.ties <= found.elements // 100


def test_a_wrong_clamp_is_a_mismatch() -> None:
    """The last level cut off (one threshold missing) and a forgotten ReLU."""
    model, graph = pair(target())
    for node in graph.nodes:
        if node.op == "Requant":
            values = qonnx_reach(graph, node)
            for change in ({"hi": values[1] - 1}, {"lo": values[0] + 1}):
                damaged = swapped(graph, node, replace(node, attrs={**node.attrs, **change}))
                found = qonnx_oracle(model, damaged, PIXELS)
                assert found.mismatches > 0 and found.first == node.output, (node.name, change)


def qonnx_reach(graph: IntGraph, node: Node) -> tuple[int, int]:
    from srq_hw.simulate import reference

    found = reference.trace(graph, PIXELS)[node.output]
    return int(found.min()), int(found.max())


def test_two_swapped_channels_are_a_mismatch() -> None:
    model, graph = pair(target())
    shuffle = next(node for node in graph.nodes if node.op == "DepthToSpace")
    wrong = swapped(graph, shuffle, replace(shuffle, attrs={**shuffle.attrs, "mode": "DCR"}))
    head = next(node for node in graph.nodes if node.op == "Conv")
    weight = np.flip(head.params["weight"], 0).copy()
    flipped = swapped(graph, head, replace(head, params={**head.params, "weight": weight}))
    assert qonnx_oracle(model, flipped, PIXELS).mismatches > 50
    # the last shuffle has no quantizer behind it: the file's own output is what must catch it
    assert qonnx_oracle(model, wrong, PIXELS).mismatches > 50


def test_nothing_compared_is_visible() -> None:
    """A program whose tensors have other names compares nothing, and says so: elements 0."""
    model, graph = pair(target())
    names = {name: f"x_{name}" for name in graph.tensors if name != "image"}
    tensors = {names.get(k, k): replace(t, name=names.get(k, k)) for k, t in graph.tensors.items()}
    nodes = tuple(
        replace(node, inputs=tuple(names.get(i, i) for i in node.inputs), output=names[node.output])
        for node in graph.nodes
    )
    renamed = replace(graph, nodes=nodes, tensors=tensors, output=names[graph.output])
    assert qonnx_oracle(model, renamed, PIXELS).elements == 0
