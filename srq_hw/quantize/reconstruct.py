"""Reconstruction: tune the quantized network on unlabelled images until its output is the float network's.

With phases that move the activation bounds, then the weight bounds, this is the pixel-aware calibration (PaC) of Tu et
al. (CVPR 2023; METHODS 1.3); with weights that may move by one step it learns their rounding (as AdaRound, Nagel et
al., ICML 2020, but through the whole network at once and by straight-through gradients); with free weights it is a
short training without labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from srq_hw.errors import RunError
from srq_hw.normalform.normal import NormalNet, upscales
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.crops import Image, Pool, attention, draw_pool
from srq_hw.quantize.held import Bound, hold
from srq_hw.quantize.plan import QuantPlan
from srq_hw.quantize.recipe import Rates, Reconstruct, by_width
from srq_hw.quantize.tuning import KINDS, Tuning
from srq_hw.target import Target

Progress = Callable[[int, int], None]

#: low-resolution pixels: in a smaller crop the zero padding is most of what the layers see
LEAST_SIDE = 16
#: a small network's phases become at most so many times as long as stated
LONGEST = 40
#: a value costs as much as so many multiply-adds: it is quantized, activated, moved, both ways. With it a second of
#: training is the same amount of work on EDSR, SRResNet, CARN and IDN within a quarter.
VALUE = 300
#: PaC weighs its losses on images in 0..1; ours are in grey levels
GREY_LEVELS = 255.0


def reconstruct(
    plan: QuantPlan,
    calibration: Calibration,
    target: Target,
    images: Sequence[Image],
    options: Reconstruct,
    progress: Progress | None = None,
    bound: Bound | None = None,
) -> tuple[QuantPlan, Calibration]:
    """Plan and calibration after all phases. images: uint8 (H, W, C), low resolution; crops of them are drawn.

    bound: the accumulators that the weights stay within all the way.

    Repeatable on one machine with one number of threads; float32 sums of another may round otherwise. RunError where
    the loss leaves the numbers.
    """
    tuning = Tuning(plan, calibration, target, options.reach)
    if bound:
        hold(tuning, bound)
    features = feature_points(plan) if options.features and not options.detach else {}
    rng = np.random.default_rng(options.seed)
    bits = min(plan.weight_bits, plan.act_bits)
    side = max(LEAST_SIDE, options.crop // upscales(plan.net)[plan.net.output])
    times = longer(plan.net, options, bits, side)
    total = times * sum(phase.iterations for phase in options.phases)
    count, stretched = min(options.pool, total * options.batch), by_width(options.stretched, bits) or 0.0
    pool = draw_pool(plan.net, images, count, side, rng, tuple(features), stretched)
    done = 0
    for phase in options.phases:
        iterations = times * phase.iterations
        adam = _optimizer(tuning, phase.rates, bits)
        first = [group["lr"] for group in adam.param_groups]
        for iteration in range(iterations):
            fall = cosine(iteration / iterations, phase.rates.last)
            for group, rate in zip(adam.param_groups, first, strict=True):
                group["lr"] = rate * fall
            chosen = torch.from_numpy(rng.integers(len(pool.crops), size=options.batch))
            loss = _loss(tuning, pool, chosen, features, options.features)
            if not math.isfinite(float(loss.detach())):
                raise _lost(plan, "the loss", done + 1)
            adam.zero_grad()
            loss.backward()
            adam.step()
            done += 1
            if progress:
                progress(done, total)
    steps = [tuning.net.step(group).value for group in tuning.free]
    steps += [tuning.net.weight_step(name).value for name in tuning.convs()]
    if not all(bool((torch.isfinite(step) & (step > 0)).all()) for step in steps):  # no loss has seen the last update
        raise _lost(plan, "a scale", done)
    return tuning.result()


def _lost(plan: QuantPlan, what: str, step: int) -> RunError:
    return RunError(
        f"reconstruction of {plan.net.name}: {what} is no number at step {step}; lower the rates of the recipe"
    )


def _optimizer(tuning: Tuning, rates: Rates, bits: int) -> torch.optim.Adam:
    chosen = {kind: rate for kind in KINDS if (rate := rates.of(kind, bits)) is not None}
    tuning.learn(chosen)
    return torch.optim.Adam(
        [
            {"params": [parameter], "lr": rate * unit}
            for kind, rate in chosen.items()
            for parameter, unit in zip(tuning.parameters[kind], tuning.units[kind], strict=True)
        ]
    )


def cosine(part: float, last: float) -> float:
    """From 1 at part 0 to ``last`` at part 1 along half a cosine."""
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * part))


def longer(net: NormalNet, options: Reconstruct, bits: int, side: int) -> int:
    """How many times as long as stated the phases last, to do the ``work`` that the recipe gives for a width."""
    wanted = by_width(options.work, bits)
    if wanted is None:
        return 1
    stated = sum(phase.iterations for phase in options.phases) * options.batch * work_of(net, side)
    return min(max(1, round(wanted * 1e12 / stated)), LONGEST)


def work_of(net: NormalNet, side: int) -> int:
    """What a square image of that side costs in multiply-adds, those of VALUE for every value of a convolution's output
    among them."""
    scale, work = upscales(net), 0
    for layer in net.layers:
        if layer.weight is not None:
            work += (layer.weight.numel() + VALUE * len(layer.weight)) * (side * scale[layer.name]) ** 2
    return work


def feature_points(plan: QuantPlan) -> dict[str, str]:
    """Layer of the float network -> its quantizer, for every sum inside the network."""
    return {
        point.tensor: name
        for name, point in plan.points.items()
        if plan.layer(point.producer).op == "add" and point.source == point.tensor and not point.fixed
    }


def _loss(tuning: Tuning, pool: Pool, chosen: Tensor, features: dict[str, str], weight: float) -> Tensor:
    """L1 between the output images in grey levels, and the feature loss between attention maps."""
    found: dict[str, Tensor] = {}
    crops = pool.crops[chosen].contiguous(memory_format=torch.channels_last)
    output = tuning.net(crops, found.__setitem__ if features else None)
    loss = F.l1_loss(output, pool.outputs[chosen])
    if features:
        gaps = [F.mse_loss(attention(found[point]), pool.maps[name][chosen]) for name, point in features.items()]
        loss = loss + weight * GREY_LEVELS * torch.stack(gaps).mean()
    return loss
