"""Accumulators: the bound holds for every weight, bias and input, and `check` proves it on the integer graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from srq_hw import parity
from srq_hw.errors import InputError, RunError
from srq_hw.exchange.direct import to_intgraph
from srq_hw.fixedpoint import int_range
from srq_hw.graph.check import prove_accumulators
from srq_hw.graph.legality import legality
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.accumulator import accumulator_bits, fit_accumulators, fit_weights, input_ranges, worst_case
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.freeze import freeze, load_frozen, quant_net, run_frozen
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.ptq import quantize
from srq_hw.quantize.recipe import Recipe
from srq_hw.quantize.shrink import Inputs
from srq_hw.simulate import reference
from srq_hw.target import Target
from tests.quantize.nets import NETS, Forward, conv, image, network, pow2_target, recipe, target
from tests.quantize.quality import calibration_images, decibels, embedded, small

PATCHES = [image(seed) for seed in (1, 2, 3)]


def accumulating(bits: int | None, **sections: object) -> Recipe:
    """Min-max with so many accumulator bits."""
    data = recipe().model_dump(by_alias=True, exclude_none=True)
    return Recipe.model_validate(data | {"accumulator_bits": bits} | sections)


# --- one convolution ----------------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> dict[str, object]:
    outputs, count = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.standard_normal((outputs, count, 1, 1)) * 10.0 ** draw(st.integers(-3, 3))
    weight *= rng.random(weight.shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))  # none, some or all of them 0
    bits = draw(st.integers(2, 8))
    span = np.abs(weight).max((1, 2, 3)) / int_range(bits, True)[1]
    steps = np.where(span > 0, span, 1.0) * draw(st.sampled_from([0.3, 1.0]))
    together, pow2 = draw(st.sampled_from([(False, False), (True, False), (True, True)]))
    if together:
        steps = np.full(outputs, steps.max())
    lo, hi = draw(st.sampled_from([(0, 255), (-128, 127), (0, 0), (0, 3), (-114, 141), (-1, 0)]))
    ends = Inputs(np.full((outputs, count), float(lo)), np.full((outputs, count), float(hi)))
    limit = draw(st.integers(8, 24))
    bias = rng.standard_normal(outputs) * 2.0 ** draw(st.integers(0, limit + 3)) * draw(st.sampled_from([0.0, 1.0]))
    return {
        "weight": weight,
        "steps": steps,
        "bias": bias,
        "inputs": ends,
        "power": rng.random((1, count, 1, 1)) + 0.01,
        "int_weights": int_range(bits, True, draw(st.booleans())),
        "room": tuple(float(end) for end in int_range(limit, True)),
        "together": together,
        "pow2": pow2,
    }


@settings(max_examples=60)
@given(cases())
def test_every_sum_fits_whatever_the_weights_and_the_bias(case: dict) -> None:
    weight, steps = fit_weights(**case)
    whole = weight / steps[:, None, None, None]
    np.testing.assert_allclose(whole, np.rint(whole), atol=1e-9)
    ints = np.rint(whole).astype(np.int64)
    assert ints.min() >= case["int_weights"][0] and ints.max() <= case["int_weights"][1]
    growth = steps / case["steps"]
    assert (growth >= 1).all()
    if case["together"]:
        assert len(set(growth.tolist())) == 1
    if case["pow2"]:
        np.testing.assert_array_equal(np.log2(growth), np.rint(np.log2(growth)))
    bias = case["bias"] / growth
    lo, hi = worst_case(ints, np.zeros(len(ints), np.int64), case["inputs"])
    assert (lo + bias >= case["room"][0]).all() and (hi + bias <= case["room"][1]).all()
    # the two inputs that hurt most, tap by tap, reach exactly these ends
    rows = ints.reshape(len(ints), -1)
    worst = np.where(rows > 0, case["inputs"].hi, case["inputs"].lo)
    np.testing.assert_array_equal((rows * worst).sum(1), hi)


@settings(max_examples=30)
@given(cases())
def test_channels_that_fit_stay_as_they_are(case: dict) -> None:
    case |= {"room": (-(2.0**40), 2.0**40), "bias": np.zeros(len(case["weight"]))}
    weight, steps = fit_weights(**case)
    np.testing.assert_array_equal(steps, case["steps"])
    whole = np.clip(np.rint(case["weight"] / steps[:, None, None, None]), *case["int_weights"])
    np.testing.assert_array_equal(weight, whole * steps[:, None, None, None])


@pytest.mark.parametrize(("lo", "hi"), [(0, 15), (-8, 7)])
def test_no_choice_of_integers_at_the_same_step_is_nearer(lo: int, hi: int) -> None:
    """Three weights, all integers tried: the greedy choice is within what one unit of the sum can cost."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(-7, 8)] * 3), -1).reshape(-1, 3)
    for _ in range(20):
        values = rng.uniform(-7, 7, (1, 3))
        ends = Inputs(np.full((1, 3), float(lo)), np.full((1, 3), float(hi)))
        room = (-90.0, 90.0)
        low, high = worst_case(grid, np.zeros(len(grid), np.int64), Inputs(*(np.repeat(e, len(grid), 0) for e in
                                                                            (ends.lo, ends.hi))))  # fmt: skip
        legal = grid[(low >= room[0]) & (high <= room[1])]
        least = np.square(legal - values).sum(1).min()
        one = np.ones(1)
        weight, steps = fit_weights(
            values.reshape(1, 3, 1, 1), one, 0 * one, ends, np.ones((1, 3, 1, 1)), (-7, 7), room, False, False
        )
        error = np.square(weight.reshape(1, 3) - values).sum()
        assert error <= least + 1.0 if steps[0] == 1.0 else error <= least + 1e-9


