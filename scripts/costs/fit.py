"""Least squares for cost formulas: coefficients of named terms, none negative, for the relative error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import nnls

#: units smaller than this count for the fit by their absolute error
SMALL = 50.0
#: pull of every coefficient towards what a term amounts to by itself: 1, an adder bit is a LUT; the logic of a constant
#: memory grows with its address, as the convolutions of the grid show
PULL = 0.3
ALONE = {"rom32": 1.4, "rom64": 1.8}


def fitted(amounts: Sequence[Mapping[str, float]], measured: Sequence[float]) -> dict[str, float]:
    """Term -> coefficient. amounts: of one unit each; measured: LUTs or flip-flops of the same units.

    A term that is 0 in all units keeps what it amounts to by itself.
    """
    names = sorted({name for found in amounts for name in found})
    weights = 1 / np.maximum(np.asarray(measured, float), SMALL)
    matrix = np.array([[found.get(name, 0.0) for name in names] for found in amounts]) * weights[:, None]
    # A pull that is equally strong for terms of any size.
    pull = PULL * np.sqrt((matrix**2).mean(0))
    pull[pull == 0] = 1.0
    alone = np.array([ALONE.get(name, 1.0) for name in names])
    wanted = np.concatenate([np.asarray(measured, float) * weights, pull * alone])
    found, _ = nnls(np.vstack([matrix, np.diag(pull)]), wanted)
    return {name: round(float(value), 3) for name, value in zip(names, found, strict=True)}


def off(estimates: Sequence[float], measured: Sequence[float]) -> tuple[float, float]:
    """Median and largest relative error, absolute values."""
    errors = np.abs(np.asarray(estimates) / np.asarray(measured) - 1)
    return float(np.median(errors)), float(errors.max())
