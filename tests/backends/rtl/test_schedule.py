"""FIFO depths by analysis: enough for full pace, and not by chance: with less memory a design stops or is slower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl import fifos
from srq_hw.backends.rtl.demand import demand
from srq_hw.backends.rtl.emit import top_text
from srq_hw.backends.rtl.generate import RtlDesign, generate
from srq_hw.backends.rtl.netlist import Fabric, Netlist
from srq_hw.backends.rtl.oracle import compile_design, simulate
from srq_hw.backends.rtl.schedule import RULES, Schedule, schedule
from srq_hw.backends.rtl.verilate import LIBRARY, Run
from srq_hw.errors import RunError
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph

SIZE = (9, 8)


@pytest.fixture(scope="module")
def graph() -> IntGraph:
    return edsr_graph(4, 1)


def stream(design: RtlDesign, models: Path, frames: int = 3) -> Run:
    beats = np.random.default_rng(0).integers(0, 256, (frames * design.input.beats, design.input.lanes))
    lasts = np.arange(1, len(beats) + 1) % design.input.beats == 0
    simulator = compile_design(design, models, jobs=1)
    return simulator.run({"s": beats}, {"m": frames * design.output.beats}, lasts={"s": lasts})


def shallow(design: RtlDesign, depth: int) -> RtlDesign:
    """The design with FIFOs of so many words."""
    instances = tuple(
        replace(i, parameters={**i.parameters, "DEPTH": depth}) if i.module == "srq_fifo" else i
        for i in design.netlist.instances
    )
    netlist = replace(design.netlist, instances=instances)
    return replace(design, top=top_text(netlist, "shallow", design.graph_sha256, design.cycles))


def test_the_analysis_gives_full_pace_and_less_memory_does_not(graph: IntGraph, models: Path):
    design = generate(graph, SIZE, 700)
    assert len(design.fifos) == 4 and min(design.fifos.values()) >= 16
    run = stream(design, models)
    assert set(np.diff(run.ends["m"])) == {design.cycles}
    with pytest.raises(RunError, match="hang: no beat on any stream"):
        stream(shallow(design, 2), models)


def test_the_latency_of_the_analysis_is_that_of_an_even_source_or_more(graph: IntGraph, models: Path):
    design = generate(graph, SIZE, 700)
    assert stream(design, models).first["m"] <= design.latency


def test_every_module_that_a_design_may_hold_has_a_rule():
    parts = {
        "adder_tree",
        "dot",
        "frame",
        "mac",
        "rom",
        "rows",
        "shift_right",
        "skid",
        "wide_multiply",
        "conv_core",
        "store",
        "window",
    }
    modules = {path.stem for path in LIBRARY.glob("srq_*.v")}
    assert set(RULES) == modules - {f"srq_{name}" for name in parts}


def test_arrivals_follow_one_another_and_nothing_leaves_before_it_arrives(graph: IntGraph):
    design = generate(graph, SIZE, 700)
    netlist = replace(design.netlist, instances=tuple(i for i in design.netlist.instances if i.module != "srq_fifo"))
    renamed = {f"{i.ports['s'].name}__fifo": i.ports["s"] for i in design.netlist.instances if i.module == "srq_fifo"}
    netlist = replace(
        netlist,
        instances=tuple(
            replace(i, ports={prefix: renamed.get(s.name, s) for prefix, s in i.ports.items()})
            for i in netlist.instances
        ),
    )
    found = schedule(netlist, design.cycles)
    for name, arrives in found.arrives.items():
        assert (np.diff(arrives) >= 0).all(), name
        assert (found.leaves[name] >= arrives).all(), name
        assert (np.diff(found.leaves[name]) >= 0).all(), name


def test_large_fifos_go_into_ultraram_in_wide_words(models: Path, monkeypatch: pytest.MonkeyPatch):
    """16 features in beats of one value: a word takes eight of them, as many as 72 bits hold."""
    monkeypatch.setattr(fifos, "ULTRA_BITS", 1 << 14)
    graph = edsr_graph(16, 0)
    design = generate(graph, (8, 64), 8 * 64 * 16 * 16 * 9, fabric=Fabric(ultra=True))
    found = [i.parameters for i in design.netlist.instances if i.module == "srq_fifo"]
    ultra = [p for p in found if p.get("RAM_STYLE") == "ultra"]
    assert [p["BITS"] for p in ultra] == [64] and demand(design.netlist).uram == 1
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 64, 3))
    result = simulate(design, graph, images, models, jobs=1)
    assert result.passed, result.first
    assert result.cycles_per_frame == design.cycles


@pytest.mark.parametrize("fabric", [Fabric(), Fabric(ultra=True)])
def test_large_frames_get_the_depths_that_their_own_analysis_gives(fabric: Fabric, monkeypatch):
    """Two narrow frames of full height stand for a wide one; lanes change nothing about it."""
    graph, size = edsr_graph(8, 2), (20, 160)
    cycles = size[0] * size[1] * 8 * 8 * 9 // 12
    direct = generate(graph, size, cycles, fabric=fabric)
    monkeypatch.setattr(fifos, "DIRECT_BEATS", 0)
    extended = generate(graph, size, cycles, fabric=fabric)
    assert extended.fifos.keys() == direct.fifos.keys()
    for name, depth in direct.fifos.items():
        assert depth <= extended.fifos[name] <= 1.02 * depth + 16, name
    assert abs(extended.latency - direct.latency) <= 0.01 * direct.latency


def test_the_lanes_of_a_deep_image_are_the_same_in_the_narrow_frames(monkeypatch):
    """An image of more channels than cross a border at once, read by a convolution and by a skip."""
    build = GraphBuilder(12)
    acc = build.conv("image", np.ones((12, 12, 3, 3)), np.zeros(12), "conv")
    one = build.requant(acc, np.array([1]), np.array([4]), 8, True, "act")
    graph, size = build.finish(build.add(one, "image", "skip"), "deep image"), (20, 160)
    cycles = size[0] * size[1] * 9
    direct = generate(graph, size, cycles)
    seen: set[int] = set()
    monkeypatch.setattr(fifos, "DIRECT_BEATS", 0)
    whole = fifos.steady

    def steady(netlist: Netlist, period: int) -> Schedule:
        seen.add(netlist.input.lanes)
        return whole(netlist, period)

    monkeypatch.setattr(fifos, "steady", steady)
    extended = generate(graph, size, cycles)
    assert seen == {direct.input.lanes} == {extended.input.lanes}
    assert extended.fifos.keys() == direct.fifos.keys()
    for name, depth in direct.fifos.items():
        assert depth <= extended.fifos[name] <= 1.02 * depth + 16, name
