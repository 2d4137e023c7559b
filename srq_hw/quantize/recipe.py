"""Calibration recipes: calib/*.yaml, validated; a recipe says which patches are seen and how ranges are clipped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from srq_hw.quantize.clipping import METHODS
from srq_hw.resources import data_path
from srq_hw.yamlfile import load_model


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Patches(_Part):
    """Which pixels calibrate: `count` random squares of `size` low-resolution pixels."""

    count: Annotated[int, Field(ge=1, le=4096, description="Number of patches.")]
    size: Annotated[int, Field(ge=8, le=1024, description="Side of a patch, low-resolution pixels.")]
    seed: Annotated[int, Field(ge=0, description="Seed of the random positions; written into the report.")] = 0


class ActivationMethod(_Part):
    """How the range of an activation is chosen; p, percent may differ by bit width (a table bits: value)."""

    method: Annotated[Literal["minmax", "percentile", "mse", "dbdc"], Field(description="Clipping search.")]
    bins: Annotated[int, Field(ge=64, le=65536, description="Histogram bins.")] = 2048
    percent: Annotated[float | None, Field(gt=50, le=100, description="percentile: mass that is kept, in percent.")] = (
        None
    )
    steps: Annotated[int | None, Field(ge=2, le=10000, description="mse: thresholds that are tried.")] = None
    p: Annotated[
        dict[int, Annotated[float, Field(ge=0, lt=0.5)]] | None,
        Field(description="dbdc: mass that may be cut, by bit width; a width not named takes the next wider one's."),
    ] = None

    @model_validator(mode="after")
    def _complete(self) -> ActivationMethod:
        wanted = METHODS[self.method]
        missing = [name for name in wanted if getattr(self, name) is None]
        extra = [name for name in ("percent", "steps", "p") if name not in wanted and getattr(self, name) is not None]
        if missing:
            raise ValueError(f"method {self.method} needs {', '.join(missing)}")
        if extra:
            raise ValueError(
                f"method {self.method} has no {', '.join(extra)}; it takes {', '.join(wanted) or 'no options'}"
            )
        return self

    def options(self, bits: int) -> dict[str, float]:
        """The method's numbers for a bit width."""
        chosen: dict[str, float] = {}
        if self.percent is not None:
            chosen["percent"] = self.percent
        if self.steps is not None:
            chosen["steps"] = self.steps
        if self.p is not None:
            wider = [width for width in sorted(self.p) if width >= bits]
            chosen["p"] = self.p[wider[0] if wider else max(self.p)]
        return chosen


class WeightMethod(_Part):
    """How the range of a weight is chosen."""

    method: Annotated[
        Literal["minmax", "mse"], Field(description="minmax: largest magnitude; mse: least squared error.")
    ]
    steps: Annotated[int, Field(ge=2, le=1000, description="mse: fractions of the range that are tried.")] = 60


class Recipe(_Part):
    """One calibration recipe."""

    schema_version: Annotated[Literal[1], Field(alias="schema", description="Version of this layout.")]
    name: str
    title: str
    patches: Patches
    activations: ActivationMethod
    weights: WeightMethod


def load_recipe(name_or_path: str) -> Recipe:
    """A packaged recipe by name, or a user's own file. InputError as for targets."""
    return load_model(Recipe, data_path("calib", name_or_path))
