"""IntGraph -> Verilog: every operation in one design, equal to the reference simulator; names, files, the map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl.arrange import arrange
from srq_hw.backends.rtl.emit import literal
from srq_hw.backends.rtl.generate import generate
from srq_hw.backends.rtl.oracle import simulate
from srq_hw.backends.rtl.stitch import verilog_names
from srq_hw.errors import InputError
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.ops import OPS
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph
from srq_hw.simulate import reference

SIZE = (6, 5)


def every_op() -> IntGraph:
    """All operations, zero points, slopes of both signs, groups, a depthwise convolution, forks that meet again."""
    rng = np.random.default_rng(7)
    build = GraphBuilder(3)

    def weight(*shape: int, bits: int = 8) -> np.ndarray:
        limit = 1 << (bits - 1)
        return rng.integers(-limit, limit, shape)

    def requant(source: str, name: str, bits: int = 8, signed: bool = True, zero_point: int = 0, **slope) -> str:
        tensor = build.tensors[source]
        shift = np.full(tensor.channels, max(0, tensor.bits - bits + 14))
        multiplier = rng.integers(1 << 15, 1 << 16, tensor.channels)
        params = {"multiplier": multiplier, "shift": shift, **slope}
        lo, hi = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        attrs = {"rounding": "half_even", "lo": lo, "hi": hi, "zero_point": zero_point}
        node = Node("Requant", name, (source,), name, attrs, params)
        return build.add_node(node, tensor.channels, bits, signed, tensor.upscale, zero_point)

    x = build.offset("image", np.array([-114, -111, -103]), 9, "mean shift")
    x = requant(build.conv(x, weight(8, 3, 3, 3), weight(8), "head/conv"), "head/act", zero_point=-7)
    slope = rng.integers(-(1 << 15), 1 << 15, 8)
    y = requant(build.conv(x, weight(8, 4, 3, 3), weight(8), "grouped", groups=2), "prelu", negative_multiplier=slope)
    d = requant(build.conv(y, weight(8, 1, 3, 3), weight(8), "depthwise", groups=8), "few levels", 4, signed=False)
    wide = build.add_node(Node("Concat", "wide", (y, y, y), "wide", {}, {}), 24, 8, True, 1)
    part = build.add_node(Node("Slice", "part", (wide,), "part", {"start": 6, "stop": 14}, {}), 8, 8, True, 1)
    total = requant(build.add(part, d, "sum", (3, 70_000)), "sum/act", 12)
    shuffled = build.depth_to_space(total, 2, "order kept", "DCR")  # not behind a convolution
    back = build.conv(shuffled, weight(8, 2, 1, 1, bits=4), weight(8), "1x1")
    up = build.depth_to_space(requant(back, "before"), 2, "after")
    near = build.add_node(Node("ResizeNearest", "near", ("image",), "near", {"factor": 4}, {}), 3, 8, False, 4)
    taps = {"taps": np.array([[1, 5, -2], [0, 3, 1]])}
    half = Node("ResizeFilter", "bilinear", ("image",), "bilinear", {"factor": 2, "denominator": 4}, taps)
    half_name = build.add_node(half, 3, 15, True, 2)
    middle = requant(half_name, "filtered", 8, signed=False)
    last = build.conv(middle, weight(12, 3, 1, 5, bits=2), weight(12), "flat")
    image = build.depth_to_space(requant(last, "flat/act"), 2, "flat/up")
    image = requant(build.add(image, near, "with near"), "with near/act")
    mixed = build.conv(up, weight(3, 2, 3, 1), weight(3), "end conv")
    image = requant(build.add(requant(mixed, "end conv/act"), image, "skip"), "out", signed=False)
    return build.finish(image, "every op")


def frames(graph: IntGraph, size: tuple[int, int], count: int = 3) -> np.ndarray:
    tensor = graph.tensors[graph.input]
    return np.random.default_rng(3).integers(*tensor.range, (count, *size, tensor.channels), endpoint=True)


@pytest.fixture(scope="module")
def graph() -> IntGraph:
    return every_op()


def test_the_graph_of_this_test_has_every_operation(graph: IntGraph):
    assert {node.op for node in graph.nodes} == set(OPS)


def test_arranging_changes_no_bit(graph: IntGraph):
    image = frames(graph, SIZE)[0]
    arranged = arrange(graph)
    assert np.array_equal(reference.run(arranged, image), reference.run(graph, image))
    modes = {node.name: node.attrs["mode"] for node in arranged.nodes if node.op == "DepthToSpace"}
    assert modes == {"order kept": "DCR", "after": "DCR", "flat/up": "DCR"}


@pytest.mark.parametrize("cycles", [6000, 1440])
def test_every_operation_equals_the_reference_at_two_foldings(graph: IntGraph, models: Path, cycles: int):
    design = generate(graph, SIZE, cycles)
    assert design.cycles <= cycles
    found = simulate(design, graph, frames(graph, SIZE), models, jobs=1)
    assert found.passed, found.first
    assert found.elements == 7 * SIZE[0] * SIZE[1] * 16 * 3
    assert found.cycles_per_frame <= 1.02 * design.cycles + 8


def test_a_design_that_cannot_be_so_fast_is_as_fast_as_it_can(graph: IntGraph):
    design = generate(graph, SIZE, 1)
    assert (design.cycles, design.bottleneck) == (16 * SIZE[0] * SIZE[1] * 3, "end conv")


def test_an_edsr_runs_at_the_pace_of_its_slowest_unit(models: Path):
    graph = edsr_graph(8, 1, mean_shift=True, weight_bits=4, act_bits=4)
    design = generate(graph, (8, 9), 1300)
    found = simulate(design, graph, frames(graph, (8, 9)), models, jobs=1)
    assert found.passed, found.first
    assert found.cycles_per_frame == design.cycles == found.ideal


def test_what_is_written_is_complete_and_the_same_each_time(graph: IntGraph, tmp_path: Path):
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        generate(graph, SIZE, 2000).write(folder)
        written.append({p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert written[0] == written[1]
    names = written[0].keys()
    listed = written[0]["filelist.f"].decode().split()
    assert set(listed) == {name for name in names if name.endswith(".v")}
    top = written[0]["rtl/srq_top.v"].decode()
    used = json.loads(written[0]["map.json"])
    assert set(used["nodes"]) == {"", *(node.name for node in graph.nodes)}
    for instances in used["nodes"].values():
        for instance in instances:
            assert f" {instance['instance']} (" in top
            assert f"    {instance['module']} #(" in top
            assert f"rtl/lib/{instance['module']}.v" in names
            assert all(f"mem/{file}" in names for file in instance["memories"])


def test_names_become_identifiers_of_their_own():
    names = ["conv.0", "conv_0", "Conv 0", "s", "m", "7", "é", "a__b", "a_b"]
    found = verilog_names(names)
    assert list(found) == names
    assert len({name.lower() for name in found.values()}) == len(names)
    assert found["conv.0"] == "conv_0" and found["7"] == "n7"
    assert not {"s", "m"} & set(found.values())
    assert all("__" not in name and name.isidentifier() for name in found.values())


@pytest.mark.parametrize(
    ("value", "text"), [(-3, "-3"), ("a.hex", '"a.hex"'), (1 << 40, f"42'sd{1 << 40}"), (-(1 << 31), str(-(1 << 31)))]
)
def test_literals_say_their_width_beyond_32_bits(value: int | str, text: str):
    assert literal(value) == text


def test_a_frame_without_pixels_is_refused(graph: IntGraph):
    with pytest.raises(InputError, match="0x5 pixels"):
        generate(graph, (0, 5), 100)
