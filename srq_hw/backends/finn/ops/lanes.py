"""PE and SIMD of a node, as lanes and cycles of the RTL library. Needs no FINN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import gcd

import onnx

from srq_hw.backends.finn.ops.nodes import (
    DUPLICATE,
    WITH_CORE,
    WITH_ROWS,
    WITH_SIMD,
    attributes,
    base_type,
    image_size,
    node_graph,
    operation,
)
from srq_hw.backends.rtl.folding import ConvShape, Lanes, conv_shape
from srq_hw.errors import InputError
from srq_hw.graph.ir import IntGraph, Node


def set_lanes(onnx_node: onnx.NodeProto, lanes: Lanes) -> None:
    """Write a folding's lanes of this node into its attributes. InputError where they do not divide its channels."""
    values = {"PE": lanes.output}
    if base_type(onnx_node) != DUPLICATE:
        op = operation(onnx_node)
        values |= {"SIMD": lanes.inputs[0]} if op in WITH_SIMD else {}
        values |= {"CorePE": lanes.core[0]} if op in WITH_CORE else {}
    for key, value in values.items():
        _attribute(onnx_node, key).i = value
    if base_type(onnx_node) != DUPLICATE and operation(onnx_node) in WITH_ROWS:
        _attribute(onnx_node, "ram_style").s = (lanes.rows or "auto").encode()
    node_lanes(onnx_node)


def node_lanes(onnx_node: onnx.NodeProto) -> Lanes:
    """Lanes of the node's streams and its cycles per frame. InputError names a number that does not fit."""
    held = attributes(onnx_node)
    pe = held.get("PE", 1)
    if base_type(onnx_node) == DUPLICATE:
        channels = held["Channels"][0]
        _divides(onnx_node, "PE", pe, channels, "channels")
        height, width = image_size(onnx_node)
        return Lanes((pe,), pe, height * width * channels // pe)
    graph = node_graph(onnx_node)
    node = graph.nodes[0]
    style = held.get("ram_style", "auto")
    return replace(_RULES[node.op](onnx_node, graph, node, pe), rows="" if style == "auto" else style)


def _attribute(onnx_node: onnx.NodeProto, key: str) -> onnx.AttributeProto:
    return next(item for item in onnx_node.attribute if item.name == key)


def limits(onnx_node: onnx.NodeProto) -> dict[str, int]:
    """The number that each of PE, SIMD and CorePE must divide."""
    held = attributes(onnx_node)
    if base_type(onnx_node) == DUPLICATE:
        return {"PE": held["Channels"][0]}
    graph = node_graph(onnx_node)
    node, source, out = graph.nodes[0], graph.tensors["in0"], graph.tensors["out0"]
    if node.op == "Conv":
        shape = conv_shape(graph, node, image_size(onnx_node))
        return {"PE": shape.out // (1 if shape.depthwise else shape.groups), "SIMD": _inside(shape)}
    if node.op == "ResizeFilter":
        shape = conv_shape(graph, node, image_size(onnx_node))
        return {"PE": out.channels, "SIMD": _inside(shape), "CorePE": shape.out // shape.groups}
    if node.op == "DepthToSpace":
        return {"PE": out.channels, "SIMD": source.channels}
    pieces = [graph.tensors[name].channels for name in node.inputs]
    if node.op == "Slice":
        pieces += [node.int_attr("start"), node.int_attr("stop")]
    return {"PE": gcd(*pieces)}


def _inside(shape: ConvShape) -> int:
    return shape.inside if shape.depthwise else shape.inside // shape.groups


def _divides(onnx_node: onnx.NodeProto, key: str, lanes: int, number: int, what: str) -> None:
    if lanes >= 1 and number % lanes == 0:
        return
    raise InputError(
        f"FINN node {onnx_node.name} ({onnx_node.op_type}): {key} = {lanes} does not divide {number} {what}. "
        f"Allowed: {', '.join(str(value) for value in range(1, number + 1) if number % value == 0)}."
    )


def _checked(onnx_node: onnx.NodeProto) -> None:
    held = attributes(onnx_node)
    for key, number in limits(onnx_node).items():
        _divides(onnx_node, key, held.get(key, 1), number, "channels")


def _values(onnx_node: onnx.NodeProto, graph: IntGraph, tensor: str) -> int:
    height, width = image_size(onnx_node)
    t = graph.tensors[tensor]
    return height * width * t.upscale**2 * t.channels


def _conv(onnx_node: onnx.NodeProto, graph: IntGraph, node: Node, pe: int) -> Lanes:
    _checked(onnx_node)
    simd = attributes(onnx_node).get("SIMD", 1)
    shape = conv_shape(graph, node, image_size(onnx_node))
    if shape.depthwise and pe != simd:
        raise InputError(
            f"FINN node {onnx_node.name} ({onnx_node.op_type}): PE = {pe} and SIMD = {simd} of a depthwise "
            "convolution; allowed: the same number for both."
        )
    return Lanes((simd,), pe, shape.cycles(pe, simd), core=(pe, simd))


def _beatwise(onnx_node: onnx.NodeProto, graph: IntGraph, node: Node, pe: int) -> Lanes:
    """A beat in, a beat out; the stream with more beats counts."""
    _checked(onnx_node)
    most = max(_values(onnx_node, graph, name) for name in ("in0", "out0"))
    return Lanes((pe,) * len(node.inputs), pe, most // pe)


def _shuffle(onnx_node: onnx.NodeProto, graph: IntGraph, node: Node, pe: int) -> Lanes:
    _checked(onnx_node)
    simd = attributes(onnx_node).get("SIMD", 1)
    values = _values(onnx_node, graph, "out0")
    return Lanes((simd,), pe, values // min(pe, simd))


def _filter(onnx_node: onnx.NodeProto, graph: IntGraph, node: Node, pe: int) -> Lanes:
    _checked(onnx_node)
    held = attributes(onnx_node)
    core = (held.get("CorePE", 1), held.get("SIMD", 1))
    cycles = conv_shape(graph, node, image_size(onnx_node)).cycles(*core)
    return Lanes((core[1],), pe, max(cycles, _values(onnx_node, graph, "out0") // pe), core=core)


_RULES: dict[str, Callable[[onnx.NodeProto, IntGraph, Node, int], Lanes]] = {
    "Conv": _conv,
    "Requant": _beatwise,
    "Add": _beatwise,
    "Offset": _beatwise,
    "Concat": _beatwise,
    "Slice": _beatwise,
    "DepthToSpace": _shuffle,
    "ResizeNearest": _beatwise,
    "ResizeFilter": _filter,
}
