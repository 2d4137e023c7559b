"""Integer taps of the separable upsampling filters: bilinear, and bicubic with Keys' kernel.

Output pixel ``factor * y + phase`` lies at ``y + (phase + 1/2) / factor - 1/2`` of the input (half-pixel centres); its
value is a weighted sum of the pixels ``y - R .. y + R``, edge pixels repeated. Keys 1981: for a distance d,
``(a+2)d^3 - (a+3)d^2 + 1`` below 1 and ``a d^3 - 5a d^2 + 8a d - 4a`` below 2.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np

from srq_hw.graph.ir import Int

#: a kernel whose weights are no multiples of a power of two is rounded to multiples of 2**-FIXED_POINT_BITS
FIXED_POINT_BITS = 10

#: name -> Keys' a; None: linear. MATLAB and most SR papers use -1/2, torch's interpolate -3/4
KERNELS: dict[str, Fraction | None] = {
    "bilinear": None,
    "bicubic": Fraction(-1, 2),
    "bicubic_torch": Fraction(-3, 4),
}


def _weight(kernel: str, distance: Fraction) -> Fraction:
    a, d = KERNELS[kernel], abs(distance)
    if a is None:
        return max(1 - d, Fraction(0))
    if d < 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else Fraction(0)


@cache
def _table(kernel: str, factor: int) -> tuple[tuple[tuple[int, ...], ...], int, bool]:
    radius = 1 if KERNELS[kernel] is None else 2
    rows = []
    for phase in range(factor):
        position = Fraction(2 * phase + 1, 2 * factor) - Fraction(1, 2)
        rows.append([_weight(kernel, tap - position) for tap in range(-radius, radius + 1)])
    common = int(np.lcm.reduce([weight.denominator for row in rows for weight in row]))
    if common & (common - 1) == 0:
        return tuple(tuple(int(weight * common) for weight in row) for row in rows), common, True
    unit = 1 << FIXED_POINT_BITS
    found = []
    for row in rows:
        steps = [round(weight * unit) for weight in row]
        largest = max(range(len(row)), key=lambda i: row[i])
        steps[largest] += unit - sum(steps)  # a flat area keeps its grey level exactly
        found.append(tuple(steps))
    return tuple(found), unit, False


def filter_taps(kernel: str, factor: int) -> tuple[Int, int]:
    """Taps int64 (factor, 2R+1) and their common denominator, a power of two; every row sums to the denominator.

    Exact where the weights are multiples of a power of two (factors 2, 4, 8), else rounded to 2**-FIXED_POINT_BITS
    (factor 3: bicubic is in 27ths). kernel: a name of KERNELS; factor >= 2.
    """
    rows, denominator, _ = _table(kernel, factor)
    return np.array(rows, np.int64), denominator


def taps_are_exact(kernel: str, factor: int) -> bool:
    """Whether the integer taps are the kernel's real weights, with nothing rounded."""
    return _table(kernel, factor)[2]
