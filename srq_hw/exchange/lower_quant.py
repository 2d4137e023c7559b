"""Lowering of Quant nodes: constants, the image, accumulators and already quantized tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from srq_hw.errors import InputError
from srq_hw.exchange.values import (
    Accumulator,
    Const,
    ImageInput,
    Lowering,
    Quantized,
    Value,
    attributes,
    bit_width,
    quantize_const,
    rounding_of,
)
from srq_hw.fixedpoint import int_range, round_real
from srq_hw.graph.ir import Attr, Node, Tensor
from srq_hw.quantize.plan import IMAGE_BITS
from srq_hw.quantize.requant import multipliers, slope_multipliers
from srq_hw.target import Target

#: relative error of a quotient of two float32 numbers
FLOAT32_LIMIT = 2.0**-22


def lower_quant(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    """Quant(x, scale, zero_point, bits): a constant, or a Requant of whatever x is."""
    value = state.value(node, 0)
    if isinstance(value, Const):
        return quantize_const(state, node, value)
    scale, zero, bits = (
        state.const(node, i, what).array for i, what in ((1, "scale"), (2, "zero point"), (3, "bit width"))
    )
    if scale.size != 1 or not np.isfinite(scale).all() or float(scale.reshape(-1)[0]) <= 0:
        raise state.error(
            node, f"activation scale {scale.reshape(-1)[:4]}", "One positive scale per tensor is possible."
        )
    if zero.any() and not target.integer.activations.zero_points:
        raise state.error(
            node, f"zero point {float(zero.reshape(-1)[0]):g}; target {target.name} has none", "Quantize symmetrically."
        )
    if zero.size != 1 or float(zero.reshape(-1)[0]) != np.rint(zero.reshape(-1)[0]):
        raise state.error(node, f"zero point {zero.reshape(-1)[:4].tolist()}", "One whole number is possible.")
    step, width = float(scale.reshape(-1)[0]), bit_width(state, node, bits)
    settings = attributes(node)
    lo, hi = int_range(width, bool(settings.get("signed", 1)), bool(settings.get("narrow", 0)))
    kind = _Type(width, bool(settings.get("signed", 1)), lo, hi, int(zero.reshape(-1)[0]))
    rounding = rounding_of(state, node)
    if isinstance(value, ImageInput):
        return _image(state, node, value, step, kind, rounding, target)
    if isinstance(value, Quantized):
        value = _as_accumulator(state, node, value)
    if not isinstance(value, Accumulator):
        raise state.error(node, "quantizes half of an upsampling filter", "Quantize behind its DepthToSpace.")
    if value.half is not None:
        if rounding != "floor" or not np.isclose(value.half, step / 2, rtol=1e-6, atol=0):
            raise state.error(
                node, f"a constant {value.half:g} is added in front of it", "Only half a step before FLOOR is possible."
            )
        rounding = "half_up"
    return _requant(state, node, value, step, kind, rounding, target)


class _Type:
    """Integer type a Quant node makes."""

    def __init__(self, bits: int, signed: bool, lo: int, hi: int, zero_point: int) -> None:
        self.bits, self.signed, self.lo, self.hi, self.zero_point = bits, signed, lo, hi, zero_point


def _as_accumulator(state: Lowering, node: onnx.NodeProto, value: Quantized) -> Accumulator:
    if state.tensors[value.tensor].zero_point:
        raise state.error(node, "it requantizes a tensor with a zero point", "Remove the second quantizer.")
    return Accumulator(value.tensor, np.array([value.scale]))


def _image(
    state: Lowering, node: onnx.NodeProto, value: ImageInput, step: float, kind: _Type, rounding: str, target: Target
) -> Value:
    """The image is UINT8 grey levels. A file with another input grid gets a Requant from grey levels to it.

    Real units are grey levels where the quantizer reaches far beyond 1, else 0..1.
    """
    if state.tensors:
        raise state.error(node, "the image is quantized twice", "Share one input quantizer.")
    state.image_scale = 1.0 if step * (kind.hi - kind.lo) > 8 else 1.0 / 255.0
    name = state.image_name
    state.tensors[name] = Tensor(name, value.channels, IMAGE_BITS, False, scale=state.image_scale)
    same_type = (kind.lo, kind.hi, kind.zero_point) == (0, 255, 0)
    if same_type and abs(step / state.image_scale - 1) < 1e-6:
        return Quantized(name, state.image_scale)
    acc = Accumulator(name, np.array([state.image_scale]))
    return _requant(state, node, acc, step, kind, rounding, target)


def _requant(
    state: Lowering, node: onnx.NodeProto, acc: Accumulator, step: float, kind: _Type, rounding: str, target: Target
) -> Quantized:
    name = node.output[0] if acc.shuffle == 1 else f"{node.output[0]}_phases"
    tensor = state.tensors[acc.tensor]
    try:
        multiplier, shift = multipliers(acc.lsb / step, target)
    except ValueError as error:
        raise state.error(node, str(error), "Choose a target with multipliers, or power-of-two scales.") from error
    params = {"multiplier": multiplier, "shift": shift}
    if acc.slope is not None:
        keys = ("multiplier", "shift", "negative_multiplier")
        params = dict(zip(keys, slope_multipliers(multiplier, shift, acc.slope, target), strict=True))
    lo = max(kind.lo, kind.zero_point) if acc.relu else kind.lo
    hi = kind.hi if acc.limit is None else min(kind.hi, _steps(acc.limit / step, rounding) + kind.zero_point)
    if hi < lo:
        raise state.error(node, f"a limit of {acc.limit} lies below its range", "Clip above 0.")
    attrs: dict[str, Attr] = {"rounding": rounding, "lo": lo, "hi": hi, "zero_point": kind.zero_point}
    state.emit(
        Node("Requant", name, (acc.tensor,), name, attrs, params),
        Tensor(name, tensor.channels, kind.bits, kind.signed, tensor.upscale, kind.zero_point, step),
    )
    if acc.shuffle == 1:
        return Quantized(name, step)
    made, shuffled, block = state.tensors[name], node.output[0], acc.shuffle
    state.emit(
        Node("DepthToSpace", shuffled, (name,), shuffled, {"block": block, "mode": "CRD"}),
        replace(made, name=shuffled, channels=made.channels // block**2, upscale=made.upscale * block),
    )
    return Quantized(shuffled, step)


def _steps(limit: float, rounding: str) -> int:
    """A clipped ReLU's limit in steps, rounded by the quantizer's rule: rounding first or clamping first is the same.

    A limit on the grid is written by us and by other tools as a float32: that is no fraction to round down.
    """
    nearest = float(np.rint(limit))
    return int(nearest if abs(limit - nearest) <= FLOAT32_LIMIT * max(1.0, nearest) else round_real(limit, rounding))


def lower_output(state: Lowering, target: Target) -> str:
    """The output image as UINT8 grey levels; an output on another grid gets one more Requant to grey levels."""
    name = state.graph.output[0].name
    value = state.values.get(name)
    if not isinstance(value, Quantized):
        raise InputError(
            f"{state.source}: output {name} is not quantized; put a quantizer (8 bits, step of one grey level) "
            "at the end"
        )
    tensor = state.tensors[value.tensor]
    on_grid = abs(value.scale / state.image_scale - 1) < 1e-6
    if on_grid and (tensor.bits, tensor.signed, tensor.zero_point) == (IMAGE_BITS, False, 0):
        return value.tensor
    if tensor.zero_point:
        raise InputError(f"{state.source}: output {name} has zero point {tensor.zero_point}; make it 0")
    try:
        multiplier, shift = multipliers(np.array([value.scale / state.image_scale]), target)
    except ValueError as error:
        raise InputError(
            f"{state.source}: output {name} is not in grey levels: {error}. Make its step one grey level."
        ) from error
    attrs = {"rounding": target.integer.requant.rounding, "lo": 0, "hi": 255, "zero_point": 0}
    return state.emit(
        Node(
            "Requant",
            "to_grey_levels",
            (value.tensor,),
            "to_grey_levels",
            attrs,
            {"multiplier": multiplier, "shift": shift},
        ),
        Tensor("to_grey_levels", tensor.channels, IMAGE_BITS, False, tensor.upscale, 0, state.image_scale),
    )
