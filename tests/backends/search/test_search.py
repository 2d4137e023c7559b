"""The search against brute force, its bound, the rule of rtl.folding; curves; the design that comes out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from srq_hw.backends.finn.choose import Wish, search_of
from srq_hw.backends.rtl.arrange import arrange
from srq_hw.backends.rtl.costs import Cost
from srq_hw.backends.rtl.fit import fit
from srq_hw.backends.rtl.folding import Goal, fold
from srq_hw.backends.rtl.generate import generate
from srq_hw.backends.rtl.netlist import Fabric, Instance
from srq_hw.backends.search.eliminate import cheapest, elimination_order
from srq_hw.backends.search.library import srq_library
from srq_hw.backends.search.problem import Problem, make_problem
from srq_hw.backends.search.search import BOARD, CURVE_MOST, Search
from srq_hw.backends.search.solve import score_of, solve
from srq_hw.errors import InputError
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph
from srq_hw.target import Dsp, Resources, load_target

SIZE = (12, 10)
ROOM = np.array([4000.0, 8000.0, 60.0, 40.0, 0.5])


@pytest.fixture(scope="module")
def board() -> Resources:
    found = load_target("zcu104-rtl").resources
    assert found is not None
    return found


def small_graph(seed: int) -> IntGraph:
    """Two convolutions and a skip, few channels; kernels and channels by the seed."""
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([4, 6]))
    build = GraphBuilder(2)

    def conv(source: str, name: str) -> str:
        inside, kernel = build.tensors[source].channels, int(rng.choice([1, 3]))
        acc = build.conv(source, rng.integers(-99, 99, (channels, inside, kernel, kernel)), np.zeros(channels), name)
        return build.requant(acc, np.full(1, 77), np.full(1, 12), 8, True, f"{name}_q")

    first = conv("image", "first")
    return build.finish(build.add(first, conv(first, "second"), "sum"), f"small{seed}")


def exhaustive(problem: Problem, goal: int, room: np.ndarray) -> float:
    """The lowest score of all choices in time whose largest share is not above that of the rule."""
    limit = (problem.amounts(problem.ruled(goal)) / room).max() + 1e-12
    lists = [[i for i, c in enumerate(v.cycles) if c <= goal] for v in problem.variables[1:]]
    best = np.inf
    for picks in itertools.product(*lists):
        shares = problem.amounts([problem.entry(problem.cycles((0, *picks))), *picks]) / room
        if shares.max() <= limit:
            best = min(best, score_of(shares))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_of_all_choices_of_a_small_graph_the_best_is_found(seed: int):
    problem = make_problem(arrange(small_graph(seed)), SIZE, Fabric(), srq_library())
    for goal in (problem.fastest, 1200, 6000):
        goal = max(goal, problem.fastest)
        found = solve(problem, goal, ROOM)
        assert found.score == exhaustive(problem, goal, ROOM)
        assert found.bound <= found.score + 1e-9 and problem.cycles(found.picks) <= goal


def test_a_search_does_not_end_above_a_choice_that_is_known(board: Resources):
    """With more options the prices lead elsewhere; a solution with fewer of them is where a descent may begin."""
    graph = arrange(edsr_graph(16, 2))
    few, more = (make_problem(graph, (45, 80), Fabric(ultra=True), srq_library(), loads) for loads in (False, True))
    room = np.array([60_000.0, 90_000.0, 200.0, 20.0, 12.0])
    for goal in (400_000, 900_000, 4_000_000):
        known = solve(few, goal, room)
        begin = more.picks(few.folding(known.picks, goal))
        assert score_of(more.amounts(begin) / room) == known.score
        found = solve(more, goal, room, [begin])
        assert found.score <= known.score and found.bound <= found.score + 1e-9


def test_elimination_finds_the_least_sum_and_keeps_what_it_must(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    sizes = [3, 4, 2, 5, 3]
    links = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (1, 4)]
    own = [rng.random(n) for n in sizes]
    pairs = {(a, b): rng.random((sizes[a], sizes[b])) for a, b in links}

    def total(picks: tuple[int, ...]) -> float:
        return sum(c[p] for c, p in zip(own, picks, strict=True)) + sum(
            t[picks[a], picks[b]] for (a, b), t in pairs.items()
        )

    every = list(itertools.product(*map(range, sizes)))
    order = elimination_order(sizes, links)
    assert order.exact and tuple(cheapest(own, pairs, order, [0] * 5)) == min(every, key=total)
    monkeypatch.setattr("srq_hw.backends.search.eliminate.TABLE", 20)
    order = elimination_order(sizes, links)
    start = [1] * 5
    found = tuple(cheapest(own, pairs, order, start))
    allowed = [picks for picks in every if all(picks[node] == 1 for node in order.kept)]
    assert order.kept and found == min(allowed, key=total)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_rate_is_kept_with_no_more_of_the_fullest_resource_than_by_rule(board: Resources, bits: int):
    search = Search.of(edsr_graph(16, 2, weight_bits=bits, act_bits=bits), (90, 160), board)
    better = 0
    for fps in (1, 10, 30, 60, 90, 120):
        point = search.at(fps)
        rule = search.point(fold(search.problem.graph, Goal((90, 160), int(2e8 / fps), search.problem.fabric)))
        assert point.fps >= fps and max(point.shares.values()) <= max(rule.shares.values())
        assert point.score <= rule.score and point.bound <= point.score + 1e-9 < 1.1 * point.bound
        better += point.score < rule.score
    assert better >= 3


@pytest.fixture(scope="module")
def tight(board: Resources) -> Resources:
    """A device with UltraRAM to spare, little block RAM, and too few multipliers for words of weights that fit LUTs."""
    return board.model_copy(update={"bram36": 30, "uram": 40, "dsp": Dsp(kind="DSP48E2", count=150)})


def test_weights_are_written_only_where_nothing_fits_without(tight: Resources):
    graph, size = edsr_graph(32, 2), (45, 80)
    search = Search.of(graph, size, tight)
    slow, fast = search.at(20.0), search.at(60.0)
    assert slow.fits and not slow.loaded
    assert fast.fits and fast.loaded and fast.fps >= 60
    bare = search._own(fast.folding.wanted)
    assert not bare.fits and not bare.loaded and "bram36" in bare.short
    assert search.point(fast.folding).cost == fast.cost and search.with_lanes(fast.folding).cost == fast.cost
    design = generate(graph, size, fast.folding.wanted, fabric=search.problem.fabric, folding=fast.folding)
    units = {node: [entry["module"] for entry in made] for node, made in design.map["nodes"].items()}
    assert {node for node, modules in units.items() if "srq_conv_load" in modules} == set(fast.loaded)


def test_the_highest_rate_is_reached_with_weights_in_ultraram(tight: Resources):
    search = Search.of(edsr_graph(32, 2), (45, 80), tight)
    found = search.highest()
    assert found.fits and found.loaded
    goals = search.problem.goals
    bare = search._own(goals[search._highest(goals)])
    assert bare.fits and not bare.loaded and bare.fps < found.fps
    assert search.highest(bare.fps) == bare


def test_no_weights_are_written_in_finn_designs_and_where_they_are_fixed(tight: Resources):
    graph, size = edsr_graph(32, 2), (45, 80)
    for search in (Search.of(graph, size, tight, loads=False), search_of(Wish(graph, size, tight, 60.0), "srq")):
        assert not search.at(60.0).fits and not search.highest().loaded
    free, fixed = fit(graph, size, tight), fit(graph, size, tight, loads=False)
    assert free.design.weights is not None and fixed.design.weights is None
    assert not free.short and fixed.fps < free.fps


def test_no_weights_are_written_without_ultraram_or_without_need(board: Resources):
    graph = edsr_graph(32, 2)
    few = Dsp(kind="DSP48E2", count=60)
    for lacking in ({"bram36": 30, "uram": 0, "dsp": few}, {"dsp": few}):
        search = Search.of(graph, (45, 80), board.model_copy(update=lacking))
        points = [search.at(60.0), search.highest(), *search.curve(8)]
        assert not points[0].fits and not any(point.loaded for point in points)
    roomy = Search.of(graph, (45, 80), board)
    assert not roomy.highest(60.0).loaded and not roomy.at(60.0).loaded


def test_the_highest_rate_fills_the_device_and_the_next_one_does_not_fit(board: Resources):
    small = board.model_copy(update={"dsp": Dsp(kind="DSP48E2", count=100)})
    search = Search.of(edsr_graph(16, 2), (90, 160), small)
    point = search.highest()
    goals = search.problem.goals
    faster = goals[goals.index(point.folding.wanted) - 1]
    assert point.fits and not search.at(2e8 / faster * 1.0000001).fits
    assert search.highest(30.0).fps >= 30 and search.highest(30.0).score < point.score
    lacking = Search.of(edsr_graph(16, 2), (90, 160), board.model_copy(update={"bram36": 2, "uram": 0})).highest()
    assert not lacking.fits and set(lacking.short) == {"bram36"} and lacking.fullest == "bram36"


def test_a_rate_beyond_every_form_gives_the_roof_and_names_the_node(board: Resources):
    point = Search.of(edsr_graph(16, 1), (24, 32), board).at(1e6)
    assert point.roof and point.bottleneck == "last" and point.folding.cycles == 9 * 4 * 24 * 32
    slow = Search.of(edsr_graph(16, 1), (24, 32), board).at(1.0)
    assert not slow.roof and slow.folding.nodes[slow.bottleneck].cycles == slow.folding.cycles


def test_a_faster_design_on_the_curve_always_costs_more(board: Resources):
    search = Search.of(edsr_graph(16, 2), (90, 160), board)
    curve = search.curve(12)
    assert 4 <= len(curve) <= 12 and all(set(point.shares) == set(BOARD) for point in curve)
    for slow, fast in itertools.pairwise(curve):
        assert slow.fps < fast.fps and slow.score < fast.score
    assert curve[-1].folding.cycles == search.problem.fastest or curve[-1].score > CURVE_MOST
    tiny = Search.of(edsr_graph(16, 2), (90, 160), board.model_copy(update={"lut": 9000})).curve(12)
    assert tiny[-1].score > CURVE_MOST > tiny[-2].score and tiny[0].fits
    for point in curve:
        assert search.point(point.folding).cost == point.cost


def test_the_same_question_has_the_same_answer(board: Resources):
    graph = edsr_graph(16, 2)
    first, second = (Search.of(graph, (90, 160), board) for _ in range(2))
    second.curve()  # what was asked before changes nothing
    assert first.at(50) == second.at(50) and first.highest() == second.highest()


def test_bits_of_weights_per_cycle(board: Resources):
    build = GraphBuilder(8)
    weight = np.random.default_rng(0).integers(-127, 128, (8, 1, 3, 3))
    name = build.conv("image", weight, np.zeros(8), "deep", groups=8)
    point = Search.of(build.finish(name, "deep"), SIZE, board).at(1e9)
    assert point.weight_bits == 8 * 8  # a lane has one weight
    full = Search.of(edsr_graph(8, 0), SIZE, board).at(1e9).folding
    found = Search.of(edsr_graph(8, 0), SIZE, board).at(1e9).weight_bits
    assert found == sum(8 * pe * simd for pe, simd in (lanes.core for lanes in full.nodes.values()))


def test_other_prices_lead_to_another_folding(board: Resources):
    """A library is a parameter: with multipliers for nothing, as many are taken as save a memory."""

    def free(instance: Instance) -> Cost:
        found = srq_library().price(instance)
        return Cost(0, 0, 0, found.bram18, found.uram)

    graph = edsr_graph(32, 2)
    usual = Search.of(graph, (90, 160), board).at(5.0)
    other = Search.of(graph, (90, 160), board, srq_library(free)).at(5.0)
    assert other.used["bram36"] <= usual.used["bram36"] and other.folding != usual.folding
    assert other.used["lut"] == 0


def test_what_the_units_cannot_do_is_refused_by_name(board: Resources):
    build = GraphBuilder(3)
    with pytest.raises(InputError, match="no node lies between"):
        Search.of(build.finish("image", "nothing"), SIZE, board)


def test_the_generator_takes_the_folding_and_finds_its_cycles(board: Resources):
    graph = edsr_graph(8, 1)
    search = Search.of(graph, SIZE, board)
    point = search.at(8000.0)
    design = generate(graph, SIZE, point.folding.wanted, fabric=search.problem.fabric, folding=point.folding)
    assert design.cycles == point.folding.cycles and design.folding == point.folding
