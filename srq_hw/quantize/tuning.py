"""The quantized network with everything that may be learned as parameters, kind by kind; reconstruction and QAT use it.

Steps are learned as logarithms, so one learning rate fits all; on a shift-only target they stay powers of two.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from srq_hw.fixedpoint import int_range
from srq_hw.normalform.normal import Layer, NormalNet
from srq_hw.quantize.brevitas_layers import QuantNet, Step
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.equalize import by_weight, channel_classes, scale_channels
from srq_hw.quantize.fakequant import FakeQuant, FakeQuantConv
from srq_hw.quantize.freeze import quant_net
from srq_hw.quantize.plan import QuantPlan, QuantPoint, with_zero_points
from srq_hw.quantize.requant import shifts_only
from srq_hw.quantize.weight_search import legal_steps, per_channel
from srq_hw.target import Target

Real = npt.NDArray[np.float64]

#: inputs of a sum from which on a weight's rate falls in inverse proportion (32 channels, 3x3)
FAN_IN = 288
#: what a Tuning can learn
KINDS = ("activations", "weight_steps", "biases", "weights", "channels")


class LogStep(nn.Module):
    """A positive step, learned as its logarithm."""

    def forward(self, raw: Tensor) -> Tensor:
        """exp(raw)."""
        return torch.exp(raw)

    def right_inverse(self, step: Tensor) -> Tensor:
        """log(step)."""
        return torch.log(step)


class PowerOfTwoStep(nn.Module):
    """A power of two, learned as a real exponent that is rounded; the gradient passes the rounding."""

    def forward(self, raw: Tensor) -> Tensor:
        """2 ** round(raw)."""
        return torch.exp2(raw + (torch.round(raw) - raw).detach())

    def right_inverse(self, step: Tensor) -> Tensor:
        """log2(step)."""
        return torch.log2(step)


class TensorStep(nn.Module):
    """One step for all output channels by a law: (1,) learned, (O, 1, 1, 1) seen.

    It holds the law because torch starts only the first parametrization of a tensor at the tensor's value.
    """

    def __init__(self, channels: int, law: LogStep | PowerOfTwoStep) -> None:
        super().__init__()
        self.channels, self.law = channels, law

    def forward(self, raw: Tensor) -> Tensor:
        """The same step for every channel."""
        return self.law.forward(raw).reshape(1, 1, 1, 1).expand(self.channels, 1, 1, 1)

    def right_inverse(self, step: Tensor) -> Tensor:
        """The first channel's step; all are the same."""
        return self.law.right_inverse(step[:1].reshape(1))


