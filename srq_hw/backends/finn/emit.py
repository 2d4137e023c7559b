"""IntGraph -> FINN's dataflow graph, written directly: NHWC, integers, no scale anywhere, one node of hardware each.

FINN's units: a Conv becomes FMPadding -> ConvolutionInputGenerator -> MVAU; its bias, the Requant and the activation
become one Thresholding whose thresholds are the exact inverse of the integer function. All other nodes are our ops. The
attributes are those that FINN's convert_to_hw would write; every data type is set here from the proven ranges, so that
FINN has nothing left to infer, and SpecializeLayers is the first of its steps that runs.
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

from srq_hw.backends.finn.ops.nodes import DOMAIN, make_duplicate, make_node
from srq_hw.backends.finn.placement import accumulator_bits, exact_in_float32, weight_bits
from srq_hw.backends.finn.prepare import Prepared
from srq_hw.backends.finn.thresholds import requant_thresholds, threshold_type
from srq_hw.errors import InputError
from srq_hw.graph.check import bounds
from srq_hw.graph.ir import Int, IntGraph, Node
from srq_hw.graph.opspec import Bounds

OPSET = 18
#: tensors between the units of a convolution: its name and this
PADDED, WINDOWS = "__padded", "__windows"


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
    bias: dict[str, Int] = field(default_factory=dict)  # accumulator -> what its thresholds must absorb
    waiting: dict[str, list[str]] = field(default_factory=dict)  # streams of a tensor, one per reader still to come

    def shape(self, tensor: str) -> list[int]:
        t = self.graph.tensors[tensor]
        return [1, self.size[0] * t.upscale, self.size[1] * t.upscale, t.channels]

    def value(self, name: str, shape: list[int], dtype: str) -> str:
        if name in self.types:
            raise InputError(f"FINN: two tensors are called {name}; rename the node of that name")
        self.values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.types[name] = dtype
        return name

    def constant(self, name: str, array: Int, dtype: str) -> str:
        if not exact_in_float32(array):
            raise InputError(
                f"FINN: {name}: a value up to {int(np.abs(array).max())} is not exact in float32, the only type FINN "
                "stores parameters in. Allowed: |value| <= 2**24. Use fewer weight or activation bits."
            )
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        self.types[name] = dtype
        return name

    def finn(self, op: str, inputs: list[str], output: str, name: str, **attrs: Any) -> str:
        """One of FINN's nodes, unfolded; returns its output."""
        attrs |= {"backend": "fpgadataflow"}
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, domain=DOMAIN, **attrs))
        return output

    def offer(self, tensor: str, dtype: str | None = None) -> str:
        """The stream that a tensor's maker writes, called as the tensor; one that is read several times is forked."""
        kind = dtype or self.graph.tensors[tensor].dtype
        self.waiting[tensor] = self.arms(tensor)
        for name in dict.fromkeys([tensor, *self.waiting[tensor]]):
            if name in (self.graph.input, self.graph.output):  # the graph declares those
                self.types[name] = kind
            else:
                self.value(name, self.shape(tensor), kind)
        return tensor

    def arms(self, tensor: str) -> list[str]:
        """One stream per use. (What reads the graph's output is dead, and `prepare` has dropped it.)"""
        uses = sum(node.inputs.count(tensor) for node in self.graph.nodes)
        return [tensor] if uses < 2 else [f"{tensor}__copy{index}" for index in range(uses)]

    def fork(self, tensor: str) -> None:
        """The fork behind a tensor's maker, where it needs one."""
        arms = self.arms(tensor)
        if len(arms) > 1:
            self.nodes.append(make_duplicate(self.graph, tensor, self.size, tensor, arms, f"{tensor}__fork"))

    def take(self, node: Node) -> list[str]:
        """The streams that a node reads, one of its own for each use."""
        return [self.waiting[tensor].pop(0) for tensor in node.inputs]


