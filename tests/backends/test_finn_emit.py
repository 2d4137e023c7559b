"""The graph handed to FINN: exact thresholds, exact types, the same integers in qonnx, and plain refusals."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from finn_nets import Net, tied_pow2, zoo
from hypothesis import given
from hypothesis import strategies as st
from qonnx.core.onnx_exec import execute_onnx

from srq_hw.backends.finn.build import build_finn, device_of
from srq_hw.backends.finn.emit import emit
from srq_hw.backends.finn.prepare import prepare
from srq_hw.backends.finn.thresholds import offset_thresholds, requant_thresholds, threshold_type
from srq_hw.errors import InputError
from srq_hw.fixedpoint import ROUNDINGS, int_range, requantize
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.opspec import Bounds
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph
from srq_hw.graph.taps import filter_taps
from srq_hw.simulate.reference import run, trace
from srq_hw.target import load_target


def rtl_compare(x: np.ndarray, matrix: np.ndarray, kind: str, input_type: str) -> np.ndarray:
    """Count of T <= x the way FINN's RTL does it: a wider input saturates to the threshold type first."""
    bits, input_bits = int(kind.lstrip("UINT")), int(input_type.lstrip("UINT"))
    lo, hi = int_range(bits, not kind.startswith("U"))
    assert lo <= matrix.min() and matrix.max() <= hi, "a threshold does not fit its type"
    held = np.clip(x, lo, hi) if bits < input_bits else x
    return (held[:, None] >= matrix[None, :]).sum(1)


@st.composite
def requants(draw: st.DrawFn) -> tuple[Node, Bounds, tuple[int, int], np.ndarray]:
    """A Requant of three channels, each with its own reach, an output range inside the type, and a bias."""
    bits, signed = draw(st.integers(2, 6)), draw(st.booleans())
    type_lo, type_hi = int_range(bits, signed)
    lo = draw(st.integers(type_lo, type_hi))
    hi = draw(st.integers(lo, type_hi))
    numbers = st.lists(st.integers(0, 40), min_size=3, max_size=3)
    multiplier, shift = np.array(draw(numbers)), np.array(draw(st.lists(st.integers(-1, 7), min_size=3, max_size=3)))
    params = {"multiplier": multiplier, "shift": shift}
    if draw(st.booleans()):
        params["negative_multiplier"] = np.array(draw(numbers))
    ends = np.sort(np.array(draw(st.lists(st.integers(-300, 300), min_size=6, max_size=6))).reshape(3, 2), axis=1)
    bias = np.array(draw(st.lists(st.integers(-200, 200), min_size=3, max_size=3)))
    attrs = {"rounding": draw(st.sampled_from(sorted(ROUNDINGS))), "lo": lo, "hi": hi, "zero_point": 0}
    return Node("Requant", "q", ("a",), "q", attrs, params), Bounds(ends[:, 0], ends[:, 1]), (type_lo, type_hi), bias


@given(requants())
def test_thresholds_invert_the_requant_for_every_input(
    case: tuple[Node, Bounds, tuple[int, int], np.ndarray],
) -> None:
    node, reach, out_range, bias = case
    matrix = requant_thresholds(node, reach, out_range, bias)
    assert matrix.shape == (3, out_range[1] - out_range[0])
    assert (np.diff(matrix, axis=1) >= 0).all()
    lo, hi = int((reach.lo - bias).min()), int((reach.hi - bias).max())
    input_type = f"INT{max(abs(lo), abs(hi)).bit_length() + 2}"
    kind = threshold_type(matrix, input_type)
    for channel in range(3):
        acc = np.arange(reach.lo[channel], reach.hi[channel] + 1)
        params = {key: values[channel] for key, values in node.params.items()}
        wanted = requantize(
            acc,
            params["multiplier"],
            params["shift"],
            node.str_attr("rounding"),
            node.int_attr("lo"),
            node.int_attr("hi"),
            negative_multiplier=params.get("negative_multiplier"),
        )
        got = out_range[0] + rtl_compare(acc - bias[channel], matrix[channel], kind, input_type)
        np.testing.assert_array_equal(got, wanted)


def test_thresholds_of_the_recentred_image() -> None:
    offset = np.array([-114, 0, 20])
    reach = Bounds(np.zeros(3, np.int64), np.full(3, 255))
    matrix = offset_thresholds(offset, reach, int_range(10, True))
    kind = threshold_type(matrix, "UINT8")
    assert kind == "UINT9"  # the level behind the last one needs 256
    x = np.arange(256)
    for channel in range(3):
        np.testing.assert_array_equal(-512 + rtl_compare(x, matrix[channel], kind, "UINT8"), x + offset[channel])


