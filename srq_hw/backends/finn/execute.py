"""Runs a FINN dataflow graph with FINN's own Python model of every node, exactly and in bounded memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

#: a threshold layer compares every value with every threshold at once; this bounds the elements of that table
COMPARE_LIMIT = 1 << 22


def execute(model: Any, image: npt.NDArray[np.int64], keep: Collection[str]) -> dict[str, npt.NDArray[np.int64]]:
    """Integers of the tensors named in `keep` (NHWC or folded shape), computed node by node by FINN's execute_node.

    model: qonnx ModelWrapper with HLS/RTL nodes; they are replaced by FINN's abstraction layer, which runs in Python.
    Differences to FINN's own loop, none of which computes anything: products get float64 operands, so that sums above
    2**24 stay exact; threshold layers run in blocks of rows; tensors are dropped after their last use.
    """
    from finn.util.verification import despecialize_model
    from qonnx.custom_op.registry import getCustomOp

    model = despecialize_model(model)
    graph = model.graph
    values: dict[str, Any] = {init.name: model.get_initializer(init.name) for init in graph.initializer}
    values[graph.input[0].name] = image.astype(np.float32)
    last_use = {name: index for index, node in enumerate(graph.node) for name in node.input}
    kept: dict[str, npt.NDArray[np.int64]] = {}
    for index, node in enumerate(graph.node):
        op = getCustomOp(node)
        for name in node.output:  # some nodes ask for the shape of what they are about to write
            values[name] = np.zeros(model.get_tensor_shape(name), np.float32)
        if node.op_type == "MVAU":
            for name in node.input[:2]:
                values[name] = values[name].astype(np.float64)
        if node.op_type == "Thresholding":
            _in_blocks(op, node, values, graph)
        else:
            op.execute_node(values, graph)
        for name in node.output:
            # Some shuffles leave their own view of the tensor; the stream, so the row-major order, is the same.
            values[name] = values[name].reshape(model.get_tensor_shape(name))
            if name in keep:
                kept[name] = _integers(node.name, name, values[name])
        for name in set(node.input):
            if last_use[name] == index:
                values.pop(name, None)
    return kept


def _in_blocks(op: Any, node: Any, values: dict[str, Any], graph: Any) -> None:
    """The same execute_node on slices of rows; a threshold layer works on each pixel alone."""
    source, thresholds = values[node.input[0]], values[node.input[1]]
    flat = source.reshape(1, -1, 1, source.shape[-1])
    rows = max(1, COMPARE_LIMIT // (flat.shape[-1] * thresholds.shape[1]))
    parts = []
    for start in range(0, flat.shape[1], rows):
        block = {node.input[0]: flat[:, start : start + rows], node.input[1]: thresholds}
        op.execute_node(block, graph)
        parts.append(block[node.output[0]])
    values[node.output[0]] = np.concatenate(parts, axis=1).reshape(source.shape)


def _integers(node: str, tensor: str, array: Any) -> npt.NDArray[np.int64]:
    integers = np.asarray(array).astype(np.int64)
    if (integers != array).any():
        raise ValueError(f"{node} wrote a fraction into {tensor}")
    return integers
