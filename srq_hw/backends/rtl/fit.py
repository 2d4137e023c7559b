"""How many cycles a frame may take: the wanted rate, or the highest one up to a usual rate that fits the device."""

from __future__ import annotations

from dataclasses import dataclass

from srq_hw.backends.rtl.demand import Demand, demand
from srq_hw.backends.rtl.generate import RtlDesign, generate
from srq_hw.backends.rtl.netlist import Fabric
from srq_hw.graph.ir import IntGraph
from srq_hw.target import DspKind, Resources

#: frames per second tried where the user names none: video, and less where the device is too small for that
LADDER = (60.0, 30.0, 25.0, 20.0, 15.0, 10.0, 5.0, 2.0, 1.0)
#: wide input of a multiplier block, bits
PORTS: dict[DspKind, int] = {"DSP48E1": 25, "DSP48E2": 27, "DSP58": 27}


@dataclass(frozen=True)
class Fitted:
    """A design, the frames per second at the device's clock, DSPs and memories by rule, what is short by how much."""

    design: RtlDesign
    clock_mhz: float
    demand: Demand
    short: dict[str, float]

    @property
    def fps(self) -> float:
        """Frames per second at the clock, if it is reached."""
        return self.clock_mhz * 1e6 / self.design.cycles


def fit(graph: IntGraph, size: tuple[int, int], resources: Resources, fps: float | None = None) -> Fitted:
    """The design for the wanted rate; without one for the highest of LADDER whose DSPs and memories fit.

    size: (H, W) of a frame. Where no rate can be kept or nothing fits, the design says so (`fps`, `short`).
    """
    if fps is not None:
        return _at(graph, size, resources, fps)
    slowest = _at(graph, size, resources, LADDER[-1])
    if slowest.short:
        return slowest
    for rate in LADDER[:-1]:
        found = _at(graph, size, resources, rate)
        if not found.short and found.fps >= rate:
            return found
    return slowest


def fabric_of(resources: Resources) -> Fabric:
    """What the units need to know of the device."""
    return Fabric(port=PORTS[resources.dsp.kind], ultra=resources.uram > 0)


def _at(graph: IntGraph, size: tuple[int, int], resources: Resources, fps: float) -> Fitted:
    cycles = max(1, int(resources.clock_mhz * 1e6 / fps))
    design = generate(graph, size, cycles, fabric=fabric_of(resources))
    wants = demand(design.netlist)
    share = resources.utilization_max
    room = {
        "dsp": (wants.dsp, resources.dsp.count * share),
        "bram36": (wants.bram36, resources.bram36 * share),
        "uram": (wants.uram, resources.uram * share),
    }
    short = {key: need - has for key, (need, has) in room.items() if need > has}
    return Fitted(design, resources.clock_mhz, wants, short)
