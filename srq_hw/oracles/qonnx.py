"""qonnx's own executor against the reference simulator, node by node.

qonnx computes in float32, which cannot hold every sum: near a tie its quantizer may land one step off. Every node is
therefore fed the reference's integers, so that a difference is local; one step off with the exact value within
float32's error of a tie counts as a tie (printed, never hidden), anything else is a mismatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from srq_hw.graph.ir import Int, IntGraph, Node
from srq_hw.simulate.reference import trace

Real = npt.NDArray[np.float64]
FLOAT32_EPSILON = 2.0**-24


@dataclass(frozen=True)
class QonnxOracle:
    """elements compared, mismatches, near ties among the rest, tensors, the first tensor that differs ("" if none)."""

    elements: int
    mismatches: int
    ties: int
    tensors: int
    first: str


def qonnx_oracle(model: onnx.ModelProto, graph: IntGraph, image: npt.NDArray[np.integer]) -> QonnxOracle:
    """Run the QONNX file in qonnx on an image (H, W, C) of the file's input size and compare every quantized tensor."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_node
    from qonnx.transformation.infer_shapes import InferShapes

    wrapper = ModelWrapper(model).transform(InferShapes())
    opsets = {item.domain: item.version for item in model.opset_import}
    reference = trace(graph, image)
    context = {item.name: onnx.numpy_helper.to_array(item) for item in wrapper.graph.initializer}
    entry = next(item.name for item in wrapper.graph.input if item.name not in context)
    unit = graph.tensors[graph.input].scale or 1.0
    context[entry] = _nchw(reference[graph.input] * unit)
    elements = mismatches = ties = tensors = 0
    first = ""
    for proto in wrapper.graph.node:
        for name in proto.output:
            context.setdefault(name, np.zeros(wrapper.get_tensor_shape(name) or [1], np.float32))
        execute_node(proto, context, wrapper.graph, opsets.get(proto.domain, 1))
        name = proto.output[0]
        if proto.op_type not in ("Quant", "IntQuant") or name not in reference:
            continue
        tensor = graph.tensors[name]
        assert tensor.scale is not None
        found = np.rint(np.asarray(context[name], np.float64) / tensor.scale).transpose(0, 2, 3, 1).astype(np.int64)
        found += tensor.zero_point
        wanted = reference[name]
        wrong = found != wanted
        producer = graph.producer(name)
        near = wrong & _near_tie(graph, producer, reference, found) if producer and wrong.any() else wrong & False
        elements, tensors = elements + wanted.size, tensors + 1
        ties += int(near.sum())
        real = int((wrong & ~near).sum())
        mismatches += real
        first = first or (name if real else "")
        context[name] = _nchw((wanted - tensor.zero_point) * tensor.scale)
    return QonnxOracle(elements, mismatches, ties, tensors, first)


def _nchw(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def _near_tie(graph: IntGraph, node: Node, values: dict[str, Int], found: Int) -> npt.NDArray[np.bool_]:
    """Where the exact pre-rounding value is within float32's error of the border between both integers.

    Error bound: (number of terms + 8) roundings of relative size 2**-24, each at most of the sum of magnitudes.
    """
    acc = values[node.inputs[0]].astype(np.float64)
    ratio = node.params["multiplier"] / np.exp2(node.params["shift"].astype(np.float64))
    if "negative_multiplier" in node.params:
        ratio = np.where(acc < 0, node.params["negative_multiplier"] / np.exp2(node.params["shift"]), ratio)
    exact = acc * ratio + node.int_attr("zero_point")
    wanted = values[node.output]
    border = (found + wanted) / 2.0 if node.str_attr("rounding").startswith("half") else np.maximum(found, wanted)
    terms, magnitude = _sum_of(graph, node.inputs[0], values)
    bound = FLOAT32_EPSILON * (np.sqrt(terms) + 8) * (magnitude * ratio + np.abs(exact) + 1)
    one_step = np.abs(found - wanted) == 1
    near: npt.NDArray[np.bool_] = one_step & (np.abs(exact - border) <= bound)
    return near


def _sum_of(graph: IntGraph, tensor: str, values: dict[str, Int]) -> tuple[int, Real]:
    """How many terms the accumulator sums, and a bound on the sum of their magnitudes (broadcastable)."""
    producer = graph.producer(tensor)
    if producer is None or producer.op != "Conv":
        return 2, np.abs(values[tensor]).astype(np.float64)
    weight = producer.params["weight"]
    largest = float(np.abs(values[producer.inputs[0]]).max())
    return int(weight[0].size), np.abs(weight).sum((1, 2, 3)) * largest + np.abs(producer.params["bias"])
