"""Calibration recipes: calib/*.yaml, validated; a recipe says which patches are seen and how ranges are clipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from srq_hw.quantize.clipping import METHODS
from srq_hw.quantize.policy import LayerPolicy
from srq_hw.resources import data_path
from srq_hw.target import Target
from srq_hw.yamlfile import load_model


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Patches(_Part):
    """Which pixels calibrate: `count` random squares of `size` low-resolution pixels."""

    count: Annotated[int, Field(ge=1, le=4096, description="Number of patches.")]
    size: Annotated[int, Field(ge=8, le=1024, description="Side of a patch, low-resolution pixels.")]
    seed: Annotated[int, Field(ge=0, description="Seed of the random positions; written into the report.")] = 0


def by_width(table: Mapping[int, float] | None, bits: int) -> float | None:
    """The value of a bit width: its own, else the next wider one's, else the widest's; None where there is no table."""
    if not table:
        return None
    return table[min((width for width in table if width >= bits), default=max(table))]


#: options of an activation method that a recipe names only where the method has them
ACTIVATION_OPTIONS = ("percent", "steps", "decay", "p", "released", "over")


class ActivationMethod(_Part):
    """How the range of an activation is chosen; p may differ by bit width (a table bits: value)."""

    method: Annotated[
        Literal["minmax", "moving_average", "percentile", "mse", "entropy", "dbdc"],
        Field(description="Clipping search."),
    ]
    bins: Annotated[int, Field(ge=64, le=65536, description="Histogram bins.")] = 2048
    percent: Annotated[float | None, Field(gt=50, le=100, description="percentile: mass that is kept, in percent.")] = (
        None
    )
    steps: Annotated[int | None, Field(ge=2, le=10000, description="mse: thresholds that are tried.")] = None
    decay: Annotated[
        float | None, Field(ge=0, lt=1, description="moving_average: what the next patch leaves of the bounds so far.")
    ] = None
    p: Annotated[
        dict[int, Annotated[float, Field(ge=0, lt=0.5)]] | None,
        Field(
            min_length=1,
            description="dbdc: mass that may be cut, by bit width; a width not named takes the next wider one's.",
        ),
    ] = None
    released: Annotated[
        bool | None, Field(description="dbdc: true runs it as the authors' released code does, one-bin shift included.")
    ] = None
    zero_points: Annotated[
        bool,
        Field(
            description="true: tensors that only convolutions read get a zero point where the target has zero points; "
            "the real 0 stays on the grid."
        ),
    ] = False
    over: Annotated[
        Literal["average", "merged"] | None,
        Field(
            description="average: mean of each patch's bounds (dbdc's own way); merged: one histogram of all patches."
        ),
    ] = None

    @model_validator(mode="after")
    def _complete(self) -> ActivationMethod:
        row = METHODS[self.method]
        _match_options(self, self.method, ACTIVATION_OPTIONS, row.needs, row.takes)
        return self

    def options(self, bits: int) -> dict[str, float]:
        """The method's numbers for a bit width."""
        chosen: dict[str, float] = {}
        for name in ("percent", "steps", "decay", "released"):
            if getattr(self, name) is not None:
                chosen[name] = getattr(self, name)
        p = by_width(self.p, bits)
        return chosen if p is None else chosen | {"p": p}


#: weight method -> (options it must have, options it may have)
WEIGHT_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "minmax": ((), ()),
    "percentile": (("percent",), ()),
    "mse": ((), ("steps", "activation_weighted")),
    "joint": ((), ("steps", "activation_steps")),
}


