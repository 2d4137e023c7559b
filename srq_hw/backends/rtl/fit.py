"""How many cycles a frame may take: the wanted rate, or the highest one up to a usual rate that fits the device."""

from __future__ import annotations

from dataclasses import dataclass

from srq_hw.backends.rtl.demand import Demand, demand
from srq_hw.backends.rtl.generate import RtlDesign, generate
from srq_hw.graph.ir import IntGraph
from srq_hw.target import Resources

#: frames per second tried where the user names none: video, and less where the device is too small for that
LADDER = (60.0, 30.0, 25.0, 20.0, 15.0, 10.0, 5.0, 2.0, 1.0)


@dataclass(frozen=True)
class Fitted:
    """A design, the frames per second at the device's clock, DSPs and block RAMs by rule, what is short by how much."""

    design: RtlDesign
    clock_mhz: float
    demand: Demand
    short: dict[str, float]

    @property
    def fps(self) -> float:
        """Frames per second at the clock, if it is reached."""
        return self.clock_mhz * 1e6 / self.design.cycles


def fit(graph: IntGraph, size: tuple[int, int], resources: Resources, fps: float | None = None) -> Fitted:
    """The design for the wanted rate; without one for the highest of LADDER whose DSPs and block RAMs fit.

    size: (H, W) of a frame. Where no rate can be kept or nothing fits, the design says so (`fps`, `short`).
    """
    if fps is not None:
        return _at(graph, size, resources, fps)
    for rate in LADDER:
        found = _at(graph, size, resources, rate)
        if not found.short and found.fps >= rate:
            return found
    return found


def _at(graph: IntGraph, size: tuple[int, int], resources: Resources, fps: float) -> Fitted:
    design = generate(graph, size, max(1, int(resources.clock_mhz * 1e6 / fps)))
    wants = demand(design.netlist)
    share = resources.utilization_max
    room = {"dsp": (wants.dsp, resources.dsp.count * share), "bram36": (wants.bram36, resources.bram36 * share)}
    short = {key: need - has for key, (need, has) in room.items() if need > has}
    return Fitted(design, resources.clock_mhz, wants, short)
