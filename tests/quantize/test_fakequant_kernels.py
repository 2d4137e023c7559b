"""The compiled loops of the fused quantizer: torch's own bits, whatever the layout or the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.quantize import fakequant, fakequant_kernels
from srq_hw.quantize.fakequant import fake_quant
from srq_hw.quantize.fakequant_kernels import layout_of

ROUNDING = sorted(ROUNDINGS)
LAST, FIRST = torch.channels_last, torch.contiguous_format

#: name -> shapes of x and step, memory, and (groups, rows of steps, period)
CASES = {
    "one step": ((2, 5, 7, 11), (), FIRST, (1, 1, 1)),
    "one step, channels last": ((2, 5, 7, 11), (), LAST, (1, 1, 1)),
    "one step, several chunks": ((3, 16, 31, 29), (1, 1, 1, 1), LAST, (1, 1, 1)),
    "one step, a vector": ((701,), (), FIRST, (1, 1, 1)),
    "channels": ((2, 3, 9, 10), (1, 3, 1, 1), FIRST, (6, 3, 1)),
    "channels, channels last": ((2, 3, 9, 10), (1, 3, 1, 1), LAST, (1, 1, 3)),
    "many channels": ((1, 700, 3, 2), (1, 700, 1, 1), LAST, (1, 1, 700)),
    "images": ((3, 2, 9, 10), (3, 1, 1, 1), LAST, (3, 3, 1)),
    "outputs": ((6, 4, 3, 3), (6, 1, 1, 1), LAST, (6, 6, 1)),
    "outputs, contiguous": ((6, 64, 3, 3), (6, 1, 1, 1), FIRST, (6, 6, 1)),
    "pairs": ((6, 4, 3, 3), (6, 4, 1, 1), LAST, (6, 6, 4)),
    "pairs, contiguous": ((2, 3, 8, 9), (2, 3, 1, 1), FIRST, (6, 6, 1)),
    "pairs of a 1x1 kernel": ((6, 4, 1, 1), (6, 4, 1, 1), FIRST, (6, 6, 4)),
}


def tensors(case: str, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x with ties, ends, signed zeros and values far outside; steps, powers of two among them; a gradient."""
    shape, steps, memory, _ = CASES[case]
    generator = torch.Generator().manual_seed(seed)
    step = (torch.rand(steps, generator=generator) + 0.1) * 0.3
    step = torch.where(torch.rand(steps, generator=generator) < 0.5, torch.exp2(torch.round(torch.log2(step))), step)
    x = torch.randn(shape, generator=generator) * 2
    on_grid = torch.round(x / step * 2) / 2 * step  # ties and integers, where the step is a power of two
    x = torch.where(torch.rand(shape, generator=generator) < 0.4, on_grid, x)
    flat = x.reshape(-1)
    flat[:8] = torch.tensor([0.0, -0.0, -1e-9, 1e-9, 1e30, -1e30, 3e36, -3e36])
    gradient = torch.randn(shape, generator=generator)
    if len(shape) == 4:
        x, gradient = x.contiguous(memory_format=memory), gradient.contiguous(memory_format=memory)
    return x, step, gradient


def by_torch(x: Tensor, step: Tensor, lo: int, hi: int, rounding: str) -> tuple[Tensor, Tensor, Tensor]:
    """x / step, the integers, and whether x is inside, one torch operation at a time in the type of x."""
    ratio = x / step
    whole = torch.round(ratio) if rounding == "half_even" else ROUNDINGS[rounding].real(ratio, torch)
    return ratio, whole.clamp(lo, hi), (ratio >= lo) & (ratio <= hi)


def bits(x: Tensor) -> Tensor:
    """float32 as int32: 0 and -0 differ."""
    return x.contiguous().view(torch.int32)


def run(x: Tensor, step: Tensor, gradient: Tensor, *options: object) -> tuple[Tensor, Tensor, Tensor]:
    """Result and gradients of x and step."""
    leaf, scale = x.clone().requires_grad_(), step.clone().requires_grad_()
    y = fake_quant(leaf, scale, *options)  # type: ignore[arg-type]
    y.backward(gradient)
    return y.detach(), leaf.grad, scale.grad  # type: ignore[return-value]


