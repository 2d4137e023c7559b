"""Is this CPU's arithmetic exact? Asked once per process, with the operands that break inexact kernels.

Without VNNI, u8 x s8 products are added in pairs in int16 and saturate (vpmaddubsw) from \\|w\\| > 64 on, or oneDNN
halves the weights beforehand; a float32 convolution may be allowed to use bfloat16 or TF32. The probe computes sums of
which every bit counts and compares them with int64.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from srq_hw.graph.ir import Int
from srq_hw.simulate.onednn import int8_convolution

#: (out, in, kernel, groups, rows, columns): dense, few channels, pointwise, grouped, depthwise; odd sizes have tails.
_SHAPES = (
    (64, 64, 3, 1, 9, 37),
    (5, 3, 3, 1, 8, 33),
    (33, 17, 1, 1, 7, 21),
    (16, 32, 3, 2, 6, 19),
    (24, 24, 3, 24, 6, 20),
)

#: Largest \\|weight\\| with which 255 * w + 255 * w stays inside int16.
PAIR_LIMIT = 64


@lru_cache(maxsize=1)
def int8_weight_limit() -> int:
    """Largest \\|weight\\| for which oneDNN's int8 convolution is exact on this CPU: 128, 64, or 0 for none."""
    return next((limit for limit in (128, PAIR_LIMIT) if _int8_exact(limit)), 0)


def _int8_exact(limit: int) -> bool:
    rng = np.random.default_rng(limit)
    top = min(limit, 127)
    for out, channels, size, groups, rows, columns in _SHAPES:
        shape = (out, channels // groups, size, size)
        one_sided = np.where(np.arange(out) % 2 == 0, top, -limit)[:, None, None, None]
        weights = (
            np.broadcast_to(one_sided, shape),  # every pair saturates, upwards or downwards
            rng.choice(np.array([-limit, -1, 1, top - 1, top]), shape),
            rng.integers(-limit, top + 1, shape),
        )
        images = (
            np.full((rows, columns, channels), 255),
            rng.choice(np.array([0, 1, 127, 128, 254, 255]), (rows, columns, channels)),
        )
        for weight in weights:
            try:
                convolve = int8_convolution(np.ascontiguousarray(weight, np.int64), groups)
                found = [convolve(x.astype(np.uint8))[0].permute(1, 2, 0).numpy() for x in images]
            except (AttributeError, RuntimeError):  # this build of torch or this CPU has no such kernel
                return False
            wanted = [_convolve(x, weight, groups) for x in images]
            # Sums beyond 2**24 cannot be read out of a float32; they must be the nearest one all the same.
            if any((f != w.astype(np.float32)).any() for f, w in zip(found, wanted, strict=True)):
                return False
    return True


def float32_is_exact() -> bool:
    """True where torch's float32 convolution keeps all 24 bits: nothing less is allowed, and the probe agrees."""
    backends = torch.backends
    precisions = (backends.mkldnn.conv, backends.mkldnn, backends)  # type: ignore[attr-defined]
    return all(at.fp32_precision in ("none", "ieee") for at in precisions) and _float32_exact()


@lru_cache(maxsize=1)
def _float32_exact() -> bool:
    rng = np.random.default_rng(24)
    for out, channels, size, groups, rows, columns in _SHAPES:
        terms = channels // groups * size * size
        for x_bits in (8, 12):
            x = rng.integers((1 << x_bits) - 8, 1 << x_bits, (rows, columns, channels))
            w_max = max(1, ((1 << 24) - 1) // (terms * int(x.max())))
            weight = rng.integers(-w_max, w_max + 1, (out, channels // groups, size, size))
            weight[::2] = w_max
            found = torch.nn.functional.conv2d(
                torch.from_numpy(x).float()[None].permute(0, 3, 1, 2),
                torch.from_numpy(weight).float().contiguous(memory_format=torch.channels_last),
                groups=groups,
            )
            if (found[0].permute(1, 2, 0).numpy() != _convolve(x, weight, groups)).any():
                return False
    return True


def _convolve(x: Int, weight: Int, groups: int) -> Int:
    """Valid convolution in int64, by its definition."""
    out, per_group, rows, columns = weight.shape
    windows = np.lib.stride_tricks.sliding_window_view(x, (rows, columns), axis=(0, 1))
    size = out // groups
    parts = [
        np.einsum(
            "hwiyx,oiyx->hwo",
            windows[:, :, g * per_group : (g + 1) * per_group],
            weight[g * size : (g + 1) * size],
            dtype=np.int64,
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, axis=-1)
