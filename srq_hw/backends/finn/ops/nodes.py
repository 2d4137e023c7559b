"""IntGraph nodes as FINN nodes and back: every Srq op holds one IntGraph node in its attributes. Needs no FINN."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from srq_hw.errors import InputError
from srq_hw.graph.check import bounds, ends
from srq_hw.graph.ir import Attr, Int, IntGraph, Node, Tensor
from srq_hw.graph.ops import OPS
from srq_hw.graph.opspec import Bounds

#: where FINN looks for operations; SpecializeLayers makes <op>_rtl in <domain>.rtl of it
DOMAIN = "finn.custom_op.fpgadataflow"
#: IntGraph operation -> FINN op_type, without the suffix that SpecializeLayers appends
OP_TYPES = {
    "Conv": "SrqConv",
    "Requant": "SrqRequant",
    "Add": "SrqAdd",
    "Offset": "SrqOffset",
    "Concat": "SrqConcat",
    "Slice": "SrqSlice",
    "DepthToSpace": "SrqPixelShuffle",
    "ResizeNearest": "SrqRepeat",
    "ResizeFilter": "SrqFilter",
}
#: a fork; no node of an IntGraph, which lets anybody read a tensor
DUPLICATE = "SrqDuplicate"
#: operations with lanes of their own on the input (SIMD); all others have PE lanes on every stream
WITH_SIMD = ("Conv", "DepthToSpace", "ResizeFilter")
#: and those that contain a convolution whose output lanes are not the node's (CorePE)
WITH_CORE = ("ResizeFilter",)
#: operations that hold rows of an image (ram_style: "auto", or "ultra" for UltraRAM)
WITH_ROWS = ("Conv", "DepthToSpace", "ResizeNearest", "ResizeFilter")

_OF_TYPE = {op_type: op for op, op_type in OP_TYPES.items()}
_INTEGER = re.compile(r"(U?)INT(\d+)")
_STORAGE = (np.int8, np.int16, np.int32, np.int64)


def make_node(
    graph: IntGraph, node: Node, size: tuple[int, int], inputs: Sequence[str], output: str, name: str
) -> onnx.NodeProto:
    """A node of the graph as a FINN node of the abstraction layer, one lane everywhere (`lanes.set_lanes`).

    size: (H, W) of the graph's input image. inputs, output: tensor names in the ONNX graph, (1, H, W, C) each.
    The interval that each input can reach in the graph goes along (inputRanges): thresholds depend on it.
    """
    ins = [graph.tensors[tensor] for tensor in node.inputs]
    reach = [ends(_bounds(graph)[tensor]) for tensor in node.inputs]
    height, width = (side * ins[0].upscale for side in size)
    return encode(node, ins, graph.tensors[node.output], reach, (height, width), inputs, output, name)


def encode(
    node: Node,
    ins: Sequence[Tensor],
    out: Tensor,
    reach: Sequence[tuple[int, int]],
    frame: tuple[int, int],
    inputs: Sequence[str],
    output: str,
    name: str,
) -> onnx.NodeProto:
    """`make_node` without a graph. ins, out: the node's tensors; reach: interval of each input; frame: their (H, W)."""
    if len(inputs) != len(ins):
        raise ValueError(f"node {node.name}: {len(inputs)} ONNX inputs for {len(ins)} of the graph")
    values = _stream_attributes(ins, reach, frame)
    values |= {"outputDataType": out.dtype, "outputZeroPoint": out.zero_point, "PE": 1}
    values |= {"SIMD": 1} if node.op in WITH_SIMD else {}
    values |= {"CorePE": 1} if node.op in WITH_CORE else {}
    values |= {"ram_style": "auto"} if node.op in WITH_ROWS else {}
    values |= {key: list(value) if isinstance(value, tuple) else value for key, value in node.attrs.items()}
    values |= {key: _stored(value, key) for key, value in node.params.items()}
    return _node(OP_TYPES[node.op], inputs, [output], name, values)


