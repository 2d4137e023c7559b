"""The network that QAT trains: a `Tuning` with learned activation quantizers, weights counted in their own steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from srq_hw.errors import RunError
from srq_hw.fixedpoint import int_range
from srq_hw.qat.rules import RULES, Grid, LearnedQuantizer
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.fakequant import FakeQuant
from srq_hw.quantize.held import Bound, hold
from srq_hw.quantize.plan import QuantPlan
from srq_hw.quantize.ptq import Quantized
from srq_hw.quantize.tuning import Tuning
from srq_hw.target import Target

#: what is learned, of the kinds that a Tuning has
KINDS = ("activations", "weight_steps", "biases", "weights", "channels")
#: a bias moves as fast as one weight whose input has this part of the layer's largest input
BIAS_INPUT = 0.25


class InUnits(nn.Module):
    """A tensor learned in units of its own: value = unit * raw, so that one learning rate fits all layers.

    Counted from ``start``, which is exact: unit * (start / unit) is another float32 for one value in eight, and a bias
    or a weight near a tie would freeze to another integer before anything is learned.
    """

    unit: Tensor
    start: Tensor
    first: Tensor

    def __init__(self, unit: Tensor, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("unit", unit)
        self.register_buffer("start", start)
        self.register_buffer("first", start / unit)

    def forward(self, raw: Tensor) -> Tensor:
        """The value, same shape."""
        return self.start + self.unit * (raw - self.first)

    def right_inverse(self, value: Tensor) -> Tensor:
        """value / unit."""
        return value / self.unit


@dataclass(frozen=True)
class StepRates:
    """First learning rates (Adam): weights in parts of their grids' reach; logarithms of steps and channel factors."""

    weights: float
    weight_steps: float
    activations: float
    channels: float

    def of(self, kind: str) -> float:
        """The rate of a kind of KINDS."""
        return float(getattr(self, "weights" if kind == "biases" else kind))


