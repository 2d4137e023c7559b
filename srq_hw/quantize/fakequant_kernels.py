"""The compiled loops of `fakequant`: one pass over memory each way, float32, every value torch's own to the last bit.

A tensor is seen as flat memory in equal *groups*; in a group the steps repeat with a *period*:

=================== ============== ======================== ====== ========
step                memory         groups                   period step rows
=================== ============== ======================== ====== ========
one                 any            1                        1      1
(N, 1, 1, 1)        any            N                        1      N
(1 or N, C, 1, 1)   channels last  1 or N                   C      1 or N
(1 or N, C, 1, 1)   contiguous     N * C                    1      C or N*C
=================== ============== ======================== ====== ========

A group is worked through in blocks and a block in chunks of one or more periods, small enough for the first cache: so
every loop runs over plain arrays and becomes vector code, whatever the period. The sums for the steps are float64, one
per lane of a chunk, then pairwise, then block by block: the same whatever the number of threads.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from srq_hw.jit import jit

Flat = npt.NDArray[np.float32]

#: rounding -> its number in `_round`
RULES = {name: number for number, name in enumerate(("half_even", "half_up", "half_away", "floor", "trunc"))}
#: values in a chunk where the period leaves the choice: five arrays of them fit into the first cache
CHUNK = 512
#: values in a block: what one sum of a step spans and one thread takes
BLOCK = 1 << 16
#: contiguous channels of fewer pixels are left to torch: each is a group with a step of its own
SHORT = 64
#: values per thread from which on starting one pays
THREAD_LOAD = 1 << 20

_PLAIN = (Tensor, nn.Parameter)  # not a subclass, which may have no memory
_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)


@dataclass(frozen=True, slots=True)
class Layout:
    """Memory as the kernels see it: groups * length values, group g with row g % rows of steps (rows, period).

    chunk: the period times a power of two, so that lanes can be added pairwise; block: whole chunks; blocks: in one
    group.
    """

    groups: int
    length: int
    rows: int
    period: int
    channels_last: bool
    chunk: int
    block: int
    blocks: int

    def flat(self, x: Tensor) -> Flat:
        """The memory of a tensor of this layout, (groups * length,)."""
        found: Flat = (x.permute(0, 2, 3, 1) if self.channels_last else x).detach().numpy().reshape(-1)
        return found

    def steps(self, step: Tensor) -> Flat:
        """(rows, period); a copy where one value is seen many times, or the loops would be compiled once more."""
        return np.ascontiguousarray(step.detach().numpy().reshape(self.rows, self.period))


@lru_cache(maxsize=1024)
def _layout(groups: int, length: int, rows: int, period: int, channels_last: bool) -> Layout:
    chunk = period
    while 2 * chunk <= CHUNK and chunk < length:
        chunk *= 2
    block = chunk * max(1, BLOCK // chunk)
    return Layout(groups, length, rows, period, channels_last, chunk, block, -(-length // block))


def layout_of(x: Tensor, step: Tensor) -> Layout | None:
    """How the kernels see x with these steps; None where they do not serve and torch must."""
    for tensor in (x, step):
        if type(tensor) not in _PLAIN or tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            return None
    size, shape = x.numel(), x.shape
    channels_last = len(shape) == 4 and x.is_contiguous(memory_format=torch.channels_last)
    if size == 0 or not (channels_last or x.is_contiguous()):
        return None
    if step.numel() == 1:
        return _layout(1, size, 1, 1, channels_last) if step.dim() <= len(shape) else None
    if len(shape) != 4 or step.dim() != 4 or step.shape[2:] != (1, 1):
        return None
    (images, channels, height, width), (outer, inner) = shape, step.shape[:2]
    if outer not in (1, images) or inner not in (1, channels):
        return None
    if inner == 1:
        return _layout(images, size // images, images, 1, channels_last)
    if channels_last:
        return _layout(outer, size // outer, outer, channels, True)
    if height * width < SHORT:
        return None
    return _layout(images * channels, height * width, outer * channels, 1, False)


def quantize(x: Tensor, step: Tensor, lo: int, hi: int, rounding: str, layout: Layout) -> Tensor:
    """clamp(round(x / step), lo, hi) * step, in memory as x is."""
    y = torch.empty_like(x)
    arguments = (layout.flat(x), layout.steps(step), *_common(layout, lo, hi, rounding), layout.flat(y))
    _split(_forward, arguments, layout)
    return y


def gradients(
    gradient: Tensor,
    x: Tensor,
    step: Tensor,
    lo: int,
    hi: int,
    rounding: str,
    layout: Layout,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and step where wanted, from the one of `quantize`'s result."""
    memory = torch.channels_last if layout.channels_last else torch.contiguous_format
    upstream = layout.flat(gradient.contiguous(memory_format=memory))
    by_x = torch.empty_like(x) if wanted[0] else None
    into = upstream if by_x is None else layout.flat(by_x)  # never written where not wanted
    sums = np.empty((layout.groups, layout.blocks, layout.period) if wanted[1] else (0, 0, 0))
    common = _common(layout, lo, hi, rounding)
    arguments = (layout.flat(x), layout.steps(step), *common, upstream, *wanted, into, sums)
    _split(_backward, arguments, layout)
    if not wanted[1]:
        return by_x, None
    found = sums.sum(1).reshape(-1, layout.rows, layout.period).sum(0)
    return by_x, torch.from_numpy(found.astype(np.float32)).reshape(step.shape)


def _common(layout: Layout, lo: int, hi: int, rounding: str) -> tuple[Any, ...]:
    return layout.length, layout.chunk, layout.block, np.float32(lo), np.float32(hi), RULES[rounding]


