"""What a convolution costs at given widths: storage, BitOPs, or DSPs and block RAMs of a FINN dataflow design."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from srq_hw.backends.finn.estimate import mvu_lanes
from srq_hw.backends.finn.memory import LUT_ROWS, ramb18
from srq_hw.errors import InputError
from srq_hw.normalform.normal import NormalNet, channel_counts, upscales
from srq_hw.target import Resources, Target

Widths = Mapping[str, tuple[int, int]]

#: the image that BitOPs are counted for (CADyQ, Hong et al., ECCV 2022): width x height of the output
BITOPS_PIXELS = 1280 * 720
MEGAHERTZ = 1_000_000


@dataclass(frozen=True)
class Shape:
    """A convolution's size. macs, reads: products and input values per pixel of the input image; columns: pixels of
    its input per pixel of the input image, along one side."""

    name: str
    weights: int
    macs: int
    reads: int
    channels: int
    kernel: int
    columns: int


@dataclass(frozen=True)
class Frame:
    """Low-resolution image size and frames per second that a design is meant for."""

    height: int
    width: int
    fps: float


@dataclass(frozen=True)
class Axis:
    """One limit. cost: whole units of a convolution at (weight bits, input bits); total / scale is in the user's unit.

    part: which of the two widths it counts: "weights", "activations" or "both".
    """

    label: str
    part: str
    cost: Callable[[Shape, int, int], int]
    scale: Fraction


@dataclass(frozen=True)
class CostModel:
    """A kind of budget: every axis is held to the same number. about: the formula in words."""

    name: str
    unit: str
    about: str
    axes: tuple[Axis, ...]

    def spent(self, shapes: Mapping[str, Shape], widths: Widths) -> dict[str, float]:
        """Axis -> what these widths cost, in the user's unit."""
        return {
            axis.label: float(sum(axis.cost(shapes[name], *pair) for name, pair in widths.items()) / axis.scale)
            for axis in self.axes
        }

    def figure(self, shapes: Mapping[str, Shape], widths: Widths) -> float:
        """One number for a plot: the mean of the axes."""
        spent = self.spent(shapes, widths)
        return sum(spent.values()) / len(spent)


def conv_shapes(net: NormalNet) -> dict[str, Shape]:
    """Every convolution in order."""
    scale, channels = upscales(net), channel_counts(net.layers, net.channels)
    found: dict[str, Shape] = {}
    for layer in net.layers:
        if layer.op != "conv":
            continue
        assert layer.weight is not None
        source = layer.inputs[0]
        area, count = scale[source] ** 2, int(layer.weight.numel())
        kernel = int(max(layer.weight.shape[2:]))
        reads = channels[source] * area
        found[layer.name] = Shape(layer.name, count, count * area, reads, channels[source], kernel, scale[source])
    return found


# --- the models ---------------------------------------------------------------------------------------------------


def bits_model(shapes: Mapping[str, Shape], free_inputs: set[str]) -> CostModel:
    """Mean bits per stored weight, and per value that a convolution reads, each held to the budget.

    Inputs that are fixed (the image) are no part of the second mean.
    """
    stored = sum(shape.weights for shape in shapes.values())
    read = sum(shape.reads for shape in shapes.values() if shape.name in free_inputs)

    def values(shape: Shape, weight_bits: int, input_bits: int) -> int:
        return shape.reads * input_bits if shape.name in free_inputs else 0

    return CostModel(
        "bits",
        "bits",
        "mean bits of a stored weight, and of an activation that a convolution reads, each",
        (
            Axis("weights", "weights", lambda shape, weight_bits, input_bits: shape.weights * weight_bits,
                 Fraction(stored)),
            Axis("activations", "activations", values, Fraction(max(read, 1))),
        ),
    )  # fmt: skip


def bitops_model(shapes: Mapping[str, Shape], upscale: int) -> CostModel:
    """BitOPs = sum of (b_w / 32)(b_a / 32) * 2 * MACs, in 10^9, for an output image of 1280 x 720 pixels."""
    scale = Fraction(10**9 * 32 * 32 * upscale**2, 2 * BITOPS_PIXELS)
    axis = Axis("bitops", "both", lambda shape, weight_bits, input_bits: shape.macs * weight_bits * input_bits, scale)
    return CostModel(
        "bitops",
        "G BitOPs",
        "10^9 BitOPs of all convolutions for a 1280x720 output: (b_w/32)(b_a/32) * 2 * multiply-accumulates",
        (axis,),
    )


def multipliers(shape: Shape, frame: Frame, clock_mhz: float) -> int:
    """Products per clock cycle that the frame rate asks of a convolution."""
    return math.ceil(shape.macs * frame.height * frame.width * frame.fps / (clock_mhz * MEGAHERTZ))


def dsp_model(target: Target, frame: Frame) -> CostModel:
    """DSP slices: products per cycle over the products that one slice packs at these widths."""
    device = _device(target, "dsp")
    narrow = target.integer.weights.narrow_range

    def slices(shape: Shape, weight_bits: int, input_bits: int) -> int:
        lanes = mvu_lanes(weight_bits, input_bits, narrow, device.dsp.kind)
        return -(-multipliers(shape, frame, device.clock_mhz) // lanes)

    about = (
        f"DSP slices of all convolutions at {frame.fps:g} frames/s of {frame.height}x{frame.width} pixels and "
        f"{device.clock_mhz:g} MHz: products per cycle / products that one {device.dsp.kind} packs (FINN's matrix "
        "unit); a folding may have to round up"
    )
    return CostModel("dsp", "DSP", about, (Axis("dsp", "both", slices, Fraction(1)),))


def bram_model(target: Target, frame: Frame) -> CostModel:
    """BRAM36: weight memories of as many words as one multiplier sees weights, and the rows a window spans."""
    device = _device(target, "bram")

    def halves(shape: Shape, weight_bits: int, input_bits: int) -> int:
        lanes = min(multipliers(shape, frame, device.clock_mhz), shape.weights)
        rows = -(-shape.weights // lanes)
        memory = ramb18(rows, lanes * weight_bits) if rows > LUT_ROWS else 0
        pixels = (shape.kernel - 1) * frame.width * shape.columns
        return memory + (ramb18(pixels, shape.channels * input_bits) if pixels else 0)

    about = (
        f"BRAM36 of all convolutions at {frame.fps:g} frames/s of {frame.height}x{frame.width} pixels and "
        f"{device.clock_mhz:g} MHz: weights (those of more than {LUT_ROWS} words), and kernel - 1 rows of the input; "
        "thresholds and FIFOs are not counted"
    )
    return CostModel("bram", "BRAM36", about, (Axis("bram", "both", halves, Fraction(2)),))


def _device(target: Target, budget: str) -> Resources:
    if target.resources is None:
        raise InputError(
            f"--budget {budget}: target {target.name} names no device (resources); use bits or bitops, or a target "
            "that names one"
        )
    return target.resources


KINDS = ("bits", "bitops", "dsp", "bram")


def cost_model(
    kind: str, shapes: Mapping[str, Shape], free_inputs: set[str], upscale: int, target: Target, frame: Frame
) -> CostModel:
    """The model of a kind of KINDS. InputError where the target names no device and the kind needs one."""
    if kind == "bits":
        return bits_model(shapes, free_inputs)
    if kind == "bitops":
        return bitops_model(shapes, upscale)
    return dsp_model(target, frame) if kind == "dsp" else bram_model(target, frame)
