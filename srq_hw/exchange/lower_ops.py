"""Lowering of every operation but Quant: one function per ONNX op, one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from srq_hw.exchange.lower_quant import lower_quant
from srq_hw.exchange.lower_resample import (
    emit_filter,
    filter_phases,
    lower_conv_transpose,
    lower_pad,
    lower_resize,
    lower_slice,
    lower_split,
)
from srq_hw.exchange.values import (
    Accumulator,
    Const,
    EdgePadded,
    FilterPhases,
    ImageInput,
    Lowering,
    Quantized,
    Real,
    Value,
    attributes,
    per_channel,
    quantized,
)
from srq_hw.fixedpoint import SHIFT_LIMIT, bits_for, canonical_dyadic, dyadic
from srq_hw.graph.ir import Node, Tensor
from srq_hw.graph.passes import UNPROVEN_BITS
from srq_hw.quantize.requant import multiplier_bits, significant
from srq_hw.target import Target

#: an added constant counts as a whole number of steps when it is that near
GRID_TOLERANCE = 1e-4

Handler = Callable[[Lowering, onnx.NodeProto, Target], Value]


def _conv(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    padded = state.value(node, 0)
    if isinstance(padded, EdgePadded):
        return filter_phases(state, node, padded)
    x = quantized(state, node, 0)
    weight = state.const(node, 1, "weight")
    if weight.integers is None or weight.step is None:
        raise state.error(node, f"weight {node.input[1]} has no Quant node", "Quantize the weights.")
    settings = attributes(node)
    kernel = weight.integers.shape[2:]
    same = [size // 2 for size in kernel] * 2
    pads = list(settings.get("pads", [0] * 4))
    if settings.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        pads = same
    wrong = [
        text
        for broken, text in (
            (len(kernel) != 2 or any(size % 2 == 0 for size in kernel), f"kernel {kernel} (odd sizes are possible)"),
            (list(settings.get("strides", [1, 1])) != [1, 1], f"strides {settings.get('strides')}"),
            (list(settings.get("dilations", [1, 1])) != [1, 1], f"dilations {settings.get('dilations')}"),
            (pads != same, f"pads {pads} (same padding is {same})"),
        )
        if broken
    ]
    if wrong:
        raise state.error(node, ", ".join(wrong), "Stride 1 and same padding are possible.")
    outs = weight.integers.shape[0]
    step = weight.step.reshape(-1)
    if step.size != 1 and weight.step.shape != (outs, 1, 1, 1):
        raise state.error(node, f"weight scale of shape {weight.step.shape}", "One per tensor or per output channel.")
    lsb: Real = x.scale * step
    bias = np.zeros(outs)
    if len(node.input) > 2 and node.input[2]:
        bias = state.const(node, 2, "bias").array.reshape(-1)
    tensor, name = state.tensors[x.tensor], node.output[0]
    params = {"weight": weight.integers, "bias": significant(bias / lsb)}
    state.emit(
        Node("Conv", name, (x.tensor,), name, {"groups": int(settings.get("group", 1))}, params),
        Tensor(name, outs, UNPROVEN_BITS, True, tensor.upscale),
    )
    return Accumulator(name, np.broadcast_to(lsb, (outs,)) if lsb.size > 1 else lsb)


# --- sums and constants -------------------------------------------------------------------------------------------


def _add(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    a, b = state.value(node, 0), state.value(node, 1)
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(a.array + b.array)
    if isinstance(a, Const):
        return _add_const(state, node, b, a.array)
    if isinstance(b, Const):
        return _add_const(state, node, a, b.array)
    return _sum(state, node, target)


def _sub(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    a, b = state.value(node, 0), state.value(node, 1)
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(a.array - b.array)
    if isinstance(b, Const):
        return _add_const(state, node, a, -b.array)
    raise state.error(node, "subtracts a feature map", "Negate the convolution in front and add.")


def _sum(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    """Two quantized tensors. Unequal scales get integer multipliers, within 2**-k of the file's ratio."""
    (a, a_step), (b, b_step) = _term(state, node, 0), _term(state, node, 1)
    ratio = a_step / b_step
    ma = mb = 1
    if abs(ratio - 1) > 1e-6:
        m, s = canonical_dyadic(*dyadic(ratio, multiplier_bits(target)))
        if abs(s) >= SHIFT_LIMIT - m.bit_length():
            raise state.error(node, f"scales {a_step:g} and {b_step:g} are too far apart", "Drop the smaller one.")
        ma, mb = (m, 1 << s) if s >= 0 else (m << -s, 1)
    tensor, name, step = state.tensors[a], node.output[0], b_step / mb
    state.emit(
        Node("Add", name, (a, b), name, {"multipliers": (ma, mb)}),
        Tensor(name, tensor.channels, UNPROVEN_BITS, True, tensor.upscale, 0, a_step if ma == mb == 1 else step),
    )
    return Accumulator(name, np.array([step]))


