"""FINN's own layers, as its convert_to_hw makes them, one model each; what ReplaceHlsLayers is tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

IMAGE = [1, 3, 4, 8]
Wrap = Callable[..., Any]


def _node(op: str, inputs: list[str], outputs: list[str], **attrs: Any) -> Any:
    return helper.make_node(
        op, inputs, outputs, name=f"{op}_0", domain="finn.custom_op.fpgadataflow", backend="fpgadataflow", **attrs
    )


def _fork(wrap: Wrap) -> Any:
    node = _node("DuplicateStreams", ["x"], ["y", "z"], NumChannels=8, PE=1, NumOutputStreams=2, inputDataType="INT5",
                 numInputVectors=IMAGE[:3])  # fmt: skip
    return wrap([node], {"x": (IMAGE, "INT5")}, {"y": (IMAGE, "INT5"), "z": (IMAGE, "INT5")}, {})


def _concat(wrap: Wrap, types: tuple[str, str] = ("UINT4", "UINT4")) -> Any:
    node = _node("StreamingConcat", ["x", "w"], ["y"], SIMD=1, ChannelsPerStream=[8, 4], inputDataTypes=list(types),
                 numInputVectors=IMAGE[:3])  # fmt: skip
    out = {"y": ([*IMAGE[:3], 12], "UINT4")}
    return wrap([node], {"x": (IMAGE, types[0]), "w": ([*IMAGE[:3], 4], types[1])}, out, {})


def _split(wrap: Wrap) -> Any:
    node = _node("StreamingSplit", ["x"], ["y", "z"], SIMD=1, ChannelsPerStream=[6, 2], inputDataType="INT7",
                 numInputVectors=IMAGE[:3])  # fmt: skip
    outs = {"y": ([*IMAGE[:3], 6], "INT7"), "z": ([*IMAGE[:3], 2], "INT7")}
    return wrap([node], {"x": (IMAGE, "INT7")}, outs, {})


def _add(wrap: Wrap) -> Any:
    node = _node("ElementwiseAdd", ["x", "w"], ["y"], lhs_dtype="INT8", rhs_dtype="UINT8", out_dtype="INT32",
                 lhs_shape=IMAGE, rhs_shape=IMAGE, out_shape=IMAGE)  # fmt: skip
    return wrap([node], {"x": (IMAGE, "INT8"), "w": (IMAGE, "UINT8")}, {"y": (IMAGE, "INT32")}, {})


def _add_constant(wrap: Wrap, values: Any = None) -> Any:
    node = _node("ElementwiseAdd", ["x", "w"], ["y"], lhs_dtype="UINT8", rhs_dtype="INT9", out_dtype="INT32",
                 lhs_shape=IMAGE, rhs_shape=[8], out_shape=IMAGE, rhs_style="const")  # fmt: skip
    model = wrap([node], {"x": (IMAGE, "UINT8")}, {"y": (IMAGE, "INT32")}, {})
    model.set_initializer("w", np.arange(-100, 100, 25, dtype=np.float32) if values is None else values)
    return model


def _upsample(wrap: Wrap) -> Any:
    node = _node("UpsampleNearestNeighbour", ["x"], ["y"], SIMD=1, HI=3, WI=4, HO=6, WO=8, NumChannels=8,
                 inputDataType="INT4")  # fmt: skip
    return wrap([node], {"x": (IMAGE, "INT4")}, {"y": ([1, 6, 8, 8], "INT4")}, {})


def _shuffle(wrap: Wrap, split: list[int], order: list[int], out: list[int]) -> Any:
    moved = [split[axis] for axis in order]
    node = _node("Shuffle", ["x"], ["y"], data_type="INT6", in_shape=IMAGE, transpose_in_shape=split, perm=order,
                 transpose_out_shape=moved, out_shape=out, SIMD=1, NumChannels=8)  # fmt: skip
    return wrap([node], {"x": (IMAGE, "INT6")}, {"y": (out, "INT6")}, {})


def vector_fork(wrap: Wrap) -> Any:
    """No image: a fork between dense layers."""
    node = _node("DuplicateStreams", ["x"], ["y", "z"], NumChannels=8, PE=1, NumOutputStreams=2, inputDataType="INT5",
                 numInputVectors=[1])  # fmt: skip
    kind = ([1, 8], "INT5")
    return wrap([node], {"x": kind}, {"y": kind, "z": kind}, {})


LAYERS: dict[str, Callable[[Wrap], Any]] = {
    "fork": _fork,
    "concat": _concat,
    "split": _split,
    "add": _add,
    "add_constant": _add_constant,
    "upsample": _upsample,
    "shuffle_crd": lambda wrap: _shuffle(wrap, [1, 3, 4, 2, 2, 2], [0, 1, 4, 2, 5, 3], [1, 6, 8, 2]),
    "shuffle_dcr": lambda wrap: _shuffle(wrap, [3, 4, 2, 4], [0, 2, 1, 3], [1, 6, 8, 2]),
    # These are not ours to take.
    "concat_of_two_types": lambda wrap: _concat(wrap, ("UINT4", "UINT3")),
    "add_fraction": lambda wrap: _add_constant(wrap, np.full(8, 0.5, np.float32)),
}
