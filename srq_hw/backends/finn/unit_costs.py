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

from srq_hw.backends.rtl.cost_parts import NO_MEMORY, in_block, lut_ram
from srq_hw.backends.rtl.folding import packed_lanes

#: {"lut" | "ff": {kind: {term: coefficient}}}
COEFFICIENTS = Path(__file__).with_name("unit_costs.json")

Parameters = Mapping[str, int]
Amounts = Mapping[str, float]
#: bits of a DSP48E2's wide input and of its result
PORT, SUM_BITS = 27, 48


def finn_lut(kind: str, parameters: Parameters) -> int:
    """LUT sites of a unit (logic, shift registers, memories in LUTs).

    kind: op type without _rtl, a key of PARAMETERS, which says what `parameters` must hold; KeyError for another.
    """
    return finn_logic(kind, parameters)[0]


def finn_ff(kind: str, parameters: Parameters) -> int:
    """Flip-flops; as `finn_lut`."""
    return finn_logic(kind, parameters)[1]


def finn_logic(kind: str, parameters: Parameters) -> tuple[int, int]:
    """`finn_lut` and `finn_ff` at once: the search asks for thousands of both."""
    found, fitted = terms(kind, parameters), coefficients()
    return round(_weighed(found["lut"], fitted["lut"][kind])), round(_weighed(found["ff"], fitted["ff"][kind]))


def amount(kind: str, parameters: Parameters, what: str, fitted: Mapping[str, Mapping[str, Amounts]]) -> float:
    """What the formula says with given coefficients. what: lut or ff."""
    return _weighed(terms(kind, parameters)[what], fitted[what][kind])


def _weighed(amounts: Amounts, factors: Amounts) -> float:
    return sum(factors.get(name, 0.0) * value for name, value in amounts.items())


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


