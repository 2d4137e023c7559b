"""srq_dot and srq_mac: several weights to one multiplication, exact for every pair; folds, biases, odd foldings."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tests.backends.rtl.bench import Bench, Design, IntArray, Port, check, flowing, library, random_beats

SOURCES = library("mac", "dot", "adder_tree")


def limits(bits: int, signed: bool) -> tuple[int, int]:
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def lanes_and_gap(w_bits: int, a_bits: int, narrow: bool) -> tuple[int, int]:
    """Weights per multiplication and their distance, as srq_dot chooses them."""
    room = 27 - w_bits - (not narrow)
    lanes = room // (w_bits + a_bits - 1) + 1
    return lanes, room // (lanes - 1)


# --- the packing itself, in numpy -------------------------------------------------------------------------------------


def unpack(total: IntArray, parity: IntArray, gap: int) -> IntArray:
    """Sums of the lanes (n, lanes) of a packed sum (n,); parity (n, lanes): lowest bit of each lane's sum."""
    lanes = parity.shape[1]
    found = np.empty_like(parity)
    borrow = np.zeros(len(total), np.int64)
    for lane in range(lanes):
        value = total >> (lane * gap)
        if lane < lanes - 1:
            sign = (value >> gap & 1) ^ parity[:, lane + 1]
            value = (value & ((1 << gap) - 1)) - (sign << gap)
        found[:, lane] = value + borrow
        borrow = (value < 0).astype(np.int64)
    return found


def packed_products(weights: IntArray, x: IntArray, gap: int) -> tuple[IntArray, IntArray]:
    """Packed products and lowest bits; weights (n, lanes), x (n,). The operands must fit a 27 x 18 multiplier."""
    a = (weights << (gap * np.arange(weights.shape[1]))).sum(1)
    assert a.min() >= -(1 << 26) and a.max() < 1 << 26
    return a * x, weights & x[:, None] & 1


@pytest.mark.parametrize("signed", [False, True])
def test_packing_int4_is_exact_for_every_operand(signed: bool):
    lanes, gap = lanes_and_gap(4, 4, False)
    assert (lanes, gap) == (4, 7)
    values = np.arange(-8, 8)
    weights = np.stack(np.meshgrid(values, values, values, values, indexing="ij"), -1).reshape(-1, 4)
    lo, hi = limits(4, signed)
    for x in range(lo, hi + 1):
        xs = np.full(len(weights), x)
        total, low = packed_products(weights, xs, gap)
        assert np.array_equal(unpack(total, low, gap), weights * x)


