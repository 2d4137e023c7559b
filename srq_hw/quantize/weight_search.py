"""Weight scales: searches over a weight tensor alone, and what a target makes of their result.

`joint_search` chooses them together with the scale of the layer's input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from srq_hw.fixedpoint import int_range
from srq_hw.normalform.normal import Layer, NormalNet, evaluate
from srq_hw.quantize.recipe import WeightMethod
from srq_hw.quantize.requant import shifts_only
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]
Real = npt.NDArray[np.float64]

#: fractions of the full range that mse tries where the recipe names no number; the smallest of them
MSE_STEPS = 60
SMALLEST_FRACTION = 0.25


def per_channel(target: Target) -> bool:
    """Whether a convolution has one weight scale per output channel; a target that only shifts has one per tensor."""
    return target.integer.weights.granularity == "channel" and not shifts_only(target)


def minmax_steps(rows: Real, bits: int) -> Real:
    """Largest magnitude / (2**(b-1) - 1) per row of (R, K); 0 for a row of zeros."""
    return np.abs(rows).max(1) / int_range(bits, True)[1]


def percentile_steps(rows: Real, bits: int, percent: float) -> Real:
    """As minmax_steps, of the given percentile of each row's magnitudes (linear between order statistics)."""
    return np.percentile(np.abs(rows), percent, axis=1) / int_range(bits, True)[1]


def fractions(steps: int, pow2: bool) -> Real:
    """What a search multiplies the widest step by, 1 first: ``steps`` even fractions, or powers of two."""
    return np.array([1.0, 0.5, 0.25]) if pow2 else np.linspace(1.0, SMALLEST_FRACTION, steps)


def mse_steps(
    rows: Real, bits: int, narrow: bool, steps: int, importance: Real | None = None, pow2: bool = False
) -> Real:
    """The fraction of the minmax step, 1 down to SMALLEST_FRACTION, with the least (weighted) squared error per row.

    importance: (R, K), >= 0, weighs the squared errors (all 0: the minmax step stays); pow2: from the minmax step
    rounded up to a power of two, powers of two only. Of equals the widest wins; 0 for a row of zeros.
    """
    lo, hi = int_range(bits, True, narrow)
    widest = minmax_steps(rows, bits)
    widest = np.where(widest > 0, power_of_two(np.where(widest > 0, widest, 1.0)), 0.0) if pow2 else widest
    weigh = np.ones((1, 1)) if importance is None else importance
    best, least = widest.copy(), np.full(len(rows), np.inf)
    for fraction in fractions(steps, pow2):
        trial = np.where(widest > 0, widest * fraction, 1.0)
        error = (weigh * (rows - quantize_rows(rows, trial, lo, hi)) ** 2).sum(1)
        better = error < least
        best, least = np.where(better, trial, best), np.where(better, error, least)
    return np.where(widest > 0, best, 0.0)


def quantize_rows(rows: Real, steps: Real, lo: int, hi: int) -> Real:
    """Real values of the quantized weights: rows (R, K), steps (R,)."""
    found: Real = np.clip(np.rint(rows / steps[:, None]), lo, hi) * steps[:, None]
    return found


def weight_steps(weight: Real, bits: int, options: WeightMethod, target: Target, importance: Real | None) -> Real:
    """The step of every output channel, float64 (O,), all equal where the target has one per tensor.

    weight: float64 (O, I/g, kh, kw); importance: broadcastable to it. A channel whose step comes out as 0 (all of its
    weights are 0, or the percentile's) gets its minmax step; a dead channel (range 0) the largest step of the others,
    or 1 where all are dead. Method joint starts from mse.
    """
    shape = (weight.shape[0], -1) if per_channel(target) else (1, -1)
    rows = weight.reshape(shape)
    if options.method == "percentile":
        assert options.percent is not None
        found = percentile_steps(rows, bits, options.percent)
    elif options.method in ("mse", "joint"):
        spread = None if importance is None else np.broadcast_to(importance, weight.shape).reshape(shape)
        steps = options.steps or MSE_STEPS
        found = mse_steps(rows, bits, target.integer.weights.narrow_range, steps, spread, shifts_only(target))
    else:
        found = minmax_steps(rows, bits)
    found = alive(np.where(found > 0, found, minmax_steps(rows, bits)))
    return found if len(found) == weight.shape[0] else np.repeat(found, weight.shape[0])


def alive(steps: Real) -> Real:
    """Steps of dead channels (0) replaced by the largest of the others, by 1 where all are dead: zeros need no step."""
    largest = float(steps.max())
    return np.where(steps > 0, steps, largest if largest > 0 else 1.0)


def input_power(net: NormalNet, patches: Sequence[Image]) -> dict[str, Real]:
    """Mean square of every input channel of every convolution of the float network: name -> float64 (I,)."""
    sums: dict[str, Real] = {}
    counts: dict[str, int] = {}
    wanted = {layer.inputs[0] for layer in net.layers if layer.op == "conv"}

    def tap(name: str, values: torch.Tensor) -> None:
        if name in wanted:
            squares = values.double().square().sum((0, 2, 3)).numpy()
            sums[name] = sums.get(name, 0.0) + squares
            counts[name] = counts.get(name, 0) + values.shape[0] * values.shape[2] * values.shape[3]

    with torch.inference_mode():
        for patch in patches:
            evaluate(net, as_tensor(patch) * net.grey_level, tap)
    return {layer.name: sums[layer.inputs[0]] / counts[layer.inputs[0]] for layer in net.layers if layer.op == "conv"}


def as_tensor(patch: Image) -> torch.Tensor:
    """uint8 (H, W, C) as float32 (1, C, H, W) grey levels."""
    return torch.from_numpy(patch.astype(np.float32)).permute(2, 0, 1)[None]


def importance_of(layer: Layer, power: Real) -> Real:
    """Input power (I,) on the weights of a (grouped) convolution: float64 (O, I/g, 1, 1)."""
    assert layer.weight is not None
    outputs = layer.weight.shape[0] // layer.groups
    return np.repeat(power.reshape(layer.groups, -1), outputs, axis=0)[:, :, None, None]


def legal_steps(steps: Real, layer: Layer, source_scale: float, target: Target) -> Real:
    """What the target makes of wanted steps (O,): room for the bias, one per tensor, powers of two.

    Steps are raised where the bias would not fit: a channel of almost no weights may still have a bias. Half of the
    bias register is left for scales that `freeze` moves.
    """
    assert layer.bias is not None
    limit = 2.0 ** (min(target.integer.bias.bits, target.integer.accumulator.bits) - 2)
    steps = np.maximum(steps, np.abs(layer.bias.numpy()) / (source_scale * limit))
    steps = steps if per_channel(target) else np.full_like(steps, steps.max())
    return power_of_two(steps) if shifts_only(target) else steps


def power_of_two(steps: Real) -> Real:
    """The smallest powers of two that cut nothing more."""
    found: Real = np.exp2(np.ceil(np.log2(steps)))
    return found
