"""The trained network against the plan it came from and the integers it becomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srq_hw.errors import RunError
from srq_hw.normalform.normal import evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.qat.data import draw_batch
from srq_hw.qat.options import FQSR
from srq_hw.qat.rules import RULES
from srq_hw.qat.score import require_parity
from srq_hw.qat.student import StepRates, Student
from srq_hw.qat.train import image_loss, to_device
from srq_hw.quantize.accumulator import accumulator_bits, fit_accumulators
from srq_hw.quantize.fakequant import FakeQuantConv, fake_quant
from srq_hw.quantize.freeze import freeze, quant_net
from srq_hw.quantize.held import Bound
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.quantize.recipe import Policy
from srq_hw.quantize.weight_search import input_power
from tests.qat.tiny import aim, smooth, start, student, teacher, tensors_equal, training
from tests.quantize.nets import pow2_target, recipe


def batch() -> torch.Tensor:
    return draw_batch(training(), 4, 12, 0, 0)[0]


def move(one: Student, steps: int = 3) -> None:
    """A few steps, fast ones."""
    low, high = draw_batch(training(), 4, 12, 0, 0)
    adam = one.optimizer(StepRates(0.03, 0.02, 0.05, 0.02))
    one.begin_epoch(1)
    for _ in range(steps):
        adam.zero_grad()
        image_loss(one, None, low, high, 0.0).backward()
        adam.step()
        if one.observing:
            one.follow(4)
    one.net.eval()


@pytest.mark.parametrize("rule", RULES)
def test_training_starts_where_quantization_ended(rule: str) -> None:
    """Before the first step the student is the plain quantized network, and gives it back."""
    one = student(rule)
    plain = quant_net(start().plan, start().calibration, aim())
    one.net.eval()
    with torch.no_grad():
        torch.testing.assert_close(one.net(batch()), plain(batch()), rtol=0, atol=0)
    result = one.result()
    for name in one.tuning.convs():
        before, after = start().plan.layer(name), result.plan.layer(name)
        assert before.weight is not None and after.weight is not None
        assert torch.equal(after.weight, before.weight)
    for group, scale in start().calibration.scales.items():
        assert result.calibration.scales[group] == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_what_was_trained_is_what_is_frozen(rule: str) -> None:
    """Everything moved, and the integers of frozen model, fast simulator and reference are the same."""
    one = student(rule)
    before = one.tensors()
    move(one)
    after = one.tensors()
    moved = {key.split("/")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"weights", "biases", "weight_steps", "activations", "channels"} | (
        {"bounds"} if rule == "linq" else set()
    )
    found = require_parity(one.result(), aim(), smooth(9, 10))
    assert all(item.equal and item.elements > 100 for item in found)


@pytest.mark.parametrize("name", ["everything", "sums"])
def test_every_kind_of_layer_trains(name: str) -> None:
    one = Student(start(name), aim(), "lsq")
    low = batch()
    adam = one.optimizer(StepRates(0.03, 0.02, 0.05, 0.02))
    one.begin_epoch(0)
    (one.net(low) - 128.0).abs().mean().backward()
    assert all(tensor.grad is not None for tensor in one.learned.values())
    adam.step()
    require_parity(one.result(), aim(), smooth(9, 10))


def test_the_integers_trained_with_are_the_integers_written_down() -> None:
    """Freezing moves no integer weight, and no scale by more than its 16-bit multiplier needs."""
    one = student()
    move(one)
    result = one.result()
    frozen = freeze(result.plan, result.calibration, aim())
    for name, conv in frozen.convs.items():
        trained = one.net.stand_ins[name]
        assert isinstance(trained, FakeQuantConv)
        steps = trained.step().detach()  # (O, I/g, 1, 1) where channels have factors
        whole = fake_quant(one.net.conv(name).weight.detach(), steps, trained.lo, trained.hi) / steps
        assert np.array_equal(torch.round(whole).numpy(), conv.weight), name
        step = one.net.weight_step(name).value.detach()
        np.testing.assert_allclose(conv.weight_scale, step.reshape(-1).numpy(), rtol=2.0**-14)
    for quant in frozen.quants.values():
        assert quant.scale == pytest.approx(float(one.net.step(quant.point.group).value.detach()), rel=2.0**-14)


def test_state_comes_back() -> None:
    one, other = student("pams"), student("pams")
    move(one)
    assert not tensors_equal(one.tensors(), other.tensors())
    other.load(one.tensors())
    assert tensors_equal(one.tensors(), other.tensors())
    start_tensors = student("pams").tensors()
    assert one.result(start_tensors).calibration.scales == student("pams").result().calibration.scales
    assert tensors_equal(one.tensors(), other.tensors())  # looking at other values changes nothing
    with pytest.raises(RunError, match=r"weights/head is missing or has another shape"):
        other.load({name: tensor for name, tensor in one.tensors().items() if name != "weights/head"})


def test_pams_observes_one_epoch_then_learns() -> None:
    one = student("pams")
    learned = one.tuning.parameters["activations"]
    one.begin_epoch(0)
    assert one.observing and not any(tensor.requires_grad for tensor in learned)
    before = {group: float(one.net.step(group).value) for group in one.tuning.free}
    one.net(batch())
    one.follow(4)
    for group, step in before.items():
        members = [one.quantizers[name] for name in one.quantizers if one.plan.points[name].group == group]
        wanted = max(float(item.bound) / item.grid.hi for item in members)
        assert float(one.net.step(group).value) == pytest.approx(wanted, rel=1e-6)
        assert abs(wanted / step - 1) < 0.02  # the mean moves slowly
    one.begin_epoch(1)
    assert not one.observing and all(tensor.requires_grad for tensor in learned)


def test_pact_pulls_bounds_in() -> None:
    """The decay's gradient: d/dlog(s) of decay * (s / s0)**2 is 2 * decay at the start."""
    one = student("pact")
    one.tuning.learn(("activations",))
    one.decay().backward()
    for tensor in one.tuning.parameters["activations"]:
        assert tensor.grad is not None
        assert float(tensor.grad) == pytest.approx(2 * RULES["pact"].decay, rel=1e-5)


