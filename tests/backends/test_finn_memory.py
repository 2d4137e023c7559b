"""Memories of FINN's units by rule: ours, and FINN's own counts."""

from __future__ import annotations

import pytest

from srq_hw.backends.finn.memory import ramb18, rom_luts, threshold_blocks
from srq_hw.backends.finn.unit_memory import weight_ramb18, window_ramb18, window_uram


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
