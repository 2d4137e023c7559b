"""Accumulator-aware quantization: weights whose worst sum fits into N bits, whatever the image.

For a convolution with integer weights w, integer inputs in [lo_i, hi_i] (0 among them: padding) and bias b, the sum
reaches  b + sum_i max(w_i lo_i, w_i hi_i)  and  b + sum_i min(w_i lo_i, w_i hi_i). Both ends are weighted l1 norms of
w, so the nearest weights that fit are a soft threshold of the given ones: the projection onto an l1 ball (Colbert et
al., A2Q, ICCV 2023, bound the same norm in training). Here it is done in integers: a weight loses whole steps, the
ones that cost least first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srq_hw.errors import RunError
from srq_hw.fixedpoint import bits_for, int_range
from srq_hw.normalform.normal import Layer, channel_counts, evaluate
from srq_hw.quantize.bias import correct_bias, with_biases
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.equalize import by_weight
from srq_hw.quantize.freeze import Frozen, freeze, quant_net
from srq_hw.quantize.plan import QuantPlan
from srq_hw.quantize.requant import BIAS_SIGNIFICANT_BITS, shifts_only
from srq_hw.quantize.shrink import Inputs, shrink
from srq_hw.quantize.stepwise import batches
from srq_hw.quantize.tuning import with_weights
from srq_hw.quantize.weight_search import importance_of, input_power, per_channel
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]
Real = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

#: a step is tried at 2 ** (k / this) times its size
STEPS_PER_OCTAVE = 4
#: a step never grows by more octaves than this
OCTAVES = 20
#: freezes after which everything must fit; each leaves more room than the one before
ATTEMPTS = 8
#: input channels weigh at least this part of their mean power, so that what calibration never saw is not thrown away
LEAST_POWER = 1e-2


def input_ranges(plan: QuantPlan, conv: str) -> Inputs:
    """From the type of the quantizer in front, and the offset of the image where the convolution reads it."""
    layer = plan.layer(conv)
    by_name = {item.name: item for item in plan.layers}
    channels = channel_counts(plan.layers, plan.net.channels)[layer.inputs[0]]
    lo, hi = plan.point_of(layer.inputs[0]).range
    source, offset = by_name[layer.inputs[0]], np.zeros(channels)
    while source.name not in plan.points:
        if source.op == "offset":
            assert source.offset is not None
            low, high = min(*source.offset, 0), max(*source.offset, 0)
            own = np.array(source.offset, np.float64)
            exact = len(own) == channels and layer.inputs[0] == source.name
            lows, highs = (own, own) if exact else (np.full(channels, low), np.full(channels, high))
            return _by_weight(layer, lo + lows, hi + highs)
        source = by_name[source.inputs[0]]
    return _by_weight(layer, lo + offset, hi + offset)


def _by_weight(conv: Layer, lo: Real, hi: Real) -> Inputs:
    """Ranges of input channels (I,) on the weights of a (grouped) convolution, (O, I/g * kh * kw)."""
    assert conv.weight is not None
    ends = (torch.from_numpy(np.minimum(lo, 0.0)), torch.from_numpy(np.maximum(hi, 0.0)))
    return Inputs(*(by_weight(conv, end).expand(conv.weight.shape).flatten(1).numpy() for end in ends))


def worst_case(weight: Int, bias: Int, inputs: Inputs) -> tuple[Int, Int]:
    """Smallest and largest sum of every output channel, int64 (O,). weight: (O, ...); bias: (O,)."""
    rows = weight.reshape(len(weight), -1)
    lo, hi = inputs.lo.astype(np.int64), inputs.hi.astype(np.int64)
    positive, negative = np.maximum(rows, 0), np.minimum(rows, 0)
    return (
        (positive * lo + negative * hi).sum(1) + bias,
        (positive * hi + negative * lo).sum(1) + bias,
    )


# --- one convolution ----------------------------------------------------------------------------------------------


def fit_weights(
    weight: Real,
    steps: Real,
    bias: Real,
    inputs: Inputs,
    power: Real,
    int_weights: tuple[int, int],
    room: tuple[float, float],
    together: bool,
    pow2: bool,
) -> tuple[Real, Real]:
    """Weights (O, I/g, kh, kw) on the grid of new steps (O,), whose worst sums lie within room.

    Every output channel keeps its step and loses whole steps of its weights, or gets a larger step (less is lost then,
    but all is coarser), whichever has the smaller error, sum power * (w - w')^2. A channel that fits stays as it is
    (rounded). bias: in accumulator steps at the given steps; room: smallest and largest sum; together: one step for all
    channels; pow2: steps grow by powers of two only.
    """
    rows, own = weight.reshape(len(weight), -1), steps[:, None]
    importance = np.broadcast_to(power, weight.shape).reshape(len(weight), -1)
    best, factor, least = np.zeros_like(rows), np.ones((len(rows), 1)), np.full(len(rows), np.inf)
    octave = 1 if pow2 else STEPS_PER_OCTAVE
    for index in range(OCTAVES * octave + 1):
        growth = 2.0 ** (index / octave)
        down, up = bias / growth - room[0], room[1] - bias / growth
        possible = (down >= 0) & (up >= 0)
        values = rows / (own * growth)
        whole, _ = shrink(values, inputs, (np.maximum(down, 0), np.maximum(up, 0)), 1 / importance, *int_weights)
        error = np.where(possible, (importance * (rows - whole * own * growth) ** 2).sum(1), np.inf)
        if together:
            error = np.full(len(rows), error.sum())
        better = error < least
        best = np.where(better[:, None], whole * own * growth, best)
        factor = np.where(better[:, None], growth, factor)
        least = np.where(better, error, least)
        if possible.all() and (np.clip(np.rint(values), *int_weights) == whole).all():
            break  # nothing is lost any more: larger steps are only coarser
    if not np.isfinite(least).all():
        raise RunError(
            f"a bias of {float(np.abs(bias).max()):g} accumulator steps leaves no room for any weight between "
            f"{room[0]:g} and {room[1]:g}; allow more (accumulator_bits of the recipe)"
        )
    return best.reshape(weight.shape), (own * factor).reshape(-1)


# --- a network ----------------------------------------------------------------------------------------------------


def accumulator_bits(frozen: Frozen) -> dict[str, int]:
    """Signed width that holds every sum of each convolution, from its integers and the types of its inputs."""
    found = {}
    for name, conv in frozen.convs.items():
        lo, hi = worst_case(conv.weight, conv.bias, input_ranges(frozen.plan, name))
        found[name] = bits_for(int(lo.min()), int(hi.max()), signed=True)
    return found


def error_weights(layer: Layer, power: Real) -> Real:
    """How much an error of each weight counts, float64 (O, I/g, 1, 1), > 0; power: of the input channels, (I,)."""
    seen = np.maximum(power, LEAST_POWER * power.mean())
    return importance_of(layer, seen if seen.any() else np.ones_like(seen))


def slack_of(bits: int) -> float:
    """Room that rounding the bias may take of a sum of so many bits."""
    return 2.0 + 2.0 ** (bits - BIAS_SIGNIFICANT_BITS)


def fit_accumulators(
    plan: QuantPlan, calibration: Calibration, target: Target, bits: int, patches: Sequence[Image]
) -> tuple[QuantPlan, Calibration]:
    """The network whose convolutions all sum within ``bits`` (or the target's accumulator where that is narrower).

    What is taken from the weights shifts the means of their outputs, so biases are corrected on the patches (uint8
    (H, W, C)) before the last fit. Convolutions that fit stay as they are. RunError, with the layer, where no weight of
    it or nothing beside its bias has room.
    """
    bits = min(bits, target.integer.accumulator.bits)
    fitted = _fit(plan, calibration, target, bits, patches)
    if fitted[0] is plan:
        return fitted
    touched = {
        layer.name
        for layer in plan.layers
        if layer.op == "conv" and layer.weight is not fitted[0].layer(layer.name).weight
    }
    biases = correct_bias(*fitted, target, patches)
    corrected = with_biases(fitted[0], {name: bias for name, bias in biases.items() if name in touched})
    return _fit(corrected, fitted[1], target, bits, patches)


def _fit(
    plan: QuantPlan, calibration: Calibration, target: Target, bits: int, patches: Sequence[Image]
) -> tuple[QuantPlan, Calibration]:
    """Freeze, fit what does not fit, until all does: a new step moves the scales that `freeze` derives a little."""
    rules = target.integer
    lo, hi = int_range(bits, True)
    power: dict[str, Real] = {}
    for attempt in range(ATTEMPTS):
        frozen = freeze(plan, calibration, target)
        wide = [name for name, wanted in accumulator_bits(frozen).items() if wanted > bits]
        if not wide:
            return plan, calibration
        power = power or input_power(plan.net, patches)
        slack = slack_of(bits) + hi * (1.5**attempt - 1) / 100
        weights = dict(calibration.weights)
        tensors: dict[str, tuple[Tensor, Tensor]] = {}
        for name in wide:
            layer, conv = plan.layer(name), frozen.convs[name]
            assert layer.weight is not None and layer.bias is not None
            real = layer.bias.numpy() / (conv.input_scale * conv.weight_scale)
            try:
                weight, weights[name] = fit_weights(
                    layer.weight.numpy(),
                    calibration.weights[name],
                    real,
                    input_ranges(frozen.plan, name),
                    error_weights(layer, power[name]),
                    int_range(plan.weight_bits_of(name), True, rules.weights.narrow_range),
                    (lo + slack, hi - slack),
                    not per_channel(target),
                    shifts_only(target),
                )
            except RunError as problem:
                raise RunError(f"network {plan.net.name}, layer {name}: {problem}") from None
            if layer.weight.any() and not weight.any():
                raise RunError(
                    f"network {plan.net.name}, layer {name}: {bits} accumulator bits leave none of its weights; its "
                    f"input alone has {plan.point_of(layer.inputs[0]).bits} bits. Allow more (accumulator_bits of the "
                    "recipe) or give the layer's input fewer bits"
                )
            tensors[name] = (torch.from_numpy(weight), layer.bias)
        plan = with_weights(plan, tensors)
        calibration = replace(calibration, weights=weights)
    raise RunError(
        f"network {plan.net.name}: {', '.join(wide)} cannot be kept within {bits} accumulator bits; allow more "
        "(accumulator_bits of the recipe)"
    )


def nearest(
    candidates: Sequence[tuple[QuantPlan, Calibration]], target: Target, patches: Sequence[Image]
) -> tuple[QuantPlan, Calibration]:
    """The candidate whose output image on the patches is nearest to the float network's; of equals the first."""
    errors = []
    for plan, calibration in candidates:
        net, total = quant_net(plan, calibration, target), 0.0
        with torch.no_grad():
            for images in batches(patches):
                wanted = evaluate(plan.net, images * plan.net.grey_level) / plan.net.grey_level
                gap = net(images) / plan.net.grey_level - wanted.clamp(0, 255)
                total += float(gap.double().square().sum())
        errors.append(total)
    return candidates[int(np.argmin(errors))]
