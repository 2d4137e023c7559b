"""Weight scales: each search against brute force, dead channels, what targets make of them, and the joint search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srq_hw.fixedpoint import int_range
from srq_hw.normalform.normal import evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.quantize import joint_search
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.recipe import WeightMethod
from srq_hw.quantize.weight_search import (
    importance_of,
    input_power,
    legal_steps,
    minmax_steps,
    mse_steps,
    percentile_steps,
    weight_steps,
)
from tests.quantize.nets import NETS, Forward, conv, image, network, pow2_target, recipe, target

METHODS = {
    "minmax": WeightMethod(method="minmax"),
    "percentile": WeightMethod(method="percentile", percent=90.0),
    "mse": WeightMethod(method="mse", steps=60),
    "joint": WeightMethod(method="joint"),
}
ROWS = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).standard_t(3, (3, 12)))


def squared(rows: np.ndarray, steps: np.ndarray, lo: int, hi: int, weigh: np.ndarray | float = 1.0) -> np.ndarray:
    s = steps[:, None]
    return (weigh * (rows - np.clip(np.rint(rows / s), lo, hi) * s) ** 2).sum(1)


@given(ROWS, st.integers(2, 8), st.booleans(), st.integers(2, 20), st.booleans())
def test_mse_against_every_candidate(rows: np.ndarray, bits: int, narrow: bool, steps: int, weighted: bool) -> None:
    weigh = np.random.default_rng(0).uniform(0, 4, rows.shape) if weighted else None
    found = mse_steps(rows, bits, narrow, steps, weigh)
    lo, hi = int_range(bits, True, narrow)
    weighing = 1.0 if weigh is None else weigh
    for k in range(len(rows)):
        widest = np.abs(rows[k]).max() / hi
        tried = [widest * (1 - 0.75 * i / (steps - 1)) for i in range(steps)]
        errors = [
            squared(rows[k : k + 1], np.array([s]), lo, hi, weighing if weigh is None else weigh[k]) for s in tried
        ]
        best = min(float(e[0]) for e in errors)
        mine = float(squared(rows[k : k + 1], found[k : k + 1], lo, hi, weighing if weigh is None else weigh[k])[0])
        assert mine == pytest.approx(best, rel=1e-9)


@given(ROWS, st.integers(2, 8), st.floats(51, 100))
def test_percentile_and_minmax(rows: np.ndarray, bits: int, percent: float) -> None:
    top = 2 ** (bits - 1) - 1
    found = percentile_steps(rows, bits, percent) * top
    ordered = np.sort(np.abs(rows), axis=1)
    place = (rows.shape[1] - 1) * percent / 100
    below, above = ordered[:, int(np.floor(place))], ordered[:, int(np.ceil(place))]
    assert (found >= below * (1 - 1e-12)).all() and (found <= above * (1 + 1e-12)).all()
    np.testing.assert_allclose(percentile_steps(rows, bits, 100.0), minmax_steps(rows, bits))
    np.testing.assert_allclose(minmax_steps(rows, bits) * top, ordered[:, -1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_steps_of_a_tensor_with_a_dead_channel(method: str, granularity: str) -> None:
    weight = np.random.default_rng(2).standard_t(3, (6, 4, 3, 3))
    weight[2] = 0
    weight[4] = 0
    weight[4, 0, 0, 0] = 0.7  # all but one weight are 0: a percentile of 0 falls back to the largest magnitude
    found = weight_steps(weight, 4, METHODS[method], target(**{"weights.granularity": granularity}), None)
    assert found.shape == (6,) and (found > 0).all()
    assert (len(set(found.tolist())) == 1) == (granularity == "tensor")
    if granularity == "channel":
        alive = np.array([0, 1, 3, 4, 5])
        largest = np.abs(weight).max((1, 2, 3))
        assert (found[alive] <= largest[alive] / 7 * (1 + 1e-12)).all()
        assert found[2] == found[alive].max()
        assert method in ("mse", "joint") or found[4] == pytest.approx(0.1, rel=1e-12)


def test_weights_of_zeros() -> None:
    for options in METHODS.values():
        np.testing.assert_array_equal(weight_steps(np.zeros((3, 2, 1, 1)), 8, options, target(), None), [1, 1, 1])


def test_mse_has_less_error_than_minmax() -> None:
    rows = np.random.default_rng(3).standard_t(3, (8, 144))
    plain, best = squared(rows, minmax_steps(rows, 3), -3, 3), squared(rows, mse_steps(rows, 3, True, 60), -3, 3)
    assert (best <= plain).all() and best.sum() < 0.9 * plain.sum()


def grouped() -> Forward:
    return Forward(lambda m, x: m.c(torch.relu(m.a(x))), a=conv(3, 6), c=conv(6, 3, groups=3))


def test_input_power_is_the_mean_square_of_what_the_convolution_reads() -> None:
    net = normalize(network(grouped()))
    images = [image(1), image(2, 9, 5)]
    seen: list[np.ndarray] = []
    source = next(layer.inputs[0] for layer in net.layers if layer.name == "c")
    for picture in images:
        x = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]
        evaluate(net, x, lambda name, v: seen.append(v[0].reshape(6, -1).numpy()) if name == source else None)
    wanted = (np.concatenate(seen, 1).astype(np.float64) ** 2).mean(1)
    power = input_power(net, images)
    np.testing.assert_allclose(power["c"], wanted, rtol=1e-6)
    layer = next(layer for layer in net.layers if layer.name == "c")
    spread = importance_of(layer, power["c"])
    assert spread.shape == (3, 2, 1, 1)
    np.testing.assert_array_equal(spread.reshape(-1), power["c"])  # output o of group o reads channels 2o, 2o + 1


def test_importance_moves_the_choice_to_the_channel_that_matters() -> None:
    weight = np.random.default_rng(5).normal(size=(4, 2, 3, 3)) * np.array([1.0, 0.2])[None, :, None, None]
    power = np.array([1e-6, 1.0])[None, :, None, None]
    options = METHODS["mse"]
    plain = weight_steps(weight, 3, options, target(), None)
    weighted = weight_steps(weight, 3, options, target(), power)
    small_rows = weight[:, 1].reshape(4, -1)
    assert (squared(small_rows, weighted, -3, 3) <= squared(small_rows, plain, -3, 3) + 1e-12).all()
    assert squared(small_rows, weighted, -3, 3).sum() < 0.7 * squared(small_rows, plain, -3, 3).sum()
    np.testing.assert_array_equal(
        weight_steps(weight, 3, options, target(), np.zeros((1, 2, 1, 1))),
        weight_steps(weight, 3, METHODS["minmax"], target(), None),
    )


def test_legal_steps() -> None:
    plan = make_plan(normalize(network(NETS["residual"]())), target(), 4, 4)
    layer = plan.layer("c1")
    steps = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_array_equal(legal_steps(steps, layer, 1.0, target()), steps)
    np.testing.assert_array_equal(legal_steps(steps, layer, 1.0, target(**{"weights.granularity": "tensor"})), 0.4)
    np.testing.assert_array_equal(legal_steps(steps, layer, 1.0, pow2_target()), 0.5)
    narrow = target(**{"bias.bits": 6})
    found = legal_steps(steps * 1e-3, layer, 0.5, narrow)
    assert (np.abs(layer.bias.numpy()) / (0.5 * found) <= 2**4 * (1 + 1e-12)).all() and (found > steps * 1e-3).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]))
@settings(max_examples=40)
def test_output_error_from_moments_against_the_outputs(seed: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    exact = rng.normal(size=(30, 8))
    rounded = np.rint(exact * 3) / 3
    weight = rng.normal(size=(4, 8 // groups))
    trial = np.rint(weight * 2) / 2
    moments = joint_search._moments(exact, rounded, weight, groups)
    found = joint_search._output_error(trial, *moments, groups)
    for o in range(4):
        mine = slice((o * groups // 4) * (8 // groups), (o * groups // 4 + 1) * (8 // groups))
        wanted = ((exact[:, mine] @ weight[o] - rounded[:, mine] @ trial[o]) ** 2).sum()
        assert found[o] == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("pow2", [False, True])
def test_joint_search_is_legal_and_repeatable(name: str, pow2: bool) -> None:
    if pow2 and name == "everything":
        pytest.skip("a shift-only target has no PReLU")
    aim = pow2_target() if pow2 else target()
    plan = make_plan(normalize(network(NETS[name]())), aim, 4, 4)
    rule = recipe().model_copy(update={"weights": WeightMethod(method="joint", steps=8, activation_steps=5)})
    found, again = (calibrate(plan, aim, rule, [image(1), image(2)]) for _ in range(2))
    assert found.scales == again.scales
    plain = calibrate(plan, aim, recipe(), [image(1), image(2)])
    summed = {plan.point_of(x).group for layer in plan.layers if layer.op == "add" for x in layer.inputs}
    for group, step in found.scales.items():
        held = group in summed or any(p.fixed for p in plan.points.values() if p.group == group)
        assert step > 0 and (not held or step == plain.scales[group])
        assert not pow2 or np.log2(step) == np.rint(np.log2(step))
    for steps in found.weights.values():
        assert (steps > 0).all() and (not pow2 or len(set(np.log2(steps))) == 1)
    assert any(not np.array_equal(found.weights[conv], plain.weights[conv]) for conv in found.weights)