@pytest.mark.parametrize("graph", [zoo(), tied_pow2(), edsr_graph(4, 1, mean_shift=True, weight_bits=3, act_bits=3)])
def test_qonnx_runs_the_emitted_graph_to_the_same_integers(graph: IntGraph) -> None:
    size = (7, 6)
    image = np.random.default_rng(3).integers(0, 256, (*size, 3))
    model = emit(prepare(graph), size)
    found = execute_onnx(model, {graph.input: image[None].astype(np.float32)})[graph.output]
    np.testing.assert_array_equal(found.astype(np.int64), run(graph, image))
    np.testing.assert_array_equal(found, np.round(found))


def test_every_type_is_set_and_an_accumulator_holds_a_product() -> None:
    graph = edsr_graph(4, 1, mean_shift=True)
    model = emit(prepare(graph), (4, 4))
    for name in model.get_all_tensor_names():
        if not name.endswith("_shape"):
            assert re.fullmatch(r"U?INT\d+", model.get_tensor_datatype(name).name), name
    for node in model.get_nodes_by_op_type("MatMul"):
        weights, source = model.get_tensor_datatype(node.input[1]), model.get_tensor_datatype(node.input[0])
        product = weights.bitwidth() + source.bitwidth() - source.signed()
        assert model.get_tensor_datatype(node.output[0]).bitwidth() >= product
    assert model.get_tensor_datatype("image_offset").name == "INT9"


def test_small_weights_still_get_an_accumulator_for_a_product() -> None:
    net = Net(0)
    acc = net.build.conv("image", np.ones((2, 3, 1, 1), np.int64), np.zeros(2, np.int64), "tiny")
    graph = net.build.finish(net.build.requant(acc, np.array([1]), np.array([2]), 8, True, "tiny_q"), "tiny")
    model = emit(prepare(graph), (2, 2))
    assert model.get_tensor_datatype("tiny_weight").name == "INT4"  # below 4 bits FINN has no RTL
    assert model.get_tensor_datatype("tiny").bitwidth() == 12


def test_output_shuffle_becomes_one_swap_of_outer_axes() -> None:
    prepared = prepare(edsr_graph(4, 1, last_conv=False))
    assert prepared.graph.nodes[-1].attrs["mode"] == "DCR"
    np.testing.assert_array_equal(prepared.order["up_q"], [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3))
    np.testing.assert_array_equal(run(prepared.graph, image), run(edsr_graph(4, 1, last_conv=False), image))


def _grouped() -> IntGraph:
    net = Net(0)
    weight = np.ones((3, 1, 3, 3), np.int64)
    acc = net.build.conv("image", weight, np.zeros(3, np.int64), "depthwise", groups=3)
    return net.build.finish(net.build.requant(acc, np.array([1]), np.array([4]), 8, True, "q"), "grouped")


def _zero_point() -> IntGraph:
    graph = tied_pow2()
    tensors = {**graph.tensors, "image": replace(graph.tensors["image"], zero_point=3)}
    return graph.with_nodes(graph.nodes, tensors)


def _raw_sum() -> IntGraph:
    net = Net(0)
    total = net.build.add(net.conv("image", 3, "left"), net.conv("image", 3, "right"), "total")
    return net.build.finish(net.build.requant(total, np.array([1]), np.array([9]), 8, True, "q"), "raw_sum")


def _weighted_add() -> IntGraph:
    net = Net(0)
    left, right = net.quantized("image", 3, "left"), net.quantized("image", 3, "right")
    total = net.build.add(left, right, "total", (1, 2))
    return net.build.finish(net.build.requant(total, np.array([1]), np.array([2]), 8, True, "q"), "weighted")


def _filter() -> IntGraph:
    build = GraphBuilder(3)
    taps, denominator = filter_taps("bicubic", 2)
    node = Node("ResizeFilter", "bigger", ("image",), "big", {"factor": 2, "denominator": denominator}, {"taps": taps})
    made = build.add_node(node, 3, 32, True, 2)
    return build.finish(build.requant(made, np.array([1]), np.array([14]), 8, False, "q"), "filter")


def _slice() -> IntGraph:
    build = GraphBuilder(3)
    node = Node("Slice", "part", ("image",), "part", {"start": 1, "stop": 3})
    return build.finish(build.add_node(node, 2, 8, False, 1), "slice")


