"""FINN's own figures of every node of a folded graph, and the memory that FINN leaves out (runs inside the worker)."""

from __future__ import annotations

from typing import Any

import numpy as np

from srq_hw.backends.finn.estimate import NodeFigures


def figures(model: Any, part: str) -> list[NodeFigures]:
    """One row per node, in graph order. part: full part number."""
    from qonnx.custom_op.registry import getCustomOp

    waits = _join_buffers(model)
    table = []
    for node in model.graph.node:
        op = getCustomOp(node)
        raw = op.node_res_estimation(part)
        attributes = {item.name for item in node.attribute}
        matrix = node.op_type.startswith("MVAU")
        weights = model.get_initializer(node.input[1]) if matrix else None
        weight_bits = op.get_input_datatype(1).bitwidth() if matrix else 0
        table.append(
            NodeFigures(
                name=node.name,
                op=node.op_type,
                cycles=int(op.get_exp_cycles()),
                pe=int(op.get_nodeattr("PE")) if "PE" in attributes else 1,
                simd=int(op.get_nodeattr("SIMD")) if "SIMD" in attributes else 1,
                input_bits=op.get_input_datatype(0).bitwidth(),
                weight_bits=weight_bits,
                narrow_weights=weights is not None and float(np.min(weights)) > -(2.0 ** (weight_bits - 1)),
                buffer_bits=waits.get(node.name, 0) + _shuffle_buffer(node.op_type, op),
                converters=_converters(model, node, op),
                raw={key: round(float(raw[key])) for key in ("LUT", "DSP", "BRAM_18K", "URAM")},
            )
        )
    return table


def _converters(model: Any, node: Any, op: Any) -> int:
    """Consumers that read the node's stream at another width."""
    from qonnx.custom_op.registry import getCustomOp

    count = 0
    for index, name in enumerate(node.output):
        for reader in model.find_consumers(name) or []:
            port = list(reader.input).index(name)
            count += getCustomOp(reader).get_instream_width(port) != op.get_outstream_width(index)
    return count


def _shuffle_buffer(op_type: str, op: Any) -> int:
    """Bits a shuffle holds: everything inside the outermost axis that moves, rounded up to a power of two of words."""
    shape = [int(size) for size in op.get_nodeattr("transpose_in_shape")] if "Shuffle" in op_type else []
    bits = op.get_input_datatype(0).bitwidth() if shape else 0
    if op_type.startswith("InnerShuffle"):
        return 2 * shape[-2] * shape[-1] * bits
    if op_type.startswith("OuterShuffle"):
        permutation = list(op.get_nodeattr("perm"))
        first = next(axis for axis, source in enumerate(permutation) if axis != source)
        simd = int(op.get_nodeattr("SIMD"))
        words = int(np.prod(shape[first:])) // simd
        return int(1 << (words - 1).bit_length()) * simd * bits
    return 0


def _join_buffers(model: Any) -> dict[str, int]:
    """Bits that the early side of a join waits with, per joining node.

    A window generator looks half a kernel of rows ahead, so each k x k convolution delays its branch by k // 2 rows;
    the other branch has to hold as many rows of its feature map.
    """
    from qonnx.custom_op.registry import getCustomOp

    rows: dict[str, int] = {}  # tensor -> delay in rows of its own size
    held: dict[str, int] = {}
    for node in model.graph.node:
        op = getCustomOp(node)
        streams = [name for name in node.input if model.get_initializer(name) is None]
        delay = max((rows.get(name, 0) for name in streams), default=0)
        shape = op.get_normal_input_shape()
        if len(streams) > 1:
            row = int(np.prod(shape[2:])) * op.get_input_datatype(0).bitwidth()
            held[node.name] = sum(delay - rows.get(name, 0) for name in streams) * row
        if node.op_type.startswith("ConvolutionInputGenerator"):
            delay += int(op.get_nodeattr("ConvKernelDim")[0]) // 2
        if "OuterShuffle" in node.op_type and len(op.get_nodeattr("out_shape")) == 4:
            block = int(op.get_nodeattr("out_shape")[1]) // int(op.get_nodeattr("transpose_in_shape")[0])
            delay = delay * max(1, block) + 1
        for name in node.output:
            rows[name] = delay
    return held