def emit(prepared: Prepared, size: tuple[int, int]) -> ModelWrapper:
    """FINN's dataflow graph of a prepared graph for one image size (H, W), batch 1, unfolded, every type set.

    Tensors keep the names of the IntGraph; what a node of it makes is the output of the last FINN node made of it.
    InputError where a parameter does not fit FINN's float32 containers.
    """
    graph = prepared.graph
    height, width = size
    if height < 1 or width < 1:
        raise InputError(f"FINN: input size {height}x{width}; allowed: at least 1x1")
    emitter = _Emitter(graph, size, bounds(graph))
    emitter.offer(graph.input)
    emitter.fork(graph.input)
    for node in graph.nodes:
        own = _FINN[node.op] if prepared.places[node.name].library == "finn" else _ours
        own(emitter, node, emitter.take(node))
        emitter.fork(node.output)
    body = helper.make_graph(
        emitter.nodes,
        "srq_hw",
        [helper.make_tensor_value_info(graph.input, TensorProto.FLOAT, emitter.shape(graph.input))],
        [helper.make_tensor_value_info(graph.output, TensorProto.FLOAT, emitter.shape(graph.output))],
        emitter.weights,
        value_info=emitter.values,
    )
    model = ModelWrapper(
        helper.make_model(
            body,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
            producer_name="srq-hw",
            ir_version=10,
        )
    )
    constants = {item.name for item in emitter.weights}
    for name, dtype in emitter.types.items():
        model.set_tensor_datatype(name, DataType[dtype])
        if name not in constants:
            model.set_tensor_layout(name, layouts.NHWC)
    return model


# --- what stands for a node: our op, or FINN's units --------------------------------------------------------------


def _ours(e: _Emitter, node: Node, ins: list[str]) -> None:
    e.nodes.append(make_node(e.graph, node, e.size, ins, e.offer(node.output), node.name))


def _conv(e: _Emitter, node: Node, ins: list[str]) -> None:
    weight = node.params["weight"]
    channels_out, channels_in, rows, columns = weight.shape
    _, height, width, _ = e.shape(node.inputs[0])
    source, kind = ins[0], e.types[ins[0]]
    if (rows, columns) != (1, 1):
        pad = [rows // 2, columns // 2] * 2
        padded = [height + 2 * pad[0], width + 2 * pad[1]]
        source = e.finn(
            "FMPadding",
            [source],
            e.value(node.name + PADDED, [1, *padded, channels_in], kind),
            f"{node.name}__padding",
            ImgDim=[height, width],
            Padding=pad,
            NumChannels=channels_in,
            inputDataType=kind,
            SIMD=1,
        )
        source = e.finn(
            "ConvolutionInputGenerator",
            [source],
            e.value(node.name + WINDOWS, [1, height, width, rows * columns * channels_in], kind),
            f"{node.name}__window",
            ConvKernelDim=[rows, columns],
            IFMChannels=channels_in,
            IFMDim=padded,
            OFMDim=[height, width],
            SIMD=1,
            Stride=[1, 1],
            Dilation=[1, 1],
            inputDataType=kind,
            outputDataType=kind,
            depthwise=0,
            is1D=int(min(height, width) == 1),
        )
    matrix = weight.transpose(2, 3, 1, 0).reshape(rows * columns * channels_in, channels_out)
    weights = e.constant(f"{node.name}_weight", matrix, f"INT{weight_bits(e.graph, node)}")
    total = f"INT{accumulator_bits(e.graph, node, e.reach[node.output])}"
    e.bias[node.output] = node.params["bias"]
    e.finn(
        "MVAU",
        [source, weights],
        e.offer(node.output, total),
        node.name,
        MW=rows * columns * channels_in,
        MH=channels_out,
        SIMD=1,
        PE=1,
        inputDataType=kind,
        weightDataType=e.types[weights],
        outputDataType=total,
        accDataType=total,
        ActVal=0,
        binaryXnorMode=0,
        noActivation=1,
        numInputVectors=[1, height, width],
        mem_mode="internal_decoupled",
        inFIFODepths=[2],
    )


def _requant(e: _Emitter, node: Node, ins: list[str]) -> None:
    """One Thresholding: y = type_lo + sum_i(x >= T[c, i]), with all 2**bits - 1 thresholds, ascending."""
    out, kind = e.graph.tensors[node.output], e.types[ins[0]]
    matrix = requant_thresholds(node, e.reach[node.inputs[0]], out.range, e.bias.get(node.inputs[0]))
    steps = e.constant(f"{node.name}_thresholds", matrix, threshold_type(matrix, kind))
    e.finn(
        "Thresholding",
        [ins[0], steps],
        e.offer(node.output),
        node.name,
        NumChannels=out.channels,
        PE=1,
        numSteps=matrix.shape[1],
        inputDataType=kind,
        weightDataType=e.types[steps],
        outputDataType=out.dtype,
        numInputVectors=e.shape(node.output)[:-1],
        ActVal=out.range[0],
    )


_FINN: dict[str, Callable[[_Emitter, Node, list[str]], None]] = {"Conv": _conv, "Requant": _requant}
