"""The comparison of foldings: rates at equal resources, and the table that keeps what was not run again."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.bench_folding import HEAD, Gain, by_rule, fewest_cycles, gains, line, matrix_goals, table
from srq_hw.backends.finn.prepare import prepare
from srq_hw.backends.search.finn_library import finn_library
from srq_hw.backends.search.search import Search
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.target import load_target


@pytest.fixture(scope="module")
def search() -> Search:
    resources = load_target("zcu104").resources
    assert resources is not None
    return Search.ready(prepare(edsr_graph(8, 1)).graph, (16, 12), resources, finn_library(resources))


def test_rates_follow_the_room(search: Search) -> None:
    problem = search.problem
    plenty, nothing = np.full(5, 1e9), np.full(5, 1.0)
    assert fewest_cycles(problem, plenty) == problem.fastest
    assert fewest_cycles(problem, nothing) is None
    some = np.array([12_000, 1e9, 60, 40, 4])
    cycles = fewest_cycles(problem, some)
    assert cycles is not None and problem.fastest < cycles < problem.slowest


def test_a_design_fits_what_it_takes_and_no_less(search: Search) -> None:
    design = min(by_rule(search.problem), key=lambda made: made.cycles)
    assert design.cycles == search.problem.fastest
    assert all(len({option.output for option in variable.options}) == 1 for variable in design.memories.variables[1:])
    costs = [variable.costs.min(0) for variable in design.memories.variables]
    least = design.memories.fixed + sum(costs)
    assert design.fits(np.full(5, 1e9))
    for index in np.flatnonzero(least):
        short = np.full(5, 1e9)
        short[index] = least[index] - 1
        assert not design.fits(short)


def test_the_search_is_never_behind_the_rule(search: Search) -> None:
    (found,) = gains(search, {"rule": by_rule(search.problem)}, "edsr", 8)
    assert found.ratios and min(found.ratios) >= 1 and found.searched >= len(found.ratios)


def test_goals_of_matrix_units_are_those_of_every_simd(search: Search) -> None:
    pixels = 16 * 12
    assert {pixels * 72 * 8, pixels * 8, pixels, pixels * 8 * 8} <= matrix_goals(search.problem)


def test_means_are_geometric_and_what_does_not_fit_counts() -> None:
    assert Gain("n", 8, "rule", (1.0, 4.0), 2).mean == pytest.approx(2)
    assert Gain("n", 8, "rule", (0.0, 4.0), 1).mean == 0
    assert line(Gain("n", 8, "rule", (), 3)) == "| n | 8 | rule | 3 | 0 | – | – | – |"


def test_a_table_keeps_the_rows_that_were_not_run() -> None:
    old = table(
        ["| idn_y_x2 | 8 | rule | 1 | 1 | 1.00 | 1.00 | 1.00 |", "| idn_y_x2 | 4 | rule | 1 | a | b | c | d |"], ""
    )
    new = table(
        ["| idn_y_x2 | 8 | rule | 2 | 2 | 2.00 | 2.00 | 2.00 |", "| edsr8_64_x2 | 8 | rule | x | x | x | x | x |"], old
    )
    assert new.splitlines() == [
        HEAD,
        "|---|---|---|---|---|---|---|---|",
        "| idn_y_x2 | 8 | rule | 2 | 2 | 2.00 | 2.00 | 2.00 |",
        "| idn_y_x2 | 4 | rule | 1 | a | b | c | d |",
        "| edsr8_64_x2 | 8 | rule | x | x | x | x | x |",
    ]
