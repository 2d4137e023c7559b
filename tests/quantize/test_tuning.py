"""The trainable network: untouched it is the quantized one, and whatever is learned arrives in the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from srq_hw.exchange.direct import to_intgraph
from srq_hw.fixedpoint import int_range
from srq_hw.normalform.normal import evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.freeze import freeze, quant_net
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.quantize.policy import LayerPolicy
from srq_hw.quantize.tuning import KINDS, LogStep, NearWeight, PowerOfTwoStep, TensorStep, Tuning, with_weights
from srq_hw.target import Target, load_target
from tests.quantize import nets, test_equalize, test_operations, test_policy
from tests.quantize.chain import assert_chain, graph_hash
from tests.quantize.nets import image, network, recipe

OPERATIONS = ("steep", "grouped", "branches", "image residual", "bicubic x2")
NETS: dict[str, Callable[[], nn.Module]] = {
    **test_equalize.NETS,
    **test_policy.NETS,
    **{name: test_operations.NETS[name] for name in OPERATIONS},
}
#: per channel with multipliers, per tensor with multipliers, powers of two per tensor
TARGETS: dict[str, Target] = {
    "channel": load_target("int-generic"),
    "tensor": nets.target("int-generic", **{"weights.granularity": "tensor"}),
    "pow2": load_target("dpu-pow2"),
}


def widths(aim: Target) -> tuple[int, int, LayerPolicy]:
    if aim.integer.requant.kind == "pow2":
        return 8, 8, LayerPolicy()
    return 4, 5, LayerPolicy(sums=12)


@cache
def start(name: str, aim: str) -> tuple[QuantPlan, Calibration, Target]:
    target = TARGETS[aim]
    plan = make_plan(normalize(network(NETS[name]())), target, *widths(target))
    return plan, calibrate(plan, target, recipe(), [image(1), image(2)]), target


def picture(seed: int = 3) -> Tensor:
    return torch.from_numpy(image(seed)).permute(2, 0, 1)[None].float()


def shake(tuning: Tuning, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> None:
    """Every parameter of these kinds elsewhere: logarithms by up to 0.7, biases and weights by part of a unit."""
    generator = torch.Generator().manual_seed(seed)
    size = {"activations": 0.7, "weight_steps": 0.7, "channels": 0.7, "biases": 0.02, "weights": 0.3}
    tuning.learn(kinds)
    with torch.no_grad():
        for kind in kinds:
            for tensor, unit in zip(tuning.parameters[kind], tuning.units[kind], strict=True):
                tensor += (torch.rand(tensor.shape, generator=generator) * 2 - 1) * size[kind] * unit


@pytest.mark.parametrize("reach", [1.0, None])
@pytest.mark.parametrize("aim", TARGETS)
@pytest.mark.parametrize("name", NETS)
def test_untouched_it_is_the_quantized_network(name: str, aim: str, reach: float | None) -> None:
    plan, calibration, target = start(name, aim)
    tuning = Tuning(plan, calibration, target, reach)
    with torch.no_grad():
        assert torch.equal(tuning.net(picture()), quant_net(plan, calibration, target)(picture()))
    after, found = tuning.result()
    assert found.scales == calibration.scales
    assert all(np.array_equal(found.weights[conv], calibration.weights[conv]) for conv in calibration.weights)
    assert graph_hash(after, found, target) == graph_hash(plan, calibration, target)


def gap(tuning: Tuning, seeds: tuple[int, ...] = (3, 4)) -> float:
    """Share of pixels of the training net's output that are not those of the network made from the result."""
    plan, calibration = tuning.result()
    again = quant_net(plan, calibration, tuning.target)
    with torch.no_grad():
        return float(
            np.mean([((tuning.net(picture(s)) - again(picture(s))).abs() > 1e-3).float().mean() for s in seeds])
        )


