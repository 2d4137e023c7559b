"""What makes up a unit, in numbers that LUTs and flip-flops are linear in: adder bits, multiplexer bits, counter bits.

Each function names the terms of one library module as its Verilog has them; `costs` multiplies them by coefficients
that were fitted to synthesis. Nothing here is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd

from srq_hw.backends.rtl.cost_parts import NO_MEMORY, NO_ROM, Memory, alone, block, ram, rom, rom_sum, tree
from srq_hw.backends.rtl.demand import MULT_PART
from srq_hw.backends.rtl.folding import packed_lanes
from srq_hw.backends.rtl.memories import ROUNDINGS
from srq_hw.backends.rtl.netlist import FABRIC, Instance

#: the term of a unit's count of beats, which makes tlast; in a design nobody reads it, and synthesis drops it
FRAME = "frame"
#: bits of a product below which Yosys makes it of LUTs; `demand` counts a DSP all the same
DSP_PRODUCT = 9


@dataclass(frozen=True)
class Terms:
    """Name -> amount, of the LUTs and of the flip-flops of an instance."""

    lut: Mapping[str, float]
    ff: Mapping[str, float]


def terms(instance: Instance) -> Terms:
    """Of one instance; KeyError for a module that is not in the library."""
    return _TERMS[instance.module](instance, _numbers(instance))


def _numbers(instance: Instance) -> dict[str, int]:
    return {key: value for key, value in instance.parameters.items() if isinstance(value, int)}


def _buffer(instance: Instance, words: int, bits: int) -> Memory:
    """Of rows or a queue, in UltraRAM where that is asked for."""
    return NO_MEMORY if instance.parameters.get("RAM_STYLE") == "ultra" else ram(words, bits)


def _bits(count: int) -> int:
    """Of a counter 0 .. count - 1, as the library declares it: at least 1."""
    return max(1, (count - 1).bit_length())


# --- srq_conv ---------------------------------------------------------------------------------------------------------


def _dot(p: Mapping[str, int], pe: int, simd: int) -> tuple[dict[str, float], dict[str, float]]:
    """srq_dot."""
    w, a = p["W_BITS"], p["A_BITS"]
    product = w + a
    dot = product + (simd - 1).bit_length()
    lut: dict[str, float] = {}
    ff: dict[str, float] = {}
    if w <= 2:
        adders, registers = tree(simd, product)
        lut = {"small_product": pe * simd * product, "tree": pe * adders}
        return lut, {"register": pe * (simd * product + registers + dot)}
    narrow, port = bool(p["W_NARROW"]), p.get("PORT", FABRIC.port)
    lanes = packed_lanes(pe, w, a, narrow, port)
    room = port - w - (not narrow)
    gap = room // (lanes - 1) if lanes > 1 else product + 15
    most = 1 << (gap + 1 - product)
    group = min(most, simd)
    groups = -(-simd // group)
    levels = (group - 1).bit_length()
    lut = {"pack": 0, "tree": 0, "parity": 0, "total": 0, "shift_register": 0, "multiplier": 0}
    ff = {"register": simd * a, "parity": 0}
    for first in range(0, pe, lanes):
        used = min(lanes, pe - first)
        packed = (used - 1) * gap + w + ((1 - narrow) if used > 1 else 0)
        wide = (used - 1) * gap + product
        lut["pack"] += simd * (used - 1) * (w + 1)
        lut["multiplier"] += simd * w * a if used == 1 and product < DSP_PRODUCT else 0
        ff["register"] += simd * (packed + 2 * wide)
        for index in range(groups):
            adders, registers = tree(min(group, simd - index * group), wide)
            lut["tree"] += adders
            ff["register"] += registers
        waiting, bits_waiting = alone(group if group > 1 else groups), wide if group > 1 else used * product
        if simd == 1:
            waiting, bits_waiting = 1, product
        if waiting:
            full = simd // group if group > 1 and simd % group else groups if group > 1 else 1
            lut["shift_register"] += full * bits_waiting
            ff["register"] -= full * bits_waiting * (2 + waiting)
        if most < 2 * group:
            lut["parity"] += simd * (used - 1)
            ff["register"] += simd * (used - 1)
            ff["parity"] += groups * (used - 1)
        adders, registers = tree(groups, product + levels)
        borrow_adders, borrow_registers = tree(groups, 2)
        lut["tree"] += used * adders + (used - 1) * borrow_adders
        lut["total"] += (used - 1) * dot
        ff["register"] += used * (registers + dot) + (used - 1) * borrow_registers
    return lut, ff


def _window(
    instance: Instance, p: Mapping[str, int], parts: int, repeat: int
) -> tuple[dict[str, float], dict[str, float]]:
    """srq_window."""
    folds = p["CHANNELS_IN"] // p["SIMD"]
    row, tdata = p["WIDTH"] * folds, p["SIMD"] * p["A_BITS"]
    kh, kw = p["KH"], p["KW"]
    ahead = (p["WIDTH"] - kw if kh > 1 and p["WIDTH"] > 2 * kw else kw + 3) * folds
    wanted = (kh - 1) * row + kw * folds + ahead + 4
    address = (wanted - 1).bit_length()
    power = 1 << address
    ring = power if power <= 512 or 4 * power <= 5 * wanted else wanted
    level = ring.bit_length()
    place = _bits(p["WIDTH"]) + _bits(p["HEIGHT"])
    outside = (p["WIDTH"] + kw - 1).bit_length() + (p["HEIGHT"] + kh - 1).bit_length() + 2
    steps = sum(_bits(n) for n in (folds // parts, parts, kw, kh, repeat))
    memory = _buffer(instance, ring, tdata)
    edge = address if p.get("EDGE", 0) else 0
    lut = {
        "window": 1, "address": address, "wrap": 0 if ring == power else address, "level": level, "place": place,
        "outside": outside, "steps": steps, "edge": edge, "lut_ram": memory.luts, "memory_mux": memory.mux,
    }  # fmt: skip
    registers = 2 * address + 2 * level + place + outside + steps + tdata + memory.registers
    return lut, {"window": 1, "register": registers, "edge": edge}


def _conv(instance: Instance, p: dict[str, int]) -> Terms:
    pe, simd, depthwise = p["PE"], p["SIMD"], bool(p.get("DEPTHWISE", 0))
    folds_out = p["CHANNELS_OUT"] // pe
    parts = folds_out if depthwise else p.get("GROUPS", 1)
    inputs = 1 if depthwise else simd
    taps = p["KH"] * p["KW"]
    fold = taps * (p["CHANNELS_IN"] // simd // parts)
    words = folds_out * fold
    lut, ff = _dot(p, 1 if depthwise else pe, inputs)
    if depthwise:
        lut, ff = ({key: pe * value for key, value in half.items()} for half in (lut, ff))
    lut["accumulator"] = pe * p["ACC_BITS"]
    ff["register"] += pe * p["ACC_BITS"] * (1 if fold == 1 else 2)
    lut["counter"] = ff["counter"] = sum(map(_bits, (fold, words, folds_out)))
    lut[FRAME] = ff[FRAME] = _bits(p["HEIGHT"] * p["WIDTH"] * folds_out)
    lut["unit"] = ff["unit"] = 1
    weights, biases = (instance.memories.get(str(p_name)) for p_name in _files(instance))
    constants = [rom(biases, folds_out, pe * p["BIAS_BITS"])]
    if instance.parameters["WEIGHT_STYLE"] != "block":
        constants.append(rom(weights, words, pe * inputs * p["W_BITS"]))
    else:
        lut["memory_mux"] = block(words, pe * inputs * p["W_BITS"]).mux
    held = rom_sum(constants)
    lut |= held.terms()
    ff["rom"] = held.registers
    if taps * folds_out > 1 and not (taps == 1 and depthwise):
        window = _window(instance, p, parts, folds_out // parts)
        mux = lut.get("memory_mux", 0) + window[0]["memory_mux"]
        lut |= window[0] | {"memory_mux": mux}
        window_ff = dict(window[1])
        ff["register"] += window_ff.pop("register")
        ff |= window_ff
    return Terms(lut, ff)


def _files(instance: Instance) -> tuple[str, str]:
    return str(instance.parameters["WEIGHT_FILE"]), str(instance.parameters["BIAS_FILE"])


# --- srq_requant, srq_threshold ---------------------------------------------------------------------------------------


def _parts(bits: int, part: int) -> int:
    return (bits - 2) // part + 1 if bits > part + 1 else 1


#: LUTs per bit of a multiplexer that shifts by so many steps of the amount
_SHIFTER = {0: 0.0, 1: 1.0, 2: 1.0, 3: 2.0}
#: roundings that ask what lies below the half bit; the floor does not even ask for that
_EXACT, _FLOOR = ("half_even", "half_away", "trunc"), "floor"


def _requant(instance: Instance, p: dict[str, int]) -> Terms:
    lanes, acc, out = p["LANES"], p["ACC_BITS"], p["OUT_BITS"]
    mult = p["MULT_BITS"] if p["MULTIPLY"] else 0
    least, most = p["SHIFT_MIN"], p["SHIFT_MAX"]
    amount = (most - least).bit_length()
    rounding = ROUNDINGS[p["ROUNDING"]]
    product = acc + mult
    up, down = (1 - least, 0) if least < 1 else (0, least - 1)
    shifted = max(2, product + up - down)
    lost = min(down, product) if rounding in _EXACT else 0
    kept = product + up - down - (rounding == _FLOOR) if not amount else shifted
    port = p.get("PORT", FABRIC.port) - 1
    a_parts = _parts(acc, port) if mult else 1
    b_parts = _parts(mult, MULT_PART) if mult else 1
    several = a_parts * b_parts > 1
    # Registers in a row become shift registers in LUTs: the product on its way, and what waits for it.
    straight = max(0, min(port, product) - down) if several and b_parts == 1 else 0 if several else kept
    straight += min(lost, port) if several and b_parts == 1 else 0 if several else lost
    summed = product - port if several and b_parts == 1 else product if several else 0
    negative = mult if p["NEGATIVE"] else 0
    entry = mult + negative + amount
    text = instance.memories.get(str(instance.parameters.get("FILE", ""))) if entry else ""
    entries = rom(text, p["FOLDS"], lanes * entry) if entry else NO_ROM
    counters, beats = _bits(p["FOLDS"]) if entry else 0, _bits(p["BEATS"])
    lower = (amount + 1) // 2
    shifter = _SHIFTER.get(lower, lower - 1.0) + _SHIFTER.get(amount - lower, amount - lower - 1.0)
    rounded = max(shifted, out + 2)
    lut = {
        "unit": 1, FRAME: beats, "counter": counters, "slope": lanes * negative,
        "shift_register": lanes * (straight + amount), "sum": lanes * summed * (a_parts * b_parts - 1),
        "shift": lanes * shifted * shifter, "lost": lanes * lost,
        "round": 0 if rounding == _FLOOR else lanes * shifted, "compare": lanes * rounded,
        "clamp": lanes * out if p["LO"] != p["ZERO_POINT"] else 0,
        "zero": lanes * out if p["ZERO_POINT"] else 0, **entries.terms(),
    }  # fmt: skip
    factors = lanes * mult if negative else entries.registers * mult / entry if entry else 0
    parts = a_parts * (mult + b_parts) + b_parts * acc if several else 0
    ff = {
        "unit": 1, FRAME: beats, "counter": counters, "entries": entries.registers + factors,
        "operand": lanes * (2 if mult else 0) * acc, "sum": lanes * (parts + (2 if amount else 1) * summed),
        "shifted": lanes * (2 * shifted + amount) if amount else 0, "lane": lanes if lost else 0,
        "rounded": lanes * rounded, "result": lanes * out,
    }  # fmt: skip
    return Terms(lut, ff)


def _threshold(instance: Instance, p: dict[str, int]) -> Terms:
    lanes, folds, acc, bits = p["LANES"], p["FOLDS"], p["ACC_BITS"], p["BITS"]
    made = []
    for step in range(bits):
        for lane in range(lanes):
            text = instance.memories.get(f"{instance.parameters['FILE']}_{step}_{lane:03d}.hex")
            made.append(rom(text, folds << step, p["T_BITS"]))
    held = rom_sum(made)
    counters, beats = _bits(folds), _bits(p["BEATS"])
    lut = {
        "unit": 1, FRAME: beats, "counter": counters, "compare": lanes * bits * max(acc, p["T_BITS"]),
        "found": lanes * bits, **held.terms(),
    }  # fmt: skip
    ff = {
        "unit": 1, FRAME: beats, "counter": counters, "rom": held.registers,
        "accumulator": lanes * acc * (2 * bits - 1), "found": lanes * bits * bits, "fold": 2 * bits * _bits(folds),
    }  # fmt: skip
    return Terms(lut, ff)


# --- the others -------------------------------------------------------------------------------------------------------


def _beats(instance: Instance) -> int:
    return _bits(instance.ports["m"].beats)


def _add(instance: Instance, p: dict[str, int]) -> Terms:
    lanes, out = p["LANES"], p["OUT_BITS"]
    sides = []
    for side in "AB":
        factor, bits = p[f"{side}_FACTOR"], p[f"{side}_BITS"]
        multiplied = bool(abs(factor) & (abs(factor) - 1))
        sides.append(
            (bits, bits + p["FACTOR_BITS"] + 2 if multiplied else bits + 2, p[f"{side}_ZERO"] != 0, factor < 0)
        )
    centred = sum(bits + 2 for bits, _, zero, negative in sides if zero or negative)
    lut = {"unit": 1, FRAME: _beats(instance), "sum": lanes * out, "centred": lanes * centred}
    ff = {
        "unit": 1, FRAME: _beats(instance), "sum": lanes * out, "beat": lanes * sum(bits for bits, *_ in sides),
        "product": lanes * sum(wide for _, wide, *_ in sides),
    }  # fmt: skip
    return Terms(lut, ff)


def _offset(instance: Instance, p: dict[str, int]) -> Terms:
    lanes, out, folds = p["LANES"], p["OUT_BITS"], p["CHANNELS"] // p["LANES"]
    file = instance.parameters.get("FILE")
    beats, counters, entries, held, summed = _beats(instance), 0, NO_ROM, 0, 0
    if file:
        entries = rom(instance.memories.get(str(file)), folds, lanes * out)
        counters, held, summed = _bits(folds), lanes * p["IN_BITS"], lanes * out
    lut = {"unit": 1, FRAME: beats, "counter": counters, "sum": summed, **entries.terms()}
    return Terms(
        lut, {"unit": 1, FRAME: beats, "counter": counters, "rom": entries.registers, "register": held + lanes * out}
    )


def _concat(instance: Instance, p: dict[str, int]) -> Terms:
    own = {"unit": 1, FRAME: _beats(instance), "data": p["LANES"] * p["BITS"]}
    own["counter"] = _bits((p["A_CHANNELS"] + p["B_CHANNELS"]) // p["LANES"])
    return Terms(own, own)


def _slice(instance: Instance, p: dict[str, int]) -> Terms:
    own = {"unit": 1, FRAME: _beats(instance), "counter": _bits(p["CHANNELS"] // p["LANES"])}
    return Terms(own, own | {"data": p["LANES"] * p["BITS"]})


def _gather(lanes_in: int, lanes_out: int, bits: int) -> tuple[dict[str, float], dict[str, float]]:
    """srq_width without its frame counter."""
    common = gcd(lanes_in, lanes_out)
    gather, pieces = lanes_out // common, lanes_in // common
    word = lanes_in * gather * bits
    split = pieces > 1 or gather == 1
    lut: dict[str, float] = {"steps": 0, "pieces": (word - lanes_out * bits) if split else 0}
    ff: dict[str, float] = {"steps": 0, "data": word if split else 0}
    if gather > 1:
        lut["steps"] += _bits(gather)
        ff["steps"] += _bits(gather)
        ff["data"] += 2 * word - lanes_in * bits
    if split:
        lut["steps"] += pieces.bit_length()
        ff["steps"] += pieces.bit_length()
    return lut, ff


def _width(instance: Instance, p: dict[str, int]) -> Terms:
    lut, ff = _gather(p["IN_LANES"], p["OUT_LANES"], p["BITS"])
    own = {"unit": 1.0, FRAME: float(_beats(instance))}
    return Terms(own | lut, own | ff)


def _shuffle(instance: Instance, p: dict[str, int]) -> Terms:
    block, channels, bits = p["BLOCK"], p["CHANNELS"], p["BITS"]
    by_pixel = bool(p["CRD"]) or p["IN_LANES"] != p["OUT_LANES"]
    lanes = channels if by_pixel else p["IN_LANES"]
    words = p["WIDTH"] * channels // lanes
    address = _bits(words)
    run = block * (channels // block**2 // p["OUT_LANES"])
    piece = _bits(block * run) if by_pixel else address
    memory = _buffer(instance, 2 << address, lanes * bits)
    own = {"unit": 1.0, FRAME: float(_beats(instance))}
    lut = own | {
        "address": address, "piece": piece, "place": _bits(block) + _bits(p["WIDTH"]), "lut_ram": memory.luts,
        "memory_mux": memory.mux, "choose": channels * bits if by_pixel else 0,
    }  # fmt: skip
    data = memory.registers + p["OUT_LANES"] * bits
    if by_pixel and p["IN_LANES"] != channels:
        gathered = _gather(p["IN_LANES"], channels, bits)
        lut["piece"] += gathered[0]["steps"]
        data += int(gathered[1]["data"])
    ff = own | {"steps": 2 * address + 2 * piece + _bits(block) + _bits(p["WIDTH"]), "data": data}
    return Terms(lut, ff)


def _repeat(instance: Instance, p: dict[str, int]) -> Terms:
    beats = p["CHANNELS"] // p["LANES"]
    address = _bits(p["WIDTH"] * beats)
    tdata = p["LANES"] * p["BITS"]
    memory = _buffer(instance, 2 << address, tdata)
    steps = 2 * _bits(p["FACTOR"]) + _bits(beats)
    own = {"unit": 1.0, FRAME: float(_beats(instance))}
    lut = own | {"address": address, "steps": steps, "lut_ram": memory.luts, "memory_mux": memory.mux}
    return Terms(lut, own | {"steps": 3 * address + steps, "data": memory.registers + tdata})


def _fifo(instance: Instance, p: dict[str, int]) -> Terms:
    address = (p["DEPTH"] - 1).bit_length()
    power = p["DEPTH"] == 1 << address
    memory = _buffer(instance, p["DEPTH"], p["BITS"] + 1)
    lut = {
        "unit": 1, "address": address, "wrap": 0 if power else address, "lut_ram": memory.luts,
        "memory_mux": memory.mux,
    }  # fmt: skip
    return Terms(lut, {"unit": 1, "address": 3 * address, "data": memory.registers})


def _duplicate(instance: Instance, p: dict[str, int]) -> Terms:
    return Terms({"unit": 1}, {"unit": 1, "data": p["BITS"]})


def _ends(copies: int) -> Callable[[Instance, dict[str, int]], Terms]:
    def found(instance: Instance, p: dict[str, int]) -> Terms:
        tdata = p["LANES"] * p["BITS"]
        own = {"unit": 1.0, "counter": float(_beats(instance))}
        return Terms(own | {"data": tdata}, own | {"data": copies * tdata})

    return found


_TERMS: dict[str, Callable[[Instance, dict[str, int]], Terms]] = {
    "srq_conv": _conv,
    "srq_requant": _requant,
    "srq_threshold": _threshold,
    "srq_add": _add,
    "srq_offset": _offset,
    "srq_concat": _concat,
    "srq_slice": _slice,
    "srq_shuffle": _shuffle,
    "srq_repeat": _repeat,
    "srq_width": _width,
    "srq_fifo": _fifo,
    "srq_duplicate": _duplicate,
    "srq_input": _ends(1),
    "srq_output": _ends(2),
}
