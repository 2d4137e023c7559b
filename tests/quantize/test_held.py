"""Learning within accumulators of N bits: the bound holds at every step, its gradient is right, and it pays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srq_hw import parity
from srq_hw.exchange.direct import to_intgraph
from srq_hw.graph.check import prove_accumulators
from srq_hw.graph.ir import IntGraph
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.accumulator import fit_accumulators
from srq_hw.quantize.calibrate import calibrate, sample_patches
from srq_hw.quantize.freeze import freeze, load_frozen, quant_net, run_frozen
from srq_hw.quantize.held import Bound, HeldWeight, Limits, hold
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.ptq import quantize
from srq_hw.quantize.recipe import Recipe
from srq_hw.quantize.reconstruct import reconstruct
from srq_hw.quantize.shrink import Inputs, shrink
from srq_hw.quantize.tuning import Tuning
from srq_hw.quantize.weight_search import input_power
from srq_hw.simulate import reference
from srq_hw.target import Target, load_target
from tests.quantize.nets import NETS, Forward, conv, image, network, pow2_target, recipe, target
from tests.quantize.quality import calibration_images, decibels, embedded, small

PATCHES = [image(seed) for seed in (1, 2, 3)]
RATES = {"activations": 1e-2, "weight_steps": 5e-3, "biases": 3e-4, "weights": 4e-2, "channels": 1e-2}


def learning(iterations: int, rates: dict[str, float] | None = None, crop: int = 48) -> dict[str, object]:
    return {"phases": [{"iterations": iterations, "rates": rates or RATES}], "batch": 2, "crop": crop, "pool": 64}


def widest(graph: IntGraph) -> int:
    """Signed bits that every convolution's partial sums need at worst: from the graph's integers, tap by tap.

    Padding is 0, so a product ranges over an interval with 0 in it, and so does what is still to come: no partial sum
    that began at the bias lies beyond the ends.
    """
    bits = 0
    for node in graph.nodes:
        if node.op != "Conv":
            continue
        tensor = graph.tensors[node.inputs[0]]
        lo, hi = (int(end) - tensor.zero_point for end in tensor.range)
        lo, hi = min(lo, 0), max(hi, 0)
        for kernel, bias in zip(node.params["weight"], node.params["bias"], strict=True):
            low = high = int(bias)
            for weight in kernel.ravel().tolist():
                low += min(weight * lo, weight * hi)
                high += max(weight * lo, weight * hi)
            bits = max(bits, (max(high, ~low)).bit_length() + 1)
    return bits


# --- the projection and its gradient ------------------------------------------------------------------------------


def real_projection(values: np.ndarray, gain: np.ndarray, pull: np.ndarray, room: float) -> tuple[np.ndarray, float]:
    """A row's soft threshold with sum gain * size = room, by halving; nothing is rounded."""
    low, high = 0.0, float(((np.abs(values) + 1) / pull).max())
    for _ in range(100):
        middle = (low + high) / 2
        left = np.maximum(np.abs(values) - middle * pull, 0)
        low, high = (middle, high) if (gain * left).sum() > room else (low, middle)
    return np.sign(values) * np.maximum(np.abs(values) - high * pull, 0), high


@pytest.mark.parametrize(("lo", "hi"), [(-3, 3), (-5, 2)])
def test_the_gradient_is_that_of_the_projection(lo: int, hi: int) -> None:
    """Values and room against differences of an independent projection, where the upper end is held."""
    rng = np.random.default_rng(hi)
    values, relief = rng.normal(0, 20, 40), rng.uniform(0.5, 2, 40)
    ends = Inputs(np.full((1, 40), float(lo)), np.full((1, 40), float(hi)))
    gain = np.where(values > 0, hi, -lo).astype(float)
    pull, room = relief * gain / gain.max(), 600.0
    wanted, threshold = real_projection(values, gain, pull, room)
    left = wanted != 0
    assert 5 < left.sum() < 35

    held = HeldWeight(lambda: torch.ones(1), lambda: torch.zeros(1), ends, np.ones((1, 1, 1, 1)), Limits(-99, 99, 0, 0))
    held.double()
    row = torch.tensor(values[None], requires_grad=True)
    room_of = torch.tensor([room], dtype=torch.float64, requires_grad=True)
    thresholds = torch.tensor([[threshold], [0.0]], dtype=torch.float64)
    found = held._projected(row, (room_of, room_of.detach()), torch.tensor(relief[None]), thresholds)
    np.testing.assert_allclose(found.detach().numpy()[0, left], wanted[left], rtol=1e-9)
    direction = rng.normal(size=40) * left
    (found[0] * torch.tensor(direction)).sum().backward()

    def at(shift: np.ndarray, more: float) -> float:
        return float((direction * real_projection(values + shift, gain, pull, room + more)[0]).sum())

    small_step = 1e-5
    for index in np.flatnonzero(left):
        shift = np.zeros(40)
        shift[index] = small_step
        expected = (at(shift, 0) - at(-shift, 0)) / (2 * small_step)
        assert row.grad is not None and float(row.grad[0, index]) == pytest.approx(expected, abs=1e-6)
    nothing = np.zeros(40)
    expected = (at(nothing, small_step) - at(nothing, -small_step)) / (2 * small_step)
    assert room_of.grad is not None and float(room_of.grad) == pytest.approx(expected, abs=1e-6)


