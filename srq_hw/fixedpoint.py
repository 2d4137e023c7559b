"""Every rounding, shift, multiply-shift and saturation rule of srq-hw, and nowhere else.

Integers are numpy int64 unless said. The tie rules share their names with the target files:

=========== ==============================================
half_even   nearest, ties to the even integer (QONNX ``ROUND``)
half_up     nearest, ties towards plus infinity: floor(x + 1/2)
half_away   nearest, ties away from zero (QONNX ``HALF_UP``)
floor       towards minus infinity
trunc       towards zero
=========== ==============================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]

#: |acc * multiplier| and the rounding constant together stay below this, so int64 cannot wrap.
PRODUCT_LIMIT = 1 << 62
#: a shift stays within [-SHIFT_LIMIT, SHIFT_LIMIT]: int64 has no more bits to shift
SHIFT_LIMIT = 62


def int_range(bits: int, signed: bool, narrow: bool = False) -> tuple[int, int]:
    """Smallest and largest integer of a type; ``narrow`` drops the most negative one (signed only).

    >>> int_range(8, True, narrow=True), int_range(4, False)
    ((-127, 127), (0, 15))
    """
    if not signed:
        return 0, (1 << bits) - 1
    return -(1 << (bits - 1)) + (1 if narrow else 0), (1 << (bits - 1)) - 1


def bits_for(lo: int, hi: int, signed: bool) -> int:
    """Smallest width of a (signed or unsigned) type that holds every integer of [lo, hi]; at least 1."""
    if not signed:
        if lo < 0:
            raise ValueError(f"an unsigned type cannot hold {lo}")
        return max(1, int(hi).bit_length())
    return max(int(hi).bit_length(), int(~lo if lo < 0 else lo).bit_length()) + 1


# --- rounding right shifts: x / 2**shift, then the tie rule -------------------------------------------------------


def _shift_floor(x: Int, shift: Int) -> Int:
    return x >> shift


def _shift_half_up(x: Int, shift: Int) -> Int:
    return (x + _half(shift)) >> shift


def _shift_half_even(x: Int, shift: Int) -> Int:
    quotient = x >> shift
    rest = x - (quotient << shift)
    half = _half(shift)
    up = (rest > half) | ((rest == half) & ((quotient & 1) == 1))
    return quotient + (up & (shift > 0))


def _shift_half_away(x: Int, shift: Int) -> Int:
    return np.sign(x) * ((np.abs(x) + _half(shift)) >> shift)


def _shift_trunc(x: Int, shift: Int) -> Int:
    return np.sign(x) * (np.abs(x) >> shift)


def _half(shift: Int) -> Int:
    """2**(shift-1), or 0 where nothing is shifted out."""
    return (np.int64(1) << shift) >> 1


# --- the same rules on real numbers; ``xp`` is numpy or torch, whose functions of these names agree ----------------


def _real_half_away(x: Any, xp: ModuleType) -> Any:
    # floor(|x| + 0.5) would be wrong for 0.49999999999999994: the sum rounds up to 1.
    whole = xp.trunc(x)
    return whole + xp.sign(x) * (abs(x - whole) >= 0.5)


def _real_half_up(x: Any, xp: ModuleType) -> Any:
    whole = xp.floor(x)
    return whole + (x - whole >= 0.5)


@dataclass(frozen=True)
class Rounding:
    """One tie rule in its two forms: on an integer shifted right, and on a real number."""

    shift: Callable[[Int, Int], Int]
    real: Callable[[Any, ModuleType], Any]
    #: rounding_mode of a QONNX Quant node with the same meaning; None: QONNX has none
    qonnx: str | None


ROUNDINGS: dict[str, Rounding] = {
    "half_even": Rounding(_shift_half_even, lambda x, xp: xp.round(x), "ROUND"),
    "half_up": Rounding(_shift_half_up, _real_half_up, None),
    "half_away": Rounding(_shift_half_away, _real_half_away, "HALF_UP"),
    "floor": Rounding(_shift_floor, lambda x, xp: xp.floor(x), "FLOOR"),
    "trunc": Rounding(_shift_trunc, lambda x, xp: xp.trunc(x), "DOWN"),
}


def round_shift(x: npt.ArrayLike, shift: npt.ArrayLike, rounding: str) -> Int:
    """x / 2**shift rounded by the rule; a negative shift multiplies exactly (shift left).

    x: int64, any shape; shift: int64, broadcast against x, within [-62, 62].
    """
    xs, shifts = np.asarray(x, np.int64), np.asarray(shift, np.int64)
    right = np.maximum(shifts, 0)
    left = np.maximum(-shifts, 0)
    return ROUNDINGS[rounding].shift(xs << left, right)


def round_real(x: npt.ArrayLike, rounding: str) -> Real:
    """Real numbers to integers (kept as float64) by the rule."""
    result: Real = ROUNDINGS[rounding].real(np.asarray(x, np.float64), np)
    return result


def canonical_dyadic(multiplier: int, shift: int) -> tuple[int, int]:
    """The same M / 2**S with common factors of two removed; where S >= 0 one form for one number (S < 0 stays)."""
    while shift > 0 and multiplier % 2 == 0:
        multiplier, shift = multiplier >> 1, shift - 1
    return multiplier, shift


def saturate(x: Int, lo: int, hi: int) -> Int:
    """Clamp to [lo, hi]."""
    return np.clip(x, lo, hi)


def dyadic(ratio: float, multiplier_bits: int) -> tuple[int, int]:
    """The dyadic number M / 2**S nearest to a positive ratio, M with exactly ``multiplier_bits`` significant bits.

    2**(k-1) <= M < 2**k makes the pair unique, so the same ratio always gives the same integers; relative error at
    most 2**-k. With k = 1, M is 1 and the ratio becomes the nearest power of two (in the log domain).
    """
    if not (np.isfinite(ratio) and ratio > 0):
        raise ValueError(f"a requantization ratio must be positive and finite, not {ratio!r}")
    if multiplier_bits == 1:
        return 1, -int(np.rint(np.log2(ratio)))
    mantissa, exponent = np.frexp(np.float64(ratio))  # ratio = mantissa * 2**exponent, mantissa in [1/2, 1)
    multiplier = int(np.rint(np.ldexp(mantissa, multiplier_bits)))
    shift = multiplier_bits - int(exponent)
    if multiplier == 1 << multiplier_bits:  # rounded up to the next power of two
        multiplier, shift = multiplier >> 1, shift - 1
    return multiplier, shift


def requantize(
    acc: npt.ArrayLike,
    multiplier: npt.ArrayLike,
    shift: npt.ArrayLike,
    rounding: str,
    lo: int,
    hi: int,
    zero_point: int = 0,
    negative_multiplier: npt.ArrayLike | None = None,
) -> Int:
    """clamp(round(acc * M / 2**S) + zero_point, lo, hi): the one requantization of the IntGraph (DESIGN 2).

    acc: int64 (..., C), LSB = s_x * s_w[c]; multiplier, shift: int64, broadcast over the last axis;
    negative_multiplier: a second M for acc < 0 (PReLU: slope * M), same shift. ReLU is lo = zero_point.
    The caller proves |acc * M| < PRODUCT_LIMIT (graph.check does).
    """
    values = np.asarray(acc, np.int64)
    factor = np.asarray(multiplier, np.int64)
    if negative_multiplier is not None:
        factor = np.where(values < 0, np.asarray(negative_multiplier, np.int64), factor)
    return saturate(round_shift(values * factor, shift, rounding) + zero_point, lo, hi)


def thresholds(
    multiplier: npt.ArrayLike,
    shift: npt.ArrayLike,
    rounding: str,
    lo: int,
    hi: int,
    acc_lo: int,
    acc_hi: int,
    zero_point: int = 0,
    negative_multiplier: npt.ArrayLike | None = None,
) -> Int:
    """Exact inversion of `requantize`: the smallest accumulator that reaches each output level.

    Returns int64 (C, hi - lo): column i belongs to level lo + 1 + i, ascending. ``y = lo + sum_i(acc >= T_i)`` equals
    `requantize` for every accumulator in [acc_lo, acc_hi], tie rules included, because requantize is monotone for
    multipliers >= 0. A level out of reach gets acc_hi + 1, one that is always reached acc_lo.
    """
    factor = np.atleast_1d(np.asarray(multiplier, np.int64))[:, None]
    shifts = np.atleast_1d(np.asarray(shift, np.int64))[:, None]
    negative = None
    if negative_multiplier is not None:
        negative = np.atleast_1d(np.asarray(negative_multiplier, np.int64))[:, None]
    if (factor < 0).any() or (negative is not None and (negative < 0).any()):
        raise ValueError("thresholds need multipliers >= 0: a falling requantization has no threshold list")
    levels = np.arange(lo + 1, hi + 1, dtype=np.int64)[None, :]
    channels = max(factor.shape[0], shifts.shape[0], 1 if negative is None else negative.shape[0])
    below = np.full((channels, hi - lo), acc_lo - 1, np.int64)  # invariant: everything <= below misses the level
    reached = np.full((channels, hi - lo), acc_hi + 1, np.int64)  # invariant: everything >= reached meets it
    while (reached - below > 1).any():
        middle = (below + reached) >> 1
        open_ = reached - below > 1
        meets = requantize(middle, factor, shifts, rounding, lo, hi, zero_point, negative) >= levels
        reached = np.where(open_ & meets, middle, reached)
        below = np.where(open_ & ~meets, middle, below)
    return reached
