"""srq_threshold against fixedpoint.thresholds and requantize: exhaustive accumulators, unreachable levels, few bits."""

from __future__ import annotations

import numpy as np
import pytest

from srq_hw.backends.rtl.memories import threshold_steps
from srq_hw.fixedpoint import requantize, thresholds
from tests.backends.rtl.bench import Bench, Design, Port, check, flowing, library

#: name: (bits, lanes, folds, accumulator bits, lo, shift, rounding)
CASES = {
    "uint4": (4, 2, 2, 10, 0, 6, "half_even"),
    "int2": (2, 3, 1, 9, -2, 7, "half_up"),
    "one_bit": (1, 1, 2, 8, 0, 6, "half_away"),
    "int8": (8, 1, 1, 12, -128, 8, "half_even"),
}


@pytest.mark.parametrize("name", CASES)
def test_threshold(bench: Bench, name: str):
    bits, lanes, folds, acc_bits, lo, shift, rounding = CASES[name]
    channels, hi = lanes * folds, lo + (1 << bits) - 1
    acc_lo, acc_hi = -(1 << (acc_bits - 1)), (1 << (acc_bits - 1)) - 1
    multiplier = np.random.default_rng(bits).integers(1, 40, channels)
    multiplier[-1] = 1  # upper levels out of reach: thresholds of acc_hi + 1
    levels = thresholds(multiplier, np.full(channels, shift), rounding, lo, hi, acc_lo, acc_hi)
    acc = np.broadcast_to(np.arange(acc_lo, acc_hi + 1)[:, None], (1 << acc_bits, channels))
    expected = requantize(acc, multiplier, shift, rounding, lo, hi)
    beats = np.concatenate([acc, acc[::-1], acc]).reshape(-1, lanes)
    wanted = np.concatenate([expected, expected[::-1], expected]).reshape(-1, lanes)
    parameters: dict[str, int | str] = {
        "LANES": lanes,
        "FOLDS": folds,
        "BEATS": len(beats) // 3,
        "ACC_BITS": acc_bits,
        "T_BITS": acc_bits + 1,
        "BITS": bits,
        "LO": lo,
        "FILE": "t",
    }
    ports = (Port("s", lanes, acc_bits, True),), (Port("m", lanes, bits, lo < 0),)
    memories = threshold_steps(levels, lanes, acc_bits + 1, "t")
    design = Design("srq_threshold", library("threshold"), parameters, *ports, memories)
    run = check(design, bench, {"s": beats}, {"m": wanted}, frames=3)
    assert flowing(run, "m") and run.first["m"] - run.first["s"] == 2 * bits + 1