@pytest.mark.parametrize("aim", ["channel", "tensor"])
@pytest.mark.parametrize("name", NETS)
def test_everything_learned_is_in_the_result(name: str, aim: str) -> None:
    """Random factors, steps, weights and biases: both nets give the same pixels but where float32 meets a tie."""
    plan, calibration, target = start(name, aim)
    tuning = Tuning(plan, calibration, target, 1.0)
    before = tuning.net(picture()).detach()
    shake(tuning)
    assert not torch.equal(before, tuning.net(picture()).detach())
    # a rounding that float noise turns over moves a pixel's neighbourhood by a step: some may, most may not
    assert gap(tuning) < 0.05
    assert_chain(*tuning.result(), target, [image(5)])


@pytest.mark.parametrize("reach", [1.0, None])
@pytest.mark.parametrize("aim", TARGETS)
@pytest.mark.parametrize("name", NETS)
def test_with_factors_of_two_the_result_is_the_training_net_bit_for_bit(
    name: str, aim: str, reach: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Powers of two scale without rounding, so there is no float noise that a tie could fall to."""
    plan, calibration, target = start(name, aim)
    tuning = Tuning(plan, calibration, target, reach)
    shake(tuning)
    channels = tuning.channels
    generator = torch.Generator().manual_seed(1)
    factors = torch.exp2(torch.randint(-2, 3, (len(channels.raw) + 1,), generator=generator).float())
    factors[-1] = 1.0
    monkeypatch.setattr(channels, "of", lambda tensor: factors[channels.index[tensor]])
    after, found = tuning.result()
    again = quant_net(after, found, target)
    with torch.no_grad():
        for seed in (3, 4):
            assert torch.equal(tuning.net(picture(seed)), again(picture(seed)))
    assert len(tuning.net(picture()).unique()) > 5
    assert_chain(after, found, target, [image(5)])


@pytest.mark.parametrize("aim", TARGETS)
@pytest.mark.parametrize("name", ["joined", "moved", "concats", "grouped"])
def test_learned_factors_alone_change_no_weight_beyond_scaling(name: str, aim: str) -> None:
    """The float function of the result's weights is the network's own: factors cancel; only grids are elsewhere."""
    plan, calibration, target = start(name, aim)
    tuning = Tuning(plan, calibration, target, 1.0)
    shake(tuning, ("channels",))
    after, _ = tuning.result()
    by_name = {layer.name: layer for layer in after.layers if layer.op == "conv"}
    scaled = replace(
        plan.net,
        layers=tuple(
            replace(layer, weight=by_name[layer.name].weight, bias=by_name[layer.name].bias)
            if layer.name in by_name
            else layer
            for layer in plan.net.layers
        ),
    )
    x = picture().double()
    left, right = (evaluate(net, x, dtype=torch.float64) for net in (plan.net, scaled))
    torch.testing.assert_close(left, right, rtol=0, atol=1e-4)
    changed = [name for name in by_name if not torch.equal(by_name[name].weight, plan.layer(name).weight)]
    assert changed


def test_integers_of_learned_factors_are_those_of_training() -> None:
    """A conv's integer weights in the result are those that the training net uses, factors and all."""
    plan, calibration, target = start("joined", "channel")
    tuning = Tuning(plan, calibration, target, 1.0)
    shake(tuning)
    graph = to_intgraph(freeze(*tuning.result(), target))
    for node in graph.nodes:
        if node.op == "Conv":
            stand_in = tuning.net.stand_ins[node.name]
            steps = stand_in.step()
            wanted = torch.round(stand_in.conv.weight / steps).clamp(stand_in.lo, stand_in.hi)
            found = node.params["weight"]
            wrong = (torch.from_numpy(found) != wanted.detach().long()).float().mean()
            assert wrong <= 0.01, node.name


@pytest.mark.parametrize("reach", [1.0, None])
@pytest.mark.parametrize("aim", TARGETS)
def test_integer_weights_stay_in_their_range(aim: str, reach: float | None) -> None:
    plan, calibration, target = start("everything", aim)
    tuning = Tuning(plan, calibration, target, reach)
    shake(tuning)
    with torch.no_grad():
        for tensor in tuning.parameters["weights"]:
            tensor *= 50.0
    graph = to_intgraph(freeze(*tuning.result(), target))
    for node in graph.nodes:
        if node.op == "Conv":
            lo, hi = int_range(plan.weight_bits_of(node.name), True, target.integer.weights.narrow_range)
            assert lo <= node.params["weight"].min() and node.params["weight"].max() <= hi


def test_near_weights_stay_near() -> None:
    plan, calibration, target = start("residual", "channel")
    for reach in (0.5, 1.0):
        tuning = Tuning(plan, calibration, target, reach)
        with torch.no_grad():
            for index, tensor in enumerate(tuning.parameters["weights"]):
                tensor += 1e6 * (-1) ** index
        for index, name in enumerate(tuning.convs()):
            steps = torch.from_numpy(calibration.weights[name]).reshape(-1, 1, 1, 1)
            moved = (tuning.net.conv(name).weight.detach().double() - plan.layer(name).weight) / steps
            torch.testing.assert_close(moved, torch.full_like(moved, reach * (-1) ** index), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["joined", "image everywhere", "bicubic x2", "image sums", "filtered", "image residual"]
)
@pytest.mark.parametrize("aim", TARGETS)
def test_held_groups_never_move(name: str, aim: str) -> None:
    """One grey level, or a power of two of it beside a filtered image: no parameter reaches them."""
    plan, calibration, target = start(name, aim)
    held = {point.group for point in plan.points.values() if point.fixed or point.grey_fraction}
    tuning = Tuning(plan, calibration, target, 1.0)
    assert not held & set(tuning.free) and held
    tuning.learn(KINDS)
    adam = torch.optim.Adam([p for kind in KINDS for p in tuning.parameters[kind]], lr=0.05)
    for _ in range(3):
        adam.zero_grad()
        tuning.net(picture()).square().mean().backward()
        adam.step()
    _, after = tuning.result()
    for group in held:
        assert after.scales[group] == calibration.scales[group]
    moved = [group for group in tuning.free if after.scales[group] != calibration.scales[group]]
    assert moved or aim == "pow2" or not tuning.free, "what is free does move"
    fixed = {point.name for point in plan.points.values() if point.fixed}
    assert fixed >= {"image_quant"}
    for point in plan.points.values():
        if point.grey_fraction or (point.group == plan.points["image_quant"].group and point.source != point.tensor):
            assert tuning.net.quantizer(point.name).step().unique().numel() == 1


def test_grey_fractions_are_there_to_be_held() -> None:
    plan, _, _ = start("bicubic x2", "channel")
    assert any(point.grey_fraction for point in plan.points.values())


@pytest.mark.parametrize("name", ["residual", "joined", "concats"])
def test_steps_of_a_shift_only_target_are_powers_of_two_all_along(name: str) -> None:
    plan, calibration, target = start(name, "pow2")
    tuning = Tuning(plan, calibration, target, 1.0)
    tuning.learn(KINDS)
    adam = torch.optim.Adam([p for kind in KINDS for p in tuning.parameters[kind]], lr=0.3)
    moved = set()
    for index in range(6):
        adam.zero_grad()
        (tuning.net(picture(index)) - 128).square().mean().backward()
        adam.step()
        _, now = tuning.result()
        steps = [*now.scales.values(), *(float(step) for found in now.weights.values() for step in found)]
        assert all(np.frexp(step)[0] == 0.5 for step in steps)
        assert all(len(set(found.tolist())) == 1 for found in now.weights.values()), "one step per tensor"
        moved |= {group for group in tuning.free if now.scales[group] != calibration.scales[group]}
    assert moved
    assert_chain(*tuning.result(), target, [image(6)])


@pytest.mark.parametrize("law", [LogStep(), PowerOfTwoStep()])
def test_laws_invert(law: nn.Module) -> None:
    for exponent in range(-20, 12):
        step = torch.tensor([2.0**exponent])
        assert torch.equal(law(law.right_inverse(step)), step) or isinstance(law, LogStep)
        torch.testing.assert_close(law(law.right_inverse(step)), step, rtol=1e-6, atol=0)
        many = TensorStep(5, law)
        assert many.right_inverse(step.reshape(1, 1, 1, 1).expand(5, 1, 1, 1)).shape == (1,)
        assert many(many.right_inverse(step.reshape(1, 1, 1, 1).expand(5, 1, 1, 1))).shape == (5, 1, 1, 1)


def test_gradients_of_the_laws() -> None:
    raw = torch.tensor([0.3], requires_grad=True)
    LogStep()(raw).sum().backward()
    assert raw.grad.item() == pytest.approx(np.exp(0.3), rel=1e-6)
    raw = torch.tensor([2.4], requires_grad=True)
    found = PowerOfTwoStep()(raw)
    found.sum().backward()
    assert found.item() == 4.0 and raw.grad.item() == pytest.approx(4.0 * np.log(2), rel=1e-6)
    raw = torch.tensor([0.0], requires_grad=True)
    many = TensorStep(3, LogStep())(raw)
    (many * torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1, 1, 1)).sum().backward()
    assert raw.grad.item() == pytest.approx(7.0)
    start_, span = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.1])
    near = NearWeight(start_, span)
    raw = torch.tensor([0.7, -0.2], requires_grad=True)
    near(raw).sum().backward()
    torch.testing.assert_close(raw.grad, span / torch.cosh(raw.detach()).square())


