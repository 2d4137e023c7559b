"""Corrections of FINN's estimator, against figures from synthesis of FINN's sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srq_hw.backends.finn.estimate import (
    RESOURCES,
    Device,
    Estimate,
    NodeFigures,
    converter,
    estimate,
    mvu_lanes,
)
from srq_hw.backends.finn.unit_costs import finn_ff, finn_lut

ROWS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "rtl" / "costs_measured.json").read_text())["finn"]
ZCU104 = Device("xczu7ev-ffvc1156-2-e", 200.0, "DSP48E2", 230400, 1728, 312, 96, 0.8, ff=460800)
MVAU = {
    "pe": 4, "simd": 9, "mw": 144, "mh": 16, "weight_bits": 8, "act_bits": 8, "acc_bits": 24, "narrow": 1, "signed": 0,
}  # fmt: skip
SEARCH = {"pe": 1, "channels": 64, "acc_bits": 20, "bits": 8}
PADDING = {"height": 34, "width": 34, "pad": 0, "channels": 16, "simd": 4, "bits": 8}
WINDOW = {"height": 34, "width": 34, "k": 3, "channels": 16, "simd": 4, "bits": 8}


def node(op: str = "MVAU_rtl", **changes: object) -> NodeFigures:
    """A node with nothing counted."""
    raw = dict.fromkeys(RESOURCES, 0) | changes.pop("raw", {})  # type: ignore[operator]
    fields = {"cycles": 1000, "pe": 1, "simd": 1} | changes
    return NodeFigures(name=f"{op}_0", op=op, raw=raw, **fields)  # type: ignore[arg-type]


def matrix(**changes: object) -> NodeFigures:
    """A matrix unit of MVAU's shape."""
    return node(pe=4, simd=9, unit=MVAU | changes.pop("unit", {}), **changes)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("weight_bits", "input_bits", "narrow", "kind", "lanes"),
    [
        (4, 4, True, "DSP48E2", 4),
        (4, 4, False, "DSP48E2", 4),
        (8, 8, True, "DSP48E2", 2),
        (8, 9, True, "DSP48E2", 2),
        (4, 8, True, "DSP48E2", 3),
        (8, 8, True, "DSP48E1", 2),
        (5, 5, True, "DSP48E1", 3),
        (27, 8, True, "DSP48E2", 1),
    ],
)
def test_products_per_dsp(weight_bits: int, input_bits: int, narrow: bool, kind: str, lanes: int) -> None:
    assert mvu_lanes(weight_bits, input_bits, narrow, kind) == lanes


@pytest.mark.parametrize(("bits", "dsp"), [(4, 9), (8, 18)])  # both synthesised
def test_dsp_of_a_matrix_unit(bits: int, dsp: int) -> None:
    total = estimate([matrix(unit={"weight_bits": bits, "act_bits": bits}, raw={"DSP": 9})], ZCU104)
    assert (total.dsp, total.raw["DSP"]) == (dsp, 9)
    named = [item for item in total.corrections if item.resource == "DSP"]
    assert [(item.finn, item.ours) for item in named] == ([] if dsp == 9 else [(9, 18)])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['kind']}-{'-'.join(map(str, row['parameters'].values()))}")
def test_logic_is_close_to_synthesis_of_finns_units(row: dict[str, Any]) -> None:
    """FINN's own figures, whatever they are, are replaced; a converter stands behind a node."""
    if row["kind"] == "StreamingDataWidthConverter":
        made = estimate([node("SrqAdd_rtl", converters=converter(*row["parameters"].values()))], ZCU104)
    else:
        unit = node(f"{row['kind']}_rtl", unit=row["parameters"], raw={"LUT": 300})
        made = estimate([unit], ZCU104)
    assert abs(made.lut - row["lut"]) <= max(0.22 * row["lut"], 22)
    assert abs(made.ff - row["ff"]) <= max(0.22 * row["ff"], 22)


def test_every_replaced_figure_is_listed_beside_finns() -> None:
    kinds = {"FMPadding": PADDING, "ConvolutionInputGenerator": WINDOW, "Thresholding": SEARCH}
    table = [matrix()] + [node(f"{kind}_rtl", unit=unit, raw={"LUT": 7}) for kind, unit in kinds.items()]
    total = estimate(table, ZCU104)
    luts = {item.nodes: (item.finn, item.ours) for item in total.corrections if item.resource == "LUT"}
    assert luts == {"MVAU_rtl": (0, finn_lut("MVAU", MVAU))} | {
        f"{kind}_rtl": (7, finn_lut(kind, unit)) for kind, unit in kinds.items()
    }
    assert total.raw["LUT"] == 21 and total.lut == sum(ours for _, ours in luts.values())
    (registers,) = [item for item in total.corrections if item.resource == "FF"]
    assert (registers.count, registers.finn) == (4, 0)
    assert registers.ours == total.ff == sum(finn_ff(item.kind, item.unit) for item in table)
    assert all(item.why for item in total.corrections)


def test_figures_of_our_own_operations_stand() -> None:
    own = {"LUT": 500, "FF": 900, "DSP": 4, "BRAM_18K": 3, "URAM": 1}
    total = estimate([node("SrqConv_rtl", raw=own)], ZCU104)
    assert (total.lut, total.ff, total.dsp, total.bram36, total.uram) == (500, 900, 4, 2, 1)
    assert total.corrections == () and total.raw == own


