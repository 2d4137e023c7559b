"""A transposed convolution as a convolution and a shuffle: torch's result, every border pixel, in float64 exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from srq_hw.normalform.subpixel import subpixel_problem, subpixel_weight

#: kernel, stride, padding, output padding -> side of the convolution's kernel
SHAPES = {
    (18, 2, 8, 0): 9,
    (20, 4, 8, 0): 5,
    (19, 3, 8, 0): 7,
    (9, 2, 4, 1): 5,
    (9, 3, 4, 2): 5,
    (9, 4, 4, 3): 3,
    (2, 2, 0, 0): 1,
    (4, 2, 1, 0): 3,
    (3, 1, 1, 0): 3,
    (3, 3, 0, 0): 1,
    (7, 1, 3, 0): 7,
    (1, 2, 0, 1): 1,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_same_integers_as_torch(shape: tuple[int, int, int, int]) -> None:
    kernel, stride, padding, more = shape
    rng = np.random.default_rng(kernel * stride)
    weight = rng.integers(-9, 10, (2, 3, kernel, kernel))
    x = torch.from_numpy(rng.integers(0, 256, (1, 2, 5, 7))).double()
    wanted = F.conv_transpose2d(x, torch.from_numpy(weight).double(), None, stride, padding, more)
    dense = subpixel_weight(weight, stride, (padding, padding))
    assert dense.dtype == weight.dtype and dense.shape == (3 * stride**2, 2, *[SHAPES[shape]] * 2)
    found = F.conv2d(x, torch.from_numpy(dense).double(), padding=dense.shape[2] // 2)
    assert torch.equal(F.pixel_shuffle(found, stride), wanted)
    assert subpixel_problem((kernel,) * 2, (stride,) * 2, (padding,) * 2, (more,) * 2, (1, 1), 1) is None


def test_a_kernel_that_is_no_square() -> None:
    weight = np.arange(2 * 1 * 4 * 6).reshape(2, 1, 4, 6)
    x = torch.arange(2 * 4 * 5).reshape(1, 2, 4, 5).double()
    wanted = F.conv_transpose2d(x, torch.from_numpy(weight).double(), None, 2, (1, 2))
    dense = torch.from_numpy(subpixel_weight(weight, 2, (1, 2))).double()
    rows, columns = dense.shape[2:]
    found = F.conv2d(x, dense, padding=(rows // 2, columns // 2))
    assert torch.equal(F.pixel_shuffle(found, 2), wanted)


def test_every_weight_is_used_once() -> None:
    """Integers are moved, never added: the quantization of a weight stays what it was."""
    weight = np.arange(1, 2 * 3 * 9 * 9 + 1).reshape(2, 3, 9, 9)
    dense = subpixel_weight(weight, 2, (4, 4))
    assert sorted(dense[dense != 0]) == sorted(weight.ravel())
