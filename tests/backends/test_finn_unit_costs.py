"""Formulas for FINN's RTL units against recorded synthesis of FINN's own sources (scripts/fit_costs.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.costs import finn_units
from scripts.fit_costs import fit_finn
from srq_hw.backends.finn.unit_costs import PARAMETERS, _lane_widths, _sum, coefficients, finn_ff, finn_lut
from srq_hw.backends.finn.unit_memory import table_counts

ROWS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "rtl" / "costs_measured.json").read_text())["finn"]
MVAU = {
    "pe": 4, "simd": 9, "mw": 144, "mh": 16, "weight_bits": 8, "act_bits": 8, "acc_bits": 24, "narrow": 0, "signed": 0,
}  # fmt: skip
BOUND = 0.21


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['kind']}-{'-'.join(map(str, row['parameters'].values()))}")
def test_measured_units_are_close(row: dict[str, Any]):
    lut, ff = finn_lut(row["kind"], row["parameters"]), finn_ff(row["kind"], row["parameters"])
    assert row["lut"] <= 100 or abs(lut / row["lut"] - 1) < BOUND
    assert row["ff"] <= 100 or abs(ff / row["ff"] - 1) < BOUND


def test_rows_hold_what_the_formulas_want():
    assert {row["kind"] for row in ROWS} == set(PARAMETERS)
    assert all(set(row["parameters"]) - {"block_depth"} == set(PARAMETERS[row["kind"]]) for row in ROWS)
    assert any(row["held"] for row in ROWS)


def test_the_coefficients_are_those_of_the_recorded_figures():
    again, kept = fit_finn(ROWS), coefficients()
    for what, kinds in again.items():
        for kind, factors in kinds.items():
            assert factors == pytest.approx(kept[what][kind], abs=0.02), (what, kind)


@pytest.mark.parametrize("name", ["pe", "simd"])
def test_a_larger_matrix_unit_costs_more(name: str):
    larger = MVAU | {name: 2 * MVAU[name]}
    assert finn_lut("MVAU", larger) > finn_lut("MVAU", MVAU)
    assert finn_ff("MVAU", larger) > finn_ff("MVAU", MVAU)


def test_what_is_in_block_ram_costs_no_lut():
    window = {"height": 50, "width": 66, "k": 3, "channels": 16, "simd": 4, "bits": 8}
    assert finn_lut("ConvolutionInputGenerator", window | {"block": 1}) < finn_lut("ConvolutionInputGenerator", window)
    search = {"pe": 2, "channels": 64, "acc_bits": 16, "bits": 8}
    assert finn_lut("Thresholding", search | {"block_depth": 64}) < finn_lut("Thresholding", search)


def test_memories_that_the_source_puts_into_luts_cost_them_however_large():
    """Yosys would take block RAM for a stage of 512 words; synthesised in LUTs by an attribute: 474 LUTs, 323 FFs."""
    search = {"pe": 1, "channels": 16, "acc_bits": 18, "bits": 6}
    chosen = search | {"block_depth": 4096}
    assert finn_lut("Thresholding", search) < finn_lut("Thresholding", chosen)
    assert abs(finn_lut("Thresholding", chosen) / 474 - 1) < BOUND
    assert abs(finn_ff("Thresholding", chosen) / 323 - 1) < BOUND


@pytest.mark.parametrize("row", [r for r in ROWS if r["kind"] == "Thresholding"], ids=lambda row: str(row["lut"]))
def test_random_thresholds_cost_what_is_expected_of_them(row: dict[str, Any]):
    """Counted, the constants that were synthesised come to what the formula says without them."""
    shape = row["parameters"]
    counted = shape | table_counts(finn_units.random_thresholds(shape), shape["pe"], shape["acc_bits"])
    assert finn_lut("Thresholding", counted) == pytest.approx(finn_lut("Thresholding", shape), rel=0.05)
    assert finn_ff("Thresholding", counted) == pytest.approx(finn_ff("Thresholding", shape), rel=0.01)


def test_thresholds_that_repeat_cost_less():
    """Both synthesised, not in the fit: channels with steps and offsets of their own, 175 LUTs; all alike, 121."""
    random = np.random.default_rng(7)
    steps = random.integers(20, 60, (32, 1))
    spread = (np.arange(15) - 7) * steps + random.integers(-90, 90, (32, 1))
    shape = {"pe": 2, "channels": 32, "acc_bits": 10, "bits": 4, "block_depth": 4096}
    counted = shape | table_counts(spread, 2, 10)
    assert finn_lut("Thresholding", counted) == pytest.approx(175, rel=0.05)
    assert finn_ff("Thresholding", counted) == pytest.approx(253, rel=0.05)
    alike = np.tile((np.arange(255) - 128) // 8, (32, 1))
    shape |= {"acc_bits": 6, "bits": 8}
    assert finn_lut("Thresholding", shape) > 12 * 121
    assert finn_lut("Thresholding", shape | table_counts(alike, 2, 6)) < 1.5 * 121


@pytest.mark.parametrize(("shape", "lut", "ff"), [((18, 66, 3, 8, 8, 8), 257, 772), ((12, 12, 5, 4, 4, 8), 182, 986)])
def test_a_window_per_cycle(shape: tuple[int, ...], lut: int, ff: int):
    """Both synthesised; not in the fit."""
    p = dict(zip(PARAMETERS["ConvolutionInputGenerator"], shape, strict=True)) | {"parallel": 1}
    assert abs(finn_lut("ConvolutionInputGenerator", p) / lut - 1) < 0.12
    assert abs(finn_ff("ConvolutionInputGenerator", p) / ff - 1) < 0.12


def test_a_flat_kernel_keeps_no_rows():
    square = {"height": 34, "width": 34, "k": 5, "channels": 8, "simd": 8, "bits": 8}
    flat = square | {"k": 1, "k_width": 5}
    assert finn_lut("ConvolutionInputGenerator", flat) < finn_lut("ConvolutionInputGenerator", square) / 2
    assert finn_lut("ConvolutionInputGenerator", square | {"k_width": 5}) == finn_lut(
        "ConvolutionInputGenerator", square
    )


def test_an_unknown_unit_is_an_error():
    with pytest.raises(KeyError):
        finn_lut("StreamingMaxPool", {})


def test_sources_are_changed_where_yosys_refuses_them_and_nowhere_else(tmp_path: Path):
    text = "`default_nettype none\nmodule other ();\nendmodule\n"
    (tmp_path / "other.sv").write_text(text)
    assert finn_units.changed(tmp_path / "other.sv") == text.split("\n", 1)[1].join(["\n", ""])


def test_finns_sources_hold_the_lines_that_are_changed():
    pytest.importorskip("finn")
    library = finn_units.library()
    for name in finn_units.CHANGES:
        (path,) = library.rglob(name)
        assert finn_units.changed(path) != path.read_text(), name


@pytest.mark.parametrize("row", [row for row in ROWS if row["lut"] > 1000], ids=lambda row: row["kind"])
def test_large_units_are_within_what_is_wanted(row: dict[str, Any]):
    assert finn_lut(row["kind"], row["parameters"]) == pytest.approx(row["lut"], rel=0.15)
    assert finn_ff(row["kind"], row["parameters"]) == pytest.approx(row["ff"], rel=0.1)


def test_lanes_of_a_multiplication_are_those_of_mvu_sv():
    """8 x 8 bits on 27: products of 15 bits, 4 to spare; 4 x 4: four of 7, 2 to spare, one each for the lowest two."""
    wide = MVAU | {"narrow": 1}
    assert _lane_widths(wide) == [19, 24]
    assert _lane_widths(wide | {"acc_bits": 40}) == [19, 29]
    assert _lane_widths(wide | {"weight_bits": 4, "act_bits": 4, "acc_bits": 16}) == [8, 8, 7, 16]
    assert _lane_widths(wide | {"weight_bits": 16, "act_bits": 16, "acc_bits": 40}) == [40]


def test_a_tree_of_mvu_sv_registers_every_number_on_its_way():
    """Nine numbers: one sum of two beside seven that wait, then four, two and one."""
    assert _sum(1, 8) == (0, 8)
    assert _sum(2, 8) == (9, 9)
    assert _sum(4, 8) == (9 + 9 + 10, 9 + 9 + 10)
    sums, waiting = 9 + 3 * 9 + 10 + 10 + 11 + 12, 7 * 8
    assert _sum(9, 8) == (sums, sums + waiting)


def test_a_converter_costs_what_it_rotates():
    """A multiple of the input is gathered; anything else selects every input bit among all elements."""
    gather, split = {"in_bits": 8, "out_bits": 128}, {"in_bits": 128, "out_bits": 8}
    uneven = {"in_bits": 128, "out_bits": 120}
    assert finn_lut("StreamingDataWidthConverter", gather) < 100 < finn_lut("StreamingDataWidthConverter", split)
    assert finn_lut("StreamingDataWidthConverter", uneven) > finn_lut("StreamingDataWidthConverter", split)