@pytest.mark.parametrize("case", CASES)
def test_layouts(case: str) -> None:
    x, step, _ = tensors(case)
    layout = layout_of(x, step)
    assert layout is not None
    assert (layout.groups, layout.rows, layout.period) == CASES[case][3]
    assert layout.groups * layout.length == x.numel()
    assert layout.flat(x).base is not None and layout.flat(x).ctypes.data == x.data_ptr(), "memory itself, no copy"


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("lo", "hi"), [(-8, 7), (0, 15)])
def test_the_bits_are_torchs(case: str, rounding: str, lo: int, hi: int) -> None:
    x, step, gradient = tensors(case)
    y, by_x, by_step = run(x, step, gradient, lo, hi, rounding)
    ratio, whole, inside = by_torch(x, step, lo, hi, rounding)
    assert torch.equal(bits(y), bits(whole * step))
    assert torch.equal(bits(by_x), bits(gradient * inside))
    assert y.stride() == x.stride()
    terms = (whole - ratio * inside) * gradient  # float32, then summed in float64
    exact = terms.double().sum_to_size(step.shape) if step.dim() else terms.double().sum()
    size = terms.double().abs().sum_to_size(step.shape) if step.dim() else terms.double().abs().sum()
    assert by_step.dtype == torch.float32 and by_step.shape == step.shape
    # float64 sums of a few thousand terms, rounded once to float32
    assert bool(((by_step.double() - exact).abs() <= exact.abs() * 2**-24 + size * 2**-40).all())


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("case", CASES)
def test_both_paths_agree(case: str, rounding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, step, gradient = tensors(case, 1)
    ours = run(x, step, gradient, -4, 3, rounding)
    monkeypatch.setattr(fakequant, "layout_of", lambda *_: None)
    theirs = run(x, step, gradient, -4, 3, rounding)
    assert torch.equal(bits(ours[0]), bits(theirs[0]))
    assert torch.equal(bits(ours[1]), bits(theirs[1]))
    torch.testing.assert_close(ours[2], theirs[2], rtol=1e-5, atol=1e-4)


def test_gradients_against_float64() -> None:
    """The whole computation again in float64, with values that are off the ties by more than float32 can err."""
    x, step, gradient = tensors("one step, several chunks", 2)
    wide = x.double()
    far = (wide / step - torch.floor(wide / step) - 0.5).abs() > 1e-3
    x = torch.where(far & (x.abs() < 1e6), x, torch.zeros_like(x))
    _, _, by_step = run(x, step, gradient, -8, 7, "half_even")
    ratio, whole, inside = by_torch(x.double(), step.double(), -8, 7, "half_even")
    exact = ((whole - ratio * inside) * gradient.double()).sum()
    assert float(by_step) == pytest.approx(float(exact), rel=1e-6)


def test_numbers_that_are_none() -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0] * 40, requires_grad=True)
    y = fake_quant(x, torch.tensor(0.5), -4, 3)
    assert y[:4].tolist()[1:] == [1.5, -2.0, 1.0] and bool(y[0].isnan())
    y.backward(torch.ones(160))
    assert x.grad is not None and x.grad[:4].tolist() == [0, 0, 0, 1]


def test_every_rounding_has_a_loop() -> None:
    assert set(fakequant_kernels.RULES) == set(ROUNDINGS)


NOT_SERVED = {
    "float64": (torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)),
    "mixed": (torch.randn(2, 3, 8, 8), torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64)),
    "half": (torch.randn(2, 3, 8, 8).bfloat16(), torch.tensor(0.5).bfloat16()),
    "a part": (torch.randn(2, 6, 8, 8)[:, ::2], torch.tensor(0.5)),
    "rows of pixels": (torch.randn(2, 3, 8, 8), torch.full((1, 1, 8, 1), 0.5)),
    "tiny contiguous channels": (torch.randn(4, 3, 3, 3), torch.full((4, 3, 1, 1), 0.5)),
    "a larger result": (torch.randn(2, 1, 8, 8), torch.full((1, 3, 1, 1), 0.5)),
    "more dimensions": (torch.randn(8), torch.full((1, 1), 0.5)),
    "nothing": (torch.randn(0, 3, 8, 8), torch.tensor(0.5)),
}


