"""Zero points: a signed tensor whose values lie mostly on one side gets the integers where its values are.

The real 0 stays an integer (zero padding is exact), so the bounds are nudged until it is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srq_hw.quantize.clipping import clip_bounds
from srq_hw.quantize.histogram import Histogram, merge
from srq_hw.quantize.plan import QuantPlan, zero_point_groups
from srq_hw.quantize.recipe import Recipe
from srq_hw.quantize.requant import shifts_only
from srq_hw.target import Target

Bounds = tuple[float, float]

#: Brevitas and QONNX round x / s + z, the IntGraph rounds first and adds z: the same where rounding commutes with
#: adding an integer (half_up, floor) or an even one (half_even); the other rules get no zero points.
COMMUTES_WITH = {"half_up": 1, "floor": 1, "half_even": 2}


def asymmetric_scales(
    plan: QuantPlan, target: Target, recipe: Recipe, seen: dict[str, list[Histogram]]
) -> tuple[dict[str, float], dict[str, int]]:
    """Steps and zero points of the groups that may have one, by group."""
    multiple = COMMUTES_WITH.get(target.integer.requant.rounding)
    scales: dict[str, float] = {}
    zero_points: dict[str, int] = {}
    if multiple is None or shifts_only(target):
        return scales, zero_points
    for group in sorted(zero_point_groups(plan)):
        points = [(name, point) for name, point in plan.points.items() if point.group == group]
        found = [two_sided(seen[name], point.bits, recipe) for name, point in points]
        bounds = min(low for low, _ in found), max(high for _, high in found)
        if bounds[1] > bounds[0]:
            scales[group], zero_points[group] = nudged(bounds, points[0][1].stored, multiple)
    return scales, zero_points


def nudged(bounds: Bounds, stored: tuple[int, int], multiple: int) -> tuple[float, int]:
    """Step and zero point that hold the bounds, 0 among them, with the zero point a multiple of ``multiple``."""
    lower, upper = min(bounds[0], 0.0), max(bounds[1], 0.0)
    lo, hi = stored
    least, most = lo + (lower < 0), hi - (upper > 0)  # a side with values keeps an integer
    wanted = lo - lower * (hi - lo) / (upper - lower)
    zero_point = multiple * int(np.clip(np.rint(wanted / multiple), -(-least // multiple), most // multiple))
    above = upper / (hi - zero_point) if hi > zero_point else 0.0
    below = -lower / (zero_point - lo) if zero_point > lo else 0.0
    return max(above, below), zero_point


def two_sided(seen: Sequence[Histogram], bits: int, recipe: Recipe) -> Bounds:
    """The recipe's bounds on both sides; its mse search moves both ends instead of one threshold."""
    rule = recipe.activations
    if rule.method != "mse":
        return clip_bounds(seen, rule.method, bits, True, rule.options(bits), rule.over)
    histogram = merge(seen) if len(seen) > 1 else seen[0]
    bounds = min(histogram.lower, 0.0), max(histogram.upper, 0.0)
    fractions = np.arange(rule.steps or 1, 0, -1) / (rule.steps or 1)
    trials = [(bounds[0] * part, bounds[1] * part) for part in fractions]
    best = min(trials, key=lambda trial: _error(histogram, trial, bits))
    for side in (0, 1):
        moved = [tuple(end * part if i == side else best[i] for i, end in enumerate(bounds)) for part in fractions]
        best = min([best, *((trial[0], trial[1]) for trial in moved)], key=lambda trial: _error(histogram, trial, bits))
    return best


def _error(histogram: Histogram, bounds: Bounds, bits: int) -> float:
    """Squared error of quantization between the bounds, real 0 on the grid."""
    if bounds[1] <= bounds[0]:
        return float("inf")
    stored = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    step, zero_point = nudged(bounds, stored, 1)
    whole = np.clip(np.rint(histogram.centres / step), stored[0] - zero_point, stored[1] - zero_point)
    return float((histogram.counts * (histogram.centres - whole * step) ** 2).sum())
