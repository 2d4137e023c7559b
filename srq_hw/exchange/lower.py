"""Lower: QONNX file to IntGraph, for our files and for foreign ones. Here, and only here, floats become integers.

Every Quant node becomes a Requant whose multiplier is the dyadic number nearest to the file's ratio of scales. For our
own files that is exact, and the file's metadata says so a second time; for foreign files it is within 2**-k.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx

from srq_hw.errors import InputError
from srq_hw.exchange.lower_ops import HANDLERS
from srq_hw.exchange.lower_quant import lower_output
from srq_hw.exchange.qonnx_export import META_PREFIX
from srq_hw.exchange.values import ImageInput, Lowering
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.passes import run_passes
from srq_hw.target import Target


def load_qonnx(path: Path) -> onnx.ModelProto:
    """Read a QONNX file; InputError where it is missing or not ONNX."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .qonnx or .onnx file with Quant nodes")
    try:
        model = onnx.load(path)
        if not model.graph.node:
            raise ValueError("the graph is empty")
    except Exception as error:  # protobuf raises its own types for damaged files
        raise InputError(f"{path}: not a readable ONNX file ({type(error).__name__}: {error})") from error
    return model


def lower(model: onnx.ModelProto, target: Target, source: str = "model.qonnx") -> IntGraph:
    """The integer program of a QONNX model, passes run. InputError names the node that integers cannot run, and why."""
    state = Lowering(model, source)
    _start(state)
    for node in state.graph.node:
        handler = HANDLERS.get(node.op_type)
        if handler is None:
            raise state.error(
                node, "this operation has no integer form here", f"Supported are {', '.join(sorted(HANDLERS))}."
            )
        state.values[node.output[0]] = handler(state, node, target)
    if len(state.graph.output) != 1:
        raise InputError(f"{source}: {len(state.graph.output)} outputs; one image goes out")
    output = lower_output(state, target)
    props = {item.key: item.value for item in model.metadata_props}
    metadata = {key: props[META_PREFIX + key] for key in ("version", "target") if META_PREFIX + key in props}
    graph = run_passes(
        IntGraph(state.graph.name or "network", state.image_name, output, tuple(state.nodes), state.tensors, metadata)
    )
    _cross_check(graph, props.get(META_PREFIX + "requant"), source)
    return graph


def _start(state: Lowering) -> None:
    inputs = [item for item in state.graph.input if item.name not in state.values]
    if len(inputs) != 1:
        raise InputError(
            f"{state.source}: {len(inputs)} inputs ({', '.join(i.name for i in inputs)}); one image goes in"
        )
    dims = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
    if len(dims) != 4 or dims[1] < 1:
        raise InputError(
            f"{state.source}: input {inputs[0].name} has shape {dims}; wanted (1, channels, height, width)"
        )
    state.image_name = inputs[0].name
    state.values[inputs[0].name] = ImageInput(dims[1])


def image_size(model: onnx.ModelProto) -> tuple[int, int] | None:
    """(height, width) of the file's input, or None where it is open."""
    names = {item.name for item in model.graph.initializer}
    dims = next(item for item in model.graph.input if item.name not in names).type.tensor_type.shape.dim
    height, width = dims[2].dim_value, dims[3].dim_value
    return (height, width) if height > 0 and width > 0 else None


def _cross_check(graph: IntGraph, requant: str | None, source: str) -> None:
    """Our own files carry M and S in clear: what the scales gave back must be the same integers."""
    if requant is None:
        return
    try:
        stored = {
            name: {key: np.array(item[key], np.int64) for key in ("multiplier", "shift")}
            for name, item in json.loads(requant).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{source}: metadata {META_PREFIX}requant is damaged ({type(error).__name__}: {error}). Export it again."
        ) from error
    for node in graph.nodes:
        if node.op != "Requant" or node.name not in stored:
            continue
        for key in ("multiplier", "shift"):
            if not np.array_equal(node.params[key], stored[node.name][key]):
                raise InputError(
                    f"{source}, node {node.name}: the scales give {key} {node.params[key].tolist()[:4]}…, the metadata "
                    f"says {stored[node.name][key].tolist()[:4]}…; the file was edited or lowered for another target. "
                    "Export it again."
                )