@pytest.mark.parametrize(
    ("w_bits", "a_bits", "narrow", "wanted"),
    [
        (8, 8, False, (2, 18)),
        (8, 8, True, (2, 19)),
        (4, 8, False, (3, 11)),
        (8, 4, False, (2, 18)),
        (3, 3, False, (5, 5)),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_packed_sums(w_bits: int, a_bits: int, narrow: bool, wanted: tuple[int, int], signed: bool):
    """Corners of all operands and random ones, summed as many times as the gap allows."""
    lanes, gap = lanes_and_gap(w_bits, a_bits, narrow)
    assert (lanes, gap) == wanted
    group = 1 << (gap + 1 - w_bits - a_bits)
    w_lo, w_hi = limits(w_bits, True)
    a_lo, a_hi = limits(a_bits, signed)
    random = np.random.default_rng(w_bits)
    ends = np.array(list(product((w_lo + narrow, -1, 0, w_hi), repeat=lanes)))
    corners = np.repeat(np.tile(ends, (4, 1))[:, None], group, axis=1)
    corner_x = np.repeat(np.repeat([a_lo, a_hi, 1, a_lo + 1], len(ends))[:, None], group, axis=1)
    weights = np.concatenate([corners, random.integers(w_lo + narrow, w_hi, (4000, group, lanes), endpoint=True)])
    xs = np.concatenate([corner_x, random.integers(a_lo, a_hi, (4000, group), endpoint=True)])
    totals = np.zeros(len(xs), np.int64)
    parity = np.zeros((len(xs), lanes), np.int64)
    for step in range(group):
        total, low = packed_products(weights[:, step], xs[:, step], gap)
        totals, parity = totals + total, parity ^ low
    assert np.array_equal(unpack(totals, parity, gap), (weights * xs[:, :, None]).sum(1))


# --- the Verilog ------------------------------------------------------------------------------------------------------


def mac_design(
    pe: int, simd: int, w_bits: int, a_bits: int, signed: bool, fold: int, results: int, **more: int
) -> Design:
    parameters: dict[str, int | str] = {
        "PE": pe,
        "SIMD": simd,
        "W_BITS": w_bits,
        "A_BITS": a_bits,
        "A_SIGNED": int(signed),
        "FOLD": fold,
        "RESULTS": results,
        "BIAS_BITS": 20,
        "ACC_BITS": 24,
    }
    ins = Port("s", simd, a_bits, signed), Port("w", pe * simd, w_bits, True), Port("b", pe, 20, True)
    return Design("srq_mac", SOURCES, parameters | more, ins, (Port("m", pe, 24, True),))


def result(x: IntArray, w: IntArray, bias: IntArray, fold: int) -> IntArray:
    weights = w.reshape(len(w), -1, x.shape[1])
    return (weights * x[:, None]).sum(2).reshape(-1, fold, weights.shape[1]).sum(1) + bias


#: name: (PE, SIMD, weight bits, activation bits, signed, fold, more)
CASES: dict[str, tuple[int, int, int, int, bool, int, dict[str, int]]] = {
    "int8_four_nine": (4, 9, 8, 8, False, 3, {}),
    "int8_narrow_odd_pe": (3, 17, 8, 8, True, 2, {"W_NARROW": 1}),
    "int8_one_output": (1, 5, 8, 8, False, 1, {}),
    "int4_odd_pe": (7, 3, 4, 4, True, 1, {}),
    "int4_unsigned": (4, 9, 4, 4, False, 4, {}),
    "int4x8": (5, 2, 4, 8, False, 5, {}),
    "int4_binary": (7, 3, 4, 1, False, 5, {}),  # the packed weights touch
    "int4_minus_one_or_zero": (12, 2, 4, 1, True, 2, {}),
    "int3": (6, 4, 3, 3, False, 2, {}),
    "int2_lut": (3, 5, 2, 8, False, 2, {}),
    "int5_lut": (2, 3, 5, 6, True, 1, {"USE_DSP": 0}),
    "int8_dsp48e1": (4, 9, 8, 8, False, 3, {"PORT": 25}),
    "int4_dsp48e1": (7, 3, 4, 4, True, 2, {"PORT": 25}),
    "no_bias": (2, 2, 6, 7, True, 3, {"BIAS": 0}),
}


#: cycles in srq_dot: 4 + clog2(products per packed sum) + clog2(packed sums), 2 + clog2(SIMD) without multipliers
LATENCY = {"int8_four_nine": 4 + 3 + 1, "int8_one_output": 4 + 3, "int4_unsigned": 4 + 0 + 4, "int2_lut": 2 + 3}


@pytest.mark.parametrize("name", CASES)
def test_mac(bench: Bench, name: str):
    pe, simd, w_bits, a_bits, signed, fold, more = CASES[name]
    frames, results = 3, 50
    design = mac_design(pe, simd, w_bits, a_bits, signed, fold, results, **more)
    s, w, b = design.inputs
    beats = frames * results * fold
    x, weights = random_beats(s, beats, 1), random_beats(w, beats, 2)
    if more.get("W_NARROW"):
        weights = np.maximum(weights, w.limits[0] + 1)
    x[: 4 * fold] = s.limits[0]  # the greatest sums of either sign
    x[4 * fold : 8 * fold] = s.limits[1]
    weights[: 2 * fold] = weights[4 * fold : 6 * fold] = weights.min()
    weights[2 * fold : 4 * fold] = weights[6 * fold : 8 * fold] = w.limits[1]
    bias = random_beats(b, frames * results, 3)
    if not more.get("BIAS", 1):
        expected = result(x, weights, 0 * bias, fold)
        bias = bias[:0]
    else:
        expected = result(x, weights, bias, fold)
    run = check(design, bench, {"s": x, "w": weights, "b": bias}, {"m": expected}, frames=frames)
    assert run.last["s"] - run.first["s"] + 1 == beats  # a beat per cycle
    if name in LATENCY:
        assert run.first["m"] - run.first["s"] == fold - 1 + LATENCY[name] + (1 if fold == 1 else 2)


@pytest.mark.parametrize("signed", [False, True])
def test_mac_int4_every_pair_beside_every_neighbour(bench: Bench, signed: bool):
    """Four 4-bit weights to one multiplication: each weight and activation with every weight of the lane below."""
    lo, hi = limits(4, signed)
    pairs = np.array(list(product(range(lo, hi + 1), range(-8, 8), range(-8, 8))))
    x = pairs[:, :1]
    weights = np.stack([pairs[:, 1], pairs[:, 2], pairs[:, 1], -1 - pairs[:, 2]], axis=1)
    design = mac_design(4, 1, 4, 4, signed, 1, len(x))
    bias = np.zeros((len(x), 4), np.int64)
    run = check(design, bench, {"s": x, "w": weights, "b": bias}, {"m": result(x, weights, bias, 1)}, frames=1)
    assert flowing(run, "m")
