"""Threshold lists of FINN's MultiThreshold: exact, complete (2**bits - 1 per channel), sorted, of the right type.

FINN's RTL searches a list by bisection and fills a list that is too short with zeros, so a list must be complete and
ascending. A level that is always reached gets the smallest possible input, one that never is the largest plus one.
"""

from __future__ import annotations

import numpy as np

from srq_hw.fixedpoint import bits_for, int_range, thresholds
from srq_hw.graph.ir import Int, Node
from srq_hw.graph.opspec import Bounds


def requant_thresholds(node: Node, reach: Bounds, out_range: tuple[int, int], bias: Int | None) -> Int:
    """int64 (C, 2**bits - 1): y = out_lo + sum_i(x >= T[c, i]) equals the Requant for every x that can arrive.

    reach: bounds of the accumulator with its bias; x is the accumulator without it (bias: int64 (C,) or None).
    """
    lo, hi = node.int_attr("lo"), node.int_attr("hi")
    first, last = int(reach.lo.min()), int(reach.hi.max())
    core = thresholds(
        node.params["multiplier"],
        node.params["shift"],
        node.str_attr("rounding"),
        lo,
        hi,
        first,
        last,
        node.int_attr("zero_point"),
        node.params.get("negative_multiplier"),
    )
    channels = len(reach.lo)
    core = np.broadcast_to(core, (channels, hi - lo))
    always = np.full((channels, lo - out_range[0]), first, np.int64)
    never = np.full((channels, out_range[1] - hi), last + 1, np.int64)
    matrix = _within_reach(np.concatenate([always, core, never], axis=1), reach)
    shift = np.zeros(channels, np.int64) if bias is None else bias
    return _free_ends_in_float32(matrix - shift[:, None], reach.lo - shift, reach.hi - shift)


def _within_reach(matrix: Int, reach: Bounds) -> Int:
    """Per channel, clip to [lo, hi + 1]: no input in [lo, hi] sees a difference, and the type gets narrower."""
    return np.clip(matrix, reach.lo[:, None], reach.hi[:, None] + 1)


def _free_ends_in_float32(matrix: Int, lo: Int, hi: Int) -> Int:
    """Levels that are always or never reached may move outwards, to a value that FINN's float32 holds exactly."""
    near = matrix.astype(np.float32)
    up = np.where(near < matrix, np.nextafter(near, np.float32(np.inf)), near).astype(np.int64)
    down = np.where(near > matrix, np.nextafter(near, np.float32(-np.inf)), near).astype(np.int64)
    return np.where(matrix > hi[:, None], up, np.where(matrix <= lo[:, None], down, matrix))


def threshold_type(matrix: Int, input_type: str) -> str:
    """QONNX type that holds the thresholds so that FINN's RTL compares right.

    Where the thresholds are narrower than the input, the RTL saturates the input to the threshold type; the type then
    has to hold min(T) - 1 as well, or a saturated input would pass min(T). Unsigned inputs keep their width.
    """
    lo, hi = int(matrix.min()), int(matrix.max())
    bits = int(input_type.lstrip("UINT"))
    if input_type.startswith("U"):
        return f"UINT{max(bits, bits_for(0, hi, signed=False))}"
    type_lo, type_hi = int_range(bits, True)
    if type_lo <= lo and hi <= type_hi:
        return f"INT{min(bits, bits_for(lo - 1, hi, signed=True))}"
    return f"INT{bits_for(lo, hi, signed=True)}"
