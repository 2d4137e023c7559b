"""Every folding that a node of an IntGraph may take: lanes and cycles per frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import gcd

from srq_hw.backends.rtl.folding import Lanes, conv_shape, divisors
from srq_hw.backends.rtl.netlist import Fabric
from srq_hw.graph.ir import IntGraph, Node

Size = tuple[int, int]

#: from so many bits on, an eighth of an UltraRAM, rows may be in one
ULTRA_ROWS = 1 << 15


def node_lanes(graph: IntGraph, node: Node, size: Size, fabric: Fabric) -> tuple[Lanes, ...]:
    """All of them, slowest first; each twice where its buffer of rows may be in UltraRAM, too. size: (H, W)."""
    found = _RULES[node.op](graph, node, size, fabric.port)
    if fabric.ultra and row_bits(graph, node, size[1]) >= ULTRA_ROWS:
        found += [replace(lanes, rows="ultra") for lanes in found]
    return tuple(sorted(found, key=lambda lanes: (-lanes.cycles, lanes.output, lanes.inputs, lanes.core, lanes.rows)))


def row_bits(graph: IntGraph, node: Node, width: int) -> int:
    """Bits of the rows that a node holds, for images of this width."""
    source = graph.tensors[node.inputs[0]]
    row = width * source.upscale * source.channels * source.bits
    if node.op == "Conv":
        rows, columns = node.params["weight"].shape[2:]
        return int(rows) * row if rows * columns > 1 else 0
    if node.op == "ResizeFilter":
        return int(node.params["taps"].shape[1]) * row
    return 2 * row if node.op in ("DepthToSpace", "ResizeNearest") else 0


def _values(graph: IntGraph, name: str, size: Size) -> int:
    tensor = graph.tensors[name]
    return size[0] * size[1] * tensor.upscale**2 * tensor.channels


def _conv(graph: IntGraph, node: Node, size: Size, port: int) -> list[Lanes]:
    shape = conv_shape(graph, node, size, port)
    return [Lanes((simd,), pe, shape.cycles(pe, simd), (pe, simd)) for pe, simd in shape.foldings()]


def _beatwise(graph: IntGraph, node: Node, size: Size, port: int) -> list[Lanes]:
    values = _values(graph, node.output, size)
    return [
        Lanes((lanes,) * len(node.inputs), lanes, values // lanes)
        for lanes in divisors(graph.tensors[node.output].channels)
    ]


def _channels(graph: IntGraph, node: Node, size: Size, port: int) -> list[Lanes]:
    """Concat and Slice: lanes that divide every piece."""
    pieces = [graph.tensors[name].channels for name in node.inputs]
    whole = node.inputs[0]
    if node.op == "Slice":
        pieces += [node.int_attr("start"), node.int_attr("stop")]
    else:
        whole = node.output
    values = _values(graph, whole, size)
    return [Lanes((lanes,) * len(node.inputs), lanes, values // lanes) for lanes in divisors(gcd(*pieces))]


def _filter(graph: IntGraph, node: Node, size: Size, port: int) -> list[Lanes]:
    shape = conv_shape(graph, node, size, port)
    values = _values(graph, node.output, size)
    return [
        Lanes((simd,), out, max(shape.cycles(pe, simd), values // out), (pe, simd))
        for pe, simd in shape.foldings()
        for out in divisors(graph.tensors[node.output].channels)
    ]


_RULES: dict[str, Callable[[IntGraph, Node, Size, int], list[Lanes]]] = {
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
