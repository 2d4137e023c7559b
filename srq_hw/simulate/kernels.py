"""The compiled inner loops of the fast simulator: accumulators, or two maps, to one byte per value.

They compute in float64, which is exact here: `requant_is_exact` admits a Requant only where every product
``acc * M`` and its rounding constant stay below 2**53, and scaling by 2**-S loses nothing. Then rint, floor and trunc
see the true quotient and every tie rule is the one of `fixedpoint`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from srq_hw.graph.ir import Node
from srq_hw.jit import jit

Real = npt.NDArray[np.float64]

#: rounding -> (primitive, added, added with the sign of the value); primitive 0: rint, 1: floor, 2: trunc
_RULES: dict[str, tuple[int, float, float]] = {
    "half_even": (0, 0.0, 0.0),
    "half_up": (1, 0.5, 0.0),
    "half_away": (2, 0.0, 0.5),
    "floor": (1, 0.0, 0.0),
    "trunc": (2, 0.0, 0.0),
}

#: Integers up to here are exact in float64.
EXACT = 1 << 53


@dataclass(frozen=True, eq=False)
class Requant:
    """A Requant node as the kernels read it. scale, negative: M / 2**S per channel, exact; rule: a row of the table."""

    scale: Real
    negative: Real
    slopes: bool
    rule: tuple[int, float, float]
    zero_point: int
    lo: int
    hi: int

    @property
    def kernel(self) -> tuple[int, bool]:
        """Which kernel does it: the key of `requant_kernel` and `add_kernel`."""
        return self.rule[0], self.slopes

    def arguments(self, offset: int) -> tuple[Any, ...]:
        """The part of a kernel call that describes the requantization, for an output stored with ``offset``."""
        return (
            self.scale,
            self.negative,
            *self.rule[1:],
            float(self.zero_point + offset),
            float(self.lo + offset),
            float(self.hi + offset),
        )


def requant_is_exact(node: Node, lo: int, hi: int) -> bool:
    """True where float64 computes the Requant exactly for every accumulator in [lo, hi]."""
    shift = node.params["shift"]
    if int(np.abs(shift).max()) > 62:  # outside what `fixedpoint.round_shift` defines
        return False
    largest = max(
        int(np.abs(node.params[key]).max()) for key in ("multiplier", "negative_multiplier") if key in node.params
    )
    half = 1 << max(0, int(shift.max()) - 1) if node.str_attr("rounding") in ("half_up", "half_away") else 0
    reach = max(abs(lo), abs(hi)) * largest << max(0, -int(shift.min()))
    clamps = max(abs(node.int_attr(key)) for key in ("lo", "hi", "zero_point"))
    # rint, floor and trunc need no constant added; a shift to the left makes the value itself grow.
    return reach + max(half, clamps) < EXACT


def requant_of(node: Node, channels: int, order: npt.NDArray[np.int64]) -> Requant:
    """Kernel form of a Requant node; ``order`` permutes the channels."""

    def scale(multiplier: npt.NDArray[np.int64]) -> Real:
        exponent = np.broadcast_to(-node.params["shift"], (channels,)).astype(np.int32)
        mantissa = np.broadcast_to(multiplier, (channels,)).astype(np.float64)
        return np.ascontiguousarray(np.ldexp(mantissa, exponent)[order])

    positive = scale(node.params["multiplier"])
    slopes = "negative_multiplier" in node.params
    negative = scale(node.params["negative_multiplier"]) if slopes else positive
    lo, hi, zero_point = (node.int_attr(key) for key in ("lo", "hi", "zero_point"))
    return Requant(positive, negative, slopes, _RULES[node.str_attr("rounding")], zero_point, lo, hi)


# One kernel is compiled per (primitive, slopes) that a graph uses: with these fixed, the loop over the channels has no
# branch left and becomes vector code, five times as fast. Compiling takes about half a second.


@cache
def requant_kernel(primitive: int, slopes: bool) -> Callable[..., None]:
    """Accumulators (rows, W, C) + bias to bytes, written from (row, column) of ``out`` on as block x block pixels.

    Channel (dy * block + dx) * C_out + c goes to pixel (y * block + dy, x * block + dx); block 1 is the plain copy.
    slopes: ``negative`` is in force below 0.
    """

    @jit
    def requant_rows(
        acc: Any,
        bias: Any,
        scale: Any,
        negative: Any,
        add: float,
        signed_add: float,
        zero_point: float,
        lo: float,
        hi: float,
        out: Any,
        row: int,
        column: int,
        block: int,
    ) -> None:
        rows, columns, channels = acc.shape
        size = channels // (block * block)
        for y in range(rows):
            for x in range(columns):
                for part in range(block * block):
                    begin = part * size
                    source = acc[y, x, begin : begin + size]
                    b, s, n = bias[begin : begin + size], scale[begin : begin + size], negative[begin : begin + size]
                    target = out[row + y * block + part // block, column + x * block + part % block]
                    for c in range(size):
                        value = np.float64(source[c]) + b[c]
                        if slopes:
                            above, below = s[c], n[c]  # both read first: a read inside the choice cannot be vectorized
                            value *= below if value < 0.0 else above
                        else:
                            value *= s[c]
                        if primitive == 0:
                            level = np.rint(value)
                        elif primitive == 1:
                            level = np.floor(value + add)
                        else:
                            level = np.trunc(value + (signed_add if value >= 0.0 else -signed_add))
                        target[c] = np.uint8(np.int32(min(max(level + zero_point, lo), hi)))

    return requant_rows


@cache
def add_kernel(primitive: int, slopes: bool) -> Callable[..., None]:
    """Requantized ``a * a_factor + b * b_factor + constant`` of two byte maps; each map from its own row and column."""

    @jit
    def add_rows(
        a: Any,
        a_row: int,
        a_column: int,
        a_factor: float,
        b: Any,
        b_row: int,
        b_column: int,
        b_factor: float,
        constant: float,
        rows: int,
        columns: int,
        scale: Any,
        negative: Any,
        add: float,
        signed_add: float,
        zero_point: float,
        lo: float,
        hi: float,
        out: Any,
        row: int,
        column: int,
    ) -> None:
        for y in range(rows):
            for x in range(columns):
                left, right = a[a_row + y, a_column + x], b[b_row + y, b_column + x]
                target = out[row + y, column + x]
                for c in range(scale.size):
                    value = np.float64(left[c]) * a_factor + np.float64(right[c]) * b_factor + constant
                    if slopes:
                        above, below = scale[c], negative[c]
                        value *= below if value < 0.0 else above
                    else:
                        value *= scale[c]
                    if primitive == 0:
                        level = np.rint(value)
                    elif primitive == 1:
                        level = np.floor(value + add)
                    else:
                        level = np.trunc(value + (signed_add if value >= 0.0 else -signed_add))
                    target[c] = np.uint8(np.int32(min(max(level + zero_point, lo), hi)))

    return add_rows
