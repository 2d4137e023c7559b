"""srq_requant against fixedpoint.requantize: every rounding rule, ties, saturation, shifts to the left, slopes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl.memories import ROUNDINGS, requant_entries
from srq_hw.fixedpoint import requantize
from tests.backends.rtl.bench import Bench, Design, IntArray, Port, check, flowing, library

SOURCES = library("requant", "wide_multiply", "shift_right")


@dataclass(frozen=True)
class Case:
    rounding: str
    acc_bits: int
    lanes: int
    folds: int
    mult_bits: int  # signed; 0: none
    shifts: tuple[int, int]
    out: tuple[int, int, int]  # lo, hi, zero point
    slope: bool = False


CASES = {
    "half_even": Case("half_even", 24, 4, 2, 17, (8, 24), (-128, 127, 0)),
    "half_up_small": Case("half_up", 10, 1, 1, 0, (3, 3), (-8, 7, 0)),
    "half_even_small": Case("half_even", 10, 2, 1, 3, (0, 5), (0, 15, 5)),
    "half_away_slope": Case("half_away", 12, 2, 3, 8, (2, 12), (0, 255, 128), slope=True),
    "floor_left": Case("floor", 12, 1, 2, 5, (-6, 3), (-128, 127, -3)),
    "trunc_wide": Case("trunc", 31, 2, 1, 32, (30, 60), (-128, 127, 0), slope=True),
    "half_even_wide": Case("half_even", 29, 1, 1, 18, (20, 20), (0, 255, 0)),
    "half_up_left": Case("half_up", 9, 1, 1, 0, (-4, 5), (-2048, 2047, 0)),
}


def accumulators(case: Case, multiplier: IntArray, shift: IntArray) -> IntArray:
    """(pixels, C) accumulators: all of a small type, else random of every size, both ends, and exact ties."""
    lo, hi = -(1 << (case.acc_bits - 1)), (1 << (case.acc_bits - 1)) - 1
    channels = case.lanes * case.folds
    if case.acc_bits <= 12:
        return np.broadcast_to(np.arange(lo, hi + 1)[:, None], (hi - lo + 1, channels)).copy()
    random = np.random.default_rng(case.acc_bits)
    size = random.integers(0, case.acc_bits, (400, channels))
    values = random.integers(lo, hi, (400, channels), endpoint=True) >> size
    values[:4] = np.array([lo, hi, 0, -1])[:, None]
    # acc * M = odd * 2**(S - 1) is an exact tie: M odd, acc an odd multiple of 2**(S - 1); near it, too
    odd = 2 * random.integers(-40, 40, (200, channels)) + 1
    ties = odd << np.clip(shift - 1 - np.array([(m & -m).bit_length() - 1 for m in multiplier.tolist()]), 0, None)
    near = ties + random.integers(-1, 2, ties.shape)
    return np.clip(np.concatenate([values, ties, near]), lo, hi)


def design(case: Case, multiplier: IntArray, shift: IntArray, negative: IntArray | None, beats: int) -> Design:
    lo, hi, zero_point = case.out
    bits = max(int(hi).bit_length() + (lo < 0), int(-lo - 1).bit_length() + 1 if lo < 0 else 0)
    parameters: dict[str, int | str] = {
        "LANES": case.lanes,
        "FOLDS": case.folds,
        "BEATS": beats,
        "ACC_BITS": case.acc_bits,
        "OUT_BITS": bits,
        "MULTIPLY": int(case.mult_bits > 0),
        "MULT_BITS": max(case.mult_bits, 1),
        "NEGATIVE": int(case.slope),
        "SHIFT_MIN": case.shifts[0],
        "SHIFT_MAX": case.shifts[1],
        "ROUNDING": ROUNDINGS.index(case.rounding),
        "ZERO_POINT": zero_point,
        "LO": lo,
        "HI": hi,
        "FILE": "requant.hex",
    }
    text = requant_entries(multiplier, shift, negative, case.lanes, case.mult_bits, *case.shifts)
    ports = (Port("s", case.lanes, case.acc_bits, True),), (Port("m", case.lanes, bits, lo < 0),)
    return Design("srq_requant", SOURCES, parameters, *ports, {"requant.hex": text} if text else {})


@pytest.mark.parametrize("name", CASES)
def test_requant(bench: Bench, name: str):
    case = CASES[name]
    channels = case.lanes * case.folds
    random = np.random.default_rng(len(name))
    most = 1 << max(case.mult_bits - 1, 0)
    multiplier = random.integers(most // 2, most, channels) if case.mult_bits else np.ones(channels, np.int64)
    if case.mult_bits:
        multiplier[0], multiplier[-1] = most - 1, most // 2  # the greatest, and a power of two
    negative = random.integers(-most, most, channels) if case.slope else None
    shift = np.linspace(case.shifts[0], case.shifts[1], channels).astype(np.int64)
    acc = accumulators(case, multiplier, shift)
    lo, hi, zero_point = case.out
    expected = requantize(acc, multiplier, shift, case.rounding, lo, hi, zero_point, negative)
    beats = np.concatenate([acc, acc[::-1], acc]).reshape(-1, case.lanes)
    wanted = np.concatenate([expected, expected[::-1], expected]).reshape(-1, case.lanes)
    plan = design(case, multiplier, shift, negative, len(beats) // 3)
    run = check(plan, bench, {"s": beats}, {"m": wanted}, frames=3)
    assert flowing(run, "m") and run.first["m"] - run.first["s"] == 9


def test_every_tie_under_every_rule(bench: Bench):
    """All 10-bit accumulators under the five rules; a tie at every second to sixteenth one, of both signs."""
    multiplier, shift = np.array([1, 3, 3, 2, 3]), np.array([0, 1, 3, 4, 4])
    acc = np.broadcast_to(np.arange(-512, 512)[:, None], (1024, 5))
    assert ((acc * multiplier) % (1 << shift) == (1 << shift) >> 1)[:, 1:].sum() > 500  # the vectors do hold ties
    expected = np.concatenate([requantize(acc, multiplier, shift, rule, -100, 100, 7) for rule in ROUNDINGS], axis=1)
    rules = expected.reshape(-1, 5, 5)
    assert all((rules[:, a] != rules[:, b]).any() for a in range(5) for b in range(a))  # and tell any two rules apart
    memories = {"requant.hex": requant_entries(multiplier, shift, None, 5, 3, 0, 4)}
    parameters: dict[str, int | str] = {"BEATS": len(acc), "FILE": "requant.hex"}
    ports = (Port("s", 5, 10, True),), (Port("m", 25, 8, True),)
    sources = (Path(__file__).with_name("requant_roundings.v"), *SOURCES)
    check(Design("requant_roundings", sources, parameters, *ports, memories), bench, {"s": acc}, {"m": expected}, 1)
