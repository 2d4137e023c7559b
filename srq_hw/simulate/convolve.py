"""Exact convolutions for the fast simulator: the fastest kernel that is proven exact for these weights and ranges.

======== ========================================================== =======================================
kernel   computes                                                   exact while
======== ========================================================== =======================================
int8     oneDNN u8 x s8 to s32, read out as float32                 \\|sum\\| < 2**24, probe of this CPU passed
float32  oneDNN / BLAS float32 on x - z                             sum \\|w\\| max\\|x - z\\| < 2**24, probe passed
int8x2   int8 twice: w = 16 * high + low                            each half as for int8
float64  BLAS float64 on x - z                                      sum \\|w\\| max\\|x - z\\| < 2**53
int64    numpy, one tap at a time                                   always (int64 of the graph does not wrap)
======== ========================================================== =======================================

The bounds hold for every partial sum, so the order in which a library adds does not matter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from srq_hw.errors import InputError
from srq_hw.graph.ir import Int, Node
from srq_hw.simulate.onednn import channels_last, int8_convolution
from srq_hw.simulate.probe import float32_is_exact, int8_weight_limit
from srq_hw.simulate.storage import Array, Store

#: Forces the search for a kernel to start at this one; a convolution it is not exact for gets the next that is.
KERNEL_VARIABLE = "SRQ_SIM_KERNEL"

#: Raw rows in (rows + 2*pad_y, W + 2*pad_x, C), accumulators without bias out, (rows, W, O), C-contiguous.
Convolve = Callable[[Array], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Problem:
    """One convolution: weights (out channels permuted already) and how its input is stored."""

    weight: Int
    groups: int
    store: Store

    @property
    def largest(self) -> int:
        """max \\|stored value\\| of the input."""
        return max(abs(self.store.lo), abs(self.store.hi))

    @property
    def centred(self) -> int:
        """max \\|x - z\\| of the input."""
        return max(abs(self.store.lo - self.store.zero), abs(self.store.hi - self.store.zero))

    def centred_sum(self) -> int:
        """The largest \\|partial sum\\| over x - z."""
        return int(np.abs(self.weight).sum((1, 2, 3)).max()) * self.centred

    def raw_sum(self, weight: Int) -> int:
        """The largest \\|partial sum\\| over stored values, which are >= 0."""
        positive = int(np.maximum(weight, 0).sum((1, 2, 3)).max())
        negative = int(np.maximum(-weight, 0).sum((1, 2, 3)).max())
        return max(positive, negative) * self.store.hi


def split(weight: Int) -> tuple[Int, Int]:
    """(high, low) with weight = 16 * high + low and both in [-8, 8] for weights of 8 bits."""
    high = (weight + 8) >> 4
    return high, weight - 16 * high


def _int8_fits(problem: Problem) -> bool:
    return _int8_exact(problem, problem.weight)


def _int8x2_fits(problem: Problem) -> bool:
    if int(np.abs(problem.weight).max()) > 128:
        return False
    return all(_int8_exact(problem, part) for part in split(problem.weight))


def _int8_exact(problem: Problem, weight: Int) -> bool:
    lo, hi = int(weight.min()), int(weight.max())
    if not problem.store.small or lo < -128 or hi > 127 or problem.raw_sum(weight) >= 1 << 24:
        return False
    return max(-lo, hi) <= int8_weight_limit()


def _float32_fits(problem: Problem) -> bool:
    return problem.centred_sum() < 1 << 24 and problem.largest < 1 << 24 and float32_is_exact()


def _float64_fits(problem: Problem) -> bool:
    return problem.centred_sum() < 1 << 53 and problem.largest < 1 << 53


def _out(acc: torch.Tensor) -> npt.NDArray[Any]:
    result: npt.NDArray[Any] = np.ascontiguousarray(acc.permute(0, 2, 3, 1)[0].numpy())
    return result


def _make_int8(problem: Problem) -> Convolve:
    convolve = int8_convolution(problem.weight, problem.groups)
    return lambda rows: _out(convolve(rows))


def _make_int8x2(problem: Problem) -> Convolve:
    high, low = (int8_convolution(part, problem.groups) for part in split(problem.weight))
    return lambda rows: _out(high(rows).double().mul_(16.0).add_(low(rows)))


def _make_float(dtype: torch.dtype) -> Callable[[Problem], Convolve]:
    def make(problem: Problem) -> Convolve:
        weight = torch.from_numpy(problem.weight).to(dtype).contiguous(memory_format=torch.channels_last)
        zero = problem.store.zero

        def convolve(rows: Array) -> npt.NDArray[Any]:
            x = channels_last(rows).to(dtype)
            if zero:
                x = x.sub_(zero)
            return _out(torch.nn.functional.conv2d(x, weight, groups=problem.groups))

        return convolve

    return make


def _make_int64(problem: Problem) -> Convolve:
    out_channels, per_group, taps_y, taps_x = problem.weight.shape
    size = out_channels // problem.groups

    def convolve(rows: Array) -> npt.NDArray[Any]:
        x = rows.astype(np.int64) - problem.store.zero
        height, width = x.shape[0] - taps_y + 1, x.shape[1] - taps_x + 1
        acc = np.zeros((height, width, out_channels), np.int64)
        for row in range(taps_y):
            for column in range(taps_x):
                window = x[row : row + height, column : column + width]
                for group in range(problem.groups):
                    outs = slice(group * size, (group + 1) * size)
                    part = window[..., group * per_group : (group + 1) * per_group]
                    acc[..., outs] += part @ problem.weight[outs, :, row, column].T
        return acc

    return convolve


@dataclass(frozen=True)
class Kernel:
    """One way to convolve. folds_zero: works on stored values, so that z * sum(w) has to leave with the bias."""

    fits: Callable[[Problem], bool]
    make: Callable[[Problem], Convolve]
    folds_zero: bool


#: In order of preference.
KERNELS: Mapping[str, Kernel] = {
    "int8": Kernel(_int8_fits, _make_int8, True),
    "float32": Kernel(_float32_fits, _make_float(torch.float32), False),
    "int8x2": Kernel(_int8x2_fits, _make_int8x2, True),
    "float64": Kernel(_float64_fits, _make_float(torch.float64), False),
    "int64": Kernel(lambda problem: True, _make_int64, False),
}


def kernel_order(wanted: str | None) -> tuple[str, ...]:
    """Kernels to try, from ``wanted`` (else $SRQ_SIM_KERNEL, else the fastest) on; InputError for an unknown name."""
    name = wanted or os.environ.get(KERNEL_VARIABLE) or next(iter(KERNELS))
    if name not in KERNELS:
        raise InputError(f"{KERNEL_VARIABLE}={name}: no such simulator kernel; known are {', '.join(KERNELS)}")
    names = tuple(KERNELS)
    return names[names.index(name) :]


@dataclass(frozen=True, eq=False)
class Convolution:
    """A chosen kernel, ready to run. bias: float64 or int64 (O,), to be added to what ``run`` returns."""

    kernel: str
    run: Convolve
    bias: Int
    pad: tuple[int, int]


def choose(node: Node, store: Store, order: Int, wanted: str | None = None) -> Convolution:
    """The first kernel of the order that is exact for the Conv node; ``order`` permutes its output channels.

    Permuted outputs stay within their group's weights only where groups is 1 or the order is the identity.
    """
    problem = Problem(np.ascontiguousarray(node.params["weight"][order]), node.int_attr("groups"), store)
    name = next(name for name in kernel_order(wanted) if KERNELS[name].fits(problem))
    bias = node.params["bias"][order]
    if KERNELS[name].folds_zero:
        bias = bias - store.zero * problem.weight.sum((1, 2, 3))
    rows, columns = node.params["weight"].shape[2:]
    return Convolution(name, KERNELS[name].make(problem), bias, (rows // 2, columns // 2))
