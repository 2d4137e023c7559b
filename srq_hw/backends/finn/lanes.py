"""One folding for FINN's units and for ours: lanes of IntGraph nodes -> PE, SIMD and memories (runs inside the worker).

Nodes are found by the tensors that they write, which keep the names of the IntGraph.
"""

from __future__ import annotations

from typing import Any

from srq_hw.backends.finn.emit import PADDED, WINDOWS
from srq_hw.backends.finn.ops.lanes import set_lanes as set_own_lanes
from srq_hw.backends.finn.ops.nodes import DUPLICATE, base_type, is_srq
from srq_hw.backends.rtl.folding import Folding, Lanes, divisors
from srq_hw.graph.ir import IntGraph

#: in front of a matrix unit, with the lanes of the stream that they read
WINDOW_UNITS = ("ConvolutionInputGenerator", "FMPadding")


def set_lanes(model: Any, folding: Folding, graph: IntGraph) -> None:
    """Set PE, SIMD and memories of every node of an emitted and specialised model.

    folding: lanes of the nodes of `graph`, the prepared graph that the model was made of. A fork gets the lanes of what
    feeds it; padding and window units, which an IntGraph does not have, the input lanes of their convolution.
    """
    makers = {node.output: node.name for node in graph.nodes}
    makers |= {node.name + suffix: node.name for node in graph.nodes for suffix in (PADDED, WINDOWS)}
    for node in model.graph.node:
        if base_type(node) == DUPLICATE:
            set_own_lanes(node, _fork_lanes(model, node, graph, folding.cycles))
            continue
        lanes = folding.nodes[makers[node.output[0]]]
        if is_srq(node):
            set_own_lanes(node, lanes)
        elif node.op_type.startswith("MVAU"):
            _set(node, lanes, PE=lanes.core[0], SIMD=lanes.core[1])
        elif node.op_type.startswith("Thresholding"):
            _set(node, lanes, PE=lanes.output)
        elif node.op_type.startswith(WINDOW_UNITS):
            _set(node, lanes, SIMD=lanes.inputs[0])


def _fork_lanes(model: Any, node: Any, graph: IntGraph, pace: int) -> Lanes:
    """Those of the node in front, which stands earlier in the graph; of the image, the fewest that keep the pace."""
    from qonnx.custom_op.registry import getCustomOp

    source = model.find_producer(node.input[0])
    if source is not None:
        port = list(source.output).index(node.input[0])
        lanes = int(getCustomOp(source).get_folded_output_shape(port)[-1])
    else:
        _, height, width, channels = model.get_tensor_shape(graph.input)
        fitting = [n for n in divisors(channels) if height * width * channels // n <= pace]
        lanes = fitting[0] if fitting else channels
    return Lanes((lanes,), lanes, 0)


def _set(node: Any, lanes: Lanes, **values: int) -> None:
    from qonnx.custom_op.registry import getCustomOp

    op = getCustomOp(node)
    memories = {attribute: value for kind, attribute, value in lanes.memories if node.op_type.startswith(kind)}
    for key, value in {**values, **memories}.items():
        op.set_nodeattr(key, value)
