"""FIFOs where the arms of a fork meet again: how deep by `schedule`, on which stream, in which memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil

from srq_hw.backends.rtl.folding import divisors
from srq_hw.backends.rtl.netlist import Fabric, Instance, Netlist, Stream
from srq_hw.backends.rtl.schedule import steady
from srq_hw.backends.rtl.units import converted

#: beats a FIFO holds beyond the analysis, for registers between the units that the model does not know
SPARE = 16
#: beats that wait in the registers of fork and join, where a beat comes every second cycle or less often
SHORT = 1
#: a FIFO of so many bits goes into UltraRAM where there is any, in words of at most ULTRA_WIDTH bits with tlast
ULTRA_BITS, ULTRA_WIDTH = 1 << 16, 72


#: with more beats per frame, over all streams, the analysis looks at two smaller frames and extends what it finds
DIRECT_BEATS = 10_000_000
#: height of those, where the real one is not smaller: more rows than a network's receptive field; and their two widths
ROWS, WIDTHS = 64, (24, 48)

Size = tuple[int, int]


def with_fifos(stitched: Callable[[Size], Netlist], size: Size, period: int, fabric: Fabric) -> tuple[Netlist, int]:
    """The design with a FIFO on each arm between a fork and a join that has to wait, and its latency in cycles.

    stitched: the design without FIFOs for frames of a size (H, W); all with the same lanes. period: cycles per frame of
    the slowest unit. Latency: from the first beat in to the first out, with a source that sends evenly.
    """
    netlist = stitched(size)
    beats = sum(stream.beats for instance in netlist.instances for _, stream in instance.outputs)
    if beats <= DIRECT_BEATS or size[1] <= WIDTHS[-1]:
        depths, latency = _depths(netlist, period, fabric)
    else:
        depths, latency = _extended(stitched, size, period, fabric)
    return _insert(netlist, depths, fabric)[0], latency


def _extended(
    stitched: Callable[[Size], Netlist], size: Size, period: int, fabric: Fabric
) -> tuple[dict[str, int], int]:
    """Depths and latency from frames of two smaller widths: with lanes and rows given, both grow evenly with the width.

    What waits is rows and pixels of a frame, and every unit takes as many cycles for a pixel whatever the frame's size.
    """
    height, width = size
    rows = min(height, ROWS)
    measured: list[tuple[dict[str, int], int]] = []
    places: Mapping[str, int] | None = None
    for columns in reversed(WIDTHS):
        pace = -(-period * rows * columns // (height * width))
        measured.append(_depths(stitched((rows, columns)), pace, fabric, places))
        places = measured[0][0]
    (wide, wide_latency), (narrow, narrow_latency) = measured
    share = (width - WIDTHS[0]) / (WIDTHS[1] - WIDTHS[0])
    depths = {name: ceil(narrow[name] + max(0, wide[name] - narrow[name]) * share) for name in wide}
    return depths, ceil(narrow_latency + (wide_latency - narrow_latency) * share)


def _depths(
    netlist: Netlist, period: int, fabric: Fabric, places: Mapping[str, int] | None = None
) -> tuple[dict[str, int], int]:
    """Stream -> depth of the FIFO on it, and the latency. places: streams that get one; None: chosen here."""
    depths = _places(netlist, period, fabric) if places is None else dict(places)
    made, late = _insert(netlist, depths, fabric)
    found = steady(made, period)
    return {name: found.waiting(name, late[name].name) + SPARE for name in depths}, found.latency


def _places(netlist: Netlist, period: int, fabric: Fabric) -> dict[str, int]:
    """The streams that get a FIFO, with a first guess of its depth.

    Of the streams along an arm the one takes the FIFO on which it needs the fewest bits, provided that what lies behind
    is fast enough for the bursts of the join (`Schedule.behind`); the join's own stream always qualifies. FIFOs take
    time themselves, and a skip across others holds more for it: where they are follows from the design without FIFOs,
    how deep they are from the one with.
    """
    found = steady(netlist, period)
    made_by = {stream.name: instance for instance in netlist.instances for _, stream in instance.outputs}
    depths: dict[str, int] = {}
    for instance in netlist.instances:
        if len(instance.inputs) < 2:
            continue
        for _, stream in instance.inputs:
            arm = _arm(stream, made_by)
            waits = {s.name: found.waiting(s.name) for s in arm}
            ranked = sorted(arm, key=lambda s: (waits[s.name] * s.tdata_bits, s.name))
            short = SHORT if period >= 2 * max(s.beats for s in arm) else 0
            best = next(s for s in ranked if found.behind(_way(s, arm, made_by)) <= short)
            if waits[best.name] > short:
                depths[best.name] = waits[best.name] + SPARE
    while True:
        found = steady(_insert(netlist, depths, fabric)[0], period)
        # Beside an arm that a FIFO has delayed a direct one may wait now.
        direct = [
            stream
            for instance in netlist.instances
            if len(instance.inputs) > 1
            for _, stream in instance.inputs
            if not any(s.name in depths for s in _arm(stream, made_by))
            and found.waiting(stream.name) > (SHORT if period >= 2 * stream.beats else 0)
        ]
        if not direct:
            return depths
        depths |= {stream.name: SPARE for stream in direct}


def _arm(stream: Stream, made_by: Mapping[str, Instance]) -> list[Stream]:
    """The stream and those before it, up to a fork, a join, or the design's entry."""
    arm = [stream]
    while len(made_by[stream.name].inputs) == 1 and len(made_by[stream.name].outputs) == 1:
        instance = made_by[stream.name]
        if instance.module == "srq_input":
            break
        stream = instance.inputs[0][1]
        arm.append(stream)
    return arm


