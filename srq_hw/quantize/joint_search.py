"""Joint search: the scale of a layer's input and its weight scales, for the least squared error of the layer's output.

For every candidate of the input scale each output channel takes the weight step with the least error; the candidate
with the least sum of relative errors over all readers of the quantizer group wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from srq_hw.fixedpoint import int_range
from srq_hw.normalform.normal import Layer, evaluate
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.image_search import with_scales
from srq_hw.quantize.plan import QuantPlan, QuantPoint
from srq_hw.quantize.recipe import WeightMethod
from srq_hw.quantize.requant import shifts_only
from srq_hw.quantize.weight_search import (
    alive,
    as_tensor,
    fractions,
    legal_steps,
    minmax_steps,
    per_channel,
    power_of_two,
    quantize_rows,
)
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]
Real = npt.NDArray[np.float64]

#: fractions of a weight's range and scales of an input that are tried where the recipe names no number
WEIGHT_STEPS, ACTIVATION_STEPS = 20, 9
#: what the calibrated input scale is multiplied by, from, to (1 is always tried)
NARROWEST, WIDEST = 0.5, 1.25
#: output positions per convolution that the errors are measured on
SAMPLES = 2048


@dataclass(frozen=True)
class _Reader:
    """A convolution and the quantizer that it reads: windows float32 (n, I*kh*kw) of its float input."""

    layer: Layer
    point: QuantPoint
    windows: npt.NDArray[np.float32]


def joint_search(
    plan: QuantPlan, calibration: Calibration, target: Target, options: WeightMethod, patches: Sequence[Image]
) -> Calibration:
    """The calibration with searched scales. patches: uint8 (H, W, C).

    Input scales are tried around the calibrated ones, for a whole quantizer group at once. The image, groups that no
    convolution reads and groups that a sum reads keep theirs: what a skip connection carries is rounded again at every
    sum and clipped only once, which an error of single layers does not see.
    """
    readers = _readers(plan, patches)
    held = {point.group for point in plan.points.values() if point.fixed}
    held |= {plan.point_of(name).group for layer in plan.layers if layer.op == "add" for name in layer.inputs}
    scales, weights = dict(calibration.scales), dict(calibration.weights)
    for group in calibration.scales:
        mine = [reader for reader in readers if reader.point.group == group]
        if not mine:
            continue
        best, least = None, np.inf
        for factor in [1.0] if group in held else _factors(options, target):
            found = [_search(plan, reader, scales[group] * factor, options, target) for reader in mine]
            total = sum(error for error, _ in found)
            if total < least:
                best, least, chosen = factor, total, found
        if best is None:
            continue  # errors that are not numbers: nothing to choose by
        scales[group] *= best
        for reader, (_, steps) in zip(mine, chosen, strict=True):
            weights[reader.layer.name] = legal_steps(steps, reader.layer, scales[group], target)
    return with_scales(plan, calibration, scales, weights)


def _factors(options: WeightMethod, target: Target) -> list[float]:
    """1 first, so that it wins among equals."""
    if shifts_only(target):
        return [1.0, 0.5, 2.0]
    spread = np.geomspace(NARROWEST, WIDEST, (options.activation_steps or ACTIVATION_STEPS) - 1)
    return [1.0, *(float(factor) for factor in spread)]


def _search(
    plan: QuantPlan, reader: _Reader, scale: float, options: WeightMethod, target: Target
) -> tuple[float, Real]:
    """(squared error of the layer's output over the output's own squares, best weight steps (O,))."""
    exact = reader.windows.astype(np.float64)
    lo, hi = reader.point.range
    image = plan.layer(reader.point.producer).op == "image"  # integers already, perhaps recentred
    rounded = exact if image else np.clip(np.rint(exact / scale), lo, hi) * scale
    layer = reader.layer
    assert layer.weight is not None
    weight = layer.weight.numpy().reshape(layer.weight.shape[0], -1)
    bits, narrow = plan.weight_bits_of(layer.name), target.integer.weights.narrow_range
    low, high = int_range(bits, True, narrow)
    widest = minmax_steps(weight if per_channel(target) else weight.reshape(1, -1), bits)
    widest = np.broadcast_to(alive(widest), (len(weight),))
    widest = power_of_two(widest) if shifts_only(target) else widest
    wanted, squares, cross = _moments(exact, rounded, weight, layer.groups)
    best, least = widest.copy(), np.full(len(weight), np.inf)
    for fraction in fractions(options.steps or WEIGHT_STEPS, shifts_only(target)):
        trial = quantize_rows(weight, widest * fraction, low, high)
        error = _output_error(trial, wanted, squares, cross, layer.groups)
        if not per_channel(target):
            error = np.full(len(weight), error.sum())
        better = error < least
        best, least = np.where(better, widest * fraction, best), np.where(better, error, least)
    total = float(least.sum() if per_channel(target) else least[0])
    power = float(wanted.sum())
    return (total / power if power > 0 else total), best


def _moments(exact: Real, rounded: Real, weight: Real, groups: int) -> tuple[Real, Real, Real]:
    """Sums over the samples: y^2 (O,); x^ x^T (g, K, K); x^ y (O, K), for y = w x of the float layer, x^ quantized."""
    samples = len(exact)
    apart = exact.reshape(samples, groups, -1).transpose(1, 0, 2)
    other = rounded.reshape(samples, groups, -1).transpose(1, 0, 2)
    outputs = apart @ weight.reshape(groups, -1, weight.shape[1]).transpose(0, 2, 1)
    cross = (outputs.transpose(0, 2, 1) @ other).reshape(weight.shape)
    return (outputs**2).sum(1).reshape(-1), other.transpose(0, 2, 1) @ other, cross


def _output_error(trial: Real, wanted: Real, squares: Real, cross: Real, groups: int) -> Real:
    """Sum over the samples of (w x - trial x^)^2 per output channel, float64 (O,)."""
    rows = trial.reshape(groups, -1, trial.shape[1])
    own = ((rows @ squares) * rows).sum(2).reshape(-1)
    return np.maximum(wanted - 2 * (trial * cross).sum(1) + own, 0.0)


def _readers(plan: QuantPlan, patches: Sequence[Image]) -> list[_Reader]:
    """What every convolution sees of the float network at sampled positions."""
    convs = [layer for layer in plan.layers if layer.op == "conv"]
    source = {layer.name: layer.inputs[0] for layer in plan.net.layers if layer.op == "conv"}
    each = max(1, SAMPLES // len(patches))
    found: dict[str, list[npt.NDArray[np.float32]]] = {layer.name: [] for layer in convs}
    rng = np.random.default_rng(0)

    def tap(name: str, values: torch.Tensor) -> None:
        for layer in convs:
            if source[layer.name] == name:
                found[layer.name].append(_windows(layer, values, each, rng))

    with torch.inference_mode():
        for patch in patches:
            evaluate(plan.net, as_tensor(patch) * plan.net.grey_level, tap)
    return [_Reader(layer, plan.point_of(layer.inputs[0]), np.concatenate(found[layer.name])) for layer in convs]


def _windows(layer: Layer, values: torch.Tensor, count: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """``count`` random positions (all where there are fewer): (n, I*kh*kw), zero padded."""
    assert layer.weight is not None
    rows, columns = layer.weight.shape[2:]
    unfolded = F.unfold(values, (rows, columns), padding=(rows // 2, columns // 2))[0]
    pick = rng.choice(unfolded.shape[1], min(count, unfolded.shape[1]), replace=False)
    windows: npt.NDArray[np.float32] = unfolded[:, torch.from_numpy(np.sort(pick))].T.contiguous().numpy()
    return windows
