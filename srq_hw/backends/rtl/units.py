"""IntGraph node -> instances of library modules. `UNITS` is the table; parameters and memory files are made here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from srq_hw.backends.rtl import memories, value_units
from srq_hw.backends.rtl.folding import Lanes, conv_shape
from srq_hw.backends.rtl.netlist import CONV, CONV_LOAD, LOAD_BITS, Instance, Stream
from srq_hw.backends.rtl.plan import Plan, frame_parameters, port_parameter, rows_parameter, size_text
from srq_hw.backends.rtl.resize import filter_conv
from srq_hw.fixedpoint import bits_for
from srq_hw.graph.ir import Int, Node

#: a memory that is read only goes into block RAM above so many bits and words
BLOCK_BITS, BLOCK_WORDS = 2048, 64


Unit = Callable[[Plan, Node, tuple[Stream, ...]], tuple[Instance, ...]]


def unit(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    """Instances that compute the node; the last one's stream m is its output, called as the node is."""
    return UNITS[node.op](plan, node, ins)


def rom_style(words: int, bits: int) -> str:
    """Where a constant memory lives: block RAM where it is large. (UltraRAM starts without contents.)"""
    return "block" if words > BLOCK_WORDS and words * bits > BLOCK_BITS else "auto"


# --- Conv, ResizeFilter -------------------------------------------------------------------------------------------


def _conv(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    weight, bias, groups = node.params["weight"], node.params["bias"], node.int_attr("groups")
    out = plan.stream(node.output, plan.names[node.name], plan.lanes(node).output)
    return (_conv_instance(plan, node, ins[0], out, weight, bias, groups, edge=0),)


def _conv_instance(
    plan: Plan, node: Node, source: Stream, out: Stream, weight: Int, bias: Int, groups: int, edge: int
) -> Instance:
    """srq_conv with its files, or srq_conv_load with what it is sent.

    bias without, ZERO_POINT with the correction: the module multiplies raw inputs.
    """
    zero_point = plan.graph.tensors[node.inputs[0]].zero_point
    shape = conv_shape(plan.graph, node, plan.size, plan.fabric.port)
    pe, simd = plan.lanes(node).core
    raw_bias = bias - zero_point * weight.sum((1, 2, 3))
    bias_bits = bits_for(int(raw_bias.min()), int(raw_bias.max()), signed=True)
    bias_file = f"{out.name}.bias.hex"
    files = {bias_file: memories.conv_bias(raw_bias, pe, bias_bits)}
    weights = memories.conv_weights(weight, pe, simd, shape.weight_bits, shape.depthwise)
    loads: tuple[int, ...] = ()
    held: dict[str, int | str]
    if plan.lanes(node).weights:
        loads = memories.load_beats(weights, shape.word_bits(pe, simd), LOAD_BITS)
        held = {"LOAD": LOAD_BITS, "WEIGHT_STYLE": plan.lanes(node).weights}
    else:
        files[f"{out.name}.weights.hex"] = weights
        held = {
            "WEIGHT_FILE": f"{out.name}.weights.hex",
            "WEIGHT_STYLE": rom_style(weights.count("\n"), pe * simd * shape.weight_bits),
        }
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
        "BIAS_FILE": bias_file,
        **held,
    }
    optional = {
        "GROUPS": 1 if shape.depthwise else groups,
        "DEPTHWISE": int(shape.depthwise),
        "ZERO_POINT": zero_point,
        "EDGE": edge,
    } | port_parameter(plan)
    parameters |= {key: value for key, value in optional.items() if value != int(key == "GROUPS")}
    if weight.shape[2] * weight.shape[3] > 1:
        parameters |= rows_parameter(plan.lanes(node))
    kind = "depthwise " if shape.depthwise else f"in {groups} groups " if groups > 1 else ""
    rate = f"{simd} lanes" if shape.depthwise else f"{pe} x {simd} products"
    return Instance(
        CONV_LOAD if loads else CONV,
        out.name,
        parameters,
        {"s": source, "m": out},
        files,
        node.name,
        f"{weight.shape[2]}x{weight.shape[3]} convolution {kind}of {size_text(source)} to {out.channels} channels, "
        f"{rate} a cycle, {shape.cycles(pe, simd)} cycles per frame",
        loads,
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
        **frame_parameters(ins[0]),
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
        **frame_parameters(source),
        "BLOCK": block,
        "CRD": crd,
        "IN_LANES": source.lanes,
        "OUT_LANES": out.lanes,
        "BITS": out.bits,
    } | rows_parameter(lanes)
    comment = f"pixel shuffle x{block}, {'CRD' if crd else 'DCR'} order: {size_text(source)} to {size_text(out)}"
    return Instance("srq_shuffle", out.name, parameters, {"s": source, "m": out}, {}, node, comment)


def _repeat(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    out = plan.stream(node.output, plan.names[node.name], ins[0].lanes)
    parameters: dict[str, int | str] = {
        **frame_parameters(ins[0]),
        "FACTOR": node.int_attr("factor"),
        "LANES": out.lanes,
        "BITS": out.bits,
    } | rows_parameter(plan.lanes(node))
    comment = f"nearest neighbour: {size_text(ins[0])} to {size_text(out)}"
    return (Instance("srq_repeat", out.name, parameters, {"s": ins[0], "m": out}, {}, node.name, comment),)


def converted(source: Stream, lanes: int, name: str, node: str = "") -> tuple[tuple[Instance, ...], Stream]:
    """The stream with another number of lanes, and the srq_width that makes it; none where the number is right."""
    if source.lanes == lanes:
        return (), source
    out = replace(source, name=name, lanes=lanes)
    parameters: dict[str, int | str] = {
        **frame_parameters(source),
        "IN_LANES": source.lanes,
        "OUT_LANES": lanes,
        "BITS": source.bits,
    }
    ports = {"s": source, "m": out}
    return (Instance("srq_width", name, parameters, ports, {}, node, f"{source.lanes} lanes to {lanes}"),), out


UNITS: dict[str, Unit] = {
    "Conv": _conv,
    "Requant": value_units.requant,
    "Add": value_units.add,
    "Offset": value_units.offset,
    "Concat": _concat,
    "Slice": _slice,
    "DepthToSpace": _shuffle,
    "ResizeNearest": _repeat,
    "ResizeFilter": _filter,
}
