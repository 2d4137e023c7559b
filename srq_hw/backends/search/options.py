"""Every folding that a node of an IntGraph may take: lanes and cycles per frame."""

from __future__ import annotations

from dataclasses import replace

from srq_hw.backends.rtl.demand import URAM, stored, uram
from srq_hw.backends.rtl.folding import ConvShape, Lanes, candidates, conv_shape
from srq_hw.backends.rtl.netlist import Fabric
from srq_hw.graph.ir import IntGraph, Node

Size = tuple[int, int]

#: from so many bits on, an eighth of an UltraRAM, rows may be in one
ULTRA_ROWS = 1 << 15
#: weights may be in UltraRAMs of which they fill at least this part: an UltraRAM holds as much as 8 block RAMs
ULTRA_WEIGHTS = 1 / 8


def node_lanes(graph: IntGraph, node: Node, size: Size, fabric: Fabric, loads: bool = False) -> tuple[Lanes, ...]:
    """All of them, slowest first; each twice where its buffer of rows may be in UltraRAM, too. size: (H, W).

    loads: weights may be written at run time; each is there again with its weights in UltraRAM, if they fill it well.
    """
    found = candidates(graph, node, size, fabric.port)
    if fabric.ultra and loads and node.op == "Conv":
        shape = conv_shape(graph, node, size, fabric.port)
        found += [replace(lanes, weights="ultra") for lanes in found if _fills(shape, lanes)]
    if fabric.ultra and row_bits(graph, node, size[1]) >= ULTRA_ROWS:
        found += [replace(lanes, rows="ultra") for lanes in found]
    return tuple(sorted(found, key=_order))


def _order(lanes: Lanes) -> tuple[object, ...]:
    return -lanes.cycles, lanes.output, lanes.inputs, lanes.core, lanes.rows, lanes.weights


def _fills(shape: ConvShape, lanes: Lanes) -> bool:
    pe, simd = lanes.core
    words = shape.cycles(pe, simd) // shape.pixels
    bits = shape.word_bits(pe, simd)
    return words * bits >= ULTRA_WEIGHTS * uram(*stored(words, bits)) * URAM[0] * URAM[1]


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
