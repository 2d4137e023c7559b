"""IntGraph and folding -> netlist: units in the order of the graph, forks, width converters, the design's two ends."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from srq_hw.backends.rtl.folding import Folding, Goal, divisors
from srq_hw.backends.rtl.netlist import Instance, Netlist, Stream
from srq_hw.backends.rtl.plan import Plan
from srq_hw.backends.rtl.units import converted, unit
from srq_hw.graph.ir import IntGraph

#: an image of so many channels crosses the design's border a pixel per beat
PIXEL_CHANNELS = 4

#: streams of the top itself and its ends
_RESERVED = frozenset(("s", "m", "w", "image", "entry", "exit", "weights"))
#: a stem begins the names of files
STEM_LENGTH = 80


def verilog_names(names: Iterable[str]) -> dict[str, str]:
    """Each name as a stem of Verilog identifiers of its own (``<stem>_tdata``, ``u_<stem>``); case alone makes no name.

    Long names are cut at STEM_LENGTH.

    Two underscores in a row never stand in one: they mark what belongs to a node, ``conv__copy1``.
    """
    found: dict[str, str] = {}
    taken: set[str] = set(_RESERVED)
    for name in names:
        base = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "node"
        # An instance is u_<stem>, which no stream may be called.
        base = f"n{base}" if base[0].isdigit() or base.lower().startswith("u_") else base
        base = base[:STEM_LENGTH].rstrip("_")
        candidate, count = base, 1
        while candidate.lower() in taken:
            count += 1
            candidate = f"{base}_{count}"
        taken.add(candidate.lower())
        found[name] = candidate
    return found


def stitch(graph: IntGraph, goal: Goal, folding: Folding, name: str) -> Netlist:
    """The design without FIFOs (`schedule` says where they belong).

    graph: arranged (`arrange`), every node reaching the output.
    """
    names = verilog_names(node.name for node in graph.nodes)
    plan = Plan.of(graph, goal, folding, names)
    made: list[Instance] = []
    # Streams that wait for their readers: one per use of a tensor, in the order of the uses.
    waiting: dict[str, list[Stream]] = {}

    def offer(tensor: str, stream: Stream) -> None:
        """Fork the stream as often as the tensor is read."""
        uses = sum(node.inputs.count(tensor) for node in graph.nodes) + (tensor == graph.output)
        waiting[tensor] = []
        base = stream.name
        for index in range(1, uses):
            arm, rest = (replace(stream, name=f"{base}__{word}{index}") for word in ("copy", "rest"))
            ports = {"s": stream, "m0": arm, "m1": rest}
            parameters: dict[str, int | str] = {"BITS": stream.tdata_bits}
            comment = f"copy {index} of {base}"
            made.append(Instance("srq_duplicate", f"{base}__fork{index}", parameters, ports, {}, "", comment))
            waiting[tensor].append(arm)
            stream = rest
        waiting[tensor].append(stream)

    def take(tensor: str, lanes: int) -> Stream:
        """The next copy of a tensor, with the lanes that its reader wants."""
        stream = waiting[tensor].pop(0)
        extra, stream = converted(stream, lanes, f"{stream.name}__x{lanes}")
        made.extend(extra)
        return stream

    image = graph.tensors[graph.input]
    border = image.channels
    if image.channels > PIXEL_CHANNELS:  # as few lanes as keep the pace
        pixels = goal.size[0] * goal.size[1]
        border = next(
            n for n in divisors(image.channels) if pixels * image.channels // n <= max(folding.cycles, pixels)
        )
    entering = plan.stream(graph.input, "s", border)
    inside = replace(entering, name="image")
    parameters: dict[str, int | str] = {
        "HEIGHT": inside.height,
        "WIDTH": inside.width,
        "CHANNELS": inside.channels,
        "LANES": border,
        "BITS": inside.bits,
        "PAD": image.zero_point & ((1 << inside.bits) - 1),
    }
    made.append(Instance("srq_input", "entry", parameters, {"s": entering, "m": inside}, {}, "", "whole frames only"))
    offer(graph.input, inside)
    for node in graph.nodes:
        ins = tuple(
            take(tensor, lanes) for tensor, lanes in zip(node.inputs, folding.nodes[node.name].inputs, strict=True)
        )
        instances = unit(plan, node, ins)
        made.extend(instances)
        offer(node.output, instances[-1].ports["m"])

    result = graph.tensors[graph.output]
    border = result.channels if result.channels <= PIXEL_CHANNELS else waiting[graph.output][-1].lanes
    last = take(graph.output, border)
    leaving = replace(last, name="m")
    parameters = {
        "HEIGHT": last.height,
        "WIDTH": last.width,
        "CHANNELS": last.channels,
        "LANES": last.lanes,
        "BITS": last.bits,
    }
    made.append(
        Instance(
            "srq_output", "exit", parameters, {"s": last, "m": leaving}, {}, "", "tlast on every frame's last beat"
        )
    )
    return Netlist(name, goal.size, entering, leaving, tuple(made))