@pytest.mark.parametrize("case", NOT_SERVED)
def test_torch_serves_the_rest(case: str) -> None:
    x, step = NOT_SERVED[case]
    assert layout_of(x, step) is None
    y = fake_quant(x, step, -4, 3, "half_up")
    wanted = ROUNDINGS["half_up"].real(x / step, torch).clamp(-4, 3) * step
    assert y.dtype == wanted.dtype and torch.equal(y, wanted)


@pytest.mark.parametrize("kind", ["other memory", "expanded", "a part"])
def test_gradients_of_any_memory(kind: str) -> None:
    x, step, gradient = tensors("channels, channels last")
    given = {
        "other memory": gradient.contiguous(),
        "expanded": torch.tensor(0.7).expand_as(gradient),
        "a part": torch.cat([gradient, gradient], 1)[:, 1:4],
    }[kind]
    _, by_x, by_step = run(x, step, given, -8, 7, "floor")
    ratio, whole, inside = by_torch(x, step, -8, 7, "floor")
    assert torch.equal(by_x, given * inside)
    wanted = ((whole - ratio * inside) * given).double().sum_to_size(step.shape)
    torch.testing.assert_close(by_step.double(), wanted, rtol=1e-6, atol=1e-6)


def test_steps_seen_larger_than_they_are() -> None:
    """A step of one value expanded to all outputs, as `tuning.TensorStep` gives it."""
    x, _, gradient = tensors("outputs")
    step = torch.tensor([0.25], requires_grad=True)
    fake_quant(x, step.reshape(1, 1, 1, 1).expand(6, 1, 1, 1), -4, 3).backward(gradient)
    _, _, wanted = run(x, step.detach().reshape(1, 1, 1, 1), gradient, -4, 3)
    torch.testing.assert_close(step.grad, wanted.reshape(1), rtol=1e-6, atol=1e-5)
    for case in CASES:  # nor is there a layout for which the loops are compiled once more
        run(*tensors(case), -4, 3)
    kernels: tuple[Any, ...] = (fakequant_kernels._forward, fakequant_kernels._backward)
    assert [len(kernel.signatures) for kernel in kernels] == [1, 1]


@pytest.mark.parametrize("case", ["one step", "channels", "pairs"])
def test_only_what_is_asked_for_is_worked_out(case: str) -> None:
    x, step, gradient = tensors(case)
    kept = gradient.clone()
    _, by_x, by_step = run(x, step, gradient, -4, 3)
    leaf, scale = x.clone().requires_grad_(), step.clone().requires_grad_()
    fake_quant(leaf, step, -4, 3).backward(gradient)
    fake_quant(x, scale, -4, 3).backward(gradient)
    assert leaf.grad is not None and torch.equal(leaf.grad, by_x)
    assert scale.grad is not None and torch.equal(scale.grad, by_step)
    assert torch.equal(gradient, kept)


def test_gradients_of_gradients() -> None:
    """By torch: the gradient is linear in the one above it."""
    x, step, gradient = tensors("channels")
    leaf, above = x.clone().requires_grad_(), gradient.clone().requires_grad_()
    (by_x,) = torch.autograd.grad(fake_quant(leaf, step, -4, 3), leaf, above, create_graph=True)
    (found,) = torch.autograd.grad(by_x.sum(), above)
    assert torch.equal(found, by_torch(x, step, -4, 3, "half_even")[2].float())


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", ["one step, several chunks", "channels", "pairs"])
def test_threads_change_nothing(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakequant_kernels, "THREAD_LOAD", 64)
    monkeypatch.setattr(fakequant_kernels, "BLOCK", 4096)
    fakequant_kernels._layout.cache_clear()
    started = []
    real = fakequant_kernels.threading.Thread

    def counted(*args: object, **kwargs: object) -> object:
        started.append(1)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(fakequant_kernels.threading, "Thread", counted)
    x, step, gradient = tensors(case, 3)
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(run(x, step, gradient, -8, 7, "half_away"))
        assert len(started) == {1: 0, 2: 2, 3: 6}[count]
    fakequant_kernels._layout.cache_clear()
    for other in found[1:]:
        assert all(torch.equal(bits(a), bits(b)) for a, b in zip(found[0], other, strict=True))
