"""Choose one option per layer so that the damage is least and the cost stays within a budget: an exact knapsack.

The multiple-choice knapsack problem by dynamic programming over the cost (Dudzinski and Walukiewicz, EJOR 1987):
damages of layers add up, costs are whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from srq_hw.errors import InputError

#: the table has at most so many columns; more units of cost than that are counted in coarser ones, rounded up
COLUMNS = 40_000


@dataclass(frozen=True)
class Option:
    """One way to build one layer: widths as the caller knows them, cost >= 0 in whole units, damage (any real)."""

    widths: tuple[int, ...]
    cost: int
    damage: float


def least_cost(layers: Sequence[Sequence[Option]]) -> int:
    """What the cheapest option of every layer costs together."""
    return sum(min(option.cost for option in options) for options in layers)


def useful(options: Sequence[Option]) -> list[Option]:
    """Options that no other beats in both cost and damage, cheapest first."""
    found: list[Option] = []
    for option in sorted(options, key=lambda item: (item.cost, item.damage)):
        if not found or option.damage < found[-1].damage:
            found.append(option)
    return found


def choose(layers: Sequence[Sequence[Option]], budget: int) -> list[Option]:
    """The option of every layer with the least sum of damages whose sum of costs is at most ``budget``.

    Exact while the costs above the cheapest, in units of their greatest common divisor, need at most COLUMNS columns;
    beyond that every such cost is rounded up to a coarser unit: the budget still holds, and the answer is at least as
    good as the best one of a budget that is smaller by a unit per layer and one more. InputError where even the
    cheapest options exceed it.
    """
    least = least_cost(layers)
    if least > budget:
        raise InputError(f"budget {budget}: the cheapest options cost {least} together; allowed: {least} or more")
    kept = [useful(options) for options in layers]
    above = [[option.cost - options[0].cost for option in options] for options in kept]
    most = budget - least
    if sum(costs[-1] for costs in above) <= most:
        return [options[-1] for options in kept]
    unit = max(math.gcd(*(cost for costs in above for cost in costs)), 1)
    unit = max(unit, -(-most // COLUMNS))
    columns = most // unit + 1
    table = np.zeros(columns)
    picks = np.zeros((len(kept), columns), np.uint16)
    for row, (options, costs) in enumerate(zip(kept, above, strict=True)):
        best = np.full(columns, np.inf)
        for index, (option, cost) in enumerate(zip(options, costs, strict=True)):
            step = -(-cost // unit)
            if step >= columns:
                break
            trial = table[: columns - step] + option.damage
            better = trial < best[step:]
            best[step:][better] = trial[better]
            picks[row, step:][better] = index
        table = best
    column = columns - 1
    chosen: list[Option] = []
    for row in range(len(kept) - 1, -1, -1):
        index = int(picks[row, column])
        chosen.append(kept[row][index])
        column -= -(-above[row][index] // unit)
    return chosen[::-1]
