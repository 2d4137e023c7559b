"""A transposed convolution as an ordinary one with stride 1 and a pixel shuffle, exactly, borders included.

With stride s and padding P, output pixel ``s*Y + r`` of a transposed convolution is the sum over d of
``x[Y + d] * w[r + P - s*d]`` (Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?"). So
each phase r is a convolution of the input with every s-th weight; the s*s phases are channels that a shuffle moves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def subpixel_problem(
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    output_padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> str | None:
    """What keeps a transposed convolution from being written that way, or None."""
    if groups != 1:
        return f"groups {groups} (1 is possible)"
    if set(dilation) != {1}:
        return f"dilation {dilation}"
    if len(set(stride)) != 1:
        return f"stride {stride} (one stride for both axes is possible)"
    sizes = [k - 2 * p + o for k, p, o in zip(kernel, padding, output_padding, strict=True)]
    if sizes != list(stride):
        return (
            f"kernel {kernel}, padding {padding}, output padding {output_padding}: the output is not exactly "
            f"{stride[0]} times the input (kernel - 2 * padding + output padding must be the stride)"
        )
    return None


def subpixel_weight(weight: npt.NDArray[Any], stride: int, padding: tuple[int, int]) -> npt.NDArray[Any]:
    """(I, O, kh, kw) of a transposed convolution to (O * s * s, I, odd, odd) of the convolution in front of a shuffle.

    Channel o * s * s + ry * s + rx makes output pixel (s*Y + ry, s*X + rx) of channel o: PyTorch's shuffle order.
    Works on real and on integer weights; nothing is added up, so integers stay as they are.
    """
    ins, outs, rows, columns = weight.shape
    ry = _reach(rows, stride, padding[0])
    rx = _reach(columns, stride, padding[1])
    found = np.zeros((outs, stride, stride, ins, 2 * ry + 1, 2 * rx + 1), weight.dtype)
    for y, dy in np.ndindex(stride, 2 * ry + 1):
        row = y + padding[0] - stride * (dy - ry)
        if not 0 <= row < rows:
            continue
        for x, dx in np.ndindex(stride, 2 * rx + 1):
            column = x + padding[1] - stride * (dx - rx)
            if 0 <= column < columns:
                found[:, y, x, :, dy, dx] = weight[:, :, row, column].T
    return found.reshape(outs * stride**2, ins, 2 * ry + 1, 2 * rx + 1)


def _reach(size: int, stride: int, padding: int) -> int:
    """Largest |d| with a weight r + padding - stride * d inside the kernel, for some phase r."""
    return max(
        abs(d)
        for d in range(-size - stride, size + stride + 1)
        for phase in range(stride)
        if 0 <= phase + padding - stride * d < size
    )
