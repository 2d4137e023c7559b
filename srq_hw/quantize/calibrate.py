"""Calibration: run the float network over patches, clip each quantizer group's range, choose every scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from srq_hw.errors import InputError
from srq_hw.quantize.clipping import Histogram, clip_bounds, weight_scales
from srq_hw.quantize.normal import Layer, evaluate
from srq_hw.quantize.plan import QuantPlan, QuantPoint
from srq_hw.quantize.recipe import Recipe
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]
Real = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

#: points whose histograms stay in the report; the bins there are fewer than those of the search
REPORT_BINS = 64


@dataclass(frozen=True)
class Range:
    """One quantizer's data and what was kept of it, real units."""

    lower: float
    upper: float
    data_min: float
    data_max: float
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class Calibration:
    """Every real-valued choice of the quantization, before `freeze` snaps the scales.

    scales: quantizer group -> step; weights: convolution -> float64 (O,) steps; ranges: quantizer -> what was seen.
    """

    scales: dict[str, float]
    weights: dict[str, Real]
    ranges: dict[str, Range]


def sample_patches(images: Sequence[Image], recipe: Recipe) -> list[Image]:
    """`count` random squares, uint8 (size, size, 3); images smaller than a patch give their whole selves."""
    if not images:
        raise InputError("calibration: no images; give a folder with --calib-images or use the built-in ones")
    rng = np.random.default_rng(recipe.patches.seed)
    side, patches = recipe.patches.size, []
    for index in range(recipe.patches.count):
        image = images[index % len(images)]
        height, width = min(side, image.shape[0]), min(side, image.shape[1])
        top = int(rng.integers(0, image.shape[0] - height + 1))
        left = int(rng.integers(0, image.shape[1] - width + 1))
        patches.append(image[top : top + height, left : left + width])
    return patches


def calibrate(
    plan: QuantPlan, target: Target, recipe: Recipe, images: Sequence[Image], progress: Progress | None = None
) -> Calibration:
    """Choose all scales. images: uint8 (H, W, 3), low resolution. InputError where a tensor is not finite."""
    patches = sample_patches(images, recipe)
    seen = _observe(plan, patches, recipe.activations.bins, progress)
    scales, ranges = _activation_scales(plan, target, recipe, seen)
    per_channel = target.integer.weights.granularity == "channel" and target.integer.requant.kind != "pow2"
    pow2 = target.integer.requant.kind == "pow2"
    weights = {}
    for layer in plan.layers:
        if layer.op == "conv":
            assert layer.weight is not None and layer.bias is not None
            _require_finite(plan, layer.name, layer.bias.numpy())
            _require_finite(plan, layer.name, layer.weight.numpy())
            found = weight_scales(
                layer.weight.numpy(),
                plan.weight_bits_of(layer.name),
                recipe.weights.method,
                per_channel,
                recipe.weights.steps,
            )
            found = _hold_bias(found, layer, scales[plan.point_of(layer.inputs[0]).group], target)
            found = found if per_channel else np.full_like(found, found.max())
            weights[layer.name] = _power_of_two(found) if pow2 else found
    return Calibration(scales, weights, ranges)


def _hold_bias(steps: Real, layer: Layer, source_scale: float, target: Target) -> Real:
    """Weight steps raised where the bias would not fit: a channel of almost no weights may still have a bias."""
    assert layer.bias is not None
    limit = 2.0 ** (min(target.integer.bias.bits, target.integer.accumulator.bits) - 2)
    return np.maximum(steps, np.abs(layer.bias.numpy()) / (source_scale * limit))


