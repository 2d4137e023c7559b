"""The fast simulator against the reference: random graphs, every kernel, threads, batches; equal bits or an error."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srq_hw.errors import InputError
from srq_hw.fixedpoint import ROUNDINGS, int_range
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph
from srq_hw.simulate import fast, reference
from srq_hw.simulate.convolve import KERNEL_VARIABLE, KERNELS
from tests.support.graph_strategies import graphs, random_image

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 11)


def assert_same_trace(graph: IntGraph, image: np.ndarray, kernel: str | None = None, threads: int = 1) -> None:
    """Every tensor that the fast simulator makes, and its output, equals the reference's."""
    program = fast.compile_graph(graph, threads=threads, kernel=kernel)
    wanted = reference.trace(graph, image)
    found = program.trace(image)
    for name, values in found.items():
        np.testing.assert_array_equal(values, wanted[name], err_msg=f"{name} ({program.plan.kernels})")
    made = {node.output for node in graph.nodes if node.op not in ("Conv", "Add")}
    assert made | {graph.input} <= found.keys()
    np.testing.assert_array_equal(program.run(image, tile=None), wanted[graph.output])


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=60)
@given(graph=graphs(), seed=seeds, height=sides, width=sides)
def test_random_graphs(kernel: str, graph: IntGraph, seed: int, height: int, width: int) -> None:
    assert_same_trace(graph, random_image(graph, height, width, seed), kernel)


@settings(max_examples=100)
@given(graph=graphs(st.integers(2, 16), st.integers(2, 24)), seed=seeds, height=sides, width=sides)
def test_random_wide_graphs(graph: IntGraph, seed: int, height: int, width: int) -> None:
    """Weights and activations beyond a byte, accumulators beyond float32: nothing may fall to a kernel too narrow."""
    assert_same_trace(graph, random_image(graph, height, width, seed))


@settings(max_examples=25)
@given(graph=graphs(), seed=seeds)
def test_threads_and_repeated_runs(graph: IntGraph, seed: int) -> None:
    """Strips shared by three threads; the second run and another size must not see what the first left behind."""
    program = fast.compile_graph(graph, threads=3)
    for height, width in ((23, 6), (23, 6), (14, 31), (23, 6)):
        image = random_image(graph, height, width, seed + height)
        np.testing.assert_array_equal(program.run(image), reference.run(graph, image))


def test_edsr_with_every_bit_width() -> None:
    rng = np.random.default_rng(1)
    for bits in (2, 4, 8):
        graph = edsr_graph(12, 2, weight_bits=bits, act_bits=bits, mean_shift=bits == 8, last_conv=bits != 4)
        assert_same_trace(graph, rng.integers(0, 256, (21, 34, 3)), threads=2)


def test_batch_and_strided_images() -> None:
    graph = edsr_graph(8, 1)
    batch = np.random.default_rng(2).integers(0, 256, (3, 10, 18, 3), dtype=np.uint8)
    wanted = reference.run(graph, batch)
    np.testing.assert_array_equal(fast.run(graph, batch), wanted)
    np.testing.assert_array_equal(fast.run(graph, batch[1]), wanted[1:2])
    flipped = batch[:, ::-1, ::2]
    np.testing.assert_array_equal(fast.run(graph, flipped), reference.run(graph, flipped))


@pytest.mark.parametrize(
    ("bits", "signed", "dtype"), [(8, False, np.uint8), (8, True, np.int8), (4, True, np.int8), (9, True, np.int16)]
)
def test_output_type(bits: int, signed: bool, dtype: type) -> None:
    build = GraphBuilder(2)
    acc = build.conv("image", np.full((3, 2, 1, 1), -9), np.zeros(3), "conv")
    graph = build.finish(build.requant(acc, np.array([1]), np.array([2]), bits, signed, "out"), "typed")
    image = np.random.default_rng(3).integers(0, 256, (4, 4, 2))
    found = fast.run(graph, image)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, reference.run(graph, image))


# --- rounding and saturation --------------------------------------------------------------------------------------


