"""The one table of IntGraph operations: what each looks like, which integers it can make, and what it computes.

`OPS[name]` is the definition. The reference simulator runs `execute`, the accumulator proof runs `bounds`; a backend
that disagrees is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srq_hw.fixedpoint import PRODUCT_LIMIT, ROUNDINGS, SHIFT_LIMIT, requantize
from srq_hw.graph.ir import Int, Node
from srq_hw.graph.opspec import Bounds, Ins, OpSpec
from srq_hw.graph.resampling import DEPTH_TO_SPACE, RESIZE_FILTER, RESIZE_NEAREST

# --- Conv ---------------------------------------------------------------------------------------------------------


def _conv_shape(node: Node, ins: Ins) -> tuple[int, int]:
    return int(node.params["weight"].shape[0]), ins[0].upscale


def _conv_problems(node: Node, ins: Ins) -> list[str]:
    weight, bias, groups = node.params["weight"], node.params["bias"], node.int_attr("groups")
    found = []
    if weight.ndim != 4 or weight.shape[2] % 2 == 0 or weight.shape[3] % 2 == 0:
        found.append(
            f"weight has shape {weight.shape}; wanted (out, in/groups, odd, odd): same padding needs odd kernels"
        )
    elif groups < 1 or weight.shape[0] % groups or weight.shape[1] * groups != ins[0].channels:
        found.append(f"weight {weight.shape} with groups {groups} does not fit {ins[0].channels} input channels")
    if bias.shape != weight.shape[:1]:
        found.append(f"bias has shape {bias.shape}; wanted {weight.shape[:1]}")
    return found


def _conv_bounds(node: Node, ins: Ins, bounds: Sequence[Bounds]) -> Bounds:
    """Exact worst case from the real weights: each weight meets the end of its channel's range that hurts most."""
    weight, groups = node.params["weight"], node.int_attr("groups")
    per_group = weight.shape[1]
    out_group = np.arange(weight.shape[0]) // (weight.shape[0] // groups)
    channels = out_group[:, None] * per_group + np.arange(per_group)[None, :]  # (O, I/g): input channel of each weight
    # Padding contributes x - z = 0, so a product is never worse than with 0 in the interval.
    lo = np.minimum(bounds[0].lo - ins[0].zero_point, 0)[channels]
    hi = np.maximum(bounds[0].hi - ins[0].zero_point, 0)[channels]
    positive, negative = np.maximum(weight, 0).sum((2, 3)), np.minimum(weight, 0).sum((2, 3))
    bias = node.params["bias"]
    return Bounds((positive * lo + negative * hi).sum(1) + bias, (positive * hi + negative * lo).sum(1) + bias)


