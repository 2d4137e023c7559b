"""IntGraph node -> instances of library modules. `UNITS` is the table; parameters and memory files are made here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from srq_hw.backends.rtl import memories
from srq_hw.backends.rtl.folding import Folding, Goal, Lanes, conv_shape
from srq_hw.backends.rtl.netlist import FABRIC, Fabric, Instance, Stream
from srq_hw.backends.rtl.resize import filter_conv
from srq_hw.fixedpoint import bits_for, thresholds
from srq_hw.graph.check import bounds, ends
from srq_hw.graph.ir import Int, IntGraph, Node
from srq_hw.graph.opspec import Bounds

#: a requantization to at most so many bits is a search over thresholds: a comparison per bit, no multiplier
THRESHOLD_BITS = 4
#: and of at most so many lanes: srq_threshold's files number them with three digits
THRESHOLD_LANES = 1000
#: a memory that is read only goes into block RAM above so many bits and words
BLOCK_BITS, BLOCK_WORDS = 2048, 64


@dataclass(frozen=True)
class Plan:
    """All that a unit may ask: the graph, the input size (H, W), lanes, intervals, the Verilog name of each node."""

    graph: IntGraph
    size: tuple[int, int]
    folding: Folding
    fabric: Fabric
    names: Mapping[str, str]
    reach: Mapping[str, Bounds]

    @staticmethod
    def of(graph: IntGraph, goal: Goal, folding: Folding, names: Mapping[str, str]) -> Plan:
        """With the intervals that really arrive."""
        return Plan(graph, goal.size, folding, goal.fabric, names, bounds(graph))

    def lanes(self, node: Node) -> Lanes:
        """How many values it works on at once."""
        return self.folding.nodes[node.name]

    def stream(self, tensor: str, name: str, lanes: int) -> Stream:
        """A tensor on the way, `lanes` of its channels in a beat."""
        t = self.graph.tensors[tensor]
        height, width = (side * t.upscale for side in self.size)
        return Stream(name, height, width, t.channels, lanes, t.bits, t.signed)


Unit = Callable[[Plan, Node, tuple[Stream, ...]], tuple[Instance, ...]]


def unit(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    """Instances that compute the node; the last one's stream m is its output, called as the node is."""
    return UNITS[node.op](plan, node, ins)


def _port(plan: Plan) -> dict[str, int]:
    """PORT, where the multipliers are not those of a DSP48E2."""
    return {} if plan.fabric.port == FABRIC.port else {"PORT": plan.fabric.port}


def _rows(lanes: Lanes) -> dict[str, int | str]:
    """RAM_STYLE of a buffer of rows, where one was chosen."""
    return {"RAM_STYLE": lanes.rows} if lanes.rows else {}


def _frame(stream: Stream) -> dict[str, int | str]:
    return {"HEIGHT": stream.height, "WIDTH": stream.width, "CHANNELS": stream.channels}


def _size(stream: Stream) -> str:
    return f"{stream.height}x{stream.width}x{stream.channels}"


def rom_style(text: str, bits: int) -> str:
    """Where a constant memory lives: block RAM where it is large. (UltraRAM cannot be initialised.)"""
    words = text.count("\n")
    return "block" if words > BLOCK_WORDS and words * bits > BLOCK_BITS else "auto"


# --- Conv, ResizeFilter -------------------------------------------------------------------------------------------


