"""Brevitas layers and quantizers built from a plan: the quantized network as a torch module.

Quantizers are Brevitas' own (RescalingIntQuant, IntQuant, QuantConv2d, QuantIdentity); ours are only the scale (a
shared parameter) and the rounding, which snaps a frozen pre-activation to the requantization grid before the tie rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.core.bit_width import BitWidthConst
from brevitas.core.function_wrapper import Identity, TensorClamp
from brevitas.core.quant import IntQuant, RescalingIntQuant
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.inject import ExtendedInjector
from brevitas.proxy import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from torch import Tensor, nn

from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.normalform.normal import LAYER_FUNCTIONS, Layer
from srq_hw.quantize.plan import QuantPlan, QuantPoint


class Step(nn.Module):
    """The real value of one integer: Brevitas' scaling_impl with a single parameter, () or (O, 1, 1, 1)."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        """The step, whatever the input."""
        return self.value


class UnitThreshold(nn.Module):
    """Brevitas divides scaling_impl by this; ours is a step already, so 1."""

    def forward(self, bit_width: Tensor) -> Tensor:
        """1, whatever the width."""
        return torch.ones_like(bit_width)


class RoundToInt(nn.Module):
    """x (in steps) to integers by a tie rule of `fixedpoint`; the gradient passes straight through.

    A frozen quantizer has ``grid`` = 2**S, () or (C, 1, 1): x lies on that grid but for float noise, which the first
    rounding removes (DESIGN 2); exact in float64 while |acc * M| < 2**53.
    """

    grid: Tensor | None

    def __init__(self, rounding: str) -> None:
        super().__init__()
        self.rounding = rounding
        self.register_buffer("grid", None)

    def forward(self, x: Tensor) -> Tensor:
        """Rounded x, same shape and type."""
        with torch.no_grad():
            snapped = x if self.grid is None else torch.round(x * self.grid) / self.grid
            rounded = ROUNDINGS[self.rounding].real(snapped, torch)
        return x + (rounded - x).detach() if x.requires_grad else rounded


class FixedZeroPoint(nn.Module):
    """Brevitas' zero_point_impl with one integer."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(float(value)))

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The integer of the real 0."""
        found: Tensor = self.value  # type: ignore[assignment]
        return found


def _tensor_quant(
    step: Step, bits: int, signed: bool, narrow: bool, rounding: str, zero_point: int = 0
) -> RescalingIntQuant:
    return RescalingIntQuant(
        int_quant=IntQuant(
            narrow_range=narrow,
            signed=signed,
            input_view_impl=Identity(),
            float_to_int_impl=RoundToInt(rounding),
            tensor_clamp_impl=TensorClamp(),
        ),
        scaling_impl=step,
        int_scaling_impl=UnitThreshold(),
        zero_point_impl=FixedZeroPoint(zero_point) if zero_point else ZeroZeroPoint(),
        bit_width_impl=BitWidthConst(bits),
    )


def _injector(proxy: type, **fields: Any) -> Any:
    """A Brevitas quantizer description with ready-made parts."""
    return type("Quantizer", (ExtendedInjector,), {"proxy_class": proxy, **fields})


def activation_quantizer(point: QuantPoint, step: Step, rounding: str) -> qnn.QuantIdentity:
    """A QuantIdentity of the point's type."""
    quant = _tensor_quant(step, point.bits, point.signed, False, rounding, point.zero_point)
    injector = _injector(ActQuantProxyFromInjector, tensor_quant=quant, signed=point.signed, narrow_range=False)
    return qnn.QuantIdentity(act_quant=injector, return_quant_tensor=False)