def test_what_fits_is_only_rounded() -> None:
    values = np.array([[3.4, -2.6, 0.2, 90.0]])
    ends = Inputs(np.full((1, 4), -8.0), np.full((1, 4), 7.0))
    whole, thresholds = shrink(values, ends, (np.array([1e6]), np.array([1e6])), np.ones((1, 4)), -7, 7)
    np.testing.assert_array_equal(whole, [[3, -3, 0, 7]])
    assert not thresholds.any()


# --- networks in training -----------------------------------------------------------------------------------------

TARGETS: dict[str, Target] = {
    "channel": target(),
    "tensor": target(**{"weights.granularity": "tensor"}),
    "coarse multiplier": target(**{"requant.multiplier_bits": 4}),
    "pow2": pow2_target(),
}


@pytest.mark.parametrize("rules", TARGETS)
@pytest.mark.parametrize("reach", [None, 1.0])
@pytest.mark.parametrize("name", ["residual", "sums"])
def test_every_step_of_training_fits(name: str, reach: float | None, rules: str) -> None:
    """Everything moves, fast; the integers of every step are within the bound with no fit behind it."""
    aim, bits = TARGETS[rules], 16
    plan = make_plan(normalize(network(NETS[name]())), aim, 8, 8)
    calibration = calibrate(plan, aim, recipe(), PATCHES)
    assert widest(to_intgraph(freeze(plan, calibration, aim))) > bits
    tuning = Tuning(plan, fit_accumulators(plan, calibration, aim, bits, PATCHES)[1], aim, reach)
    hold(tuning, Bound(bits, input_power(plan.net, PATCHES)))
    tuning.learn(RATES)
    adam = torch.optim.Adam(
        [
            {"params": [parameter], "lr": 5 * RATES[kind] * unit}
            for kind in RATES
            for parameter, unit in zip(tuning.parameters[kind], tuning.units[kind], strict=True)
        ]
    )
    images = torch.from_numpy(np.stack(PATCHES).astype(np.float32)).permute(0, 3, 1, 2)
    seen = []
    for _ in range(4):
        loss = (tuning.net(images) - 100.0).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        frozen = freeze(*tuning.result(), aim)
        assert widest(to_intgraph(frozen)) <= bits
        seen.append(np.concatenate([found.weight.ravel() for found in frozen.convs.values()]))
    assert any((seen[0] != later).any() for later in seen[1:]), "nothing was learned"


def test_learning_within_the_bound_beats_fitting() -> None:
    """16 bits at W8A8 on the embedded network: against no learning, and against the same learning with a fit after."""
    plan, aim = embedded(bits=8)
    options = Recipe.model_validate(small("mse").model_dump(by_alias=True) | {"reconstruct": learning(40)})
    assert options.reconstruct is not None
    images, patches = calibration_images(), sample_patches(calibration_images(), options)
    calibration = calibrate(plan, aim, options, images)
    fitted = fit_accumulators(plan, calibration, aim, 16, patches)
    free = reconstruct(plan, calibration, aim, images, options.reconstruct)
    after = fit_accumulators(*free, aim, 16, patches)
    within = quantize(plan.net, aim, options.model_copy(update={"accumulator_bits": 16}), images, 8, 8)
    found = to_intgraph(freeze(within.plan, within.calibration, aim))
    assert widest(found) == 16
    assert max(proof.bits for proof in prove_accumulators(found, aim) if proof.op == "Conv") == 16
    assert decibels(within.plan, within.calibration, aim) > max(decibels(*fitted, aim), decibels(*after, aim)) + 1.0


def test_zero_points_count() -> None:
    """Behind a LeakyReLU the integers reach further than the type's own range says."""
    aim = load_target("int-generic")
    leaky = torch.nn.functional.leaky_relu
    module = Forward(lambda m, x: m.c(leaky(m.b(leaky(m.a(x), 0.05)), 0.05)), a=conv(3, 4), b=conv(4, 4), c=conv(4, 3))
    data = recipe().model_dump(by_alias=True, exclude_none=True)
    data["activations"]["zero_points"] = True
    for section in ({}, {"reconstruct": learning(3, crop=16)}):
        options = Recipe.model_validate(data | {"accumulator_bits": 14} | section)
        found = quantize(normalize(network(module)), aim, options, PATCHES, 8, 8)
        assert any(found.calibration.zero_points.values())
        frozen = freeze(found.plan, found.calibration, aim)
        graph = to_intgraph(frozen)
        assert widest(graph) <= 14
        left = run_frozen(load_frozen(quant_net(found.plan, found.calibration, aim), frozen), frozen, image(5))
        equal = parity.compare(left, reference.trace(graph, image(5)))
        assert equal.equal, equal.first
