"""Learned activation quantizers: one integer grid, several rules for the gradient of its step.

Forward every rule is y = s * clamp(round(x / s), lo, hi) with the integers and the tie rule of the target, so what is
trained is what `freeze` writes down. Written v = x / s, q = the integer, and "outside" for v < lo or v > hi, the
backward passes are

====== ==================== ======================================== =============================================
rule   dy/dx                dy/ds                                    source
====== ==================== ======================================== =============================================
lsq    1 inside, 0 outside  (q - v inside, q outside) / sqrt(N * hi) Esser et al., ICLR 2020 (N: values per image)
pact   1 inside, 0 outside  0 inside, q outside; L2 decay of s       Choi et al., 2018 (alpha = s * hi)
pams   1 inside, 0 outside  0 inside, q outside                      Li et al., ECCV 2020; first epoch: see Rule
linq   1                    none: s follows the data                 linear quantizer, the ablation of CADyQ's paper
====== ==================== ======================================== =============================================

PACT and PAMS learn a bound alpha = s * hi, hence dy/ds = hi * dy/dalpha: alpha reaches the output through clipped
values alone. PACT was defined behind a ReLU; on signed tensors the bound is symmetric, as in PAMS. Signed integers here
have one value more below zero (-2**(b-1)), as the hardware has, where PAMS stops at -alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.quantize.brevitas_layers import Step
from srq_hw.quantize.fakequant import fake_quant

#: PAMS, and CADyQ after it: what one image leaves of the running mean of max|x|
PAMS_DECAY = 0.9997
#: LinQ: the running mean that inference uses
LINQ_DECAY = 0.99


@dataclass(frozen=True)
class Grid:
    """Integers lo..hi and a tie rule of `fixedpoint`."""

    lo: int
    hi: int
    rounding: str

    def integers(self, scaled: Tensor) -> Tensor:
        """x / s to integers, same shape and type."""
        rounded: Tensor = ROUNDINGS[self.rounding].real(scaled, torch)
        return rounded.clamp(self.lo, self.hi)


class _GradientTimes(torch.autograd.Function):
    """The tensor itself; its gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def lsq_quantize(x: Tensor, step: Tensor, grid: Grid) -> Tensor:
    """Learned step size (Esser et al., ICLR 2020): the step learns from the rounding error.

    x: (N, C, H, W); step: () or (1, C, 1, 1), > 0. dy/dx = 1 for lo <= v <= hi, else 0; dy/ds = q - v there, q
    elsewhere; the step's gradient times 1 / sqrt(N * hi), N the number of values per image.
    """
    factor = (x[0].numel() * grid.hi) ** -0.5
    return fake_quant(x, _GradientTimes.apply(step, factor), grid.lo, grid.hi, grid.rounding)


class ClipQuantize(torch.autograd.Function):
    """Learned clip value (PACT, PAMS): the bound s * hi learns from the clipped values alone.

    dy/dx = 1 for lo <= v <= hi, else 0; dy/ds = 0 there, q (lo or hi) elsewhere.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, grid: Grid) -> Tensor:
        """x: (N, C, H, W); step: () or (1, C, 1, 1), > 0."""
        scaled = x / step
        integers = grid.integers(scaled)
        inside = (scaled >= grid.lo) & (scaled <= grid.hi)
        ctx.save_for_backward(inside, integers.masked_fill(inside, 0.0))
        ctx.shape = step.shape
        return integers * step

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None]:
        """Gradients of x and step."""
        (gradient,) = gradients
        inside, clipped = ctx.saved_tensors
        return gradient * inside, (gradient * clipped).sum_to_size(ctx.shape), None


class DynamicQuantize(torch.autograd.Function):
    """Linear quantizer on a step that the data gave: nothing is clipped, dy/dx = 1, the step learns nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, grid: Grid) -> Tensor:
        """x: (N, C, H, W); step: (N, 1 or C, 1, 1) > 0."""
        return grid.integers(x / step) * step

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        """The gradient of x."""
        return gradients[0], None, None


@dataclass(frozen=True)
class Rule:
    """One learned quantizer.

    function: forward and backward; observes: when the bound is the running mean of each image's max|x| (nothing is
    clipped and nothing learned of it then): "never", in the "first epoch", or "always"; momentum: what one image leaves
    of that mean; decay: L2 decay of the bound in units of where it started (real units differ from network to network).
    """

    title: str
    function: Callable[[Tensor, Tensor, Grid], Tensor]
    observes: str = "never"
    momentum: float = 0.0
    decay: float = 0.0


RULES: dict[str, Rule] = {
    "lsq": Rule("learned step size", lsq_quantize),
    "pact": Rule("learned clip value, L2 decay", ClipQuantize.apply, decay=2e-4),
    "pams": Rule("learned clip value, running mean of max|x| first", ClipQuantize.apply, "first epoch", PAMS_DECAY),
    "linq": Rule("running mean of max|x|", ClipQuantize.apply, "always", LINQ_DECAY),
}


class LearnedQuantizer(nn.Module):
    """An activation quantizer with the gradient of a rule.

    shared: the step that the quantizer's group has, () real units; step: what it multiplies integers by, the same or
    that times a factor of every channel (`Tuning`). bound: running mean of max|x| (of x over its channel's factor);
    seen: its mean over the batch that just passed. In eval mode it is the plain quantizer that `freeze` takes over.
    """

    bound: Tensor
    seen: Tensor

    def __init__(self, shared: Step, step: Callable[[], Tensor], grid: Grid, rule: Rule) -> None:
        super().__init__()
        self.shared, self.step, self.grid, self.rule = shared, step, grid, rule
        self.observing = False
        start = shared.value.detach() * grid.hi
        self.register_buffer("bound", start.clone())
        self.register_buffer("seen", start.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Quantized x, same shape: real values on the grid."""
        step = self.step()
        if not (self.training and self.observing):
            return self.rule.function(x, step, self.grid)
        step = step.detach()
        largest = (x.detach() / step).abs().amax((1, 2, 3), keepdim=True)  # in steps
        self.seen.copy_(largest.mean() * self.shared.value.detach())
        dynamic = step * torch.where(largest > 0, largest / self.grid.hi, torch.ones_like(largest))
        return DynamicQuantize.apply(x, dynamic, self.grid)

    def follow(self, images: int) -> None:
        """Move the running mean by the batch that passed, `images` images of the same mean."""
        keep = self.rule.momentum**images
        self.bound.mul_(keep).add_(self.seen, alpha=1.0 - keep)
