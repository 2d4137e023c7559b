"""FINN's units in the search: the same cycles and sums as the estimate of the folded FINN graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.finn.build import build_finn, cost_of
from srq_hw.backends.finn.choose import Wish, choose
from srq_hw.backends.finn.prepare import prepare
from srq_hw.backends.rtl.costs import Cost
from srq_hw.backends.rtl.folding import Folding
from srq_hw.backends.rtl.netlist import Fabric
from srq_hw.backends.search.finn_library import finn_library
from srq_hw.backends.search.library import Library, srq_library
from srq_hw.backends.search.problem import make_problem
from srq_hw.backends.search.search import Search
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph
from srq_hw.target import Resources, load_target
from srq_hw.tools import find_tool

SIZE = (16, 12)
needs_finn = pytest.mark.skipif(not find_tool("finn").usable, reason="FINN+ is not installed")


def device() -> Resources:
    found = load_target("zcu104").resources
    assert found is not None
    return found


def mixed() -> IntGraph:
    """FINN's units beside ours: a grouped convolution, 1x1 and 5x3 kernels, a concat, the image read twice."""
    rng = np.random.default_rng(5)
    build = GraphBuilder(4)

    def conv(source: str, out: int, name: str, kernel: tuple[int, int] = (3, 3), groups: int = 1) -> str:
        inside = build.tensors[source].channels // groups
        acc = build.conv(source, rng.integers(-90, 91, (out, inside, *kernel)), rng.integers(-9, 9, out), name, groups)
        return build.requant(acc, np.full(1, 77), np.full(1, 14), 8, True, f"{name}_q")

    head = conv("image", 8, "head", (5, 3))
    side = conv("image", 8, "side", (1, 1))
    both = build.add_node(Node("Concat", "both", (head, side), "both"), 16, 8, True, 1)
    return build.finish(conv(conv(both, 16, "grouped", groups=4), 6, "last"), "mixed")


NETWORKS = {"edsr": lambda: edsr_graph(16, 1, mean_shift=True), "mixed": mixed}


@pytest.mark.finn
@needs_finn
@pytest.mark.parametrize(("network", "fps"), [("edsr", 3000.0), ("edsr", 20_000.0), ("mixed", 9000.0)])
def test_sums_are_those_of_the_folded_finn_graph(network: str, fps: float, tmp_path: Path) -> None:
    """All but FIFOs, which both have by rules of their own, and constants of our units, whose equal bits share LUTs."""
    graph = NETWORKS[network]()
    result = build_finn(graph, load_target("zcu104"), SIZE, fps, tmp_path / "finn", codegen=False)
    assert result.estimate is not None
    chosen = choose(Wish(graph, SIZE, device(), fps), prepare(graph), "finn")
    assert result.estimate.cycles_per_frame == chosen.point.folding.cycles
    fifos = [item for item in result.estimate.corrections if item.why.startswith("FIFOs")]
    held = {item.resource: item.ours for item in fifos}
    theirs = cost_of(result.estimate)
    found, rule = chosen.point.cost, chosen.search.problem.fifos
    without = Cost(
        found.lut - rule.lut, found.ff - rule.ff, found.dsp, found.bram18 - rule.bram18, found.uram - rule.uram
    )  # fmt: skip
    assert without.dsp == theirs.dsp
    assert without.bram18 == theirs.bram18 - held.get("BRAM_18K", 0)
    assert without.uram == theirs.uram - held.get("URAM", 0)
    lut = theirs.lut - held.get("LUT", 0)
    assert 0 <= without.lut - lut <= 0.02 * lut and 0 <= without.ff - theirs.ff <= 0.02 * theirs.ff
    if network == "edsr":  # no unit of ours holds constants that differ
        assert (without.lut, without.ff) == (lut, theirs.ff)