def test_a_bias_that_fills_the_accumulator_is_refused() -> None:
    one = np.ones((1, 1, 1, 1))
    ends = Inputs(np.zeros((1, 1)), np.full((1, 1), 255.0))
    with pytest.raises(RunError, match="leaves no room"):
        fit_weights(one, np.ones(1), np.array([1e12]), ends, one, (-7, 7), (-128.0, 127.0), False, False)


# --- networks -----------------------------------------------------------------------------------------------------


def narrow_target(bits: int, **changes: object) -> Target:
    return target(**{"accumulator.bits": bits, "bias.bits": bits, **changes})


TARGETS: dict[str, Callable[[], Target]] = {
    "channel": target,
    "tensor": lambda: target(**{"weights.granularity": "tensor"}),
    "coarse multiplier": lambda: target(**{"requant.multiplier_bits": 4}),
    "pow2": pow2_target,
}


@pytest.mark.parametrize(
    ("name", "rules", "bits"),
    [
        ("residual", "channel", 12),
        ("everything", "channel", 16),
        ("sums", "channel", 14),
        ("residual", "tensor", 16),
        ("everything", "coarse multiplier", 14),
        ("residual", "pow2", 14),
        ("sums", "pow2", 16),
    ],
)
def test_check_proves_what_was_asked_for(name: str, rules: str, bits: int) -> None:
    aim = TARGETS[rules]()
    net = normalize(network(NETS[name]()))
    found = quantize(net, aim, accumulating(bits), PATCHES)
    frozen = freeze(found.plan, found.calibration, aim)
    proofs = [proof for proof in prove_accumulators(to_intgraph(frozen), aim) if proof.op == "Conv"]
    assert len(proofs) == sum(layer.op == "conv" for layer in found.plan.layers)
    assert all(proof.bits <= bits for proof in proofs)
    left = quantize(net, aim, accumulating(None), PATCHES)
    before = accumulator_bits(freeze(left.plan, left.calibration, aim))
    assert max(before.values()) > bits, "nothing had to be done: the test says nothing"


@pytest.mark.parametrize("name", NETS)
def test_the_bound_of_ours_is_never_below_that_of_check(name: str) -> None:
    aim = target()
    plan = make_plan(normalize(network(NETS[name]())), aim)
    frozen = freeze(plan, calibrate(plan, aim, recipe(), PATCHES), aim)
    graph = to_intgraph(frozen)
    ours = accumulator_bits(frozen)
    for proof in prove_accumulators(graph, aim):
        if proof.op == "Conv":
            assert ours[proof.node] >= proof.bits
    offset = next(layer for layer in plan.layers if layer.op == "conv")
    lo, hi = worst_case(frozen.convs[offset.name].weight, frozen.convs[offset.name].bias,
                        input_ranges(plan, offset.name))  # fmt: skip
    reached = next(proof for proof in prove_accumulators(graph, aim) if proof.op == "Conv")
    assert (int(lo.min()), int(hi.max())) == (reached.lo, reached.hi)  # the image's range is known exactly


def test_a_sixteen_bit_accumulator_passes_its_target_and_parity_holds() -> None:
    """Without the option the same target is not met."""
    aim = narrow_target(16)
    net = normalize(network(NETS["residual"]()))
    graphs = {}
    for bits in (None, 16):
        found = quantize(net, aim, accumulating(bits), PATCHES)
        frozen = freeze(found.plan, found.calibration, aim)
        graphs[bits] = to_intgraph(frozen)
    assert not all(proof.holds for proof in prove_accumulators(graphs[None], aim))
    assert all(proof.holds for proof in prove_accumulators(graphs[16], aim))
    assert not legality(graphs[16], aim)
    left = run_frozen(load_frozen(quant_net(found.plan, found.calibration, aim), frozen), frozen, image(5))
    equal = parity.compare(left, reference.trace(graphs[16], image(5)))
    assert equal.equal, equal.first


def test_what_fits_is_the_same_object() -> None:
    aim = target()
    plan = make_plan(normalize(network(NETS["residual"]())), aim)
    calibration = calibrate(plan, aim, recipe(), PATCHES)
    after = fit_accumulators(plan, calibration, aim, 32, PATCHES)
    assert after[0] is plan and after[1] is calibration


