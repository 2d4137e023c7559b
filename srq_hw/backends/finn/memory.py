"""What the memories of FINN's RTL take: block RAM, UltraRAM and LUTs. Plain arithmetic, no FINN needed.

Counts are RAMB18 (half a block RAM), URAM288 and LUT. Sources: UG573 (aspect ratios), finn-rtllib's memstream.sv and
thresholding.sv (what is one memory and how it is read).
"""

from __future__ import annotations

#: simple dual port aspects of a RAMB18: width in bits, rows
RAMB18_ASPECTS = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
#: rows of one bit that a LUT6 holds, and rows whose outputs the slice's own F7/F8 multiplexers join
LUT_ROWS, SLICE_ROWS = 64, 256


def ramb18(rows: int, width: int) -> int:
    """RAMB18 of a memory of rows x width bits in the best single aspect."""
    return min(-(-rows // deep) * -(-width // wide) for wide, deep in RAMB18_ASPECTS)


def rom_luts(rows: int, width: int) -> int:
    """LUTs of a read-only memory of rows x width bits: 64 rows per LUT6 and bit, 4:1 multiplexers above 256 rows.

    An upper bound: synthesis removes constant and repeated bits.
    """
    groups = -(-rows // SLICE_ROWS)
    return width * (-(-rows // LUT_ROWS) + -(-(groups - 1) // 3))


def threshold_rows(channel_folds: int, stages: int) -> list[int]:
    """Rows of the memory of each search stage of one PE of thresholding.sv: channel fold times 1, 2, 4, ..."""
    return [channel_folds << stage for stage in range(stages)]


def threshold_blocks(channel_folds: int, stages: int, width: int, pe: int, block_from: int) -> int:
    """RAMB18 of a threshold layer whose stage memories of block_from rows or more are block RAM, the others LUTs.

    width: bits of a threshold.
    """
    rows = threshold_rows(channel_folds, stages)
    return pe * sum(ramb18(count, width) for count in rows if count >= block_from)
