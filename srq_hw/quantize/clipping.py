"""Clipping searches: from a histogram of real values to the bounds a quantizer should keep.

Each method is a pure function (Histogram, options) -> (lower, upper) in real units. `METHODS` is the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srq_hw.fixedpoint import int_range

Real = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Equal bins over [lower, upper]; counts float64 (bins,)."""

    counts: Real
    lower: float
    upper: float

    @property
    def width(self) -> float:
        """Width of one bin."""
        return (self.upper - self.lower) / len(self.counts)

    @property
    def centres(self) -> Real:
        """Middle of every bin, float64 (bins,)."""
        found: Real = self.lower + self.width * (np.arange(len(self.counts), dtype=np.float64) + 0.5)
        return found

    @staticmethod
    def of(values: npt.NDArray[np.floating], bins: int) -> Histogram:
        """Bins over the values' own range; a constant gets a range of width 0 and one full bin."""
        lower, upper = float(values.min()), float(values.max())
        counts = np.zeros(bins) if lower == upper else np.histogram(values, bins, (lower, upper))[0].astype(np.float64)
        if lower == upper:
            counts[0] = values.size
        return Histogram(counts, lower, upper)


def minmax(histogram: Histogram) -> tuple[float, float]:
    """Nothing is cut."""
    return histogram.lower, histogram.upper


def percentile(histogram: Histogram, percent: float) -> tuple[float, float]:
    """Keep the middle ``percent`` of the mass: (100 - percent) / 2 goes on each side."""
    cumulative = np.cumsum(histogram.counts)
    tail = cumulative[-1] * (1 - percent / 100) / 2
    first = int(np.searchsorted(cumulative, tail, side="right"))
    last = int(np.searchsorted(cumulative, cumulative[-1] - tail, side="left"))
    return histogram.lower + histogram.width * first, histogram.lower + histogram.width * (last + 1)


def dbdc(histogram: Histogram, p: float) -> tuple[float, float]:
    """Density-based dual clipping (Tu et al., CVPR 2023; METHODS 1.2): drop the emptier end bin until mass p is gone.

    Where nothing is cut on a side its bound stays the data's own end (the released code moves the lower bound in by
    one bin even then). Two-sided; all removed mass may come from one tail.
    """
    counts = histogram.counts
    keep = (1 - p) * counts.sum()
    low, high, mass = 0, len(counts) - 1, float(counts.sum())
    while low < high:
        end = low if counts[low] < counts[high] else high
        if mass - counts[end] < keep:
            break
        mass -= counts[end]
        if end == low:
            low += 1
        else:
            high -= 1
    return histogram.lower + histogram.width * low, histogram.lower + histogram.width * (high + 1)


def mse(histogram: Histogram, bits: int, signed: bool, steps: int) -> tuple[float, float]:
    """The symmetric (or, unsigned, one-sided) threshold with the least squared error of quantization.

    ``steps`` thresholds evenly from 1/steps to all of the largest magnitude are tried; the first of equals wins.
    """
    values, weights = histogram.centres, histogram.counts
    lo, hi = int_range(bits, signed)
    largest = max(abs(histogram.lower), abs(histogram.upper)) if signed else max(histogram.upper, 0.0)
    best, best_error = largest, np.inf
    for step in range(steps, 0, -1):
        threshold = largest * step / steps
        scale = threshold / hi if threshold > 0 else 1.0
        quantized = np.clip(np.rint(values / scale), lo, hi) * scale
        error = float((weights * (values - quantized) ** 2).sum())
        if error < best_error:
            best, best_error = threshold, error
    return (-best if signed else 0.0), best


#: method -> which of its recipe options it takes; bits, signed come from the quantizer
METHODS: dict[str, tuple[str, ...]] = {
    "minmax": (),
    "percentile": ("percent",),
    "mse": ("steps",),
    "dbdc": ("p",),
}


def clip_bounds(
    histogram: Histogram, method: str, bits: int, signed: bool, options: dict[str, float]
) -> tuple[float, float]:
    """Run the named method."""
    run: dict[str, Callable[[], tuple[float, float]]] = {
        "minmax": lambda: minmax(histogram),
        "percentile": lambda: percentile(histogram, options["percent"]),
        "mse": lambda: mse(histogram, bits, signed, int(options["steps"])),
        "dbdc": lambda: dbdc(histogram, options["p"]),
    }
    return run[method]()


def weight_scales(weight: Real, bits: int, method: str, per_channel: bool, steps: int) -> Real:
    """Symmetric narrow-range weight scales, float64 (O,), all equal where per_channel is false.

    weight: float64 (O, I, kh, kw). minmax: largest magnitude / (2**(b-1) - 1); mse: the fraction of it (``steps``
    tried, down to 1/4) with the least squared error. A channel of zeros gets the scale of the largest channel.
    """
    rows = weight.reshape(weight.shape[0], -1) if per_channel else weight.reshape(1, -1)
    top = int_range(bits, True)[1]
    largest = np.abs(rows).max(1)
    scale = largest / top
    if method == "mse":
        best = np.full(len(rows), np.inf)
        found = scale.copy()
        for fraction in np.linspace(1.0, 0.25, steps):
            trial = np.where(largest > 0, scale * fraction, 1.0)
            error = ((rows - np.clip(np.rint(rows / trial[:, None]), -top, top) * trial[:, None]) ** 2).sum(1)
            better = error < best
            best, found = np.where(better, error, best), np.where(better, trial, found)
        scale = np.where(largest > 0, found, 0.0)
    fallback = scale.max() if scale.max() > 0 else 1.0
    scale = np.where(scale > 0, scale, fallback)
    return scale if per_channel else np.repeat(scale, weight.shape[0])
