"""Is the graph well formed, and does every accumulator fit? Answers node by node. The target's rules: `legality`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from srq_hw.errors import InputError
from srq_hw.fixedpoint import bits_for
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.ops import OPS
from srq_hw.graph.opspec import Bounds
from srq_hw.target import Target

#: ops that move integers about: the output has the type of the input
SAME_TYPE_OPS = ("Concat", "DepthToSpace", "ResizeNearest", "Slice")
#: ops whose result is an exact sum that an accumulator must hold
SUMMING_OPS = ("Conv", "Add", "ResizeFilter")
#: widest tensor int64 can hold with room for a sign
WIDEST = 62


@dataclass(frozen=True)
class AccumulatorProof:
    """What one node's exact result can reach, from the real weights and the ranges that really arrive.

    bits: signed width that holds [lo, hi]; limit_bits: what the target offers.
    """

    node: str
    op: str
    lo: int
    hi: int
    bits: int
    limit_bits: int

    @property
    def holds(self) -> bool:
        """True where the target's accumulator cannot overflow, whatever the image."""
        return self.bits <= self.limit_bits


def verify(graph: IntGraph) -> None:
    """Raise InputError naming the first node that is not a well-formed IntGraph node (ops, names, shapes, types)."""
    known = {graph.input}
    names: set[str] = set()
    if graph.input not in graph.tensors:
        raise InputError(f"graph {graph.name}: input {graph.input!r} has no tensor entry")
    for key, tensor in graph.tensors.items():
        if key != tensor.name or tensor.channels < 1 or not 1 <= tensor.bits <= WIDEST or tensor.upscale < 1:
            raise InputError(
                f"graph {graph.name}, tensor {key}: {tensor}; wanted the same name, channels and upscale "
                f">= 1, 1 to {WIDEST} bits"
            )
    reach = {graph.input: Bounds.of(graph.tensors[graph.input])}
    for node in graph.nodes:
        complaint = _node_problem(graph, node, known, names) or _type_problem(graph, node, reach)
        if complaint:
            raise InputError(f"graph {graph.name}, node {node.name} ({node.op}): {complaint}")
        known.add(node.output)
        names.add(node.name)
    if graph.output not in known:
        raise InputError(f"graph {graph.name}: no node makes the output {graph.output!r}")


def _node_problem(graph: IntGraph, node: Node, known: set[str], names: set[str]) -> str | None:
    spec = OPS.get(node.op)
    if spec is None:
        return f"unknown operation; known are {', '.join(OPS)}"
    if node.name in names:
        return "a node of this name exists already"
    missing = [name for name in node.inputs if name not in known or name not in graph.tensors]
    if missing:
        return f"reads {missing} before anything makes it"
    if node.output in known or node.output not in graph.tensors:
        return f"output {node.output!r} is written twice or has no tensor entry"
    wrong_count = len(node.inputs) != spec.inputs if spec.inputs is not None else len(node.inputs) < 2
    if wrong_count:
        return f"has {len(node.inputs)} inputs; wanted {spec.inputs or 'two or more'}"
    bad_attrs = {
        key
        for key in spec.attrs.keys() | node.attrs.keys()
        if not isinstance(node.attrs.get(key), spec.attrs.get(key, ()))
    }
    if bad_attrs:
        return f"attributes {sorted(bad_attrs)} are missing, unknown or of the wrong type; wanted {sorted(spec.attrs)}"
    no_integers = [
        key for key, value in node.params.items() if not isinstance(value, np.ndarray) or value.dtype != np.int64
    ]
    if no_integers:
        return f"parameters {no_integers} are no int64 arrays"
    needed = {key for key, required in spec.params.items() if required}
    if not needed <= node.params.keys() <= spec.params.keys():
        return f"parameters {sorted(node.params)}; wanted {sorted(spec.params)}"
    ins = [graph.tensors[name] for name in node.inputs]
    found = spec.problems(node, ins)
    if found:
        return "; ".join(found)
    out = graph.tensors[node.output]
    if spec.shape(node, ins) != (out.channels, out.upscale):
        return f"output is declared {out.channels} channels x{out.upscale}; the node makes {spec.shape(node, ins)}"
    return None


def _type_problem(graph: IntGraph, node: Node, reach: dict[str, Bounds]) -> str | None:
    """Whether the declared type of the output is the one the node makes; fills in the output's interval."""
    ins, out = [graph.tensors[name] for name in node.inputs], graph.tensors[node.output]
    if node.op in SAME_TYPE_OPS:
        wanted = (ins[0].dtype, ins[0].zero_point)
        if (out.dtype, out.zero_point) != wanted:
            return f"output is declared {out.dtype} zero point {out.zero_point}; the node passes {wanted} on"
    if node.op == "Requant" and out.zero_point != node.int_attr("zero_point"):
        return f"output is declared with zero point {out.zero_point}; the node makes {node.int_attr('zero_point')}"
    reach[node.output] = OPS[node.op].bounds(node, ins, [reach[name] for name in node.inputs])
    lo, hi = ends(reach[node.output])
    if node.op == "Requant":
        lo, hi = node.int_attr("lo"), node.int_attr("hi")
    if lo < out.range[0] or hi > out.range[1]:
        return f"output is declared {out.dtype} {out.range}; the node makes {lo} to {hi}"
    return None


def bounds(graph: IntGraph) -> dict[str, Bounds]:
    """Interval of every tensor, per channel, propagated from the image's full range through the real weights."""
    reach = {graph.input: Bounds.of(graph.tensors[graph.input])}
    for node in graph.nodes:
        ins = [graph.tensors[name] for name in node.inputs]
        reach[node.output] = OPS[node.op].bounds(node, ins, [reach[name] for name in node.inputs])
    return reach


def prove_accumulators(graph: IntGraph, target: Target) -> list[AccumulatorProof]:
    """For every Conv, Add and ResizeFilter, the exact worst case against the target's accumulator width."""
    reach = bounds(graph)
    return [
        AccumulatorProof(node.name, node.op, lo, hi, bits_for(lo, hi, signed=True), target.integer.accumulator.bits)
        for node in graph.nodes
        if node.op in SUMMING_OPS
        for lo, hi in [ends(reach[node.output])]
    ]


def ends(reach: Bounds) -> tuple[int, int]:
    """Smallest and largest integer over all channels."""
    return int(reach.lo.min()), int(reach.hi.max())