def _way(stream: Stream, arm: list[Stream], made_by: Mapping[str, Instance]) -> list[Instance]:
    """The units between a stream of an arm and the arm's end."""
    return [made_by[later.name] for later in reversed(arm[: arm.index(stream)])]


def _insert(netlist: Netlist, depths: Mapping[str, int], fabric: Fabric) -> tuple[Netlist, dict[str, Stream]]:
    """The netlist with these FIFOs, and per stream what leaves its FIFO."""
    instances: list[Instance] = []
    renamed: dict[str, Stream] = {}
    for instance in netlist.instances:
        ports = {prefix: renamed.get(stream.name, stream) for prefix, stream in instance.ports.items()}
        instances.append(replace(instance, ports=ports))
        for _, stream in instance.outputs:
            if stream.name in depths:
                made, renamed[stream.name] = _fifo(stream, depths[stream.name], fabric)
                instances += made
    return replace(netlist, instances=tuple(instances)), renamed


def _fifo(stream: Stream, depth: int, fabric: Fabric) -> tuple[list[Instance], Stream]:
    """A FIFO for so many beats and what leaves it; in UltraRAM with as many values to a word as its width takes."""
    comment = f"waits up to {depth} beats for the other arm"
    ultra = fabric.ultra and depth * stream.tdata_bits >= ULTRA_BITS
    wide = stream
    before: tuple[Instance, ...] = ()
    if ultra:
        before, wide = converted(stream, _packed(stream), f"{stream.name}__words")
    out = replace(wide, name=f"{stream.name}__fifo")
    parameters: dict[str, int | str] = {
        "BITS": wide.tdata_bits,
        "DEPTH": -(-depth * stream.lanes // wide.lanes) + (1 if before else 0),
    }
    if ultra:
        parameters["RAM_STYLE"] = "ultra"
    fifo = Instance("srq_fifo", out.name, parameters, {"s": wide, "m": out}, {}, "", comment)
    after, narrow = converted(out, stream.lanes, f"{stream.name}__late")
    return [*before, fifo, *after], narrow


def _packed(stream: Stream) -> int:
    """Lanes of a word: a multiple of the stream's that divides the channels and fits."""
    fitting = [
        lanes for lanes in divisors(stream.channels) if lanes % stream.lanes == 0 and lanes * stream.bits < ULTRA_WIDTH
    ]
    return fitting[-1] if fitting else stream.lanes