def _falls() -> IntGraph:
    build = GraphBuilder(3)
    acc = build.conv("image", np.ones((3, 3, 1, 1)), np.zeros(3), "c")
    made = build.requant(acc, np.array([3]), np.array([4]), 8, True, "fall", negative_multiplier=np.array([-1]))
    return build.finish(made, "falls")


def _resize() -> IntGraph:
    net = Net(0)
    net.quantized("image", 3, "first")
    node = Node("ResizeNearest", "bigger", ("first_q",), "bigger", {"factor": 2})
    return net.build.finish(net.build.add_node(node, 3, 8, True, 2), "resize")


def _doubled() -> IntGraph:
    net = Net(0)
    y = net.quantized("image", 3, "first")
    return net.build.finish(net.halved_add(y, y, "doubled"), "doubled")


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (_grouped(), ["depthwise", "3 groups", "dense"]),
        (_zero_point(), ["image", "zero point 3", "symmetrically"]),
        (_raw_sum(), ["left", "total", "Put a quantizer"]),
        (_weighted_add(), ["total", "(1, 2)", "equal_scales"]),
        (_resize(), ["bigger", "ResizeNearest", "PixelShuffle"]),
        (_filter(), ["bigger", "ResizeFilter", "on the host"]),
        (_slice(), ["part", "Slice", "channels 1 to 3"]),
        (_falls(), ["fall", "Requant", "a negative slope"]),
        (_doubled(), ["doubled", "first_q", "itself"]),
    ],
)
def test_what_finn_cannot_take_is_refused_by_name(graph: IntGraph, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        emit(prepare(graph), (4, 4))
    for word in words:
        assert word in str(caught.value)


def _huge(shift: int) -> IntGraph:
    """An accumulator up to 21.9 million, more than the 2**24 up to which float32 holds every integer."""
    net = Net(0)
    acc = net.build.conv("image", np.full((1, 3, 15, 15), 127, np.int64), np.array([5]), "huge")
    return net.build.finish(net.build.requant(acc, np.array([12]), np.array([shift]), 8, False, "huge_q"), "huge")


def test_a_threshold_that_float32_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match=r"huge_q_thresholds.*float32"):
        emit(prepare(_huge(20)), (2, 2))


def test_a_level_out_of_reach_never_needs_more_than_float32_holds() -> None:
    graph = _huge(30)  # only the lowest levels can be reached; the others lie behind an odd end above 2**24
    image = np.full((16, 16, 3), 255)
    matrix = emit(prepare(graph), (16, 16)).get_initializer("huge_q_thresholds")
    acc = trace(graph, image)["huge"] - 5  # the matrix unit sums without the bias
    assert acc.max() > 1 << 24
    np.testing.assert_array_equal((acc >= matrix.astype(np.int64)).sum(-1, keepdims=True), run(graph, image))


def test_same_graph_same_bytes() -> None:
    first, second = (emit(prepare(zoo()), (4, 4)).model.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_a_target_without_a_device_is_not_run_and_says_so(tmp_path) -> None:
    found = build_finn(edsr_graph(4, 1), load_target("int-generic"), (8, 8), None, tmp_path / "finn")
    assert (found.built, found.status) == (False, "not run") and not (tmp_path / "finn").exists()
    assert found.reason == "target int-generic has no FPGA resources: no FINN design, no estimate"
    with pytest.raises(InputError, match="target int-generic names no device"):
        device_of(load_target("int-generic"))


def test_a_clipped_relu_is_its_thresholds() -> None:
    """hi below the type's end: the levels above are never reached."""
    build = GraphBuilder(2)
    acc = build.conv("image", np.array([[[[1]], [[-1]]]]), np.zeros(1), "c")
    made = build.requant(acc, np.array([1]), np.array([2]), 6, False, "clip")
    node = replace(build.nodes[-1], attrs={**build.nodes[-1].attrs, "hi": 37})
    build.nodes[-1] = node
    graph = build.finish(made, "clipped")
    image = np.stack([np.arange(256), np.arange(256)[::-1]], -1).reshape(16, 16, 2)
    model = emit(prepare(graph), (16, 16))
    out = execute_onnx(model, {"image": image[None].astype(np.float32)})[graph.output]
    wanted = run(graph, image)
    np.testing.assert_array_equal(out, wanted)
    assert wanted.max() == 37
