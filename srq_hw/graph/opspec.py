"""What the table of operations says of each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srq_hw.graph.ir import Int, Node, Tensor

Ins = Sequence[Tensor]


@dataclass(frozen=True)
class Bounds:
    """Per channel, the smallest and largest integer a tensor can hold: int64 (C,) each."""

    lo: Int
    hi: Int

    @staticmethod
    def of(tensor: Tensor) -> Bounds:
        """Everything the type allows."""
        lo, hi = tensor.range
        return Bounds(np.full(tensor.channels, lo, np.int64), np.full(tensor.channels, hi, np.int64))


@dataclass(frozen=True)
class OpSpec:
    """One row of the table. shape, problems, bounds and execute get the node and its input tensors in order."""

    inputs: int | None  #: how many tensors it reads; None: two or more
    attrs: Mapping[str, type]
    params: Mapping[str, bool]  #: name -> required
    doc: str
    shape: Callable[[Node, Ins], tuple[int, int]]  #: (channels, upscale) of the output
    bounds: Callable[[Node, Ins, Sequence[Bounds]], Bounds]
    execute: Callable[[Node, Ins, Sequence[Int]], Int]  #: NHWC int64 in, NHWC int64 out
    #: what is wrong with the node beyond attrs and params being there, as sentences
    problems: Callable[[Node, Ins], list[str]] = lambda node, ins: []
    #: pixels around an output pixel that it looks at, in pixels of the input
    halo: Callable[[Node], int] = lambda node: 0
