"""Designs whose weights are written at run time: equal, also after a reset; a set of the wrong length raises a flag."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl.arrange import arrange
from srq_hw.backends.rtl.folding import Goal, fold
from srq_hw.backends.rtl.generate import WEIGHTS_FILE, RtlDesign, generate
from srq_hw.backends.rtl.netlist import LOAD_BITS
from srq_hw.backends.rtl.oracle import compile_design, simulate
from srq_hw.backends.rtl.verilate import Run, SimulationFailed, Simulator, Stalls
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.simulate.reference import run as reference
from tests.backends.rtl.test_generate import every_op, frames

SIZE = (5, 4)
CYCLES = 800


def loaded(graph: IntGraph, cycles: int = CYCLES, size: tuple[int, int] = SIZE, inside: str = "") -> RtlDesign:
    """The design with the weights of all convolutions but one in UltraRAM."""
    folding = fold(arrange(graph), Goal(size, cycles))
    written = {node.name for node in graph.nodes if node.op == "Conv"} - {inside}
    nodes = {name: replace(lanes, weights="ultra" if name in written else "") for name, lanes in folding.nodes.items()}
    return generate(graph, size, cycles, folding=replace(folding, nodes=nodes))


@pytest.fixture(scope="module")
def graph() -> IntGraph:
    return edsr_graph(4, 1, weight_bits=4, act_bits=4)


@pytest.fixture(scope="module")
def design(graph: IntGraph) -> RtlDesign:
    return loaded(graph)


@pytest.fixture(scope="module")
def simulator(design: RtlDesign, models: Path) -> Simulator:
    return compile_design(design, models, jobs=1)


def sent(
    simulator: Simulator, design: RtlDesign, images: Int, beats: Int, ends: tuple[int, ...], stalls: Stalls
) -> Run:
    """Run images with these beats of weights; ends: places of tlast among them."""
    pixels = images.reshape(-1, design.input.lanes)
    last = {"s": np.arange(1, len(pixels) + 1) % design.input.beats == 0, "w": np.isin(np.arange(len(beats)), ends)}
    wanted = {"m": len(images) * design.output.beats}
    return simulator.run({"s": pixels, "w": beats.reshape(-1, 1)}, wanted, stalls, last, cycles_max=200_000)


def test_equal_with_stalls_and_after_a_reset(graph: IntGraph, design: RtlDesign, models: Path):
    found = simulate(design, graph, frames(graph, SIZE), models, jobs=1)
    assert found.passed, found.first
    assert found.cycles_per_frame == design.cycles


@pytest.mark.parametrize("cycles", [6000, 1440])
def test_every_kind_of_convolution_takes_its_share(models: Path, cycles: int):
    graph = every_op()
    design = loaded(graph, cycles, (6, 5), inside="grouped")
    found = simulate(design, graph, frames(graph, (6, 5)), models, jobs=1)
    assert found.passed, found.first
    modules = [entry["module"] for entries in design.map["nodes"].values() for entry in entries]
    assert modules.count("srq_conv_load") == 5 and modules.count("srq_conv") == 2  # the other one is in the filter


def test_other_weights_need_no_other_model(graph: IntGraph, simulator: Simulator, design: RtlDesign):
    """The same design is sent the weights of another network."""
    turned = [
        replace(node, params={**node.params, "weight": node.params["weight"][..., ::-1].copy()})
        if node.op == "Conv"
        else node
        for node in graph.nodes
    ]
    other = graph.with_nodes(tuple(turned), dict(graph.tensors))
    beats = loaded(other).loads
    assert beats.shape == design.loads.shape and not np.array_equal(beats, design.loads)
    images = frames(graph, SIZE)
    run = sent(simulator, design, images, beats, (len(beats) - 1,), Stalls(20, 20, 5))
    assert np.array_equal(run.outputs["m"].ravel(), reference(other, images).ravel())
    assert run.flags == {"frame_error": 0, "weights_error": 0}


@pytest.mark.parametrize("stalls", [Stalls(), Stalls(in_=30, out=30, seed=2)], ids=["free", "stalls"])
def test_a_set_with_too_many_beats_loses_them(graph: IntGraph, simulator: Simulator, design: RtlDesign, stalls: Stalls):
    beats = np.concatenate([design.loads, [1, 2, 3]])
    images = frames(graph, SIZE, 2)
    run = sent(simulator, design, images, beats, (len(beats) - 1,), stalls)
    assert np.array_equal(run.outputs["m"].ravel(), reference(graph, images).ravel())
    assert run.flags == {"frame_error": 0, "weights_error": 1}


def test_a_set_cut_short_is_filled_with_zeros(graph: IntGraph, simulator: Simulator, design: RtlDesign):
    """The last unit of the chain has the beats that are missing: all of its weights are 0 then."""
    last = design.netlist.loaded[-1]
    beats = design.loads[: -len(last.loads)]
    nodes = tuple(
        replace(node, params={**node.params, "weight": 0 * node.params["weight"]}) if node.name == last.node else node
        for node in graph.nodes
    )
    without = graph.with_nodes(nodes, dict(graph.tensors))
    images = frames(graph, SIZE, 2)
    run = sent(simulator, design, images, beats, (len(beats) - 1,), Stalls())
    assert np.array_equal(run.outputs["m"].ravel(), reference(without, images).ravel())
    assert run.flags == {"frame_error": 0, "weights_error": 1}


def test_without_its_weights_a_design_waits(graph: IntGraph, simulator: Simulator, design: RtlDesign):
    with pytest.raises(SimulationFailed, match="output m: 0 of"):
        sent(simulator, design, frames(graph, SIZE, 2), design.loads[:-1], (), Stalls())


def test_what_is_written_says_what_is_sent(design: RtlDesign, tmp_path: Path):
    design.write(tmp_path)
    words = np.fromfile(tmp_path / WEIGHTS_FILE, "<u4").astype(np.int64)
    assert np.array_equal(words, design.loads)
    used = json.loads((tmp_path / "map.json").read_text())["nodes"]
    shares = [entry["load"] for entries in used.values() for entry in entries if "load" in entry]
    shares.sort(key=lambda share: share["first"])
    assert [share["first"] for share in shares] == list(np.cumsum([0, *(share["beats"] for share in shares)])[:-1])
    assert sum(share["beats"] for share in shares) == len(words)
    assert not any(path.name.endswith("weights.hex") for path in (tmp_path / "mem").iterdir())
    assert design.weights is not None and design.weights.tdata_bits == LOAD_BITS


def test_a_design_without_such_weights_has_no_stream_for_them(graph: IntGraph, tmp_path: Path):
    plain = generate(graph, SIZE, CYCLES)
    plain.write(tmp_path)
    assert (plain.weights, len(plain.loads), plain.flags) == (None, 0, ("frame_error",))
    assert not (tmp_path / WEIGHTS_FILE).exists()
    assert "w_tdata" not in plain.top and "weights_error" not in plain.top
