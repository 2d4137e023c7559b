"""Freeze: every real requantization ratio becomes M / 2**S, the scales follow, and floats agree with integers.

After it, s_x * s_w[c] / s_y is a dyadic number exactly (in float64), a bias is a whole number of accumulator steps, and
the Brevitas model run in float64 gives the integers of the IntGraph, tie for tie (DESIGN 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from srq_hw.errors import InputError, RunError
from srq_hw.fixedpoint import int_range, round_real
from srq_hw.normalform.normal import Layer
from srq_hw.quantize.brevitas_layers import QuantNet
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.plan import PASS_THROUGH, QuantPlan, QuantPoint, with_zero_points
from srq_hw.quantize.requant import multiplier_bits, multipliers, shifts_only, significant, slope_multipliers
from srq_hw.quantize.scales import solve_scales
from srq_hw.quantize.sums import align, exact_step
from srq_hw.target import Target

Int = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]

#: |acc * M| of the worst image stays below this: float64 sums then lie within half a grid step of the exact value
FLOAT64_LIMIT = 2.0**49
#: float64 noise of an integer times its scale divided by the scale, in steps
GRID_NOISE = 1e-6


@dataclass(frozen=True)
class FrozenConv:
    """weight int64 (O, I/g, kh, kw); bias int64 (O,), LSB = input_scale * weight_scale[o]; scales are real."""

    weight: Int
    bias: Int
    input_scale: float
    weight_scale: Real


@dataclass(frozen=True)
class FrozenQuant:
    """y = clamp(round(acc * multiplier / 2**shift)); int64 (1,) or (C,) each; None for the image, which is integers.

    limit: largest integer behind a clipped ReLU, None where only the type limits.
    """

    point: QuantPoint
    scale: float
    multiplier: Int | None
    shift: Int | None
    negative_multiplier: Int | None
    limit: int | None = None


@dataclass(frozen=True, eq=False)
class Frozen:
    """The whole network in integers and the real scales that belong to them."""

    plan: QuantPlan
    rounding: str
    convs: dict[str, FrozenConv]
    quants: dict[str, FrozenQuant]


def freeze(plan: QuantPlan, calibration: Calibration, target: Target) -> Frozen:
    """Snap all scales for the target. InputError where a slope or a range cannot be met by its requantization."""
    plan = with_zero_points(plan, calibration.zero_points)
    fixed = {point.group for point in plan.points.values() if point.fixed}
    fractions = {point.group for point in plan.points.values() if point.grey_fraction}
    scales = solve_scales(calibration.scales, fixed, edges_of(plan), _sum_bits(plan, target), fractions)
    convs: dict[str, FrozenConv] = {}
    quants: dict[str, FrozenQuant] = {}
    for layer in plan.layers:
        if layer.op != "quant":
            continue
        point = plan.points[layer.name]
        scale = scales[point.group]
        producer = plan.layer(point.producer)
        if producer.op == "image":
            quants[layer.name] = FrozenQuant(point, scale, None, None, None)
            continue
        source_scale = scales[_point_in_front(plan, producer).group]
        lsb = np.array([exact_step(producer, source_scale)])
        if producer.op == "add":
            lsb = np.array([align(plan, producer, scales)[1]])
        if producer.op == "conv":
            lsb = source_scale * calibration.weights[producer.name]
            if target.integer.weights.granularity == "tensor":
                lsb = lsb[:1]
        multiplier, shift = multipliers(lsb / scale, target)
        negative = None
        activation = plan.layer(point.source)
        if activation.op == "prelu":
            multiplier, shift, negative = _slopes(plan, activation, multiplier, shift, target)
        limit = _limit(activation, point, scale, target)
        quants[layer.name] = FrozenQuant(point, scale, multiplier, shift, negative, limit)
        if producer.op == "conv":
            convs[producer.name] = _freeze_conv(plan, producer, quants[layer.name], source_scale, calibration, target)
    return Frozen(plan, target.integer.requant.rounding, convs, quants)


def _sum_bits(plan: QuantPlan, target: Target) -> int:
    """Width of the multipliers behind sums: where some slope is above 1 its own multiplier needs a bit more."""
    steep = any(layer.slope is not None and float(layer.slope.max()) > 1 for layer in plan.layers)
    return max(1, multiplier_bits(target) - steep)


def edges_of(plan: QuantPlan) -> list[tuple[str, str]]:
    """(group in front, group behind) of every requantization without weights: sums and activations of their own."""
    edges = []
    for point in plan.points.values():
        producer = plan.layer(point.producer)
        if producer.op not in ("conv", "image"):
            edges.append((_point_in_front(plan, producer).group, point.group))
    return edges


def _point_in_front(plan: QuantPlan, producer: Layer) -> QuantPoint:
    """The quantizer whose integers a producer works on; a narrower quantizer works on the wider one's."""
    if producer.op in ("quant", *PASS_THROUGH):
        return plan.point_of(producer.name)
    filtered = [name for name in producer.inputs if plan.layer(name).op == "filter"]
    return plan.point_of((filtered or producer.inputs)[0])  # beside a filtered image all scales follow the image's