def identity_graph(bits_in: int, requant: dict[str, object], zero_point: int = 0, signed: bool = True) -> IntGraph:
    """One channel, 1x1 convolution by 1: the accumulator is the image."""
    build = GraphBuilder(1, bits_in, True)
    acc = build.conv("image", np.ones((1, 1, 1, 1)), np.zeros(1), "conv")
    lo, hi = int_range(8, signed)
    params = {key: np.array([value]) for key, value in requant.items() if key != "rounding"}
    attrs = {"rounding": requant["rounding"], "lo": lo, "hi": hi, "zero_point": zero_point}
    node = Node("Requant", "requant", (acc,), "out", attrs, params)
    return build.finish(build.add_node(node, 1, 8, signed, 1, zero_point), "identity")


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("shift", [-2, 0, 1, 3, 5, 9])
@pytest.mark.parametrize("multiplier", [1, 3, 6])
def test_every_accumulator_value(rounding: str, shift: int, multiplier: int) -> None:
    """All 12-bit accumulators: every tie, both saturations, both signs, with and without slope and zero point."""
    image = np.arange(-2048, 2048).reshape(64, 64, 1)
    base = {"rounding": rounding, "multiplier": multiplier, "shift": shift}
    for extra, zero_point in (({}, 0), ({}, -7), ({"negative_multiplier": 2}, 5), ({"negative_multiplier": 0}, 0)):
        graph = identity_graph(12, base | extra, zero_point)
        program = fast.compile_graph(graph, threads=1)
        np.testing.assert_array_equal(program.run(image), reference.run(graph, image))
    assert [type(step).__name__ for step in program.plan.jobs[0].steps] == ["ConvRequant"]


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(
    ("acc", "multiplier", "shift"),
    [
        ((1 << 25) + 1, (1 << 25) - 1, 51),  # 2**50 - 1: one below a tie, and float64 holds all of it
        ((1 << 26) + 1, (1 << 26) - 1, 53),  # 2**52 - 1
        (6361 * 69431, 20394401, 54),  # 2**53 - 1: the product fits a float64, the product + 1/2 does not
        ((1 << 27) + 1, (1 << 27) - 1, 55),  # 2**54 - 1: the product itself does not
        ((1 << 29) + 1, (1 << 29) - 1, 59),
    ],
)
def test_one_below_a_tie(rounding: str, acc: int, multiplier: int, shift: int) -> None:
    """acc * M is one less than half a step, with more and more bits: never rounded as if it were the half."""
    assert acc * multiplier == (1 << (shift - 1)) - 1
    image = np.array([acc, -acc, acc - 1, 1 - acc]).reshape(2, 2, 1)
    graph = identity_graph(31, {"rounding": rounding, "multiplier": multiplier, "shift": shift})
    np.testing.assert_array_equal(fast.run(graph, image), reference.run(graph, image))


def test_sum_beyond_53_bits_that_the_bias_brings_back() -> None:
    """The accumulator fits a float64, what the convolution hands to the bias does not: -2**53 - 127, odd."""
    build = GraphBuilder(2, 8, True)
    weight = np.array([1 << 46, 1]).reshape(1, 2, 1, 1)
    acc = build.conv("image", weight, np.array([(1 << 45) + 128]), "conv")
    graph = build.finish(build.requant(acc, np.array([1]), np.array([46]), 8, True, "out"), "brought_back")
    image = np.array([[[-128, -127], [-128, -128], [-127, -127], [127, 127]]])
    found = fast.run(graph, image)
    np.testing.assert_array_equal(found, reference.run(graph, image))
    assert found[0, 0, :2, 0].tolist() == [-127, -128]  # one above a tie, and the tie


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_half_that_makes_the_sum_too_wide(rounding: str) -> None:
    """acc * M = 2**53 - 1 fits a float64, and so does x = 1/2 - 2**-54; x + 1/2 does not and would become 1."""
    build = GraphBuilder(1, 1, False)
    acc = build.conv("image", np.array(6361 * 69431).reshape(1, 1, 1, 1), np.zeros(1), "conv")
    out = build.requant(acc, np.array([20394401]), np.array([54]), 8, True, "out", rounding)
    graph = build.finish(out, "half")
    assert fast.run(graph, np.array([[[0], [1]]])).tolist() == [[[[0], [0]]]]


# --- kernels ------------------------------------------------------------------------------------------------------


