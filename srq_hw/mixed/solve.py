"""A budget as the user writes it, and the widths that do the least damage within it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from srq_hw.errors import InputError
from srq_hw.mixed.costs import KINDS, Axis, CostModel, Shape
from srq_hw.quantize.budget import Option, choose, least_cost
from srq_hw.quantize.sensitivity import Damage, Widths
from srq_hw.yamlfile import did_you_mean

#: what a convolution may be: name -> widths of its weights, and of its input
Choices = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


@dataclass(frozen=True)
class Budget:
    """kind: of `costs.KINDS`; limit: in its unit, or the cost of a uniform network (weight bits, activation bits)."""

    kind: str
    limit: float | tuple[int, int]

    @property
    def text(self) -> str:
        """As the user writes it."""
        limit = f"{self.limit:g}" if isinstance(self.limit, float) else "W{}A{}".format(*self.limit)
        return f"{self.kind}={limit}"


def parse_budget(text: str) -> Budget:
    """ "bits=4.5", "bitops=0.3", "dsp=500", "bram=40", or "dsp=W4A4": what uniform W4A4 costs."""
    kind, _, value = text.partition("=")
    kind, value = kind.strip(), value.strip()
    if kind not in KINDS:
        raise InputError(f"--budget {text!r}: unknown kind{did_you_mean(kind, KINDS)}; allowed: {', '.join(KINDS)}")
    uniform = re.fullmatch(r"[Ww](\d{1,2})[Aa](\d{1,2})", value)
    if uniform:
        return Budget(kind, (int(uniform.group(1)), int(uniform.group(2))))
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit) or limit <= 0:
        raise InputError(f"--budget {text!r}: wanted {kind}=NUMBER above 0, or {kind}=W4A4 for what uniform W4A4 costs")
    return Budget(kind, limit)


def solve(
    model: CostModel,
    shapes: Mapping[str, Shape],
    choices: Choices,
    damages: Mapping[str, Damage],
    limits: Mapping[str, float],
) -> Widths:
    """Widths of every convolution with the least sum of damages; limits: axis -> the user's number.

    InputError where the narrowest widths cost more.
    """
    weights: dict[str, int] = {}
    inputs: dict[str, int] = {}
    for axis in model.axes:
        found = _solve_axis(model, axis, shapes, choices, damages, limits[axis.label])
        for name, widths in found.items():
            if axis.part in ("weights", "both"):
                weights[name] = widths[0]
            if axis.part in ("activations", "both"):
                inputs[name] = widths[1]
    return {name: (weights[name], inputs[name]) for name in choices}


def _solve_axis(
    model: CostModel,
    axis: Axis,
    shapes: Mapping[str, Shape],
    choices: Choices,
    damages: Mapping[str, Damage],
    limit: float,
) -> dict[str, tuple[int, ...]]:
    layers = [_options(axis, shapes[name], widths, damages[name]) for name, widths in choices.items()]
    budget = math.floor(Fraction(limit) * axis.scale + Fraction(1, 1000))  # a printed limit may be rounded down
    least = least_cost(layers)
    if least > budget:
        narrowest = float(least / axis.scale)
        part = "" if axis.label == model.name else f" of {axis.label}"
        raise InputError(
            f"--budget {model.name}={limit:g}: all layers at their narrowest need {narrowest:.4g} {model.unit}{part}"
            "; raise the budget, allow narrower widths (--widths, and what the target has), or pin fewer layers in the "
            "recipe's policy"
        )
    return {name: option.widths for name, option in zip(choices, choose(layers, budget), strict=True)}


def _options(axis: Axis, shape: Shape, widths: tuple[tuple[int, ...], tuple[int, ...]], damage: Damage) -> list[Option]:
    """An axis that counts one of the two widths chooses that one only; the other stands at its widest."""
    weights = widths[0] if axis.part != "activations" else widths[0][-1:]
    inputs = widths[1] if axis.part != "weights" else widths[1][-1:]
    return [
        Option(
            (w, a),
            axis.cost(shape, w, a),
            (damage.weights[w] if axis.part != "activations" else 0.0)
            + (damage.activations[a] if axis.part != "weights" else 0.0),
        )
        for w in weights
        for a in inputs
    ]
