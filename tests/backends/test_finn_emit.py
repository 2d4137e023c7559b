"""The graph handed to FINN: exact thresholds, exact types, whose each node is and why, a stream for every reader."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from finn_nets import Net, tied_pow2, zoo
from hypothesis import given
from hypothesis import strategies as st

from srq_hw.backends.finn.build import build_finn, device_of
from srq_hw.backends.finn.emit import emit
from srq_hw.backends.finn.placement import check_library
from srq_hw.backends.finn.prepare import prepare
from srq_hw.backends.finn.thresholds import requant_thresholds, threshold_type
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


@given(requants(), st.booleans())
def test_no_threshold_of_an_unsigned_input_is_negative(
    case: tuple[Node, Bounds, tuple[int, int], np.ndarray], wide: bool
) -> None:
    """FINN's RTL compares with the input's sign: a threshold below 0 would be a huge one."""
    node, reach, out_range, _ = case
    unsigned = Bounds(np.abs(reach.lo) * 0, np.abs(reach.hi) + wide * 500)
    matrix = requant_thresholds(node, unsigned, out_range, None)
    kind = threshold_type(matrix, "UINT11")
    assert matrix.min() >= 0 and kind.startswith("UINT")
    for channel in range(3):
        x = np.arange(unsigned.hi[channel] + 1)
        params = {key: values[channel] for key, values in node.params.items()}
        wanted = requantize(
            x,
            params["multiplier"],
            params["shift"],
            node.str_attr("rounding"),
            node.int_attr("lo"),
            node.int_attr("hi"),
            negative_multiplier=params.get("negative_multiplier"),
        )
        np.testing.assert_array_equal(out_range[0] + rtl_compare(x, matrix[channel], kind, "UINT11"), wanted)


def test_ties_move_the_threshold_by_one() -> None:
    """acc / 4 at 2, 6, 10: half to even rounds 2 down and 6 up, half up rounds both up."""
    reach = Bounds(np.array([0]), np.array([12]))
    found = {}
    for rounding in ("half_even", "half_up"):
        attrs = {"rounding": rounding, "lo": 0, "hi": 3, "zero_point": 0}
        node = Node("Requant", "q", ("a",), "q", attrs, {"multiplier": np.array([1]), "shift": np.array([2])})
        found[rounding] = requant_thresholds(node, reach, (0, 3), None)[0].tolist()
    assert found == {"half_even": [3, 6, 11], "half_up": [2, 6, 10]}


def computed(graph: IntGraph, image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The last Requant of a graph by its emitted thresholds from the reference's sums, and as the reference has it."""
    model = emit(prepare(graph), size)
    node = next(node for node in model.graph.node if node.op_type == "Thresholding" and graph.output in node.output)
    matrix = model.get_initializer(node.input[1]).astype(np.int64)
    start = next(item.i for item in node.attribute if item.name == "ActVal")
    values, maker = trace(graph, image), graph.producer(node.input[0])
    assert maker is not None
    sums = values[maker.output] - maker.params["bias"]  # the matrix unit has none
    return start + (sums[..., None] >= matrix).sum(-1), values[graph.output]


def test_every_type_is_set_and_an_accumulator_holds_a_product() -> None:
    graph = edsr_graph(4, 1, mean_shift=True)
    model = emit(prepare(graph), (4, 4))
    for name in model.get_all_tensor_names():
        assert re.fullmatch(r"U?INT\d+", model.get_tensor_datatype(name).name), name
        assert model.get_tensor_shape(name) is not None, name
    assert len(model.get_nodes_by_op_type("MVAU")) == 6
    for node in model.get_nodes_by_op_type("MVAU"):
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
    ("graph", "node", "words"),
    [
        (_grouped(), "depthwise", "3 groups: FINN's RTL matrix unit is dense"),
        (_zero_point(), "first", "a zero point of 3"),
        (_raw_sum(), "left", "its sum goes to total"),
        (_weighted_add(), "total", "FINN adds streams in HLS"),
        (_resize(), "bigger", "repeats pixels in HLS"),
        (_filter(), "bigger", "no upsampling by a filter"),
        (_slice(), "part", "splits channels in HLS"),
        (_falls(), "fall", "a negative slope"),
        (_falls(), "c", "its Requant fall is ours"),
        (_doubled(), "doubled", "FINN adds streams"),
        (edsr_graph(4, 1, act_bits=3), "block0_conv1", "3-bit activations"),
    ],
)
def test_what_finn_has_no_rtl_for_is_ours_and_says_why(graph: IntGraph, node: str, words: str) -> None:
    places = prepare(graph).places
    assert places[node].library == "srq" and words in places[node].reason
    ops = {item.name: item.op_type for item in emit(prepare(graph), (4, 4)).graph.node}
    assert ops[node].startswith("Srq")
    others = [name for name, place in places.items() if place.library == "finn"]
    assert all(ops[name] in ("MVAU", "Thresholding") for name in others)


