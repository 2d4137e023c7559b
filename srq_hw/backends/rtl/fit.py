"""How many cycles a frame may take: the wanted rate, or the highest one up to a usual rate that fits the device.

The folding is the one of `backends.search`; the design that is generated with it has the last word on what it takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from srq_hw.backends.rtl.costs import Cost, design_cost
from srq_hw.backends.rtl.demand import Demand, demand
from srq_hw.backends.rtl.generate import RtlDesign, generate
from srq_hw.backends.search.search import Point, Search, board_has, fabric_of, shortage
from srq_hw.graph.ir import IntGraph
from srq_hw.target import Resources

__all__ = ["USUAL_FPS", "Fitted", "fabric_of", "fit"]

#: frames per second where the user names none and the device has room: video
USUAL_FPS = 60.0
#: searches where the generated design takes more than the rule for its FIFOs said
TRIES = 3


@dataclass(frozen=True)
class Fitted:
    """A design, the frames per second at the device's clock, DSPs and memories by rule, what is short by how much.

    cost: the same with LUTs and flip-flops by formula. search, point: where the folding comes from.
    """

    design: RtlDesign
    clock_mhz: float
    demand: Demand
    short: dict[str, float]
    cost: Cost
    search: Search
    point: Point

    @property
    def fps(self) -> float:
        """Frames per second at the clock, if it is reached."""
        return self.clock_mhz * 1e6 / self.design.cycles


def fit(
    graph: IntGraph, size: tuple[int, int], resources: Resources, fps: float | None = None, loads: bool = True
) -> Fitted:
    """The design for the wanted rate; without one for the highest that fits, USUAL_FPS at most.

    size: (H, W) of a frame. Where no folding keeps the rate or nothing fits, the design says so (`fps`, `short`); of
    several tries that do not fit it is the one that is short of the least. loads: see `Search.of`.
    """
    search = Search.of(graph, size, resources, loads=loads)
    has = board_has(resources)
    tried: list[Fitted] = []
    for _ in range(TRIES):
        point = search.highest(USUAL_FPS) if fps is None else search.at(fps)
        design = generate(graph, size, point.folding.wanted, fabric=search.problem.fabric, folding=point.folding)
        cost = design_cost(design.netlist)
        short = shortage(cost, resources)
        tried.append(Fitted(design, resources.clock_mhz, demand(design.netlist), short, cost, search, point))
        if not short or not point.fits:
            break
        search = search.corrected(point.cost, cost)
    return min(tried, key=lambda one: max((short / max(has[key], 1) for key, short in one.short.items()), default=0.0))
