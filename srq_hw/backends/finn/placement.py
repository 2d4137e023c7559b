"""Which library computes each node: FINN's own units, where they do it exactly and in RTL, else ours. One table.

Every rule returns why a node is not FINN's, or "". The reasons stand in the result of a build and in its report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from srq_hw.backends.finn.thresholds import requant_thresholds
from srq_hw.errors import InputError
from srq_hw.fixedpoint import bits_for
from srq_hw.graph.check import bounds
from srq_hw.graph.ir import Int, IntGraph, Node
from srq_hw.graph.opspec import Bounds
from srq_hw.target import DspKind

Library = Literal["finn", "srq"]
LIBRARIES: tuple[Library, ...] = ("finn", "srq")
#: fewer bits on either operand and FINN takes its HLS matrix unit (specialize_layers.py)
RTL_BITS_MIN = 4
#: widest activation with a sign, weight and accumulator of the RTL matrix unit (get_dsp_datapath_limits)
DATAPATH: dict[DspKind, tuple[int, int, int]] = {
    "DSP48E1": (18, 25, 48),
    "DSP48E2": (18, 27, 48),
    "DSP58": (24, 27, 58),
}
#: float32, FINN's only container, holds every integer up to here
EXACT = 1 << 24
#: a threshold layer stores and searches 2**bits - 1 numbers per channel
THRESHOLD_BITS = (2, 8)


@dataclass(frozen=True)
class Place:
    """Where a node is computed. reason: why it is not one of FINN's units, "" where it is."""

    node: str
    op: str
    library: Library
    reason: str = ""


@dataclass(frozen=True)
class _Context:
    graph: IntGraph
    dsp: DspKind
    reach: Mapping[str, Bounds]
    found: dict[str, Place] = field(default_factory=dict)


def check_library(library: str) -> Library:
    """InputError for a library that does not exist."""
    for known in LIBRARIES:
        if library == known:
            return known
    raise InputError(f"--library {library!r}: wanted {' or '.join(LIBRARIES)}")


def place(graph: IntGraph, library: Library = "finn", dsp: DspKind = "DSP48E2") -> dict[str, Place]:
    """The place of every node, by name.

    graph: prepared (`prepare`). library "finn": FINN's units wherever they can; "srq": all nodes are ours.
    """
    if library == "srq":
        why = "our library was asked for"
        return {node.name: Place(node.name, node.op, "srq", why) for node in graph.nodes}
    context = _Context(graph, dsp, bounds(graph))
    for node in reversed(graph.nodes):  # a convolution asks where its Requant went
        reason = next(filter(None, (rule(context, node) for rule in _RULES.get(node.op, (_no_rtl,)))), "")
        context.found[node.name] = Place(node.name, node.op, "srq" if reason else "finn", reason)
    return {node.name: context.found[node.name] for node in graph.nodes}


def weight_bits(graph: IntGraph, node: Node) -> int:
    """Width that FINN is told of a convolution's weights: at least RTL_BITS_MIN, so that its matrix unit is RTL."""
    weight = node.params["weight"]
    return max(RTL_BITS_MIN, bits_for(int(weight.min()), int(weight.max()), signed=True))


def accumulator_bits(graph: IntGraph, node: Node, reach: Bounds) -> int:
    """Width of FINN's accumulator of a convolution, which sums from 0 and without the bias.

    `bounds` counts 0 in every product, so partial sums fit; FINN's RTL refuses less than one product.
    """
    bias, image = node.params["bias"], graph.tensors[node.inputs[0]]
    lo, hi = int((reach.lo - bias).min()), int((reach.hi - bias).max())
    product = weight_bits(graph, node) + image.bits - (1 if image.signed else 0)
    return max(product, bits_for(lo, hi, signed=True))


def exact_in_float32(values: Int) -> bool:
    """Whether FINN can store them."""
    return bool((values.astype(np.float32).astype(np.int64) == values).all())


# --- why a node is ours -------------------------------------------------------------------------------------------


def _no_rtl(context: _Context, node: Node) -> str:
    return _WITHOUT_RTL.get(node.op, f"FINN has no {node.op}")


