"""qonnx's own executor against the reference simulator, node by node.

qonnx computes in float32, which cannot hold every sum: near a tie its quantizer may land one step off. Every node is
therefore fed the reference's integers, so that a difference is local; one step off with the exact value within
float32's error of a tie counts as a tie (printed, never hidden), anything else is a mismatch. So is an integer of the
reference that the file's own rounding rule does not give: at an exact tie a wrong rule is one step off too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from srq_hw.exchange.names import QUANT_NODES
from srq_hw.exchange.qonnx_export import META_PREFIX
from srq_hw.exchange.values import ROUNDING_MODES, attributes
from srq_hw.graph.check import SAME_TYPE_OPS
from srq_hw.graph.ir import Int, IntGraph, Node
from srq_hw.graph.ops import OPS
from srq_hw.graph.resampling import undo_depth_to_space
from srq_hw.quantize.requant import POW2_TOLERANCE
from srq_hw.simulate.reference import trace

Real = npt.NDArray[np.float64]
FLOAT32_EPSILON = 2.0**-24
#: name of the empty tensor that stands for a Resize's missing roi
NO_ROI = "srq_hw_no_roi"


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

    wrapper = ModelWrapper(_without_gaps(model)).transform(InferShapes())
    doubt = _foreign_doubt(model, graph)
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
            shape = wrapper.get_tensor_shape(name)
            context.setdefault(name, np.zeros([1] if shape is None else shape, np.float32))
        execute_node(proto, context, wrapper.graph, opsets.get(proto.domain, 1))
        for made in proto.output:
            name = made
            producer = graph.producer(name)
            moves = producer is not None and producer.op in SAME_TYPE_OPS
            if name not in reference or not (moves or proto.op_type in QUANT_NODES):
                continue
            tensor = graph.tensors[name]
            assert tensor.scale is not None
            found = np.rint(np.asarray(context[name], np.float64) / tensor.scale).transpose(0, 2, 3, 1).astype(np.int64)
            found += tensor.zero_point
            shuffle = producer if moves and proto.op_type in QUANT_NODES else None
            if shuffle is not None:  # a transposed convolution is quantized in front of its pixel shuffle
                found, name = undo_depth_to_space(found, shuffle), shuffle.inputs[0]
                producer, moves = graph.producer(name), False
            wanted = reference[name]
            wrong = found != wanted
            near = wrong & False
            if producer is not None and not moves:
                if wrong.any():
                    near = wrong & _near_tie(graph, producer, reference, found, doubt)
                other_rule = _by_rule(producer, reference, _file_rule(proto, wrapper.graph.node, context)) != wanted
                wrong, near = wrong | other_rule, near & ~other_rule
            elements, tensors = elements + wanted.size, tensors + 1
            ties += int(near.sum())
            real = int((wrong & ~near).sum())
            mismatches += real
            first = first or (name if real else "")
            context[made] = _nchw((reference[made] - tensor.zero_point) * tensor.scale)
    return QonnxOracle(elements, mismatches, ties, tensors, first)


def _without_gaps(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without optional inputs left out as "", which qonnx cannot run: no roi of a Resize is an empty one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        while node.input and not node.input[-1]:
            del node.input[-1]
        if "" in node.input:
            node.input[:] = [name or NO_ROI for name in node.input]
            if all(item.name != NO_ROI for item in copy.graph.initializer):
                copy.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(0, np.float32), NO_ROI))
    return copy


def _foreign_doubt(model: onnx.ModelProto, graph: IntGraph) -> float:
    """How far a multiplier may be from the file's ratio, relative: 0 for our own files, whose ratios are dyadic."""
    if any(item.key == f"{META_PREFIX}requant" for item in model.metadata_props):
        return 0.0
    widest = max((int(node.params["multiplier"].max()) for node in graph.nodes if node.op == "Requant"), default=1)
    sums = [m for node in graph.nodes if node.op == "Add" for m in node.ints_attr("multipliers")]
    widest = max([widest, *(m // (m & -m) for m in sums)])  # a sum's multipliers carry a shift to the left
    return 2.0 ** -widest.bit_length() if widest > 1 else POW2_TOLERANCE


def _nchw(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def _file_rule(
    quant: onnx.NodeProto, nodes: Iterable[onnx.NodeProto], context: dict[str, npt.NDArray[np.float32]]
) -> str:
    """Our name of the rounding rule that the file asks for; FLOOR behind an Add of half a step is half_up."""
    mode = str(attributes(quant).get("rounding_mode", "ROUND")).upper()
    before = next((node for node in nodes if quant.input[0] in node.output), None)
    if mode == "FLOOR" and before is not None and before.op_type == "Add":
        half = context[quant.input[1]] / 2
        if any(context[name].size == 1 and np.isclose(context[name], half, rtol=1e-6, atol=0) for name in before.input):
            return "half_up"
    return ROUNDING_MODES[mode]


def _by_rule(node: Node, values: dict[str, Int], rounding: str) -> Int:
    """What the node makes of its exact accumulator by another rounding rule."""
    ruled = replace(node, attrs={**node.attrs, "rounding": rounding})
    return OPS[node.op].execute(ruled, (), [values[node.inputs[0]]])


def _near_tie(graph: IntGraph, node: Node, values: dict[str, Int], found: Int, doubt: float) -> npt.NDArray[np.bool_]:
    """Where the exact pre-rounding value is within float32's error of the border between both integers.

    Error bound: about sqrt(number of terms) + 8 roundings of relative size 2**-24 of the sum of magnitudes each;
    for a foreign file (doubt > 0) also what the nearest multipliers and a bias rounded to the accumulator are off.
    """
    acc = values[node.inputs[0]].astype(np.float64)
    ratio = node.params["multiplier"] / np.exp2(node.params["shift"].astype(np.float64))
    if "negative_multiplier" in node.params:
        ratio = np.where(acc < 0, node.params["negative_multiplier"] / np.exp2(node.params["shift"]), ratio)
    exact = acc * ratio + node.int_attr("zero_point")
    wanted = values[node.output]
    rounding, zero = node.str_attr("rounding"), node.int_attr("zero_point")
    border = (found + wanted) / 2.0 if rounding.startswith("half") else np.maximum(found, wanted)
    if rounding == "trunc":  # towards 0: below it the border is the smaller integer
        border = np.where(np.abs(found - zero) > np.abs(wanted - zero), found, wanted)
    terms, magnitude = _sum_of(graph, node.inputs[0], values)
    ratio = np.abs(ratio)
    bound = FLOAT32_EPSILON * (np.sqrt(terms) + 8) * (magnitude * ratio + np.abs(exact) + 1)
    if doubt:
        bound = bound + doubt * magnitude * ratio + ratio
    if not doubt and _exact_in_float32(graph, node):
        bound = np.where(magnitude < 2.0**24, 0.0, bound)
    one_step = np.abs(found - wanted) == 1
    near: npt.NDArray[np.bool_] = one_step & (np.abs(exact - border) < bound)
    return near


def _exact_in_float32(graph: IntGraph, node: Node) -> bool:
    """Powers of two throughout: float32 holds every product, and every sum of magnitude below 2**24."""
    producer = graph.producer(node.inputs[0])
    ends = [node.output, *(producer.inputs if producer is not None else node.inputs)]
    steps = [graph.tensors[name].scale for name in ends]
    shifts_only = bool((node.params["multiplier"] == 1).all()) and "negative_multiplier" not in node.params
    return shifts_only and all(step is not None and np.frexp(step)[0] == 0.5 for step in steps)


def _sum_of(graph: IntGraph, tensor: str, values: dict[str, Int]) -> tuple[int, Real]:
    """How many terms the accumulator sums, and a bound on the sum of their magnitudes (broadcastable)."""
    producer = graph.producer(tensor)
    if producer is not None and producer.op == "Add":
        ma, mb = producer.ints_attr("multipliers")
        a, b = (np.abs(values[name]).astype(np.float64) for name in producer.inputs)
        return 2, a * ma + b * mb
    if producer is None or producer.op != "Conv":
        return 2, np.abs(values[tensor]).astype(np.float64)
    weight = producer.params["weight"]
    largest = float(np.abs(values[producer.inputs[0]]).max())
    return int(weight[0].size), np.abs(weight).sum((1, 2, 3)) * largest + np.abs(producer.params["bias"])
