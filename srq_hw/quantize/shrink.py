"""Whole numbers near given ones whose weighted l1 norms fit: soft thresholds, one per row and side, in integers.

The upper end of a sum is sum max(w lo, w hi) over its weights, the lower one sum min(w lo, w hi); each is a norm of the
row with weights of its own, and what lies nearest within a norm's ball is a soft threshold of what was given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srq_hw.jit import jit

Real = npt.NDArray[np.float64]

#: halvings of the interval in which a threshold lies: what is left of it is far below a weight step
HALVINGS = 44


@dataclass(frozen=True, eq=False)
class Inputs:
    """Smallest and largest integer that meets each weight of a convolution, float64 (O, K); 0 lies between."""

    lo: Real
    hi: Real


def shrink(values: Real, inputs: Inputs, room: tuple[Real, Real], relief: Real, lo: int, hi: int) -> tuple[Real, Real]:
    """Whole numbers (O, K) of lo..hi near the values whose worst sums fit, and the thresholds of both ends, (2, O).

    Each value is rounded, then loses whole steps until both ends fit: first the upper, then the lower. All float64.
    values: (O, K); room: what the sum may reach downwards and upwards from the bias, (O,) each, >= 0; relief: (O, K),
    > 0, 1 / how much an error of the value counts. A threshold t takes t * relief * gain / (largest gain of the row)
    from a size, gain being what one unit of it adds to the end; 0 where the end fits.
    """
    whole, thresholds = np.empty_like(values), np.empty((2, len(values)))
    arrays = (values, inputs.lo, inputs.hi, np.stack((room[1], room[0])), relief)
    _shrink(*(np.ascontiguousarray(array, np.float64) for array in arrays), float(lo), float(hi), whole, thresholds)
    return whole, thresholds


@jit
def _shrink(
    values: Real, least: Real, most: Real, room: Real, relief: Real, lo: float, hi: float, whole: Real, thresholds: Real
) -> None:
    rows, count = values.shape
    size, limit, left, held = np.empty(count), np.empty(count), np.empty(count), np.empty(count)
    gain, pull = np.empty(count), np.empty(count)
    for row in range(rows):
        for k in range(count):
            value = values[row, k]
            size[k], held[k] = abs(value), 0.0
            limit[k] = abs(min(max(np.rint(value), lo), hi))
            left[k] = limit[k]
        for side in range(2):
            unit, reached, none, enough = 1.0, 0.0, 0.0, 0.0
            for k in range(count):
                gain[k] = most[row, k] if (values[row, k] > 0) == (side == 0) else -least[row, k]
                unit = max(unit, gain[k])
                reached += gain[k] * left[k]
            if reached > room[side, row]:
                for k in range(count):
                    pull[k] = relief[row, k] * gain[k] / unit
                    if pull[k] > 0:
                        enough = max(enough, (size[k] + 1.0) / pull[k])
                for _ in range(HALVINGS):
                    now = (none + enough) / 2
                    reached = 0.0
                    for k in range(count):
                        reached += gain[k] * min(limit[k], max(np.ceil(size[k] - held[k] - now * pull[k] - 0.5), 0.0))
                    if reached > room[side, row]:
                        none = now
                    else:
                        enough = now
                        if reached > room[side, row] - unit:  # not one more unit of the heaviest weight fits
                            break
                for k in range(count):
                    held[k] += enough * pull[k]
                    left[k] = min(limit[k], max(np.ceil(size[k] - held[k] - 0.5), 0.0))
            thresholds[side, row] = enough
        for k in range(count):
            whole[row, k] = left[k] if values[row, k] > 0 else -left[k]
