"""Calibration reader, session and census of ONNX files with QuantizeLinear and DequantizeLinear pairs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader

from scripts.peers.exchange import Run, Tensor

#: operators whose quantization the tables count
COUNTED = ("Conv", "ConvTranspose", "Add", "Concat")
#: operators that only move values: quantized values stay quantized
_MOVES = ("DepthToSpace", "Concat", "Slice", "Split", "Transpose", "Reshape", "Relu", "Identity")


class Reader(CalibrationDataReader):
    """Hands the patches to onnxruntime's calibrators one by one."""

    def __init__(self, name: str, patches: Iterable[Tensor]) -> None:
        self.name = name
        self.patches = tuple(patches)
        self.rewind()

    def get_next(self) -> dict[str, Tensor] | None:
        """The next patch as a feed, None at the end."""
        patch = next(self.left, None)
        return None if patch is None else {self.name: patch}

    def rewind(self) -> None:
        """Start again."""
        self.left = iter(self.patches)


def input_name(model: Path) -> str:
    """Name of the model's one input."""
    return str(onnx.load(model).graph.input[0].name)


def session(model: Path, threads: int, library: str | None = None) -> Run:
    """The model as a function on the CPU; library: file of custom operators, if it uses any."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if library is not None:
        options.register_custom_ops_library(library)
    found = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = found.get_inputs()[0].name

    def run(x: Tensor) -> Tensor:
        return np.asarray(found.run(None, {name: x})[0], np.float32)

    return run


def census(model: Path) -> dict[str, tuple[int, int]]:
    """Operator type -> (nodes whose inputs, the bias left out, are all dequantized values, nodes)."""
    graph = onnx.load(model).graph
    producer = {name: node for node in graph.node for name in node.output}
    found: dict[str, tuple[int, int]] = {}
    for node in graph.node:
        if node.op_type in COUNTED:
            wanted = node.input[:2] if node.op_type.startswith("Conv") else node.input
            done, total = found.get(node.op_type, (0, 0))
            found[node.op_type] = (done + all(_dequantized(name, producer) for name in wanted), total + 1)
    return found


def _dequantized(name: str, producer: dict[str, Any]) -> bool:
    node = producer.get(name)
    if node is None:
        return False
    if "DequantizeLinear" in node.op_type:
        return True
    if node.op_type in _MOVES:
        wanted = node.input if node.op_type == "Concat" else node.input[:1]
        return all(_dequantized(part, producer) for part in wanted)
    return False
