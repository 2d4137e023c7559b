"""The operators of a target file, each with its limits: the part `integer.ops`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from srq_hw.yamlfile import Part, refuse

Activation = Literal["none", "relu", "prelu"]
ShuffleMode = Literal["CRD", "DCR"]


class ConvLimits(Part):
    """2-D convolution, stride 1, same padding with zeros."""

    kernel_max: Annotated[int, Field(ge=1, le=64, description="Largest kernel side, pixels.")]
    groups: Annotated[bool, Field(description="true: grouped and depthwise convolutions are built.")]


class RequantLimits(Part):
    """Rescale, activate, round, saturate."""

    activations: Annotated[
        tuple[Activation, ...],
        Field(strict=False, min_length=1, description="Activations that can be fused into a Requant."),
    ]
    slope_min: Annotated[
        float,
        Field(
            default=0.0,
            ge=-2,
            le=1,
            description="Smallest slope of prelu (LeakyReLU is prelu), no unit; a learned slope may be negative.",
        ),
    ]
    slope_max: Annotated[float, Field(default=1.0, ge=0, le=2, description="Largest slope of prelu, no unit.")]
    slope_bits: Annotated[
        int | None,
        Field(
            default=None,
            ge=1,
            le=16,
            description="For requant kind pow2: a slope is a whole number / 2^slope_bits; none: no slopes there.",
        ),
    ]

    @model_validator(mode="after")
    def _consistent(self) -> RequantLimits:
        problems = []
        if len(set(self.activations)) != len(self.activations):
            problems.append(f"activations {list(self.activations)} names one twice; allowed: each once")
        if self.slope_min > self.slope_max:
            problems.append(f"slope_min {self.slope_min} is above slope_max {self.slope_max}; allowed: at most that")
        refuse(problems)
        return self


class AddLimits(Part):
    """Element-wise sum of two tensors."""

    bits_max: Annotated[
        int | None,
        Field(
            default=None, ge=2, le=24, description="Widest operand or result of a sum, bits; none: as any activation."
        ),
    ]


class ConcatLimits(Part):
    """Concatenation of channels; no limits of its own."""


class DepthToSpaceLimits(Part):
    """Channels to pixels."""

    block_max: Annotated[int, Field(ge=2, le=16, description="Largest upscaling factor.")]
    modes: Annotated[
        tuple[ShuffleMode, ...],
        Field(strict=False, min_length=1, description="Channel orders: CRD (PyTorch PixelShuffle), DCR (TensorFlow)."),
    ]

    @field_validator("modes")
    @classmethod
    def _distinct(cls, value: tuple[ShuffleMode, ...]) -> tuple[ShuffleMode, ...]:
        if len(set(value)) != len(value):
            refuse([f"{list(value)} names one twice; allowed: each once"])
        return value


class SliceLimits(Part):
    """A range of a tensor's channels; no limits of its own."""


class ResizeLimits(Part):
    """Upsampling by a whole factor."""

    factor_max: Annotated[int, Field(ge=2, le=16, description="Largest factor.")]


OpLimits = ConvLimits | RequantLimits | AddLimits | ConcatLimits | DepthToSpaceLimits | SliceLimits | ResizeLimits


class Ops(Part):
    """The operators the target runs, each with its limits; one that is absent is illegal on the target."""

    Conv: Annotated[ConvLimits, Field(description="Convolution; every target needs it.")]
    Requant: Annotated[RequantLimits, Field(description="Rescaling and activation; every target needs it.")]
    Add: Annotated[AddLimits | None, Field(default=None, description="Element-wise sum (residuals); {} allows it.")]
    Concat: Annotated[ConcatLimits | None, Field(default=None, description="Channel concatenation; {} allows it.")]
    DepthToSpace: Annotated[DepthToSpaceLimits | None, Field(default=None, description="PixelShuffle.")]
    Slice: Annotated[SliceLimits | None, Field(default=None, description="A range of channels; {} allows it.")]
    ResizeNearest: Annotated[ResizeLimits | None, Field(default=None, description="Upsampling by repeated pixels.")]
    ResizeFilter: Annotated[
        ResizeLimits | None,
        Field(default=None, description="Bilinear and bicubic upsampling: integer taps, exact sum, no rounding."),
    ]

    @field_validator("Add", "Concat", "DepthToSpace", "Slice", "ResizeNearest", "ResizeFilter", mode="before")
    @classmethod
    def _not_empty(cls, value: object) -> object:
        if value is None:
            refuse(["empty; allowed: a mapping of limits, {} to allow the op, or no such line to forbid it"])
        return value

    def limits(self, op: str) -> OpLimits | None:
        """Return the limits of an IntGraph op by its name, or None where the target does not run it."""
        found: OpLimits | None = getattr(self, op) if op in type(self).model_fields else None
        return found

    def names(self) -> tuple[str, ...]:
        """Names of the ops the target runs, in schema order."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)
