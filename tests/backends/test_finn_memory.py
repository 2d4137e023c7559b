"""Memories of FINN's units by rule: ours, and FINN's own counts."""

from __future__ import annotations

import numpy as np
import pytest

from srq_hw.backends.finn.memory import ramb18, rom_luts, threshold_blocks
from srq_hw.backends.finn.unit_memory import table_counts, weight_ramb18, window_ramb18, window_uram
from srq_hw.graph.ir import Int


@pytest.mark.parametrize(
    ("rows", "width", "blocks"),
    [(1152, 256, 24), (1024, 288, 16), (512, 576, 16), (513, 576, 32), (16384, 1, 1), (1, 1, 1), (8192, 20, 10)],
)
def test_half_block_rams_of_a_memory(rows: int, width: int, blocks: int) -> None:
    assert ramb18(rows, width) == blocks


def test_luts_of_a_memory_grow_with_its_rows() -> None:
    assert [rom_luts(rows, 1) for rows in (1, 64, 65, 256, 257, 1024, 8192)] == [1, 1, 2, 4, 6, 17, 139]
    assert rom_luts(100, 20) == 20 * rom_luts(100, 1)


def test_the_trigger_moves_threshold_stages_into_block_ram() -> None:
    """64 channels, 8 bits: stages of 64, 128, ... 8,192 rows."""
    assert threshold_blocks(64, 8, 20, 1, 8193) == 0
    assert threshold_blocks(64, 8, 20, 1, 4096) == 10 + 5
    assert threshold_blocks(64, 8, 20, 1, 1) == 1 + 1 + 1 + 1 + 2 + 3 + 5 + 10
    assert threshold_blocks(32, 8, 20, 2, 2048) == 2 * threshold_blocks(32, 8, 20, 1, 2048) > 0


@pytest.mark.parametrize(
    ("rows", "width", "blocks"),
    [(1152, 256, 30), (1024, 288, 16), (512, 576, 16), (20000, 1, 2), (9000, 2, 2), (5000, 4, 2), (2049, 9, 2),
     (700, 18, 1), (512, 36, 1), (513, 36, 2)],
)  # fmt: skip
def test_finns_count_of_weights(rows: int, width: int, blocks: int) -> None:
    assert weight_ramb18(rows, width) == blocks


@pytest.mark.parametrize(
    ("rows", "width", "blocks"),
    [(512, 36, 1), (513, 36, 2), (3000, 8, 2), (16384, 3, 3), (16385, 3, 4), (20000, 8, 8 + 2), (33000, 8, 16 + 1)],
)
def test_finns_count_of_a_window(rows: int, width: int, blocks: int) -> None:
    assert window_ramb18(rows, width) == blocks
    assert window_uram(rows, width) == -(-rows // 4096)


def _by_hand(words: list[int], width: int) -> tuple[int, int, int]:
    """Luts, selects and columns of one memory, with sets of tuples."""
    luts, pairs, columns = set(), set(), set()
    for bit in range(width):
        column = [word >> bit & 1 for word in words]
        if len(set(column)) == 2:
            columns.add(tuple(column))
        parts: list[object] = []
        for first in range(0, len(column), 64):
            table = column[first : first + 64]
            places = [(place, place ^ 1 << n, n) for place in range(len(table)) for n in range(6)]
            depends = {n for place, other, n in places if other < len(table) and table[place] != table[other]}
            parts.append(tuple(table + table[-1:] * (64 - len(table))))
            if len(depends) > 1:
                luts.add(parts[-1])
        while len(parts) > 1:
            parts += parts[-1:] * (len(parts) % 2)
            halves = list(zip(parts[::2], parts[1::2], strict=True))
            pairs |= {pair for pair in halves if pair[0] != pair[1]}
            parts = [pair if pair[0] != pair[1] else pair[0] for pair in halves]
    return len(luts), len(pairs), len(columns)


def _tables() -> dict[str, tuple[Int, int, int]]:
    """Name -> thresholds, PEs, width."""
    random = np.random.default_rng(3)
    return {
        "random": (np.sort(random.integers(-512, 512, (24, 63)), axis=1), 3, 10),
        "odd": (np.sort(random.integers(0, 200, (20, 31)), axis=1), 4, 8),
        "few": (np.sort(random.integers(-3, 3, (12, 15)), axis=1), 2, 3),
        "steps": ((np.arange(15) - 7) * random.integers(20, 60, (40, 1)), 1, 10),
        "alike": (np.tile(np.arange(255) - 128, (64, 1)), 2, 8),
        "unfolded": (np.sort(random.integers(0, 99, (3, 7)), axis=1), 3, 7),
    }


@pytest.mark.parametrize("name", list(_tables()))
def test_what_is_left_of_a_table(name: str) -> None:
    """Channel c is in PE c modulo PE; stage s holds 2**s thresholds of every channel, those in the middle first."""
    matrix, pe, width = _tables()[name]
    bits = matrix.shape[1].bit_length()
    wanted: dict[str, int] = {}
    for stage in range(bits):
        step = 1 << bits - stage
        own = [[int(v) for row in matrix[lane::pe] for v in row[step // 2 - 1 :: step]] for lane in range(pe)]
        counts = [_by_hand(words, width) for words in own]
        for what, values in zip(("luts", "selects", "columns"), zip(*counts, strict=True), strict=True):
            wanted[f"{what}{stage}"] = sum(values)
    assert table_counts(matrix, pe, width) == wanted


def test_a_table_without_channels_of_its_own_is_an_address() -> None:
    """Thresholds -8 to 6 in every channel: what a stage has found so far is the next threshold, no LUT is needed."""
    found = table_counts(np.tile(np.arange(15) - 8, (32, 1)), 1, 4)
    assert sum(value for name, value in found.items() if name.startswith(("luts", "selects"))) == 0
