"""Block RAM and UltraRAM of FINN's units as its own estimates count them, before there is a FINN graph."""

from __future__ import annotations

from srq_hw.backends.finn.memory import RAMB18_ASPECTS


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
