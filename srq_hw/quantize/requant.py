"""Real requantization ratios to the integers of a target: one rule for `freeze` and for `exchange.lower`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from srq_hw.fixedpoint import canonical_dyadic, dyadic
from srq_hw.target import Target

Int = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]

#: a shift-only target cannot meet a ratio that is further than this from a power of two
POW2_TOLERANCE = 1e-5


#: a bias keeps at most so many significant bits, so that the float32 of a QONNX file gives it back exactly
BIAS_SIGNIFICANT_BITS = 21


def significant(values: Real) -> Int:
    """Nearest integers with at most BIAS_SIGNIFICANT_BITS significant bits; int64, same shape.

    Three float32 roundings (bias, input scale, weight scale) are 3 * 2**-24, less than half of the last such bit: what
    `freeze` wrote `exchange.lower` reads back.
    """

    def one(value: float) -> int:
        whole = int(np.rint(value))
        drop = max(0, abs(whole).bit_length() - BIAS_SIGNIFICANT_BITS)
        return int(np.rint(whole / (1 << drop))) << drop

    return np.array([one(float(value)) for value in values.reshape(-1)], np.int64).reshape(values.shape)


def shifts_only(target: Target) -> bool:
    """Whether every scale must be a power of two."""
    return target.integer.requant.kind == "pow2"


def multiplier_bits(target: Target) -> int:
    """Width of the multiplier; 1 for a target that only shifts."""
    rule = target.integer.requant
    return 1 if rule.kind == "pow2" else rule.multiplier_bits or 1


def multipliers(ratios: Real, target: Target) -> tuple[Int, Int]:
    """M and S, int64 (n,) each, for real ratios (n,); (1,) where all channels share one pair.

    ValueError where a shift-only target cannot meet a ratio.
    """
    pairs = [canonical_dyadic(*dyadic(float(ratio), multiplier_bits(target))) for ratio in ratios]
    if shifts_only(target):
        for ratio, (m, s) in zip(ratios, pairs, strict=True):
            if abs(m * 2.0**-s / ratio - 1) > POW2_TOLERANCE:
                raise ValueError(f"scale ratio {ratio:g} is no power of two, and target {target.name} only shifts")
    if len(set(pairs)) == 1:
        pairs = pairs[:1]
    return np.array([m for m, _ in pairs], np.int64), np.array([s for _, s in pairs], np.int64)


def slope_multipliers(multiplier: Int, shift: Int, slope: Real, target: Target) -> tuple[Int, Int, Int]:
    """M and S at full multiplier width, and the second M for negative accumulators: round(slope * M).

    A canonical M may be small (1 for a ratio of one); at full width the slope is as fine as the target allows. Where a
    slope above 1 does not fit beside it, both lose a bit, and so M is rounded anew.
    """
    slope_bits = target.integer.ops.Requant.slope_bits
    width = multiplier_bits(target) if slope_bits is None else slope_bits + 1  # a shifter: M = 2**slope_bits
    lift = np.array([max(0, width - int(m).bit_length()) for m in multiplier], np.int64)
    multiplier, shift = multiplier << lift, shift + lift
    if len(slope) > 1 and len(multiplier) == 1:
        multiplier, shift = np.repeat(multiplier, len(slope)), np.repeat(shift, len(slope))
    negative = np.rint(slope * multiplier).astype(np.int64)
    if slope_bits is None and (np.abs(negative) >> width).any():
        slopes = np.broadcast_to(slope, multiplier.shape)
        triples = [
            _fitting(int(m), int(s), float(slope), width) for m, s, slope in zip(multiplier, shift, slopes, strict=True)
        ]
        multiplier, shift, negative = (np.array(column, np.int64) for column in zip(*triples, strict=True))
    return multiplier, shift, negative


def _fitting(multiplier: int, shift: int, slope: float, width: int) -> tuple[int, int, int]:
    """M, S and the second M of one channel, neither wider than ``width`` bits; the widest pair that fits."""
    negative = int(np.rint(slope * multiplier))
    while abs(negative) >> width:
        multiplier, shift = int(np.rint(multiplier / 2)), shift - 1
        negative = int(np.rint(slope * multiplier))
    if multiplier.bit_length() < width and not (2 * abs(negative)) >> width:  # rounding made room again
        multiplier, shift, negative = multiplier << 1, shift + 1, negative << 1
    return multiplier, shift, negative
