"""The search as tables: options of every node with cycles and cost, costs of the width converters between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from srq_hw.backends.rtl.costs import Cost
from srq_hw.backends.rtl.folding import Folding, Goal, Lanes, conv_shape, divisors, fold
from srq_hw.backends.rtl.netlist import Fabric, Instance, Stream
from srq_hw.backends.rtl.plan import Plan
from srq_hw.backends.rtl.stitch import PIXEL_CHANNELS, verilog_names
from srq_hw.backends.search.library import Library
from srq_hw.backends.search.skips import fifo_cost
from srq_hw.graph.ir import Int, IntGraph

Size = tuple[int, int]
Reals = npt.NDArray[np.float64]

#: order of every cost vector
RESOURCES = ("lut", "ff", "dsp", "bram18", "uram")
#: what brings the image in is the first variable
ENTRY = ""


@dataclass(frozen=True, eq=False)
class Variable:
    """A node ("": the entry) and what it may be: lanes, cycles per frame int64 (n,), cost int64 (n, 5)."""

    name: str
    options: tuple[Lanes, ...]
    cycles: Int
    costs: Int

    def worth(self, in_time: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Those of the options that are worth choosing: none with the same streams takes less and not more."""
        found = in_time.copy()
        for group, cheaper in self._groups:
            own = in_time[group]
            found[group] = own & ~(cheaper & own).any(1)
        return found

    @cached_property
    def _groups(self) -> list[tuple[Int, npt.NDArray[np.bool_]]]:
        """Per lanes of the streams: its options, and whether one (row) costs as much as another (column) or more."""
        places: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for index, lanes in enumerate(self.options):
            places.setdefault((lanes.inputs, lanes.output), []).append(index)
        found = []
        for group in map(np.array, places.values()):
            own = self.costs[group]
            least = (own[:, None] >= own[None]).all(-1)
            first = np.arange(len(group))
            found.append((group, least & (~least.T | (first[:, None] > first[None]))))
        return found


@dataclass(frozen=True, eq=False)
class Edge:
    """A stream from a variable to a reader: converters by output and input lanes, int64 (sources, readers, 5)."""

    source: int
    reader: int
    costs: Int


@dataclass(frozen=True, eq=False)
class Problem:
    """All that a search needs. graph: arranged. fixed: cost (5,) that no choice changes: FIFOs, ends of the design."""

    graph: IntGraph
    size: Size
    fabric: Fabric
    variables: tuple[Variable, ...]
    edges: tuple[Edge, ...]
    fixed: Int
    fifos: Cost
    weights: dict[str, tuple[int, bool]]  #: convolution -> bits of a weight, depthwise or not
    given: Folding | None = None  #: lanes that stay as they are

    @property
    def slowest(self) -> int:
        """Cycles of the design with the fewest lanes everywhere."""
        return max(int(v.cycles.max()) for v in self.variables[1:])

    @property
    def fastest(self) -> int:
        """Cycles that no choice goes below."""
        return max(int(v.cycles.min()) for v in self.variables[1:])

    @property
    def goals(self) -> list[int]:
        """Every number of cycles at which the design's choices change, ascending."""
        every = {int(value) for v in self.variables[1:] for value in v.cycles}
        return sorted(value for value in every if value >= self.fastest)

    def cycles(self, picks: Sequence[int]) -> int:
        """Cycles per frame of a choice."""
        return max(int(v.cycles[pick]) for v, pick in zip(self.variables[1:], picks[1:], strict=True))

    def folding(self, picks: Sequence[int], goal: int) -> Folding:
        """The lanes of a choice, for the generator."""
        return Folding(goal, {v.name: v.options[i] for v, i in zip(self.variables[1:], picks[1:], strict=True)})

    def picks(self, folding: Folding) -> list[int]:
        """The choice that a folding is; its first memories where it names none. ValueError for lanes no unit has."""
        picks = [0] + [_matching(v, folding.nodes[v.name])[0] for v in self.variables[1:]]
        return [self.entry(self.cycles(picks)), *picks[1:]]

    def ruled(self, goal: int) -> list[int]:
        """The choice of `rtl.folding.fold`: each node's cheapest form by rule.

        A unit that takes longer than ours would gets its first form that is fast enough.
        """
        picks = self.picks(self.given or fold(self.graph, Goal(self.size, goal, self.fabric)))
        for index, (variable, pick) in enumerate(zip(self.variables[1:], picks[1:], strict=True), 1):
            if variable.cycles[pick] > goal:  # units of this library take longer than ours
                picks[index] = int(np.argmax(variable.cycles <= goal))
        return [self.entry(goal), *picks[1:]]

    def only(self, folding: Folding) -> Problem:
        """The same with the lanes of a folding; memories that it leaves open are still to be chosen."""
        kept = [list(range(len(self.variables[0].options)))]
        kept += [_matching(v, folding.nodes[v.name]) for v in self.variables[1:]]
        variables = tuple(
            Variable(v.name, tuple(v.options[i] for i in own), v.cycles[own], v.costs[own])
            for v, own in zip(self.variables, kept, strict=True)
        )
        edges = tuple(replace(e, costs=e.costs[np.ix_(kept[e.source], kept[e.reader])]) for e in self.edges)
        return replace(self, variables=variables, edges=edges, given=folding)

    def entry(self, cycles: int) -> int:
        """The option of the entry that the generator takes: as few lanes as keep the pace."""
        pixels = self.size[0] * self.size[1]
        return int(np.argmax(self.variables[0].cycles <= max(cycles, pixels)))

    def amounts(self, picks: Sequence[int]) -> Int:
        """What a choice costs in all, int64 (5,)."""
        total = self.fixed.copy()
        for variable, pick in zip(self.variables, picks, strict=True):
            total += variable.costs[pick]
        for edge in self.edges:
            total += edge.costs[picks[edge.source], picks[edge.reader]]
        return total


