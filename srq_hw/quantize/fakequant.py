"""One fused quantize-dequantize for training: what the Brevitas quantizers compute, in a third of their time.

Gradient of x: straight through inside the range, 0 outside. Gradient of the step (LSQ, Esser et al., ICLR 2020): the
rounding error inside, the bound outside. `Tuning` trains with it; freezing goes through the Brevitas layers as always.
float32 on the CPU runs in compiled loops, everything else by torch: the same values and gradients of x to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.quantize.fakequant_kernels import gradients, layout_of, quantize


def _by_torch(x: Tensor, step: Tensor, lo: int, hi: int, rounding: str) -> tuple[Tensor, Tensor]:
    """x / step, and that rounded and clamped: on any device, of any type and shape."""
    ratio = x / step
    whole = torch.round(ratio) if rounding == "half_even" else ROUNDINGS[rounding].real(ratio, torch)
    return ratio, whole.clamp_(lo, hi) if whole is not ratio else whole.clamp(lo, hi)


class _FakeQuant(torch.autograd.Function):
    """y = clamp(round(x / step), lo, hi) * step; x itself is kept for the gradient, so it may not change until then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, lo: int, hi: int, rounding: str) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.range, ctx.layout = (lo, hi, rounding), layout_of(x, step)
        if ctx.layout is not None:
            return quantize(x, step, lo, hi, rounding, ctx.layout)
        return _by_torch(x, step, lo, hi, rounding)[1] * step

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = upstream
        x, step = (tensor.detach() for tensor in ctx.saved_tensors)
        lo, hi, rounding = ctx.range
        if ctx.layout is not None and not gradient.requires_grad:  # else the gradient of a gradient is wanted
            wanted = ctx.needs_input_grad[:2]
            return *gradients(gradient, x, step, lo, hi, rounding, ctx.layout, wanted), None, None, None
        ratio, whole = _by_torch(x, step, lo, hi, rounding)
        inside = ratio.clamp(lo, hi) == ratio
        by_step = None
        if ctx.needs_input_grad[1]:
            error = (ratio * inside).neg_().add_(whole) * gradient
            by_step = error.sum_to_size(step.shape) if step.dim() else error.sum()
        by_x = gradient * inside if ctx.needs_input_grad[0] else None
        return by_x, by_step, None, None, None


def fake_quant(x: Tensor, step: Tensor, lo: int, hi: int, rounding: str = "half_even") -> Tensor:
    """x on the grid of ``step`` (broadcast), clamped to lo..hi steps; ties by a rule of `fixedpoint`."""
    result: Tensor = _FakeQuant.apply(x, step, lo, hi, rounding)
    return result


class FakeQuant(nn.Module):
    """A quantizer of activations: ``step`` gives its step, () or (1, C, 1, 1)."""

    def __init__(self, step: Callable[[], Tensor], lo: int, hi: int, rounding: str) -> None:
        super().__init__()
        self.step, self.lo, self.hi, self.rounding = step, lo, hi, rounding

    def forward(self, x: Tensor) -> Tensor:
        """Quantized x, same shape."""
        return fake_quant(x, self.step(), self.lo, self.hi, self.rounding)


class FakeQuantConv(nn.Module):
    """A convolution with quantized weights; it takes over the parameters of the Brevitas layer it stands for.

    ``step`` gives the weights' steps, (O, 1, 1, 1) or (O, I/g, 1, 1).
    """

    def __init__(self, conv: Any, step: Callable[[], Tensor], lo: int, hi: int) -> None:
        super().__init__()
        self.conv, self.step, self.lo, self.hi = conv, step, lo, hi

    def forward(self, x: Tensor) -> Tensor:
        """(N, I, H, W) to (N, O, H, W)."""
        weight = fake_quant(self.conv.weight, self.step(), self.lo, self.hi)
        return nn.functional.conv2d(x, weight, self.conv.bias, padding=self.conv.padding, groups=self.conv.groups)
