"""The equality chain of one quantized network, link by link: what every method must leave whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srq_hw import parity
from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import lower
from srq_hw.exchange.qonnx_export import export_qonnx
from srq_hw.graph.ir import IntGraph
from srq_hw.quantize.calibrate import Image
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.freeze import freeze, load_frozen, quant_net, run_frozen
from srq_hw.quantize.plan import PASS_THROUGH, QuantPlan
from srq_hw.simulate import fast, reference
from srq_hw.target import Target


def assert_chain(plan: QuantPlan, calibration: Calibration, aim: Target, pictures: Sequence[Image]) -> IntGraph:
    """Frozen Brevitas in float64 == reference == fast simulator on every picture, and the lowered file's hash."""
    frozen = freeze(plan, calibration, aim)
    model, graph = load_frozen(quant_net(plan, calibration, aim), frozen), to_intgraph(frozen)
    program = fast.compile_graph(graph, threads=1)
    for picture in pictures:
        left, right = run_frozen(model, frozen, picture), reference.trace(graph, picture)
        found = parity.compare(left, right)
        assert found.equal, found.first
        assert {node.output for node in graph.nodes if node.op == "Requant"} <= left.keys()
        np.testing.assert_array_equal(program.run(picture), right[graph.output])
    file = export_qonnx(frozen, aim, pictures[0].shape[:2])
    assert lower(file, aim).content_sha256 == graph.content_sha256
    return graph


def graph_hash(plan: QuantPlan, calibration: Calibration, aim: Target) -> str:
    """What the network comes to in integers."""
    return to_intgraph(freeze(plan, calibration, aim)).content_sha256


def operand_bits(graph: IntGraph) -> dict[str, int]:
    """Convolution -> width of the integers it reads."""
    return {node.name: graph.tensors[node.inputs[0]].bits for node in graph.nodes if node.op == "Conv"}


def reads_image(plan: QuantPlan, conv: str) -> bool:
    """Whether a convolution's integers are the image's own, moved about at most."""
    source = plan.layer(plan.layer(conv).inputs[0])
    while source.op in (*PASS_THROUGH, "offset"):
        source = plan.layer(source.inputs[0])
    return source.name == "image_quant"
