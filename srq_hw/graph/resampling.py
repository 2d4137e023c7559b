"""The operations that change an image's size: DepthToSpace, ResizeNearest, ResizeFilter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srq_hw.graph.ir import Int, Node
from srq_hw.graph.opspec import Bounds, Ins, OpSpec

# --- DepthToSpace -----------------------------------------------------------------------------------------------------


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


DEPTH_TO_SPACE = OpSpec(
    inputs=1,
    attrs={"block": int, "mode": str},
    params={},
    doc="pixel shuffle; mode CRD is PyTorch's channel order, DCR TensorFlow's",
    shape=_d2s_shape,
    bounds=_d2s_bounds,
    execute=_d2s,
    problems=_d2s_problems,
)

# --- ResizeNearest ----------------------------------------------------------------------------------------------------


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


RESIZE_NEAREST = OpSpec(
    inputs=1,
    attrs={"factor": int},
    params={},
    doc="nearest-neighbour upsampling by an integer factor",
    shape=_resize_shape,
    bounds=_same_bounds,
    execute=_resize,
    problems=_resize_problems,
)

# --- ResizeFilter -----------------------------------------------------------------------------------------------------


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


RESIZE_FILTER = OpSpec(
    inputs=1,
    attrs={"factor": int, "denominator": int},
    params={"taps": True},
    doc="separable upsampling by integer taps (bilinear, bicubic), half-pixel centres, edge pixels repeated; exact",
    shape=_resize_shape,
    bounds=_filter_bounds,
    execute=_filter,
    problems=_filter_problems,
    halo=lambda node: int(node.params["taps"].shape[1]) // 2,
)
