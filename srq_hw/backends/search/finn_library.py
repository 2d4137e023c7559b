"""FINN's units as a library of the search: what its matrix units, windows, paddings and thresholds take, without FINN.

A Conv that `finn.placement` gives to FINN is padding, window and matrix unit, a Requant is a threshold layer. A matrix
unit may have any SIMD that divides its rows, taps included: 9 x 4 of 64 channels, say. Padding and window then have
fewer lanes and a width converter stands behind them. All other nodes are our units, whose costs are those of
`srq_library`. LUTs and flip-flops are those of `finn.unit_costs`, memories those of `finn.memory`. Each folding comes
with the memories that are worth looking at: weights in block RAM or LUTs, windows in LUTs, block RAM or UltraRAM,
threshold stages in block RAM from one size on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from srq_hw.backends.finn import estimate
from srq_hw.backends.finn.memory import rom_luts, threshold_blocks, threshold_rows
from srq_hw.backends.finn.placement import Place, accumulator_bits, place, weight_bits
from srq_hw.backends.finn.thresholds import requant_thresholds, threshold_type
from srq_hw.backends.finn.unit_costs import finn_logic
from srq_hw.backends.finn.unit_memory import table_counts, weight_ramb18, window_ramb18, window_uram
from srq_hw.backends.rtl.costs import Cost
from srq_hw.backends.rtl.folding import Lanes, divisors
from srq_hw.backends.rtl.netlist import Fabric, Instance
from srq_hw.backends.rtl.plan import Plan
from srq_hw.backends.search.library import Units, srq_library
from srq_hw.backends.search.options import Size, node_lanes
from srq_hw.graph.check import bounds
from srq_hw.graph.ir import Int, IntGraph, Node
from srq_hw.graph.opspec import Bounds
from srq_hw.target import DspKind, Resources

Memories = tuple[tuple[str, str, int | str], ...]
WINDOW, MATRIX, THRESHOLDS = "ConvolutionInputGenerator", "MVAU", "Thresholding"
#: how dear LUT, block RAM and UltraRAM are where memories are looked for: all alike, one or two dearer than the rest
PRICES = ((1, 1, 1), (8, 1, 1), (1, 8, 1), (1, 1, 8), (8, 8, 1), (8, 1, 8), (1, 8, 8))


@dataclass(frozen=True)
class _Graph:
    """What the units of a graph's nodes depend on."""

    graph: IntGraph
    places: dict[str, Place]
    reach: dict[str, Bounds]
    units: dict[tuple[str, Size], _Conv | _Thresholds] = field(default_factory=dict)


@dataclass(frozen=True)
class FinnUnits:
    """A library for one device. own: our units. A design has no units at its ends: FINN's streams are the user's."""

    resources: Resources
    own: Units
    name: str = "finn"
    ends: bool = False
    graphs: list[_Graph] = field(default_factory=list)

    def lanes(self, graph: IntGraph, node: Node, size: Size, fabric: Fabric, loads: bool = False) -> tuple[Lanes, ...]:
        """As `Library.lanes`; loads makes no difference, to our units neither: FINN designs have no such stream."""
        if not self.is_finn(graph, node):
            return self.own.lanes(graph, node, size, fabric)
        plain = node_lanes(graph, node, size, replace(fabric, ultra=False))
        unit = self._unit(graph, node, size)
        if isinstance(unit, _Conv):
            plain += unit.across_taps(self.resources.dsp.count)
        found = []
        for lanes in plain:
            cycles = max(lanes.cycles, unit.cycles(lanes))
            tried = [(memories, unit.cost(lanes, memories)) for memories in unit.memories(lanes)]
            found += [replace(lanes, cycles=cycles, memories=memories) for memories in self._worth(tried)]
        return tuple(found)

    def node(self, plan: Plan, node: Node, options: Sequence[Lanes]) -> list[Cost]:
        if not self.is_finn(plan.graph, node):
            return self.own.node(plan, node, options)
        unit = self._unit(plan.graph, node, plan.size)
        return [unit.cost(lanes, lanes.memories) for lanes in options]

    def width(self, plan: Plan, tensor: str, source: int, lanes: int) -> Cost:
        bits = self._bits(plan.graph, tensor)
        return converter(source * bits, lanes * bits)

    def instance(self, instance: Instance) -> Cost:
        return Cost() if instance.module in ("srq_input", "srq_output") else self.own.instance(instance)

    def is_finn(self, graph: IntGraph, node: Node) -> bool:
        """Whether FINN's units compute the node."""
        return self._of(graph).places[node.name].library == "finn"

    def _of(self, graph: IntGraph) -> _Graph:
        for known in self.graphs:
            if known.graph is graph:
                return known
        made = _Graph(graph, place(graph, "finn", self.resources.dsp.kind), dict(bounds(graph)))
        self.graphs.append(made)
        return made

    def _unit(self, graph: IntGraph, node: Node, size: Size) -> _Conv | _Thresholds:
        known = self._of(graph).units
        if (node.name, size) not in known:
            known[node.name, size] = (
                self._conv(graph, node, size) if node.op == "Conv" else self._thresholds(graph, node)
            )
        return known[node.name, size]

    def _conv(self, graph: IntGraph, node: Node, size: Size) -> _Conv:
        image, weight = graph.tensors[node.inputs[0]], node.params["weight"]
        declared = weight_bits(graph, node)
        return _Conv(
            size=(size[0] * image.upscale, size[1] * image.upscale),
            kernel=(int(weight.shape[2]), int(weight.shape[3])),
            channels=image.channels,
            out=int(weight.shape[0]),
            bits=image.bits,
            weight_bits=declared,
            acc_bits=self._bits(graph, node.output),
            narrow=int(weight.min()) > -(1 << declared - 1),
            signed=image.signed,
            dsp=self.resources.dsp.kind,
            ultra=self.resources.uram > 0,
        )

    def _thresholds(self, graph: IntGraph, node: Node) -> _Thresholds:
        source, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
        maker = graph.producer(source.name)
        bias, kind = None, source.dtype
        if maker is not None and maker.op == "Conv" and self.is_finn(graph, maker):
            bias, kind = maker.params["bias"], f"INT{self._bits(graph, source.name)}"
        matrix = requant_thresholds(node, self._of(graph).reach[source.name], out.range, bias)
        return _Thresholds(matrix, int(threshold_type(matrix, kind).lstrip("UINT")))

    def _bits(self, graph: IntGraph, tensor: str) -> int:
        """Of a value of the tensor in FINN's graph: sums of its matrix units lack the bias."""
        maker = graph.producer(tensor)
        if maker is not None and maker.op == "Conv" and self.is_finn(graph, maker):
            return accumulator_bits(graph, maker, self._of(graph).reach[tensor])
        return graph.tensors[tensor].bits

    def _worth(self, tried: list[tuple[Memories, Cost]]) -> Iterator[Memories]:
        """The cheapest memories at each of PRICES, each once."""
        r = self.resources
        has = (r.lut, 2 * r.bram36, r.uram)
        best = []
        for prices in PRICES:
            rates = [price / count if count else 1.0 for price, count in zip(prices, has, strict=True)]

            def price(item: tuple[Memories, Cost], rates: list[float] = rates) -> float:
                cost = item[1]
                return cost.lut * rates[0] + cost.bram18 * rates[1] + cost.uram * rates[2]

            best.append(min(tried, key=price)[0])
        return iter(dict.fromkeys(best))


