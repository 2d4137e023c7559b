"""Training inside an accumulator: the weights that a network in training sees are integers whose worst sums fit N bits.

A parametrization of each convolution's weight, so whatever reads it (the loss, `Tuning.result`) sees what fits. What is
learned stays real and uncut; every step of training projects it anew (as A2Q+, Colbert et al., ICML 2024, does with the
l1 norm). The gradient is the projection's own: of the weights that are left, w - t p, t the threshold that makes the
sum what it may be, so steps and biases learn what room they leave; rounding passes it straight through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from srq_hw.fixedpoint import int_range
from srq_hw.quantize.accumulator import error_weights, input_ranges, slack_of
from srq_hw.quantize.requant import multiplier_bits, shifts_only
from srq_hw.quantize.shrink import Inputs, shrink
from srq_hw.quantize.tuning import Tuning

Real = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bound:
    """Signed width of the accumulators, and the power of every convolution's input channels (`input_power`)."""

    bits: int
    power: dict[str, Real]


@dataclass(frozen=True)
class Limits:
    """What the integers of a convolution may be and reach: weights lo..hi; sums within +-reach less part * |bias|."""

    lo: int
    hi: int
    reach: float
    part: float


def hold(tuning: Tuning, bound: Bound) -> None:
    """From here on the network in training has weights whose sums fit the bound, and so has its result.

    What `freeze` still moves (the bias's rounding, a scale's last bits) is left free.
    """
    rules = tuning.target.integer
    bits = min(bound.bits, rules.accumulator.bits)
    part = 0.0 if shifts_only(tuning.target) else 2.0 ** (1 - multiplier_bits(tuning.target))
    for name in tuning.convs():
        lo, hi = int_range(tuning.plan.weight_bits_of(name), True, rules.weights.narrow_range)
        limits = Limits(lo, hi, int_range(bits, True)[1] - slack_of(bits), part)
        held = HeldWeight(
            partial(tuning.weight_step, tuning.plan.net_layer(name)),
            partial(_bias_in_steps, tuning, name),
            input_ranges(tuning.plan, name),
            error_weights(tuning.plan.layer(name), bound.power[name]),
            limits,
        )
        parametrize.register_parametrization(tuning.net.conv(name), "weight", held)


def _bias_in_steps(tuning: Tuning, conv: str) -> Tensor:
    """The bias as it is now, (O,), in steps of the accumulator."""
    source = tuning.plan.point_of(tuning.plan.layer(conv).inputs[0]).group
    steps = tuning.net.weight_step(conv).value.reshape(-1) * tuning.net.step(source).value
    bias: Tensor = tuning.net.conv(conv).bias
    return bias / (tuning.channels.of(conv) * steps)


class HeldWeight(nn.Module):
    """The weights nearest to the learned ones that are whole steps and whose worst sums fit.

    step: of every weight, (O, 1 or I/g, 1, 1); bias: (O,), in accumulator steps; importance: of a weight's error,
    (O, I/g, 1, 1).
    """

    least: Tensor
    most: Tensor
    importance: Tensor

    def __init__(
        self,
        step: Callable[[], Tensor],
        bias: Callable[[], Tensor],
        inputs: Inputs,
        importance: Real,
        limits: Limits,
    ) -> None:
        super().__init__()
        self.step, self.bias, self.limits = step, bias, limits
        for name, array in (("least", inputs.lo), ("most", inputs.hi), ("importance", importance)):
            self.register_buffer(name, torch.from_numpy(array.astype(np.float32)))

    def forward(self, weight: Tensor) -> Tensor:
        """Weights (O, I/g, kh, kw) that fit."""
        step, bias = self.step(), self.bias()
        values = (weight / step).flatten(1)
        free = self.limits.reach - self.limits.part * bias.abs()
        above, below = (free - bias).clamp_min(0.0), (free + bias).clamp_min(0.0)
        relief = (1 / (self.importance * step.detach().square())).expand(weight.shape).flatten(1)
        whole, thresholds = self._whole(values, (below, above), relief)
        real = self._projected(values, (above, below), relief, thresholds)
        return (real + (whole - real).detach()).reshape(weight.shape) * step

    @torch.no_grad()
    def _whole(self, values: Tensor, room: tuple[Tensor, Tensor], relief: Tensor) -> tuple[Tensor, Tensor]:
        """The integers that fit, and the thresholds of both ends."""
        below, above, least, most = (array.double().cpu().numpy() for array in (*room, self.least, self.most))
        found = shrink(
            values.double().cpu().numpy(),
            Inputs(least, most),
            (below, above),
            relief.double().cpu().numpy(),
            self.limits.lo,
            self.limits.hi,
        )
        whole, thresholds = (torch.from_numpy(array).to(values) for array in found)
        return whole, thresholds

    def _projected(self, values: Tensor, room: tuple[Tensor, Tensor], relief: Tensor, thresholds: Tensor) -> Tensor:
        """What the integers are rounded from, up to what rounding moved; thresholds with their gradients.

        Where a threshold t > 0 holds an end, t = (sum gain * size - room) / (sum gain * pull) over the weights left.
        A weight of which nothing is left keeps a gradient of its own, straight through: it may come back.
        """
        signs = torch.sign(values.detach())
        held, size = torch.zeros_like(values), values * signs
        gains = (torch.where(signs > 0, self.most, -self.least), torch.where(signs > 0, -self.least, self.most))
        for gain, limit, threshold in zip(gains, room, thresholds, strict=True):
            if not bool(threshold.any()):
                continue
            now = threshold[:, None]
            pull = relief * gain / gain.amax(1, keepdim=True).clamp_min(1.0)
            gain = gain * ((size > held + now * pull) & (now > 0))
            excess = (gain * (size - held)).sum(1, keepdim=True) - limit[:, None]
            slope = (gain * pull).sum(1, keepdim=True)
            own = torch.where(slope > 0, excess, 0.0) / torch.where(slope > 0, slope, 1.0)
            held = held + (now + own - own.detach()) * pull
        return torch.where(size > held, signs * (size - held), values).clamp(self.limits.lo, self.limits.hi)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight itself: what is learned need not fit."""
        return weight
