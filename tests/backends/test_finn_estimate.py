"""Corrections of FINN's estimator, against figures from synthesis of FINN's sources."""

from __future__ import annotations

import pytest

from srq_hw.backends.finn.estimate import Device, Estimate, NodeFigures, converter_luts, estimate, mvu_lanes, node_cost

ZCU104 = Device("xczu7ev-ffvc1156-2-e", 200.0, "DSP48E2", 230400, 1728, 312, 96, 0.8)


def node(op: str = "MVAU_rtl", **changes: object) -> NodeFigures:
    """An 8-bit node with nothing counted."""
    raw = {"LUT": 0, "DSP": 0, "BRAM_18K": 0, "URAM": 0} | changes.pop("raw", {})  # type: ignore[operator]
    fields = {"cycles": 1000, "pe": 1, "simd": 1, "input_bits": 8, "weight_bits": 8, "narrow_weights": True}
    fields |= {"buffer_bits": 0, "converters": 0} | changes
    return NodeFigures(name=f"{op}_0", op=op, raw=raw, **fields)  # type: ignore[arg-type]


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
    total = estimate([node(pe=4, simd=9, weight_bits=bits, input_bits=bits, raw={"DSP": 9})], ZCU104)
    assert (total.dsp, total.raw["DSP"]) == (dsp, 9)
    named = [item for item in total.corrections if item.resource == "DSP"]
    assert [(item.finn, item.ours) for item in named] == ([] if dsp == 9 else [(9, 18)])


def test_lut_where_finn_says_nothing() -> None:
    total = estimate([node(pe=4, simd=9), node("FMPadding_rtl", converters=2 * 209), node("Thresholding_rtl")], ZCU104)
    assert total.lut == 1206 + 51 + 2 * 209
    assert total.raw["LUT"] == 0
    assert estimate([node("FMPadding_rtl", raw={"LUT": 7})], ZCU104).lut == 7


def test_width_converters() -> None:
    assert converter_luts(8, 8) == 0
    assert (converter_luts(8, 72), converter_luts(80, 20)) == (209, 209)  # small ones: what synthesis gave
    assert (converter_luts(8, 288), converter_luts(288, 8)) == (288 + 6, 209)
    assert converter_luts(160, 240) == 480 + 2 + 240 + 1


def test_buffers_round_up_to_block_ram() -> None:
    join = node("ElementwiseAdd_hls", buffer_bits=18433, raw={"BRAM_18K": 1})
    total = estimate([join], ZCU104)
    assert total.bram36 == 2  # 1 of FINN's and 2 of ours make 3 halves
    assert [(item.finn, item.ours) for item in total.corrections if item.resource == "BRAM_18K"] == [(0, 2)]
    assert estimate([node("ElementwiseAdd_hls", buffer_bits=1024)], ZCU104).bram36 == 0


def test_memory_that_finn_counts_otherwise() -> None:
    versal = {"LUT": 10, "URAM": 3, "BRAM_18K": 2}
    layer = node("Thresholding_rtl", raw=versal, memory={"LUT": 500, "BRAM_18K": 6, "URAM": 0})
    total = estimate([layer], ZCU104)
    assert (total.lut, total.bram36, total.uram, total.raw["URAM"]) == (500, 3, 0, 3)
    assert node_cost(layer, ZCU104) == {"LUT": 500, "DSP": 0, "BRAM_18K": 6, "URAM": 0}
    assert estimate([node("Thresholding_rtl", raw=versal)], ZCU104).uram == 3, "no count of ours: FINN's stands"
    rom = estimate([node(pe=4, simd=9, memory={"LUT": 4608})], ZCU104)
    assert rom.lut == 1206 + 4608
    assert ("LUT", 0, 4608) in [(item.resource, item.finn, item.ours) for item in rom.corrections]


def test_fifos_of_skips_come_on_top() -> None:
    skip = node("ElementwiseAdd_hls", raw={"BRAM_18K": 1}, fifo={"LUT": 98, "BRAM_18K": 0, "URAM": 2})
    total = estimate([skip, skip], ZCU104)
    assert (total.lut, total.bram36, total.uram) == (2 * (149 + 98), 1, 4)
    assert [(item.resource, item.finn, item.ours) for item in total.corrections if "FIFO" in item.why] == [
        ("LUT", 0, 196),
        ("URAM", 0, 4),
    ]


def test_the_sum_is_that_of_the_nodes() -> None:
    table = [
        node(pe=4, simd=9, raw={"DSP": 9, "BRAM_18K": 16}, converters=209),
        node("Thresholding_rtl", memory={"LUT": 500, "BRAM_18K": 6, "URAM": 0}),
        node("ElementwiseAdd_hls", fifo={"LUT": 98, "BRAM_18K": 4, "URAM": 2}),
        node("OuterShuffle_hls", buffer_bits=20_000),
    ]
    total = estimate(table, ZCU104)
    assert list(total.nodes) and [item["ours"] for item in total.nodes] == [node_cost(row, ZCU104) for row in table]


def test_what_is_short_is_named() -> None:
    total = estimate([node("Thresholding_rtl", raw={"LUT": 184321, "BRAM_18K": 500})], ZCU104)
    assert not total.fits
    assert total.short == {"lut": 1, "bram36": 1}
    assert total.utilization["lut"] == 0.8
    assert estimate([node("Thresholding_rtl", raw={"LUT": 184320, "BRAM_18K": 498})], ZCU104).fits


def test_rate_comes_from_the_slowest_node() -> None:
    total = estimate([node(cycles=400), node("FMPadding_rtl", cycles=50_000)], ZCU104)
    assert (total.cycles_per_frame, total.slowest_node, total.fps) == (50_000, "FMPadding_rtl_0", 4000.0)
    assert total.ff is None


def test_an_estimate_survives_json() -> None:
    total = estimate([node(pe=4, simd=9, raw={"DSP": 9})], ZCU104)
    assert Estimate.from_dict(total.as_dict()).as_dict() == total.as_dict()
