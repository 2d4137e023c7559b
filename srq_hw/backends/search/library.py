"""What a node, a width converter and a fork cost. `srq_library` counts the units of our Verilog."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from srq_hw.backends.rtl import costs
from srq_hw.backends.rtl.costs import Cost
from srq_hw.backends.rtl.demand import weight_words
from srq_hw.backends.rtl.folding import Folding, Lanes
from srq_hw.backends.rtl.netlist import CONV, CONV_LOAD, LOAD_BITS, Fabric, Instance
from srq_hw.backends.rtl.plan import Plan
from srq_hw.backends.rtl.units import converted, rom_style, unit
from srq_hw.backends.search.options import Size, node_lanes
from srq_hw.graph.ir import IntGraph, Node

Price = Callable[[Instance], Cost]


class Library(Protocol):
    """Costs of one family of units."""

    @property
    def name(self) -> str:
        """For the table of `srq-hw estimate`."""

    @property
    def ends(self) -> bool:
        """Whether a design brings pixels in and out whole, through units of its own."""

    def lanes(self, graph: IntGraph, node: Node, size: Size, fabric: Fabric, loads: bool = False) -> tuple[Lanes, ...]:
        """Every folding of a node, slowest first, with the cycles and memories of these units. size: (H, W).

        loads: also with weights that are written at run time, where these units have such a form.
        """

    def node(self, plan: Plan, node: Node, options: Sequence[Lanes]) -> list[Cost]:
        """Of the units that compute the node, for each of these lanes."""

    def width(self, plan: Plan, tensor: str, source: int, lanes: int) -> Cost:
        """Of what makes a tensor's stream of `source` lanes one of `lanes`; nothing where they are equal."""

    def instance(self, instance: Instance) -> Cost:
        """Of a unit that stands between nodes: a fork, a FIFO, an end of the design."""


@dataclass(frozen=True)
class Units:
    """The Verilog library of `backends.rtl`; each distinct unit is priced once."""

    name: str
    price: Price
    ends: bool = True

    def lanes(self, graph: IntGraph, node: Node, size: Size, fabric: Fabric, loads: bool = False) -> tuple[Lanes, ...]:
        return node_lanes(graph, node, size, fabric, loads)

    def node(self, plan: Plan, node: Node, options: Sequence[Lanes]) -> list[Cost]:
        if node.op == "Conv":
            (one,) = instances(plan, node, replace(options[-1], weights=""))
            return [self.price(refolded(one, lanes)) for lanes in options]
        return [sum(map(self.price, instances(plan, node, lanes)), Cost()) for lanes in options]

    def width(self, plan: Plan, tensor: str, source: int, lanes: int) -> Cost:
        return sum(map(self.price, converted(plan.stream(tensor, "s", source), lanes, "wide")[0]), Cost())

    def instance(self, instance: Instance) -> Cost:
        return self.price(instance)


def srq_library(price: Price = costs.cost) -> Units:
    """A fresh library, its memory of prices included."""
    return Units("srq", remembered(price))


def remembered(price: Price) -> Price:
    """The same, asked once for each module with the same parameters and streams.

    Asked without the texts of memories: constants in LUTs are counted as if all of them differed.
    """
    known: dict[tuple[object, ...], Cost] = {}

    def priced(instance: Instance) -> Cost:
        key = (
            instance.module,
            tuple((name, value) for name, value in instance.parameters.items() if not name.endswith("FILE")),
            tuple((name, replace(stream, name="")) for name, stream in instance.ports.items()),
        )
        found = known.get(key)
        if found is None:
            found = known[key] = price(replace(instance, memories={}))
        return found

    return priced


def instances(plan: Plan, node: Node, lanes: Lanes) -> tuple[Instance, ...]:
    """The units of a node with these lanes."""
    one = replace(plan, folding=Folding(lanes.cycles, {node.name: lanes}))
    ins = tuple(plan.stream(name, "in", count) for name, count in zip(node.inputs, lanes.inputs, strict=True))
    return unit(one, node, ins)


def refolded(conv: Instance, lanes: Lanes) -> Instance:
    """An srq_conv with other lanes and without the texts of its memories, which take long to write.

    An srq_conv_load where the lanes have weights in UltraRAM, without what it is sent.
    """
    pe, simd = lanes.core
    p = {key: value for key, value in conv.parameters.items() if key != "RAM_STYLE"} | {"PE": pe, "SIMD": simd}
    ports = {"s": replace(conv.ports["s"], lanes=simd), "m": replace(conv.ports["m"], lanes=pe)}
    if lanes.weights:
        del p["WEIGHT_FILE"]
        p |= {"LOAD": LOAD_BITS, "WEIGHT_STYLE": lanes.weights}
    else:
        numbers = {key: value for key, value in p.items() if isinstance(value, int)}
        p["WEIGHT_STYLE"] = rom_style(weight_words(numbers)[0], pe * simd * numbers["W_BITS"])
    if lanes.rows:
        p["RAM_STYLE"] = lanes.rows
    return replace(conv, module=CONV_LOAD if lanes.weights else CONV, parameters=p, ports=ports, memories={})
