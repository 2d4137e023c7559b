"""Calibration: run the float network over patches, clip each quantizer group's range, choose every scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from srq_hw.errors import InputError
from srq_hw.normalform.normal import evaluate, real_image
from srq_hw.quantize.asymmetric import asymmetric_scales
from srq_hw.quantize.calibration import Calibration, Range
from srq_hw.quantize.clipping import clip_bounds
from srq_hw.quantize.histogram import Histogram, merge
from srq_hw.quantize.image_search import refine, searches
from srq_hw.quantize.joint_search import joint_search
from srq_hw.quantize.plan import QuantPlan, QuantPoint, with_zero_points
from srq_hw.quantize.recipe import Recipe
from srq_hw.quantize.requant import shifts_only
from srq_hw.quantize.weight_search import importance_of, input_power, legal_steps, power_of_two, weight_steps
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]
Real = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

#: points whose histograms stay in the report; the bins there are fewer than those of the search
REPORT_BINS = 64


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
    """Choose all scales. images: uint8 (H, W, 3), low resolution. InputError where a tensor is not finite.

    progress counts the patches first, then the steps of the recipe's search over the output image.
    """
    patches = sample_patches(images, recipe)
    seen = _observe(plan, patches, recipe.activations.bins, progress)
    scales, ranges = _activation_scales(plan, target, recipe, seen)
    zero_points: dict[str, int] = {}
    if recipe.activations.zero_points and target.integer.activations.zero_points:
        moved, zero_points = asymmetric_scales(plan, target, recipe, seen)
        scales |= moved
        plan = with_zero_points(plan, zero_points)
    found = Calibration(scales, _weight_scales(plan, target, recipe, scales, patches), ranges, zero_points)
    if recipe.weights.method == "joint":
        found = joint_search(plan, found, target, recipe.weights, patches)
    if recipe.search and searches(recipe.search, target):
        found = refine(plan, found, target, patches, recipe.search, progress)
    return found


def _weight_scales(
    plan: QuantPlan, target: Target, recipe: Recipe, scales: dict[str, float], patches: list[Image]
) -> dict[str, Real]:
    """The steps of every convolution's weights, as the target can have them."""
    power = input_power(plan.net, patches) if recipe.weights.activation_weighted else {}
    weights = {}
    for layer in plan.layers:
        if layer.op == "conv":
            assert layer.weight is not None and layer.bias is not None
            _require_finite(plan, layer.name, layer.bias.numpy())
            _require_finite(plan, layer.name, layer.weight.numpy())
            importance = importance_of(layer, power[layer.name]) if power else None
            bits = plan.weight_bits_of(layer.name)
            found = weight_steps(layer.weight.numpy(), bits, recipe.weights, target, importance)
            weights[layer.name] = legal_steps(found, layer, scales[plan.point_of(layer.inputs[0]).group], target)
    return weights


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
            evaluate(plan.net, real_image(plan.net, patch), tap)
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
    pow2 = shifts_only(target)
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
    fractions = {point.group for point in plan.points.values() if point.grey_fraction}
    for group in scales:
        if pow2:
            scales[group] = _round_up_to_pow2(scales[group])
        elif group in fractions:
            scales[group] = plan.net.grey_level * _round_up_to_pow2(scales[group] / plan.net.grey_level)
    return scales, ranges


def _bounds(point: QuantPoint, recipe: Recipe, seen: list[Histogram]) -> tuple[float, float]:
    rule = recipe.activations
    return clip_bounds(seen, rule.method, point.bits, point.signed, rule.options(point.bits), rule.over)


def _step(point: QuantPoint, lower: float, upper: float) -> float:
    """Symmetric quantizers keep the larger side; unsigned ones only have an upper bound."""
    lo, hi = point.range
    if not point.signed:
        return max(upper, 0.0) / hi
    return max(upper / hi, lower / lo, 0.0)


def _range(lower: float, upper: float, seen: list[Histogram]) -> Range:
    merged = merge(seen)
    counts = merged.counts.reshape(REPORT_BINS, -1).sum(1) if len(merged.counts) % REPORT_BINS == 0 else merged.counts
    return Range(lower, upper, merged.lower, merged.upper, tuple(int(count) for count in counts))


def _round_up_to_pow2(step: float) -> float:
    return float(power_of_two(np.array([step]))[0])
