"""The cheapest joint choice of many nodes with costs of their own and costs of pairs, by eliminating one at a time.

Exact as long as no table of the nodes around an eliminated one grows above TABLE; then that node keeps its choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

#: entries of the largest table
TABLE = 200_000


@dataclass(frozen=True)
class Order:
    """Nodes in the order in which they go, each with those around it at that moment; kept: nodes that do not choose."""

    steps: tuple[tuple[int, tuple[int, ...]], ...]
    kept: frozenset[int]

    @property
    def exact(self) -> bool:
        """True where every node chooses."""
        return not self.kept


def elimination_order(sizes: Sequence[int], pairs: Sequence[tuple[int, int]]) -> Order:
    """Whichever leaves the smallest table goes first; the lowest number where several do."""
    around: dict[int, set[int]] = {node: set() for node in range(len(sizes))}
    for a, b in pairs:
        if a != b:
            around[a].add(b)
            around[b].add(a)
    steps: list[tuple[int, tuple[int, ...]]] = []
    kept: set[int] = set()
    while around:
        node = min(around, key=lambda n: (sizes[n] * prod(sizes[m] for m in around[n]), n))
        if sizes[node] * prod(sizes[m] for m in around[node]) > TABLE:
            node = max(around, key=lambda n: (len(around[n]), sizes[n], -n))
            kept.add(node)
        beside = around.pop(node)
        for other in beside:
            around[other].discard(node)
            if node not in kept:
                around[other] |= beside - {other}
        if node not in kept:
            steps.append((node, tuple(sorted(beside))))
    choosing = ((node, tuple(other for other in beside if other not in kept)) for node, beside in steps)
    return Order(tuple(choosing), frozenset(kept))


def cheapest(
    own: Sequence[Reals], pairs: Mapping[tuple[int, int], Reals], order: Order, picks: Sequence[int]
) -> list[int]:
    """The choice with the least sum. own: (n,) per node; pairs: (n, m) per two nodes; picks: of the nodes that keep."""
    factors: list[tuple[tuple[int, ...], Reals]] = [((node,), cost) for node, cost in enumerate(own)]
    factors += list(pairs.items())
    if order.kept:
        factors = [_fixed(names, table, order.kept, picks) for names, table in factors]
    alive = dict(enumerate(factors))
    touching: list[set[int]] = [set() for _ in own]
    for key, (names, _) in alive.items():
        for name in names:
            touching[name].add(key)
    made: list[tuple[int, tuple[int, ...], npt.NDArray[np.int64]]] = []
    for new, (node, beside) in enumerate(order.steps, len(factors)):
        total: Reals = np.zeros((1,) * (len(beside) + 1))
        for key in sorted(touching[node]):
            names, table = alive.pop(key)
            for name in names:
                if name != node:
                    touching[name].discard(key)
            total = total + _spread(names, table, (*beside, node))
        made.append((node, beside, total.argmin(-1)))
        alive[new] = (beside, total.min(-1))
        for name in beside:
            touching[name].add(new)
    found = list(picks)
    for node, beside, best in reversed(made):
        found[node] = int(best[tuple(found[other] for other in beside)])
    return found


def _fixed(
    names: tuple[int, ...], table: Reals, kept: frozenset[int], picks: Sequence[int]
) -> tuple[tuple[int, ...], Reals]:
    index = tuple(picks[name] if name in kept else slice(None) for name in names)
    return tuple(name for name in names if name not in kept), table[index]


def _spread(names: tuple[int, ...], table: Reals, axes: tuple[int, ...]) -> Reals:
    """The table with one axis per name of `axes`, of length 1 where it does not depend on it."""
    order = sorted(range(len(names)), key=lambda i: axes.index(names[i]))
    shape = [1] * len(axes)
    for name, length in zip(names, table.shape, strict=True):
        shape[axes.index(name)] = length
    return table.transpose(order).reshape(shape)
