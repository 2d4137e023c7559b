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


def multiplier_bits(target: Target) -> int:
    """Width of the multiplier; 1 for a target that only shifts."""
    rule = target.integer.requant
    return 1 if rule.kind == "pow2" else rule.multiplier_bits or 1


def multipliers(ratios: Real, target: Target) -> tuple[Int, Int]:
    """M and S, int64 (n,) each, for real ratios (n,); (1,) where all channels share one pair.

    ValueError where a shift-only target cannot meet a ratio.
    """
    pairs = [canonical_dyadic(*dyadic(float(ratio), multiplier_bits(target))) for ratio in ratios]
    if target.integer.requant.kind == "pow2":
        for ratio, (m, s) in zip(ratios, pairs, strict=True):
            if abs(m * 2.0**-s / ratio - 1) > POW2_TOLERANCE:
                raise ValueError(f"scale ratio {ratio:g} is no power of two, and target {target.name} only shifts")
    if len(set(pairs)) == 1:
        pairs = pairs[:1]
    return np.array([m for m, _ in pairs], np.int64), np.array([s for _, s in pairs], np.int64)


def slope_multipliers(multiplier: Int, shift: Int, slope: Real, target: Target) -> tuple[Int, Int, Int]:
    """M and S at full multiplier width, and the second M for negative accumulators: round(slope * M).

    A canonical M may be small (1 for a ratio of one); at full width the slope is as fine as the target allows.
    """
    lift = np.array([max(0, multiplier_bits(target) - int(m).bit_length()) for m in multiplier], np.int64)
    multiplier, shift = multiplier << lift, shift + lift
    if len(slope) > 1 and len(multiplier) == 1:
        multiplier, shift = np.repeat(multiplier, len(slope)), np.repeat(shift, len(slope))
    return multiplier, shift, np.rint(slope * multiplier).astype(np.int64)