def _matching(variable: Variable, lanes: Lanes) -> list[int]:
    found = [
        index
        for index, option in enumerate(variable.options)
        if option.same_streams(lanes)
        and (option.rows, option.weights) == (lanes.rows, lanes.weights)
        and lanes.memories in ((), option.memories)
    ]
    if not found:
        raise ValueError(f"{variable.name}: no unit has {lanes}")
    return found


def make_problem(graph: IntGraph, size: Size, fabric: Fabric, library: Library, loads: bool = False) -> Problem:
    """The tables of an arranged graph for frames of size (H, W). loads: with weights that are written at run time."""
    options = {node.name: library.lanes(graph, node, size, fabric, loads) for node in graph.nodes}
    first = Folding(1, {name: found[0] for name, found in options.items()})
    plan = Plan.of(graph, Goal(size, 1, fabric), first, verilog_names(options))
    made_by = {graph.input: 0} | {node.output: index for index, node in enumerate(graph.nodes, 1)}

    variables = [_entry(plan, library)]
    for node in graph.nodes:
        found = options[node.name]
        own = np.array([_vector(cost) for cost in library.node(plan, node, found)], np.int64)
        own += _behind(plan, library, node.output, [lanes.output for lanes in found])
        cycles = np.array([lanes.cycles for lanes in found], np.int64)
        variables.append(Variable(node.name, found, cycles, own))
    edges = [
        Edge(made_by[name], index, _converters(plan, library, name, variables, made_by[name], index, port))
        for index, node in enumerate(graph.nodes, 1)
        for port, name in enumerate(node.inputs)
    ]
    fifos = fifo_cost(graph, size, fabric, library)
    return Problem(
        graph, size, fabric, tuple(variables), tuple(edges), np.array(_vector(fifos), np.int64), fifos,
        _weights(graph, size),
    )  # fmt: skip


def _vector(cost: Cost) -> tuple[int, ...]:
    return cost.lut, cost.ff, cost.dsp, cost.bram18, cost.uram


def _entry(plan: Plan, library: Library) -> Variable:
    image = plan.graph.tensors[plan.graph.input]
    pixels = plan.size[0] * plan.size[1]
    whole = library.ends and image.channels <= PIXEL_CHANNELS
    found = [image.channels] if whole else divisors(image.channels)
    streams = [plan.stream(image.name, "image", lanes) for lanes in found]
    pad = {"PAD": image.zero_point & ((1 << image.bits) - 1)}
    ends = [Instance("srq_input", "entry", _frame(s) | pad, {"s": s, "m": s}) for s in streams]
    own = np.array([_vector(library.instance(end)) for end in ends], np.int64)
    own += _behind(plan, library, image.name, found)
    cycles = np.array([pixels * image.channels // lanes for lanes in found], np.int64)
    return Variable(ENTRY, tuple(Lanes((), n, int(c)) for n, c in zip(found, cycles, strict=True)), cycles, own)


def _behind(plan: Plan, library: Library, tensor: str, lanes: list[int]) -> Int:
    """Forks of a node's output and, where it leaves the design, what stands there; int64 (options, 5)."""
    graph = plan.graph
    leaves = tensor == graph.output
    uses = sum(node.inputs.count(tensor) for node in graph.nodes) + leaves
    found: dict[int, tuple[int, ...]] = {}
    for count in set(lanes):
        stream = plan.stream(tensor, "out", count)
        ports = {"s": stream, "m0": stream, "m1": stream}
        fork = library.instance(Instance("srq_duplicate", "fork", {"BITS": stream.tdata_bits}, ports))
        cost = sum([fork] * (uses - 1), Cost())
        if leaves and library.ends:
            border = stream.channels if stream.channels <= PIXEL_CHANNELS else count
            end = plan.stream(tensor, "end", border)
            cost += library.width(plan, tensor, count, border)
            cost += library.instance(Instance("srq_output", "exit", _frame(end), {"s": end, "m": end}))
        found[count] = _vector(cost)
    return np.array([found[count] for count in lanes], np.int64)


def _frame(stream: Stream) -> dict[str, int | str]:
    return {
        "HEIGHT": stream.height, "WIDTH": stream.width, "CHANNELS": stream.channels, "LANES": stream.lanes,
        "BITS": stream.bits,
    }  # fmt: skip


def _converters(
    plan: Plan, library: Library, tensor: str, variables: list[Variable], source: int, reader: int, port: int
) -> Int:
    out = [lanes.output for lanes in variables[source].options]
    ins = [lanes.inputs[port] for lanes in variables[reader].options]
    if not library.ends and source == 0 and sum(node.inputs.count(tensor) for node in plan.graph.nodes) == 1:
        return np.zeros((len(out), len(ins), len(RESOURCES)), np.int64)  # the image comes as its reader takes it
    rows, columns = sorted(set(out)), sorted(set(ins))
    table = np.array([[_vector(library.width(plan, tensor, a, b)) for b in columns] for a in rows], np.int64)
    return table[np.ix_([rows.index(a) for a in out], [columns.index(b) for b in ins])]


def _weights(graph: IntGraph, size: Size) -> dict[str, tuple[int, bool]]:
    shapes = {node.name: conv_shape(graph, node, size) for node in graph.nodes if node.op in ("Conv", "ResizeFilter")}
    return {name: (shape.weight_bits, shape.depthwise) for name, shape in shapes.items()}
