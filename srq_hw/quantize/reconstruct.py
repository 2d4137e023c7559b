"""Reconstruction: tune the quantized network on unlabelled images until its output is the float network's.

With phases that move the activation bounds, then the weight bounds, this is the pixel-aware calibration (PaC) of Tu et
al. (CVPR 2023; METHODS 1.3); with weights that may move by one step it learns their rounding (as AdaRound, Nagel et
al., ICML 2020, but through the whole network at once and by straight-through gradients).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from srq_hw.errors import RunError
from srq_hw.normalform.normal import evaluate, upscales
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.plan import QuantPlan
from srq_hw.quantize.recipe import Rates, Reconstruct
from srq_hw.quantize.tuning import KINDS, Tuning
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

#: crops that the float network sees at once
POOL_BATCH = 16
#: low-resolution pixels: in a smaller crop the zero padding is most of what the layers see
LEAST_SIDE = 16
#: PaC weighs its losses on images in 0..1; ours are in grey levels
GREY_LEVELS = 255.0


def reconstruct(
    plan: QuantPlan,
    calibration: Calibration,
    target: Target,
    images: Sequence[Image],
    options: Reconstruct,
    progress: Progress | None = None,
) -> tuple[QuantPlan, Calibration]:
    """Plan and calibration after all phases. images: uint8 (H, W, C), low resolution; crops of them are drawn.

    Repeatable on one machine with one number of threads; float32 sums of another may round otherwise. RunError where
    the loss leaves the numbers.
    """
    tuning = Tuning(plan, calibration, target, options.reach)
    features = feature_points(plan) if options.features and not options.detach else {}
    rng = np.random.default_rng(options.seed)
    total = sum(phase.iterations for phase in options.phases)
    side = max(LEAST_SIDE, options.crop // upscales(plan.net)[plan.net.output])
    pool = draw_pool(plan, images, min(options.pool, total * options.batch), side, rng, tuple(features))
    done = 0
    for phase in options.phases:
        adam = _optimizer(tuning, phase.rates)
        first = [group["lr"] for group in adam.param_groups]
        for iteration in range(phase.iterations):
            fall = cosine(iteration / phase.iterations, phase.rates.last)
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


@dataclass(frozen=True, eq=False)
class Pool:
    """Crops (N, C, s, s) with what the float network makes of them: outputs clamped to 0..255, and attention maps
    (N, s*s * upscale**2) by layer."""

    crops: Tensor
    outputs: Tensor
    maps: dict[str, Tensor]


def draw_pool(
    plan: QuantPlan,
    images: Sequence[Image],
    count: int,
    side: int,
    rng: np.random.Generator,
    features: tuple[str, ...] = (),
) -> Pool:
    """Random crops and the float network's answers, worked out once."""
    crops, outputs = [], []
    maps: dict[str, list[Tensor]] = {name: [] for name in features}

    def keep(name: str, value: Tensor) -> None:
        if name in maps:
            maps[name].append(attention(value))

    with torch.no_grad():
        for start in range(0, count, POOL_BATCH):
            crops.append(draw_crops(images, min(POOL_BATCH, count - start), side, rng))
            outputs.append(evaluate(plan.net, crops[-1], keep).clamp(0.0, 255.0))
    return Pool(torch.cat(crops), torch.cat(outputs), {name: torch.cat(parts) for name, parts in maps.items()})


def _optimizer(tuning: Tuning, rates: Rates) -> torch.optim.Adam:
    chosen = {kind: rate for kind in KINDS if (rate := getattr(rates, kind)) is not None}
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


def draw_crops(images: Sequence[Image], count: int, side: int, rng: np.random.Generator) -> Tensor:
    """Random squares of random images, float32 (N, C, side, side), grey levels; mirrored outwards where too small."""
    crops = []
    for _ in range(count):
        image = images[int(rng.integers(len(images)))]
        height, width = image.shape[:2]
        top = int(rng.integers(max(1, height - side + 1)))
        left = int(rng.integers(max(1, width - side + 1)))
        crop = image[top : top + side, left : left + side]
        missing = (side - crop.shape[0], side - crop.shape[1])
        crops.append(np.pad(crop, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric"))
    return torch.from_numpy(np.stack(crops).astype(np.float32)).permute(0, 3, 1, 2)


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


def attention(values: Tensor) -> Tensor:
    """Where a feature map (N, C, H, W) is strong: mean of squares over channels, L2-normalised, (N, H*W)."""
    return F.normalize(values.square().mean(1).flatten(1), dim=1)
