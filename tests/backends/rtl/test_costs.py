"""Resources by formula: against recorded synthesis of a grid of units and of whole designs, and one live synthesis.

`scripts/fit_costs.py --measure --write` makes the recorded figures, costs_measured.json, and the coefficients anew.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.costs.designs import designs
from scripts.costs.fit import fitted, off
from scripts.costs.grid import build, grid
from scripts.fit_costs import figures_row, fit_units, sources_of
from srq_hw.backends.rtl.cost_parts import in_block, lut_ram, ram, rom, tree
from srq_hw.backends.rtl.cost_terms import terms
from srq_hw.backends.rtl.costs import Cost, coefficients, cost, design_cost
from srq_hw.backends.rtl.demand import bram18, demand, dsps
from srq_hw.backends.rtl.generate import generate
from srq_hw.backends.rtl.netlist import Instance
from srq_hw.backends.rtl.synth import synthesise
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.tools import find_tool

MEASURED = json.loads(Path(__file__).with_name("costs_measured.json").read_text())
UNITS: list[dict[str, Any]] = MEASURED["units"]
#: LUTs from which on an error in per cent says something
LARGE = 100
BOUND, FF_BOUND, DESIGN_BOUND = 0.22, 0.15, 0.1


def conv(**other: object) -> Instance:
    """A convolution of the grid with some of its shape changed."""
    spec = {
        "unit": "conv", "a": 16, "b": 16, "k": 3, "pe": 4, "simd": 4, "w": 8, "x": 8, "signed": False, "narrow": True,
        "size": [24, 32],
    }  # fmt: skip
    return build(spec | other)


def requant(lanes: int) -> Instance:
    return build({"unit": "requant", "c": 16, "acc": 22, "bits": 8, "lanes": lanes, "how": "channel", "size": [24, 32]})


@pytest.fixture(scope="module")
def estimates() -> list[tuple[dict[str, Any], Instance, Cost]]:
    """Row, instance, cost of every measured unit."""
    made = [(row, build(row["spec"])) for row in UNITS]
    return [(row, instance, cost(instance, alone=True)) for row, instance in made]


def test_a_netlist_costs_the_sum_of_its_instances_and_the_dsps_and_memories_of_the_rule():
    netlist = generate(edsr_graph(16, 1), (24, 32), 40_000).netlist
    found, ruled = design_cost(netlist), demand(netlist)
    assert (found.dsp, found.bram18, found.uram) == (ruled.dsp, ruled.bram18, ruled.uram)
    assert found.lut == sum(cost(instance).lut for instance in netlist.instances) > 1000
    assert found.ff == sum(cost(instance).ff for instance in netlist.instances) > found.lut


def test_rows_and_queues_in_ultraram_cost_no_lut_memory_and_no_block():
    fifo = build({"unit": "fifo", "bits": 8, "depth": 20})
    rows = conv()
    for plain in (fifo, rows):
        ultra = replace(plain, parameters={**plain.parameters, "RAM_STYLE": "ultra"})
        assert cost(plain).uram == 0 < cost(ultra).uram
        assert cost(ultra).bram18 <= cost(plain).bram18 and cost(ultra).lut <= cost(plain).lut
    assert cost(replace(fifo, parameters={**fifo.parameters, "RAM_STYLE": "ultra"})).lut < cost(fifo).lut


def test_weights_in_ultraram_cost_what_their_store_does():
    """Words of 16 x 8 bits: two UltraRAMs side by side, four beats to gather, instead of block RAM."""
    inside, written = conv(a=64, b=64), conv(a=64, b=64, weights="ultra")
    assert (written.module, written.parameters["WEIGHT_STYLE"]) == ("srq_conv_load", "ultra")
    assert (cost(inside).uram, cost(written).uram) == (0, 2)
    assert cost(inside).bram18 - cost(written).bram18 == bram18(2304, 128) == 20  # 5 of 512 x 4 of 36
    assert cost(inside).dsp == cost(written).dsp == 8
    store = build({"unit": "store", "width": 128, "depth": 2304})
    more = cost(written).ff - cost(inside).ff
    assert cost(store).ff - 12 <= more <= cost(store).ff and cost(store).ff >= 2 * 33 + 3 * 32


@pytest.mark.parametrize("name", ["pe", "simd"])
@pytest.mark.parametrize(("w", "x"), [(8, 8), (4, 4), (2, 8)])
def test_more_lanes_cost_more(name: str, w: int, x: int):
    rows = [cost(conv(**{name: lanes}, w=w, x=x)) for lanes in (1, 2, 4, 8, 16)]
    assert all(a.ff < b.ff for a, b in pairwise(rows))
    assert rows[0].lut < rows[2].lut < rows[3].lut < rows[4].lut


def test_a_design_does_not_pay_for_the_tlast_that_nobody_reads():
    width = build({"unit": "width", "c": 12, "in": 12, "out": 4, "x": 8, "size": [24, 32]})
    for instance in (width, requant(4)):
        single, inside = cost(instance, alone=True), cost(instance)
        assert single.lut > inside.lut and single.ff > inside.ff and single.dsp == inside.dsp
    end = build({"unit": "output", "c": 3, "lanes": 3, "x": 8, "size": [24, 32]})
    assert cost(end, alone=True) == cost(end)


def test_more_lanes_of_a_requantization_cost_more():
    rows = [cost(requant(lanes)) for lanes in (1, 2, 4, 8, 16)]
    assert all(a.lut < b.lut and a.ff < b.ff and a.dsp < b.dsp for a, b in pairwise(rows))


def test_without_its_memory_files_a_unit_costs_no_less():
    for instance in (conv(pe=16), conv(w=4, b=4, k=1), requant(4)):
        bare = cost(replace(instance, memories={}))
        known = cost(instance)
        assert bare.lut >= known.lut and bare.ff >= known.ff


def test_every_shape_of_the_grid_is_measured():
    specs = [json.dumps(row["spec"], sort_keys=True) for row in UNITS]
    assert sorted(specs) == sorted(json.dumps(dict(sample.spec), sort_keys=True) for sample in grid())


def test_the_coefficients_are_those_of_the_recorded_figures():
    again, kept = fit_units(UNITS), coefficients()
    for what, modules in again.items():
        assert set(modules) == set(kept[what])
        for module, factors in modules.items():
            assert factors == pytest.approx(kept[what][module], abs=0.02), (what, module)


def test_units_that_were_not_fitted_are_close(estimates: list[tuple[dict[str, Any], Instance, Cost]]):
    held = [(row, found) for row, _, found in estimates if row["held"]]
    large = [(row, found) for row, found in held if row["lut"] > LARGE]
    assert len(large) >= 20
    for row, found in large:
        assert abs(found.lut / row["lut"] - 1) < BOUND, row
        assert abs(found.ff / row["ff"] - 1) < FF_BOUND, row
    assert off([found.lut for _, found in held], [row["lut"] for row, _ in held])[0] < 0.05
    assert off([found.ff for _, found in held], [row["ff"] for row, _ in held])[0] < 0.05


def test_units_that_were_fitted_are_close(estimates: list[tuple[dict[str, Any], Instance, Cost]]):
    for row, _, found in estimates:
        assert row["held"] or row["lut"] <= LARGE or abs(found.lut / row["lut"] - 1) < BOUND, row


def test_dsps_are_those_of_synthesis_but_for_products_of_8_bits(
    estimates: list[tuple[dict[str, Any], Instance, Cost]],
):
    other = [instance for row, instance, found in estimates if found.dsp != row["dsp"]]
    for instance in other:  # Yosys makes a product of less than 9 bits, alone in its DSP, of LUTs
        assert terms(instance).lut["multiplier"] > 0
    assert len(other) <= len(estimates) // 20
    assert all(found.dsp == dsps(instance) for _, instance, found in estimates)


def test_ultrarams_are_those_of_synthesis(estimates: list[tuple[dict[str, Any], Instance, Cost]]):
    found = [(row, uram) for row, _, cost in estimates if (uram := cost.uram) or "uram" in row]
    assert len(found) >= 25
    for row, count in found:
        assert count == row["uram"], row


def test_a_convolution_with_written_weights_is_never_fitted_itself():
    rows = [row for row in UNITS if row["spec"].get("weights")]
    assert len(rows) >= 8 and all(row["held"] for row in rows)
    for factors in coefficients().values():
        assert factors["srq_conv_load"] == {**factors["srq_conv"], **factors["srq_store"]}
        assert not (factors["srq_conv"].keys() - {"unit"}) & factors["srq_store"].keys()


#: the embedded network is measured by the script alone: its integers come from `make demo`
SYNTHETIC = [row for row in MEASURED["designs"] if not row["name"].startswith("embedded")]


@pytest.mark.parametrize("row", SYNTHETIC, ids=lambda row: str(row["name"]))
def test_whole_designs_are_close(row: dict[str, Any]):
    design = next(one for one in designs() if one.name == row["name"])
    found = design_cost(design.made().netlist)
    assert abs(found.lut / row["lut"] - 1) < DESIGN_BOUND
    assert abs(found.ff / row["ff"] - 1) < DESIGN_BOUND
    assert found.dsp == row["dsp"]


def test_a_unit_synthesised_now_is_close(tmp_path: Path):
    status = find_tool("yosys")
    if not status.usable:
        pytest.skip(f"yosys: {status.problem}; {status.get}")
    instance = build({"unit": "width", "c": 20, "in": 10, "out": 4, "x": 9, "size": [20, 30]})
    found = figures_row(
        synthesise(instance.module, sources_of(instance), instance.parameters, instance.memories, tmp_path)
    )
    guess = cost(instance, alone=True)
    assert found["lut"] > LARGE
    assert abs(guess.lut / found["lut"] - 1) < 0.1 and abs(guess.ff / found["ff"] - 1) < 0.1


# --- parts ------------------------------------------------------------------------------------------------------------


def test_an_adder_tree_counts_adders_and_passing_registers():
    assert tree(1, 8) == (0, 0)
    assert tree(4, 8) == (2 * 9 + 10, 2 * 9 + 10)
    assert tree(3, 8) == (9 + 10, 2 * 9 + 10)


def test_equal_bits_of_a_constant_memory_share_a_lut():
    words = "0\n3\n5\n7\n"  # bits 0 to 3 as columns: 0111, 0101, 0011, 0000
    assert rom(words, 4, 4).registers == 3
    assert rom("f\n0\nf\nf\n", 4, 4).registers == 1
    assert rom("0\n0\n0\n0\n", 4, 4).registers == 0
    assert rom(None, 4, 100).registers == 15 and rom(None, 40, 100).registers == 100


def test_constant_memories_grow_with_their_words():
    assert (rom(None, 16, 8).bits16, rom(None, 17, 8).bits32, rom(None, 33, 8).bits64) == (8, 8, 8)
    assert rom(None, 128, 8).bits64 == 16
    assert in_block(2048, 18) and rom(None, 2048, 18).terms() == {"rom16": 0, "rom32": 0, "rom64": 0}


def test_memories_go_where_yosys_puts_them():
    assert ram(24, 9).luts == 8 and ram(64, 128).luts == 8 * 19  # recorded: RAM32M16, 19 RAM64M8
    assert ram(512, 33).luts == 0 == ram(512, 33).registers  # a block
    assert ram(130, 13).luts == lut_ram(130, 13).luts == 40
    assert ram(1152, 128).mux > 0 == ram(1024, 18).mux  # blocks behind a multiplexer


def test_the_fit_finds_coefficients_and_leaves_alone_what_it_cannot_see():
    random = np.random.default_rng(0)
    amounts = [{"a": float(a), "b": float(b), "never": 0.0} for a, b in random.integers(10, 500, (60, 2))]
    found = fitted(amounts, [2.0 * one["a"] + 0.5 * one["b"] for one in amounts])
    assert found["a"] == pytest.approx(2, abs=0.05) and found["b"] == pytest.approx(0.5, abs=0.05)
    assert found["never"] == 1