def _term(state: Lowering, node: onnx.NodeProto, index: int) -> tuple[str, float]:
    """Tensor and step of an input of a sum: quantized, or the exact integers of an upsampling filter."""
    value = state.value(node, index)
    filtered = {made.output for made in state.nodes if made.op == "ResizeFilter"}
    if isinstance(value, Accumulator) and not value.activated and value.half is None and value.tensor in filtered:
        return value.tensor, float(value.lsb[0])
    found = quantized(state, node, index)
    return found.tensor, found.scale


def _add_const(state: Lowering, node: onnx.NodeProto, value: Value, constant: Real) -> Value:
    """A bias, half a step in front of a FLOOR quantizer, or grey levels added to the image."""
    if isinstance(value, ImageInput):
        raise state.error(
            node, "changes the image before its quantizer", "Quantize the image first (step of one grey level)."
        )
    flat = per_channel(state, node, constant)
    readers = state.readers(node.output[0])
    floors = [
        r for r in readers if r.op_type == "Quant" and attributes(r).get("rounding_mode", "ROUND").upper() == "FLOOR"
    ]
    if flat.size == 1 and readers and len(floors) == len(readers) and isinstance(value, Quantized | Accumulator):
        acc = value if isinstance(value, Accumulator) else Accumulator(value.tensor, np.array([value.scale]))
        return replace(acc, half=float(flat[0]))
    if isinstance(value, Accumulator):
        if state.add_bias(value, flat):
            return value
        raise state.error(node, "adds a constant behind an activation or a sum", "Move it into a convolution's bias.")
    assert isinstance(value, Quantized)
    steps = np.rint(flat / value.scale)
    if np.abs(flat / value.scale - steps).max() > GRID_TOLERANCE:
        raise state.error(
            node, f"adds {flat[:4]}, no whole number of steps of {value.scale:g}", "Round it to the grid."
        )
    tensor, name = state.tensors[value.tensor], node.output[0]
    offset = np.broadcast_to(steps.astype(np.int64), (tensor.channels,)).copy()
    lo, hi = int(offset.min()) + tensor.range[0], int(offset.max()) + tensor.range[1]
    state.emit(
        Node("Offset", name, (value.tensor,), name, {}, {"offset": offset}),
        Tensor(name, tensor.channels, bits_for(lo, hi, True), True, tensor.upscale, tensor.zero_point, value.scale),
    )
    return Quantized(name, value.scale)