def _conv(node: Node, ins: Ins, xs: Sequence[Int]) -> Int:
    """acc[n,y,x,o] = bias[o] + sum (x - z_x) * w, zero padding that keeps the size: one tap of the kernel at a time."""
    weight, groups = node.params["weight"], node.int_attr("groups")
    out_channels, per_group, rows, columns = weight.shape
    x = np.pad(xs[0] - ins[0].zero_point, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
    batch, height, width, _ = xs[0].shape
    acc = np.broadcast_to(node.params["bias"], (batch, height, width, out_channels)).copy()
    size = out_channels // groups
    for row in range(rows):
        for column in range(columns):
            window = x[:, row : row + height, column : column + width, :]
            for group in range(groups):
                outs = slice(group * size, (group + 1) * size)
                inside = slice(group * per_group, (group + 1) * per_group)
                acc[..., outs] += window[..., inside] @ weight[outs, :, row, column].T
    return acc


# --- Requant ------------------------------------------------------------------------------------------------------


def _requant_problems(node: Node, ins: Ins) -> list[str]:
    found = []
    for key in ("multiplier", "shift", "negative_multiplier"):
        values = node.params.get(key)
        if values is not None and values.shape not in ((1,), (ins[0].channels,)):
            found.append(f"{key} has shape {values.shape}; wanted (1,) or ({ins[0].channels},)")
        if values is not None and key == "multiplier" and (values < 0).any():
            found.append(f"{key} has a negative value {int(values.min())}; only a slope, negative_multiplier, may fall")
    shift = node.params["shift"]
    if shift.size and max(abs(int(shift.min())), abs(int(shift.max()))) > SHIFT_LIMIT:
        found.append(f"shift {int(shift.min())}..{int(shift.max())}; wanted -{SHIFT_LIMIT} to {SHIFT_LIMIT}")
    if node.str_attr("rounding") not in ROUNDINGS:
        found.append(f"rounding {node.attrs['rounding']!r} is none of {', '.join(ROUNDINGS)}")
    if node.int_attr("lo") > node.int_attr("hi"):
        found.append(f"lo {node.attrs['lo']} is above hi {node.attrs['hi']}")
    if ins[0].zero_point:
        found.append(f"input has zero point {ins[0].zero_point}; an accumulator has none")
    return found


def _requant_bounds(node: Node, ins: Ins, bounds: Sequence[Bounds]) -> Bounds:
    """Monotone on either side of 0, so the ends and what is next to 0 map to the ends (a slope may be negative)."""
    lo, hi = bounds[0].lo, bounds[0].hi
    found = [_requant(node, ins, [x]) for x in (lo, hi, np.clip(0, lo, hi), np.clip(-1, lo, hi))]
    return Bounds(np.min(found, axis=0), np.max(found, axis=0))


def _requant(node: Node, ins: Ins, xs: Sequence[Int]) -> Int:
    """clamp(round(acc * M / 2**S) + zero_point, lo, hi), per channel; see `fixedpoint.requantize`."""
    return requantize(
        xs[0],
        node.params["multiplier"],
        node.params["shift"],
        node.str_attr("rounding"),
        node.int_attr("lo"),
        node.int_attr("hi"),
        node.int_attr("zero_point"),
        node.params.get("negative_multiplier"),
    )


# --- Add, Offset, Concat ------------------------------------------------------------------------------------------


def _same_shape(node: Node, ins: Ins) -> tuple[int, int]:
    return ins[0].channels, ins[0].upscale


def _add_problems(node: Node, ins: Ins) -> list[str]:
    found = []
    if (ins[0].channels, ins[0].upscale) != (ins[1].channels, ins[1].upscale):
        found.append(
            f"inputs differ in shape: {ins[0].channels} channels x{ins[0].upscale} and "
            f"{ins[1].channels} x{ins[1].upscale}"
        )
    pair = node.ints_attr("multipliers")
    if len(pair) != 2 or not all(isinstance(item, int) and 1 <= item < PRODUCT_LIMIT for item in pair):
        found.append(f"multipliers {pair!r}; wanted two integers from 1 to 2**62 - 1")
    return found


def _add_bounds(node: Node, ins: Ins, bounds: Sequence[Bounds]) -> Bounds:
    """The sum of both ends."""
    return Bounds(_add(node, ins, [b.lo for b in bounds]), _add(node, ins, [b.hi for b in bounds]))


def _add(node: Node, ins: Ins, xs: Sequence[Int]) -> Int:
    """(a - z_a) * M_a + (b - z_b) * M_b, exact; the Requant behind it rounds once."""
    ma, mb = node.ints_attr("multipliers")
    return (xs[0] - ins[0].zero_point) * ma + (xs[1] - ins[1].zero_point) * mb


def _offset_problems(node: Node, ins: Ins) -> list[str]:
    offset = node.params["offset"]
    return (
        [] if offset.shape == (ins[0].channels,) else [f"offset has shape {offset.shape}; wanted ({ins[0].channels},)"]
    )


def _offset_bounds(node: Node, ins: Ins, bounds: Sequence[Bounds]) -> Bounds:
    return Bounds(_offset(node, ins, [bounds[0].lo]), _offset(node, ins, [bounds[0].hi]))


def _offset(node: Node, ins: Ins, xs: Sequence[Int]) -> Int:
    """x + offset[c]: moves a mean-shifted image so that its padding value is 0."""
    return xs[0] + node.params["offset"]


def _concat_problems(node: Node, ins: Ins) -> list[str]:
    found = []
    if len({tensor.upscale for tensor in ins}) != 1:
        found.append(f"inputs differ in size: upscale {[tensor.upscale for tensor in ins]}")
    if len({(tensor.zero_point, tensor.bits, tensor.signed) for tensor in ins}) != 1:
        found.append(f"inputs differ in type: {[(tensor.dtype, tensor.zero_point) for tensor in ins]}")
    return found


def _concat_shape(node: Node, ins: Ins) -> tuple[int, int]:
    return sum(tensor.channels for tensor in ins), ins[0].upscale


def _concat_bounds(node: Node, ins: Ins, bounds: Sequence[Bounds]) -> Bounds:
    return Bounds(np.concatenate([b.lo for b in bounds]), np.concatenate([b.hi for b in bounds]))


def _concat(node: Node, ins: Ins, xs: Sequence[Int]) -> Int:
    """Channels of the inputs one after the other."""
    return np.concatenate(list(xs), axis=-1)


# --- Slice --------------------------------------------------------------------------------------------------------


def _slice_problems(node: Node, ins: Ins) -> list[str]:
    start, stop = node.int_attr("start"), node.int_attr("stop")
    if 0 <= start < stop <= ins[0].channels:
        return []
    return [f"channels {start} to {stop} of {ins[0].channels}; wanted 0 <= start < stop <= channels"]


def _slice_shape(node: Node, ins: Ins) -> tuple[int, int]:
    return node.int_attr("stop") - node.int_attr("start"), ins[0].upscale


def _slice_bounds(node: Node, ins: Ins, bounds: Sequence[Bounds]) -> Bounds:
    channels = slice(node.int_attr("start"), node.int_attr("stop"))
    return Bounds(bounds[0].lo[channels], bounds[0].hi[channels])


def _slice(node: Node, ins: Ins, xs: Sequence[Int]) -> Int:
    """Channels start .. stop - 1."""
    return xs[0][..., node.int_attr("start") : node.int_attr("stop")].copy()


OPS: dict[str, OpSpec] = {
    "Conv": OpSpec(
        inputs=1,
        attrs={"groups": int},
        params={"weight": True, "bias": True},
        doc="2-D convolution, stride 1, size kept by zero padding; exact accumulator out",
        shape=_conv_shape,
        bounds=_conv_bounds,
        execute=_conv,
        problems=_conv_problems,
        halo=lambda node: int(max(node.params["weight"].shape[2:])) // 2,
    ),
    "Requant": OpSpec(
        inputs=1,
        attrs={"rounding": str, "lo": int, "hi": int, "zero_point": int},
        params={"multiplier": True, "shift": True, "negative_multiplier": False},
        doc="accumulator to a quantized type: multiply, rounding shift, activation, clamp",
        shape=_same_shape,
        bounds=_requant_bounds,
        execute=_requant,
        problems=_requant_problems,
    ),
    "Add": OpSpec(
        inputs=2,
        attrs={"multipliers": tuple},
        params={},
        doc="weighted sum of two tensors, exact",
        shape=_same_shape,
        bounds=_add_bounds,
        execute=_add,
        problems=_add_problems,
    ),
    "Offset": OpSpec(
        inputs=1,
        attrs={},
        params={"offset": True},
        doc="adds one integer per channel",
        shape=_same_shape,
        bounds=_offset_bounds,
        execute=_offset,
        problems=_offset_problems,
    ),
    "Concat": OpSpec(
        inputs=None,
        attrs={},
        params={},
        doc="channels of several tensors of one type",
        shape=_concat_shape,
        bounds=_concat_bounds,
        execute=_concat,
        problems=_concat_problems,
    ),
    "DepthToSpace": DEPTH_TO_SPACE,
    "ResizeNearest": RESIZE_NEAREST,
    "Slice": OpSpec(
        inputs=1,
        attrs={"start": int, "stop": int},
        params={},
        doc="channels start .. stop - 1",
        shape=_slice_shape,
        bounds=_slice_bounds,
        execute=_slice,
        problems=_slice_problems,
    ),
    "ResizeFilter": RESIZE_FILTER,
}