def _limit(activation: Layer, point: QuantPoint, scale: float, target: Target) -> int | None:
    """Largest integer behind a ReLU with an upper limit v: round(v / scale) by the target's rule, or None without one.

    Every tie rule is monotone, so round(min(x, v) / s) = min(round(x / s), round(v / s)): clamping the integer is
    clamping first, ties included.
    """
    if activation.op != "relu" or activation.limits is None:
        return None
    return min(point.range[1], int(round_real(activation.limits[1] / scale, target.integer.requant.rounding)))


def _slopes(plan: QuantPlan, layer: Layer, multiplier: Int, shift: Int, target: Target) -> tuple[Int, Int, Int]:
    """Second multiplier for negative accumulators; the effective slope becomes negative_multiplier / multiplier."""
    assert layer.slope is not None
    slope = layer.slope.numpy()
    where = f"network {plan.net.name}, layer {layer.name}"
    limits = target.integer.ops.Requant
    if limits is None or "prelu" not in limits.activations:
        raise InputError(f"{where}: target {target.name} has no PReLU (integer.ops.Requant.activations); use ReLU")
    if shifts_only(target) and limits.slope_bits is None:
        raise InputError(f"{where}: a PReLU needs a multiplier, target {target.name} only shifts; use ReLU")
    if slope.min() < limits.slope_min or slope.max() > limits.slope_max:
        raise InputError(
            f"{where}: slopes {slope.min():g}..{slope.max():g}; target {target.name} allows "
            f"{limits.slope_min:g}..{limits.slope_max:g} (integer.ops.Requant)"
        )
    return slope_multipliers(multiplier, shift, slope, target)


def _freeze_conv(
    plan: QuantPlan, layer: Layer, quant: FrozenQuant, source_scale: float, calibration: Calibration, target: Target
) -> FrozenConv:
    assert layer.weight is not None and layer.bias is not None
    assert quant.multiplier is not None and quant.shift is not None
    weight, bias = layer.weight.numpy(), layer.bias.numpy()
    lo, hi = int_range(plan.weight_bits_of(layer.name), True, target.integer.weights.narrow_range)
    steps = calibration.weights[layer.name]
    weight_int = np.clip(np.rint(weight / steps[:, None, None, None]), lo, hi).astype(np.int64)
    weight_scale = np.broadcast_to(quant.scale * quant.multiplier / (np.exp2(quant.shift) * source_scale), bias.shape)
    bias_int = significant(bias / (source_scale * weight_scale))
    limit = (1 << (target.integer.bias.bits - 1)) - 1
    if (np.abs(bias_int) > limit).any():  # calibration leaves a factor of two; merged scales may use it up
        raise InputError(
            f"network {plan.net.name}, layer {layer.name}: a bias of {int(np.abs(bias_int).max())} accumulator steps; "
            f"target {target.name} holds {limit} (integer.bias.bits). Use fewer weight or activation bits."
        )
    frozen = FrozenConv(weight_int, bias_int, source_scale, weight_scale.copy())
    _require_float64(plan, layer, frozen, quant)
    return frozen


