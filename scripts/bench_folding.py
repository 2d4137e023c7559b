"""Frames per second at equal resources: the folding search against our rule per node and FINN's own SetFolding.

    .venv/bin/python scripts/bench_folding.py [--networks edsr8_64_x2,idn_y_x2] [--bits 8,4] [--write]

Each network is quantized as `srq-hw estimate` does and folded for frames of SIZE on TARGET with FINN's units where they
are exact RTL and ours for the rest, three ways:

* search: `backends.search`
* rule: `rtl.folding.fold`, each node's cheapest form for a number of cycles
* SetFolding: finn.transformation.fpgadataflow.set_folding, run by FINN on the same FINN graph with its defaults; our
  units, which it leaves alone, have the lanes of the rule

All are counted with the same formulas, the FIFOs of skips by the search's rule. The memories of every way (weights,
windows, thresholds in LUTs or block RAM) are chosen by the search, which favours the other ways: FINN leaves them open.

A budget is a share of the board, the same of LUT, DSP, block RAM and UltraRAM. Within each budget every way has its
highest rate: the two others at the best of all numbers of cycles at which anything changes. The table has the ratio of
rates, search over the other way: geometric mean, least and largest over the budgets in which the other way fits at all.
--write replaces the rows of the networks that were run and keeps the others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import exp, inf, log
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python sees scripts/ only
from scripts.documents import put
from scripts.folding.set_folding import Design, designs
from scripts.prove_rtl import NETWORKS
from srq_hw.backends.finn.prepare import Prepared, prepare
from srq_hw.backends.rtl.folding import Folding, Lanes, conv_shape, divisors
from srq_hw.backends.search.finn_library import finn_library
from srq_hw.backends.search.problem import Problem, Reals, Variable
from srq_hw.backends.search.search import Search
from srq_hw.backends.search.solve import solve
from srq_hw.compare.cells import weights_file
from srq_hw.errors import SrqError
from srq_hw.estimate.sources import open_source
from srq_hw.target import Target, load_target

REPO = Path(__file__).resolve().parents[1]
DOCUMENT = REPO / "docs" / "folding.md"
BEGIN, END = "<!-- table: scripts/bench_folding.py -->", "<!-- end of table -->"
TARGET = "zcu104"
SIZE = (64, 64)
HEAD = "| network | bits | against | budgets: search fits | both fit | mean | least | largest |"
#: budgets, shares of the board
BUDGETS = tuple(n / 10 for n in range(1, 11))
#: flip-flops are no limit: there are two beside each LUT
UNLIMITED = 1e12


@dataclass(frozen=True)
class Gain:
    """Ratios of rates, one per budget in which the other way fits; searched: budgets in which the search does."""

    network: str
    bits: int
    way: str
    ratios: tuple[float, ...]
    searched: int

    @property
    def mean(self) -> float:
        """Geometric; of one ratio or more. 0 where the search does not fit and the other way does."""
        return exp(sum(map(log, self.ratios)) / len(self.ratios)) if all(self.ratios) else 0.0


@dataclass(frozen=True, eq=False)
class Made:
    """A design of another way: cycles per frame, and its memories as a problem of their own."""

    cycles: int
    memories: Problem

    def fits(self, room: Reals) -> bool:
        """Whether the best choice of memories is within this much of everything."""
        least = self.memories.fixed + sum(v.costs.min(0) for v in self.memories.variables)
        if (least > room).any():  # each node in its smallest memory, of every resource apart
            return False
        return bool((np.array(solve(self.memories, self.cycles, room).amounts) <= room).all())


def by_rule(problem: Problem) -> list[Made]:
    """Our own rule, node by node."""
    found = []
    for goal in problem.goals:
        ruled = problem.folding(problem.ruled(goal), goal)
        kept = problem.only(Folding(goal, {name: replace(lanes, memories=()) for name, lanes in ruled.nodes.items()}))
        found.append(Made(kept.fastest, kept))
    return found


def by_set_folding(problem: Problem, prepared: Prepared, target: Target) -> list[Made]:
    """FINN's rule, at the goals of its own matrix units as well."""
    goals = sorted({*problem.goals, *matrix_goals(problem)})
    goals = [goal for goal in goals if problem.goals[0] <= goal <= problem.goals[-1]]
    ours = [problem.folding(problem.ruled(goal), goal) for goal in goals]
    found = designs(prepared, problem.size, target, goals, ours)
    return [Made(item.cycles, _as_problem(problem, item)) for item in found]


def matrix_goals(problem: Problem) -> set[int]:
    """Cycles of every matrix unit at every PE and SIMD that FINN may give it."""
    found = set()
    for node in problem.graph.nodes:
        if node.op == "Conv":
            shape = conv_shape(problem.graph, node, problem.size)
            rows, columns = shape.taps * shape.inside // shape.groups, shape.out
            found |= {shape.pixels * a * b for a in divisors(rows) for b in divisors(columns)}
    return found


