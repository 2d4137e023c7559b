"""What makes up a convolution, its weights in the design (srq_conv) or written at run time (srq_conv_load)."""

from __future__ import annotations

from collections.abc import Mapping

from srq_hw.backends.rtl.cost_parts import FRAME, Terms, alone, block, buffer, counter_bits, rom, tree
from srq_hw.backends.rtl.demand import URAM, stored, weight_words
from srq_hw.backends.rtl.folding import packed_lanes
from srq_hw.backends.rtl.netlist import FABRIC, Instance

#: bits of a product below which Yosys makes it of LUTs; `demand` counts a DSP all the same
DSP_PRODUCT = 9


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
    place = counter_bits(p["WIDTH"]) + counter_bits(p["HEIGHT"])
    outside = (p["WIDTH"] + kw - 1).bit_length() + (p["HEIGHT"] + kh - 1).bit_length() + 2
    steps = sum(counter_bits(n) for n in (folds // parts, parts, kw, kh, repeat))
    memory = buffer(instance, ring, tdata)
    edge = address if p.get("EDGE", 0) else 0
    lut = {
        "window": 1, "address": address, "wrap": 0 if ring == power else address, "level": level, "place": place,
        "outside": outside, "steps": steps, "edge": edge, "lut_ram": memory.luts, "memory_mux": memory.mux,
    }  # fmt: skip
    registers = 2 * address + 2 * level + place + outside + steps + tdata + memory.registers
    return lut, {"window": 1, "register": registers, "edge": edge}


def _core(instance: Instance, p: dict[str, int]) -> tuple[dict[str, float], dict[str, float]]:
    """srq_conv_core."""
    pe, simd, depthwise = p["PE"], p["SIMD"], bool(p.get("DEPTHWISE", 0))
    folds_out = p["CHANNELS_OUT"] // pe
    parts = folds_out if depthwise else p.get("GROUPS", 1)
    taps = p["KH"] * p["KW"]
    fold = taps * (p["CHANNELS_IN"] // simd // parts)
    lut, ff = _dot(p, 1 if depthwise else pe, 1 if depthwise else simd)
    if depthwise:
        lut, ff = ({key: pe * value for key, value in half.items()} for half in (lut, ff))
    lut["accumulator"] = pe * p["ACC_BITS"]
    ff["register"] += pe * p["ACC_BITS"] * (1 if fold == 1 else 2)
    lut["counter"] = ff["counter"] = counter_bits(fold) + counter_bits(folds_out)
    lut[FRAME] = ff[FRAME] = counter_bits(p["HEIGHT"] * p["WIDTH"] * folds_out)
    lut["unit"] = ff["unit"] = 1
    biases = rom(_text(instance, "BIAS_FILE"), folds_out, pe * p["BIAS_BITS"])
    lut |= biases.terms()
    ff["rom"] = biases.registers
    if taps * folds_out > 1 and not (taps == 1 and depthwise):
        window = _window(instance, p, parts, folds_out // parts)
        lut |= window[0]
        window_ff = dict(window[1])
        ff["register"] += window_ff.pop("register")
        ff |= window_ff
    return lut, ff


def conv(instance: Instance, p: dict[str, int]) -> Terms:
    """The core, and srq_rom with the weights."""
    lut, ff = _core(instance, p)
    words, bits = weight_words(p)
    for half in (lut, ff):
        half["counter"] += counter_bits(words)
    if instance.parameters["WEIGHT_STYLE"] == "block":
        lut["memory_mux"] = lut.get("memory_mux", 0) + block(words, bits).mux
    else:
        held = rom(_text(instance, "WEIGHT_FILE"), words, bits)
        lut |= {key: lut[key] + bits for key, bits in held.terms().items()}
        ff["rom"] += held.registers
    return Terms(lut, ff)


def conv_load(instance: Instance, p: dict[str, int]) -> Terms:
    """The core, and srq_store for the weights. No two of their terms have one name."""
    lut, ff = _core(instance, p)
    held = _store(*weight_words(p), p["LOAD"])
    return Terms({**lut, **held.lut}, {**ff, **held.ff})


def _store(words: int, bits: int, load: int) -> Terms:
    """srq_store in UltraRAM, whose output registers are the row that is played."""
    rows, row = stored(words, bits)
    pack, beats, deep = row // bits, -(-row // load), -(-rows // URAM[0])
    part = counter_bits(pack) if pack > 1 else 0
    steps = 2 * counter_bits(rows) + (counter_bits(beats) if beats > 1 else 0) + part
    # One multiplexer selects the word of a row and the memory that the row comes from.
    lut = {"store": 1, "chain": load + 1, "store_step": steps, "word": bits * -(-(pack * deep - 1) // 3)}
    ff = {
        "store": 1, "chain": 2 * (load + 1), "gather": (beats - 1) * load,
        "store_step": steps + (counter_bits(deep) if deep > 1 else 0), "word": bits if pack > 1 else 0,
    }  # fmt: skip
    return Terms(lut, ff)


def store(instance: Instance, p: dict[str, int]) -> Terms:
    """srq_store as a unit of its own, which no design has."""
    return _store(p["DEPTH"], p["WIDTH"], p["LOAD"])


def _text(instance: Instance, parameter: str) -> str | None:
    """Of the memory file that a parameter names."""
    return instance.memories.get(str(instance.parameters[parameter]))