class NearWeight(nn.Module):
    """A weight that stays within ``reach`` steps of where it was: start + reach * step * tanh(raw)."""

    start: Tensor
    span: Tensor

    def __init__(self, start: Tensor, span: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.register_buffer("span", span)

    def forward(self, raw: Tensor) -> Tensor:
        """The weight (O, I/g, kh, kw)."""
        return self.start + self.span * torch.tanh(raw)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """0: where it starts."""
        return torch.zeros_like(weight)


class Tuning:
    """A trainable quantized network. ``reach``: how many steps a weight may move (None: freely).

    net: the QuantNet, channels-last float32; parameters: by kind of KINDS; units: what one unit of a rate means
    for each of them (1 for logarithms). Groups that `freeze` holds to grey levels are not among them.
    """

    def __init__(self, plan: QuantPlan, calibration: Calibration, target: Target, reach: float | None = None) -> None:
        plan = with_zero_points(plan, calibration.zero_points)
        self.plan, self.calibration, self.target = plan, calibration, target
        self.net: QuantNet = quant_net(plan, calibration, target)
        self.parameters: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
        self.units: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.first: dict[str, Tensor] = {}  # kind and name -> the step as float32 has it before anything is learned
        self.channels = ChannelFactors(plan.net)
        self._add("channels", self.channels.raw)
        self.free = sorted(
            {point.group for point in plan.points.values()}
            - {point.group for point in plan.points.values() if point.fixed or point.grey_fraction}
        )
        for group in self.free:
            self._learn_step(group, self.net.step(group), "activations", None)
        for name in self.convs():
            conv, step = self.net.conv(name), self.net.weight_step(name)
            span = step.value.detach().clone()
            channels = None if per_channel(target) else len(span)
            self._learn_step(name, step, "weight_steps", channels)
            if reach is not None:
                start = conv.weight.detach().clone()
                near = NearWeight(start, (reach * span).expand_as(start))
                parametrize.register_parametrization(conv, "weight", near)
                self._add("weights", _raw(conv, "weight"))
            else:
                self._add("weights", conv.weight, _unit_of(conv.weight.detach()))
            assert conv.bias is not None
            self._add("biases", conv.bias, self._reach_of(name))
        self._fuse()
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learn(())

    def convs(self) -> list[str]:
        """Names of the convolutions."""
        return [layer.name for layer in self.plan.layers if layer.op == "conv"]

    def _fuse(self) -> None:
        """Fused quantizers in place of the Brevitas ones; every parameter stays where it is."""
        rules = self.target.integer
        for name, point in self.plan.points.items():
            step = partial(self._activation_step, point)
            self.net.set_quantizer(name, FakeQuant(step, *point.range, rules.requant.rounding))
        for name in self.convs():
            lo, hi = int_range(self.plan.weight_bits_of(name), True, rules.weights.narrow_range)
            step = partial(self.weight_step, self.plan.net_layer(name))
            self.net.stand_ins[name] = FakeQuantConv(self.net.conv(name), step, lo, hi)

    def _activation_step(self, point: QuantPoint) -> Tensor:
        """The group's step, times each channel's factor where channels have any."""
        step: Tensor = self.net.step(point.group).value
        if not self.channels.learned:
            return step
        return step * self.channels.of(point.tensor).reshape(1, -1, 1, 1)

    def weight_step(self, conv: Layer) -> Tensor:
        """Steps of a convolution's weights before their channels are scaled: step * factor out / factor in."""
        step: Tensor = self.net.weight_step(conv.name).value
        if not self.channels.learned:
            return step
        inside = by_weight(conv, self.channels.of(conv.inputs[0]))
        return step * self.channels.of(conv.name).reshape(-1, 1, 1, 1) / inside

    def learn(self, kinds: Collection[str]) -> None:
        """Only these kinds get gradients."""
        for parameter in self.net.parameters():
            parameter.requires_grad_(False)
        for kind in kinds:
            for tensor in self.parameters[kind]:
                tensor.requires_grad_(True)
        self.channels.learned = self.channels.learned or "channels" in kinds

    def _scaled(self, conv: Layer) -> tuple[Tensor, Tensor]:
        """Weight and bias with the channels' factors in them, float64."""
        layer, module = self.plan.layer(conv.name), self.net.conv(conv.name)
        assert layer.weight is not None and layer.bias is not None and module.bias is not None
        weight = _moved(module.weight, layer.weight.float(), layer.weight)
        bias = _moved(module.bias, layer.bias.float(), layer.bias)
        if self.channels.learned:
            out = self.channels.of(conv.name).double()
            weight = weight * by_weight(conv, self.channels.of(conv.inputs[0]).double()) / out[:, None, None, None]
            bias = bias / out
        return weight.contiguous(), bias

    def _learn_step(self, name: str, step: Step, kind: str, channels: int | None) -> None:
        law = PowerOfTwoStep() if shifts_only(self.target) else LogStep()
        parametrize.register_parametrization(step, "value", law if channels is None else TensorStep(channels, law))
        self._add(kind, _raw(step, "value"))
        self.first[f"{kind} {name}"] = step.value.detach().clone()

    def _add(self, kind: str, parameter: Tensor, unit: float = 1.0) -> None:
        self.parameters[kind].append(parameter)
        self.units[kind].append(unit)

    def _reach_of(self, conv: str) -> float:
        """Largest value that the quantizer behind a convolution holds."""
        point = next(point for point in self.plan.points.values() if point.producer == conv)
        return self.calibration.scales[point.group] * point.range[1]

    def result(self) -> tuple[QuantPlan, Calibration]:
        """The plan with the weights and biases as they are now, and their calibration.

        What has not moved is what it was, to the last bit of float64. Learned channel factors scale the float network
        beside it too: the same function, channel by channel comparable.
        """
        with torch.no_grad():
            scales = dict(self.calibration.scales)
            for group in self.free:
                exact = torch.tensor(scales[group], dtype=torch.float64)
                scales[group] = float(_moved(self.net.step(group).value, self.first[f"activations {group}"], exact))
            plan = with_weights(self.plan, {name: self._scaled(self.plan.net_layer(name)) for name in self.convs()})
            if self.channels.learned:  # or bias correction would compare unlike channels
                plan = replace(plan, net=self.channels.scaled(plan.net))
            weights = {}
            for name in self.convs():
                layer = plan.layer(name)
                now, first = self.net.weight_step(name).value, self.first[f"weight_steps {name}"]
                steps = _moved(now.reshape(-1), first.reshape(-1), torch.from_numpy(self.calibration.weights[name]))
                source = scales[plan.point_of(layer.inputs[0]).group]
                weights[name] = legal_steps(steps.numpy(), layer, source, self.target)
        return plan, replace(self.calibration, scales=scales, weights=weights)


class ChannelFactors(nn.Module):
    """One factor per class of channels (`equalize.channel_classes`), learned as its logarithm; 1 where it is bound."""

    def __init__(self, net: NormalNet) -> None:
        super().__init__()
        self.classes, bound = channel_classes(net)
        free = sorted({int(index) for found in self.classes.values() for index in found} - bound)
        self.place = place = {index: position for position, index in enumerate(free)}
        self.raw = nn.Parameter(torch.zeros(len(free)))
        self.learned = False
        self.index = {
            name: torch.tensor([place.get(int(index), len(free)) for index in found])
            for name, found in self.classes.items()
        }

    def scaled(self, net: NormalNet) -> NormalNet:
        """The same function with the factors in its weights."""
        factors = self.raw.detach().exp().tolist()
        return scale_channels(net, self.classes, {index: factors[position] for index, position in self.place.items()})

    def of(self, tensor: str) -> Tensor:
        """Factor of each channel of a layer of the float network, (C,)."""
        return torch.cat([self.raw, self.raw.new_zeros(1)])[self.index[tensor]].exp()


def _unit_of(weight: Tensor) -> float:
    """What one unit of a rate means for a free weight: the layer's rms, less where more than FAN_IN weights add up, so
    that one step of Adam moves the sums of all layers alike."""
    return float(weight.square().mean().sqrt()) * min(1.0, FAN_IN / weight[0].numel())


def _moved(now: Tensor, first: Tensor, exact: Tensor) -> Tensor:
    """``now`` in float64, and the exact value where it still is what float32 made of that at first."""
    return torch.where(now == first, exact, now.double())


def _raw(module: nn.Module, name: str) -> Tensor:
    """The parameter behind a parametrization."""
    found: Any = module.parametrizations
    tensor: Tensor = found[name].original
    return tensor


def with_weights(plan: QuantPlan, tensors: dict[str, tuple[Tensor, Tensor]]) -> QuantPlan:
    """The plan with other weights (O, I/g, kh, kw) and biases (O,), float64, for the convolutions named.

    The float network inside the plan stays as it is: it is what the quantized one is compared with.
    """
    layers = tuple(
        replace(layer, weight=tensors[layer.name][0], bias=tensors[layer.name][1]) if layer.name in tensors else layer
        for layer in plan.layers
    )
    return replace(plan, layers=layers)
