"""The one table of IntGraph operations: what each looks like, which integers it can make, and what it computes.

`OPS[name]` is the definition. The reference simulator runs `execute`, the accumulator proof runs `bounds`; a backend
that disagrees is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srq_hw.fixedpoint import PRODUCT_LIMIT, ROUNDINGS, SHIFT_LIMIT, requantize
from srq_hw.graph.ir import Int, Node, Tensor

Ins = Sequence[Tensor]


@dataclass(frozen=True)
class Bounds:
    """Per channel, the smallest and largest integer a tensor can hold: int64 (C,) each."""

    lo: Int
    hi: Int

    @staticmethod
    def of(tensor: Tensor) -> Bounds:
        """Everything the type allows."""
        lo, hi = tensor.range
        return Bounds(np.full(tensor.channels, lo, np.int64), np.full(tensor.channels, hi, np.int64))


@dataclass(frozen=True)
class OpSpec:
    """One row of the table. shape, problems, bounds and execute get the node and its input tensors in order."""

    inputs: int | None  #: how many tensors it reads; None: two or more
    attrs: Mapping[str, type]
    params: Mapping[str, bool]  #: name -> required
    doc: str
    shape: Callable[[Node, Ins], tuple[int, int]]  #: (channels, upscale) of the output
    bounds: Callable[[Node, Ins, Sequence[Bounds]], Bounds]
    execute: Callable[[Node, Ins, Sequence[Int]], Int]  #: NHWC int64 in, NHWC int64 out
    #: what is wrong with the node beyond attrs and params being there, as sentences
    problems: Callable[[Node, Ins], list[str]] = lambda node, ins: []
    #: pixels around an output pixel that it looks at, in pixels of the input
    halo: Callable[[Node], int] = lambda node: 0


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


# --- DepthToSpace, ResizeNearest ----------------------------------------------------------------------------------


def depth_to_space_order(channels: int, block: int, mode: str) -> Int:
    """Input channel for each (dy, dx, output channel), int64 (block*block*C_out,).

    CRD (PyTorch PixelShuffle): c * block**2 + dy * block + dx. DCR (TensorFlow): (dy * block + dx) * C_out + c.
    """
    out_channels = channels // block**2
    if mode == "CRD":
        return np.arange(channels, dtype=np.int64).reshape(out_channels, block**2).T.reshape(-1)
    return np.arange(channels, dtype=np.int64)


def _d2s_problems(node: Node, ins: Ins) -> list[str]:
    block = node.int_attr("block")
    found = []
    if block < 2 or ins[0].channels % block**2:
        found.append(f"block {block} does not divide {ins[0].channels} channels into block*block parts")
    if node.str_attr("mode") not in ("CRD", "DCR"):
        found.append(f"mode {node.attrs['mode']!r} is neither CRD nor DCR")
    return found


def _d2s_shape(node: Node, ins: Ins) -> tuple[int, int]:
    block = node.int_attr("block")
    return ins[0].channels // block**2, ins[0].upscale * block


def _d2s_bounds(node: Node, ins: Ins, bounds: Sequence[Bounds]) -> Bounds:
    block = node.int_attr("block")
    order = depth_to_space_order(ins[0].channels, block, node.str_attr("mode")).reshape(block**2, -1)
    return Bounds(bounds[0].lo[order].min(0), bounds[0].hi[order].max(0))


def _d2s(node: Node, ins: Ins, xs: Sequence[Int]) -> Int:
    """out[n, y*block + dy, x*block + dx, c] = in[n, y, x, order(dy, dx, c)]."""
    block = node.int_attr("block")
    batch, height, width, channels = xs[0].shape
    x = xs[0][..., depth_to_space_order(channels, block, node.str_attr("mode"))]
    x = x.reshape(batch, height, width, block, block, channels // block**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * block, width * block, channels // block**2)


def undo_depth_to_space(shuffled: Int, node: Node) -> Int:
    """The input of a DepthToSpace node from its output, int64 NHWC."""
    block = node.int_attr("block")
    count, height, width, channels = shuffled.shape
    x = shuffled.reshape(count, height // block, block, width // block, block, channels).transpose(0, 1, 3, 2, 4, 5)
    order = depth_to_space_order(channels * block**2, block, node.str_attr("mode"))
    result = np.empty((count, height // block, width // block, channels * block**2), np.int64)
    result[..., order] = x.reshape(result.shape)
    return result


def _resize_problems(node: Node, ins: Ins) -> list[str]:
    return [] if node.int_attr("factor") >= 2 else [f"factor {node.attrs['factor']}; wanted 2 or more"]


def _resize_shape(node: Node, ins: Ins) -> tuple[int, int]:
    return ins[0].channels, ins[0].upscale * node.int_attr("factor")


def _same_bounds(node: Node, ins: Ins, bounds: Sequence[Bounds]) -> Bounds:
    return bounds[0]


def _resize(node: Node, ins: Ins, xs: Sequence[Int]) -> Int:
    """Every pixel becomes a factor x factor block of itself."""
    factor = node.int_attr("factor")
    return xs[0].repeat(factor, axis=1).repeat(factor, axis=2)


# --- Slice, ResizeFilter ------------------------------------------------------------------------------------------


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


def _filter_problems(node: Node, ins: Ins) -> list[str]:
    taps, factor, denominator = node.params["taps"], node.int_attr("factor"), node.int_attr("denominator")
    found = []
    if factor < 2:
        found.append(f"factor {factor}; wanted 2 or more")
    if taps.ndim != 2 or taps.shape[0] != factor or taps.shape[1] % 2 == 0:
        found.append(f"taps have shape {taps.shape}; wanted ({factor}, odd): one row per phase, centred on the pixel")
    elif denominator < 1 or (taps.sum(1) != denominator).any():
        found.append(f"taps sum to {taps.sum(1).tolist()}; wanted the denominator, {denominator}, in every row")
    return found


def _filter_bounds(node: Node, ins: Ins, bounds: Sequence[Bounds]) -> Bounds:
    """Each weight of the worst phase meets the end that hurts most; a repeated edge pixel only merges weights."""
    taps = node.params["taps"]
    planes = np.einsum("ia,jb->ijab", taps, taps).reshape(taps.shape[0] ** 2, -1)
    positive, negative = np.maximum(planes, 0).sum(1)[:, None], np.minimum(planes, 0).sum(1)[:, None]
    lo, hi = bounds[0].lo - ins[0].zero_point, bounds[0].hi - ins[0].zero_point
    return Bounds((positive * lo + negative * hi).min(0), (positive * hi + negative * lo).max(0))


def _filter(node: Node, ins: Ins, xs: Sequence[Int]) -> Int:
    """out[y*f+i, x*f+j] = sum over a, b of taps[i, a] * taps[j, b] * (x - z)[y+a-R, x+b-R], edge pixels repeated.

    Exact: no rounding; LSB = input scale / denominator**2.
    """
    return filter_axis(filter_axis(xs[0] - ins[0].zero_point, node.params["taps"], 1), node.params["taps"], 2)


def filter_axis(x: Int, taps: Int, axis: int) -> Int:
    """One pass of the separable filter along an axis, which becomes ``len(taps)`` times as long."""
    length, radius = x.shape[axis], taps.shape[1] // 2
    near = [np.clip(np.arange(length) + tap - radius, 0, length - 1) for tap in range(taps.shape[1])]
    views = [np.take(x, index, axis) for index in near]
    phases = [sum(int(weight) * view for weight, view in zip(row, views, strict=True) if weight) for row in taps]
    shape = (*x.shape[:axis], length * len(taps), *x.shape[axis + 1 :])
    found: Int = np.stack(phases, axis + 1).reshape(shape)
    return found


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
    "DepthToSpace": OpSpec(
        inputs=1,
        attrs={"block": int, "mode": str},
        params={},
        doc="pixel shuffle; mode CRD is PyTorch's channel order, DCR TensorFlow's",
        shape=_d2s_shape,
        bounds=_d2s_bounds,
        execute=_d2s,
        problems=_d2s_problems,
    ),
    "ResizeNearest": OpSpec(
        inputs=1,
        attrs={"factor": int},
        params={},
        doc="nearest-neighbour upsampling by an integer factor",
        shape=_resize_shape,
        bounds=_same_bounds,
        execute=_resize,
        problems=_resize_problems,
    ),
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
    "ResizeFilter": OpSpec(
        inputs=1,
        attrs={"factor": int, "denominator": int},
        params={"taps": True},
        doc="separable upsampling by integer taps (bilinear, bicubic), half-pixel centres, edge pixels repeated; exact",
        shape=_resize_shape,
        bounds=_filter_bounds,
        execute=_filter,
        problems=_filter_problems,
        halo=lambda node: int(node.params["taps"].shape[1]) // 2,
    ),
}