def test_only_the_kinds_named_get_gradients() -> None:
    plan, calibration, target = start("joined", "channel")
    for kind in KINDS:
        tuning = Tuning(plan, calibration, target, 1.0)
        assert not any(p.requires_grad for p in tuning.net.parameters())
        tuning.learn((kind,))
        (tuning.net(picture()) - 100).square().mean().backward()
        for other in KINDS:
            got = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in tuning.parameters[other]]
            assert any(got) if other == kind else not any(got), (kind, other)


def test_learning_one_kind_leaves_the_others_to_the_last_bit() -> None:
    plan, calibration, target = start("concats", "channel")
    tuning = Tuning(plan, calibration, target, 1.0)
    shake(tuning, ("activations",))
    after, found = tuning.result()
    assert all(np.array_equal(found.weights[name], calibration.weights[name]) for name in found.weights)
    assert all(torch.equal(after.layer(name).weight, plan.layer(name).weight) for name in tuning.convs())
    assert all(found.scales[group] != calibration.scales[group] for group in tuning.free)


def test_channel_factors_of_the_image_and_the_output_are_one() -> None:
    plan, calibration, target = start("image sums", "channel")
    tuning = Tuning(plan, calibration, target)
    shake(tuning, ("channels",))
    for name in ("image", plan.net.output, "a", "add", "d"):
        assert torch.equal(tuning.channels.of(name), torch.ones(3))
    assert not torch.equal(tuning.channels.of("c"), torch.ones(5))


def test_biases_too_large_for_the_register_raise_the_step() -> None:
    """A learned bias still fits the target: `result` widens the weight step where it must."""
    target = nets.target("int-generic", **{"bias.bits": 12})
    plan = make_plan(normalize(network(nets.residual())), target, 8, 8)
    calibration = calibrate(plan, target, recipe(), [image(1)])
    tuning = Tuning(plan, calibration, target)
    with torch.no_grad():
        tuning.parameters["biases"][1] += 500.0
    assert_chain(*tuning.result(), target, [image(3)])


def test_other_weights_leave_the_float_network() -> None:
    plan, _, _ = start("residual", "channel")
    layer = plan.layer("c1")
    after = with_weights(plan, {"c1": (layer.weight * 2, layer.bias + 1)})
    assert torch.equal(after.layer("c1").weight, layer.weight * 2)
    assert after.net is plan.net and torch.equal(plan.layer("c1").weight, layer.weight)