def test_each_library_takes_what_it_can() -> None:
    graph = zoo()
    places = prepare(graph).places
    assert list(places) == [node.name for node in prepare(graph).graph.nodes]
    finns = {place.op for place in places.values() if place.library == "finn"}
    assert finns == {"Conv", "Requant"}
    assert all(bool(place.reason) == (place.library == "srq") for place in places.values())
    ours = emit(prepare(graph, "srq"), (4, 4))
    assert all(node.op_type.startswith("Srq") for node in ours.graph.node)
    with pytest.raises(InputError, match=r"--library 'fin': wanted finn or srq"):
        check_library("fin")


def test_a_weight_that_a_small_dsp_leaves_out_is_ours() -> None:
    net = Net(0)
    acc = net.build.conv("image", np.array([[[[-128]], [[3]], [[5]]]]), np.zeros(1, np.int64), "c")
    graph = net.build.finish(net.build.requant(acc, np.array([1]), np.array([9]), 8, True, "q"), "g")
    assert prepare(graph, dsp="DSP48E2").places["c"].library == "finn"
    assert "-128" in prepare(graph, dsp="DSP48E1").places["c"].reason


def test_many_levels_are_ours() -> None:
    net = Net(0)
    graph = net.build.finish(net.quantized("image", 3, "wide", bits=9), "g")
    assert "511 thresholds" in prepare(graph).places["wide_q"].reason


def test_what_neither_library_can_do_is_refused() -> None:
    graph = tied_pow2()
    tensors = {**graph.tensors, "image": replace(graph.tensors["image"], zero_point=300)}
    with pytest.raises(InputError, match=r"input image: zero point 300; wanted 0 to 255"):
        prepare(graph.with_nodes(graph.nodes, tensors))


def test_every_reader_has_a_stream_of_its_own() -> None:
    net = Net(0)
    y = net.quantized("image", 3, "first")
    graph = net.build.finish(net.halved_add(y, y, "doubled"), "doubled")
    model = emit(prepare(graph), (4, 4))
    fork = next(node for node in model.graph.node if node.op_type == "SrqDuplicate")
    total = next(node for node in model.graph.node if node.op_type == "SrqAdd")
    assert list(fork.input) == ["first_q"] and list(total.input) == list(fork.output)
    for name in model.get_all_tensor_names():
        assert len(model.find_consumers(name) or []) <= 1, name


def _huge(shift: int) -> IntGraph:
    """An accumulator up to 21.9 million, more than the 2**24 up to which float32 holds every integer."""
    net = Net(0)
    acc = net.build.conv("image", np.full((1, 3, 15, 15), 127, np.int64), np.array([5]), "huge")
    return net.build.finish(net.build.requant(acc, np.array([12]), np.array([shift]), 8, False, "huge_q"), "huge")


def test_a_threshold_that_float32_cannot_hold_is_ours() -> None:
    places = prepare(_huge(20)).places
    assert "float32" in places["huge_q"].reason and places["huge"].library == "srq"
    assert prepare(_huge(30)).places["huge_q"].library == "finn"


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
    found, wanted = computed(graph, image, (16, 16))
    np.testing.assert_array_equal(found, wanted)
    assert wanted.max() == 37