def test_steps_of_a_shifting_target_stay_powers_of_two() -> None:
    where = pow2_target()
    begun = quantize(normalize(teacher()), where, recipe(), [smooth(0)], 4, 4)
    one = Student(begun, where, "lsq")
    move(one, 6)
    result = one.result()
    exponents = np.log2(list(result.calibration.scales.values()))
    assert np.array_equal(exponents, np.rint(exponents))
    require_parity(result, where, smooth(9, 10))


@pytest.mark.parametrize("name", ["residual", "everything"])
def test_no_tensor_stays_on_the_cpu(name: str) -> None:
    """Forward and backward on torch's meta device, which refuses a CPU tensor as a GPU does."""
    one = Student(start(name), aim(), "lsq")
    reference = to_device(one.plan.net, torch.device("meta"))
    one.to("meta")
    one.net.train()
    low = torch.empty(2, 3, 12, 12, device="meta")
    output = one.net(low)
    (output - evaluate(reference, low)).abs().mean().backward()
    everything = [*one.net.parameters(), one.tuning.channels.raw]
    learned = [tensor for tensor in everything if tensor.requires_grad]
    assert len(learned) == len(one.learned)
    assert all(tensor.grad is not None and tensor.grad.is_meta for tensor in learned)


def test_full_quantization_leaves_nothing_wide() -> None:
    """FQSR's setting: first and last layers and the skips at 4 bits; only the image and the output have 8."""
    narrow = recipe().model_copy(update={"policy": FQSR})
    plan = quantize(normalize(teacher()), aim(), narrow, [smooth(0)], 4, 4).plan
    assert {point.bits for point in plan.points.values() if not point.fixed} == {4}
    assert {plan.weight_bits_of(layer.name) for layer in plan.layers if layer.op == "conv"} == {4}
    wide = narrow.model_copy(update={"policy": Policy(edges=8, sums=16)})
    plan = quantize(normalize(teacher()), aim(), wide, [smooth(0)], 4, 4).plan
    assert {point.bits for point in plan.points.values() if not point.fixed} == {4, 8, 16}


def test_weights_stay_within_the_accumulator() -> None:
    """Fast steps of everything learned: every frozen network fits, without a fit behind it."""
    bits, patches = 12, [smooth(seed) for seed in range(2)]
    plan, calibration = fit_accumulators(start().plan, start().calibration, aim(), bits, patches)
    assert plan is not start().plan, "nothing had to be done: the test says nothing"
    one = Student(Quantized(plan, calibration), aim(), "lsq", Bound(bits, input_power(plan.net, patches)))
    before = one.tensors()
    for _ in range(3):
        move(one, 2)
        result = one.result()
        assert max(accumulator_bits(freeze(result.plan, result.calibration, aim())).values()) <= bits
    assert not torch.equal(before["weights/head"], one.tensors()["weights/head"])
    assert all(item.equal for item in require_parity(one.result(), aim(), smooth(9, 10)))
