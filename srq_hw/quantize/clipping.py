"""Clipping searches: from histograms of real values to the bounds a quantizer should keep.

Each search is a pure function of a histogram (or of one per patch) and returns (lower, upper) in real units. `METHODS`
is the table; `clip_bounds` applies a row of it to the histograms of all patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srq_hw.fixedpoint import int_range
from srq_hw.quantize.histogram import Histogram, magnitudes, merge

Bounds = tuple[float, float]
Options = Mapping[str, float]


def minmax(histogram: Histogram) -> Bounds:
    """Nothing is cut."""
    return histogram.lower, histogram.upper


def moving_average(seen: Sequence[Histogram], decay: float) -> Bounds:
    """Exponential moving average of the smallest and the largest value of each patch, in the patches' order.

    The first patch sets both; every later one moves them by ``1 - decay`` of the difference (Jacob et al., CVPR 2018).
    """
    lower, upper = seen[0].lower, seen[0].upper
    for histogram in seen[1:]:
        lower += (1 - decay) * (histogram.lower - lower)
        upper += (1 - decay) * (histogram.upper - upper)
    return lower, upper


def percentile(histogram: Histogram, percent: float) -> Bounds:
    """Keep the middle ``percent`` of the mass: (100 - percent) / 2 goes on each side."""
    cumulative = np.cumsum(histogram.counts)
    tail = cumulative[-1] * (1 - percent / 100) / 2
    first = int(np.searchsorted(cumulative, tail, side="right"))
    last = int(np.searchsorted(cumulative, cumulative[-1] - tail, side="left"))
    return histogram.lower + histogram.width * first, histogram.lower + histogram.width * (last + 1)


def dbdc(histogram: Histogram, p: float) -> Bounds:
    """Density-based dual clipping (Tu et al., CVPR 2023): drop the emptier end bin while at most mass p is gone.

    Where nothing is cut on a side its bound stays the data's own end. Two-sided; all removed mass may come from one
    tail; of two equal bins the right one goes.
    """
    counts = histogram.counts.tolist()
    mass = float(histogram.counts.sum())
    keep = (1 - p) * mass
    low, high = 0, len(counts) - 1
    while low < high:
        end = low if counts[low] < counts[high] else high
        if mass - counts[end] < keep:
            break
        mass -= counts[end]
        low, high = (low + 1, high) if end == low else (low, high - 1)
    return histogram.lower + histogram.width * low, histogram.lower + histogram.width * (high + 1)


def dbdc_released(histogram: Histogram, p: float) -> Bounds:
    """DBDC as the authors' released code runs it: the last bin dropped may exceed p, and ``lower`` is one bin inside.

    At least one bin always goes (p > 0), and the lower bound is the upper edge of the lowest bin that is left.
    """
    counts = histogram.counts.tolist()
    mass = float(histogram.counts.sum())
    keep = (1 - p) * mass
    low, high = 0, len(counts) - 1
    while low < high and mass > keep:
        if counts[low] < counts[high]:
            mass -= counts[low]
            low += 1
        else:
            mass -= counts[high]
            high -= 1
    return histogram.lower + histogram.width * (low + 1), histogram.lower + histogram.width * (high + 1)


def mse(histogram: Histogram, bits: int, signed: bool, steps: int) -> Bounds:
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


def entropy(histogram: Histogram, bits: int, signed: bool) -> Bounds:
    """The threshold whose quantized distribution has the least Kullback-Leibler divergence (TensorRT's calibration).

    On magnitudes, with as many levels L as the quantizer has integers >= 0. Candidate i keeps the first i bins: P is
    their counts with everything beyond added to bin i, Q spreads each level's mass evenly over its occupied bins; level
    k takes bins floor(i k / L) up to floor(i (k + 1) / L). The zero bin counts as much as its neighbour: zeros are
    exact at any threshold, and behind a ReLU their mass would drown all else. A candidate that ends in an empty bin is
    no candidate (its Q is 0 where P is not). With no more bins than levels nothing is cut; of equals the widest wins.
    """
    folded = magnitudes(histogram, signed)
    counts, levels = folded.counts.copy(), int_range(bits, signed)[1] + 1
    keep = entropy_bins(counts, levels)
    threshold = folded.upper * keep / len(counts)
    return (-threshold if signed else 0.0), threshold


def entropy_bins(counts: np.ndarray, levels: int) -> int:
    """How many of the first bins `entropy` keeps. counts: float64 (bins,), of magnitudes.

    KL(P || Q) from prefix sums: within a level Q is constant, so a candidate costs O(levels), not O(bins).
    """
    counts = counts.astype(np.float64)
    bins = len(counts)
    if bins > 1:
        counts[0] = counts[1]
    total = float(counts.sum())
    if total == 0 or bins <= levels:
        return bins
    mass = np.concatenate([[0.0], np.cumsum(counts)])
    occupied = np.concatenate([[0], np.cumsum(counts > 0)])
    own = np.concatenate([[0.0], np.cumsum(counts * np.log(np.where(counts > 0, counts, 1.0)))])
    steps = np.arange(levels + 1)
    best, least = bins, np.inf
    for keep in range(bins, levels - 1, -1):
        last = counts[keep - 1]
        if last == 0:
            continue
        edges = keep * steps // levels
        inside = np.diff(mass[edges])
        height = np.divide(inside, np.diff(occupied[edges]), out=np.ones(levels), where=inside > 0)
        outliers = total - mass[keep]
        cross = float((inside * np.log(height)).sum()) + outliers * float(np.log(height[-1]))
        entropy_p = own[keep] + (last + outliers) * np.log(last + outliers) - last * np.log(last)
        # P sums to `total`, Q to mass[keep]; both are normalised to 1
        divergence = (entropy_p - cross) / total - np.log(total / mass[keep])
        if divergence < least - 1e-12:
            best, least = keep, divergence
    return best


@dataclass(frozen=True)
class Method:
    """One search. needs, takes: recipe options it must and may have; merge: patches make one histogram by default."""

    search: Callable[[Histogram, int, bool, Options], Bounds] | None
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    merge: bool = True


def _dbdc(histogram: Histogram, bits: int, signed: bool, options: Options) -> Bounds:
    return (dbdc_released if options.get("released") else dbdc)(histogram, options["p"])


#: method -> its search; moving_average has none, it works on the sequence of patches
METHODS: dict[str, Method] = {
    "minmax": Method(lambda h, bits, signed, o: minmax(h)),
    "moving_average": Method(None, needs=("decay",)),
    "percentile": Method(lambda h, bits, signed, o: percentile(h, o["percent"]), ("percent",), ("over",)),
    "mse": Method(lambda h, bits, signed, o: mse(h, bits, signed, int(o["steps"])), ("steps",), ("over",)),
    "entropy": Method(lambda h, bits, signed, o: entropy(h, bits, signed), (), ("over",)),
    "dbdc": Method(_dbdc, ("p",), ("over", "released"), merge=False),
}


def clip_bounds(
    seen: Sequence[Histogram], method: str, bits: int, signed: bool, options: Options, over: str | None = None
) -> Bounds:
    """Run the named method over the histograms of all patches, which have equally many bins.

    over: "merged" searches one histogram of all patches, "average" takes the mean of the patches' bounds; None is what
    the method's source does. An unsigned quantizer keeps [0, upper]: real 0 is its lowest integer: behind a
    ReLU a lower bound is always 0).
    """
    row = METHODS[method]
    if row.search is None:
        lower, upper = moving_average(seen, options["decay"])
    elif (row.merge if over is None else over == "merged") or len(seen) == 1:
        lower, upper = row.search(merge(seen) if len(seen) > 1 else seen[0], bits, signed, options)
    else:
        found = [row.search(histogram, bits, signed, options) for histogram in seen]
        lower, upper = float(np.mean([low for low, _ in found])), float(np.mean([high for _, high in found]))
    return (lower, upper) if signed else (0.0, max(upper, 0.0))
