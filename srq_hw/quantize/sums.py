"""The two terms of a sum as integers: what one integer of each is worth, and by which powers of two they are aligned.

Our own sums share one scale (docs/decisions/0003) but for one case: a quantized tensor plus the filtered image, whose
exact integers are worth 1 / denominator**2 grey levels. The tensor's scale is then a power-of-two fraction of a grey
level, so that the multipliers are powers of two and nothing is rounded before the one Requant behind the sum.
"""

from __future__ import annotations

import numpy as np

from srq_hw.errors import InputError
from srq_hw.graph.taps import filter_taps
from srq_hw.normalform.normal import Layer
from srq_hw.quantize.plan import QuantPlan


def exact_step(layer: Layer, source_scale: float) -> float:
    """Real value of one integer that a layer without weights makes from integers worth ``source_scale`` each."""
    if layer.op != "filter":
        return source_scale
    assert layer.kernel is not None
    return source_scale / float(filter_taps(layer.kernel, layer.factor)[1]) ** 2


def align(plan: QuantPlan, layer: Layer, scales: dict[str, float]) -> tuple[tuple[int, int], float]:
    """Multipliers of a sum's two inputs and the real value of one integer of the result.

    scales: quantizer group -> real step. InputError where two scales differ by something else than a power of two.
    """
    steps = [exact_step(plan.layer(name), scales[plan.point_of(name).group]) for name in layer.inputs]
    least = min(steps)
    ratios = [step / least for step in steps]
    if any(np.frexp(ratio)[0] != 0.5 for ratio in ratios):
        raise InputError(
            f"network {plan.net.name}, layer {layer.name}: adds tensors whose scales {steps[0]:g} and {steps[1]:g} "
            "do not differ by a power of two. Put a convolution in front of the filtered one."
        )
    return (int(ratios[0]), int(ratios[1])), least
