"""What calibration chooses: plain data, read by everything behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """One quantizer's data and what was kept of it, real units."""

    lower: float
    upper: float
    data_min: float
    data_max: float
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class Calibration:
    """Every real-valued choice of the quantization, before `freeze` snaps the scales.

    scales: quantizer group -> step; weights: convolution -> float64 (O,) steps; ranges: quantizer -> what was seen;
    zero_points: quantizer group -> integer of the real 0 where that is not 0.
    """

    scales: dict[str, float]
    weights: dict[str, Real]
    ranges: dict[str, Range]
    zero_points: dict[str, int] = field(default_factory=dict)
