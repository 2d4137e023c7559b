"""Every rule of `fixedpoint` against Python's own integers and fractions, which neither wrap nor round."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srq_hw import fixedpoint as fp

RULES = sorted(fp.ROUNDINGS)
HALF = Fraction(1, 2)


def exact(x: Fraction, rule: str) -> int:
    """The tie rules as sentences, over the rationals."""
    below = math.floor(x)
    rest = x - below
    if rule == "floor":
        return below
    if rule == "trunc":
        return below if x >= 0 else math.ceil(x)
    if rest != HALF:
        return below if rest < HALF else below + 1
    return {"half_up": below + 1, "half_even": below + below % 2, "half_away": below + 1 if x > 0 else below}[rule]


def python_requant(acc: int, m: int, s: int, rule: str, lo: int, hi: int, zero: int = 0, negative: int | None = None):
    factor = negative if negative is not None and acc < 0 else m
    return min(max(exact(Fraction(acc * factor) / Fraction(2) ** s, rule) + zero, lo), hi)


# --- widths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("signed", [False, True])
def test_int_range_and_bits_for_are_inverse(bits: int, signed: bool) -> None:
    lo, hi = fp.int_range(bits, signed)
    assert hi - lo + 1 == 2**bits
    assert (lo < 0) == signed
    assert fp.bits_for(lo, hi, signed) == bits
    assert fp.bits_for(lo, hi + 1, signed) == bits + 1
    if signed:
        assert fp.bits_for(lo - 1, hi, signed) == bits + 1
        assert fp.int_range(bits, True, narrow=True) == (lo + 1, hi)


@given(st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
def test_bits_for_is_the_smallest_width(a: int, b: int) -> None:
    lo, hi = min(a, b), max(a, b)
    bits = fp.bits_for(lo, hi, signed=True)
    inside = -(2 ** (bits - 1)) <= lo and hi < 2 ** (bits - 1)
    tighter = bits > 1 and -(2 ** (bits - 2)) <= lo and hi < 2 ** (bits - 2)
    assert inside and not tighter


def test_bits_for_takes_numpy_integers_and_refuses_a_negative_unsigned() -> None:
    assert fp.bits_for(np.int64(-128), np.int64(127), signed=True) == 8
    assert fp.bits_for(0, 0, signed=False) == 1
    with pytest.raises(ValueError, match="-1"):
        fp.bits_for(-1, 3, signed=False)


# --- rounding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shift", range(7))
def test_shift_of_every_small_integer(rule: str, shift: int) -> None:
    """Exhaustive: ties of both signs, odd and even neighbours, nothing shifted out."""
    xs = np.arange(-300, 301)
    wanted = [exact(Fraction(int(x), 2**shift), rule) for x in xs]
    np.testing.assert_array_equal(fp.round_shift(xs, shift, rule), wanted)


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
@settings(max_examples=300)
def test_shift_of_huge_values(rule: str, data: st.DataObject) -> None:
    """Up to PRODUCT_LIMIT with the rounding constant, shifts to 62; exact ties and their neighbours among them."""
    shift = data.draw(st.integers(0, 62))
    half = (1 << shift) >> 1
    top = fp.PRODUCT_LIMIT - half - 1
    plain = st.integers(-top, top)
    quotient = data.draw(st.integers(-(top >> shift), top >> shift))
    near_tie = st.integers(-1, 1).map(lambda d: max(-top, min(top, (quotient << shift) + half + d)))
    x = data.draw(st.one_of(plain, near_tie))
    assert int(fp.round_shift(x, shift, rule)) == exact(Fraction(x, 2**shift), rule)


@pytest.mark.parametrize("rule", RULES)
@given(x=st.integers(-(2**31), 2**31), shift=st.integers(-30, 0))
def test_negative_shift_multiplies_exactly(rule: str, x: int, shift: int) -> None:
    assert int(fp.round_shift(x, shift, rule)) == x * 2**-shift


@pytest.mark.parametrize("rule", RULES)
def test_shifts_broadcast_over_the_last_axis(rule: str) -> None:
    xs = np.arange(-24, 24).reshape(2, 8, 3)
    shifts = np.array([0, 2, -3])
    wanted = [
        exact(Fraction(int(x)) / Fraction(2) ** int(s), rule)
        for x, s in zip(xs.ravel(), np.tile(shifts, 16), strict=True)
    ]
    np.testing.assert_array_equal(fp.round_shift(xs, shifts, rule).ravel(), wanted)


REALS = st.one_of(
    st.floats(-(2.0**60), 2.0**60),
    st.floats(-4, 4),
    st.integers(-(2**40), 2**40).map(lambda i: i / 2),
    st.tuples(st.integers(-1000, 1000), st.sampled_from([-math.inf, math.inf])).map(
        lambda p: math.nextafter(p[0] + 0.5, p[1])
    ),
)


@pytest.mark.parametrize("rule", RULES)
@given(x=REALS)
@settings(max_examples=300)
@example(x=0.49999999999999994)
@example(x=-0.49999999999999994)
@example(x=-0.5000000000000001)
@example(x=4503599627370497.5)
@example(x=-0.0)
def test_real_rule_in_numpy_and_torch(rule: str, x: float) -> None:
    wanted = exact(Fraction(x), rule)
    assert int(fp.round_real(x, rule)) == wanted
    assert int(fp.ROUNDINGS[rule].real(torch.tensor([x], dtype=torch.float64), torch).item()) == wanted


@pytest.mark.parametrize("rule", RULES)
def test_real_and_shift_forms_agree_on_the_grid(rule: str) -> None:
    xs = np.arange(-5000, 5000)
    np.testing.assert_array_equal(fp.round_real(xs / 16.0, rule), fp.round_shift(xs, 4, rule))
    np.testing.assert_array_equal(
        fp.ROUNDINGS[rule].real(torch.from_numpy(xs / 16.0), torch).numpy(), fp.round_shift(xs, 4, rule)
    )


def test_qonnx_names_mean_what_qonnx_does() -> None:
    """The rounding_mode strings, against qonnx's own functions."""
    from qonnx.custom_op.general.quant import resolve_rounding_mode

    xs = np.arange(-200, 201) / 8.0
    for rule, rounding in fp.ROUNDINGS.items():
        if rounding.qonnx is not None:
            np.testing.assert_array_equal(resolve_rounding_mode(rounding.qonnx)(xs), fp.round_real(xs, rule), rule)


