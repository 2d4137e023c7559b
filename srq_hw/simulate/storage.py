"""How the fast simulator keeps feature maps in memory: the smallest type, and a border for the convolutions that read.

A map is kept as ``stored = q + offset`` in one C-contiguous array (H + 2*top, W + 2*left, C) whose border holds
``zero_point + offset``, the stored form of 0. A convolution then reads a window and never pads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srq_hw.graph.ir import Int, IntGraph, Tensor
from srq_hw.graph.opspec import Bounds

Array = npt.NDArray[np.integer]

_SIGNED = (np.int8, np.int16, np.int32, np.int64)


@dataclass(frozen=True)
class Store:
    """Memory form of one tensor. top, left: border rows and columns on each side; zero: what the border holds."""

    name: str
    channels: int
    upscale: int
    dtype: type[np.integer]
    offset: int
    lo: int  #: smallest stored value, border included
    hi: int
    zero: int
    top: int = 0
    left: int = 0

    @property
    def small(self) -> bool:
        """True where the map is kept in one unsigned byte, which the fast kernels read and write."""
        return self.dtype is np.uint8

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape of the array for an input image of height x width."""
        return height * self.upscale + 2 * self.top, width * self.upscale + 2 * self.left, self.channels

    def allocate(self, height: int, width: int) -> Array:
        """A new array with its border filled and its inside undefined."""
        array = np.empty(self.shape(height, width), self.dtype)
        rows, columns = array.shape[0] - self.top, array.shape[1] - self.left
        array[: self.top] = array[rows:] = self.zero
        array[:, : self.left] = array[:, columns:] = self.zero
        return array

    def inside(self, array: Array) -> Array:
        """The map without its border, a view."""
        rows, columns = array.shape[0] - self.top, array.shape[1] - self.left
        return array[self.top : rows, self.left : columns]

    def load(self, array: Array, first: int, last: int) -> Int:
        """Rows [first, last) of the map as the integers of the graph, int64 (1, rows, W, C)."""
        rows = self.inside(array)[None, first:last].astype(np.int64)
        rows -= self.offset
        return rows

    def save(self, array: Array, first: int, values: Int) -> None:
        """Write integers of the graph, (1, rows, W, C), from row ``first`` on."""
        self.inside(array)[first : first + values.shape[1]] = values[0] + self.offset


def smallest_dtype(lo: int, hi: int) -> type[np.integer]:
    """uint8 where it holds [lo, hi], else the smallest signed type that does."""
    if lo >= 0 and hi <= 255:
        return np.uint8
    return next(dtype for dtype in _SIGNED if np.iinfo(dtype).min <= lo and hi <= np.iinfo(dtype).max)


def _byte_offset(lo: int, hi: int, signed: bool) -> int | None:
    """What to add so that [lo, hi] fits a byte; the same for every tensor of a type where it can be: moving is free."""
    candidates = (128, 0) if signed else (0, 128)
    return next((c for c in (*candidates, -lo) if lo + c >= 0 and hi + c <= 255), None)


def choose_store(tensor: Tensor, reach: Bounds, border: tuple[int, int]) -> Store:
    """The smallest form that holds every value the graph can put into the tensor, and its zero."""
    lo = min(int(reach.lo.min()), tensor.zero_point)
    hi = max(int(reach.hi.max()), tensor.zero_point)
    offset = _byte_offset(lo, hi, tensor.signed)
    dtype: type[np.integer] = np.uint8
    if offset is None:
        offset, dtype = 0, next(d for d in _SIGNED if np.iinfo(d).min <= lo and hi <= np.iinfo(d).max)
    return Store(
        name=tensor.name,
        channels=tensor.channels,
        upscale=tensor.upscale,
        dtype=dtype,
        offset=offset,
        lo=lo + offset,
        hi=hi + offset,
        zero=tensor.zero_point + offset,
        top=border[0],
        left=border[1],
    )


def choose_stores(graph: IntGraph, reach: Mapping[str, Bounds]) -> dict[str, Store]:
    """A store for every tensor; the border is what the widest convolution that reads it needs."""
    border = dict.fromkeys(graph.tensors, (0, 0))
    for node in graph.nodes:
        if node.op == "Conv":
            rows, columns = (size // 2 for size in node.params["weight"].shape[2:])
            top, left = border[node.inputs[0]]
            border[node.inputs[0]] = (max(top, rows), max(left, columns))
    return {name: choose_store(graph.tensors[name], reach[name], border[name]) for name in reach}