def make_duplicate(
    graph: IntGraph, tensor: str, size: tuple[int, int], source: str, outputs: Sequence[str], name: str
) -> onnx.NodeProto:
    """A fork of the graph's tensor to two or more outputs, one lane. source, outputs: names in the ONNX graph."""
    t = graph.tensors[tensor]
    height, width = (side * t.upscale for side in size)
    return encode_duplicate(t, ends(_bounds(graph)[tensor]), (height, width), source, outputs, name)


def encode_duplicate(
    tensor: Tensor, reach: tuple[int, int], frame: tuple[int, int], source: str, outputs: Sequence[str], name: str
) -> onnx.NodeProto:
    """`make_duplicate` without a graph. frame: (H, W) of the tensor."""
    if len(outputs) < 2:
        raise ValueError(f"fork {name}: {len(outputs)} outputs; wanted two or more")
    return _node(DUPLICATE, [source], outputs, name, {**_stream_attributes([tensor], [reach], frame), "PE": 1})


def is_srq(onnx_node: onnx.NodeProto) -> bool:
    """Whether the node is one of these, specialised or not."""
    return base_type(onnx_node) in _OF_TYPE or base_type(onnx_node) == DUPLICATE


def base_type(onnx_node: onnx.NodeProto) -> str:
    """op_type without the suffix of a specialised node."""
    return str(onnx_node.op_type).removesuffix("_rtl")


def operation(onnx_node: onnx.NodeProto) -> str:
    """The IntGraph operation of a node made by `make_node`."""
    return _OF_TYPE[base_type(onnx_node)]


def node_graph(onnx_node: onnx.NodeProto) -> IntGraph:
    """The node as an IntGraph of its own: tensors "in0", "in1", ... and "out0", upscale 1 at the input.

    With several inputs, "in0" stands as the graph's input and the others have no producer. The node is called as the
    ONNX node. InputError where the attributes are not those of a well-formed IntGraph node.
    """
    op = operation(onnx_node)
    spec, held = OPS[op], attributes(onnx_node)
    ins = input_tensors(onnx_node)
    attrs: dict[str, Attr] = {
        key: tuple(held[key]) if isinstance(held[key], list) else held[key] for key in spec.attrs if key in held
    }
    params = {key: held[key].astype(np.int64) for key in spec.params if key in held}
    names = tuple(tensor.name for tensor in ins)
    node = Node(op, onnx_node.name or "node", names, "out0", attrs, params)
    _refuse(onnx_node, node, ins)
    channels, upscale = spec.shape(node, ins)
    bits, signed = parse_type(held["outputDataType"])
    out = Tensor("out0", channels, bits, signed, upscale, held.get("outputZeroPoint", 0))
    return IntGraph(node.name, "in0", "out0", (node,), {tensor.name: tensor for tensor in (*ins, out)})