# --- dyadic numbers -----------------------------------------------------------------------------------------------


@given(ratio=st.floats(1e-12, 1e9), bits=st.integers(2, 31))
@settings(max_examples=500)
@example(ratio=math.nextafter(1.0, 0), bits=16)
@example(ratio=1.0, bits=20)
@example(ratio=math.nextafter(0.25, 0), bits=2)
def test_dyadic_is_the_nearest_with_exactly_k_bits(ratio: float, bits: int) -> None:
    m, s = fp.dyadic(ratio, bits)
    assert 2 ** (bits - 1) <= m < 2**bits
    value, wanted = Fraction(m) / Fraction(2) ** s, Fraction(ratio)
    assert abs(value - wanted) <= wanted / 2**bits
    for other in (Fraction(m - 1) / Fraction(2) ** s, Fraction(m + 1) / Fraction(2) ** s):
        assert abs(value - wanted) <= abs(other - wanted)


@given(st.integers(-40, 40), st.integers(2, 20))
def test_dyadic_just_below_a_power_of_two_rounds_up_to_it(exponent: int, bits: int) -> None:
    ratio = math.nextafter(2.0**exponent, 0)
    m, s = fp.dyadic(ratio, bits)
    assert (m, Fraction(m) / Fraction(2) ** s) == (2 ** (bits - 1), Fraction(2) ** exponent)


@given(st.floats(1e-12, 1e9))
def test_dyadic_of_one_bit_is_the_nearest_power_of_two(ratio: float) -> None:
    m, s = fp.dyadic(ratio, 1)
    assert m == 1
    assert 0.70710678 < ratio * 2.0**s < 1.41421357


@given(st.integers(1, 2**20 - 1), st.integers(-20, 60), st.integers(20, 24))
def test_dyadic_gives_back_what_it_is_given(m: int, s: int, bits: int) -> None:
    found = fp.dyadic(m * 2.0**-s, bits)
    assert Fraction(found[0]) / Fraction(2) ** found[1] == Fraction(m) / Fraction(2) ** s
    if s >= 0:
        assert fp.canonical_dyadic(*found) == fp.canonical_dyadic(m, s)


