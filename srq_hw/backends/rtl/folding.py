"""Folding: how many values of a pixel every unit works on at once, chosen for a number of cycles per frame.

Every unit gets the cheapest form that meets the cycles. A unit that cannot meet them gets its fastest form, and the
design is as slow as that (`Folding.cycles`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import gcd

from srq_hw.backends.rtl.netlist import FABRIC, Fabric
from srq_hw.backends.rtl.resize import filter_conv
from srq_hw.fixedpoint import bits_for
from srq_hw.graph.ir import IntGraph, Node


@dataclass(frozen=True)
class Goal:
    """Frames of size (H, W) in at most so many cycles each, on a fabric."""

    size: tuple[int, int]
    cycles: int
    fabric: Fabric = FABRIC


@dataclass(frozen=True)
class Lanes:
    """Lanes of a unit's input streams and of its output stream; `cycles` per frame at full speed.

    A convolution has SIMD lanes in and PE lanes out; `core` are those of the convolution inside a ResizeFilter.
    rows: RAM_STYLE of a buffer of rows; "": as synthesis likes, "ultra": UltraRAM. weights: "": part of the design,
    "ultra": in UltraRAM, written at run time. memories: of FINN's units where those compute the node, (operation,
    attribute, value) each; not for our units.
    """

    inputs: tuple[int, ...]
    output: int
    cycles: int
    core: tuple[int, int] = (0, 0)
    rows: str = ""
    weights: str = ""
    memories: tuple[tuple[str, str, int | str], ...] = ()

    def same_streams(self, other: Lanes) -> bool:
        """Equal lanes; cycles and memories may differ."""
        return (self.inputs, self.output, self.core) == (other.inputs, other.output, other.core)


@dataclass(frozen=True)
class Folding:
    """Lanes of every node, the cycles per frame that were asked for and those that the slowest unit takes."""

    wanted: int
    nodes: Mapping[str, Lanes]

    @property
    def cycles(self) -> int:
        """Cycles per frame of the slowest unit: the ideal of the whole design."""
        return max(lanes.cycles for lanes in self.nodes.values())

    def resized(self, size: tuple[int, int], wanted: tuple[int, int]) -> Folding:
        """The same lanes for frames of another size (H, W): every unit takes as many cycles for a pixel."""

        def scaled(cycles: int) -> int:
            return max(1, -(-cycles * wanted[0] * wanted[1] // (size[0] * size[1])))

        nodes = {name: replace(lanes, cycles=scaled(lanes.cycles)) for name, lanes in self.nodes.items()}
        return Folding(scaled(self.wanted), nodes)

    @property
    def bottleneck(self) -> str:
        """The node with the most cycles per frame."""
        return max(self.nodes, key=lambda name: self.nodes[name].cycles)


@dataclass(frozen=True)
class ConvShape:
    """What folding needs to know of a convolution."""

    pixels: int
    inside: int
    out: int
    taps: int
    groups: int
    weight_bits: int
    act_bits: int
    narrow: bool  #: no weight is the most negative number of its width
    port: int  #: bits of a multiplier's wide input

    @property
    def depthwise(self) -> bool:
        """One input channel for one output channel: PE and SIMD are the same lanes."""
        return self.groups > 1 and self.groups == self.inside == self.out

    def cycles(self, pe: int, simd: int) -> int:
        """Cycles per frame, as srq_conv states them."""
        per_output = self.taps if self.depthwise else self.taps * (self.inside // self.groups // simd)
        return self.pixels * (self.out // pe) * per_output

    def word_bits(self, pe: int, simd: int) -> int:
        """Bits of weights that are multiplied in a cycle: a word of their memory."""
        return pe * (1 if self.depthwise else simd) * self.weight_bits

    def dsps(self, pe: int, simd: int) -> int:
        """Multipliers of srq_mac: the packing rule of srq_dot. 0 where products come from LUTs."""
        if self.weight_bits <= 2:
            return 0
        if self.depthwise:
            return pe
        return -(-pe // packed_lanes(pe, self.weight_bits, self.act_bits, self.narrow, self.port)) * simd

    def foldings(self) -> list[tuple[int, int]]:
        """Every (PE, SIMD) that divides the channels."""
        if self.depthwise:
            return [(lanes, lanes) for lanes in divisors(self.out)]
        own = (divisors(self.out // self.groups), divisors(self.inside // self.groups))
        return [(pe, simd) for pe in own[0] for simd in own[1]]


def packed_lanes(pe: int, weight_bits: int, act_bits: int, narrow: bool, port: int = 27) -> int:
    """Weights that share one multiplication (srq_dot's LANES)."""
    room, product = port - weight_bits - (not narrow), weight_bits + act_bits
    fit = room // (product - 1) + 1 if room >= product - 1 else 1
    return min(fit, pe)


def divisors(number: int) -> list[int]:
    """All of them, ascending."""
    return [value for value in range(1, number + 1) if number % value == 0]


def conv_shape(graph: IntGraph, node: Node, size: tuple[int, int], port: int = 27) -> ConvShape:
    """Of a Conv, or of the convolution that a ResizeFilter contains."""
    source = graph.tensors[node.inputs[0]]
    weight, groups = (
        (node.params["weight"], node.int_attr("groups")) if node.op == "Conv" else filter_conv(node, source.channels)
    )
    bits = max(2, bits_for(int(weight.min()), int(weight.max()), signed=True))
    return ConvShape(
        pixels=size[0] * size[1] * source.upscale**2,
        inside=source.channels,
        out=int(weight.shape[0]),
        taps=int(weight.shape[2] * weight.shape[3]),
        groups=groups,
        weight_bits=bits,
        act_bits=source.bits,
        narrow=int(weight.min()) > -(1 << bits - 1),
        port=port,
    )


def fold(graph: IntGraph, goal: Goal) -> Folding:
    """Lanes for every node, each the cheapest that reaches the goal."""
    return Folding(goal.cycles, {node.name: _cheapest(graph, node, goal) for node in graph.nodes})


def candidates(graph: IntGraph, node: Node, size: tuple[int, int], port: int = 27) -> list[Lanes]:
    """Every choice of lanes that a node has for frames of size (H, W), fewest lanes first."""
    return _CANDIDATES[node.op](graph, node, size, port)


def _cheapest(graph: IntGraph, node: Node, goal: Goal) -> Lanes:
    """The fewest lanes in time, else the fastest; a convolution by its own rule."""
    found = candidates(graph, node, goal.size, goal.fabric.port)
    if node.op in ("Conv", "ResizeFilter"):
        core = _conv_lanes(conv_shape(graph, node, goal.size, goal.fabric.port), goal.cycles)
        found = [lanes for lanes in found if lanes.core == core]
    if node.op == "ResizeFilter":  # its output moves beats of its own
        values = _values(graph, node.output, goal.size)
        return next((lanes for lanes in found if values // lanes.output <= goal.cycles), found[-1])
    return next((lanes for lanes in found if lanes.cycles <= goal.cycles), found[-1])


def _values(graph: IntGraph, name: str, size: tuple[int, int]) -> int:
    tensor = graph.tensors[name]
    return size[0] * size[1] * tensor.upscale**2 * tensor.channels


def _conv_lanes(shape: ConvShape, cycles: int) -> tuple[int, int]:
    """Fewest multipliers, then fewest products, then more SIMD than PE: an accumulator costs more than an input."""

    def cost(lanes: tuple[int, int]) -> tuple[int, int, int]:
        pe, simd = lanes
        return shape.dsps(pe, simd), pe * simd, pe

    met = [lanes for lanes in shape.foldings() if shape.cycles(*lanes) <= cycles]
    return min(met, key=cost) if met else min(shape.foldings(), key=lambda lanes: shape.cycles(*lanes))


def _conv(graph: IntGraph, node: Node, size: tuple[int, int], port: int) -> list[Lanes]:
    shape = conv_shape(graph, node, size, port)
    return [Lanes((simd,), pe, shape.cycles(pe, simd), (pe, simd)) for pe, simd in shape.foldings()]


def _beatwise(graph: IntGraph, node: Node, size: tuple[int, int], port: int) -> list[Lanes]:
    """One beat in, one beat out; of a pixel shuffle the lanes of DCR order, which need no wide memory."""
    values = _values(graph, node.output, size)
    return [
        Lanes((lanes,) * len(node.inputs), lanes, values // lanes)
        for lanes in divisors(graph.tensors[node.output].channels)
    ]


def _channels(graph: IntGraph, node: Node, size: tuple[int, int], port: int) -> list[Lanes]:
    """Concat and Slice: lanes that divide every piece."""
    pieces = [graph.tensors[name].channels for name in node.inputs]
    whole = node.inputs[0]
    if node.op == "Slice":
        pieces += [node.int_attr("start"), node.int_attr("stop")]
    else:
        whole = node.output
    values = _values(graph, whole, size)
    return [Lanes((lanes,) * len(node.inputs), lanes, values // lanes) for lanes in divisors(gcd(*pieces))]


def _filter(graph: IntGraph, node: Node, size: tuple[int, int], port: int) -> list[Lanes]:
    shape = conv_shape(graph, node, size, port)
    values = _values(graph, node.output, size)
    return [
        Lanes((simd,), out, max(shape.cycles(pe, simd), values // out), (pe, simd))
        for pe, simd in shape.foldings()
        for out in divisors(graph.tensors[node.output].channels)
    ]


_CANDIDATES: dict[str, Callable[[IntGraph, Node, tuple[int, int], int], list[Lanes]]] = {
    "Conv": _conv,
    "Requant": _beatwise,
    "Add": _beatwise,
    "Offset": _beatwise,
    "Concat": _channels,
    "Slice": _channels,
    "DepthToSpace": _beatwise,
    "ResizeNearest": _beatwise,
    "ResizeFilter": _filter,
}
