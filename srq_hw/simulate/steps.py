"""The steps of a compiled graph: each turns rows [first, last) of its input maps into rows of its output map.

Rows are counted in the input's own pixels. Only a convolution looks at rows beyond its range, so that all steps behind
it can follow on the same rows while these are still in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from srq_hw.graph.check import SAME_TYPE_OPS
from srq_hw.graph.ir import Int, Node, Tensor
from srq_hw.graph.ops import OPS
from srq_hw.graph.resampling import filter_axis
from srq_hw.simulate.convolve import Convolution
from srq_hw.simulate.kernels import Real, Requant, add_kernel, requant_kernel
from srq_hw.simulate.storage import Array, Store

Buffers = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class ConvRequant:
    """Conv and the Requant behind it, and the DepthToSpace behind that (block > 1): accumulators never reach memory."""

    source: Store
    target: Store
    convolution: Convolution
    bias: Real
    requant: Requant
    block: int
    nodes: tuple[str, ...]

    @property
    def sources(self) -> tuple[Store, ...]:
        return (self.source,)

    def run(self, buffers: Buffers, first: int, last: int) -> None:
        acc = self.convolution.run(_window(self.source, buffers[self.source.name], first, last, self.convolution.pad))
        out, target = buffers[self.target.name], self.target
        settings = self.requant.arguments(target.offset)
        kernel = requant_kernel(*self.requant.kernel)
        kernel(acc, self.bias, *settings, out, target.top + first * self.block, target.left, self.block)


@dataclass(frozen=True, eq=False)
class ConvOnly:
    """Conv to a stored accumulator."""

    source: Store
    target: Store
    convolution: Convolution
    nodes: tuple[str, ...]

    @property
    def sources(self) -> tuple[Store, ...]:
        return (self.source,)

    def run(self, buffers: Buffers, first: int, last: int) -> None:
        acc = self.convolution.run(_window(self.source, buffers[self.source.name], first, last, self.convolution.pad))
        values = acc.astype(np.int64) + self.convolution.bias
        self.target.save(buffers[self.target.name], first, values[None])


@dataclass(frozen=True, eq=False)
class AddRequant:
    """Add of two byte maps and the Requant behind it, in one pass. constant: what offsets and zero points add up to."""

    a: Store
    b: Store
    target: Store
    factors: tuple[float, float]
    constant: float
    requant: Requant
    nodes: tuple[str, ...]

    @property
    def sources(self) -> tuple[Store, ...]:
        return self.a, self.b

    def run(self, buffers: Buffers, first: int, last: int) -> None:
        a, b, target = self.a, self.b, self.target
        out = buffers[target.name]
        add_kernel(*self.requant.kernel)(
            buffers[a.name],
            a.top + first,
            a.left,
            self.factors[0],
            buffers[b.name],
            b.top + first,
            b.left,
            self.factors[1],
            self.constant,
            last - first,
            out.shape[1] - 2 * target.left,
            *self.requant.arguments(target.offset),
            out,
            target.top + first,
            target.left,
        )


@dataclass(frozen=True, eq=False)
class ByDefinition:
    """Any operation without a neighbourhood, as the ops table executes it. moves: stored values pass undecoded."""

    node: Node
    ins: tuple[Tensor, ...]
    sources: tuple[Store, ...]
    target: Store
    nodes: tuple[str, ...]

    @property
    def moves(self) -> bool:
        same = {(store.dtype, store.offset) for store in (*self.sources, self.target)}
        return self.node.op in SAME_TYPE_OPS and len(same) == 1

    def run(self, buffers: Buffers, first: int, last: int) -> None:
        execute = OPS[self.node.op].execute
        factor = self.target.upscale // self.sources[0].upscale
        out = buffers[self.target.name]
        if self.moves:
            rows = [store.inside(buffers[store.name])[None, first:last] for store in self.sources]
            result = execute(self.node, self.ins, rows)  # type: ignore[arg-type]
            self.target.inside(out)[first * factor : last * factor] = result[0]
            return
        values: list[Int] = [store.load(buffers[store.name], first, last) for store in self.sources]
        self.target.save(out, first * factor, execute(self.node, self.ins, values))


@dataclass(frozen=True, eq=False)
class Filter:
    """An upsampling filter: rows beyond the range are read, edge pixels repeated at the map's own edges only."""

    node: Node
    source: Store
    target: Store
    nodes: tuple[str, ...]

    @property
    def sources(self) -> tuple[Store, ...]:
        return (self.source,)

    def run(self, buffers: Buffers, first: int, last: int) -> None:
        taps, factor = self.node.params["taps"], self.node.int_attr("factor")
        radius, rows = taps.shape[1] // 2, self.source.inside(buffers[self.source.name])
        begin, end = max(0, first - radius), min(rows.shape[0], last + radius)
        # every partial sum is smaller than what the target's type holds times 2: int64 only where int32 could wrap
        dtype = np.int32 if self.reach < 1 << 31 else np.int64
        x: Any = rows[begin:end].astype(dtype) - self.source.zero
        down = filter_axis(x, taps, 0)[(first - begin) * factor : (last - begin) * factor]
        self.target.save(buffers[self.target.name], first * factor, filter_axis(down, taps, 1)[None])

    @property
    def reach(self) -> int:
        """Bound of \\|partial sum\\| in both passes."""
        largest = max(abs(self.source.lo - self.source.zero), abs(self.source.hi - self.source.zero))
        return largest * int(np.abs(self.node.params["taps"]).sum(1).max()) ** 2


Step = ConvRequant | ConvOnly | AddRequant | Filter | ByDefinition


def _window(store: Store, array: Array, first: int, last: int, pad: tuple[int, int]) -> Array:
    """Rows [first, last) with ``pad`` more rows and columns on each side, a view; dense where pad is the border."""
    rows = array[store.top + first - pad[0] : store.top + last + pad[0]]
    columns = store.left - pad[1]
    return rows[:, columns : array.shape[1] - columns]