class WeightMethod(_Part):
    """How the range of a weight is chosen."""

    method: Annotated[
        Literal["minmax", "percentile", "mse", "joint"],
        Field(
            description="minmax: largest magnitude; percentile: of the magnitudes; mse: least squared error of the "
            "weights; joint: least squared error of the layer's output, searched together with its input's scale."
        ),
    ]
    percent: Annotated[
        float | None, Field(gt=50, le=100, description="percentile: magnitudes that are kept, in percent.")
    ] = None
    steps: Annotated[
        int | None, Field(ge=2, le=1000, description="mse, joint: fractions of the range that are tried (60).")
    ] = None
    activation_weighted: Annotated[
        bool | None, Field(description="mse: weigh an input channel's errors by the mean square of its values.")
    ] = None
    activation_steps: Annotated[
        int | None, Field(ge=2, le=100, description="joint: scales of the layer's input that are tried (9).")
    ] = None

    @model_validator(mode="after")
    def _complete(self) -> WeightMethod:
        needs, takes = WEIGHT_OPTIONS[self.method]
        names = ("percent", "steps", "activation_weighted", "activation_steps")
        _match_options(self, self.method, names, needs, takes)
        return self


class ImageSearch(_Part):
    """Refine all scales against the output image (PSNR in the loop): coordinate descent on multiplicative factors."""

    factors: Annotated[
        tuple[Annotated[float, Field(gt=0.1, lt=10)], ...],
        Field(min_length=1, description="Factors a scale is multiplied by (1/2 and 2 on a shift-only target)."),
    ] = (0.7, 0.8, 0.9, 1.1, 1.25)
    sweeps: Annotated[int, Field(ge=1, le=20, description="Passes over all scales; each halves the factors' logs.")] = 3
    patches: Annotated[int, Field(ge=1, le=1024, description="Calibration patches that are used.")] = 8
    output: Annotated[
        Literal["real", "rounded"],
        Field(description="Compare the output image before it is rounded to grey levels, or after."),
    ] = "real"
    weights: Annotated[bool, Field(description="Also refine one factor per convolution's weight scales.")] = False
    seconds: Annotated[
        float | None, Field(gt=0, description="Stop after so long; the result then depends on the machine's speed.")
    ] = None
    targets: Annotated[
        Literal["all", "shifts"],
        Field(description="shifts: search only for targets whose steps are powers of two."),
    ] = "all"
    hold: Annotated[
        bool, Field(description="`reconstruct` leaves the activation steps where the search has put them.")
    ] = False


class Policy(_Part):
    """Which layers get other widths than --bits; what is left out is as every other layer."""

    edges: Annotated[
        int | None,
        Field(ge=2, le=16, description="Bits of the first and last convolutions: weights, and the last ones' input."),
    ] = None
    tail: Annotated[
        int | None,
        Field(
            ge=2,
            le=16,
            description="The same of all convolutions from the upsampling on (those behind which none works at the "
            "image's own size).",
        ),
    ] = None
    sums: Annotated[
        Annotated[int, Field(ge=2, le=24)] | Literal["widest"] | None,
        Field(
            description="Bits of the operands and results of sums (what skips carry); widest: as the target has them."
        ),
    ] = None
    weights: Annotated[
        dict[str, Annotated[int, Field(ge=2, le=16)]], Field(description="Convolution: bits of its weights.")
    ] = {}
    activations: Annotated[
        dict[str, Annotated[int, Field(ge=2, le=16)]], Field(description="Convolution: bits of its input.")
    ] = {}

    def layers(self, target: Target) -> LayerPolicy:
        """The same as `policy` takes it, worked out for a target."""
        sums = target.integer.sums_bits_max if self.sums == "widest" else self.sums
        return LayerPolicy(self.edges, self.tail, sums, self.weights, self.activations)


class Equalize(_Part):
    """Cross-layer range equalisation: draw the ranges of a tensor's channels together before anything is quantized."""

    statistic: Annotated[Literal["rms", "max"], Field(description="What a channel's range is.")] = "rms"
    strength: Annotated[
        float, Field(gt=0, le=1, description="1: all ranges alike; smaller: part of the way (a power of the ratio).")
    ] = 0.5


