"""srq_conv against the reference definition of Conv: kernels, foldings, number formats, zero points, three frames."""

from __future__ import annotations

import numpy as np
import pytest

from srq_hw.errors import RunError
from tests.backends.rtl.bench import Bench, Design, Port, check, library, to_beats
from tests.backends.rtl.conv_cases import CASES, FRAMES, ConvCase

SOURCES = library("conv", "conv_core", "window", "mac", "dot", "adder_tree", "rom")


@pytest.mark.parametrize("name", CASES)
def test_conv(bench: Bench, name: str):
    case = ConvCase.of(name)
    random = np.random.default_rng(len(name))
    weight, bias, images = case.weight(random), case.bias(random), case.images(random)
    memories = {"weights.hex": case.words(weight)} | case.bias_memory(bias, weight)
    parameters = case.parameters | {"WEIGHT_FILE": "weights.hex"}
    design = Design("srq_conv", SOURCES, parameters, (case.s,), (case.m,), memories)
    expected = to_beats(case.expected(images, weight, bias), case.pe)
    run = check(design, bench, {"s": to_beats(images, case.simd)}, {"m": expected}, frames=FRAMES)
    assert run.last["m"] - run.first["s"] < FRAMES * case.cycles + case.fill + 24


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
