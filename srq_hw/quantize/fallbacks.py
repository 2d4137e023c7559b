"""What a recipe asks for and a target cannot do, where quantization goes on without it: said, never silent."""

from __future__ import annotations

from srq_hw.quantize.asymmetric import COMMUTES_WITH
from srq_hw.quantize.recipe import Recipe
from srq_hw.quantize.requant import shifts_only
from srq_hw.target import Target

#: what the column "quantized" says of it
NO_ZERO_POINTS = "no zero points"


def zero_points_missing(recipe: Recipe | None, target: Target) -> str | None:
    """Why the zero points that a recipe asks for are left out on a target; None where they are not."""
    if recipe is None or not recipe.activations.zero_points:
        return None
    rules = target.integer
    if not rules.activations.zero_points:
        return "integer.activations.zero_points: false"
    if shifts_only(target):
        return f"integer.requant.kind: {rules.requant.kind}"
    if rules.requant.rounding not in COMMUTES_WITH:
        return f"integer.requant.rounding: {rules.requant.rounding}"
    return None


def fallback_notes(method: str, recipe: Recipe | None, target: Target) -> list[str]:
    """One sentence per fallback of a recipe on a target."""
    reason = zero_points_missing(recipe, target)
    if reason is None:
        return []
    return [
        f"recipe {method}: zero points are asked for (activations.zero_points: true), target {target.name} has none "
        f"({reason}); every tensor is quantized without one"
    ]
