"""The knapsack: never over budget, and as good as trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import srq_hw.quantize.budget as budget_module
from srq_hw.errors import InputError
from srq_hw.quantize.budget import Option, choose, least_cost, useful

OPTIONS = st.builds(
    lambda cost, damage: Option((cost,), cost, damage),
    st.integers(0, 60),
    st.floats(-5, 50, allow_nan=False).map(lambda value: round(value, 3)),
)
LAYERS = st.lists(st.lists(OPTIONS, min_size=1, max_size=4), min_size=1, max_size=5)


def best_of_all(layers: list[list[Option]], budget: int) -> float:
    """Least damage within the budget, by trying every combination."""
    found = [
        sum(option.damage for option in combination)
        for combination in itertools.product(*layers)
        if sum(option.cost for option in combination) <= budget
    ]
    return min(found)


@given(LAYERS, st.integers(0, 300))
def test_it_is_as_good_as_trying_everything(layers: list[list[Option]], budget: int) -> None:
    if least_cost(layers) > budget:
        with pytest.raises(InputError, match=f"budget {budget}: .* allowed: {least_cost(layers)} or more"):
            choose(layers, budget)
        return
    chosen = choose(layers, budget)
    assert all(option in options for option, options in zip(chosen, layers, strict=True))
    assert sum(option.cost for option in chosen) <= budget
    assert sum(option.damage for option in chosen) == pytest.approx(best_of_all(layers, budget))


@given(LAYERS, st.integers(0, 300))
def test_coarser_units_keep_the_budget_and_lose_little(layers: list[list[Option]], budget: int) -> None:
    if least_cost(layers) > budget:
        return
    columns = 16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget_module, "COLUMNS", columns)
        chosen = choose(layers, budget)
    assert sum(option.cost for option in chosen) <= budget
    unit = max(1, -(-(budget - least_cost(layers)) // columns))
    smaller = max(budget - unit * (len(layers) + 1), least_cost(layers))
    assert sum(option.damage for option in chosen) <= best_of_all(layers, smaller) + 1e-9


def test_only_options_that_nothing_beats_are_kept() -> None:
    rows = [(1, 5.0), (1, 4.0), (2, 4.0), (3, 1.0), (4, 2.0)]
    assert [(item.cost, item.damage) for item in useful([Option((), *row) for row in rows])] == [(1, 4.0), (3, 1.0)]


def test_many_layers_with_large_costs_take_no_time() -> None:
    rng = np.random.default_rng(0)
    layers = [
        [Option((bits,), int(size) * bits, float(size) * 4.0**-bits) for bits in range(2, 9)]
        for size in rng.integers(1, 10_000_000, 40)
    ]
    most = sum(options[-1].cost for options in layers)
    chosen = choose(layers, most // 2)
    spent = sum(option.cost for option in chosen)
    assert 0.999 * (most // 2) < spent <= most // 2