def _require_float64(plan: QuantPlan, layer: Layer, conv: FrozenConv, quant: FrozenQuant) -> None:
    assert quant.multiplier is not None
    point = plan.point_of(layer.inputs[0])
    worst = max(abs(edge) for edge in point.range) + max((abs(o) for o in _offsets(plan)), default=0)
    reach = np.abs(conv.weight).sum((1, 2, 3)) * worst + np.abs(conv.bias)
    factor = quant.multiplier
    if quant.negative_multiplier is not None:
        factor = np.maximum(factor, np.abs(quant.negative_multiplier))
    product = float((reach * factor).max())
    if product >= FLOAT64_LIMIT:
        raise InputError(
            f"network {plan.net.name}, layer {layer.name}: accumulator times multiplier reaches {product:.3g}, float64 "
            f"proves equality below {FLOAT64_LIMIT:.3g}; use a target with fewer multiplier_bits or fewer bits"
        )


def _offsets(plan: QuantPlan) -> tuple[int, ...]:
    return next((layer.offset for layer in plan.layers if layer.offset is not None), ())


# --- the frozen Brevitas model ------------------------------------------------------------------------------------


def quant_net(plan: QuantPlan, calibration: Calibration, target: Target) -> QuantNet:
    """The Brevitas model before freezing (float32, trainable)."""
    plan = with_zero_points(plan, calibration.zero_points)
    weights = {name: torch.from_numpy(steps) for name, steps in calibration.weights.items()}
    rules = target.integer
    return QuantNet(plan, calibration.scales, weights, rules.requant.rounding, rules.weights.narrow_range)


def load_frozen(net: QuantNet, frozen: Frozen) -> QuantNet:
    """Put the frozen scales, weights, biases and grids into the Brevitas model and switch it to float64 (in place)."""
    net.double()
    with torch.no_grad():
        for quant in frozen.quants.values():
            net.step(quant.point.group).value.copy_(torch.tensor(quant.scale, dtype=torch.float64))
            if quant.shift is not None:
                grid = torch.from_numpy(np.exp2(np.maximum(quant.shift, 0)))
                rounding = net.rounding_of(quant.point.name)
                rounding.grid = grid.reshape(-1, 1, 1) if grid.numel() > 1 else grid.reshape(())
            if quant.negative_multiplier is not None and quant.multiplier is not None:
                slope = torch.from_numpy(quant.negative_multiplier / quant.multiplier)
                net.set_slope(quant.point.source, slope)
            if quant.limit is not None:  # on the grid: clamping there is clamping the integer
                net.limits[quant.point.source] = quant.limit * quant.scale
        for name, conv in frozen.convs.items():
            scale = torch.from_numpy(conv.weight_scale).reshape(-1, 1, 1, 1)
            net.weight_step(name).value.copy_(scale)
            net.conv(name).weight.copy_(torch.from_numpy(conv.weight.astype(np.float64)) * scale)
            net.conv(name).bias.copy_(torch.from_numpy(conv.bias * (conv.input_scale * conv.weight_scale)))
    return net


def run_frozen(net: QuantNet, frozen: Frozen, image: npt.NDArray[np.integer]) -> dict[str, Int]:
    """Every quantized tensor and the output image of the frozen Brevitas model as integers, int64 NHWC, by layer name.

    image: (H, W, C) or (N, H, W, C) grey levels. RunError where a tensor is not on its grid: rounding it here would
    do a quantizer's work.
    """
    found: dict[str, Int] = {}

    def keep(name: str, value: torch.Tensor) -> None:
        point = frozen.plan.point_of(name)
        steps = value / frozen.quants[point.name].scale
        whole = torch.round(steps)
        if not bool(((steps - whole).abs() < GRID_NOISE).all()):
            raise RunError(f"parity: {name} of the frozen Brevitas model is not quantized; its values are off the grid")
        found[name] = whole.permute(0, 2, 3, 1).numpy().astype(np.int64) + point.zero_point

    batch = np.asarray(image)[None] if np.asarray(image).ndim == 3 else np.asarray(image)
    with torch.inference_mode():
        output = net(torch.from_numpy(batch.astype(np.float64)).permute(0, 3, 1, 2), keep)
        keep(frozen.plan.layers[-1].name, output)  # a last shuffle has no quantizer behind it
    return found