def _conv(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    weight, bias, groups = node.params["weight"], node.params["bias"], node.int_attr("groups")
    out = plan.stream(node.output, plan.names[node.name], plan.lanes(node).output)
    return (_conv_instance(plan, node, ins[0], out, weight, bias, groups, edge=0),)


def _conv_instance(
    plan: Plan, node: Node, source: Stream, out: Stream, weight: Int, bias: Int, groups: int, edge: int
) -> Instance:
    """srq_conv with its files. bias without, ZERO_POINT with the correction: the module multiplies raw inputs."""
    zero_point = plan.graph.tensors[node.inputs[0]].zero_point
    shape = conv_shape(plan.graph, node, plan.size, plan.fabric.port)
    pe, simd = plan.lanes(node).core
    raw_bias = bias - zero_point * weight.sum((1, 2, 3))
    bias_bits = bits_for(int(raw_bias.min()), int(raw_bias.max()), signed=True)
    weights_file, bias_file = f"{out.name}.weights.hex", f"{out.name}.bias.hex"
    weights = memories.conv_weights(weight, pe, simd, shape.weight_bits, shape.depthwise)
    parameters: dict[str, int | str] = {
        "HEIGHT": source.height,
        "WIDTH": source.width,
        "CHANNELS_IN": source.channels,
        "CHANNELS_OUT": out.channels,
        "KH": weight.shape[2],
        "KW": weight.shape[3],
        "PE": pe,
        "SIMD": simd,
        "W_BITS": shape.weight_bits,
        "W_NARROW": int(shape.narrow),
        "A_BITS": source.bits,
        "A_SIGNED": int(source.signed),
        "BIAS_BITS": bias_bits,
        "ACC_BITS": out.bits,
        "WEIGHT_FILE": weights_file,
        "BIAS_FILE": bias_file,
        "WEIGHT_STYLE": rom_style(weights, pe * simd * shape.weight_bits),
    }
    optional = {
        "GROUPS": 1 if shape.depthwise else groups,
        "DEPTHWISE": int(shape.depthwise),
        "ZERO_POINT": zero_point,
        "EDGE": edge,
    } | _port(plan)
    parameters |= {key: value for key, value in optional.items() if value != int(key == "GROUPS")}
    if weight.shape[2] * weight.shape[3] > 1:
        parameters |= _rows(plan.lanes(node))
    kind = "depthwise " if shape.depthwise else f"in {groups} groups " if groups > 1 else ""
    rate = f"{simd} lanes" if shape.depthwise else f"{pe} x {simd} products"
    return Instance(
        "srq_conv",
        out.name,
        parameters,
        {"s": source, "m": out},
        {weights_file: weights, bias_file: memories.conv_bias(raw_bias, pe, bias_bits)},
        node.name,
        f"{weight.shape[2]}x{weight.shape[3]} convolution {kind}of {_size(source)} to {out.channels} channels, "
        f"{rate} a cycle, {shape.cycles(pe, simd)} cycles per frame",
    )


def _filter(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    """Fixed weights on windows with repeated edges, one channel per phase, then the shuffle puts phases in place."""
    weight, groups = filter_conv(node, ins[0].channels)
    lanes, factor, name = plan.lanes(node), node.int_attr("factor"), plan.names[node.name]
    wide = plan.graph.tensors[node.output]
    phases = Stream(
        f"{name}__phases", ins[0].height, ins[0].width, int(weight.shape[0]), lanes.core[0], wide.bits, wide.signed
    )
    conv = _conv_instance(plan, node, ins[0], phases, weight, np.zeros(len(weight), np.int64), groups, edge=1)
    extra, beats = converted(phases, lanes.output, f"{name}__beats", node.name)
    out = plan.stream(node.output, name, lanes.output)
    return (conv, *extra, _shuffle_instance(beats, out, factor, 0, node.name, lanes))


# --- Requant ------------------------------------------------------------------------------------------------------


def _requant(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    source = ins[0]
    extra: tuple[Instance, ...] = ()
    if not source.signed:  # accumulators are signed: one bit more says so
        source = replace(source, name=f"{plan.names[node.name]}__signed", bits=source.bits + 1, signed=True)
        extra = (_offset_instance(ins[0], source, None, node.name),)
    out = plan.stream(node.output, plan.names[node.name], source.lanes)
    make = _threshold_instance if _by_thresholds(node, out) else _requant_instance
    return (*extra, make(plan, node, source, out))


def _by_thresholds(node: Node, out: Stream) -> bool:
    """Few levels, all of them in use, none that falls while the accumulator rises, lanes that files can number."""
    slope = node.params.get("negative_multiplier")
    levels = node.int_attr("hi") - node.int_attr("lo") + 1
    rises = slope is None or bool((slope >= 0).all())
    return out.bits <= THRESHOLD_BITS and levels == 1 << out.bits and rises and out.lanes <= THRESHOLD_LANES


def _requant_instance(plan: Plan, node: Node, source: Stream, out: Stream) -> Instance:
    multiplier, shift = node.params["multiplier"], node.params["shift"]
    slope = node.params.get("negative_multiplier")
    per_tensor = all(len(values) == 1 for values in node.params.values())
    count = source.lanes if per_tensor else source.channels
    multiplies = slope is not None or bool((multiplier != 1).any())
    factors = multiplier if slope is None else np.concatenate([multiplier, slope])
    mult_bits = bits_for(int(factors.min()), int(factors.max()), signed=True) if multiplies else 0
    file = f"{out.name}.requant.hex"
    text = memories.requant_entries(
        np.broadcast_to(multiplier, (count,)),
        np.broadcast_to(shift, (count,)),
        None if slope is None else np.broadcast_to(slope, (count,)),
        source.lanes,
        mult_bits,
        int(shift.min()),
        int(shift.max()),
    )
    rounding = node.str_attr("rounding")
    parameters: dict[str, int | str] = {
        "LANES": source.lanes,
        "FOLDS": count // source.lanes,
        "BEATS": source.beats,
        "ACC_BITS": source.bits,
        "OUT_BITS": out.bits,
        "MULTIPLY": int(multiplies),
        "NEGATIVE": int(slope is not None),
        "SHIFT_MIN": int(shift.min()),
        "SHIFT_MAX": int(shift.max()),
        "ROUNDING": memories.ROUNDINGS.index(rounding),
        "ZERO_POINT": node.int_attr("zero_point"),
        "LO": node.int_attr("lo"),
        "HI": node.int_attr("hi"),
    }
    if multiplies:
        parameters |= {"MULT_BITS": mult_bits} | _port(plan)
    if text:
        parameters["FILE"] = file
    what = "PReLU, " if slope is not None else ""
    where = "tensor" if per_tensor else "channel"
    return Instance(
        "srq_requant", out.name, parameters, {"s": source, "m": out}, {file: text} if text else {}, node.name,
        f"{what}{source.bits}-bit accumulators to {out.bits} bits, {rounding}, one ratio per {where}",
    )  # fmt: skip


def _threshold_instance(plan: Plan, node: Node, source: Stream, out: Stream) -> Instance:
    acc_lo, acc_hi = ends(plan.reach[node.inputs[0]])
    found = thresholds(
        node.params["multiplier"], node.params["shift"], node.str_attr("rounding"), node.int_attr("lo"),
        node.int_attr("hi"), acc_lo, acc_hi, node.int_attr("zero_point"), node.params.get("negative_multiplier"),
    )  # fmt: skip
    per_tensor = len(found) == 1
    found = np.broadcast_to(found, (source.lanes if per_tensor else source.channels, found.shape[1]))
    t_bits = bits_for(int(found.min()), int(found.max()), signed=True)
    parameters: dict[str, int | str] = {
        "LANES": source.lanes,
        "FOLDS": len(found) // source.lanes,
        "BEATS": source.beats,
        "ACC_BITS": source.bits,
        "T_BITS": t_bits,
        "BITS": out.bits,
        "LO": node.int_attr("lo"),
        "FILE": f"{out.name}.threshold",
    }
    return Instance(
        "srq_threshold", out.name, parameters, {"s": source, "m": out},
        memories.threshold_steps(found, source.lanes, t_bits, f"{out.name}.threshold"), node.name,
        f"{source.bits}-bit accumulators to {out.bits} bits by binary search over {found.shape[1]} thresholds, "
        f"one list per {'tensor' if per_tensor else 'channel'}",
    )  # fmt: skip


# --- Add, Offset --------------------------------------------------------------------------------------------------


def _add(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    out = plan.stream(node.output, plan.names[node.name], ins[0].lanes)
    factors = node.ints_attr("multipliers")
    parameters: dict[str, int | str] = {**_frame(out), "LANES": out.lanes}
    for side, stream, tensor, factor in zip("AB", ins, node.inputs, factors, strict=True):
        parameters |= {
            f"{side}_BITS": stream.bits,
            f"{side}_SIGNED": int(stream.signed),
            f"{side}_ZERO": plan.graph.tensors[tensor].zero_point,
            f"{side}_FACTOR": factor,
        }
    parameters |= {"FACTOR_BITS": bits_for(0, max(factors), signed=True), "OUT_BITS": out.bits}
    text = "sum" if factors == (1, 1) else f"{factors[0]} a + {factors[1]} b"
    ports = {"a": ins[0], "b": ins[1], "m": out}
    return (Instance("srq_add", out.name, parameters, ports, {}, node.name, f"exact {text} of {_size(out)}"),)


def _offset(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    out = plan.stream(node.output, plan.names[node.name], ins[0].lanes)
    return (_offset_instance(ins[0], out, node.params["offset"], node.name),)


def _offset_instance(source: Stream, out: Stream, offset: Int | None, node: str) -> Instance:
    """offset None: the same values in more bits."""
    file = f"{out.name}.offsets.hex"
    parameters: dict[str, int | str] = {
        **_frame(source),
        "LANES": source.lanes,
        "IN_BITS": source.bits,
        "IN_SIGNED": int(source.signed),
        "OUT_BITS": out.bits,
    }
    files = {}
    if offset is not None:
        parameters["FILE"] = file
        # Added modulo 2**OUT_BITS: the sum fits, the offset alone may not.
        half = 1 << out.bits - 1
        files[file] = memories.offsets((offset + half) % (2 * half) - half, source.lanes, out.bits)
    comment = "a sign bit in front" if offset is None else "one integer per channel added"
    return Instance("srq_offset", out.name, parameters, {"s": source, "m": out}, files, node, comment)


# --- what only moves values ---------------------------------------------------------------------------------------


def _concat(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    """A chain of two-input units; the last one is the node."""
    made: list[Instance] = []
    left = ins[0]
    for index, right in enumerate(ins[1:], 1):
        name = plan.names[node.name] + ("" if index == len(ins) - 1 else f"__{index}")
        out = replace(left, name=name, channels=left.channels + right.channels)
        parameters: dict[str, int | str] = {
            "HEIGHT": out.height,
            "WIDTH": out.width,
            "A_CHANNELS": left.channels,
            "B_CHANNELS": right.channels,
            "LANES": out.lanes,
            "BITS": out.bits,
        }
        comment = f"channels side by side: {left.channels} + {right.channels}"
        made.append(Instance("srq_concat", name, parameters, {"a": left, "b": right, "m": out}, {}, node.name, comment))
        left = out
    return tuple(made)


def _slice(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    out = plan.stream(node.output, plan.names[node.name], ins[0].lanes)
    start, stop = node.int_attr("start"), node.int_attr("stop")
    parameters: dict[str, int | str] = {
        **_frame(ins[0]),
        "FIRST": start,
        "COUNT": stop - start,
        "LANES": out.lanes,
        "BITS": out.bits,
    }
    comment = f"channels {start} to {stop - 1}"
    return (Instance("srq_slice", out.name, parameters, {"s": ins[0], "m": out}, {}, node.name, comment),)


def _shuffle(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    out = plan.stream(node.output, plan.names[node.name], plan.lanes(node).output)
    crd = int(node.str_attr("mode") == "CRD")
    return (_shuffle_instance(ins[0], out, node.int_attr("block"), crd, node.name, plan.lanes(node)),)


def _shuffle_instance(source: Stream, out: Stream, block: int, crd: int, node: str, lanes: Lanes) -> Instance:
    parameters: dict[str, int | str] = {
        **_frame(source),
        "BLOCK": block,
        "CRD": crd,
        "IN_LANES": source.lanes,
        "OUT_LANES": out.lanes,
        "BITS": out.bits,
    } | _rows(lanes)
    comment = f"pixel shuffle x{block}, {'CRD' if crd else 'DCR'} order: {_size(source)} to {_size(out)}"
    return Instance("srq_shuffle", out.name, parameters, {"s": source, "m": out}, {}, node, comment)


def _repeat(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    out = plan.stream(node.output, plan.names[node.name], ins[0].lanes)
    parameters: dict[str, int | str] = {
        **_frame(ins[0]),
        "FACTOR": node.int_attr("factor"),
        "LANES": out.lanes,
        "BITS": out.bits,
    } | _rows(plan.lanes(node))
    comment = f"nearest neighbour: {_size(ins[0])} to {_size(out)}"
    return (Instance("srq_repeat", out.name, parameters, {"s": ins[0], "m": out}, {}, node.name, comment),)


def converted(source: Stream, lanes: int, name: str, node: str = "") -> tuple[tuple[Instance, ...], Stream]:
    """The stream with another number of lanes, and the srq_width that makes it; none where the number is right."""
    if source.lanes == lanes:
        return (), source
    out = replace(source, name=name, lanes=lanes)
    parameters: dict[str, int | str] = {
        **_frame(source),
        "IN_LANES": source.lanes,
        "OUT_LANES": lanes,
        "BITS": source.bits,
    }
    ports = {"s": source, "m": out}
    return (Instance("srq_width", name, parameters, ports, {}, node, f"{source.lanes} lanes to {lanes}"),), out


UNITS: dict[str, Unit] = {
    "Conv": _conv,
    "Requant": _requant,
    "Add": _add,
    "Offset": _offset,
    "Concat": _concat,
    "Slice": _slice,
    "DepthToSpace": _shuffle,
    "ResizeNearest": _repeat,
    "ResizeFilter": _filter,
}
