"""Lowering of what changes the size or the channels: slices, upsampling filters, transposed convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from srq_hw.exchange.values import (
    Accumulator,
    EdgePadded,
    FilterPhases,
    Lowering,
    Quantized,
    Value,
    attributes,
    quantized,
)
from srq_hw.graph.ir import Attr, Node, Tensor
from srq_hw.graph.passes import UNPROVEN_BITS
from srq_hw.graph.taps import KERNELS, filter_taps
from srq_hw.normalform.subpixel import subpixel_problem, subpixel_weight
from srq_hw.quantize.requant import significant
from srq_hw.target import Target

Handler = Callable[[Lowering, onnx.NodeProto, Target], Value]

#: float32 of an attribute against the real number it stands for
SETTING_TOLERANCE = 1e-6


# --- channels -----------------------------------------------------------------------------------------------------


def _emit_slice(state: Lowering, x: Quantized, first: int, last: int, name: str) -> Quantized:
    tensor = state.tensors[x.tensor]
    if (first, last) == (0, tensor.channels):
        return x
    state.emit(
        Node("Slice", name, (x.tensor,), name, {"start": first, "stop": last}),
        replace(tensor, name=name, channels=last - first, scale=x.scale),
    )
    return Quantized(name, x.scale)


def lower_slice(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    """Slice(data, starts, ends, axes, steps): channels, step 1."""
    x = quantized(state, node, 0)
    starts, ends = (state.const(node, i, what).array.reshape(-1) for i, what in ((1, "starts"), (2, "ends")))
    axes = state.const(node, 3, "axes").array.reshape(-1) if len(node.input) > 3 and node.input[3] else np.arange(1)
    steps = state.const(node, 4, "steps").array.reshape(-1) if len(node.input) > 4 and node.input[4] else np.ones(1)
    channels = state.tensors[x.tensor].channels
    if axes.tolist() not in ([1], [-3]) or steps.tolist() != [1] or starts.size != 1 or ends.size != 1:
        raise state.error(
            node, f"axes {axes.tolist()} with steps {steps.tolist()}", "Channels (axis 1) with step 1 are possible."
        )
    first, last, _ = slice(int(starts[0]), int(ends[0])).indices(channels)
    if first >= last:
        raise state.error(node, f"channels {first} to {last} of {channels}", "At least one channel must be left.")
    return _emit_slice(state, x, first, last, node.output[0])


def lower_split(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    """Split into several outputs: one Slice each."""
    x, settings = quantized(state, node, 0), attributes(node)
    channels, count = state.tensors[x.tensor].channels, len(node.output)
    if settings.get("axis", 0) not in (1, -3):
        raise state.error(node, f"axis {settings.get('axis', 0)}", "Channels (axis 1) can be split.")
    if len(node.input) > 1 and node.input[1]:
        sizes = [int(size) for size in state.const(node, 1, "sizes").array.reshape(-1)]
    else:
        size = -(-channels // count)
        sizes = list(settings.get("split", [min(size, channels - at) for at in range(0, channels, size)]))
    if len(sizes) != count or sum(sizes) != channels or min(sizes) < 1:
        raise state.error(node, f"pieces of {sizes} channels of {channels}", "Check the file with onnx.checker.")
    first = 0
    for name, size in zip(node.output, sizes, strict=True):
        state.values[name] = _emit_slice(state, x, first, first + size, name)
        first += size
    return state.values[node.output[0]]


# --- upsampling ---------------------------------------------------------------------------------------------------


def lower_resize(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    """Resize and Upsample: pixels repeated, or a filter with half-pixel centres."""
    x, settings = quantized(state, node, 0), attributes(node)
    scales = state.const(node, len(node.input) - 1, "scales").array.reshape(-1)
    factor, mode = int(scales[-1]), str(settings.get("mode", "nearest"))
    if list(scales) != [1, 1, factor, factor] or factor < 2:
        raise state.error(node, f"mode {mode} scales {scales.tolist()}", "A whole factor on both axes is possible.")
    if mode != "nearest":
        return emit_filter(state, x, _kernel(state, node), factor, node.output[0])
    way = (settings.get("coordinate_transformation_mode", "half_pixel"), settings.get("nearest_mode", "round"))
    centred = way[0] in ("half_pixel", "pytorch_half_pixel") and str(way[1]).startswith("round")
    if node.op_type == "Resize" and way != ("asymmetric", "floor") and not centred:
        raise state.error(
            node,
            f"takes pixels by {way[0]} and {way[1]}",
            "asymmetric with floor, or half_pixel with round, repeats pixels.",
        )
    tensor, name = state.tensors[x.tensor], node.output[0]
    state.emit(
        Node("ResizeNearest", name, (x.tensor,), name, {"factor": factor}),
        replace(tensor, name=name, upscale=tensor.upscale * factor, scale=x.scale),
    )
    return Quantized(name, x.scale)


def _kernel(state: Lowering, node: onnx.NodeProto) -> str:
    """Name of the filter an ONNX Resize asks for."""
    settings = attributes(node)
    mode, way = settings["mode"], settings.get("coordinate_transformation_mode", "half_pixel")
    odd = [key for key in ("antialias", "exclude_outside") if settings.get(key, 0)]
    if node.op_type != "Resize" or mode not in ("linear", "cubic") or odd:
        raise state.error(
            node, f"mode {mode}" + "".join(f" with {key}" for key in odd), "nearest, linear and cubic are possible."
        )
    if way not in ("half_pixel", "pytorch_half_pixel"):
        raise state.error(node, f"takes pixels by {way}", "half_pixel is possible for linear and cubic.")
    if mode == "linear":
        return "bilinear"
    wanted = float(settings.get("cubic_coeff_a", -0.75))
    for name, a in KERNELS.items():
        if a is not None and abs(float(a) - wanted) < SETTING_TOLERANCE:
            return name
    raise state.error(node, f"cubic_coeff_a {wanted:g}", "-0.5 (MATLAB) and -0.75 (torch) are possible.")


def emit_filter(state: Lowering, x: Quantized, kernel: str, factor: int, name: str) -> Accumulator:
    """A ResizeFilter node: exact integers, worth scale / denominator**2 each."""
    taps, denominator = filter_taps(kernel, factor)
    tensor, step = state.tensors[x.tensor], x.scale / float(denominator) ** 2
    attrs: dict[str, Attr] = {"factor": factor, "denominator": denominator}
    state.emit(
        Node("ResizeFilter", name, (x.tensor,), name, attrs, {"taps": taps}),
        Tensor(name, tensor.channels, UNPROVEN_BITS, True, tensor.upscale * factor, 0, step),
    )
    return Accumulator(name, np.array([step]))


def lower_pad(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    """Pad by the edge in front of a filter written as a convolution; every other padding belongs into the Conv."""
    x, settings = quantized(state, node, 0), attributes(node)
    pads = [int(pad) for pad in state.const(node, 1, "pads").array.reshape(-1)]
    radius = pads[-1]
    if settings.get("mode", "constant") != "edge" or pads != [0, 0, radius, radius] * 2:
        raise state.error(
            node,
            f"mode {settings.get('mode', 'constant')}, pads {pads}",
            "Let the convolution pad with zeros; edge padding is possible in front of an upsampling filter.",
        )
    return EdgePadded(x, radius)


def filter_phases(state: Lowering, node: onnx.NodeProto, padded: EdgePadded) -> FilterPhases:
    """A convolution per channel behind an edge padding that makes all phases of a filter `graph.taps` knows."""
    planes = state.const(node, 1, "weight").array
    settings = attributes(node)
    channels, size = state.tensors[padded.source.tensor].channels, 2 * padded.radius + 1
    factor = round((planes.shape[0] / channels) ** 0.5)
    plain = len(node.input) < 3 and not any(settings.get("pads", [0])) and set(settings.get("strides", [1])) == {1}
    if plain and planes.shape == (channels * factor**2, 1, size, size) and settings.get("group", 1) == channels:
        for kernel in KERNELS if factor > 1 else ():
            taps, denominator = filter_taps(kernel, factor)
            wanted = np.einsum("ia,jb->ijab", taps, taps).reshape(-1, taps.shape[1] ** 2)
            found = planes.reshape(channels, factor**2, -1) * float(denominator) ** 2
            if wanted.shape[1:] == found.shape[2:] and (found == wanted).all():
                return FilterPhases(padded.source, kernel, factor)
    raise state.error(
        node,
        "a convolution behind an edge padding is none of the known upsampling filters",
        "Let the convolution pad with zeros, or use Resize.",
    )


# --- transposed convolution ---------------------------------------------------------------------------------------


def lower_conv_transpose(state: Lowering, node: onnx.NodeProto, target: Target) -> Value:
    """ConvTranspose whose output is exactly stride times its input: a convolution, shuffled behind its quantizer."""
    x, weight, settings = quantized(state, node, 0), state.const(node, 1, "weight"), attributes(node)
    if weight.integers is None or weight.step is None:
        raise state.error(node, f"weight {node.input[1]} has no Quant node", "Quantize the weights.")
    kernel, outs = weight.integers.shape[2:], weight.integers.shape[1]
    stride = tuple(settings.get("strides", [1, 1]))
    pads = list(settings.get("pads", [0] * 4))
    more = tuple(settings.get("output_padding", [0, 0]))
    if len(kernel) != 2 or settings.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in settings:
        raise state.error(node, "auto_pad or output_shape", "Say pads and output_padding.")
    # what is cut off at the end (pads[2:]) beyond the front's is output padding the other way round
    more = tuple(int(m - (end - begin)) for m, begin, end in zip(more, pads[:2], pads[2:], strict=True))
    groups, dilation = int(settings.get("group", 1)), tuple(settings.get("dilations", [1, 1]))
    problem = subpixel_problem(kernel, stride, tuple(pads[:2]), more, dilation, groups)
    if problem:
        raise state.error(node, problem, "An output of exactly stride times the input, in one group, is possible.")
    factor, step = int(stride[0]), weight.step.reshape(-1)
    if step.size != 1 and weight.step.shape != (1, outs, 1, 1):
        raise state.error(node, f"weight scale of shape {weight.step.shape}", "One per tensor or per output channel.")
    lsb = x.scale * step
    bias = np.zeros(outs)
    if len(node.input) > 2 and node.input[2]:
        bias = state.const(node, 2, "bias").array.reshape(-1)
    integers = subpixel_weight(weight.integers, factor, (int(pads[0]), int(pads[1])))
    steps = np.broadcast_to(significant(bias / lsb), (outs,))
    name = node.output[0] if factor == 1 else f"{node.output[0]}_subpixel"
    params = {"weight": integers, "bias": np.repeat(steps, factor**2)}
    state.emit(
        Node("Conv", name, (x.tensor,), name, {"groups": 1}, params),
        Tensor(name, outs * factor**2, UNPROVEN_BITS, True, state.tensors[x.tensor].upscale),
    )
    return Accumulator(name, np.repeat(lsb, factor**2) if lsb.size > 1 else lsb, shuffle=factor)