def dead() -> nn.Module:
    """Three convolutions in a row."""
    parts = {"a": conv(3, 4), "b": conv(4, 4), "c": conv(4, 3)}
    return Forward(lambda m, x: m.c(torch.relu(m.b(torch.relu(m.a(x))))) + 128.0, **parts)


def test_dead_channels_and_layers_pass() -> None:
    aim = target()
    net = network(dead())
    with torch.no_grad():
        net.module.a.weight[1] = 0.0  # type: ignore[union-attr,index]
        net.module.b.weight.zero_()  # type: ignore[union-attr,operator]
        net.module.c.weight[0, 0, 0, 0] = 40.0  # type: ignore[union-attr,index]
    found = quantize(normalize(net), aim, accumulating(14), PATCHES)
    frozen = freeze(found.plan, found.calibration, aim)
    assert max(accumulator_bits(frozen).values()) <= 14
    assert not frozen.convs["a"].weight[1].any() and not frozen.convs["b"].weight.any()


def test_reconstruction_starts_from_and_ends_in_weights_that_fit() -> None:
    aim = target()
    net = normalize(network(NETS["residual"]()))
    section = {"phases": [{"iterations": 3, "rates": {"weights": 0.05, "biases": 0.01}}], "crop": 16, "batch": 1}
    found = quantize(net, aim, accumulating(14, reconstruct=section), PATCHES)
    assert max(accumulator_bits(freeze(found.plan, found.calibration, aim)).values()) <= 14


def test_learning_that_does_not_survive_the_fit_is_dropped() -> None:
    """Reconstruction with absurd rates: the result is what was fitted before it."""
    aim = target()
    net = normalize(network(NETS["residual"]()))
    section = {"phases": [{"iterations": 4, "rates": {"weights": 10.0, "biases": 1.0}}], "crop": 16, "batch": 1}
    plain = quantize(net, aim, accumulating(14), PATCHES)
    found = quantize(net, aim, accumulating(14, reconstruct=section), PATCHES)
    one, two = (freeze(item.plan, item.calibration, aim).convs for item in (plain, found))
    for name in one:
        np.testing.assert_array_equal(one[name].weight, two[name].weight)


def test_fitting_beats_larger_steps_alone_on_the_image() -> None:
    """18 bits at W8A8 on the embedded network: the projection against raising every step until all sums fit."""
    plan, aim = embedded(bits=8)
    calibration = calibrate(plan, aim, small("minmax"), calibration_images())
    patches = [picture[:48, :48] for picture in calibration_images()]
    ours = fit_accumulators(plan, calibration, aim, 18, patches)
    coarser = calibration
    while max(accumulator_bits(freeze(plan, coarser, aim)).values()) > 18:
        wide = [name for name, bits in accumulator_bits(freeze(plan, coarser, aim)).items() if bits > 18]
        weights = {name: steps * (1.1 if name in wide else 1.0) for name, steps in coarser.weights.items()}
        coarser = type(coarser)(coarser.scales, weights, coarser.ranges)
    assert decibels(*ours, aim) > decibels(plan, coarser, aim) + 0.3
    assert decibels(*ours, aim) < decibels(plan, calibration, aim)


@pytest.mark.parametrize("section", [{}, {"reconstruct": {"phases": [{"iterations": 1, "rates": {}}]}}])
def test_an_accumulator_too_narrow_for_any_weight_is_refused(section: dict) -> None:
    """An input of 8 bits fills 8 bits alone."""
    net = normalize(network(NETS["residual"]()))
    with pytest.raises(RunError, match=r"layer \w+: 8 accumulator bits leave none of its weights.*accumulator_bits"):
        quantize(net, target(), accumulating(8, **section), PATCHES, 8, 8)


def test_a_bias_too_large_is_named() -> None:
    net = network(dead())
    with torch.no_grad():
        net.module.b.bias.fill_(1e7)  # type: ignore[union-attr,operator]
    plan = make_plan(normalize(net), target())
    calibration = calibrate(plan, target(), recipe(), PATCHES)
    source = calibration.scales[plan.point_of(plan.layer("b").inputs[0]).group]
    steps = calibration.weights | {"b": np.full(4, 1e7 / source / 2.0**30)}  # the bias is 2**30 accumulator steps
    with pytest.raises(RunError, match=r"layer b: a bias of 1\.07.*accumulator_bits"):
        fit_accumulators(plan, replace(calibration, weights=steps), target(), 10, PATCHES)


@pytest.mark.parametrize("bits", [7, 49, 12.5])
def test_a_width_that_makes_no_sense_is_refused(bits: float, tmp_path) -> None:
    from srq_hw.quantize.recipe import load_recipe

    path = tmp_path / "mine.yaml"
    path.write_text(
        "schema: 1\nname: mine\ntitle: t\npatches: {count: 1, size: 8}\nactivations: {method: minmax}\n"
        f"weights: {{method: minmax}}\naccumulator_bits: {bits}\n"
    )
    with pytest.raises(InputError, match="accumulator_bits"):
        load_recipe(str(path))