@given(st.integers(0, 2**24), st.integers(-20, 62))
def test_canonical_dyadic_is_the_same_number_in_one_form(m: int, s: int) -> None:
    cm, cs = fp.canonical_dyadic(m, s)
    assert Fraction(cm) / Fraction(2) ** cs == Fraction(m) / Fraction(2) ** s
    assert cs <= 0 or cm % 2 == 1
    assert fp.canonical_dyadic(2 * m, s + 1) == (cm, cs) if s >= 0 else cs == s
    assert min(s, 0) <= cs <= s


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.inf, math.nan])
def test_dyadic_refuses_what_is_no_ratio(ratio: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        fp.dyadic(ratio, 16)


# --- requantize ---------------------------------------------------------------------------------------------------


@st.composite
def requants(draw: st.DrawFn) -> dict:
    bits, signed = draw(st.integers(2, 9)), draw(st.booleans())
    lo, hi = fp.int_range(bits, signed)
    zero = draw(st.integers(lo, hi))
    multiplier = draw(st.integers(0, 2**20 - 1))
    return {
        "multiplier": multiplier,
        "shift": draw(st.integers(-3, 40)),
        "rounding": draw(st.sampled_from(RULES)),
        "lo": zero if draw(st.booleans()) else lo,
        "hi": hi,
        "zero_point": zero,
        "negative_multiplier": draw(st.one_of(st.none(), st.integers(0, 2**20 - 1))),
    }


@given(rule=requants(), accs=st.lists(st.integers(-(2**36), 2**36), min_size=1, max_size=20))
@settings(max_examples=400)
def test_requantize(rule: dict, accs: list[int]) -> None:
    wanted = [python_requant(a, *rule.values()) for a in accs]
    np.testing.assert_array_equal(fp.requantize(np.array(accs), **rule), wanted)


def test_requantize_per_channel() -> None:
    acc = np.arange(-60, 60).reshape(2, 20, 3) * 7
    m, s, neg = np.array([3, 5, 1]), np.array([4, 0, 6]), np.array([1, 2, 0])
    found = fp.requantize(acc, m, s, "half_away", -8, 7, 1, neg)
    for c in range(3):
        wanted = [
            python_requant(int(a), int(m[c]), int(s[c]), "half_away", -8, 7, 1, int(neg[c]))
            for a in acc[..., c].ravel()
        ]
        np.testing.assert_array_equal(found[..., c].ravel(), wanted)


@pytest.mark.parametrize("rule", RULES)
def test_thresholds_invert_every_small_requant(rule: str) -> None:
    """Exhaustive over accumulators, multipliers, shifts, zero points, slopes: count of T <= acc is the output."""
    accs = np.arange(-70, 71)
    for shift in (0, 1, 3, 5, -1):
        for zero, low in ((0, -4), (0, 0), (-2, -2), (3, -4)):
            for negative in (None, np.array([0, 0, 1, 2, 3, 7, 16])):
                multiplier = np.array([0, 1, 2, 3, 5, 8, 21])
                settings_ = (multiplier, np.array([shift]), rule, low, 3)
                table = fp.thresholds(*settings_, -70, 70, zero, negative)
                assert table.shape == (7, 3 - low)
                assert (np.diff(table, axis=1) >= 0).all()
                found = low + (accs[:, None, None] >= table[None]).sum(2)
                wanted = fp.requantize(accs[:, None], *settings_, zero, negative)
                np.testing.assert_array_equal(found, wanted)


@given(rule=requants(), accs=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=30))
@settings(max_examples=150)
def test_thresholds_invert_wide_requants(rule: dict, accs: list[int]) -> None:
    edges = (-(2**31), 2**31 - 1)
    table = fp.thresholds(
        rule["multiplier"], rule["shift"], rule["rounding"], rule["lo"], rule["hi"], *edges, rule["zero_point"],
        rule["negative_multiplier"],
    )  # fmt: skip
    around = np.clip(np.unique(table[0][:, None] + np.array([-1, 0, 1])), *edges)
    points = np.concatenate([np.array(accs), around, np.array(edges)])
    np.testing.assert_array_equal(rule["lo"] + (points[:, None] >= table).sum(1), fp.requantize(points, **rule))


def test_thresholds_say_what_is_out_of_reach_and_refuse_a_falling_function() -> None:
    table = fp.thresholds(1, 2, "floor", 0, 3, acc_lo=5, acc_hi=9)
    np.testing.assert_array_equal(table, [[5, 8, 10]])
    with pytest.raises(ValueError, match=">= 0"):
        fp.thresholds(-1, 0, "floor", 0, 3, 0, 9)
    with pytest.raises(ValueError, match=">= 0"):
        fp.thresholds(1, 0, "floor", 0, 3, 0, 9, negative_multiplier=-1)
