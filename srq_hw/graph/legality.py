"""Is the graph legal on the target? One function per rule; every broken one is named with what is allowed instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from srq_hw.fixedpoint import PRODUCT_LIMIT, bits_for
from srq_hw.graph.check import bounds, ends, prove_accumulators
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.opspec import Bounds
from srq_hw.target import Target

Reach = dict[str, Bounds]


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
    widest = max(int(abs(factor).max()) for factor in factors)
    slope_bits = target.integer.ops.Requant.slope_bits
    limit = 1 if rule.kind == "pow2" else (1 << (rule.multiplier_bits or 1)) - 1
    if rule.kind == "pow2" and slope_bits and "negative_multiplier" in node.params:
        unit = 1 << slope_bits  # a slope n / 2**slope_bits: the positive side is a shift all the same
        limit = int(target.integer.ops.Requant.slope_max * unit)
        if not bool((multiplier == unit).all()):
            found.append(
                Diagnostic(
                    node.name,
                    "integer.ops.Requant.slope_bits",
                    f"multiplier {int(multiplier.max())} above 0",
                    f"{unit}",
                    "Requantize with the target's kind.",
                )
            )
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
    lo, hi = ends(reach[node.inputs[0]])
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


def _meets_a_conv(graph: IntGraph, name: str) -> bool:
    """Whether the integers are a convolution's operand; a sum may take wider ones (integer.ops.Add.bits_max)."""
    readers = [node for node in graph.nodes if name in node.inputs]
    return any(
        node.op not in ("Add", "Requant") and (node.op == "Conv" or _meets_a_conv(graph, node.output))
        for node in readers
    )


def _activation_rule(graph: IntGraph, node: Node, target: Target, reach: Reach) -> list[Diagnostic]:
    if node.op != "Requant":
        return []
    rule, out, found = target.integer.activations, graph.tensors[node.output], []
    limit = rule.bits.max if _meets_a_conv(graph, node.output) else max(rule.bits.max, target.integer.sums_bits_max)
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
    if "negative_multiplier" in node.params and slope_rule.slope_min >= 0 > int(
        node.params["negative_multiplier"].min()
    ):
        found.append(
            Diagnostic(
                node.name,
                "integer.ops.Requant.slope_min",
                "a negative slope",
                f">= {slope_rule.slope_min:g}",
                "Use ReLU, or put the PReLU between two convolutions.",
            )
        )
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


def _resize_rule(graph: IntGraph, node: Node, target: Target, reach: Reach) -> list[Diagnostic]:
    limits = {"ResizeNearest": target.integer.ops.ResizeNearest, "ResizeFilter": target.integer.ops.ResizeFilter}
    limit = limits.get(node.op)
    if limit is None or node.int_attr("factor") <= limit.factor_max:
        return []
    return [
        Diagnostic(
            node.name,
            f"integer.ops.{node.op}.factor_max",
            f"factor {node.attrs['factor']}",
            f"<= {limit.factor_max}",
            "Use a network of a smaller scale.",
        )
    ]


RULES: tuple[Callable[[IntGraph, Node, Target, Reach], list[Diagnostic]], ...] = (
    _op_rule,
    _weight_rule,
    _conv_rule,
    _requant_rule,
    _activation_rule,
    _scale_rule,
    _shuffle_rule,
    _resize_rule,
)
