"""Is the graph well formed, legal on the target, and does every accumulator fit? Answers node by node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from srq_hw.errors import InputError
from srq_hw.fixedpoint import PRODUCT_LIMIT, bits_for
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.ops import OPS, Bounds
from srq_hw.target import Target

#: ops that move integers about: the output has the type of the input
SAME_TYPE_OPS = ("Concat", "DepthToSpace", "ResizeNearest")
#: widest tensor int64 can hold with room for a sign
WIDEST = 62


@dataclass(frozen=True)
class Diagnostic:
    """One broken rule: where, what was found, what is allowed, what to do."""

    node: str
    rule: str
    found: str
    allowed: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.node}: {self.rule}: {self.found}; allowed: {self.allowed}. {self.remedy}"


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
    lo, hi = _ends(reach[node.output])
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
    """For every Conv and Add, the exact worst case against the target's accumulator width."""
    reach = bounds(graph)
    return [
        AccumulatorProof(node.name, node.op, lo, hi, bits_for(lo, hi, signed=True), target.integer.accumulator.bits)
        for node in graph.nodes
        if node.op in ("Conv", "Add")
        for lo, hi in [_ends(reach[node.output])]
    ]


def _ends(reach: Bounds) -> tuple[int, int]:
    return int(reach.lo.min()), int(reach.hi.max())


# --- legality per target: one function per rule -------------------------------------------------------------------


def legality(graph: IntGraph, target: Target) -> list[Diagnostic]:
    """Every rule of the target that the graph breaks; empty where the target can run it."""
    reach = bounds(graph)
    found = [item for node in graph.nodes for rule in RULES for item in rule(graph, node, target, reach)]
    found += _image_rule(graph, target)
    for proof in prove_accumulators(graph, target):
        if not proof.holds:
            found.append(
                Diagnostic(
                    proof.node,
                    "integer.accumulator.bits",
                    f"[{proof.lo}, {proof.hi}] needs {proof.bits} bits",
                    f"{proof.limit_bits} bits",
                    "Use fewer weight or activation bits, or a target with a wider accumulator.",
                )
            )
    return found


def _image_rule(graph: IntGraph, target: Target) -> list[Diagnostic]:
    widest = max(
        [graph.tensors[graph.input].bits, *(graph.tensors[n.output].bits for n in graph.nodes if n.op == "Offset")]
    )
    limit = target.integer.image.bits_max
    if widest <= limit:
        return []
    return [
        Diagnostic(
            graph.input, "integer.image.bits_max", f"{widest} bits", f"{limit}", "Use a network without mean shift."
        )
    ]


Reach = dict[str, Bounds]


def _op_rule(graph: IntGraph, node: Node, target: Target, reach: Reach) -> list[Diagnostic]:
    allowed = target.integer.ops.names()
    if node.op == "Offset" or node.op in allowed:
        return []
    return [
        Diagnostic(
            node.name,
            "integer.ops",
            node.op,
            ", ".join(allowed),
            "Rewrite the network without it or choose another target.",
        )
    ]


def _weight_rule(graph: IntGraph, node: Node, target: Target, reach: Reach) -> list[Diagnostic]:
    if node.op != "Conv":
        return []
    rule, weight = target.integer.weights, node.params["weight"]
    lo, hi = int(weight.min()), int(weight.max())
    found = []
    if bits_for(lo, hi, signed=True) > rule.bits.max or (rule.narrow_range and lo <= -(1 << (rule.bits.max - 1))):
        narrow = " narrow (no most negative value)" if rule.narrow_range else ""
        found.append(
            Diagnostic(
                node.name,
                "integer.weights.bits",
                f"[{lo}, {hi}]",
                f"signed {rule.bits.max} bits{narrow}",
                "Use --weight-bits.",
            )
        )
    bias = node.params["bias"]
    bias_bits = bits_for(int(bias.min()), int(bias.max()), signed=True)
    if bias_bits > target.integer.bias.bits:
        found.append(
            Diagnostic(
                node.name,
                "integer.bias.bits",
                f"{bias_bits} bits",
                f"{target.integer.bias.bits}",
                "Use coarser weight scales.",
            )
        )
    return found


def _conv_rule(graph: IntGraph, node: Node, target: Target, reach: Reach) -> list[Diagnostic]:
    limits = target.integer.ops.Conv
    if node.op != "Conv" or limits is None:
        return []
    kernel, groups = max(node.params["weight"].shape[2:]), node.int_attr("groups")
    found = []
    if kernel > limits.kernel_max:
        found.append(
            Diagnostic(
                node.name, "integer.ops.Conv.kernel_max", f"{kernel}", f"{limits.kernel_max}", "Split the kernel."
            )
        )
    if groups != 1 and not limits.groups:
        found.append(
            Diagnostic(
                node.name, "integer.ops.Conv.groups", f"{groups} groups", "1", "Expand it to a dense convolution."
            )
        )
    return found