def one_node(graph: IntGraph, node: Node, name: str) -> IntGraph:
    """What `node_graph` says of the ONNX node called `name` that `make_node` makes of this one."""
    ins = [graph.tensors[tensor] for tensor in node.inputs]
    out = graph.tensors[node.output]
    base = ins[0].upscale
    tensors = {f"in{index}": _renamed(tensor, f"in{index}", 1) for index, tensor in enumerate(ins)}
    tensors["out0"] = _renamed(out, "out0", out.upscale // base)
    own = Node(node.op, name, tuple(f"in{index}" for index in range(len(ins))), "out0", node.attrs, node.params)
    return IntGraph(name, "in0", "out0", (own,), tensors)


def input_tensors(onnx_node: onnx.NodeProto) -> list[Tensor]:
    """The streams into a node as IntGraph tensors "in0", "in1", ..."""
    held = attributes(onnx_node)
    found = []
    for index, (channels, dtype) in enumerate(zip(held["Channels"], held["inputDataTypes"], strict=True)):
        bits, signed = parse_type(dtype)
        zeros = held.get("inputZeroPoints") or [0] * len(held["Channels"])
        found.append(Tensor(f"in{index}", channels, bits, signed, 1, zeros[index]))
    return found


def input_reach(onnx_node: onnx.NodeProto) -> dict[str, Bounds]:
    """Interval that really arrives on each input, the same for every channel: "in0" -> Bounds."""
    held = attributes(onnx_node)
    found = {}
    for index, tensor in enumerate(input_tensors(onnx_node)):
        lo, hi = tensor.range
        pair = held.get("inputRanges", [])[2 * index : 2 * index + 2]
        if pair:
            lo, hi = max(lo, pair[0]), min(hi, pair[1])
        found[tensor.name] = Bounds(np.full(tensor.channels, lo, np.int64), np.full(tensor.channels, hi, np.int64))
    return found


def image_size(onnx_node: onnx.NodeProto) -> tuple[int, int]:
    """(H, W) of the frames that enter a node."""
    height, width = attributes(onnx_node)["ImgDim"]
    return height, width


def attributes(onnx_node: onnx.NodeProto) -> dict[str, Any]:
    """All of a node: int, str, list of int, list of str or array."""
    found = {}
    for item in onnx_node.attribute:
        value = helper.get_attribute_value(item)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        elif item.type == onnx.AttributeProto.STRINGS:
            value = [word.decode() for word in value]
        elif item.type == onnx.AttributeProto.INTS:
            value = [int(number) for number in value]
        found[item.name] = value
    return found


def parse_type(dtype: str) -> tuple[int, bool]:
    """(bits, signed) of a FINN integer type."""
    if dtype == "BINARY":  # FINN's name of UINT1
        return 1, False
    match = _INTEGER.fullmatch(dtype)
    if match is None:
        raise InputError(
            f"FINN type {dtype!r} is no integer type; allowed: INT<bits>, UINT<bits>. Quantize the tensor to integers."
        )
    return int(match[2]), not match[1]


@lru_cache(maxsize=2)
def _bounds(graph: IntGraph) -> dict[str, Bounds]:
    """Of the whole graph, kept while its nodes are emitted one after the other; graphs are told apart by identity."""
    return bounds(graph)


def _stream_attributes(
    ins: Sequence[Tensor], reach: Sequence[tuple[int, int]], frame: tuple[int, int]
) -> dict[str, Any]:
    return {
        "ImgDim": list(frame),
        "Channels": [tensor.channels for tensor in ins],
        "inputDataTypes": [tensor.dtype for tensor in ins],
        "inputZeroPoints": [tensor.zero_point for tensor in ins],
        "inputRanges": [end for pair in reach for end in pair],
    }


def _node(op_type: str, inputs: Sequence[str], outputs: Sequence[str], name: str, values: Any) -> onnx.NodeProto:
    return helper.make_node(
        op_type, list(inputs), list(outputs), name=name, domain=DOMAIN, backend="fpgadataflow", **values
    )


def _stored(values: Int, name: str) -> onnx.TensorProto:
    """The smallest signed type that holds them: FINN copies models often."""
    lo, hi = (int(values.min()), int(values.max())) if values.size else (0, 0)
    kind = next(kind for kind in _STORAGE if np.iinfo(kind).min <= lo and hi <= np.iinfo(kind).max)
    return numpy_helper.from_array(np.ascontiguousarray(values.astype(kind)), name)


def _renamed(tensor: Tensor, name: str, upscale: int) -> Tensor:
    return Tensor(name, tensor.channels, tensor.bits, tensor.signed, upscale, tensor.zero_point)


def _refuse(onnx_node: onnx.NodeProto, node: Node, ins: list[Tensor]) -> None:
    spec = OPS[node.op]
    missing = (spec.attrs.keys() - node.attrs.keys()) | {
        key for key, required in spec.params.items() if required and key not in node.params
    }
    found = [f"attributes {sorted(missing)} are missing"] if missing else spec.problems(node, ins)
    if found:
        raise InputError(f"FINN node {onnx_node.name} ({onnx_node.op_type}): {'; '.join(found)}")