def test_width_converters() -> None:
    assert converter(8, 8) == {}
    assert 0 < converter(16, 32)["LUT"] < converter(8, 72)["LUT"] < 209, "small ones have no floor"
    total = estimate([node("SrqAdd_rtl", converters=converter(96, 32)), node("SrqAdd_rtl")], ZCU104)
    assert (total.lut, total.ff) == (converter(96, 32)["LUT"], converter(96, 32)["FF"])
    assert [(item.resource, item.count, item.finn) for item in total.corrections] == [("LUT", 1, 0), ("FF", 1, 0)]


def test_threshold_memories_are_counted_once() -> None:
    """LUTs of the search stages are in the formula, block RAM is by the depth trigger."""
    versal = {"LUT": 10, "URAM": 3, "BRAM_18K": 2}
    luts = node("Thresholding_rtl", raw=versal, unit=SEARCH | {"block_depth": 8193}, memory={"BRAM_18K": 0, "URAM": 0})
    blocks = node("Thresholding_rtl", raw=versal, unit=SEARCH | {"block_depth": 64}, memory={"BRAM_18K": 24, "URAM": 0})
    costs = [row["ours"] for row in estimate([luts, blocks], ZCU104).nodes]
    assert [(cost["BRAM_18K"], cost["URAM"]) for cost in costs] == [(0, 0), (24, 0)]
    assert costs[0]["LUT"] == finn_lut("Thresholding", luts.unit) > 5000, "255 x 64 thresholds of 20 bits in LUTs"
    assert costs[1]["LUT"] == finn_lut("Thresholding", blocks.unit) < 500
    unset = estimate([node("Thresholding_rtl", raw=versal, unit=SEARCH)], ZCU104)
    assert (unset.uram, unset.bram36) == (3, 1), "no trigger: FINN's memories stand"


def test_weights_in_luts_come_on_top() -> None:
    rom = estimate([matrix(memory={"LUT": 4608})], ZCU104)
    assert rom.lut == finn_lut("MVAU", MVAU) + 4608
    assert ("LUT", 0, 4608) in [(item.resource, item.finn, item.ours) for item in rom.corrections]


def test_fifos_of_skips_come_on_top() -> None:
    skip = node("SrqAdd_rtl", raw={"LUT": 149, "BRAM_18K": 1}, fifo={"LUT": 98, "BRAM_18K": 0, "URAM": 2})
    total = estimate([skip, skip], ZCU104)
    assert (total.lut, total.bram36, total.uram) == (2 * (149 + 98), 1, 4)
    assert [(item.resource, item.finn, item.ours) for item in total.corrections if "FIFO" in item.why] == [
        ("LUT", 0, 196),
        ("URAM", 0, 4),
    ]


def test_the_sum_is_that_of_the_nodes() -> None:
    table = [
        matrix(raw={"DSP": 9, "BRAM_18K": 16}, converters=converter(96, 32)),
        node("Thresholding_rtl", unit=SEARCH | {"block_depth": 64}, memory={"BRAM_18K": 24, "URAM": 0}),
        node("SrqAdd_rtl", raw={"LUT": 40, "FF": 70}, fifo={"LUT": 98, "BRAM_18K": 4, "URAM": 2}),
        node("FMPadding_rtl", unit=PADDING),
        node("ConvolutionInputGenerator_rtl", unit=WINDOW, raw={"LUT": 300}),
    ]
    total = estimate(table, ZCU104)
    ours = [row["ours"] for row in total.nodes]
    assert ours == [estimate([item], ZCU104).nodes[0]["ours"] for item in table]
    sums = {key: sum(item[key] for item in ours) for key in RESOURCES}
    assert (sums["LUT"], sums["FF"], sums["DSP"]) == (total.lut, total.ff, total.dsp)
    assert (-(-sums["BRAM_18K"] // 2), sums["URAM"]) == (total.bram36, total.uram)
    for resource in RESOURCES:  # FINN's sum and the corrections give ours
        steps = sum(item.ours - item.finn for item in total.corrections if item.resource == resource)
        assert total.raw[resource] + steps == sums[resource]


def test_what_is_short_is_named() -> None:
    total = estimate([node("SrqConv_rtl", raw={"LUT": 184321, "BRAM_18K": 500, "FF": 368641})], ZCU104)
    assert not total.fits
    assert total.short == {"lut": 1, "bram36": 1, "ff": 1}
    assert total.utilization["lut"] == total.utilization["ff"] == 0.8
    assert estimate([node("SrqConv_rtl", raw={"LUT": 184320, "BRAM_18K": 498, "FF": 368640})], ZCU104).fits


def test_rate_comes_from_the_slowest_node() -> None:
    total = estimate([matrix(cycles=400), node("FMPadding_rtl", unit=PADDING, cycles=50_000)], ZCU104)
    assert (total.cycles_per_frame, total.slowest_node, total.fps) == (50_000, "FMPadding_rtl_0", 4000.0)


def test_an_estimate_survives_json() -> None:
    total = estimate([matrix(raw={"DSP": 9})], ZCU104)
    assert Estimate.from_dict(total.as_dict()).as_dict() == total.as_dict()
