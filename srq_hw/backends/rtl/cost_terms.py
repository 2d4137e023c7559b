"""What makes up a unit, in numbers that LUTs and flip-flops are linear in: adder bits, multiplexer bits, counter bits.

Each function names the terms of one library module as its Verilog has them; `costs` multiplies them by coefficients
that were fitted to synthesis. Nothing here is fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

from srq_hw.backends.rtl.cost_conv import conv, conv_load, store
from srq_hw.backends.rtl.cost_parts import FRAME, NO_ROM, Terms, buffer, counter_bits, rom, rom_sum
from srq_hw.backends.rtl.demand import MULT_PART
from srq_hw.backends.rtl.memories import ROUNDINGS
from srq_hw.backends.rtl.netlist import FABRIC, Instance


def terms(instance: Instance) -> Terms:
    """Of one instance; KeyError for a module that is not in the library."""
    return _TERMS[instance.module](instance, _numbers(instance))


def _numbers(instance: Instance) -> dict[str, int]:
    return {key: value for key, value in instance.parameters.items() if isinstance(value, int)}


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
    counters, beats = counter_bits(p["FOLDS"]) if entry else 0, counter_bits(p["BEATS"])
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
    counters, beats = counter_bits(folds), counter_bits(p["BEATS"])
    lut = {
        "unit": 1, FRAME: beats, "counter": counters, "compare": lanes * bits * max(acc, p["T_BITS"]),
        "found": lanes * bits, **held.terms(),
    }  # fmt: skip
    ff = {
        "unit": 1, FRAME: beats, "counter": counters, "rom": held.registers,
        "accumulator": lanes * acc * (2 * bits - 1), "found": lanes * bits * bits,
        "fold": 2 * bits * counter_bits(folds),
    }  # fmt: skip
    return Terms(lut, ff)


# --- the others -------------------------------------------------------------------------------------------------------


def _beats(instance: Instance) -> int:
    return counter_bits(instance.ports["m"].beats)


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
        counters, held, summed = counter_bits(folds), lanes * p["IN_BITS"], lanes * out
    lut = {"unit": 1, FRAME: beats, "counter": counters, "sum": summed, **entries.terms()}
    return Terms(
        lut, {"unit": 1, FRAME: beats, "counter": counters, "rom": entries.registers, "register": held + lanes * out}
    )


def _concat(instance: Instance, p: dict[str, int]) -> Terms:
    own = {"unit": 1, FRAME: _beats(instance), "data": p["LANES"] * p["BITS"]}
    own["counter"] = counter_bits((p["A_CHANNELS"] + p["B_CHANNELS"]) // p["LANES"])
    return Terms(own, own)


def _slice(instance: Instance, p: dict[str, int]) -> Terms:
    own = {"unit": 1, FRAME: _beats(instance), "counter": counter_bits(p["CHANNELS"] // p["LANES"])}
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
        lut["steps"] += counter_bits(gather)
        ff["steps"] += counter_bits(gather)
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
    address = counter_bits(words)
    run = block * (channels // block**2 // p["OUT_LANES"])
    piece = counter_bits(block * run) if by_pixel else address
    memory = buffer(instance, 2 << address, lanes * bits)
    own = {"unit": 1.0, FRAME: float(_beats(instance))}
    lut = own | {
        "address": address, "piece": piece, "place": counter_bits(block) + counter_bits(p["WIDTH"]),
        "lut_ram": memory.luts, "memory_mux": memory.mux, "choose": channels * bits if by_pixel else 0,
    }  # fmt: skip
    data = memory.registers + p["OUT_LANES"] * bits
    if by_pixel and p["IN_LANES"] != channels:
        gathered = _gather(p["IN_LANES"], channels, bits)
        lut["piece"] += gathered[0]["steps"]
        data += int(gathered[1]["data"])
    ff = own | {"steps": 2 * address + 2 * piece + counter_bits(block) + counter_bits(p["WIDTH"]), "data": data}
    return Terms(lut, ff)


def _repeat(instance: Instance, p: dict[str, int]) -> Terms:
    beats = p["CHANNELS"] // p["LANES"]
    address = counter_bits(p["WIDTH"] * beats)
    tdata = p["LANES"] * p["BITS"]
    memory = buffer(instance, 2 << address, tdata)
    steps = 2 * counter_bits(p["FACTOR"]) + counter_bits(beats)
    own = {"unit": 1.0, FRAME: float(_beats(instance))}
    lut = own | {"address": address, "steps": steps, "lut_ram": memory.luts, "memory_mux": memory.mux}
    return Terms(lut, own | {"steps": 3 * address + steps, "data": memory.registers + tdata})


def _fifo(instance: Instance, p: dict[str, int]) -> Terms:
    address = (p["DEPTH"] - 1).bit_length()
    power = p["DEPTH"] == 1 << address
    memory = buffer(instance, p["DEPTH"], p["BITS"] + 1)
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
    "srq_conv": conv,
    "srq_conv_load": conv_load,
    "srq_store": store,
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