def quant_conv(layer: Layer, step: Step, bits: int, narrow: bool) -> qnn.QuantConv2d:
    """A QuantConv2d with the layer's weights; the bias stays real until `freeze` puts it on the accumulator's grid."""
    assert layer.weight is not None and layer.bias is not None
    out_channels, per_group, rows, columns = layer.weight.shape
    quant = _tensor_quant(step, bits, True, narrow, "half_even")
    conv = qnn.QuantConv2d(
        per_group * layer.groups,
        out_channels,
        (rows, columns),
        padding=(rows // 2, columns // 2),
        groups=layer.groups,
        bias=True,
        weight_quant=_injector(WeightQuantProxyFromInjector, tensor_quant=quant, signed=True, narrow_range=narrow),
    )
    with torch.no_grad():
        conv.weight.copy_(layer.weight)
        conv.bias.copy_(layer.bias)
    return conv


def _key(name: str) -> str:
    """A layer name as a key that cannot meet a method of ModuleDict ("pop", "type")."""
    return f"{name}_"


class QuantNet(nn.Module):
    """The quantized network: (N, C, H, W) grey levels 0..255 in and out.

    Quantizers of one group share one `Step`, so training moves them together. convs, quants, slopes: by layer name.
    """

    def __init__(
        self, plan: QuantPlan, scales: dict[str, float], weights: dict[str, Tensor], rounding: str, narrow: bool
    ) -> None:
        super().__init__()
        self.plan = plan
        self.steps = nn.ModuleDict({_key(group): Step(torch.tensor(value)) for group, value in scales.items()})
        self.convs = nn.ModuleDict()
        self.quants = nn.ModuleDict()
        self.slopes = nn.ParameterDict()
        self.limits: dict[str, float] = {}  # upper limit of a clipped ReLU
        self.stand_ins: dict[str, Callable[[Tensor], Tensor]] = {}  # by layer name: runs instead of a convolution
        for layer in plan.layers:
            if layer.op == "conv":
                step = Step(weights[layer.name].float().reshape(-1, 1, 1, 1))
                self.convs[_key(layer.name)] = quant_conv(layer, step, plan.weight_bits_of(layer.name), narrow)
            elif layer.op == "quant":
                point = plan.points[layer.name]
                self.quants[_key(layer.name)] = activation_quantizer(point, self.step(point.group), rounding)
            elif layer.op == "relu" and layer.limits is not None:
                self.limits[layer.name] = layer.limits[1]
            elif layer.op == "prelu":
                assert layer.slope is not None
                self.slopes[_key(layer.name)] = nn.Parameter(layer.slope.float())
        self.eval()

    def rounding_of(self, name: str) -> RoundToInt:
        """The rounding module of an activation quantizer."""
        quant: Any = self.quants[_key(name)]
        module: RoundToInt = quant.act_quant.fused_activation_quant_proxy.tensor_quant.int_quant.float_to_int_impl
        return module

    def quantizer(self, name: str) -> nn.Module:
        """The module of an activation quantizer."""
        return self.quants[_key(name)]

    def set_quantizer(self, name: str, quantizer: nn.Module) -> None:
        """Put another module in the place of an activation quantizer: same values forward, a gradient of its own."""
        self.quants[_key(name)] = quantizer

    def conv(self, name: str) -> qnn.QuantConv2d:
        """The Brevitas layer of a convolution."""
        return self.convs[_key(name)]

    def set_slope(self, name: str, values: Tensor) -> None:
        """Replace the slopes of a PReLU layer; one for all channels may become one per channel."""
        self.slopes[_key(name)] = nn.Parameter(values)

    def step(self, group: str) -> Step:
        """The shared scale of a quantizer group."""
        step: Step = self.steps[_key(group)]  # type: ignore[assignment]
        return step

    def weight_step(self, name: str) -> Step:
        """The scale module of a convolution's weights."""
        step: Step = self.conv(name).weight_quant.tensor_quant.scaling_impl
        return step

    def forward(self, image: Tensor, tap: Callable[[str, Tensor], None] | None = None) -> Tensor:
        """The output image in grey levels; `tap` sees every quantizer's output (real values on its grid)."""
        values: dict[str, Tensor] = {}
        for layer in self.plan.layers:
            values[layer.name] = self._compute(layer, [values[name] for name in layer.inputs], image)
            if tap and layer.op == "quant":
                tap(layer.name, values[layer.name])
        return values[self.plan.layers[-1].name]

    def _compute(self, layer: Layer, ins: list[Tensor], image: Tensor) -> Tensor:
        result: Tensor
        if layer.op == "image":
            return image
        if layer.op == "conv":
            result = self.stand_ins.get(layer.name, self.convs[_key(layer.name)])(ins[0])
        elif layer.op == "quant":
            result = self.quants[_key(layer.name)](ins[0])
        elif layer.op == "offset":
            result = ins[0] + ins[0].new_tensor(layer.offset)[None, :, None, None]
        elif layer.name in self.limits:
            result = ins[0].clamp(0.0, self.limits[layer.name])
        elif layer.op == "prelu":
            result = torch.nn.functional.prelu(ins[0], self.slopes[_key(layer.name)])
        else:
            result = LAYER_FUNCTIONS[layer.op](layer, ins)
        return result