def test_every_folding_has_memories_and_finn_s_cycles() -> None:
    graph = prepare(edsr_graph(16, 1)).graph
    library = finn_library(device())
    search = Search.ready(graph, SIZE, device(), library)
    for variable in search.problem.variables[1:]:
        node = next(node for node in graph.nodes if node.name == variable.name)
        for lanes in variable.options:
            kinds = {kind for kind, _, _ in lanes.memories}
            if not library.is_finn(graph, node):
                assert kinds == set()
            elif node.op == "Conv":
                assert kinds == {"MVAU", "ConvolutionInputGenerator"}
                image = graph.tensors[node.inputs[0]]
                height, width = (side * image.upscale for side in SIZE)
                folds, (pe, simd) = image.channels // lanes.inputs[0], lanes.core
                padding = (height + 2) * (width + 2) * folds
                window = (2 * (width + 2) + 3 + height * width * 9) * folds
                matrix = height * width * (9 * image.channels // simd) * (node.params["weight"].shape[0] // pe)
                assert lanes.cycles == max(padding, window, matrix)
            else:
                assert kinds == {"Thresholding"}


def test_a_matrix_unit_takes_several_taps_at_once() -> None:
    """Lanes of the window that keep pace and divide SIMD, so that the converter gathers; else the fewest that do."""
    graph = prepare(edsr_graph(16, 1)).graph
    search = Search.ready(graph, SIZE, device(), finn_library(device()))
    variable = next(v for v in search.problem.variables if v.name == "block0_conv1")

    def windows(pe: int, simd: int) -> set[int]:
        return {lanes.inputs[0] for lanes in variable.options if lanes.core == (pe, simd)}

    assert windows(1, 48) == {4, 8, 16}  # 2 lanes: 14,072 cycles, the matrix unit 9,216
    assert windows(4, 36) == {16}
    values = 9 * 16
    assert all(values % lanes.core[1] == 0 and 16 % lanes.inputs[0] == 0 for lanes in variable.options)
    assert all(lanes.core[1] == lanes.inputs[0] for lanes in variable.options if 16 % lanes.core[1] == 0)


def test_scarce_memory_is_spared() -> None:
    graph = prepare(edsr_graph(32, 2)).graph

    def blocks(resources: Resources) -> float:
        return Search.ready(graph, SIZE, resources, finn_library(resources)).at(3000.0).used["bram36"]

    plenty = device()
    assert blocks(plenty.model_copy(update={"bram36": 20})) < blocks(plenty.model_copy(update={"lut": 40_000}))


def test_no_device_without_ultraram_gets_one() -> None:
    board = load_target("pynq-z2").resources
    assert board is not None and board.uram == 0
    graph = prepare(edsr_graph(16, 1), "finn", board.dsp.kind).graph
    search = Search.ready(graph, (64, 64), board, finn_library(board))
    assert all(not v.costs[:, 4].any() for v in search.problem.variables)


def test_no_weights_are_written_at_run_time() -> None:
    """A FINN design has no stream for them, neither FINN's units nor ours beside them: here a grouped convolution."""
    rng = np.random.default_rng(5)
    build = GraphBuilder(16)
    name = build.conv("image", rng.integers(-90, 91, (64, 16, 3, 3)), np.zeros(64), "plain")
    name = build.requant(name, np.full(1, 77), np.full(1, 14), 8, True, "plain_q")
    name = build.conv(name, rng.integers(-90, 91, (64, 32, 3, 3)), np.zeros(64), "grouped", 2)
    graph = prepare(build.finish(build.requant(name, np.full(1, 77), np.full(1, 14), 8, True, "last"), "two")).graph
    fabric = Fabric(ultra=True)

    def written(library: Library) -> set[str]:
        variables = make_problem(graph, SIZE, fabric, library, loads=True).variables
        return {v.name for v in variables if any(lanes.weights for lanes in v.options)}

    library = finn_library(device())
    assert [node.name for node in graph.nodes if not library.is_finn(graph, node)] == ["grouped"]
    assert written(srq_library()) == {"plain", "grouped"} and written(library) == set()
    assert Search.ready(graph, SIZE, device(), library).loading is None


def test_given_lanes_stay_and_their_memories_are_chosen() -> None:
    graph = prepare(edsr_graph(16, 1)).graph
    search = Search.ready(graph, SIZE, device(), finn_library(device()))
    slow, fast = search.at(2000.0), search.at(9000.0)
    bare = Folding(fast.folding.wanted, {n: replace(lanes, memories=()) for n, lanes in fast.folding.nodes.items()})
    again = search.with_lanes(bare)
    assert all(again.folding.nodes[n].same_streams(lanes) for n, lanes in fast.folding.nodes.items())
    assert again.score <= search.point(bare).score and again.score == pytest.approx(fast.score, rel=0.02)
    assert search.point(slow.folding).cost == slow.cost


def test_who_computes_a_node_is_what_placement_says() -> None:
    graph = prepare(mixed()).graph
    library = finn_library(device())
    assert [node.name for node in graph.nodes if not library.is_finn(graph, node)] == ["both", "grouped"]
