"""Nodes of a built FINN graph as units of a stitched design: module, streams, and whose module computes them.

Read from the graph's file alone: lanes are PE and SIMD, sizes and types those of the tensors. Needs no FINN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from srq_hw.backends.finn.ops.lanes import node_lanes, set_lanes
from srq_hw.backends.finn.ops.nodes import attributes, base_type, encode, is_srq, parse_type
from srq_hw.backends.finn.ops.wrapper import Hardware, hardware
from srq_hw.backends.rtl.folding import Lanes
from srq_hw.backends.rtl.netlist import FABRIC, Stream
from srq_hw.errors import RunError
from srq_hw.fixedpoint import int_range
from srq_hw.graph.ir import Int, Node, Tensor

#: "finn": FINN's own module from FINN's own sources; "patched": one of its sources was changed for Verilator;
#: "stand-in": our module of the same function and beats; "srq": the node is one of our operations
Origin = Literal["finn", "patched", "stand-in", "srq"]


@dataclass(frozen=True)
class Unit:
    """One node. reason: what was patched, or why another module stands in; "" for the rest.

    tensors: names of what it reads and writes, in the order of the streams. ahead: (rows, columns) of its input that it
    looks ahead. weight_bits: of a matrix unit. stands: what is there instead of FINN's module, if something is.
    """

    name: str
    op: str
    tensors: tuple[str, ...]
    inputs: tuple[Stream, ...]
    outputs: tuple[Stream, ...]
    origin: Origin
    reason: str = ""
    ahead: tuple[int, int] = (0, 0)
    weight_bits: int = 0
    stands: Hardware | None = None

    @property
    def kind(self) -> str:
        """Operation without _rtl."""
        return self.op.removesuffix("_rtl")


@dataclass(frozen=True)
class _Form:
    """What one of FINN's units tells of itself: lanes of its data input and of its output, and the rest of a Unit."""

    lanes_in: int
    lanes_out: int
    ahead: tuple[int, int] = (0, 0)
    weight_bits: int = 0


@dataclass(frozen=True)
class Units:
    """Units in graph order. source, sink: tensors that enter and leave the graph."""

    units: tuple[Unit, ...]
    source: str
    sink: str


def read_units(model: Path) -> Units:
    """The units of a built graph. RunError for a node that cannot be stitched.

    Streams are called <node>__out<port> after what writes them and "image" where that is the outside; a unit's input
    stream has the lanes that the unit reads, its maker's output those that the maker writes.
    """
    graph = onnx.load(model).graph
    streams = _streams(graph)
    source, sink = graph.input[0].name, graph.output[0].name
    makers = {source: "image"}
    units = []
    for node in graph.node:
        names = [name for name in node.input if name in streams]
        makers |= {name: f"{node.name}__out{index}" for index, name in enumerate(node.output)}
        origin: Origin = "srq" if is_srq(node) else "finn"
        if origin == "srq":
            lanes = node_lanes(node)
            lanes_in, form = lanes.inputs, _Form(0, lanes.output, _reach(node))
        else:
            form = _form(node)
            lanes_in = (form.lanes_in,)
        ins = [replace(streams[name], name=makers[name], lanes=n) for name, n in zip(names, lanes_in, strict=True)]
        outs = [replace(streams[name], name=makers[name], lanes=form.lanes_out) for name in node.output]
        unit = Unit(node.name, node.op_type, (*names, *node.output), tuple(ins), tuple(outs), origin)
        units.append(replace(unit, ahead=form.ahead, weight_bits=form.weight_bits))
    return Units(tuple(units), source, sink)


def _streams(graph: onnx.GraphProto) -> dict[str, Stream]:
    """Every tensor that is no constant, by name, one lane."""
    constants = {item.name for item in graph.initializer}
    types = {
        item.tensor_name: entry.value
        for item in graph.quantization_annotation
        for entry in item.quant_parameter_tensor_names
        if entry.key == "finn_datatype"
    }
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.name not in constants:
            _, height, width, channels = (dim.dim_value for dim in value.type.tensor_type.shape.dim)
            bits, signed = parse_type(types[value.name])
            found[value.name] = Stream(value.name, height, width, channels, 1, bits, signed)
    return found


def _form(node: onnx.NodeProto) -> _Form:
    rule = _FORMS.get(base_type(node))
    if rule is None or not node.op_type.endswith("_rtl"):
        raise RunError(f"FINN node {node.name}: a {node.op_type} cannot be stitched for simulation")
    return rule(node, attributes(node))