def _mul(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    a, b = state.value(node, 0), state.value(node, 1)
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(a.array * b.array)
    if isinstance(a, Const):
        return _scaled(state, node, b, a.array)
    if isinstance(b, Const):
        return _scaled(state, node, a, b.array)
    raise state.error(node, "multiplies two feature maps", "Products of feature maps have no integer form here.")


def _div(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    divisor = state.const(node, 1, "divisor").array
    value = state.value(node, 0)
    if isinstance(value, Const):
        return Const(value.array / divisor)
    return _scaled(state, node, value, 1.0 / divisor)


def _scaled(state: Lowering, node: onnx.NodeProto, value: Value, factor: Real) -> Value:
    """A constant factor only changes what an integer means; a negative one flips the convolution's weights."""
    flat = per_channel(state, node, factor)
    if not flat.all():
        raise state.error(node, "multiplies by 0", "Remove the branch.")
    if isinstance(value, Accumulator) and value.half is None and value.limit is None:
        spread = value.spread(flat)
        negative = spread < 0
        if not negative.any() or state.flip_channels(value, negative):
            return replace(value, lsb=value.lsb * np.abs(spread))
    if isinstance(value, Quantized) and flat.size == 1 and flat[0] > 0:
        return Quantized(value.tensor, value.scale * float(flat[0]))
    raise state.error(node, f"multiplies by {flat[:4]} here", "A positive constant behind a convolution is possible.")


def _batch_norm(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    gamma, beta, mean, var = (state.const(node, i, "a BatchNorm parameter").array for i in range(1, 5))
    scale = gamma / np.sqrt(var + float(attributes(node).get("epsilon", 1e-5)))
    value = _scaled(state, node, state.value(node, 0), scale[:, None, None])
    return _add_const(state, node, value, (beta - mean * scale)[:, None, None])


# --- activations --------------------------------------------------------------------------------------------------


def _activated(state: Lowering, node: onnx.NodeProto) -> Accumulator:
    """The accumulator an activation reads; a quantized tensor counts as one with a single step."""
    value = state.value(node, 0)
    if isinstance(value, Quantized) and not state.tensors[value.tensor].zero_point:
        return Accumulator(value.tensor, np.array([value.scale]))
    if isinstance(value, Accumulator) and not value.activated and value.half is None:
        return value
    raise state.error(
        node, "an activation needs a convolution, a sum or a quantized tensor in front", "Reorder the layers."
    )


def _relu(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    return replace(_activated(state, node), relu=True)


def _clip(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    """Clip(x, 0, v): a ReLU with an upper limit."""
    settings = attributes(node)

    def end(index: int, key: str) -> float | None:
        if index < len(node.input) and node.input[index]:
            return float(state.const(node, index, key).array.reshape(-1)[0])
        return float(settings[key]) if key in settings else None

    low, high = end(1, "min"), end(2, "max")
    if low != 0 or (high is not None and high <= 0):
        raise state.error(node, f"clips to {low}..{high}", "0 and a positive upper limit are possible.")
    return replace(_activated(state, node), relu=True, limit=high)


def _prelu(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    return _with_slope(state, node, per_channel(state, node, state.const(node, 1, "slope").array), target)


def _leaky(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    return _with_slope(state, node, np.array([float(attributes(node).get("alpha", 0.01))]), target)


def _with_slope(state: Lowering, node: onnx.NodeProto, slope: Real, target: Target) -> Value:
    limits, kind = target.integer.ops.Requant, target.integer.requant.kind
    shifts_only = kind == "pow2" and limits is not None and limits.slope_bits is None
    if limits is None or "prelu" not in limits.activations or shifts_only:
        raise state.error(node, f"target {target.name} has no activation with a slope", "Use ReLU.")
    if slope.min() < limits.slope_min or slope.max() > limits.slope_max:
        allowed = f"{limits.slope_min:g}..{limits.slope_max:g}"
        raise state.error(node, f"slopes {slope.min():g}..{slope.max():g}", f"Target {target.name} allows {allowed}.")
    value = _activated(state, node)
    return replace(value, slope=value.spread(slope))


# --- moving data --------------------------------------------------------------------------------------------------


def _depth_to_space(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    settings, phases = attributes(node), state.value(node, 0)
    if isinstance(phases, FilterPhases) and settings.get("mode") == "CRD" and settings["blocksize"] == phases.factor:
        return emit_filter(state, phases.source, phases.kernel, phases.factor, node.output[0])
    x = quantized(state, node, 0)
    tensor, name, block = state.tensors[x.tensor], node.output[0], int(settings["blocksize"])
    state.emit(
        Node("DepthToSpace", name, (x.tensor,), name, {"block": block, "mode": str(settings.get("mode", "DCR"))}),
        replace(tensor, name=name, channels=tensor.channels // block**2, upscale=tensor.upscale * block, scale=x.scale),
    )
    return Quantized(name, x.scale)


def _concat(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    parts = [quantized(state, node, index) for index in range(len(node.input))]
    if attributes(node).get("axis") not in (1, -3):
        raise state.error(node, f"axis {attributes(node).get('axis')}", "Channels (axis 1) can be concatenated.")
    if any(abs(part.scale / parts[0].scale - 1) > 1e-6 for part in parts):
        raise state.error(
            node, f"scales differ: {[part.scale for part in parts]}", "Share one quantizer between the inputs."
        )
    tensors, name = [state.tensors[part.tensor] for part in parts], node.output[0]
    state.emit(
        Node("Concat", name, tuple(part.tensor for part in parts), name),
        replace(tensors[0], name=name, channels=sum(tensor.channels for tensor in tensors), scale=parts[0].scale),
    )
    return Quantized(name, parts[0].scale)


def _constant(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    settings = attributes(node)
    if "value" not in settings:
        return Const(np.asarray(next(iter(settings.values())), np.float64))
    return Const(numpy_helper.to_array(settings["value"]).astype(np.float64))


def _identity(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    return state.value(node, 0)


HANDLERS: dict[str, Handler] = {
    "Quant": lower_quant,
    "IntQuant": lower_quant,
    "Conv": _conv,
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "BatchNormalization": _batch_norm,
    "Relu": _relu,
    "Clip": _clip,
    "PRelu": _prelu,
    "LeakyRelu": _leaky,
    "DepthToSpace": _depth_to_space,
    "Concat": _concat,
    "Resize": lower_resize,
    "Upsample": lower_resize,
    "Pad": lower_pad,
    "Slice": lower_slice,
    "Split": lower_split,
    "ConvTranspose": lower_conv_transpose,
    "Constant": _constant,
    "Identity": _identity,
}
