"""The fused quantizer: Brevitas' values bit for bit in float32, and the gradients of LSQ, written out by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from srq_hw.fixedpoint import ROUNDINGS, int_range
from srq_hw.normalform.normal import Layer
from srq_hw.quantize.brevitas_layers import Step, activation_quantizer, quant_conv
from srq_hw.quantize.fakequant import FakeQuant, FakeQuantConv, fake_quant
from srq_hw.quantize.plan import QuantPoint

ROUNDING = sorted(ROUNDINGS)
TYPES = [(2, False), (4, True), (4, False), (8, True), (16, True)]


def numbers(step: float, seed: int = 0) -> Tensor:
    """Inside, outside, on the grid, on ties, one float32 beside them, signed zeros: (1, 3, n, 4) float32."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.arange(-72, 72, dtype=torch.float32) * (step / 2)
    far = torch.randn(144, generator=generator) * step * 40
    parts = [grid, torch.nextafter(grid, grid + 1), torch.nextafter(grid, grid - 1), far]
    extra = torch.tensor([0.0, -0.0, 1e30, -1e30] * 36)
    return torch.cat([*parts, far * 1e3, extra]).reshape(1, 3, -1, 4)


def point(bits: int, signed: bool) -> QuantPoint:
    return QuantPoint("q", "a", "a", bits, signed, "q", "a")


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Equal values; 0 and -0 are one number here."""
    return left.dtype == right.dtype == torch.float32 and torch.equal(left, right)


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize(("bits", "signed"), TYPES)
@pytest.mark.parametrize("step", [0.25, 0.1, 3.7e-3, 41.0])
def test_activations_are_those_of_brevitas(rounding: str, bits: int, signed: bool, step: float) -> None:
    value = torch.tensor(step)
    brevitas = activation_quantizer(point(bits, signed), Step(value.clone()), rounding).eval()
    ours = FakeQuant(lambda: value, *int_range(bits, signed), rounding)
    x = numbers(step, bits)
    with torch.no_grad():
        wanted = brevitas(x)
    assert same_bits(ours(x), wanted)
    assert len(wanted.unique()) > 2
    assert int(torch.round(wanted.double() / value.double()).max()) == int_range(bits, signed)[1]


def weights(channels_in: int = 4, groups: int = 2) -> Layer:
    torch.manual_seed(3)
    weight = torch.randn(6, channels_in // groups, 3, 3, dtype=torch.float64)
    weight[1] *= 100
    weight[2] = torch.round(weight[2] * 8) / 8  # ties at a step of 0.25
    return Layer("conv", "c", ("x",), weight=weight, bias=torch.randn(6, dtype=torch.float64), groups=groups)


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("tensor", [True, False], ids=["per tensor", "per channel"])
def test_convolutions_are_those_of_brevitas(narrow: bool, bits: int, tensor: bool) -> None:
    layer = weights()
    steps = torch.tensor([0.25] * 6 if tensor else [0.3, 12.0, 0.25, 0.01, 0.5, 1e-3]).reshape(-1, 1, 1, 1)
    brevitas = quant_conv(layer, Step(steps.clone()), bits, narrow).eval()
    ours = FakeQuantConv(brevitas, lambda: steps, *int_range(bits, True, narrow))
    x = torch.randn(2, 4, 5, 6)
    with torch.no_grad():
        wanted = brevitas.quant_weight()
        values = fake_quant(brevitas.weight, steps, *int_range(bits, True, narrow))
        assert same_bits(values, wanted.value if hasattr(wanted, "value") else wanted)
        assert same_bits(ours(x), brevitas(x))
    least = torch.round(values / steps).min()
    assert least == int_range(bits, True, narrow)[0], "the lower end is met"


def by_hand(x: Tensor, step: Tensor, lo: int, hi: int, rounding: str, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients element by element in float64: straight through inside; rounding error inside, bound outside."""
    wide = step.expand_as(x)
    by_x, by_step = torch.zeros_like(x), torch.zeros_like(x)
    for index in itertools.product(*(range(size) for size in x.shape)):
        ratio = float(x[index]) / float(wide[index])
        if ratio < lo:
            by_step[index] = lo * gradient[index]
        elif ratio > hi:
            by_step[index] = hi * gradient[index]
        else:
            whole = float(ROUNDINGS[rounding].real(torch.tensor(ratio, dtype=torch.float64), torch))
            by_x[index], by_step[index] = gradient[index], (whole - ratio) * gradient[index]
    return by_x, by_step.sum_to_size(step.shape) if step.dim() else by_step.sum()