def _padding(node: onnx.NodeProto, held: Mapping[str, Any]) -> _Form:
    return _Form(held["SIMD"], held["SIMD"])


def _window(node: onnx.NodeProto, held: Mapping[str, Any]) -> _Form:
    rows, columns = held["ConvKernelDim"]
    simd, whole = held["SIMD"], held.get("parallel_window", 0)
    if held.get("depthwise") or (whole and simd != held["IFMChannels"]):
        raise RunError(f"FINN node {node.name}: its windows are not in the order of a dense matrix unit")
    return _Form(simd, simd * (rows * columns if whole else 1), (rows // 2, columns // 2))


def _matrix(node: onnx.NodeProto, held: Mapping[str, Any]) -> _Form:
    if held["mem_mode"] != "internal_decoupled" or held.get("pumpedCompute") or held.get("pumpedMemory"):
        raise RunError(f"FINN node {node.name}: only weights from a memory of its own, on one clock, are stitched")
    return _Form(held["SIMD"], held["PE"], weight_bits=parse_type(held["weightDataType"])[0])


def _thresholds(node: onnx.NodeProto, held: Mapping[str, Any]) -> _Form:
    return _Form(held["PE"], held["PE"])


_FORMS: dict[str, Callable[[onnx.NodeProto, Mapping[str, Any]], _Form]] = {
    "FMPadding": _padding,
    "ConvolutionInputGenerator": _window,
    "MVAU": _matrix,
    "Thresholding": _thresholds,
}


def _reach(node: onnx.NodeProto) -> tuple[int, int]:
    for item in node.attribute:
        if item.name == "weight":  # (out, in, rows, columns)
            return item.t.dims[2] // 2, item.t.dims[3] // 2
        if item.name == "taps":  # (phases, taps), the same for rows and columns
            return item.t.dims[1] // 2, item.t.dims[1] // 2
    return 0, 0


# --- our convolution in the place of FINN's matrix unit -----------------------------------------------------------


def stand_in(unit: Unit, words: str, reason: str) -> Unit:
    """A matrix unit as srq_conv with a 1x1 kernel: as many channels as the matrix has columns, the same lanes.

    words: text of the weight file that FINN generated; the stand-in multiplies with what is in there.
    """
    source, out = unit.inputs[0], unit.outputs[0]
    weight = matrix_of(unit, words)[:, :, None, None]
    ins = Tensor("in0", source.channels, source.bits, source.signed, 1, 0)
    made = Tensor("out0", out.channels, out.bits, out.signed, 1, 0)
    params = {"weight": weight, "bias": np.zeros(out.channels, np.int64)}
    node = Node("Conv", unit.name, ("in0",), "out0", {"groups": 1}, params)
    frame = (source.height, source.width)
    reach = int_range(source.bits, source.signed)
    proto = encode(node, [ins], made, [reach], frame, ["in0"], "out0", unit.name)
    cycles = frame[0] * frame[1] * out.folds * source.folds
    set_lanes(proto, Lanes((source.lanes,), out.lanes, cycles, core=(out.lanes, source.lanes)))
    return replace(unit, origin="stand-in", reason=reason, stands=hardware(proto, FABRIC.port))


def matrix_of(unit: Unit, words: str) -> Int:
    """int64 (rows, columns) of a matrix unit from FINN's weight file.

    A word for each fold of the rows and, within, each fold of the columns; [PE][SIMD] in a word, SIMD lowest.
    """
    pe, simd, bits = unit.outputs[0].lanes, unit.inputs[0].lanes, unit.weight_bits
    rows, columns = unit.outputs[0].channels, unit.inputs[0].channels
    lines = words.split()
    if len(lines) * pe * simd != rows * columns:
        raise RunError(
            f"FINN node {unit.name}: {len(lines)} words of weights for {rows} x {columns}, {pe} x {simd} each"
        )
    mask, sign = (1 << bits) - 1, 1 << bits - 1
    lanes = [[(int(line, 16) >> bits * lane & mask ^ sign) - sign for lane in range(pe * simd)] for line in lines]
    folded = np.array(lanes, np.int64).reshape(rows // pe, columns // simd, pe, simd)
    return folded.transpose(0, 2, 1, 3).reshape(rows, columns)
