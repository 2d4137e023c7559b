"""Legal graphs at the edges: what the library cannot do is refused by name, the rest equals the reference."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl.generate import generate
from srq_hw.backends.rtl.oracle import simulate
from srq_hw.backends.rtl.schedule import FRAMES, schedule
from srq_hw.backends.rtl.stitch import STEM_LENGTH, verilog_names
from srq_hw.errors import InputError
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.synthetic import GraphBuilder


def equal(graph: IntGraph, size: tuple[int, int], cycles: int, models: Path, frames: int = 3):
    """Simulate random frames; the result, after it has passed."""
    design = generate(graph, size, cycles)
    tensor = graph.tensors[graph.input]
    images = np.random.default_rng(5).integers(*tensor.range, (frames, *size, tensor.channels), endpoint=True)
    found = simulate(design, graph, images, models, jobs=1)
    assert found.passed, found.first
    assert found.first_output <= design.latency
    return found


# --- refused ------------------------------------------------------------------------------------------------------


def test_an_output_that_is_the_input_is_refused():
    graph = GraphBuilder(3).finish("image", "nothing")
    with pytest.raises(InputError, match="RTL of nothing: no node lies between the input 'image' and the output"):
        generate(graph, (4, 4), 100)


def test_a_zero_point_outside_its_type_is_refused():
    build = GraphBuilder(1)
    acc = build.conv("image", np.ones((1, 1, 3, 3)), np.zeros(1), "conv")
    params = {"multiplier": np.array([1]), "shift": np.array([4])}
    node = Node("Requant", "act", (acc,), "act", {"rounding": "floor", "lo": 0, "hi": 255, "zero_point": 300}, params)
    graph = build.finish(build.add_node(node, 1, 8, False, 1, 300), "far")
    with pytest.raises(InputError, match=r"node act \(Requant\): zero point 300; wanted 0 to 255, what UINT8"):
        generate(graph, (4, 4), 100)


# --- names --------------------------------------------------------------------------------------------------------


def test_no_stem_meets_the_ends_of_the_design_or_an_instance():
    names = ["entry", "Exit", "u_conv", "U_a", "conv_tdata", "y" * 300, "y" * 299, "", "/"]
    found = list(verilog_names(names).values())
    assert len({name.lower() for name in found}) == len(names)
    assert not {"entry", "exit"} & {name.lower() for name in found}
    assert not any(name.lower().startswith("u_") for name in found)
    assert max(map(len, found)) <= STEM_LENGTH + len("_2")


def test_names_of_every_kind_in_one_design(models: Path):
    build = GraphBuilder(1)
    source = "image"
    for name in ("entry", "exit", "u_conv", "conv_tdata", "wire", "y" * 300):
        source = build.offset(source, np.array([-9]), 12, name)
    equal(build.finish(source, "two\nlines"), (2, 2), 10, models)


# --- numbers ------------------------------------------------------------------------------------------------------


def test_wide_operands_offsets_that_do_not_fit_their_sum_and_clamps_beyond_32_bits(models: Path):
    """One design: Add of 40-bit values with a factor above 2**31, Offset of a narrow interval, Requant to 33 bits."""
    build = GraphBuilder(2, 40, True)
    build.tensors["image"] = replace(build.tensors["image"], zero_point=-(1 << 39))
    total = build.add("image", "image", "sum", ((1 << 18) + 1, 1))
    lo, hi = 100, (1 << 33) - 1
    params = {"multiplier": np.array([1]), "shift": np.array([24])}
    node = Node("Requant", "act", (total,), "act", {"rounding": "half_up", "lo": lo, "hi": hi, "zero_point": 0}, params)
    act = build.add_node(node, 2, 33, False, 1)
    few = {"multiplier": np.array([1]), "shift": np.array([26])}
    node = Node("Requant", "few", (act,), "few", {"rounding": "floor", "lo": 100, "hi": 120, "zero_point": 0}, few)
    narrow = build.offset(build.add_node(node, 2, 8, True, 1), np.array([-110, -111]), 12, "offset")  # 6 bits
    graph = build.finish(build.add(narrow, act, "last", (1, (1 << 20) + 1)), "wide")
    equal(graph, (2, 2), 10, models)


def test_one_bit_activations_beside_six_weights_to_a_multiplier(models: Path):
    """The gap between packed weights is then as narrow as a weight."""
    build = GraphBuilder(3, 1)
    weight = np.random.default_rng(0).integers(-8, 8, (12, 3, 3, 3))
    build.conv("image", weight, np.zeros(12), "conv")
    equal(build.finish("conv", "binary"), (4, 3), 1, models)


def test_more_lanes_than_threshold_files_can_number_take_the_multiplier():
    build = GraphBuilder(1)
    acc = build.conv("image", np.ones((1002, 1, 1, 1)), np.zeros(1002), "conv")
    build.requant(acc, np.array([1]), np.array([6]), 2, False, "act")
    graph = build.finish("act", "broad")
    modules = [{i.module for i in generate(graph, (1, 2), cycles).netlist.instances} for cycles in (2, 2004)]
    assert "srq_requant" in modules[0] and "srq_threshold" in modules[1]


# --- pace ---------------------------------------------------------------------------------------------------------


def test_an_image_of_many_channels_enters_as_fast_as_the_design_is(models: Path):
    build = GraphBuilder(6)
    build.conv("image", np.ones((2, 6, 1, 1)), np.zeros(2), "conv")
    graph = build.finish("conv", "six")
    lanes = [generate(graph, (4, 4), cycles).input.lanes for cycles in (16, 32, 48, 96, 1000)]
    assert lanes == [6, 3, 2, 1, 1]
    assert equal(graph, (4, 4), 16, models).cycles_per_frame == 16


def test_a_skip_across_many_small_frames_holds_them(models: Path):
    """A long way beside a short one, on frames of four pixels: the short one waits for the time of many frames."""
    build = GraphBuilder(1)
    source = "image"
    for index in range(30):
        source = build.offset(source, np.array([index % 3 - 1]), 16, f"step{index}")
    graph = build.finish(build.add(source, "image", "sum"), "long way")
    design = generate(graph, (1, 4), 4)
    waits = schedule(design.netlist, design.cycles).patience
    assert ceil(waits / design.cycles) > FRAMES
    assert equal(graph, (1, 4), 4, models, frames=40).cycles_per_frame == design.cycles == 4


def test_bursts_of_a_join_are_served_although_a_slower_unit_stands_in_the_arm(models: Path):
    """A tensor beside itself at full rate: each copy comes a value per cycle and is read two at a time, in turns."""
    build = GraphBuilder(2, 4)
    wide = build.conv("image", np.ones((8, 2, 1, 1)), np.zeros(8), "conv")
    narrow = build.requant(wide, np.array([1]), np.array([2]), 4, False, "act")
    twice = Node("Concat", "twice", (narrow, narrow), "twice", {}, {})
    graph = build.finish(build.add_node(twice, 16, 4, False, 1), "twice")
    pixels = 24
    assert equal(graph, (4, 6), 8 * pixels, models).cycles_per_frame == 8 * pixels


def test_a_skew_of_one_cycle_costs_nothing_at_full_rate(models: Path):
    """The second copy of three passes one fork more than the first."""
    build = GraphBuilder(1)
    graph = build.finish(build.add(build.add("image", "image", "twice"), "image", "thrice"), "skew")
    assert equal(graph, (5, 4), 20, models, frames=12).cycles_per_frame == 20
