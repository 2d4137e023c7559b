"""Memory files of the RTL library: integer arrays to `$readmemh` text, in the order in which the modules read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]

#: bits of a row of an UltraRAM
URAM_BITS = 72

ROUNDINGS = ("half_even", "half_up", "half_away", "floor", "trunc")  # their place is srq_requant's ROUNDING


def hex_words(lanes: Int, bits: int | Sequence[int]) -> str:
    """One line per word; lane 0 in the lowest bits, two's complement.

    lanes: int64 (words, lanes). bits: width of every lane, or one width per lane.
    """
    values = np.atleast_2d(lanes)
    widths = [bits] * values.shape[1] if isinstance(bits, int) else list(bits)
    total = sum(widths)
    if total < 1 or len(widths) != values.shape[1]:
        raise ValueError(f"{len(widths)} widths with {total} bits for {values.shape[1]} lanes")
    digits = -(-total // 4)
    lines = []
    for row in values.tolist():
        word = place = 0
        for value, width in zip(row, widths, strict=True):
            if not -(1 << width) >> 1 <= value < 1 << width:
                raise ValueError(f"{value} does not fit {width} bits")
            word |= (value & ((1 << width) - 1)) << place
            place += width
        lines.append(f"{word:0{digits}x}\n")
    return "".join(lines)


def conv_weights(weight: Int, pe: int, simd: int, bits: int, depthwise: bool = False) -> str:
    """WEIGHT_FILE of srq_conv: words of [pe][simd] in the order O / pe, KH, KW, I / groups / simd.

    weight: (O, I / groups, KH, KW). depthwise: (O, 1, KH, KW), words of [pe]; simd is that of the stream and not read.
    """
    out, inside, rows, columns = weight.shape
    simd = 1 if depthwise else simd
    if out % pe or inside % simd:
        raise ValueError(f"folding {pe} x {simd} does not divide {out} x {inside} channels")
    folded = weight.reshape(out // pe, pe, inside // simd, simd, rows, columns)
    return hex_words(folded.transpose(0, 4, 5, 2, 1, 3).reshape(-1, pe * simd), bits)


def conv_bias(bias: Int, pe: int, bits: int) -> str:
    """BIAS_FILE of srq_conv. bias: (O,), zero point corrections included or not as ZERO_POINT of the window wants."""
    return hex_words(bias.reshape(-1, pe), bits)


def load_beats(text: str, width: int, beat: int) -> tuple[int, ...]:
    """What srq_store is sent for a memory file of words of `width` bits: its rows of `row_words`, lowest bits first."""
    words = [int(line, 16) for line in text.split()]
    pack = row_words(len(words), width)
    beats = -(-pack * width // beat)
    found = []
    for first in range(0, len(words), pack):
        row = sum(word << place * width for place, word in enumerate(words[first : first + pack]))
        found += [row >> part * beat & (1 << beat) - 1 for part in range(beats)]
    return tuple(found)


def row_words(words: int, width: int) -> int:
    """Words in a row of srq_store in UltraRAM: as many as its bits take, and no more than there are."""
    return min(URAM_BITS // width if 2 * width <= URAM_BITS else 1, words)


def offsets(values: Int, lanes: int, bits: int) -> str:
    """FILE of srq_offset. values: (C,) with C a multiple of lanes; bits: OUT_BITS."""
    return hex_words(values.reshape(-1, lanes), bits)


def requant_entries(
    multiplier: Int,
    shift: Int,
    negative_multiplier: Int | None,
    lanes: int,
    mult_bits: int,
    shift_min: int,
    shift_max: int,
) -> str:
    """FILE of srq_requant. All parameters (C,) with C a multiple of lanes; mult_bits 0: no multiplier."""
    shift_bits = int(shift_max - shift_min).bit_length()
    parts = [(shift - shift_min, shift_bits), (multiplier, mult_bits)]
    if negative_multiplier is not None:
        parts.append((negative_multiplier, mult_bits))
    kept = [(values, bits) for values, bits in parts if bits]
    if not kept:
        return ""
    entries = np.stack([values for values, _ in kept], axis=-1).reshape(-1, lanes * len(kept))
    return hex_words(entries, [bits for _, bits in kept] * lanes)


def threshold_steps(thresholds: Int, lanes: int, t_bits: int, name: str) -> dict[str, str]:
    """Memory files of srq_threshold with FILE = name.

    thresholds: (C, 2**bits - 1), ascending, as `fixedpoint.thresholds` returns them; C a multiple of lanes.
    """
    levels = thresholds.shape[1]
    bits = levels.bit_length()
    if levels != (1 << bits) - 1:
        raise ValueError(f"{levels} thresholds; wanted one less than a power of two")
    files = {}
    for step in range(bits):
        chosen = thresholds[:, (1 << (bits - 1 - step)) - 1 :: 1 << (bits - step)]  # (C, 2**step)
        for lane in range(lanes):
            own = chosen[lane::lanes].reshape(-1, 1)
            files[f"{name}_{step}_{lane:03d}.hex"] = hex_words(own, t_bits)
    return files