def _requant_rule(graph: IntGraph, node: Node, target: Target, reach: Reach) -> list[Diagnostic]:
    if node.op != "Requant":
        return []
    rule, found = target.integer.requant, []
    multiplier, shift = node.params["multiplier"], node.params["shift"]
    if node.str_attr("rounding") != rule.rounding:
        found.append(
            Diagnostic(
                node.name,
                "integer.requant.rounding",
                node.str_attr("rounding"),
                rule.rounding,
                "Export with the target's rule.",
            )
        )
    factors = [multiplier] + [node.params[key] for key in ("negative_multiplier",) if key in node.params]
    widest = max(int(factor.max()) for factor in factors)
    limit = 1 if rule.kind == "pow2" else (1 << (rule.multiplier_bits or 1)) - 1
    if widest > limit:
        found.append(
            Diagnostic(
                node.name,
                f"integer.requant ({rule.kind})",
                f"multiplier {widest}",
                f"<= {limit}",
                "Requantize with the target's kind.",
            )
        )
    if int(shift.max()) > rule.shift_max:
        found.append(
            Diagnostic(
                node.name,
                "integer.requant.shift_max",
                f"shift {int(shift.max())}",
                f"<= {rule.shift_max}",
                "A range is almost empty: widen it.",
            )
        )
    lo, hi = _ends(reach[node.inputs[0]])
    left = 1 << max(0, -int(shift.min()))
    half = 1 << max(0, int(shift.max()) - 1)
    if max(abs(lo), abs(hi)) * widest * left + half >= PRODUCT_LIMIT:
        found.append(
            Diagnostic(
                node.name,
                "64-bit product",
                f"{max(abs(lo), abs(hi))} * {widest} * {left}",
                "below 2**62",
                "Use a narrower multiplier.",
            )
        )
    return found


def _activation_rule(graph: IntGraph, node: Node, target: Target, reach: Reach) -> list[Diagnostic]:
    if node.op != "Requant":
        return []
    rule, out, found = target.integer.activations, graph.tensors[node.output], []
    limit = rule.bits.max
    if node.output == graph.output:
        limit = max(limit, 8)  # the image that leaves is 8 bits wide whatever the layers use
    if out.bits > limit:
        found.append(
            Diagnostic(node.name, "integer.activations.bits", f"{out.dtype}", f"<= {limit} bits", "Use --act-bits.")
        )
    if out.zero_point and not rule.zero_points:
        found.append(
            Diagnostic(
                node.name,
                "integer.activations.zero_points",
                f"zero point {out.zero_point}",
                "0",
                "Quantize symmetrically.",
            )
        )
    slope_rule = target.integer.ops.Requant
    if "negative_multiplier" in node.params and (slope_rule is None or "prelu" not in slope_rule.activations):
        found.append(Diagnostic(node.name, "integer.ops.Requant.activations", "prelu", "relu, none", "Use ReLU."))
    return found


def _scale_rule(graph: IntGraph, node: Node, target: Target, reach: Reach) -> list[Diagnostic]:
    if node.op == "Add" and target.integer.add.equal_scales and set(node.ints_attr("multipliers")) != {1}:
        return [
            Diagnostic(
                node.name,
                "integer.add.equal_scales",
                f"multipliers {node.attrs['multipliers']}",
                "1, 1",
                "Share the quantizer of both inputs.",
            )
        ]
    return []


def _shuffle_rule(graph: IntGraph, node: Node, target: Target, reach: Reach) -> list[Diagnostic]:
    limits = target.integer.ops.DepthToSpace
    if node.op != "DepthToSpace" or limits is None:
        return []
    block, mode, found = node.int_attr("block"), node.str_attr("mode"), []
    if block > limits.block_max:
        found.append(
            Diagnostic(
                node.name,
                "integer.ops.DepthToSpace.block_max",
                f"block {block}",
                f"<= {limits.block_max}",
                "Shuffle in two steps or use a network of a smaller scale.",
            )
        )
    if mode not in limits.modes:
        found.append(
            Diagnostic(
                node.name,
                "integer.ops.DepthToSpace.modes",
                mode,
                ", ".join(limits.modes),
                "Reorder the channels of the convolution in front.",
            )
        )
    return found


RULES: tuple[Callable[[IntGraph, Node, Target, Reach], list[Diagnostic]], ...] = (
    _op_rule,
    _weight_rule,
    _conv_rule,
    _requant_rule,
    _activation_rule,
    _scale_rule,
    _shuffle_rule,
)
