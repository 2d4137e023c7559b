"""Which of FINN's verifications a continued build runs by itself on the golden vectors, and its settings for them."""

from __future__ import annotations

from typing import Any

from srq_hw.backends.finn.build import FinnResult
from srq_hw.graph.ir import IntGraph, Node

#: FINN's names: the folded graph in Python (no Vivado), every node's RTL by itself, the stitched design
PYTHON, NODES, STITCHED = "folded_hls_cppsim", "node_by_node_rtlsim", "stitched_ip_rtlsim"
#: float32 is FINN's container: integers up to here are exact, and so are sums whose parts stay below
EXACT = 1 << 24
#: FINN keeps every tensor of an execution, and compares one layer's values with all thresholds at once
KEPT_ELEMENTS, COMPARED_ELEMENTS = 1 << 28, 1 << 30

#: equality: every element, and the means, which FINN checks as well
SETTINGS: dict[str, Any] = {
    "verification_atol": 0.0,
    "verification_rtol": 0.0,
    "verification_mean_atol": 0.0,
    "verification_mean_rtol": 0.0,
    "verify_nodewise_report": True,
    "save_intermediate_models": True,
}


def verify_steps(result: FinnResult, graph: IntGraph) -> tuple[tuple[str, ...], str]:
    """FINN's steps that the bundle asks for, and why PYTHON is not one of them ("" where it is).

    Tensors pass through float32 where nodes run by themselves; the stitched design's RTL sees integers only. NODES
    simulates every node apart and is left to whoever looks for the node that is wrong.
    """
    height, width = result.size
    finns = {place.node for place in result.places if place.library == "finn"}
    kept = compared = 0
    for node in graph.nodes:
        out = graph.tensors[node.output]
        elements = height * width * out.upscale**2 * out.channels
        kept += elements
        if node.name in finns and node.op == "Conv":
            if _reach(graph, node) > EXACT:
                return (STITCHED,), f"sums of {node.name} are not exact in float32, in which FINN executes"
            weight = node.params["weight"]
            kept += 2 * height * width * out.upscale**2 * weight[0].size  # padded image and windows
        elif node.name in finns and node.op == "Requant":
            compared = max(compared, elements << out.bits)
    if kept > KEPT_ELEMENTS or compared > COMPARED_ELEMENTS:
        return (STITCHED,), f"images of {height} x {width} are too large for FINN's execution in Python"
    return (PYTHON, STITCHED), ""


def _reach(graph: IntGraph, node: Node) -> int:
    """The largest magnitude of a sum of the convolution's products, in whatever order they are added."""
    largest = max(abs(end) for end in graph.tensors[node.inputs[0]].range)
    return int(abs(node.params["weight"]).reshape(len(node.params["weight"]), -1).sum(1).max()) * largest
