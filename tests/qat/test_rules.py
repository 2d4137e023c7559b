"""Learned quantizers: forward the target's integers, backward the formula of each rule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.qat.rules import LINQ_DECAY, PAMS_DECAY, RULES, ClipQuantize, Grid, LearnedQuantizer, lsq_quantize
from srq_hw.quantize.brevitas_layers import Step, activation_quantizer
from srq_hw.quantize.plan import QuantPoint

STEP = 0.5
#: in steps: far below, inside, at a tie, inside, far above the signed 4-bit range -8..7
VALUES = (-18.0, -0.6, 0.5, 6.4, 40.0)


def point(bits: int = 4, signed: bool = True) -> QuantPoint:
    return QuantPoint("q", "x", "x", bits, signed, "q", "x")


def quantizer(rule: str, signed: bool = True, step: Step | None = None, rounding: str = "half_up") -> LearnedQuantizer:
    shared = Step(torch.tensor(STEP)) if step is None else step
    return LearnedQuantizer(shared, lambda: shared.value, Grid(*point(signed=signed).range, rounding), RULES[rule])


def row(*values: float) -> Tensor:
    """One image, one channel."""
    return torch.tensor(values).reshape(1, 1, 1, -1)


def noise(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(seed)) * 4 * STEP


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_forward_is_the_plain_quantizer(rule: str, signed: bool, rounding: str) -> None:
    """What is trained is what is frozen: the values of Brevitas' quantizer on the same grid, bit for bit."""
    step = Step(torch.tensor(0.37))
    mine = quantizer(rule, signed, step, rounding).eval()
    theirs = activation_quantizer(point(signed=signed), step, rounding).eval()
    x = torch.cat([noise(), torch.arange(-40.0, 40.0).reshape(2, 2, 5, 4).repeat(1, 2, 1, 1)[:, :3] * 0.5 * 0.37])
    with torch.no_grad():
        assert torch.equal(mine(x), theirs(x))


def test_lsq_by_hand() -> None:
    """v = x/s: q = -8 -1 1 6 7, inside the errors q - v = -0.4 0.5 -0.4, outside q; N = 5 values, hi = 7."""
    x, step = (row(*VALUES) * STEP).requires_grad_(), torch.tensor(STEP, requires_grad=True)
    y = lsq_quantize(x, step, Grid(-8, 7, "half_up"))
    assert (y / STEP).flatten().tolist() == [-8, -1, 1, 6, 7]
    (y * row(1, 2, 3, 4, 5)).sum().backward()
    assert x.grad is not None and step.grad is not None
    assert x.grad.flatten().tolist() == [0, 2, 3, 4, 0]
    wanted = (-8 * 1 + -0.4 * 2 + 0.5 * 3 + -0.4 * 4 + 7 * 5) / (5 * 7) ** 0.5
    assert float(step.grad) == pytest.approx(wanted, rel=1e-6)


def test_lsq_is_the_straight_through_gradient() -> None:
    """Brevitas' chain (divide, round straight through, clamp, multiply), derived by autograd, but for LSQ's factor."""
    x = noise()
    v = x / STEP
    x = torch.where((v > 7) & (v < 7.5) | (v > -8.5) & (v < -8), torch.zeros_like(x), x)  # there only LSQ clips
    weigh = noise(1)
    gradients = []
    for signed in (True, False):
        values = x if signed else x.abs().clamp(max=40 * STEP)
        values = torch.where((values / STEP > 15) & (values / STEP < 15.5), 0.0, values) if not signed else values
        pair = []
        for which in ("ours", "theirs"):
            step = Step(torch.tensor(STEP))
            build = {
                "ours": lambda s, sign=signed: quantizer("lsq", sign, s),
                "theirs": lambda s, sign=signed: activation_quantizer(point(signed=sign), s, "half_up"),
            }[which]
            given = values.clone().requires_grad_()
            (build(step)(given) * weigh).sum().backward()
            assert given.grad is not None and step.value.grad is not None
            pair.append((given.grad, step.value.grad))
        factor = (x[0].numel() * (7 if signed else 15)) ** -0.5
        torch.testing.assert_close(pair[0][0], pair[1][0])
        torch.testing.assert_close(pair[0][1], pair[1][1] * factor, rtol=1e-4, atol=1e-5)
        gradients.append(float(pair[0][1]))
    assert all(abs(value) > 0.01 for value in gradients)