def _split(kernel: Any, arguments: tuple[Any, ...], layout: Layout) -> None:
    """All blocks, in as many threads as torch may use and the work is worth."""
    blocks, loads = layout.groups * layout.blocks, layout.groups * layout.length // THREAD_LOAD
    threads = min(torch.get_num_threads(), loads, blocks) if loads > 1 else 1
    if threads == 1:
        kernel(0, blocks, *arguments)
        return
    ends = [blocks * part // threads for part in range(threads + 1)]
    helpers = [
        threading.Thread(target=kernel, args=(begin, end, *arguments), daemon=True) for begin, end in pairwise(ends[1:])
    ]
    for helper in helpers:
        helper.start()
    kernel(ends[0], ends[1], *arguments)
    for helper in helpers:
        helper.join()


# --- compiled -----------------------------------------------------------------------------------------------------


# Indices are unsigned: a signed one might count from the end, and a check for that (or a slice instead) costs more than
# the arithmetic of a short group.


@jit
def _round(ratio: Any, whole: Any, size: Any, rule: int) -> None:
    """The real rules of `fixedpoint`, signed zeros included (-0 + 0 is 0)."""
    if rule == 0:
        for i in range(size):
            whole[i] = np.rint(ratio[i])
    elif rule == 1:
        for i in range(size):
            below = np.floor(ratio[i])
            whole[i] = below + (_ONE if ratio[i] - below >= _HALF else _ZERO)
    elif rule == 2:
        for i in range(size):
            value = ratio[i]
            inner = np.trunc(value)
            away = _ONE if abs(value - inner) >= _HALF else _ZERO
            sign = (_ONE if value > _ZERO else _ZERO) - (_ONE if value < _ZERO else _ZERO)
            whole[i] = inner + sign * away
    elif rule == 3:
        for i in range(size):
            whole[i] = np.floor(ratio[i])
    else:
        for i in range(size):
            whole[i] = np.trunc(ratio[i])


@jit
def _tile(steps: Any, row: Any, tile: Any) -> None:
    """Repeat a row of steps over a chunk."""
    period = np.uint64(steps.shape[1])
    if period == 1:  # a loop of its own: the other one would go value by value
        step = steps[row, 0]
        for i in range(np.uint64(tile.size)):
            tile[i] = step
        return
    for begin in range(np.uint64(0), np.uint64(tile.size), period):
        for i in range(period):
            tile[begin + i] = steps[row, i]


@jit
def _forward(
    first: int, last: int, x: Any, steps: Any, length: int, chunk: int, block: int, lo: Any, hi: Any, rule: int, y: Any
) -> None:
    """Blocks first..last-1."""
    ulength, uchunk, ublock = np.uint64(length), np.uint64(chunk), np.uint64(block)
    rows, blocks = np.uint64(steps.shape[0]), (ulength + ublock - np.uint64(1)) // ublock
    tile, ratio, whole = np.empty(chunk, np.float32), np.empty(chunk, np.float32), np.empty(chunk, np.float32)
    tiled = rows
    for index in range(np.uint64(first), np.uint64(last)):
        group, part = index // blocks, index % blocks
        if group % rows != tiled:
            tiled = group % rows
            _tile(steps, tiled, tile)
        end = group * ulength + min(ulength, (part + np.uint64(1)) * ublock)
        for begin in range(group * ulength + part * ublock, end, uchunk):
            size = min(uchunk, end - begin)
            for i in range(size):
                ratio[i] = x[begin + i] / tile[i]
            _round(ratio, whole, size, rule)
            for i in range(size):
                level = whole[i]
                level = lo if level < lo else level  # written so, NaN and -0 stay what they are
                level = hi if level > hi else level
                y[begin + i] = level * tile[i]


@jit
def _backward(
    first: int,
    last: int,
    x: Any,
    steps: Any,
    length: int,
    chunk: int,
    block: int,
    lo: Any,
    hi: Any,
    rule: int,
    gradient: Any,
    want_x: bool,
    want_step: bool,
    by_x: Any,
    sums: Any,
) -> None:
    """Blocks first..last-1; sums (groups, blocks, period) float64."""
    ulength, uchunk, ublock = np.uint64(length), np.uint64(chunk), np.uint64(block)
    rows, blocks = np.uint64(steps.shape[0]), (ulength + ublock - np.uint64(1)) // ublock
    period, two = np.uint64(steps.shape[1]), np.uint64(2)
    tile, ratio, whole = np.empty(chunk, np.float32), np.empty(chunk, np.float32), np.empty(chunk, np.float32)
    lanes = np.empty(chunk, np.float64)
    tiled = rows
    for index in range(np.uint64(first), np.uint64(last)):
        group, part = index // blocks, index % blocks
        if group % rows != tiled:
            tiled = group % rows
            _tile(steps, tiled, tile)
        for i in range(uchunk):
            lanes[i] = 0.0
        end = group * ulength + min(ulength, (part + np.uint64(1)) * ublock)
        for begin in range(group * ulength + part * ublock, end, uchunk):
            size = min(uchunk, end - begin)
            for i in range(size):
                ratio[i] = x[begin + i] / tile[i]
            if want_x:
                for i in range(size):
                    by_x[begin + i] = gradient[begin + i] * (_ONE if (ratio[i] >= lo) & (ratio[i] <= hi) else _ZERO)
            if want_step:
                _round(ratio, whole, size, rule)
                for i in range(size):
                    value, level = ratio[i], whole[i]
                    level = lo if level < lo else level
                    level = hi if level > hi else level
                    kept = value * (_ONE if (value >= lo) & (value <= hi) else _ZERO)
                    lanes[i] += (level - kept) * gradient[begin + i]
        if want_step:
            width = uchunk
            while width > period:
                width //= two
                for i in range(width):
                    lanes[i] += lanes[width + i]
            for i in range(period):
                sums[group, part, i] = lanes[i]