class Rotate(_Part):
    """Change of basis: residual streams that only convolutions write and read are turned to where quantizing them costs
    the image least."""

    probes: Annotated[int, Field(ge=1, le=256, description="Random images per patch whose gradients are taken.")] = 2
    tries: Annotated[
        int,
        Field(
            ge=1,
            le=256,
            description="Bases that are calibrated; the one nearest to the float output is kept, and none where the "
            "network as it is comes nearer.",
        ),
    ] = 6
    patches: Annotated[int, Field(ge=1, le=1024, description="Calibration patches that are used for all this.")] = 8
    seed: Annotated[int, Field(ge=0, description="Seed of what is drawn.")] = 0


class GuideOptions(_Part):
    """Guides: what an operand holds of the image goes around it in a few channels as wide as the first convolution."""

    channels: Annotated[int, Field(ge=1, le=27, description="Channels that are taken from the image.")] = 8
    least: Annotated[
        float,
        Field(ge=0, le=1, description="An operand gets one where that takes this part of all operands' noise or more."),
    ] = 0.01
    work: Annotated[
        float, Field(gt=0, le=10, description="Multiply-adds that may be added, as a part of the network's.")
    ] = 0.1
    bits: Annotated[
        int | None, Field(ge=2, le=16, description="Only where activations have at most so many bits; none: always.")
    ] = None
    probes: Annotated[int, Field(ge=1, le=256, description="Random images per patch whose gradients are taken.")] = 2
    patches: Annotated[int, Field(ge=1, le=1024, description="Calibration patches whose gradients are taken.")] = 4
    seed: Annotated[int, Field(ge=0, description="Seed of what is drawn.")] = 0


#: a learning rate up to 1, or up to 10; for all bit widths or by width
Rate = Annotated[float, Field(gt=0, le=1)]
HighRate = Annotated[float, Field(gt=0, le=10)]
RateByWidth = Rate | Annotated[dict[int, Rate], Field(min_length=1)] | None
HighRateByWidth = HighRate | Annotated[dict[int, HighRate], Field(min_length=1)] | None


class Rates(_Part):
    """First learning rates of one phase (Adam), for all bit widths or by width; they fall to ``last`` of themselves
    along a cosine. None: held."""

    activations: Annotated[RateByWidth, Field(description="Of the logarithm of an activation step.")] = None
    weight_steps: Annotated[RateByWidth, Field(description="Of the logarithm of a weight step.")] = None
    biases: Annotated[RateByWidth, Field(description="Of a bias, in parts of the largest value behind its layer.")] = (
        None
    )
    weights: Annotated[
        HighRateByWidth,
        Field(
            description="Of a weight: of atanh of its way within `reach`, or in parts of its layer's rms (above 288 "
            "inputs per sum in inverse proportion less)."
        ),
    ] = None
    channels: Annotated[
        RateByWidth, Field(description="Of the logarithm of a channel's factor (learned equalisation).")
    ] = None
    last: Annotated[float, Field(ge=0, le=1, description="Where the cosine ends, as a part of the first rate.")] = 0.0

    def kinds(self) -> set[str]:
        """What a phase with these rates learns."""
        return {name for name in type(self).model_fields if name != "last" and getattr(self, name) is not None}

    def of(self, kind: str, bits: int) -> float | None:
        """The first rate of a kind at a bit width."""
        rate: float | dict[int, float] | None = getattr(self, kind)
        return by_width(rate, bits) if isinstance(rate, dict) else rate


class Phase(_Part):
    """So many steps of gradient descent on some of the network's values."""

    iterations: Annotated[int, Field(ge=1, le=1_000_000, description="Steps of gradient descent.")]
    rates: Rates


