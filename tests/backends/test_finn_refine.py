"""Refinement of FINN's folding: the search by itself, and what it makes of real matrix units."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srq_hw.backends.finn.build import build_finn
from srq_hw.backends.finn.estimate import Device
from srq_hw.backends.finn.memory import ramb18, rom_luts, threshold_memory
from srq_hw.backends.finn.oracle import finn_oracle
from srq_hw.backends.finn.refine import Choice, choose
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.target import load_target
from srq_hw.tools import find_tool

REPO = Path(__file__).resolve().parents[2]
SIZE, FPS = (8, 8), 2000.0
needs_finn = pytest.mark.skipif(not find_tool("finn").usable, reason="FINN+ is not installed")

costs = st.tuples(*(st.integers(0, top) for top in (900, 90, 200, 40)))
units_of = st.lists(st.lists(costs, min_size=1, max_size=5), min_size=1, max_size=8)


# --- memories ----------------------------------------------------------------------------------------------------


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
    luts = threshold_memory(64, 8, 20, 1, 8193)
    mixed = threshold_memory(64, 8, 20, 1, 4096)
    blocks = threshold_memory(64, 8, 20, 1, 1)
    assert (luts["BRAM_18K"], mixed["BRAM_18K"]) == (0, 10 + 5)
    assert blocks == {"LUT": 8 * 20, "BRAM_18K": 1 + 1 + 1 + 1 + 2 + 3 + 5 + 10, "URAM": 0}
    assert luts["LUT"] - mixed["LUT"] == rom_luts(4096, 20) + rom_luts(8192, 20)
    assert threshold_memory(32, 8, 20, 2, 4097)["LUT"] == 2 * threshold_memory(32, 8, 20, 1, 4097)["LUT"]


# --- the search --------------------------------------------------------------------------------------------------


def device(**changes: int) -> Device:
    """A round device of which everything may be used."""
    counts = {"lut": 1000, "dsp": 100, "bram36": 100, "uram": 50} | changes
    return Device("part", 200.0, "DSP48E2", utilization_max=1.0, **counts)


def test_the_scarce_resource_is_spared() -> None:
    unit = [Choice((("ram", "block"),), (0, 0, 60, 0)), Choice((("ram", "distributed"),), (300, 0, 0, 0))]
    picks = choose([0, 0, 240, 0], [unit] * 4, device())
    assert 0 < sum(picks) < 4, "some in each memory"
    assert choose([0, 0, 240, 0], [unit] * 4, device(bram36=100_000)) == [0] * 4
    assert choose([0, 0, 240, 0], [unit] * 4, device(lut=1_000_000)) == [1] * 4


def test_narrower_streams_win_where_costs_are_equal() -> None:
    unit = [Choice((), (10, 1, 1, 0), 90), Choice((), (10, 1, 1, 0), 40), Choice((), (10, 1, 1, 0), 60)]
    assert choose([10, 1, 1, 0], [unit], device()) == [1]


@settings(max_examples=150, deadline=None)
@given(units_of, costs)
def test_what_fitted_before_still_fits(table: list[list[tuple[int, ...]]], fixed: tuple[int, ...]) -> None:
    units = [[Choice((), cost) for cost in rows] for rows in table]

    def used(picks: list[int]) -> list[int]:
        chosen = [unit[pick].cost for unit, pick in zip(units, picks, strict=True)]
        return [sum(column) for column in zip(fixed, *chosen, strict=True)]

    limits = (1000, 100, 200, 50)
    start = used([0] * len(units))
    picks = choose(start, units, device())
    assert picks == choose(start, units, device())
    fullest = max(amount / limit for amount, limit in zip(used(picks), limits, strict=True))
    assert fullest <= max(1.0, max(amount / limit for amount, limit in zip(start, limits, strict=True)))


# --- FINN's nodes ------------------------------------------------------------------------------------------------


SCRIPT = """
import json, sys
from pathlib import Path
from srq_hw.backends.finn.boot import boot
work = Path(sys.argv[1])
boot(work)
import finn.builder.build_dataflow_steps
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp
from srq_hw.backends.finn.estimate import node_cost, estimate
from srq_hw.backends.finn.figures import figures, node_figures
from srq_hw.backends.finn.flow import Flow, configuration, to_hardware
from srq_hw.backends.finn import folding, refine
from srq_hw.backends.finn.build import device_of
from srq_hw.target import load_target
device = device_of(load_target("zcu104"))
cycles = int(device.clock_mhz * 1e6 / float(sys.argv[2]))
flow = Flow(configuration(work, "ZCU104", device.part, device.clock_mhz, 30), work, lambda step, seconds: None, {})
flow.config.mvau_wwidth_max = 36  # FINN's default
kept, folding.refine = folding.refine, lambda *args: {}
folding.remember_shuffle_cycles()
model, _ = folding.fold(flow, to_hardware(flow, ModelWrapper(str(work / "model.onnx"))), float(sys.argv[2]), device)

def rows():
    found = []
    for node in model.graph.node:
        figs = node_figures(model, node, device)
        found.append({"name": node.name, "op": node.op_type, "cycles": figs.cycles, "pe": figs.pe, "simd": figs.simd,
                      "cost": node_cost(figs, device), "lanes": refine.neighbour_lanes(model, node)})
    return found

refine.make_memories_explicit(model)
before, start = rows(), estimate(figures(model, device), device)
choices = {}
for node in model.graph.node:
    if node.op_type == "MVAU_rtl":
        choices[node.name] = [dict(item.settings) for item in refine.matrix_choices(model, node, device, cycles)]
