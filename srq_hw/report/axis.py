"""Axes for the report's drawings: round ticks, linear or signed-logarithmic, and numbers as an engineer writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

#: beyond this ratio of the largest to the median layer range, a linear axis hides most layers
LINEAR_RATIO = 25.0


def real(value: float | None, digits: int = 4) -> str:
    """A number with `digits` significant digits, ``1.5e-05`` where it is very small or large; a dash for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    text = f"{value:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def round_ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside [low, high], about `wanted` of them."""
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


@dataclass(frozen=True)
class Axis:
    """Real value -> drawing units, from `start` (low end) to `end`; knee > 0 makes it asinh(value / knee)."""

    low: float
    high: float
    start: float
    end: float
    knee: float = 0.0

    def _bend(self, value: float) -> float:
        return math.asinh(value / self.knee) if self.knee else value

    def __call__(self, value: float) -> float:
        """Where a value lies, drawing units, rounded to a tenth."""
        low, high = self._bend(self.low), self._bend(self.high)
        share = (self._bend(value) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1) + 0.0

    def ticks(self) -> list[float]:
        """Round values on the axis; powers of ten on both sides of 0 where it is logarithmic."""
        if not self.knee:
            return round_ticks(self.low, self.high)
        first = math.floor(math.log10(self.knee))
        last = math.ceil(math.log10(max(abs(self.low), abs(self.high))))
        powers = [10.0**exponent for exponent in range(first, last + 1)]
        found = [-power for power in reversed(powers)] + [0.0] + powers
        inside = [value for value in found if self.low <= value <= self.high]
        return [value for value in inside if value == 0 or abs(self(value) - self(0.0)) > 10]


def value_axis(values: Iterable[float], spans: Iterable[float], start: float, end: float) -> Axis:
    """An axis over `values`; signed-logarithmic where the `spans` (one per layer) differ too much for a linear one."""
    points = [*values, 0.0]
    low, high = min(points), max(points)
    if low == high:
        high = low + 1.0
    sizes = sorted(span for span in spans if span > 0)
    median = sizes[len(sizes) // 2] if sizes else 0.0
    if sizes and sizes[-1] > LINEAR_RATIO * median:
        return Axis(low * 1.3, high * 1.3, start, end, knee=median / 10)
    margin = 0.05 * (high - low)
    return Axis(low - margin if low < 0 else low, high + margin, start, end)
