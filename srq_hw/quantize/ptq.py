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
from srq_hw.quantize.guide import guided
from srq_hw.quantize.held import Bound
from srq_hw.quantize.image_search import searches
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.quantize.recipe import ImageSearch, Recipe, Reconstruct, Rotate
from srq_hw.quantize.reconstruct import reconstruct
from srq_hw.quantize.rotate import rotations
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
    """What the recipe asks for of: change bases, equalise, calibrate, reconstruct, correct biases, fit accumulators.

    images: uint8 (H, W, C), low resolution. weight_bits, act_bits None: the target's default.
    """
    policy = recipe.policy.layers(target)
    if recipe.guide:
        plain = make_plan(net, target, weight_bits, act_bits, policy)
        if recipe.guide.bits is None or plain.act_bits <= recipe.guide.bits:
            net = guided(net, target, plain.bits, sample_patches(images, recipe), recipe.guide)

    def planned(net: NormalNet) -> QuantPlan:
        if recipe.equalize:
            net = equalize(net, sample_patches(images, recipe), recipe.equalize)
        return make_plan(net, target, weight_bits, act_bits, policy)

    plan = planned(net)
    if recipe.rotate:
        plan = _rotated(net, plan, target, recipe, recipe.rotate, images, planned)
    calibration = calibrate(plan, target, recipe, images, progress)
    bits, patches = recipe.accumulator_bits, sample_patches(images, recipe)
    real, bound = plan, None
    if bits:
        plan, calibration = fit_accumulators(plan, calibration, target, bits, patches)
        bound = Bound(bits, input_power(plan.net, patches))
    fitted = (plan, calibration)
    if recipe.reconstruct:  # of what was fitted the steps and biases; the weights are fitted anew in every step
        plan = with_biases(real, {layer.name: layer.bias for layer in plan.layers if layer.bias is not None})
        options = _held(recipe.reconstruct, recipe.search, target)
        plan, calibration = reconstruct(plan, calibration, target, images, options, progress, bound)
    if recipe.bias_correction:
        plan = with_biases(plan, correct_bias(plan, calibration, target, patches))
    if bits:  # proves the bound on the last integers; absurd rates may have learned worse than nothing
        learned = fit_accumulators(plan, calibration, target, bits, patches)
        plan, calibration = nearest((fitted, learned), target, patches)
    return Quantized(plan, calibration)


def _held(options: Reconstruct, search: ImageSearch | None, target: Target) -> Reconstruct:
    """The same phases without rates for activation steps, where a search has put those and says to hold them."""
    if search is None or not search.hold or not searches(search, target):
        return options
    phases = [
        phase.model_copy(update={"rates": phase.rates.model_copy(update={"activations": None})})
        for phase in options.phases
    ]
    return options.model_copy(update={"phases": tuple(phases)})


def _rotated(
    net: NormalNet,
    plan: QuantPlan,
    target: Target,
    recipe: Recipe,
    options: Rotate,
    images: Sequence[Image],
    planned: Callable[[NormalNet], QuantPlan],
) -> QuantPlan:
    """The plan in the basis that leaves least of an error once it is calibrated; of equals the network as it was."""
    patches = sample_patches(images, recipe)[: options.patches]
    each = recipe.patches.model_copy(update={"count": len(patches)})
    trial = recipe.model_copy(update={"search": None, "patches": each})
    plans = [plan, *(planned(moved) for moved in rotations(net, plan.bits, patches, options))]
    if len(plans) == 1:
        return plan
    tried = [(item, calibrate(item, target, trial, patches)) for item in plans]
    chosen, _ = nearest(tried, target, patches)
    return chosen
