"""Bias correction: quantization must not move the mean of a convolution's output channels.

Nagel et al., ICCV 2019 ("Data-free quantization", section 4.2) with measured means: the bias gains
E[float pre-activation] - E[quantized pre-activation].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srq_hw.normalform.normal import evaluate
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.freeze import quant_net
from srq_hw.quantize.plan import QuantPlan
from srq_hw.quantize.stepwise import Stepwise, Values, batches
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]


def correct_bias(
    plan: QuantPlan, calibration: Calibration, target: Target, patches: Sequence[Image]
) -> dict[str, Tensor]:
    """New biases, float64 (O,), by convolution. patches: uint8 (H, W, C); every pixel of them weighs the same.

    Convolutions are corrected in execution order, each on the outputs of those corrected before it. A channel whose
    corrected bias would no longer fit the target's bias register keeps its own.
    """
    wanted = _float_means(plan, patches)
    net = quant_net(plan, calibration, target)
    walk = Stepwise(net, batches(patches))
    limit = 2.0 ** (min(target.integer.bias.bits, target.integer.accumulator.bits) - 2)
    values: Values = {}
    found: dict[str, Tensor] = {}
    for index, layer in enumerate(plan.layers):
        values = walk.run(values, index, index + 1)
        if layer.op != "conv":
            continue
        assert layer.bias is not None
        shift = wanted[layer.name] - _means(values[layer.name])
        steps = torch.from_numpy(calibration.weights[layer.name])
        steps = steps * calibration.scales[plan.point_of(layer.inputs[0]).group]
        fits = (layer.bias + shift).abs() <= limit * steps
        shift = torch.where(fits, shift, torch.zeros_like(shift))
        found[layer.name] = layer.bias + shift
        values[layer.name] = [part + shift.to(part.dtype)[None, :, None, None] for part in values[layer.name]]
    return found


def with_biases(plan: QuantPlan, biases: Mapping[str, Tensor]) -> QuantPlan:
    """The plan with other biases in its quantized layers; the float network beside it (`plan.net`) keeps its own."""
    layers = tuple(replace(layer, bias=biases[layer.name]) if layer.name in biases else layer for layer in plan.layers)
    return replace(plan, layers=layers)


def _float_means(plan: QuantPlan, patches: Sequence[Image]) -> dict[str, Tensor]:
    """Mean of every output channel of every convolution of the float network, float64 (O,)."""
    convs = {layer.name for layer in plan.net.layers if layer.op == "conv"}
    sums: dict[str, Tensor] = {}
    pixels: dict[str, int] = {}

    def tap(name: str, values: Tensor) -> None:
        if name in convs:
            sums[name] = sums.get(name, 0) + values.double().sum((0, 2, 3))
            pixels[name] = pixels.get(name, 0) + values.shape[0] * values.shape[2] * values.shape[3]

    with torch.no_grad():
        for images in batches(patches):
            evaluate(plan.net, images * plan.net.grey_level, tap)
    return {name: sums[name] / pixels[name] for name in sums}


def _means(parts: list[Tensor]) -> Tensor:
    pixels = sum(part.shape[0] * part.shape[2] * part.shape[3] for part in parts)
    total = torch.stack([part.double().sum((0, 2, 3)) for part in parts]).sum(0)
    return total / pixels