def _selection(inputs: int) -> int:
    """LUT6s of a multiplexer of so many single bits: two for 6, three for 8."""
    return -(-inputs // 2) - 1


def _mvau(p: Parameters) -> tuple[Amounts, Amounts]:
    """Packed products as in mvu.sv: a tree and a result per lane, what a lane carries into the next one, output queue.

    A multiplication holds several lanes; one that is not full has the upper ones. What leaves a lane but the topmost is
    found from two bits of every product (canary), summed in a narrow tree, accumulated, and subtracted from the next.
    """
    pe, simd, accumulator = p["pe"], p["simd"], p["acc_bits"]
    widths = _lane_widths(p)
    units = -(-pe // len(widths))
    lowest = len(widths) * units - pe  # lanes that the last multiplication does not have
    tops = [*(widths * (units - 1)), *widths[lowest:]]
    lower = [*(widths[:-1] * (units - 1)), *widths[lowest:-1]]
    sums = [_sum(simd, width) for width in tops]
    carried = _sum(simd, 2)[0] * len(lower)
    inside, outside = p["mw"] // simd, p["mh"] // pe
    counters = _bits(inside) + _bits(outside)
    repeated = simd * p["act_bits"] if outside > 1 else 0
    depth = 4 + simd.bit_length() + (simd == 1)
    lut = {
        "unit": 1, "counter": counters, "tree": sum(adders for adders, _ in sums) + carried,
        "canary": len(lower) * simd, "queue": pe * accumulator * _selection(depth),
        "carry": sum(accumulator + 2 * (max(accumulator - width, _bits(simd)) + 1) for width in lower),
        "repeat": repeated * -(-inside // 32) if inside > 1 else 0,
    }  # fmt: skip
    ff = {
        "unit": 1, "counter": counters, "tree": sum(registers for _, registers in sums), "canary": len(lower) * simd,
        "queue": pe * accumulator * (depth + 2), "repeat": repeated,
    }  # fmt: skip
    return lut, ff


def _lane_widths(p: Parameters) -> list[int]:
    """Bits of a product's lanes, the lowest first: what the port leaves over widens the lower ones."""
    product = p["weight_bits"] + p["act_bits"] - 1
    lanes = packed_lanes(PORT, p["weight_bits"], p["act_bits"], bool(p["narrow"]), PORT)
    over = PORT - (not p["narrow"]) - p["weight_bits"] - (lanes - 1) * product
    lower = []
    for left in range(lanes - 1, 0, -1):
        more = -(-over // left)
        lower.append(product + more)
        over -= more
    return [*lower, min(p["acc_bits"], SUM_BITS - sum(lower))]


@cache
def _sum(numbers: int, width: int) -> tuple[int, int]:
    """Adder bits and register bits of add_multi: all numbers reach the first register, however few are added there."""
    if numbers == 1:
        return 0, width
    below = [1] * (2 * numbers - 1)
    for node in range(numbers - 2, -1, -1):
        below[node] = below[2 * node + 1] + below[2 * node + 2]
    bits = [width + (count - 1).bit_length() for count in below]
    return sum(bits[: numbers - 1]), sum(bits[: (1 << (numbers - 1).bit_length()) - 1])


def _thresholding(p: Parameters) -> tuple[Amounts, Amounts]:
    """Binary search: a stage per output bit, a memory and a comparison (a LUT per two bits) in each, a short queue.

    Of several blocks of 64 words, a bit is found by as many selections of two as there are different blocks but one.
    """
    pe, width, bits = p["pe"], p["acc_bits"], p["bits"]
    folds = p["channels"] // pe
    trigger = p.get("block_depth", 0)
    small = large = selects = columns = 0.0
    known = "luts0" in p
    for stage in range(bits):
        depth = folds << stage
        if depth == 1 or (depth >= trigger if trigger else in_block(depth, width)):
            continue
        counts = _known_table(p, stage) if known else [pe * count for count in _random_table(depth, width)]
        small, large = (small + counts[0], large) if depth <= 32 else (small, large + counts[0])
        selects, columns = selects + counts[1], columns + counts[2]
    fold = _bits(folds) if folds > 1 else 0
    lut = {
        "unit": 1, "rom": small, "block": large, "select": selects,
        "compare": pe * bits * -(-width // 2), "queue": pe * bits * _selection(bits + 2), "fold": fold,
        "guard": _bits(bits + 3),
    }  # fmt: skip
    ff = {
        "unit": 1, "value": pe * bits * width, "threshold": columns,
        "place": pe * bits * (fold + bits), "guard": 2 * _bits(bits + 3), "result": pe * bits,
    }  # fmt: skip
    return lut, ff


def _known_table(p: Parameters, stage: int) -> list[float]:
    return [p[f"{what}{stage}"] for what in ("luts", "selects", "columns")]


def _random_table(words: int, width: int) -> tuple[float, float, float]:
    """What `unit_memory.table_counts` is to be expected to say of a stage of one PE with random constants.

    Of so few words there are few columns: two are constant, two for each address bit are it or its inverse.
    """
    if words > 8:
        blocks = -(-words // 64)
        return width * blocks, width * (blocks - 1), width
    tables = 1 << words
    drawn = 1 - (1 - 1 / tables) ** width  # how likely a given column is among them
    return max(0, tables - 2 - 2 * _bits(words)) * drawn, 0, (tables - 2) * drawn


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
    """vpc.sv, in elements of the greatest common divisor: a buffer of a beat of each side with a mask where to write.

    Unless the output is a multiple of the input, the input is rotated: each of its bits is selected among as many as
    there are elements, in levels that Yosys shares between the bits only in part.
    """
    source, reader = p["in_bits"], p["out_bits"]
    step = gcd(source, reader)
    elements, rotated = source // step, reader % source != 0
    lut = {
        "unit": 1, "mask": elements + reader // step, "gather": 0 if rotated else source,
        "load": source + reader if rotated else 0, "rotate": source * (elements.bit_length() - 1),
        "tree": source * elements if rotated else 0,
    }  # fmt: skip
    ff = {"unit": 1, "mask": elements + reader // step, "buffer": source + reader}
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
#: Thresholding's "block_depth" (FINN's depth trigger) is in block RAM; without one it is where Yosys puts it. Constants
#: are taken to be random unless `unit_memory.table_counts` of them are among the parameters.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "MVAU": ("pe", "simd", "mw", "mh", "weight_bits", "act_bits", "acc_bits", "narrow", "signed"),
    "Thresholding": ("pe", "channels", "acc_bits", "bits"),
    "FMPadding": ("height", "width", "pad", "channels", "simd", "bits"),
    "ConvolutionInputGenerator": ("height", "width", "k", "channels", "simd", "bits"),
    "StreamingDataWidthConverter": ("in_bits", "out_bits"),
}
