"""What the Verilog cannot do although an IntGraph may say it: refused by name before anything is made."""

from __future__ import annotations

from srq_hw.errors import InputError
from srq_hw.graph.ir import IntGraph


def refuse(graph: IntGraph) -> None:
    """InputError for the first thing of an arranged graph that no module of the library does."""
    if not graph.nodes:
        raise InputError(
            f"RTL of {graph.name}: no node lies between the input {graph.input!r} and the output {graph.output!r}; "
            "wanted one or more. Choose the output of a node."
        )
    for tensor in graph.tensors.values():
        lo, hi = tensor.range
        if lo <= tensor.zero_point <= hi:
            continue
        maker = graph.producer(tensor.name)
        where = f"node {maker.name} ({maker.op})" if maker else f"input {tensor.name}"
        raise InputError(
            f"RTL of {graph.name}, {where}: zero point {tensor.zero_point}; wanted {lo} to {hi}, what {tensor.dtype} "
            "holds, because a zero point pads the image. Quantize with one inside the range."
        )
