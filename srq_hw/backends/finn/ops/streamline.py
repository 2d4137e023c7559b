"""A streamlining step for super-resolution networks out of QONNX, for FINN users who do not start from an IntGraph.

FINN's own step_streamline leaves residuals, pixel shuffles and concatenations with scales and transposes between the
layers. This step moves all of them out, with FINN's and qonnx' transformations only, and makes the thresholds round
like the Quant nodes they come from. Runs in a FINN process.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import qonnx.core.data_layout as layouts
from finn.transformation.streamline import Streamline, absorb, reorder
from finn.transformation.streamline.round_thresholds import RoundAndClipThresholds
from onnx import TensorProto, helper
from qonnx.custom_op.registry import getCustomOp
from qonnx.transformation.base import Transformation
from qonnx.transformation.double_to_single_float import DoubleToSingleFloat
from qonnx.transformation.general import (
    GiveReadableTensorNames,
    GiveUniqueNodeNames,
    GiveUniqueParameterTensors,
    RemoveUnusedTensors,
    SortGraph,
)
from qonnx.transformation.infer_data_layouts import InferDataLayouts
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul
from qonnx.util.basic import get_by_name

#: a graph that has not settled after so many rounds never does
ROUNDS_MAX = 40


class LowerDepthToSpace(Transformation):
    """DepthToSpace, NCHW, as Transpose, Reshape, Transpose, Reshape, Transpose; FINN makes a Shuffle of the middle."""

    def apply(self, model: Any) -> tuple[Any, bool]:
        """Replace every one; the model is changed in place."""
        graph = model.graph
        for node in [item for item in graph.node if item.op_type == "DepthToSpace"]:
            batch, channels, height, width = model.get_tensor_shape(node.input[0])
            block = get_by_name(node.attribute, "blocksize").i
            mode = get_by_name(node.attribute, "mode")
            out = channels // block**2
            if mode is not None and mode.s == b"CRD":
                split, order = [batch, height, width, out, block, block], [0, 1, 4, 2, 5, 3]
            else:
                split, order = [batch, height, width, block, block, out], [0, 1, 3, 2, 4, 5]
            large = [batch, height * block, width * block, out]
            steps = (
                ("Transpose", [batch, height, width, channels], [0, 2, 3, 1]),
                ("Reshape", split, None),
                ("Transpose", [split[axis] for axis in order], order),
                ("Reshape", large, None),
                ("Transpose", [batch, out, height * block, width * block], [0, 3, 1, 2]),
            )
            place, source = list(graph.node).index(node), node.input[0]
            graph.node.remove(node)
            for index, (op, shape, perm) in enumerate(steps):
                last = index == len(steps) - 1
                target = node.output[0] if last else self._tensor(model, shape, node.input[0])
                inputs = [source] if perm else [source, self._constant(model, shape)]
                attrs: dict[str, Any] = {"perm": perm} if perm else {}
                made = helper.make_node(op, inputs, [target], **attrs)
                graph.node.insert(place + index, made)
                source = target
        return model, False

    @staticmethod
    def _tensor(model: Any, shape: list[int], like: str) -> str:
        name = model.make_new_valueinfo_name()
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        model.set_tensor_datatype(name, model.get_tensor_datatype(like))
        return str(name)

    @staticmethod
    def _constant(model: Any, shape: list[int]) -> str:
        name = model.make_new_valueinfo_name()
        model.set_initializer(name, np.array(shape, np.int64))
        return str(name)


class HalfEvenThresholds(Transformation):
    """Ties of thresholds on integers go to the even level, as QONNX' Quant (rounding mode ROUND) rounds.

    A MultiThreshold counts x >= T, so an x that is T exactly always goes up. Where T is an integer and the level below
    is even, T becomes T + 1. Thresholds on floats stay: there a tie cannot be told from a value just above it.
    """

    def apply(self, model: Any) -> tuple[Any, bool]:
        """Move the thresholds of every MultiThreshold with an integer input."""
        for node in model.get_nodes_by_op_type("MultiThreshold"):
            if not model.get_tensor_datatype(node.input[0]).is_integer():
                continue
            steps = model.get_initializer(node.input[1]).astype(np.float64)
            level = int(getCustomOp(node).get_nodeattr("out_bias")) + np.arange(steps.shape[1])
            ties = (steps == np.rint(steps)) & (level % 2 == 0)
            dtype = model.get_tensor_datatype(node.input[1])
            model.set_initializer(node.input[1], (steps + ties).astype(np.float32))
            model.set_tensor_datatype(node.input[1], dtype)
        return model, False


def step_srq_streamline(model: Any, cfg: Any) -> Any:
    """Build step in the place of FINN's step_streamline, for networks with residuals, concatenations, splits and pixel
    shuffles whose branches share their scales."""
    model = copy.deepcopy(model)  # once: qonnx would do so for every transformation
    model = _tidy(_applied(model, GiveUniqueParameterTensors(), LowerDepthToSpace()))
    model = _settled(model, _LINEAR)
    model = _tidy(_applied(model, LowerConvsToMatMul()))
    model = _settled(model, _TRANSPOSES)
    model = _settled(model, _LINEAR)
    return _tidy(_applied(model, DoubleToSingleFloat(), HalfEvenThresholds(), RoundAndClipThresholds()))


def step_srq_integer_ends(model: Any, cfg: Any) -> Any:
    """Build step behind `step_srq_streamline`: the graph reads and writes the integers, as images (1, H, W, C).

    What stands in front of the first integer tensor (quantization of the image) and behind the last one (its scale) is
    left to the host; the model's metadata say what: srq_host_input, srq_host_output.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    first, said = graph.input[0].name, []
    while True:
        readers = model.find_consumers(first)
        movable = len(readers) == 1 and readers[0].op_type in ("MultiThreshold", "Transpose")
        if not movable or (readers[0].op_type == "MultiThreshold" and model.get_tensor_datatype(first).is_integer()):
            break
        said.append(_described(model, readers[0]))
        first = readers[0].output[0]
        graph.node.remove(readers[0])
    last = graph.output[0].name
    after: list[str] = []
    while True:
        maker = model.find_producer(last)
        constant = len(maker.input) == 2 and model.get_initializer(maker.input[1]) is not None
        if maker.op_type != "Transpose" and not (maker.op_type in ("Mul", "Add") and constant):
            break
        after.insert(0, _described(model, maker))
        last = maker.input[0]
        graph.node.remove(maker)
    for name, port in ((first, graph.input[0]), (last, graph.output[0])):
        _become(model, name, port)
    model.set_metadata_prop("srq_host_input", "; ".join(said))
    model.set_metadata_prop("srq_host_output", "; ".join(after))
    return _tidy(model)