assert rows() == before, "listing choices changes nothing"
kept(model, device, cycles)
end = estimate(figures(model, device), device)
print("RESULT" + json.dumps({"cycles": cycles, "before": before, "after": rows(), "choices": choices,
      "start": start.as_dict(), "end": end.as_dict()}))
"""


@pytest.fixture(scope="module", params=[FPS, 4 * FPS])
def refined(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A 64-channel EDSR folded by FINN with its defaults, and refined, on the ZCU104.

    At the higher rate the window generators are two channels wide, so that odd SIMD are no whole ratio.
    """
    from srq_hw.backends.finn.emit import emit
    from srq_hw.backends.finn.prepare import prepare

    work = tmp_path_factory.mktemp("refine")
    (work / "model.onnx").write_bytes(emit(prepare(net()), SIZE).model.SerializeToString(deterministic=True))
    command = [sys.executable, "-c", SCRIPT, str(work), str(request.param)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPO)
    return json.loads(done.stdout.split("RESULT")[1]) | {"wanted": request.param}


def net() -> IntGraph:
    """Two 64 -> 64 convolutions in one block, one behind it, 64 -> 256 and 64 -> 3."""
    return edsr_graph(64, 1, mean_shift=True)


@pytest.mark.finn
@needs_finn
def test_a_convolution_takes_fewer_block_rams_at_the_wanted_rate(refined: dict) -> None:
    """64 -> 64, 3 x 3, 8 bit: 36 or 72 multipliers fill block RAMs that 32 leave half empty."""
    pairs = [
        (old, new)
        for old, new in zip(refined["before"], refined["after"], strict=True)
        if old["op"] == "MVAU_rtl" and old["cycles"] * old["pe"] * old["simd"] == 64 * 576 * 64
    ]
    assert len(pairs) == 3
    for old, new in pairs:
        assert new["cycles"] <= refined["cycles"]
        assert new["cost"]["BRAM_18K"] < old["cost"]["BRAM_18K"]
    assert refined["end"]["fps"] >= refined["wanted"]
    assert refined["end"]["bram36"] < refined["start"]["bram36"]


@pytest.mark.finn
@needs_finn
def test_stream_widths_stay_whole_ratios(refined: dict) -> None:
    for row in refined["after"]:
        if row["op"] != "MVAU_rtl":
            continue
        for own, other in zip((row["simd"], row["pe"]), row["lanes"], strict=True):
            assert max(own, other) % min(own, other) == 0, row
    old = {row["name"]: row for row in refined["before"]}
    wide = [name for name in refined["choices"] if old[name]["lanes"][0] > 1]
    assert len(wide) >= (3 if refined["wanted"] > FPS else 1), "else every SIMD is a multiple"
    for name, choices in refined["choices"].items():
        before, after = old[name]["lanes"]
        for item in choices:
            if (item["PE"], item["SIMD"]) != (old[name]["pe"], old[name]["simd"]):
                assert max(item["SIMD"], before) % min(item["SIMD"], before) == 0
                assert max(item["PE"], after) % min(item["PE"], after) == 0


@pytest.mark.finn
@needs_finn
def test_nothing_else_is_folded_otherwise(refined: dict) -> None:
    assert refined["start"]["fits"] and refined["end"]["fits"]
    for old, new in zip(refined["before"], refined["after"], strict=True):
        assert old["name"] == new["name"]
        if old["op"] != "MVAU_rtl":
            assert (old["pe"], old["simd"], old["cycles"]) == (new["pe"], new["simd"], new["cycles"])


@pytest.mark.finn
@needs_finn
def test_sources_folding_file_and_results_follow(tmp_path: Path) -> None:
    graph = edsr_graph(16, 1, mean_shift=True)
    small = load_target("zcu104")
    resources = small.resources.model_copy(update={"lut": 30_000, "bram36": 30})
    result = build_finn(graph, small.model_copy(update={"resources": resources}), SIZE, FPS, tmp_path / "finn")
    assert result.estimate is not None and result.estimate.fits
    chosen = json.loads((result.folder / "folding.json").read_text())
    styles = set()
    for row in result.nodes:
        sources, settings_of = result.folder / "sources" / row["name"], chosen[row["name"]]
        text = "".join(path.read_text() for path in sorted(sources.glob("*v")))
        if row["op"] == "MVAU_rtl":
            assert (settings_of["PE"], settings_of["SIMD"]) == (row["pe"], row["simd"])
            styles.add(settings_of["ram_style"])
            assert f'RAM_STYLE = "{settings_of["ram_style"]}"' in text
            assert f"parameter\tSIMD = {row['simd']}," in text
            assert f"parameter\tPE = {row['pe']}," in text
        elif row["op"] == "Thresholding_rtl":
            assert settings_of["depth_trigger_bram"] > 0
            for name in ("bram", "uram"):
                assert f"DEPTH_TRIGGER_{name.upper()} = {settings_of[f'depth_trigger_{name}']}," in text
        elif row["op"].startswith("ConvolutionInputGenerator"):
            assert f'RAM_STYLE("{settings_of["ram_style"]}")' in text
    assert styles <= {"block", "distributed"} and styles
    assert any("refined" in note for note in result.notes)
    image = np.random.default_rng(3).integers(0, 256, (*SIZE, 3))
    proof = finn_oracle(result, graph, image, nodewise=True)
    assert (proof.mismatches, proof.tensors) == (0, len(graph.nodes))
