"""srq_conv against the reference definition of Conv: kernels, foldings, number formats, zero points, three frames."""

from __future__ import annotations

import numpy as np
import pytest

from srq_hw.backends.rtl.memories import conv_bias, conv_weights
from srq_hw.errors import RunError
from srq_hw.graph.ir import Node, Tensor
from srq_hw.graph.ops import OPS
from tests.backends.rtl.bench import Bench, Design, IntArray, Port, check, library, to_beats

SOURCES = library("conv", "window", "mac", "dot", "adder_tree", "rom")

#: channel groups of a case, else 1; as many as channels: depthwise
GROUPS = {
    "3x3_two_groups": 2,
    "1x1_three_groups": 3,
    "3x3_depthwise": 6,
    "edge_5x3_two_groups": 2,
    "edge_3x3_depthwise": 4,
}
#: name: (height, width, in, out, KH, KW, PE, SIMD, weight bits, activation bits, signed, zero point); repeated edge
#: pixels where the name says so
CASES = {
    "3x3_int8": (5, 7, 4, 6, 3, 3, 3, 2, 8, 8, True, 0),
    "3x3_uint8_zero_point": (4, 6, 3, 4, 3, 3, 4, 3, 8, 8, False, 131),
    "3x3_int4": (4, 5, 4, 8, 3, 3, 8, 2, 4, 4, False, 3),
    "3x3_int2": (4, 5, 2, 4, 3, 3, 2, 2, 2, 2, False, 0),
    "5x3_int4x8": (6, 4, 2, 3, 5, 3, 3, 1, 4, 8, True, -5),
    "1x1": (3, 5, 6, 4, 1, 1, 4, 3, 8, 8, True, 0),
    "1x1_one_beat": (3, 5, 3, 2, 1, 1, 2, 3, 8, 8, False, 0),
    "1x1_repeat": (3, 5, 4, 6, 1, 1, 2, 4, 8, 8, True, 0),
    "3x3_two_groups": (4, 5, 4, 8, 3, 3, 2, 1, 8, 8, False, 9),
    "1x1_three_groups": (3, 4, 6, 3, 1, 1, 1, 2, 4, 8, True, 0),
    "3x3_depthwise": (5, 4, 6, 6, 3, 3, 3, 3, 8, 8, True, -4),
    "edge_3x3": (5, 6, 3, 12, 3, 3, 4, 3, 8, 8, False, 131),
    "edge_5x3_two_groups": (3, 4, 4, 8, 5, 3, 2, 1, 8, 8, True, -9),
    "edge_3x3_depthwise": (5, 4, 4, 4, 3, 3, 2, 2, 8, 8, True, 7),
}


def reference(
    x: IntArray, weight: IntArray, bias: IntArray, bits: int, signed: bool, zero_point: int, edge: bool = False
) -> IntArray:
    """Conv as the graph defines it; edge: of the image enlarged by its edge pixels, cut to the image's size."""
    groups = x.shape[-1] // weight.shape[1]
    node = Node("Conv", "conv", ("x",), "y", {"groups": groups}, {"weight": weight, "bias": bias})
    tensor = Tensor("x", x.shape[-1], bits, signed, zero_point=zero_point)
    if not edge:
        return OPS["Conv"].execute(node, (tensor,), [x])
    rows, columns = weight.shape[2] // 2, weight.shape[3] // 2
    wide = np.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode="edge")
    found = OPS["Conv"].execute(node, (tensor,), [wide])
    return found[:, rows : rows + x.shape[1], columns : columns + x.shape[2]]


@pytest.mark.parametrize("name", CASES)
def test_conv(bench: Bench, name: str):
    height, width, inside, out, kh, kw, pe, simd, w_bits, a_bits, signed, zero_point = CASES[name]
    groups = GROUPS.get(name, 1)
    depthwise = groups == inside
    edge = name.startswith("edge")
    random = np.random.default_rng(len(name))
    s, m = Port("s", simd, a_bits, signed), Port("m", pe, 26, True)
    ends = [-(1 << (w_bits - 1)), (1 << (w_bits - 1)) - 1]
    weight = random.integers(ends[0], ends[1], (out, inside // groups, kh, kw), endpoint=True)
    weight[0], weight[-1] = ends[0], ends[1]  # the greatest sums
    bias = random.integers(-(1 << 18), 1 << 18, out)
    images = random.integers(s.limits[0], s.limits[1], (3, height, width, inside), endpoint=True)
    images[1] = s.limits[0]
    images[1, ::2] = s.limits[1]

    expected = reference(images, weight, bias, a_bits, signed, zero_point, edge)
    corrected = bias - zero_point * weight.sum((1, 2, 3))
    parameters: dict[str, int | str] = {
        "HEIGHT": height,
        "WIDTH": width,
        "CHANNELS_IN": inside,
        "CHANNELS_OUT": out,
        "KH": kh,
        "KW": kw,
        "GROUPS": groups,
        "DEPTHWISE": int(depthwise),
        "PE": pe,
        "SIMD": simd,
        "W_BITS": w_bits,
        "A_BITS": a_bits,
        "A_SIGNED": int(signed),
        "ZERO_POINT": zero_point,
        "EDGE": int(edge),
        "BIAS_BITS": 24,
        "ACC_BITS": 26,
    }
    parameters |= {"WEIGHT_FILE": "weights.hex", "BIAS_FILE": "bias.hex"}
    memories = {
        "weights.hex": conv_weights(weight, pe, simd, w_bits, depthwise),
        "bias.hex": conv_bias(corrected, pe, 24),
    }
    design = Design("srq_conv", SOURCES, parameters, (s,), (m,), memories)
    run = check(design, bench, {"s": to_beats(images, simd)}, {"m": to_beats(expected, pe)}, frames=3)

    ideal = 3 * height * width * (out // pe) * kh * kw * (1 if depthwise else inside // groups // simd)
    fill = (kh // 2 * width + kw // 2 + 1) * (inside // simd)
    assert run.last["m"] - run.first["s"] < ideal + fill + 24


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"CHANNELS_OUT": 6}, "srq_error_folding_does_not_divide_channels"),
        ({"DEPTHWISE": 1, "SIMD": 2}, "srq_error_depthwise_needs_as_many_lanes_in_as_out"),
        ({"KW": 2}, "srq_error_kernel_is_even"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(bench: Bench, wrong: dict[str, int | str], said: str):
    design = Design("srq_conv", SOURCES, wrong, (Port("s", 4, 8),), (Port("m", 4, 24, True),))
    with pytest.raises(RunError, match=said):
        bench.build(design)