def _as_problem(problem: Problem, design: Design) -> Problem:
    """The nodes of a design, each with one option per memory, nothing else to choose."""
    variables = [Variable("", (Lanes((), 1, 1),), np.ones(1, np.int64), np.zeros((1, 5), np.int64))]
    for index, costs in enumerate(design.nodes):
        options = tuple(Lanes((), 1, design.cycles, memories=(("", "", number),)) for number in range(len(costs)))
        cycles = np.full(len(costs), design.cycles, np.int64)
        variables.append(Variable(str(index), options, cycles, np.array(costs, np.int64)))
    given = Folding(design.cycles, {v.name: replace(v.options[0], memories=()) for v in variables[1:]})
    return replace(problem, variables=tuple(variables), edges=(), given=given)


def gains(search: Search, ways: Mapping[str, list[Made]], network: str, bits: int) -> list[Gain]:
    """Every other way of folding against the search."""
    r = search.resources
    has = np.array([r.lut, UNLIMITED, r.dsp.count, 2 * r.bram36, max(r.uram, 0.5)])
    found = []
    fewest = searched(search.problem, has)
    for name, made in ways.items():
        ratios = []
        left = sorted(made, key=_cycles)
        for budget in sorted(BUDGETS, reverse=True):  # what does not fit will not fit a smaller one
            while left and not left[0].fits(budget * has):
                left.pop(0)
            if left:
                ratios.append(left[0].cycles / fewest.get(budget, inf))
        found.append(Gain(network, bits, name, tuple(ratios), len(fewest)))
    return found


def _cycles(design: Made) -> int:
    return design.cycles


def fewest_cycles(problem: Problem, room: Reals, least: int = 0) -> int | None:
    """Cycles of the fastest design that the search finds in this much of everything; None where there is none.

    least: cycles that are known to be needed.
    """
    goals = [goal for goal in problem.goals if goal >= least]
    best, first, last = None, 0, len(goals) - 1
    while first <= last:
        middle = (first + last) // 2
        picks = solve(problem, goals[middle], room).picks
        if (problem.amounts(picks) <= room).all():
            best, last = problem.cycles(picks), middle - 1
        else:
            first = middle + 1
    return best


def searched(problem: Problem, has: Reals) -> dict[float, int]:
    """Cycles of the search in every budget in which it fits, the largest first: a smaller one allows no more."""
    found: dict[float, int] = {}
    least = 0
    for budget in sorted(BUDGETS, reverse=True):
        fewest = fewest_cycles(problem, budget * has, least)
        if fewest is None:
            break
        found[budget] = least = fewest
    return found


def line(row: Gain) -> str:
    """A row of the table."""
    figures = "– | – | –"
    if row.ratios:
        figures = f"{row.mean:.2f} | {min(row.ratios):.2f} | {max(row.ratios):.2f}"
    return f"| {row.network} | {row.bits} | {row.way} | {row.searched} | {len(row.ratios)} | {figures} |"


def table(lines: Iterable[str], before: str) -> str:
    """In markdown, with the rows of a former one that are not made anew."""
    rows = {key_of(text): text for text in (*before.splitlines(), *lines) if text.startswith("| ")}
    order = [(network, bits) for network in NETWORKS for bits in ("8", "4")]
    rows.pop(key_of(HEAD), None)
    kept = sorted(rows, key=lambda key: (order.index(key[:2]) if key[:2] in order else len(order), key))
    return "\n".join([HEAD, "|---" * 8 + "|", *(rows[key] for key in kept)])


def key_of(text: str) -> tuple[str, str, str]:
    """Network, bits and way of a row."""
    _, network, bits, way, *_ = (cell.strip() for cell in text.split("|"))
    return network, bits, way


def main(arguments: list[str]) -> int:
    """Run what is asked for; print, or with --write put the table into docs/folding.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPO.parent / "shared" / "data")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--bits", default="8,4")
    parser.add_argument("--write", action="store_true", help="put the rows into the table of docs/folding.md")
    options = parser.parse_args(arguments)
    target = load_target(TARGET)
    assert target.resources is not None
    rows: list[str] = []
    failed = False
    for network in options.networks.split(","):
        try:
            source = open_source(network, weights_file(network, options.data / "weights"), None)
            for bits in map(int, options.bits.split(",")):
                prepared = prepare(source.graph(target, bits), "finn", target.resources.dsp.kind)
                library = finn_library(target.resources)
                search = Search.ready(prepared.graph, SIZE, target.resources, library)
                others = by_set_folding(search.problem, prepared, target)
                found = gains(search, {"rule": by_rule(search.problem), "SetFolding": others}, network, bits)
                rows += map(line, found)
                print("\n".join(rows[-len(found) :]), flush=True)
        except SrqError as error:
            print(f"{network}: {error}", file=sys.stderr)
            failed = True
    if options.write:
        kept = DOCUMENT.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
        put(DOCUMENT, BEGIN, END, table(rows, kept))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
