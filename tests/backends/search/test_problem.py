"""The tables of a search say what the stitched design takes, converter by converter."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from srq_hw.backends.rtl.arrange import arrange
from srq_hw.backends.rtl.costs import Cost, cost, design_cost
from srq_hw.backends.rtl.folding import Folding, Goal, Lanes
from srq_hw.backends.rtl.generate import generate
from srq_hw.backends.rtl.netlist import Fabric
from srq_hw.backends.rtl.plan import Plan
from srq_hw.backends.rtl.stitch import stitch
from srq_hw.backends.search.library import instances, refolded, srq_library
from srq_hw.backends.search.options import node_lanes
from srq_hw.backends.search.problem import RESOURCES, Problem, Variable, make_problem
from srq_hw.backends.search.skips import delays, waiting
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph

SIZE = (12, 80)  # so wide that rows may be in UltraRAM
FABRIC = Fabric(ultra=True)


def zoo() -> IntGraph:
    """Every operation, odd kernels, groups, a tensor read three times, 6 channels at the entry."""
    rng = np.random.default_rng(3)
    build = GraphBuilder(6)
    shift = np.full(1, 9)

    def conv(source: str, out: int, name: str, kernel: int = 3, groups: int = 1) -> str:
        inside = build.tensors[source].channels // groups
        acc = build.conv(source, rng.integers(-9, 10, (out, inside, kernel, kernel)), rng.integers(-9, 9, out), name,
                         groups)  # fmt: skip
        return build.requant(acc, np.full(1, 77), shift, 8, True, f"{name}_q")

    def sliced(source: str, start: int, stop: int, name: str) -> str:
        t = build.tensors[source]
        node = Node("Slice", name, (source,), name, {"start": start, "stop": stop})
        return build.add_node(node, stop - start, t.bits, t.signed, t.upscale)

    shifted = build.offset("image", np.arange(6) - 100, 9, "offset")
    head = conv(shifted, 8, "head")
    wide = conv(head, 8, "depthwise", 3, 8)
    both = build.add_node(Node("Concat", "both", (head, wide), "both"), 16, 8, True, 1)
    one = conv(both, 8, "one", 1, 4)
    total = build.add(one, head, "total", (3, 4))
    body = build.requant(total, np.full(8, 33), np.full(8, 8), 4, False, "body")
    part = sliced(body, 4, 8, "part")
    up = build.depth_to_space(conv(body, 12, "up", 5), 2, "shuffle")
    near = build.add_node(
        Node("ResizeNearest", "near", (conv(part, 3, "thin", 1),), "near", {"factor": 2}), 3, 8, True, 2
    )
    end = build.add(up, near, "end")
    return build.finish(build.requant(end, np.full(1, 1), np.full(1, 1), 8, False, "last"), "zoo")


@pytest.fixture(scope="module", params=["zoo", "edsr", "edsr4"])
def problem(request: pytest.FixtureRequest) -> Problem:
    graphs = {
        "zoo": zoo,
        "edsr": lambda: edsr_graph(8, 1, mean_shift=True),
        "edsr4": lambda: edsr_graph(8, 1, weight_bits=4, act_bits=4, last_conv=False),
    }
    return make_problem(arrange(graphs[request.param]()), SIZE, FABRIC, srq_library(), loads=True)


def conv_graph(inside: int, out: int, kernel: int, bits: int = 8, groups: int = 1) -> IntGraph:
    """One convolution with weights of so many bits."""
    most = (1 << bits - 1) - 1
    weight = np.random.default_rng(1).integers(-most, most + 1, (out, inside // groups, kernel, kernel))
    build = GraphBuilder(inside)
    return build.finish(build.conv("image", weight, np.zeros(out), "conv", groups), "one")


def test_weights_that_fill_an_eighth_of_their_ultrarams_may_be_there():
    """294,912 bits, as an UltraRAM has: they fill one, and an eighth of the eight that words of 512 bits take."""
    graph = conv_graph(64, 64, 3)
    (node,) = graph.nodes
    found = node_lanes(graph, node, SIZE, Fabric(ultra=True), loads=True)
    written = {lanes.core for lanes in found if lanes.weights}
    assert written == {lanes.core for lanes in found if lanes.core[0] * lanes.core[1] <= 64}
    places = {(lanes.rows, lanes.weights) for lanes in found}
    assert places == {("", ""), ("ultra", ""), ("", "ultra"), ("ultra", "ultra")}
    plain = [lanes for lanes in found if not lanes.weights]
    assert plain == list(node_lanes(graph, node, SIZE, Fabric(ultra=True)))
    assert not any(lanes.weights for lanes in node_lanes(graph, node, SIZE, Fabric(), loads=True))
    cycles = [lanes.cycles for lanes in found]
    assert cycles == sorted(cycles, reverse=True) and len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("graph", "some"),
    [
        (conv_graph(64, 64, 1), False),  # 32,768 bits
        (conv_graph(64, 72, 1), True),  # 36,864
        (conv_graph(64, 72, 1, bits=7), False),
        (conv_graph(512, 512, 3, groups=512), True),  # depthwise: a lane has one weight
        (conv_graph(64, 64, 3, groups=8), True),
    ],
)
def test_a_layer_with_few_weights_has_none_in_ultraram(graph: IntGraph, some: bool):
    found = node_lanes(graph, graph.nodes[0], SIZE, Fabric(ultra=True), loads=True)
    assert any(lanes.weights for lanes in found) is some


def test_any_choice_costs_what_the_stitched_design_costs(problem: Problem):
    chance = random.Random(1)
    for _ in range(40):
        picks = [0] + [chance.randrange(len(v.options)) for v in problem.variables[1:]]
        cycles = problem.cycles(picks)
        picks[0] = problem.entry(cycles)
        folding = problem.folding(picks, cycles)
        netlist = stitch(problem.graph, Goal(SIZE, cycles, FABRIC), folding, "top")
        found = Cost(*(int(n) for n in problem.amounts(picks)))
        # Constants count as if all of them differed.
        bare = replace(netlist, instances=tuple(replace(i, memories={}) for i in netlist.instances))
        entry = bare.weights_entry  # stands once, wherever the weights are
        stitched = design_cost(bare) + problem.fifos
        assert found + (cost(entry) if entry else Cost()) == stitched
        assert problem.picks(folding) == picks and folding.cycles == cycles


def test_a_refolded_convolution_is_the_one_that_the_generator_makes(problem: Problem):
    graph = problem.graph
    plan = Plan.of(graph, Goal(SIZE, 1, FABRIC), Folding(1, {}), {node.name: node.name for node in graph.nodes})
    count = 0
    for node in graph.nodes:
        if node.op != "Conv":
            continue
        found = node_lanes(graph, node, SIZE, FABRIC, loads=True)
        (base,) = instances(plan, node, found[0])
        for lanes in found:
            (made,) = instances(plan, node, lanes)
            again = refolded(base, lanes)
            assert (again.module, again.parameters, again.ports) == (made.module, made.parameters, made.ports)
            count += 1
    assert count > 20


def test_a_refolded_convolution_is_the_one_with_written_weights():
    graph = arrange(conv_graph(64, 64, 3))
    plan = Plan.of(graph, Goal(SIZE, 1, FABRIC), Folding(1, {}), {"conv": "conv"})
    found = node_lanes(graph, graph.nodes[0], SIZE, FABRIC, loads=True)
    (base,) = instances(plan, graph.nodes[0], next(lanes for lanes in found if not lanes.weights))
    for lanes in [lanes for lanes in found if lanes.weights][::9]:
        (made,) = instances(plan, graph.nodes[0], lanes)
        again = refolded(base, lanes)
        assert made.module == "srq_conv_load" and made.loads
        assert (again.module, again.parameters, again.ports) == (made.module, made.parameters, made.ports)


def test_the_rule_for_fifos_holds_about_what_the_analysis_does():
    graph = edsr_graph(16, 2)
    design = generate(graph, (24, 20), 200_000, fabric=Fabric())
    held = sum(
        int(i.parameters["DEPTH"]) * int(i.parameters["BITS"])
        for i in design.netlist.instances
        if i.module == "srq_fifo"
    )
    ready = arrange(graph)
    rule = sum(values * ready.tensors[name].bits for name, values in waiting(ready, (24, 20)))
    assert 0.75 < rule / held < 1.25


def test_rows_that_a_branch_lies_behind():
    graph = edsr_graph(8, 1)
    late = delays(graph, 10**9)
    assert round(late["head"]) == 1 and round(late["tail"]) == 4 and round(late["up"]) == 5
    assert round(late["shuffle"]) == 6 and late["last"] == pytest.approx(6.5)
    assert [name for name, _ in waiting(graph, SIZE)] == ["head_q", "head_q"]


def test_lanes_that_no_unit_has_are_refused(problem: Problem):
    folding = problem.folding(problem.ruled(1000), 1000)
    name = problem.graph.nodes[0].name
    odd = replace(folding.nodes[name], output=999)
    with pytest.raises(ValueError):
        problem.picks(Folding(1000, {**folding.nodes, name: odd}))
    assert len(RESOURCES) == 5


def test_options_that_others_beat_are_left_out() -> None:
    """Of equal streams one that costs as much or less in everything beats another; other streams and times do not."""
    rng = np.random.default_rng(3)
    lanes = tuple(Lanes((int(a),), int(b), 1) for a, b in rng.integers(1, 3, (60, 2)))
    costs = rng.integers(0, 4, (60, 5)).astype(np.int64)
    variable = Variable("node", lanes, np.ones(60, np.int64), costs)
    for in_time in (np.ones(60, bool), rng.integers(0, 2, 60).astype(bool)):
        found = variable.worth(in_time)
        for i in range(60):
            rivals = [j for j in range(60) if j != i and in_time[j] and lanes[j].same_streams(lanes[i])]
            beaten = any((costs[j] <= costs[i]).all() and ((costs[j] < costs[i]).any() or j < i) for j in rivals)
            assert found[i] == (in_time[i] and not beaten)
        assert found.any() and found.sum() < in_time.sum()