SHAPES = {"one": (), "channels": (1, 3, 1, 1), "rows": (2, 1, 1, 1), "pairs": (2, 3, 1, 1)}


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("lo", "hi"), [(-3, 3), (-4, 3), (0, 7)])
def test_gradients_by_hand(rounding: str, shape: str, lo: int, hi: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 3, 4, generator=generator, dtype=torch.float64) * 3
    x[0, 0, 0] = torch.tensor([0.0, lo * 0.75, hi * 0.75, 1e6])
    step = (torch.rand(SHAPES[shape], generator=generator, dtype=torch.float64) + 0.5).requires_grad_()
    weight = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    fake_quant(x, step, lo, hi, rounding).backward(weight)
    by_x, by_step = by_hand(x.detach(), step.detach(), lo, hi, rounding, weight)
    assert step.grad is not None and step.grad.shape == step.shape
    assert torch.equal(x.grad, by_x)
    torch.testing.assert_close(step.grad, by_step, rtol=1e-12, atol=1e-12)


def test_the_ends_of_the_range_are_inside() -> None:
    x = torch.tensor([-4.0, 3.0, -4.25, 3.25, 3.4, -4.4], requires_grad=True)
    step = torch.tensor(1.0, requires_grad=True)
    fake_quant(x, step, -4, 3).backward(torch.ones(6))
    assert x.grad.tolist() == [1, 1, 0, 0, 0, 0]
    assert step.grad == pytest.approx(0 + 0 - 4 + 3 + 3 - 4)


def difference(function, at: Tensor, width: float = 1e-6) -> Tensor:
    """Central differences of a scalar function at every element."""
    found = torch.zeros_like(at)
    flat, out = at.detach().clone().reshape(-1), found.reshape(-1)
    for index in range(flat.numel()):
        ends = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[index] += sign * width
            ends.append(function(moved.reshape(at.shape)))
        out[index] = (ends[0] - ends[1]) / (2 * width)
    return found


def test_finite_differences_where_there_is_a_derivative() -> None:
    """Outside the range the function itself is differentiable; inside, the one with its rounding error held."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 2, 3, 2, generator=generator, dtype=torch.float64) * 6
    step = torch.tensor([0.5, 0.8], dtype=torch.float64).reshape(1, 2, 1, 1)
    weight = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    lo, hi = -4, 3
    inside = ((x / step) >= lo) & ((x / step) <= hi)
    error = (torch.round(x / step) - x / step).detach()

    def held(values: Tensor, steps: Tensor) -> Tensor:
        return torch.where(inside, values + error * steps, (values / steps).clamp(lo, hi) * steps)

    leaf, scale = x.clone().requires_grad_(), step.clone().requires_grad_()
    found = fake_quant(leaf, scale, lo, hi)
    torch.testing.assert_close(found.detach(), held(x, step), rtol=0, atol=1e-12)
    found.backward(weight)
    assert bool(inside.any()) and bool((~inside).any())
    torch.testing.assert_close(leaf.grad, difference(lambda v: (held(v, step) * weight).sum(), x), rtol=0, atol=1e-7)
    torch.testing.assert_close(scale.grad, difference(lambda s: (held(x, s) * weight).sum(), step), rtol=0, atol=1e-7)
    out = torch.where(inside, 0.0, weight)
    real = difference(lambda s: (fake_quant(x, s, lo, hi) * out).sum(), step)
    again = step.clone().requires_grad_()
    fake_quant(x, again, lo, hi).backward(out)
    torch.testing.assert_close(again.grad, real, rtol=0, atol=1e-7)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    x = torch.randn(2, 3)
    step = torch.tensor(0.5, requires_grad=True)
    fake_quant(x, step, -4, 3).sum().backward()
    assert x.grad is None and step.grad is not None
    leaf = x.clone().requires_grad_()
    fake_quant(leaf, step.detach(), -4, 3).sum().backward()
    assert leaf.grad is not None
    assert not fake_quant(x, step.detach(), -4, 3).requires_grad


@pytest.mark.parametrize("rounding", ROUNDING)
def test_the_input_is_left_as_it_is(rounding: str) -> None:
    """The clamp works in place, on its own tensor: integers with a step of 1 must not be clamped in the caller's."""
    x = torch.tensor([-9.0, -1.0, 0.0, 9.0])
    kept = x.clone()
    assert fake_quant(x, torch.tensor(1.0), -4, 3, rounding).tolist() == [-4, -1, 0, 3]
    assert torch.equal(x, kept)


def test_a_convolution_learns_its_own_weights_and_bias() -> None:
    layer = weights()
    steps = torch.full((6, 1, 1, 1), 0.25, requires_grad=True)
    conv = quant_conv(layer, Step(steps.detach().clone()), 4, True).eval()
    FakeQuantConv(conv, lambda: steps, -7, 7)(torch.randn(1, 4, 5, 5)).square().sum().backward()
    assert conv.weight.grad is not None and bool((conv.weight.grad[0] != 0).any())
    assert conv.bias.grad is not None and bool((conv.bias.grad != 0).all())
    assert steps.grad is not None and steps.grad.shape == (6, 1, 1, 1)