@pytest.mark.parametrize(("lo", "hi"), [(-8, 7), (0, 15)])
def test_clip_gradient_by_finite_differences(lo: int, hi: int) -> None:
    """PACT, PAMS: what the bound does without rounding, clamp(x, lo*s, hi*s), differenced in float64."""
    x, weigh = noise().double() * 2, noise(1).double()
    step = torch.tensor(STEP, dtype=torch.float64, requires_grad=True)
    given = x.clone().requires_grad_()
    (ClipQuantize.apply(given, step, Grid(lo, hi, "half_up")) * weigh).sum().backward()
    assert step.grad is not None and given.grad is not None

    def clipped(s: float) -> float:
        return float((x.clamp(lo * s, hi * s) * weigh).sum())

    difference = (clipped(STEP + 1e-6) - clipped(STEP - 1e-6)) / 2e-6
    assert abs(difference) > 1
    assert float(step.grad) == pytest.approx(difference, rel=1e-6)
    inside = (x / STEP >= lo) & (x / STEP <= hi)
    assert torch.equal(given.grad, weigh * inside) and 0 < int(inside.sum()) < x.numel()


@pytest.mark.parametrize("rule", ["pams", "linq"])
def test_observing_clips_nothing_and_learns_nothing(rule: str) -> None:
    """Each image has the step of its own max|x|; the gradient of x is 1, the shared step gets none."""
    mine = quantizer(rule)
    mine.observing = True
    x = torch.stack([row(-7.0, 3.4)[0], row(1.0, -14.0)[0]]).requires_grad_()
    y = mine(x)
    assert y[0].flatten().tolist() == [-7, 3] and y[1].flatten().tolist() == [2, -14]  # steps 1 and 2, half up
    y.sum().backward()
    assert x.grad is not None and bool((x.grad == 1).all()) and mine.shared.value.grad is None
    start, keep = STEP * 7, RULES[rule].momentum ** 2
    mine.follow(2)
    assert float(mine.bound) == pytest.approx(keep * start + (1 - keep) * 10.5, rel=1e-6)  # mean of 7 and 14


@pytest.mark.parametrize("rule", ["lsq", "pact", "pams"])
def test_channels_with_factors_have_steps_of_their_own(rule: str) -> None:
    """A step (1, C, 1, 1) is C quantizers side by side: values, gradient of x and of every channel's step."""
    x, weigh = noise(), noise(1)
    steps = torch.tensor([0.3, 0.5, 0.9]).reshape(1, 3, 1, 1).requires_grad_()
    grid, function = Grid(-8, 7, "half_up"), RULES[rule].function
    together = function(x, steps, grid)
    (together * weigh).sum().backward()
    factor = 3**-0.5 if rule == "lsq" else 1.0  # N counts all channels
    for channel in range(3):
        one = steps.detach()[0, channel, 0, 0].clone().requires_grad_()
        alone = function(x[:, channel : channel + 1], one, grid)
        (alone * weigh[:, channel : channel + 1]).sum().backward()
        assert torch.equal(alone, together[:, channel : channel + 1])
        assert steps.grad is not None and one.grad is not None
        torch.testing.assert_close(steps.grad[0, channel, 0, 0], one.grad * factor)


def test_a_dead_image_keeps_the_shared_step() -> None:
    mine = quantizer("linq", signed=False)
    mine.observing = True
    assert torch.equal(mine(torch.zeros(1, 1, 2, 2)), torch.zeros(1, 1, 2, 2))


def test_the_table() -> None:
    assert set(RULES) == {"lsq", "pact", "pams", "linq"}
    assert (PAMS_DECAY, LINQ_DECAY) == (0.9997, 0.99)
    assert [name for name, rule in RULES.items() if rule.decay] == ["pact"]
    assert {name: rule.observes for name, rule in RULES.items() if rule.observes != "never"} == {
        "pams": "first epoch",
        "linq": "always",
    }