def _described(model: Any, node: Any) -> str:
    """An operation in words that a host program can be written from."""
    if node.op_type == "Transpose":
        return f"Transpose {list(get_by_name(node.attribute, 'perm').ints)}"
    values = np.ravel(model.get_initializer(node.input[1]))
    if node.op_type != "MultiThreshold":
        return f"{node.op_type} {' '.join(f'{value:.9g}' for value in values)}"
    dtype = model.get_tensor_datatype(node.output[0])
    return f"quantize to {dtype.name}, thresholds {values.min():.9g} to {values.max():.9g}"


def _become(model: Any, name: str, port: Any) -> None:
    """An inner tensor takes the place of the graph's input or output, with its own name, shape, type and layout."""
    if name == port.name:
        return
    shape, dtype, layout = (
        get(name) for get in (model.get_tensor_shape, model.get_tensor_datatype, model.get_tensor_layout)
    )
    for item in [item for item in model.graph.value_info if item.name == name]:
        model.graph.value_info.remove(item)
    port.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    model.set_tensor_datatype(name, dtype)
    model.set_tensor_layout(name, layout or layouts.NHWC)


#: scales towards the output, until they meet a threshold
_LINEAR = (
    Streamline,
    reorder.MoveLinearPastFork,
    GiveUniqueParameterTensors,
    reorder.MoveLinearPastEltwiseAdd,
    reorder.MoveMulPastJoinConcat,
    reorder.MoveScalarLinearPastSplit,
)
#: transposes towards each other, until they cancel
_TRANSPOSES = (
    reorder.MoveTransposePastFork,
    reorder.MoveTransposePastJoinAdd,
    reorder.MoveTransposePastJoinConcat,
    reorder.MoveTransposePastSplit,
    reorder.MoveTransposePastScalarMul,
    absorb.AbsorbTransposeIntoMultiThreshold,
    absorb.AbsorbConsecutiveTransposes,
)


def _settled(model: Any, transformations: Sequence[Any]) -> Any:
    """Apply them in turn until the sequence of operations stays the same."""
    before: list[tuple[str, tuple[str, ...]]] = []
    for _ in range(ROUNDS_MAX):
        model = _tidy(_applied(model, *(transformation() for transformation in transformations)))
        now = [(node.op_type, tuple(node.input)) for node in model.graph.node]
        if now == before:
            break
        before = now
    return model


def _applied(model: Any, *transformations: Any) -> Any:
    """In turn, on the model itself."""
    for transformation in transformations:
        model = model.transform(transformation, make_deepcopy=False)
    return model


def _tidy(model: Any) -> Any:
    return _applied(
        model,
        GiveUniqueNodeNames(),
        GiveReadableTensorNames(),
        InferShapes(),
        InferDataTypes(),
        InferDataLayouts(),
        RemoveUnusedTensors(),
        SortGraph(),
    )