def worst_case_graph(channels: int, weight_bits: int, act_bits: int, signed: bool) -> IntGraph:
    """Weights at both ends of their range: with an image at its ends, accumulators reach their bounds."""
    rng = np.random.default_rng(4)
    lo, hi = int_range(weight_bits, signed=True)
    weight = rng.choice(np.array([lo, hi]), (6, channels, 3, 3))
    weight[0], weight[1] = hi, lo
    build = GraphBuilder(channels, act_bits, signed)
    acc = build.conv("image", weight, rng.integers(-5, 6, 6), "conv")
    return build.finish(acc, "worst")


@pytest.mark.parametrize(
    ("channels", "weight_bits", "act_bits", "chosen"),
    [
        (16, 7, 8, "int8"),
        (150, 8, 8, "int8x2"),
        (600, 8, 8, "int8x2"),
        (16, 9, 8, "float32"),
        (8, 4, 14, "float32"),
        (600, 12, 8, "float64"),
        (16, 16, 12, "float64"),
        (16, 30, 24, "int64"),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_kernel_is_wide_enough(channels: int, weight_bits: int, act_bits: int, chosen: str, signed: bool) -> None:
    graph = worst_case_graph(channels, weight_bits, act_bits, signed)
    program = fast.compile_graph(graph, threads=1)
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert program.plan.kernels == {"conv": chosen}
    lo, hi = graph.tensors["image"].range
    rng = np.random.default_rng(5)
    images = (
        np.full((5, 6, channels), hi),
        np.full((5, 6, channels), lo),
        rng.integers(lo, hi + 1, (5, 6, channels)),
        np.where(graph.nodes[0].params["weight"][2, :, 1, 1] > 0, hi, lo) * np.ones((5, 6, 1), np.int64),
    )
    for image in images:
        np.testing.assert_array_equal(program.run(image), reference.run(graph, image))


def test_kernel_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = edsr_graph(4, 1)
    for kernel in ("float32", "float64", "int64"):
        monkeypatch.setenv(KERNEL_VARIABLE, kernel)
        assert set(fast.compile_graph(graph).plan.kernels.values()) == {kernel}
    monkeypatch.setenv(KERNEL_VARIABLE, "int7")
    with pytest.raises(InputError, match=r"SRQ_SIM_KERNEL=int7.*int8, float32"):
        fast.compile_graph(graph)


_OLD_CPU = """
import numpy as np
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.simulate import fast, probe, reference
for weight_bits in (4, 8):
    graph = edsr_graph(16, 1, weight_bits=weight_bits)
    image = np.random.default_rng(0).choice(np.array([0, 255]), (12, 13, 3))
    program = fast.compile_graph(graph, threads=1)
    assert (program.run(image) == reference.run(graph, image)).all(), program.plan.kernels
print(probe.int8_weight_limit())
"""


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE"])
def test_cpu_without_vnni(isa: str) -> None:
    """oneDNN held back to older instructions, where u8 x s8 saturates: the probe has to notice, the bits stay."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa}
    done = subprocess.run([sys.executable, "-c", _OLD_CPU], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) in (0, 64, 128)


def test_reduced_float_precision_is_refused() -> None:
    from srq_hw.simulate.probe import float32_is_exact

    setting = torch.backends.mkldnn.conv
    before = setting.fp32_precision
    assert float32_is_exact()
    try:
        setting.fp32_precision = "bf16"
        assert not float32_is_exact()
    finally:
        setting.fp32_precision = before


# --- wrong calls --------------------------------------------------------------------------------------------------


def test_wrong_images_and_settings() -> None:
    graph = edsr_graph(4, 1)
    program = fast.compile_graph(graph)
    for image in (
        np.zeros((4, 4, 1), np.int64),
        np.zeros((4, 4, 3)),
        np.full((4, 4, 3), 256),
        np.zeros((0, 4, 3), int),
    ):
        with pytest.raises(InputError, match="reads"):
            program.run(image)
    for tile in (0, -3, True, "large"):
        with pytest.raises(InputError, match="tile"):
            program.run(np.zeros((4, 4, 3), np.uint8), tile=tile)
    with pytest.raises(InputError, match="threads 0"):
        fast.compile_graph(graph, threads=0)


def test_thread_count_of_torch_is_put_back() -> None:
    before = torch.get_num_threads()
    fast.run(edsr_graph(4, 1), np.zeros((6, 6, 3), np.uint8))
    assert torch.get_num_threads() == before
