"""The folding search: least resources at a rate, the highest rate that fits, and every trade-off between.

found = Search.of(graph, (180, 320), resources)
point = found.at(30.0) or found.highest()
generate(graph, (180, 320), point.folding.wanted, fabric=found.problem.fabric, folding=point.folding)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from srq_hw.backends.rtl.arrange import arrange
from srq_hw.backends.rtl.costs import Cost
from srq_hw.backends.rtl.folding import Folding
from srq_hw.backends.rtl.limits import refuse
from srq_hw.backends.rtl.netlist import PORTS, Fabric
from srq_hw.backends.search.library import Library, srq_library
from srq_hw.backends.search.problem import RESOURCES, Problem, Reals, make_problem
from srq_hw.backends.search.solve import Solution, score_of, solve
from srq_hw.graph.ir import IntGraph
from srq_hw.target import Resources

#: resources as boards count them
BOARD = ("lut", "ff", "dsp", "bram36", "uram")
#: points of a trade-off curve
CURVE_POINTS = 20
#: score at which a curve ends: above 1, nothing fits
CURVE_MOST = 2.0
#: what weights in UltraRAM leave to others: where neither is short they are no help
MEMORIES = frozenset(("bram36", "uram"))
MEGAHERTZ = 1e6


@dataclass(frozen=True)
class Point:
    """A folding and what it takes.

    used, shares: per BOARD, the latter of the whole device; short: what is missing below `utilization_max`.
    fullest: the resource with the largest share. bottleneck: the slowest node, of several the one that is hardest to
    speed up; roof: it has no faster form. weight_bits: bits of weights that all convolutions read per cycle.
    score: what is minimised, the largest share of what a design may take plus a little of all (`solve.score_of`);
    bound: no choice of lanes in so many cycles scores less, 0 where that is not known.
    """

    folding: Folding
    cost: Cost
    clock_mhz: float
    used: Mapping[str, float]
    shares: Mapping[str, float]
    short: Mapping[str, float]
    fullest: str
    bottleneck: str
    roof: bool
    weight_bits: int
    score: float
    bound: float

    @property
    def fps(self) -> float:
        """Frames per second at the clock, if it is reached."""
        return self.clock_mhz * MEGAHERTZ / self.folding.cycles

    @property
    def fits(self) -> bool:
        """Nothing is short."""
        return not self.short

    @property
    def loaded(self) -> tuple[str, ...]:
        """Convolutions with weights in UltraRAM, which a host writes before the first frame."""
        return tuple(name for name, lanes in self.folding.nodes.items() if lanes.weights)

    def row(self) -> dict[str, Any]:
        """As plain values, for a trade-off in a report."""
        head = {"fps": self.fps, "cycles_per_frame": self.folding.cycles, "bottleneck": self.bottleneck}
        return {**head, "fits": self.fits, **self.used, "shares": dict(self.shares)}


def fabric_of(resources: Resources) -> Fabric:
    """What the units need to know of the device."""
    return Fabric(port=PORTS[resources.dsp.kind], ultra=resources.uram > 0)


@dataclass
class Search:
    """A graph on a device. Points that were worked out are remembered; the same question has the same answer.

    problem: without weights that are written at run time; those are looked at where a memory is short without them.
    library: whose units have such weights; None: no unit may have them. base: of a search with them the one without.
    """

    problem: Problem
    resources: Resources
    library: Library | None = None
    base: Search | None = None
    known: dict[int, Solution] = field(default_factory=dict)

    @staticmethod
    def of(
        graph: IntGraph,
        size: tuple[int, int],
        resources: Resources,
        library: Library | None = None,
        loads: bool = True,
    ) -> Search:
        """For frames of size (H, W). InputError for what the units cannot do (`rtl.limits`).

        loads: weights may be written at run time where a memory is short without.
        """
        ready = arrange(graph)
        refuse(ready)
        return Search.ready(ready, size, resources, library or srq_library(), loads)

    @staticmethod
    def ready(
        graph: IntGraph, size: tuple[int, int], resources: Resources, library: Library, loads: bool = True
    ) -> Search:
        """For a graph that is arranged already, as it is."""
        problem = make_problem(graph, size, fabric_of(resources), library)
        return Search(problem, resources, library if loads else None)

    @cached_property
    def loading(self) -> Search | None:
        """The same with weights that are written at run time; None where no unit has them."""
        own = self.problem
        if self.library is None or not own.fabric.ultra:
            return None
        wider = make_problem(own.graph, own.size, own.fabric, self.library, loads=True)
        if not any(lanes.weights for variable in wider.variables for lanes in variable.options):
            return None
        return Search(replace(wider, fixed=own.fixed), self.resources, base=self)

    def at(self, fps: float) -> Point:
        """The least share of the device at a rate; the fastest there is where no folding keeps it."""
        return self._at(cycles_at(fps, self.resources.clock_mhz))

    def with_lanes(self, folding: Folding) -> Point:
        """The same lanes for the cycles that they were chosen for; memories that they leave open are chosen.

        ValueError for lanes that no unit has.
        """
        problem = self._with(folding).problem.only(folding)
        return Search(problem, self.resources)._at(folding.wanted)

    def highest(self, most: float | None = None) -> Point:
        """The highest rate that fits, at most `most`; where none fits, the slowest there is."""
        goals = self.problem.goals
        if most is not None:
            least = cycles_at(most, self.resources.clock_mhz)
            goals = [max(least, goals[0])] + [goal for goal in goals if goal > max(least, goals[0])]
        place = self._highest(goals)
        found = self._own(goals[place])
        faster = self._own(goals[place - 1]) if found.fits and place else found
        if faster.fits or not MEMORIES & faster.short.keys() or self.loading is None:
            return found
        other = self.loading._own(goals[self.loading._highest(goals)])
        return other if other.fits and (other.fps > found.fps or not found.fits) else found

    def _highest(self, goals: list[int]) -> int:
        """Place of the fewest cycles that fit; of the most where none does."""
        first, last = 0, len(goals) - 1
        if self._own(goals[first]).fits:
            return first
        if not self._own(goals[last]).fits:
            return last
        while last - first > 1:  # goals[last] fits, goals[first] does not
            middle = (first + last) // 2
            first, last = (first, middle) if self._own(goals[middle]).fits else (middle, last)
        return last

    def curve(self, points: int = CURVE_POINTS) -> tuple[Point, ...]:
        """From the slowest on, each faster than the one before and none at a lower score.

        Ends with the first that takes CURVE_MOST of what a design may take, or with the fastest there is.
        """
        goals = self.problem.goals
        if len(goals) > points:
            wanted = np.geomspace(goals[0], goals[-1], points)
            goals = sorted({min(goals, key=lambda goal: (abs(np.log(goal / w)), goal)) for w in wanted})
        found: list[Point] = []
        for goal in reversed(goals):
            point = self._at(goal)
            while found and point.score <= found[-1].score:  # as fast and no dearer
                found.pop()
            if not found or point.folding.cycles < found[-1].folding.cycles:
                found.append(point)
            if point.score > CURVE_MOST:
                break
        return tuple(found)

    def corrected(self, thought: Cost, found: Cost) -> Search:
        """The same search where what no choice changes takes as much more, or less, as a design was found to take."""
        more = np.array([getattr(found, key) - getattr(thought, key) for key in RESOURCES], np.int64)
        return Search(replace(self.problem, fixed=self.problem.fixed + more), self.resources, self.library)

    def point(self, folding: Folding) -> Point:
        """What a folding of the same graph takes; ValueError where it has lanes that no unit has."""
        problem = self._with(folding).problem
        amounts = problem.amounts(problem.picks(folding))
        score = score_of(amounts / self._room())
        return self._described(folding, tuple(int(n) for n in amounts), score, 0.0)

    def _room(self) -> Reals:
        r = self.resources
        has = np.array([r.lut, r.ff, r.dsp.count, 2 * r.bram36, r.uram], float) * r.utilization_max
        return np.maximum(has, 0.5)  # of a resource that is not there, one is twice too many

    def _solve(self, goal: int) -> Solution:
        if goal not in self.known:
            begin = [self.problem.picks(self.base._own(goal).folding)] if self.base else []
            self.known[goal] = solve(self.problem, goal, self._room(), begin)
        return self.known[goal]

    def _with(self, folding: Folding) -> Search:
        """That which has the folding's weights."""
        loads = any(lanes.weights for lanes in folding.nodes.values())
        return (self.loading or self) if loads else self

    def _at(self, goal: int) -> Point:
        """Weights are written at run time only where that makes a design fit."""
        found = self._own(goal)
        if not MEMORIES & found.short.keys() or self.loading is None:
            return found
        other = self.loading._own(goal)
        return other if other.fits else found

    def _own(self, goal: int) -> Point:
        """With the options of `problem` alone."""
        found = self._solve(goal)
        folding = self.problem.folding(found.picks, found.goal)
        return self._described(folding, found.amounts, found.score, found.bound)

    def _described(self, folding: Folding, amounts: tuple[int, ...], score: float, bound: float) -> Point:
        cost = Cost(*amounts)
        used = board_counts(cost)
        short = shortage(cost, self.resources)
        has = board_has(self.resources)
        shares = {key: used[key] / has[key] if has[key] else float(used[key] > 0) for key in BOARD}
        fastest = {v.name: int(v.cycles.min()) for v in self.problem.variables[1:]}
        slow = [name for name, lanes in folding.nodes.items() if lanes.cycles == folding.cycles]
        bottleneck = max(slow, key=fastest.__getitem__)
        return Point(
            folding=folding,
            cost=cost,
            clock_mhz=self.resources.clock_mhz,
            used=used,
            shares=shares,
            short=short,
            fullest=max(BOARD, key=shares.__getitem__),
            bottleneck=bottleneck,
            roof=fastest[bottleneck] == folding.cycles,
            weight_bits=self._weight_bits(folding),
            score=score,
            bound=bound,
        )

    def _weight_bits(self, folding: Folding) -> int:
        total = 0
        for name, (bits, depthwise) in self.problem.weights.items():
            pe, simd = folding.nodes[name].core
            total += bits * pe * (1 if depthwise else simd)
        return total


def cycles_at(fps: float, clock_mhz: float) -> int:
    """Cycles per frame that a rate leaves at a clock."""
    return max(1, int(clock_mhz * MEGAHERTZ / fps))


def board_counts(cost: Cost) -> dict[str, float]:
    """A cost as boards count: block RAMs of 36 Kbit, a half is an 18 Kbit one."""
    return {"lut": cost.lut, "ff": cost.ff, "dsp": cost.dsp, "bram36": cost.bram18 / 2, "uram": cost.uram}


def board_has(resources: Resources) -> dict[str, int]:
    """What there is on the device."""
    r = resources
    return {"lut": r.lut, "ff": r.ff, "dsp": r.dsp.count, "bram36": r.bram36, "uram": r.uram}


def shortage(cost: Cost, resources: Resources) -> dict[str, float]:
    """Resource -> how much a design needs beyond what it may take."""
    has = board_has(resources)
    return {
        key: need - has[key] * resources.utilization_max
        for key, need in board_counts(cost).items()
        if need > has[key] * resources.utilization_max
    }
