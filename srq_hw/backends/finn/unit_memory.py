"""Memories of FINN's units before there is a FINN graph: RAMB18 and UltraRAM as its own estimates count them, and what
of a threshold table synthesis keeps where its search stages are in LUTs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from srq_hw.backends.finn.memory import RAMB18_ASPECTS
from srq_hw.graph.ir import Int

Words = NDArray[np.uint64]

#: words that a LUT6 holds of one bit; of an address bit, the words of such a block where it is 0
BLOCK, ONES = 64, (1 << 64) - 1
_WHERE_ZERO = [sum(1 << word for word in range(BLOCK) if not word >> bit & 1) for bit in range(6)]


def weight_ramb18(rows: int, width: int) -> int:
    """RAMB18 of the weights of a matrix unit: FINN's MVAU.bram_estimation (one aspect, by width and rows)."""
    if width <= 2:
        return -(-rows // (16384 // width))
    for wide, deep in ((4, 4096), (9, 2048)):
        if width <= wide:
            return -(-rows // deep) * -(-width // wide)
    wide, deep = (18, 1024) if width <= 18 or rows > 512 else (36, 512)
    return -(-rows // deep) * -(-width // wide)


def window_ramb18(rows: int, width: int) -> int:
    """RAMB18 of a window generator's buffer: FINN's ConvolutionInputGenerator_rtl.bram_estimation."""

    def across(depth: int) -> int:
        wide = next((wide for wide, deep in RAMB18_ASPECTS if depth <= deep), 1)
        return -(-width // wide)

    whole, rest = divmod(rows, 16384)
    return (whole * across(16384) if whole else 0) + (across(rest) if rest else 0)


def window_uram(rows: int, width: int) -> int:
    """UltraRAMs of the same buffer: 4,096 words of 72 bits each."""
    return -(-rows // 4096) * -(-width // 72)


def table_counts(matrix: Int, pe: int, width: int) -> dict[str, int]:
    """What is left of a threshold table in LUTs, over all PEs: parameters of `unit_costs` for Thresholding.

    matrix: int64 (C, 2**bits - 1), ascending; width: bits of a threshold. For each search stage: "luts" are the
    different blocks of 64 words by one bit that depend on two address bits or more, "selects" the different pairs in
    the binary trees that select among blocks, "columns" the different bits of a word. Constants and equals are free.
    """
    folds, levels = len(matrix) // pe, matrix.shape[1]
    bits = levels.bit_length()
    lanes = matrix.reshape(folds, pe, levels).swapaxes(0, 1)  # channel = fold x PEs + PE
    found: dict[str, int] = {}
    for stage in range(bits):
        words = lanes[:, :, (1 << bits - 1 - stage) - 1 :: 1 << bits - stage].reshape(pe, 1, -1)
        luts, selects, columns = _kept(words >> np.arange(width)[:, None] & 1)
        found |= {f"luts{stage}": luts, f"selects{stage}": selects, f"columns{stage}": columns}
    return found


def _kept(columns: Int) -> tuple[int, int, int]:
    """Luts, selects and columns of one stage. columns: 0 or 1 (PE, bit, word)."""
    lanes, _, words = columns.shape
    blocks = -(-words // BLOCK)
    padded = np.pad(columns.astype(np.uint8), ((0, 0), (0, 0), (0, blocks * BLOCK - words)), mode="edge")
    tables: Words = np.packbits(padded, axis=2, bitorder="little").view("<u8").astype(np.uint64)
    there = np.full(blocks, ONES, np.uint64)  # words that there are
    there[-1] = (1 << words - (blocks - 1) * BLOCK) - 1
    depends = np.zeros(tables.shape, np.int64)
    for bit, zero in enumerate(_WHERE_ZERO):
        step = np.uint64(1 << bit)
        depends += ((tables ^ tables >> step) & there & there >> step & np.uint64(zero)) != 0
    luts = _different(np.where(depends >= 2, tables, np.uint64(0)).reshape(lanes, -1))
    selects = 0
    while tables.shape[2] > 1:
        if tables.shape[2] % 2:
            tables = np.concatenate([tables, tables[:, :, -1:]], axis=2)
        low, high = tables[:, :, ::2], tables[:, :, 1::2]
        chosen = np.where(low == high, np.uint64(0), _pair(low, high))
        selects += _different(chosen.reshape(lanes, -1))
        tables = np.where(low == high, low, chosen)
    return luts, selects, _different(np.where(tables == ONES, np.uint64(0), tables)[:, :, 0])


def _different(values: Words) -> int:
    """Different numbers other than 0 of each row, over all rows."""
    return int((np.diff(np.sort(values, axis=1), axis=1, prepend=np.uint64(0)) != 0).sum())


def _pair(low: Words, high: Words) -> Words:
    """A number that stands for two (a hash: it only has to tell the pairs of one memory apart)."""
    mixed = (low ^ low >> np.uint64(31)) * np.uint64(0xBF58476D1CE4E5B9) + high
    mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0x94D049BB133111EB)
    return mixed ^ mixed >> np.uint64(32)