_WITHOUT_RTL = {
    "Add": "FINN adds streams in HLS, of equal scales only",
    "Offset": "FINN adds constants in HLS",
    "Concat": "FINN joins channels in HLS",
    "Slice": "FINN splits channels in HLS",
    "DepthToSpace": "FINN shuffles pixels in HLS",
    "ResizeNearest": "FINN repeats pixels in HLS",
    "ResizeFilter": "FINN has no upsampling by a filter",
}


def _groups(context: _Context, node: Node) -> str:
    groups = node.int_attr("groups")
    return "" if groups == 1 else f"{groups} groups: FINN's RTL matrix unit is dense"


def _padding(context: _Context, node: Node) -> str:
    zero_point = context.graph.tensors[node.inputs[0]].zero_point
    return f"reads a zero point of {zero_point}: FINN pads and multiplies with 0 only" if zero_point else ""


def _datapath(context: _Context, node: Node) -> str:
    """The conditions of FINN's specialize_layers, and float32 weights."""
    image, weight = context.graph.tensors[node.inputs[0]], node.params["weight"]
    if image.bits < RTL_BITS_MIN:
        return f"{image.bits}-bit activations: FINN's RTL matrix unit starts at {RTL_BITS_MIN}"
    acts, most_weight, most_sum = DATAPATH[context.dsp]
    weights = weight_bits(context.graph, node)
    total = accumulator_bits(context.graph, node, context.reach[node.output])
    if image.bits - image.signed >= acts or weights > most_weight or total > most_sum:
        return f"{weights} x {image.bits} bits in sums of {total}: too wide for FINN's matrix unit on a {context.dsp}"
    if context.dsp == "DSP48E1" and int(weight.min()) == -(1 << weights - 1):
        return f"weights down to {int(weight.min())}: FINN's RTL matrix unit on a DSP48E1 leaves that value out"
    return "" if exact_in_float32(weight) else "weights that float32, in which FINN keeps them, does not hold"


def _one_reader(context: _Context, node: Node) -> str:
    """FINN's matrix unit has no bias: it goes into the thresholds behind it."""
    readers = context.graph.consumers(node.output)
    if node.output == context.graph.output or len(readers) != 1 or readers[0].op != "Requant":
        others = [reader.name for reader in readers if reader.op != "Requant"] or ["several nodes or the output"]
        return f"its sum goes to {', '.join(others)}: FINN keeps a bias in the thresholds of one Requant"
    behind = context.found[readers[0].name]
    return f"its Requant {behind.node} is ours" if behind.library == "srq" else ""


def _rises(context: _Context, node: Node) -> str:
    slopes = node.params.get("negative_multiplier")
    falls = slopes is not None and int(slopes.min()) < 0
    return "a negative slope: FINN counts thresholds, and a function that falls has none" if falls else ""


def _levels(context: _Context, node: Node) -> str:
    out = context.graph.tensors[node.output]
    if out.zero_point:
        return f"makes a zero point of {out.zero_point}"
    least, most = THRESHOLD_BITS
    if least <= out.bits <= most:
        return ""
    return f"{out.bits} bits: FINN's threshold layer would need {(1 << out.bits) - 1} thresholds per channel"


def _exact_thresholds(context: _Context, node: Node) -> str:
    source = node.inputs[0]
    reach, maker = context.reach[source], context.graph.producer(source)
    biases = [None, *([maker.params["bias"]] if maker is not None and maker.op == "Conv" else [])]
    largest = max(int(np.abs(end).max()) for end in (reach.lo, reach.hi))
    largest += max(int(np.abs(bias).max()) if bias is not None else 0 for bias in biases)
    if largest < EXACT:
        return ""
    kind = context.graph.tensors[node.output].range
    if all(exact_in_float32(requant_thresholds(node, reach, kind, bias)) for bias in biases):
        return ""
    return f"sums up to {largest} need thresholds that float32, in which FINN keeps them, does not hold"


_RULES: dict[str, tuple[Callable[[_Context, Node], str], ...]] = {
    "Conv": (_groups, _padding, _datapath, _one_reader),
    "Requant": (_rises, _levels, _exact_thresholds),
}
