"""IntGraph -> IntGraph rewrites. Plain functions in one ordered list; none of them changes a bit of the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from srq_hw.fixedpoint import bits_for
from srq_hw.graph.check import SAME_TYPE_OPS, SUMMING_OPS, bounds, verify
from srq_hw.graph.ir import IntGraph, Node


def remove_dead_nodes(graph: IntGraph) -> IntGraph:
    """Drop what the output does not depend on."""
    needed = {graph.output}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.inputs)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in needed or name == graph.input}
    return graph.with_nodes(tuple(reversed(kept)), tensors)


def remove_identity_requants(graph: IntGraph) -> IntGraph:
    """Drop a Requant that returns what it gets: M / 2**S = 1, no clamp in reach, same type.

    A second quantizer on an already quantized tensor (in front of a PixelShuffle, say) leaves such nodes.
    """
    reach = bounds(graph)
    alias: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(alias.get(name, name) for name in node.inputs))
        source, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
        if (
            node.op == "Requant"
            and node.output != graph.output
            and _is_unity(node)
            and (source.bits, source.signed, source.zero_point) == (out.bits, out.signed, out.zero_point)
            and int(reach[source.name].lo.min()) >= node.int_attr("lo")
            and int(reach[source.name].hi.max()) <= node.int_attr("hi")
        ):
            alias[node.output] = node.inputs[0]
        else:
            nodes.append(node)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name not in alias}
    return graph.with_nodes(tuple(nodes), tensors)


def _is_unity(node: Node) -> bool:
    multiplier, shift = node.params["multiplier"], node.params["shift"]
    unit = bool((shift >= 0).all()) and bool((multiplier == 1 << shift).all())
    return unit and "negative_multiplier" not in node.params and node.int_attr("zero_point") == 0


#: width that a graph's maker gives an accumulator before `minimize_accumulators` proves a narrower one
UNPROVEN_BITS = 48


def minimize_accumulators(graph: IntGraph) -> IntGraph:
    """Give every accumulator (Conv, Add, ResizeFilter, Offset) the narrowest type that its proven range needs.

    One that a Concat, shuffle or resize moves on keeps its type: those pass the type of their input through.
    """
    reach = bounds(graph)
    tensors = dict(graph.tensors)
    moved = {name for node in graph.nodes if node.op in SAME_TYPE_OPS for name in node.inputs}
    for node in graph.nodes:
        if node.op in (*SUMMING_OPS, "Offset") and node.output not in moved:
            lo, hi = int(reach[node.output].lo.min()), int(reach[node.output].hi.max())
            signed = lo < 0
            tensors[node.output] = replace(tensors[node.output], bits=bits_for(lo, hi, signed), signed=signed)
    return graph.with_nodes(graph.nodes, tensors)


PASSES: tuple[Callable[[IntGraph], IntGraph], ...] = (
    remove_dead_nodes,
    remove_identity_requants,
    minimize_accumulators,
)


def run_passes(graph: IntGraph) -> IntGraph:
    """All passes in order; the graph is verified before, between and after."""
    verify(graph)
    for rewrite in PASSES:
        graph = rewrite(graph)
        verify(graph)
    return graph