def _observe(plan: QuantPlan, patches: list[Image], bins: int, progress: Progress | None) -> dict[str, list[Histogram]]:
    """One histogram per quantizer and patch, of the float network's values in front of the quantizer."""
    readers: dict[str, list[str]] = {}
    for name, point in plan.points.items():
        if not point.fixed:
            readers.setdefault(point.tensor, []).append(name)
    seen: dict[str, list[Histogram]] = {name: [] for name in plan.points if not plan.points[name].fixed}

    def tap(layer: str, values: torch.Tensor) -> None:
        if layer in readers:
            array = values.numpy()
            _require_finite(plan, layer, array)
            histogram = Histogram.of(array, bins)
            for name in readers[layer]:
                seen[name].append(histogram)

    with torch.inference_mode():
        for index, patch in enumerate(patches):
            image = torch.from_numpy(patch.astype(np.float32)).permute(2, 0, 1)[None] * plan.net.grey_level
            evaluate(plan.net, image, tap)
            if progress:
                progress(index + 1, len(patches))
    return seen


def _require_finite(plan: QuantPlan, layer: str, values: npt.NDArray[np.floating]) -> None:
    if not np.isfinite(values).all():
        raise InputError(
            f"network {plan.net.name}, layer {layer}: NaN or Inf; check the weights file and the input range"
        )


def _activation_scales(
    plan: QuantPlan, target: Target, recipe: Recipe, seen: dict[str, list[Histogram]]
) -> tuple[dict[str, float], dict[str, Range]]:
    """Bounds per quantizer, then one step per group: the widest need of its members decides."""
    pow2 = target.integer.requant.kind == "pow2"
    scales: dict[str, float] = {}
    ranges: dict[str, Range] = {}
    for name, point in plan.points.items():
        if point.fixed:
            scales[point.group] = plan.net.grey_level
            continue
        lower, upper = _bounds(point, recipe, seen[name])
        step = _step(point, lower, upper)
        scales[point.group] = max(scales.get(point.group, 0.0), step)
        ranges[name] = _range(lower, upper, seen[name])
    for point in plan.points.values():
        if not point.fixed and scales[point.group] <= 0:
            scales[point.group] = plan.net.grey_level  # a dead tensor: any step represents its zeros
    if pow2:
        scales = {group: _round_up_to_pow2(step) for group, step in scales.items()}
    return scales, ranges


def _bounds(point: QuantPoint, recipe: Recipe, seen: list[Histogram]) -> tuple[float, float]:
    """DBDC averages the bounds of the patches (METHODS 1.2); the other methods see all patches as one."""
    method, options = recipe.activations.method, recipe.activations.options(point.bits)
    if method == "dbdc":
        found = [clip_bounds(histogram, method, point.bits, point.signed, options) for histogram in seen]
        return float(np.mean([low for low, _ in found])), float(np.mean([high for _, high in found]))
    return clip_bounds(_merge(seen), method, point.bits, point.signed, options)


def _merge(seen: list[Histogram]) -> Histogram:
    """One histogram over the common range; a bin's mass goes to the bin that holds its centre."""
    lower, upper = min(h.lower for h in seen), max(h.upper for h in seen)
    bins = len(seen[0].counts)
    counts = np.zeros(bins)
    width = (upper - lower) / bins
    for histogram in seen:
        index = np.zeros(bins, np.int64) if width == 0 else ((histogram.centres - lower) / width).astype(np.int64)
        np.add.at(counts, np.clip(index, 0, bins - 1), histogram.counts)
    return Histogram(counts, lower, upper)


def _step(point: QuantPoint, lower: float, upper: float) -> float:
    """Symmetric quantizers keep the larger side; unsigned ones only have an upper bound."""
    lo, hi = point.range
    if not point.signed:
        return max(upper, 0.0) / hi
    return max(upper / hi, lower / lo, 0.0)


def _range(lower: float, upper: float, seen: list[Histogram]) -> Range:
    merged = _merge(seen)
    counts = merged.counts.reshape(REPORT_BINS, -1).sum(1) if len(merged.counts) % REPORT_BINS == 0 else merged.counts
    return Range(lower, upper, merged.lower, merged.upper, tuple(int(count) for count in counts))


def _power_of_two(steps: Real) -> Real:
    """The smallest powers of two that cut nothing more."""
    return np.exp2(np.ceil(np.log2(steps)))


def _round_up_to_pow2(step: float) -> float:
    return float(_power_of_two(np.array([step]))[0])