class Student:
    """A quantized network in training. ``rule``: a key of RULES; ``bound``: accumulators that its weights stay within.

    net: the QuantNet; learned: every learned tensor by name ("weights/<conv>", "activations/<group>", ...).
    """

    def __init__(self, start: Quantized, target: Target, rule: str, bound: Bound | None = None) -> None:
        self.tuning = Tuning(start.plan, start.calibration, target)
        self.net = self.tuning.net
        self.rule = RULES[rule]
        self.quantizers = self._replace_quantizers(target.integer.requant.rounding)
        self._count_in_reaches(target.integer.weights.narrow_range)
        if bound:
            hold(self.tuning, bound)
        self.tuning.learn(KINDS)
        names = {kind: self.tuning.convs() for kind in KINDS}
        names |= {"activations": self.tuning.free, "channels": ["all"]}
        self.learned: dict[str, Tensor] = {
            f"{kind}/{name}": tensor
            for kind in KINDS
            for name, tensor in zip(names[kind], self.tuning.parameters[kind], strict=True)
        }
        self.first_steps = {group: float(self.net.step(group).value.detach()) for group in self.tuning.free}

    def _replace_quantizers(self, rounding: str) -> dict[str, LearnedQuantizer]:
        """Ours in the place of every quantizer whose step is free."""
        found = {}
        for name, point in self.tuning.plan.points.items():
            if point.group in self.tuning.free:
                plain = self.net.quantizer(name)
                assert isinstance(plain, FakeQuant)
                shared = self.net.step(point.group)
                found[name] = LearnedQuantizer(shared, plain.step, Grid(*point.range, rounding), self.rule)
                self.net.set_quantizer(name, found[name])
        return found

    def _count_in_reaches(self, narrow: bool) -> None:
        """Weights in units of the largest weight that their grid holds: a layer of 8 bits moves as far as one of 4."""
        plan, scales = self.tuning.plan, self.tuning.calibration.scales
        raw_weights: list[Tensor] = []
        raw_biases: list[Tensor] = []
        for name in self.tuning.convs():
            conv = self.net.conv(name)
            reach = self.net.weight_step(name).value.detach() * int_range(plan.weight_bits_of(name), True, narrow)[1]
            source = plan.point_of(plan.layer(name).inputs[0])
            largest = scales[source.group] * source.range[1]
            assert conv.bias is not None
            units = {"weight": (reach, conv.weight), "bias": (reach.reshape(-1) * (largest * BIAS_INPUT), conv.bias)}
            for key, (unit, value) in units.items():
                parametrize.register_parametrization(conv, key, InUnits(unit, value.detach().clone()))
            raw_weights.append(_raw(conv, "weight"))
            raw_biases.append(_raw(conv, "bias"))
        self.tuning.parameters |= {"weights": raw_weights, "biases": raw_biases}

    def optimizer(self, rates: StepRates) -> torch.optim.Adam:
        """Adam over everything learned; biases go with the weights."""
        groups = [{"params": self.tuning.parameters[kind], "lr": rates.of(kind)} for kind in KINDS]
        return torch.optim.Adam(groups, betas=(0.9, 0.999))

    def to(self, device: torch.device | str) -> None:
        """Move everything learned."""
        self.net.to(device)
        self.tuning.channels.to(device)

    # --- bounds that follow the data ------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """epoch: from 0. Training mode; bounds are observed where the rule says so."""
        observing = self.rule.observes == "always" or (self.rule.observes == "first epoch" and epoch == 0)
        self.net.train()
        for quantizer in self.quantizers.values():
            quantizer.observing = observing
        for tensor in self.tuning.parameters["activations"]:
            tensor.requires_grad_(not observing)
            tensor.grad = None

    @property
    def observing(self) -> bool:
        """Whether bounds follow the data now."""
        return any(quantizer.observing for quantizer in self.quantizers.values())

    def follow(self, images: int) -> None:
        """After a batch: running means on, and every group's step to the widest bound of its quantizers."""
        wanted: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, quantizer in self.quantizers.items():
                quantizer.follow(images)
                group = self.tuning.plan.points[name].group
                step = quantizer.bound / quantizer.grid.hi
                wanted[group] = torch.maximum(wanted[group], step) if group in wanted else step
            for group, step in wanted.items():
                if float(step) > 0:
                    self.net.step(group).value = step  # type: ignore[assignment]  # through the parametrization

    def decay(self) -> Tensor:
        """What the rule adds to the loss: its decay times the sum of (bound / first bound) ** 2 over the groups."""
        ratios = [self.net.step(group).value / first for group, first in self.first_steps.items()]
        return self.rule.decay * torch.stack(ratios).square().sum()

    # --- state ----------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, by name: copies."""
        bounds = {f"bounds/{name}": quantizer.bound for name, quantizer in self.quantizers.items()}
        return {name: tensor.detach().clone() for name, tensor in (self.learned | bounds).items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The state `tensors` gave."""
        here = self.learned | {f"bounds/{name}": quantizer.bound for name, quantizer in self.quantizers.items()}
        with torch.no_grad():
            for name, tensor in here.items():
                if name not in tensors or tensors[name].shape != tensor.shape:
                    raise RunError(f"QAT checkpoint: {name} is missing or has another shape; it belongs to another run")
                tensor.copy_(tensors[name])

    def result(self, tensors: Mapping[str, Tensor] | None = None) -> Quantized:
        """Plan and calibration of these values (None: of now), ready for `freeze`."""
        if tensors is None:
            return Quantized(*self.tuning.result())
        kept = self.tensors()
        self.load(tensors)
        try:
            return Quantized(*self.tuning.result())
        finally:
            self.load(kept)

    @property
    def plan(self) -> QuantPlan:
        """The plan training started from; its float network is the teacher."""
        return self.tuning.plan

    @property
    def calibration(self) -> Calibration:
        """The calibration training started from."""
        return self.tuning.calibration


def _raw(module: nn.Module, name: str) -> nn.Parameter:
    """The parameter behind a parametrization."""
    raw = module.parametrizations[name].original  # type: ignore[index, union-attr]
    assert isinstance(raw, nn.Parameter)
    return raw
