"""IntGraph -> the QONNX graph that FINN's `convert_to_hw` takes, written directly: NHWC, integers, no scale anywhere.

Conv becomes Im2Col -> MatMul with integer weights; its bias, the Requant and the activation become one MultiThreshold
whose thresholds are the exact inverse of the integer function. Every data type is set here from the proven ranges, so
that FINN has nothing left to infer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import qonnx.core.data_layout as layouts
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper

from srq_hw.backends.finn.prepare import Prepared
from srq_hw.backends.finn.thresholds import offset_thresholds, requant_thresholds, threshold_type
from srq_hw.errors import InputError
from srq_hw.fixedpoint import bits_for
from srq_hw.graph.check import bounds
from srq_hw.graph.ir import Int, IntGraph, Node
from srq_hw.graph.opspec import Bounds

OPSET = 18
DOMAIN = "qonnx.custom_op.general"
#: FINN's MVAU_rtl needs at least this many bits on both operands; below it FINN falls back to HLS
RTL_BITS_MIN = 4


@dataclass
class _Emitter:
    """Grows node, initializer and type lists; nothing here looks back."""

    graph: IntGraph
    size: tuple[int, int]
    reach: dict[str, Bounds]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    values: list[onnx.ValueInfoProto] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)  # tensors with a layout: (1, H, W, C)
    bias: dict[str, Int] = field(default_factory=dict)  # accumulator -> what its thresholds must absorb

    def shape(self, tensor: str) -> list[int]:
        t = self.graph.tensors[tensor]
        return [1, self.size[0] * t.upscale, self.size[1] * t.upscale, t.channels]

    def value(self, name: str, shape: list[int], dtype: str, image: bool = True) -> str:
        self.values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.types[name] = dtype
        if image:
            self.images.append(name)
        return name

    def constant(self, name: str, array: Int, dtype: str) -> str:
        stored = array.astype(np.float32)
        if (stored.astype(np.int64) != array).any():
            raise InputError(
                f"FINN: {name}: a value up to {int(np.abs(array).max())} is not exact in float32, the only type FINN "
                "stores parameters in. Allowed: |value| <= 2**24. Use fewer weight or activation bits."
            )
        self.weights.append(numpy_helper.from_array(stored, name))
        self.types[name] = dtype
        return name

    def node(self, op: str, inputs: list[str], output: str, name: str, **attrs: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attrs))

    def threshold(self, node: Node, source: str, matrix: Int) -> None:
        """One MultiThreshold: y = type_lo + sum_i(x >= T[c, i]), with all 2**bits - 1 thresholds, ascending."""
        out = self.graph.tensors[node.output]
        kind = threshold_type(matrix, self.types[source])
        steps = self.constant(f"{node.name}_thresholds", matrix, kind)
        self.node(
            "MultiThreshold",
            [source, steps],
            self.value(node.output, self.shape(node.output), out.dtype),
            node.name,
            domain=DOMAIN,
            out_dtype=out.dtype,
            out_scale=1.0,
            out_bias=float(out.range[0]),
            data_layout="NHWC",
        )


def emit(prepared: Prepared, size: tuple[int, int]) -> ModelWrapper:
    """The QONNX model of a prepared graph for one image size (H, W), batch 1, every type and layout set.

    Tensors keep the names of the IntGraph. InputError where a parameter does not fit FINN's float32 containers.
    """
    graph = prepared.graph
    height, width = size
    if height < 1 or width < 1:
        raise InputError(f"FINN: input size {height}x{width}; allowed: at least 1x1")
    emitter = _Emitter(graph, size, bounds(graph))
    image = graph.tensors[graph.input]
    emitter.types[graph.input] = image.dtype
    emitter.images.append(graph.input)
    for node in graph.nodes:
        _EMIT[node.op](emitter, node)
    body = helper.make_graph(
        emitter.nodes,
        "srq_hw",
        [helper.make_tensor_value_info(graph.input, TensorProto.FLOAT, emitter.shape(graph.input))],
        [helper.make_tensor_value_info(graph.output, TensorProto.FLOAT, emitter.shape(graph.output))],
        emitter.weights,
        value_info=[value for value in emitter.values if value.name != graph.output],
    )
    model = ModelWrapper(
        helper.make_model(
            body,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
            producer_name="srq-hw",
            ir_version=10,
        )
    )
    for name, dtype in emitter.types.items():
        model.set_tensor_datatype(name, DataType[dtype])
    for name in emitter.images:
        model.set_tensor_layout(name, layouts.NHWC)
    return model


# --- one function per operation -----------------------------------------------------------------------------------


def _conv(e: _Emitter, node: Node) -> None:
    weight, bias, source = node.params["weight"], node.params["bias"], node.inputs[0]
    channels_out, channels_in, rows, columns = weight.shape
    shape = e.shape(source)
    columns_of = source
    if (rows, columns) != (1, 1):
        columns_of = e.value(f"{node.name}_im2col", [*shape[:3], rows * columns * channels_in], e.types[source])
        e.node(
            "Im2Col",
            [source],
            columns_of,
            f"{node.name}_window",
            domain=DOMAIN,
            stride=[1, 1],
            kernel_size=[rows, columns],
            pad_amount=[rows // 2, columns // 2, rows // 2, columns // 2],
            input_shape=f"({','.join(map(str, shape))})",
            depthwise=0,
            dilations=[1, 1],
        )
    matrix = weight.transpose(2, 3, 1, 0).reshape(rows * columns * channels_in, channels_out)
    bits = bits_for(int(weight.min()), int(weight.max()), signed=True)
    bits = max(bits, RTL_BITS_MIN if e.graph.tensors[source].bits >= RTL_BITS_MIN else 2)
    weights = e.constant(f"{node.name}_weight", matrix, f"INT{bits}")
    # The matrix unit sums from 0 and without the bias; `bounds` counts 0 in every product, so partial sums fit as well.
    reach = e.reach[node.output]
    lo, hi = int((reach.lo - bias).min()), int((reach.hi - bias).max())
    image = e.graph.tensors[source]
    product = bits + image.bits - (1 if image.signed else 0)  # FINN's RTL refuses an accumulator below one product
    accumulator = e.value(node.output, e.shape(node.output), f"INT{max(product, bits_for(lo, hi, signed=True))}")
    e.node("MatMul", [columns_of, weights], accumulator, node.name)
    e.bias[node.output] = bias


def _requant(e: _Emitter, node: Node) -> None:
    source = node.inputs[0]
    out = e.graph.tensors[node.output]
    matrix = requant_thresholds(node, e.reach[source], out.range, e.bias.get(source))
    e.threshold(node, source, matrix)


def _offset(e: _Emitter, node: Node) -> None:
    source = node.inputs[0]
    matrix = offset_thresholds(node.params["offset"], e.reach[source], e.graph.tensors[node.output].range)
    e.threshold(node, source, matrix)


def _add(e: _Emitter, node: Node) -> None:
    out = e.graph.tensors[node.output]
    e.node("Add", list(node.inputs), e.value(node.output, e.shape(node.output), out.dtype), node.name)


def _concat(e: _Emitter, node: Node) -> None:
    out = e.graph.tensors[node.output]
    e.node("Concat", list(node.inputs), e.value(node.output, e.shape(node.output), out.dtype), node.name, axis=-1)


def _depth_to_space(e: _Emitter, node: Node) -> None:
    """Reshape -> Transpose -> Reshape, which FINN infers as one Shuffle.

    DCR: (H, W, dy, dx*C) -> (H, dy, W, dx*C), a swap of two outer axes. CRD: (H, W, C, dy, dx) -> (H, dy, W, dx, C).
    """
    source, block = node.inputs[0], node.int_attr("block")
    _, height, width, channels = e.shape(source)
    out = channels // block**2
    if node.str_attr("mode") == "DCR":
        split, permutation = [height, width, block, block * out], [0, 2, 1, 3]
    else:
        split, permutation = [height, width, out, block, block], [0, 3, 1, 4, 2]
    moved = [split[axis] for axis in permutation]
    dtype = e.types[source]
    before = e.value(f"{node.name}_split", split, dtype, image=False)
    after = e.value(f"{node.name}_moved", moved, dtype, image=False)
    result = e.value(node.output, e.shape(node.output), dtype)
    e.node("Reshape", [source, _shape_constant(e, f"{node.name}_split_shape", split)], before, f"{node.name}_split")
    e.node("Transpose", [before], after, node.name, perm=permutation)
    merged = _shape_constant(e, f"{node.name}_merged_shape", e.shape(node.output))
    e.node("Reshape", [after, merged], result, f"{node.name}_merge")


def _shape_constant(e: _Emitter, name: str, shape: list[int]) -> str:
    e.weights.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    return name


_EMIT: dict[str, Callable[[_Emitter, Node], None]] = {
    "Conv": _conv,
    "Requant": _requant,
    "Offset": _offset,
    "Add": _add,
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
}
