"""LUTs and flip-flops of FINN's RTL units by formula, fitted to what Yosys makes of FINN's own sources.

`scripts/fit_costs.py` does that and writes docs/costs.md. Weights, which FINN keeps in a memory of their own, are not
in it. An estimate: no placement.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from math import gcd
from pathlib import Path

from srq_hw.backends.rtl.cost_parts import NO_MEMORY, in_block, lut_ram, rom, rom_sum, tree
from srq_hw.backends.rtl.folding import packed_lanes

#: {"lut" | "ff": {kind: {term: coefficient}}}
COEFFICIENTS = Path(__file__).with_name("unit_costs.json")

Parameters = Mapping[str, int]
Amounts = Mapping[str, float]
#: bits of a DSP48E2's wide input
PORT = 27


def finn_lut(kind: str, parameters: Parameters) -> int:
    """LUT sites of a unit (logic, shift registers, memories in LUTs).

    kind: op type without _rtl, a key of PARAMETERS, which says what `parameters` must hold; KeyError for another.
    """
    return round(amount(kind, parameters, "lut", coefficients()))


def finn_ff(kind: str, parameters: Parameters) -> int:
    """Flip-flops; as `finn_lut`."""
    return round(amount(kind, parameters, "ff", coefficients()))


def amount(kind: str, parameters: Parameters, what: str, fitted: Mapping[str, Mapping[str, Amounts]]) -> float:
    """What the formula says with given coefficients. what: lut or ff."""
    factors = fitted[what][kind]
    return sum(factors.get(name, 0.0) * value for name, value in terms(kind, parameters)[what].items())


def terms(kind: str, parameters: Parameters) -> dict[str, Amounts]:
    """{"lut", "ff"} -> term -> amount, of one unit."""
    lut, ff = _TERMS[kind](parameters)
    return {"lut": lut, "ff": ff}


@cache
def coefficients() -> Mapping[str, Mapping[str, Amounts]]:
    """Those of the package."""
    read: Mapping[str, Mapping[str, Amounts]] = json.loads(COEFFICIENTS.read_text())
    return read


def _bits(count: int) -> int:
    return max(1, (count - 1).bit_length())


def _mvau(p: Parameters) -> tuple[Amounts, Amounts]:
    """Products packed as in mvu.sv, lanes taken apart, each summed for itself, accumulators, activations repeated."""
    pe, simd, w, a = p["pe"], p["simd"], p["weight_bits"], p["act_bits"]
    lanes = packed_lanes(pe, w, a, bool(p["narrow"]), PORT)
    units = -(-pe // lanes)
    top, top_registers = tree(simd, p["acc_bits"])
    lower, lower_registers = tree(simd, w + a)
    inside, outside = p["mw"] // simd, p["mh"] // pe
    counters = _bits(inside) + _bits(outside)
    repeated = simd * a if outside > 1 else 0
    lut = {
        "unit": 1, "counter": counters, "top": units * top, "lower": (pe - units) * lower,
        "accumulator": pe * p["acc_bits"], "lanes": (pe - units) * simd * (w + a), "pack": (pe - units) * simd * w,
        "repeat": repeated * -(-inside // 32) if inside > 1 else 0,
    }  # fmt: skip
    ff = {
        "unit": 1, "counter": counters, "top": units * top_registers, "lower": (pe - units) * lower_registers,
        "accumulator": pe * p["acc_bits"],
        "weights": pe * simd * w, "activations": simd * a, "products": pe * simd * (w + a), "repeat": repeated,
    }  # fmt: skip
    return lut, ff


def _thresholding(p: Parameters) -> tuple[Amounts, Amounts]:
    """Binary search: a stage per output bit, a memory and a comparison in each, results through a short queue."""
    pe, width, bits = p["pe"], p["acc_bits"], p["bits"]
    folds = p["channels"] // pe
    depths = [folds << stage for stage in range(bits)]
    trigger = p.get("block_depth", 0)
    inside = [depth for depth in depths if (depth < trigger if trigger else not in_block(depth, width))]
    held = rom_sum(rom(None, depth, width, chosen=bool(trigger)) for depth in inside if depth > 1)
    fold = _bits(folds) if folds > 1 else 0
    lut = {
        "unit": 1, **{name: pe * value for name, value in held.terms().items()}, "compare": pe * bits * width,
        "queue": pe * bits, "fold": fold, "guard": _bits(bits + 3),
    }  # fmt: skip
    ff = {
        "unit": 1, "value": pe * bits * width, "threshold": pe * held.registers,
        "place": pe * bits * (fold + bits), "guard": 2 * _bits(bits + 3), "result": pe * bits,
    }  # fmt: skip
    return lut, ff


def _padding(p: Parameters) -> tuple[Amounts, Amounts]:
    """Two counters with comparisons, a register slice."""
    data = -(-p["simd"] * p["bits"] // 8) * 8
    counters = _bits(p["width"] + 2 * p["pad"] + 1) + _bits(p["height"] + 2 * p["pad"] + 1)
    counters += _bits(p["channels"] // p["simd"])
    return {"unit": 1, "counter": counters, "data": data}, {"unit": 1, "counter": counters, "data": 2 * data}


def _window(p: Parameters) -> tuple[Amounts, Amounts]:
    """A ring of k - 1 rows and k pixels with its addresses and the counters of the loop.

    In parallel the window is registers, and every row but the last a queue of its own.
    """
    folds, data = p["channels"] // p["simd"], p["simd"] * p["bits"]
    rows, columns = p["k"], p.get("k_width", p["k"])
    counters = _bits(rows) + _bits(columns) + _bits(folds) + _bits(p["width"]) + _bits(p["height"])
    if p.get("parallel"):
        queue = lut_ram(max(1, p["width"] - columns) * folds, data)
        count = 0 if p.get("block") else rows - 1
        lut = {"unit": 1, "counter": counters, "ram": count * queue.luts, "mux": count * queue.mux}
        return lut, {"unit": 1, "counter": counters, "data": (rows * columns * folds + rows - 1) * data}
    depth = (rows - 1) * p["width"] * folds + columns * folds
    held = NO_MEMORY if p.get("block") else lut_ram(depth, data)
    lut = {"unit": 1, "address": _bits(depth), "counter": counters, "ram": held.luts, "mux": held.mux}
    return lut, {"unit": 1, "address": _bits(depth), "counter": counters, "data": held.registers}


def _converter(p: Parameters) -> tuple[Amounts, Amounts]:
    """The wider side is held and moved by the narrower."""
    narrow, wide = sorted((p["in_bits"], p["out_bits"]))
    step = gcd(narrow, wide)
    apart = p["in_bits"] > p["out_bits"]
    pieces = wide // step
    lut = {
        "unit": 1, "pieces": pieces, "split": wide * pieces if apart else 0, "gather": 0 if apart else narrow,
        "uneven": wide if narrow != step and not apart else 0,
    }  # fmt: skip
    ff = {"unit": 1, "counter": _bits(pieces), "narrow": narrow, "wide": wide}
    return lut, ff


_TERMS: dict[str, Callable[[Parameters], tuple[Amounts, Amounts]]] = {
    "MVAU": _mvau,
    "Thresholding": _thresholding,
    "FMPadding": _padding,
    "ConvolutionInputGenerator": _window,
    "StreamingDataWidthConverter": _converter,
}

#: what `parameters` holds. MVAU: MW, MH, PE, SIMD of FINN. height, width: of the frame before padding and, for the
#: window, with it. bits: of a value, for Thresholding of the output. A window's rows are in LUTs, as FINN has it by
#: default; "block": 1 says that its ram_style is block or ultra, "parallel": 1 that it offers a window per cycle (not
#: fitted: two were synthesised, 10 % off), "k_width" that the kernel is not square. A search stage of as many words as
#: Thresholding's "block_depth" (FINN's depth trigger) is in block RAM; without one it is where Yosys puts it.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "MVAU": ("pe", "simd", "mw", "mh", "weight_bits", "act_bits", "acc_bits", "narrow", "signed"),
    "Thresholding": ("pe", "channels", "acc_bits", "bits"),
    "FMPadding": ("height", "width", "pad", "channels", "simd", "bits"),
    "ConvolutionInputGenerator": ("height", "width", "k", "channels", "simd", "bits"),
    "StreamingDataWidthConverter": ("in_bits", "out_bits"),
}
