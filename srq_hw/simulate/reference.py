"""The reference simulator: int64 numpy, one op of the table after the other. Slow, obvious, the definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from srq_hw.errors import InputError
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.graph.ops import OPS


def as_batch(graph: IntGraph, image: npt.NDArray[np.integer]) -> Int:
    """An image (H,W,C) or a batch (N,H,W,C) as int64 NHWC; InputError where channels or values do not fit the graph."""
    x = np.asarray(image)
    tensor = graph.tensors[graph.input]
    if x.ndim == 3:
        x = x[None]
    if x.ndim != 4 or x.shape[-1] != tensor.channels or 0 in x.shape:
        raise InputError(f"image of shape {image.shape}; {graph.name} reads (H, W, {tensor.channels})")
    if not np.issubdtype(x.dtype, np.integer):
        raise InputError(f"image of type {x.dtype}; {graph.name} reads integers ({tensor.dtype})")
    lo, hi = tensor.range
    if int(x.min()) < lo or int(x.max()) > hi:
        raise InputError(f"image values {x.min()}..{x.max()}; {graph.name} reads {tensor.dtype} ({lo}..{hi})")
    return x.astype(np.int64)


def run(graph: IntGraph, image: npt.NDArray[np.integer]) -> Int:
    """Output image, int64 (N, H*upscale, W*upscale, C)."""
    return trace(graph, image)[graph.output]


def trace(
    graph: IntGraph, image: npt.NDArray[np.integer], watch: Callable[[str, Int], None] | None = None
) -> dict[str, Int]:
    """Every tensor by name, int64 NHWC. With ``watch``, each tensor goes there and only live ones stay in memory."""
    values = {graph.input: as_batch(graph, image)}
    last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    if watch:
        watch(graph.input, values[graph.input])
    for index, node in enumerate(graph.nodes):
        ins = [graph.tensors[name] for name in node.inputs]
        result = OPS[node.op].execute(node, ins, [values[name] for name in node.inputs])
        values[node.output] = result
        if watch:
            watch(node.output, result)
            for name in set(node.inputs):
                if last_use[name] == index and name != graph.output:
                    del values[name]
    return values