class Reconstruct(_Part):
    """Tune the quantized network until its output on the calibration images is the float network's."""

    phases: Annotated[tuple[Phase, ...], Field(min_length=1, description="One after the other.")]
    batch: Annotated[int, Field(ge=1, le=256, description="Crops per step.")] = 4
    crop: Annotated[
        int, Field(ge=16, le=2048, description="Side of a crop, pixels of the output; at least 16 of the image.")
    ] = 48
    pool: Annotated[int, Field(ge=1, le=65536, description="Different crops that are drawn.")] = 512
    work: Annotated[
        dict[int, Annotated[float, Field(gt=0)]] | None,
        Field(
            min_length=1,
            description="By bit width: the phases last a whole number of times (1 to 40) as long as stated, until they "
            "cost about so many 10^12 multiply-adds (forward passes; a value counts as 300): a small network learns "
            "longer in the same time.",
        ),
    ] = None
    stretched: Annotated[
        dict[int, Annotated[float, Field(ge=0, le=1)]] | None,
        Field(
            min_length=1,
            description="By bit width: part of the crops that are stretched in contrast, so that ranges hold for text.",
        ),
    ] = None
    features: Annotated[
        float, Field(ge=0, le=1000, description="Weight of the feature loss: attention maps behind every sum.")
    ] = 0.0
    detach: Annotated[
        bool, Field(description="true: the feature loss sends no gradient (as PaC's released code ran).")
    ] = False
    reach: Annotated[
        float | None,
        Field(
            gt=0, le=8, description="How far a weight may move, in weight steps (1: learned rounding); none: freely."
        ),
    ] = 1.0
    seed: Annotated[int, Field(ge=0, description="Seed of the crops.")] = 0


def _match_options(
    part: BaseModel, method: str, names: tuple[str, ...], needs: tuple[str, ...], takes: tuple[str, ...]
) -> None:
    missing = [name for name in needs if getattr(part, name) is None]
    extra = [name for name in names if name not in (*needs, *takes) and getattr(part, name) is not None]
    if missing:
        raise ValueError(f"method {method} needs {', '.join(missing)}")
    if extra:
        allowed = ", ".join((*needs, *takes)) or "no options"
        raise ValueError(f"method {method} has no {', '.join(extra)}; it takes {allowed}")


class Recipe(_Part):
    """One calibration recipe."""

    schema_version: Annotated[Literal[1], Field(alias="schema", description="Version of this layout.")]
    name: str
    title: str
    patches: Patches
    activations: ActivationMethod
    weights: WeightMethod
    search: ImageSearch | None = None
    policy: Policy = Policy()
    guide: GuideOptions | None = None
    rotate: Rotate | None = None
    equalize: Equalize | None = None
    bias_correction: Annotated[
        bool, Field(description="Correct every bias by the mean error that quantization leaves in its layer.")
    ] = False
    reconstruct: Reconstruct | None = None
    accumulator_bits: Annotated[
        int | None,
        Field(
            ge=8,
            le=48,
            description="Every convolution's sums fit this signed width, whatever the image; `reconstruct` and QAT "
            "learn within it. None: as is.",
        ),
    ] = None

    @model_validator(mode="after")
    def _something_to_learn(self) -> Recipe:
        if self.search and self.search.hold and self.reconstruct:
            for number, phase in enumerate(self.reconstruct.phases, 1):
                if phase.rates.kinds() == {"activations"}:
                    raise ValueError(
                        f"search.hold leaves phase {number} of reconstruct nothing to learn: its rates name "
                        "activations only; give it other rates or take hold out"
                    )
        return self


def with_policy(recipe: Recipe, edges: int | None, tail: int | None, sums: int | None) -> Recipe:
    """The recipe with other widths of edges, tail and sums where they are given."""
    given = {"edges": edges, "tail": tail, "sums": sums}
    changes = {name: bits for name, bits in given.items() if bits is not None}
    return recipe.model_copy(update={"policy": recipe.policy.model_copy(update=changes)})


def load_recipe(name_or_path: str) -> Recipe:
    """A packaged recipe by name, or a user's own file. InputError as for targets."""
    return load_model(Recipe, data_path("calib", name_or_path))
