"""Requant, Add, Offset -> instances: units that compute values one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from srq_hw.backends.rtl import memories
from srq_hw.backends.rtl.netlist import Instance, Stream
from srq_hw.backends.rtl.plan import Plan, frame_parameters, port_parameter, size_text
from srq_hw.fixedpoint import bits_for, thresholds
from srq_hw.graph.check import ends
from srq_hw.graph.ir import Int, Node

#: a requantization to at most so many bits is a search over thresholds: a comparison per bit, no multiplier
THRESHOLD_BITS = 4
#: and of at most so many lanes: srq_threshold's files number them with three digits
THRESHOLD_LANES = 1000


# --- Requant ------------------------------------------------------------------------------------------------------


def requant(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
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
        parameters |= {"MULT_BITS": mult_bits} | port_parameter(plan)
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


def add(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    out = plan.stream(node.output, plan.names[node.name], ins[0].lanes)
    factors = node.ints_attr("multipliers")
    parameters: dict[str, int | str] = {**frame_parameters(out), "LANES": out.lanes}
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
    return (Instance("srq_add", out.name, parameters, ports, {}, node.name, f"exact {text} of {size_text(out)}"),)


def offset(plan: Plan, node: Node, ins: tuple[Stream, ...]) -> tuple[Instance, ...]:
    out = plan.stream(node.output, plan.names[node.name], ins[0].lanes)
    return (_offset_instance(ins[0], out, node.params["offset"], node.name),)


def _offset_instance(source: Stream, out: Stream, offset: Int | None, node: str) -> Instance:
    """offset None: the same values in more bits."""
    file = f"{out.name}.offsets.hex"
    parameters: dict[str, int | str] = {
        **frame_parameters(source),
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
