"""Histograms of real values: what a clipping search sees of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
        """Bins over the values' own range; a constant gets a range of width 0 and one full bin.

        Counted in float64: a float32 range of a few units in the last place still holds all bins.
        """
        lower, upper = float(values.min()), float(values.max())
        if lower == upper:
            counts = np.zeros(bins)
            counts[0] = values.size
        else:
            counts = np.histogram(values.astype(np.float64), bins, (lower, upper))[0].astype(np.float64)
        return Histogram(counts, lower, upper)


def merge(seen: Sequence[Histogram]) -> Histogram:
    """One histogram over the common range; a bin's mass goes to the bin that holds its centre."""
    lower, upper = min(h.lower for h in seen), max(h.upper for h in seen)
    bins = len(seen[0].counts)
    counts = np.zeros(bins)
    for histogram in seen:
        np.add.at(counts, _bins_of(histogram.centres, lower, upper, bins), histogram.counts)
    return Histogram(counts, lower, upper)


def magnitudes(histogram: Histogram, signed: bool) -> Histogram:
    """The histogram of |x|, or of max(x, 0) for an unsigned quantizer, over [0, largest], as many bins."""
    centres = np.abs(histogram.centres) if signed else np.maximum(histogram.centres, 0.0)
    largest = max(abs(histogram.lower), abs(histogram.upper)) if signed else max(histogram.upper, 0.0)
    counts = np.zeros(len(centres))
    np.add.at(counts, _bins_of(centres, 0.0, largest, len(centres)), histogram.counts)
    return Histogram(counts, 0.0, largest)


def _bins_of(values: Real, lower: float, upper: float, bins: int) -> npt.NDArray[np.int64]:
    if lower == upper:
        return np.zeros(len(values), np.int64)
    return np.clip(((values - lower) / (upper - lower) * bins).astype(np.int64), 0, bins - 1)
