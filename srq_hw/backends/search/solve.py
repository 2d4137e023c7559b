"""Lanes for all nodes such that a frame takes at most so many cycles and the fullest resource is as empty as possible.

Resources get prices; at given prices the cheapest design is found by elimination, and the prices of what is fullest
rise. The best of these designs is then improved node by node and stream by stream. Prices also bound from below what
any choice can reach (Lagrange duality).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srq_hw.backends.search.eliminate import Order, Reals, cheapest, elimination_order
from srq_hw.backends.search.problem import Problem, Variable

#: weight of the sum of all shares beside the largest one: nothing is wasted where something else is full
SUM_WEIGHT = 0.05
#: rounds of prices, and how much they change in the first one
ROUNDS, PACE = 14, 1.6
#: passes of the descent over all nodes and streams; a pass that changes nothing ends it earlier
PASSES = 8
#: options of each node that are tried together with those of a node elsewhere
EXCHANGED = 5
#: designs that a descent starts from, the best of those that prices led to
STARTS = 4
#: convolutions with more than this multiple of the products that they need are not looked at
SPARE = 8


@dataclass(frozen=True)
class Solution:
    """A choice for all variables of a problem, its cost int64 (5,), its score; bound: no choice scores less."""

    goal: int
    picks: tuple[int, ...]
    amounts: tuple[int, ...]
    score: float
    bound: float


class _Reduced:
    """What meets the goal, as shares of the room."""

    def __init__(self, problem: Problem, goal: int, room: Reals, begin: Sequence[Sequence[int]]) -> None:
        begin = [problem.ruled(goal), *([problem.entry(goal), *picks[1:]] for picks in begin)]
        self.kept = [[problem.entry(goal)]]
        for variable, *picks in list(zip(problem.variables, *begin, strict=True))[1:]:
            self.kept.append(_useful(variable, goal, picks))
        self.starts = [[kept.index(i) for kept, i in zip(self.kept, picks, strict=True)] for picks in begin]
        self.own = [v.costs[kept] / room for v, kept in zip(problem.variables, self.kept, strict=True)]
        self.pairs: dict[tuple[int, int], Reals] = {}
        self.fixed: Reals = problem.fixed / room
        for edge in problem.edges:
            table = edge.costs[np.ix_(self.kept[edge.source], self.kept[edge.reader])] / room
            key = (edge.source, edge.reader)
            self.pairs[key] = self.pairs[key] + table if key in self.pairs else table
        self.beside: list[list[tuple[int, bool]]] = [[] for _ in self.own]
        for a, b in self.pairs:
            self.beside[a].append((b, True))
            self.beside[b].append((a, False))
        self.order: Order = elimination_order([len(kept) for kept in self.kept], list(self.pairs))

    def shares(self, picks: Sequence[int]) -> Reals:
        total = self.fixed.copy()
        for own, pick in zip(self.own, picks, strict=True):
            total += own[pick]
        for (a, b), table in self.pairs.items():
            total += table[picks[a], picks[b]]
        return total

    def around(self, node: int, picks: list[int], without: int = -1) -> Reals:
        """Cost of each option of a node with its streams as the others stand, (n, 5)."""
        total = self.own[node].copy()
        for other, reads in self.beside[node]:
            if other != without:
                total += self.pairs[node, other][:, picks[other]] if reads else self.pairs[other, node][picks[other]]
        return total


def solve(problem: Problem, goal: int, room: Reals, begin: Sequence[Sequence[int]] = ()) -> Solution:
    """The best choice found for at most `goal` cycles (`problem.fastest` where that is more).

    room: (5,) what a design may take. The result's largest share is never above that of `rtl.folding.fold`. begin:
    choices in time that are known to be good; the result's score is not above theirs.
    """
    goal = max(goal, problem.fastest)
    reduced = _Reduced(problem, goal, room, begin)
    limit = float(reduced.shares(reduced.starts[0]).max()) + 1e-12
    prices: Reals = np.full(len(room), 1 / len(room))
    shares_of = {tuple(picks): reduced.shares(picks) for picks in reduced.starts}
    met = {picks: score_of(shares) for picks, shares in shares_of.items() if shares.max() <= limit}
    best, bound = list(_best_of(met)), 0.0
    for turn in range(ROUNDS):
        weights = prices + SUM_WEIGHT
        own = [costs @ weights for costs in reduced.own]
        pairs = {key: table @ weights for key, table in reduced.pairs.items()}
        picks = cheapest(own, pairs, reduced.order, best)
        shares = reduced.shares(picks)
        if reduced.order.exact:
            bound = max(bound, float(shares @ weights))
        if shares.max() <= limit:
            met[tuple(picks)] = score_of(shares)
            best = list(_best_of(met))
        steps = PACE / (1 + turn / 3) * (shares / max(shares.max(), 1e-12) - 1)
        prices = prices * np.exp(steps)
        prices /= prices.sum()
    starts = sorted(met, key=lambda picks: met[picks])[: STARTS + len(begin)]
    ends = [_descend(reduced, picks, limit) for picks in starts]
    best = min(ends, key=lambda picks: score_of(reduced.shares(picks)))
    found = [kept[pick] for kept, pick in zip(reduced.kept, best, strict=True)]
    found[0] = problem.entry(problem.cycles(found))
    amounts = problem.amounts(found)
    return Solution(goal, tuple(found), tuple(int(n) for n in amounts), score_of(amounts / room), bound)


def _best_of(met: Mapping[tuple[int, ...], float]) -> tuple[int, ...]:
    """Of choices with their scores; the first of several."""
    return min(met.items(), key=lambda item: item[1])[0]


def score_of(shares: Reals) -> float:
    """What is minimised: the largest share, and a little of all."""
    return round(float(shares.max() + SUM_WEIGHT * shares.sum()), 12)


def _useful(variable: Variable, goal: int, begin: Sequence[int]) -> list[int]:
    """Options in time, those of excessive speed and those that others beat left out; those to begin with always in."""
    in_time = variable.cycles <= goal
    slowest = int(variable.cycles[in_time].max())
    useful = variable.worth(in_time & (variable.cycles * SPARE >= slowest))
    useful[list(begin)] = True
    return [int(i) for i in np.flatnonzero(useful)]


def _descend(reduced: _Reduced, start: Sequence[int], limit: float) -> list[int]:
    """Better options for one node, then for two nodes of a stream at once, until none is."""
    picks = list(start)
    total = reduced.shares(picks)
    for _ in range(PASSES):
        before = list(picks)
        for node in range(len(picks)):
            own = reduced.around(node, picks)
            tried = total - own[picks[node]] + own
            chosen = _best(tried, picks[node], limit)
            if chosen != picks[node]:
                picks[node], total = chosen, tried[chosen]
        for (a, b), table in reduced.pairs.items():
            left, right = reduced.around(a, picks, b), reduced.around(b, picks, a)
            joint = left[:, None] + right[None] + table
            tried = (total - joint[picks[a], picks[b]] + joint).reshape(-1, joint.shape[-1])
            chosen = _best(tried, picks[a] * joint.shape[1] + picks[b], limit)
            if (chosen // joint.shape[1], chosen % joint.shape[1]) != (picks[a], picks[b]):
                picks[a], picks[b] = divmod(chosen, joint.shape[1])
                total = tried[chosen]
        if picks == before and not _exchange(reduced, picks, limit):
            break
        total = reduced.shares(picks)
    return picks


def _exchange(reduced: _Reduced, picks: list[int], limit: float) -> bool:
    """Change two nodes that share no stream, among the best few options of each; False where no such change helps."""
    total = reduced.shares(picks)
    nodes: list[int] = []
    options: list[int] = []
    changes: list[Reals] = []
    for node, pick in enumerate(picks):
        own = reduced.around(node, picks)
        change = own - own[pick]
        tried = total + change
        scores = tried.max(-1) + SUM_WEIGHT * tried.sum(-1)
        best = [int(i) for i in np.argsort(scores, kind="stable")[: EXCHANGED + 1] if i != pick]
        nodes += [node] * len(best)
        options += best
        changes += list(change[best])
    if not changes:
        return False
    delta, place = np.array(changes), np.array(nodes)
    tried = total + delta[:, None] + delta[None]
    largest = tried.max(-1)
    scores = np.where(largest <= limit, largest + SUM_WEIGHT * tried.sum(-1), np.inf)
    scores[place[:, None] == place[None]] = np.inf
    for a, b in reduced.pairs:
        scores[np.ix_(place == a, place == b)] = np.inf
        scores[np.ix_(place == b, place == a)] = np.inf
    first, second = divmod(int(scores.argmin()), len(nodes))
    if scores[first, second] >= total.max() + SUM_WEIGHT * total.sum() - 1e-12:
        return False
    picks[nodes[first]], picks[nodes[second]] = options[first], options[second]
    return True


def _best(tried: Reals, now: int, limit: float) -> int:
    """The row with the lowest score; the present one where none is better. tried: (n, 5) shares."""
    largest = tried.max(-1)
    scores = np.where(largest <= limit, largest + SUM_WEIGHT * tried.sum(-1), np.inf)
    best = int(scores.argmin())
    return best if scores[best] < scores[now] - 1e-12 else now
