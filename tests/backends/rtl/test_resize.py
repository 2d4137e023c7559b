"""ResizeFilter as Conv with repeated edges and DepthToSpace: the same integers as the operation itself."""

from __future__ import annotations

import numpy as np
import pytest

from srq_hw.backends.rtl.memories import conv_bias, conv_weights
from srq_hw.backends.rtl.resize import filter_conv
from srq_hw.graph.ir import Node, Tensor
from srq_hw.graph.ops import OPS
from srq_hw.graph.resampling import RESIZE_FILTER, undo_depth_to_space
from srq_hw.graph.taps import filter_taps
from tests.backends.rtl.bench import Bench, Design, IntArray, Port, check, library, to_beats


def edge_conv(x: IntArray, weight: IntArray, bias: IntArray, groups: int) -> IntArray:
    """Grouped convolution with edge pixels repeated, from its definition; the integers as they are, no zero point."""
    size, inside = weight.shape[-1], weight.shape[1]
    rest = size // 2
    padded = np.pad(x, ((0, 0), (rest, rest), (rest, rest), (0, 0)), mode="edge")
    parts = []
    for own, rows in enumerate(np.split(weight, groups)):
        view = np.lib.stride_tricks.sliding_window_view(padded[..., own * inside :][..., :inside], (size, size), (1, 2))
        parts.append(np.einsum("nyxckl,ockl->nyxo", view, rows))
    return np.concatenate(parts, -1) + bias


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("kernel", "factor", "zero_point"),
    [("bilinear", 2, 128), ("bilinear", 3, 0), ("bilinear", 4, 255), ("bicubic", 2, 7), ("bicubic_torch", 4, 100)],
)
def test_equals_the_operation(kernel: str, factor: int, zero_point: int, channels: int, mode: str):
    taps, denominator = filter_taps(kernel, factor)
    node = Node("ResizeFilter", "up", ("x",), "y", {"factor": factor, "denominator": denominator}, {"taps": taps})
    tensor = Tensor("x", channels, 8, False, zero_point=zero_point)
    assert RESIZE_FILTER.problems(node, (tensor,)) == []
    random = np.random.default_rng(factor)
    weight, groups = filter_conv(node, channels, mode)
    assert groups == (1 if mode == "DCR" else channels)
    size = taps.shape[1]
    assert weight.dtype == np.int64 and weight.shape == (channels * factor**2, channels // groups, size, size)
    bias = -zero_point * weight.sum((1, 2, 3))
    assert (bias == -zero_point * denominator**2).all()

    shuffle = Node("DepthToSpace", "shuffle", ("c",), "y", {"block": factor, "mode": mode})
    for height, width in ((5, 6), (1, 3), (1, 1)):
        x = random.integers(0, 255, (2, height, width, channels), endpoint=True)
        accs = edge_conv(x, weight, bias, groups)
        found = OPS["DepthToSpace"].execute(shuffle, (Tensor("c", weight.shape[0], 32, True),), [accs])
        assert np.array_equal(found, OPS["ResizeFilter"].execute(node, (tensor,), [x]))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_the_verilog_computes_it(bench: Bench, mode: str):
    """srq_conv with these weights gives what a DepthToSpace turns into the operation's result."""
    height, width, channels, factor, pe, zero_point = 4, 5, 3, 2, 4, 131
    taps, denominator = filter_taps("bicubic", factor)
    node = Node("ResizeFilter", "up", ("x",), "y", {"factor": factor, "denominator": denominator}, {"taps": taps})
    weight, groups = filter_conv(node, channels, mode)
    simd, w_bits = channels // groups, int(np.abs(weight).max()).bit_length() + 1
    x = np.random.default_rng(0).integers(0, 255, (3, height, width, channels), endpoint=True)
    filtered = OPS["ResizeFilter"].execute(node, (Tensor("x", channels, 8, False, zero_point=zero_point),), [x])
    shuffle = Node("DepthToSpace", "shuffle", ("c",), "y", {"block": factor, "mode": mode})
    wanted = undo_depth_to_space(filtered, shuffle)

    parameters: dict[str, int | str] = {"HEIGHT": height, "WIDTH": width, "CHANNELS_IN": channels}
    parameters |= {"CHANNELS_OUT": weight.shape[0], "KH": weight.shape[2], "KW": weight.shape[3], "GROUPS": groups}
    parameters |= {"PE": pe, "SIMD": simd, "W_BITS": w_bits, "A_BITS": 8, "A_SIGNED": 0, "EDGE": 1}
    parameters |= {"BIAS_BITS": 28, "ACC_BITS": 28, "WEIGHT_FILE": "weights.hex", "BIAS_FILE": "bias.hex"}
    memories = {
        "weights.hex": conv_weights(weight, pe, simd, w_bits),
        "bias.hex": conv_bias(-zero_point * weight.sum((1, 2, 3)), pe, 28),
    }
    sources = library("conv", "conv_core", "window", "mac", "dot", "adder_tree", "rom")
    ports = (Port("s", simd, 8),), (Port("m", pe, 28, True),)
    design = Design("srq_conv", sources, parameters, *ports, memories)
    check(design, bench, {"s": to_beats(x, simd)}, {"m": to_beats(wanted, pe)}, frames=3)


def test_rows_and_columns_are_not_exchanged():
    taps = np.array([[1, 6, 1], [0, 5, 3]])
    node = Node("ResizeFilter", "up", ("x",), "y", {"factor": 2, "denominator": 8}, {"taps": taps})
    weight, _ = filter_conv(node, 1)
    assert np.array_equal(weight[1, 0], np.outer(taps[0], taps[1]))  # dy = 0, dx = 1
    with pytest.raises(ValueError, match="neither CRD nor DCR"):
        filter_conv(node, 1, "NCHW")