def finn_library(resources: Resources, own: Units | None = None) -> FinnUnits:
    """FINN's units on a device where they compute a node exactly and in RTL, ours for the rest.

    own: our units with their memory of prices, for several devices of one DSP block.
    """
    return FinnUnits(resources, own or srq_library())


@cache
def converter(source: int, reader: int) -> Cost:
    """FINN's converter between streams of so many bits; nothing where they are equal."""
    found = estimate.converter(source, reader)
    return Cost(lut=found.get("LUT", 0), ff=found.get("FF", 0))


def _logic(kind: str, parameters: dict[str, int]) -> Cost:
    lut, ff = finn_logic(kind, parameters)
    return Cost(lut=lut, ff=ff)


# --- a convolution: padding, window, matrix unit ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Conv:
    """Shapes in FINN's terms; size: of the frame before padding; dsp: what the multipliers are."""

    size: Size
    kernel: Size
    channels: int
    out: int
    bits: int
    weight_bits: int
    acc_bits: int
    narrow: bool
    signed: bool
    dsp: DspKind
    ultra: bool

    @property
    def padded(self) -> Size:
        return self.size[0] + 2 * (self.kernel[0] // 2), self.size[1] + 2 * (self.kernel[1] // 2)

    @property
    def rows(self) -> int:
        """MW of the matrix."""
        return self.kernel[0] * self.kernel[1] * self.channels

    def memories(self, lanes: Lanes) -> Iterator[Memories]:
        windows = ("distributed", "block", *(["ultra"] if self.ultra else []))
        for weights in ("block", "distributed"):
            own: Memories = ((MATRIX, "ram_style", weights),)
            if self.kernel == (1, 1):
                yield own
            else:
                yield from ((*own, (WINDOW, "ram_style", window)) for window in windows)

    def across_taps(self, most: int) -> tuple[Lanes, ...]:
        """Foldings whose SIMD does not divide the channels, with as many DSPs at most.

        The window has lanes that divide SIMD, so that its converter only gathers, or else the fewest that keep pace.
        """
        pixels = self.size[0] * self.size[1]
        found = []
        for simd in divisors(self.rows):
            if self.channels % simd == 0:
                continue
            for pe in divisors(self.out):
                cycles = pixels * (self.rows // simd) * (self.out // pe)
                windows = [n for n in divisors(self.channels) if self._window_cycles(n) <= cycles]
                if windows and self._dsps(pe, simd) <= most:
                    chosen = [n for n in windows if simd % n == 0 or n == windows[0]]
                    found += [Lanes((n,), pe, cycles, (pe, simd)) for n in chosen]
        return tuple(found)

    def cycles(self, lanes: Lanes) -> int:
        """Of padding and window."""
        return self._window_cycles(lanes.inputs[0])

    def _window_cycles(self, lanes: int) -> int:
        """FINN's FMPadding and ConvolutionInputGenerator_rtl get_exp_cycles."""
        if self.kernel == (1, 1):
            return 0
        folds = self.channels // lanes
        height, width = self.padded
        taps = self.kernel[0] * self.kernel[1]
        if 1 in self.padded:
            window = max(self.size) * taps * folds + 2
        else:
            window = self._depth(folds) + self.size[0] * max(self.size[1] * taps, width) * folds
        return max(height * width * folds, window)

    def cost(self, lanes: Lanes, memories: Memories) -> Cost:
        return _conv_cost(self, lanes.inputs[0], *lanes.core, memories)

    def _depth(self, folds: int) -> int:
        """Words of the window's buffer."""
        return ((self.kernel[0] - 1) * self.padded[1] + self.kernel[1]) * folds

    def matrix(self, pe: int, simd: int, memory: int | str) -> Cost:
        """MVAU_rtl with its weights in block RAM or LUTs."""
        rows, width = self.rows * self.out // (pe * simd), pe * simd * self.weight_bits
        in_luts = memory == "distributed"
        held = Cost(lut=rom_luts(rows, width)) if in_luts else Cost(bram18=weight_ramb18(rows, width))
        logic = _logic(
            MATRIX,
            {
                "pe": pe, "simd": simd, "mw": self.rows, "mh": self.out, "weight_bits": self.weight_bits,
                "act_bits": self.bits, "acc_bits": self.acc_bits, "narrow": self.narrow, "signed": self.signed,
            },
        )  # fmt: skip
        return logic + held + Cost(dsp=self._dsps(pe, simd))

    def _dsps(self, pe: int, simd: int) -> int:
        lanes = estimate.mvu_lanes(self.weight_bits, self.bits, self.narrow, self.dsp)
        if self.dsp == "DSP58" and lanes <= 3 and self.weight_bits <= 8 and self.bits <= 9:
            return pe * -(-simd // 3)  # its INT8 mode
        return -(-pe // lanes) * simd

    def window(self, simd: int, memory: int | str) -> Cost:
        """FMPadding_rtl and ConvolutionInputGenerator_rtl with its buffer in LUTs, block RAM or UltraRAM."""
        height, width = self.padded
        frame = {"channels": self.channels, "simd": simd, "bits": self.bits}
        padding = {"height": height, "width": width, "pad": 0}
        window = {"height": height, "width": width, "k": self.kernel[0], "k_width": self.kernel[1], "parallel": 0}
        window |= {"block": int(memory != "distributed")}
        depth, bits = self._depth(self.channels // simd), simd * self.bits
        held = Cost(
            bram18=window_ramb18(depth, bits) if memory == "block" else 0,
            uram=window_uram(depth, bits) if memory == "ultra" else 0,
        )
        return _logic("FMPadding", frame | padding) + _logic(WINDOW, frame | window) + held


@cache
def _conv_cost(conv: _Conv, lanes: int, pe: int, simd: int, memories: Memories) -> Cost:
    chosen = {unit: value for unit, _, value in memories}
    cost = conv.matrix(pe, simd, chosen[MATRIX])
    if WINDOW not in chosen:
        return cost
    return cost + conv.window(lanes, chosen[WINDOW]) + converter(lanes * conv.bits, simd * conv.bits)


# --- a Requant: a threshold layer -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Thresholds:
    """matrix: (channels, levels) of `requant_thresholds`; width: bits of a threshold. What was asked before is kept."""

    matrix: Int
    width: int
    tables: dict[int, dict[str, int]] = field(default_factory=dict)
    costs: dict[tuple[int, int], Cost] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        return len(self.matrix)

    @property
    def bits(self) -> int:
        """Of the output."""
        return int(self.matrix.shape[1]).bit_length()

    def memories(self, lanes: Lanes) -> Iterator[Memories]:
        """Search stages of so many rows or more in block RAM. Both triggers are set: 0 means "auto" to the RTL."""
        rows = threshold_rows(self.channels // lanes.output, self.bits)
        never = rows[-1] + 1
        for trigger in (never, *rows):
            yield (THRESHOLDS, "depth_trigger_bram", trigger), (THRESHOLDS, "depth_trigger_uram", never)

    def cycles(self, lanes: Lanes) -> int:
        return 0  # a beat in, a beat out

    def cost(self, lanes: Lanes, memories: Memories) -> Cost:
        (trigger,) = (int(value) for _, attribute, value in memories if attribute == "depth_trigger_bram")
        asked = lanes.output, trigger
        if asked not in self.costs:
            self.costs[asked] = self._cost(*asked)
        return self.costs[asked]

    def _cost(self, pe: int, trigger: int) -> Cost:
        if pe not in self.tables:
            self.tables[pe] = table_counts(self.matrix, pe, self.width)
        shape = {"pe": pe, "channels": self.channels, "acc_bits": self.width, "bits": self.bits, "block_depth": trigger}
        blocks = threshold_blocks(self.channels // pe, self.bits, self.width, pe, trigger)
        return _logic(THRESHOLDS, shape | self.tables[pe]) + Cost(bram18=blocks)
