"""Post-training quantization from end to end: what a recipe says, in order, on a network in normal form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srq_hw.normalform.normal import NormalNet
from srq_hw.quantize.accumulator import fit_accumulators, nearest
from srq_hw.quantize.bias import correct_bias, with_biases
from srq_hw.quantize.calibrate import calibrate, sample_patches
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.equalize import equalize
from srq_hw.quantize.held import Bound
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.quantize.recipe import Recipe
from srq_hw.quantize.reconstruct import reconstruct
from srq_hw.quantize.weight_search import input_power
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized network before `freeze`: the plan with its final real weights, and every scale."""

    plan: QuantPlan
    calibration: Calibration


def quantize(
    net: NormalNet,
    target: Target,
    recipe: Recipe,
    images: Sequence[Image],
    weight_bits: int | None = None,
    act_bits: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Equalise, place quantizers, calibrate, reconstruct, correct biases, fit accumulators: what the recipe asks for.

    images: uint8 (H, W, C), low resolution. weight_bits, act_bits None: the target's default.
    """
    if recipe.equalize:
        net = equalize(net, sample_patches(images, recipe), recipe.equalize)
    plan = make_plan(net, target, weight_bits, act_bits, recipe.policy.layers(target))
    calibration = calibrate(plan, target, recipe, images, progress)
    bits, patches = recipe.accumulator_bits, sample_patches(images, recipe)
    real, bound = plan, None
    if bits:
        plan, calibration = fit_accumulators(plan, calibration, target, bits, patches)
        bound = Bound(bits, input_power(plan.net, patches))
    fitted = (plan, calibration)
    if recipe.reconstruct:  # of what was fitted the steps and biases; the weights are fitted anew in every step
        plan = with_biases(real, {layer.name: layer.bias for layer in plan.layers if layer.bias is not None})
        plan, calibration = reconstruct(plan, calibration, target, images, recipe.reconstruct, progress, bound)
    if recipe.bias_correction:
        plan = with_biases(plan, correct_bias(plan, calibration, target, patches))
    if bits:  # proves the bound on the last integers; absurd rates may have learned worse than nothing
        learned = fit_accumulators(plan, calibration, target, bits, patches)
        plan, calibration = nearest((fitted, learned), target, patches)
    return Quantized(plan, calibration)
