"""DSPs and memories by rule, and the rate that a device carries. The rule's DSP counts are those that Yosys finds."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
import pytest

from scripts.costs.grid import build
from srq_hw.backends.rtl import fit as fitting
from srq_hw.backends.rtl.demand import blocks as of_instance
from srq_hw.backends.rtl.demand import bram18, demand, dsps, memories, packed, stored, uram, weight_words
from srq_hw.backends.rtl.fit import fabric_of, fit
from srq_hw.backends.rtl.generate import generate
from srq_hw.backends.rtl.netlist import Fabric
from srq_hw.backends.search.search import Search
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph
from srq_hw.target import Dsp, Resources, load_target

SIZE = (24, 32)


@pytest.fixture(scope="module")
def board() -> Resources:
    found = load_target("zcu104-rtl").resources
    assert found is not None
    return found


def one_conv(bits: int, act_bits: int) -> IntGraph:
    """18 to 16 channels, 3x3, weights over the whole range."""
    build = GraphBuilder(18, act_bits)
    weight = np.random.default_rng(0).integers(-(1 << bits - 1), 1 << bits - 1, (16, 18, 3, 3))
    return build.finish(build.conv("image", weight, np.zeros(16), "conv"), "one")


@pytest.mark.parametrize(
    ("bits", "act_bits", "port", "count"),
    [(8, 8, 27, 18), (4, 4, 27, 9), (8, 8, 25, 18), (4, 4, 25, 18), (2, 8, 27, 0)],
)
def test_36_products_take_as_many_dsps_as_yosys_finds(bits: int, act_bits: int, port: int, count: int):
    graph = one_conv(bits, act_bits)
    design = generate(graph, (8, 8), 64 * 4 * 9 * 2, fabric=Fabric(port=port))
    conv = next(instance for instance in design.netlist.instances if instance.module == "srq_conv")
    pe, simd = conv.parameters["PE"], conv.parameters["SIMD"]
    assert isinstance(pe, int) and isinstance(simd, int)
    assert dsps(conv) * 36 <= count * pe * simd  # never more per product than with PE 4, SIMD 9


@pytest.mark.parametrize(
    ("words", "bits", "blocks"), [(16, 8, 0), (512, 36, 1), (513, 36, 2), (2048, 9, 1), (16384, 1, 1), (1024, 40, 3)]
)
def test_block_rams_of_a_memory(words: int, bits: int, blocks: int):
    assert bram18(words, bits) == blocks


def test_ultrarams_of_a_memory():
    assert [uram(*memory) for memory in ((4096, 72), (4097, 72), (100, 73))] == [1, 2, 2]


@pytest.mark.parametrize(
    ("pe", "simd", "rows", "blocks"),
    [
        (1, 1, (4096, 72), 1),  # 36,864 words of 8 bits, 9 to a row
        (2, 1, (4608, 64), 2),  # 18,432 of 16 bits, 4 to a row: 512 rows too many
        (2, 2, (4608, 64), 2),  # 9,216 of 32 bits, 2 to a row
        (4, 2, (4608, 64), 2),  # 4,608 of 64 bits, one to a row
        (4, 4, (2304, 128), 2),  # in two UltraRAMs side by side
        (8, 8, (576, 512), 8),
    ],
)
def test_weights_in_ultraram(pe: int, simd: int, rows: tuple[int, int], blocks: int):
    """64 to 64 channels, 3x3, 8 bits: as many bits as an UltraRAM has."""
    spec = {"unit": "conv", "a": 64, "b": 64, "k": 3, "w": 8, "x": 8, "size": [24, 320], "weights": "ultra"}
    conv = build(spec | {"pe": pe, "simd": simd})
    words = 36864 // pe // simd, 8 * pe * simd
    assert weight_words({k: v for k, v in conv.parameters.items() if isinstance(v, int)}) == words
    assert stored(*words) == rows
    image = (3 * 320 + 3) * 64 // simd, 8 * simd
    assert list(memories(conv)) == [(*image, False), (*rows, True)]
    assert of_instance(conv) == (bram18(*image), blocks)
    both = replace(conv, parameters={**conv.parameters, "RAM_STYLE": "ultra"})
    assert of_instance(both) == (0, uram(*packed(*image)) + blocks)
    assert len(conv.loads) == rows[0] * -(-rows[1] // 32)


def test_without_a_wish_the_rate_is_that_of_video(board: Resources):
    found = fit(edsr_graph(16, 1), SIZE, board)
    assert found.fps >= 60 and found.short == {}
    assert found.demand == demand(found.design.netlist)


def test_a_wish_is_met_with_more_multipliers(board: Resources):
    graph = edsr_graph(16, 1)
    slow, fast = fit(graph, SIZE, board, 100.0), fit(graph, SIZE, board, 2000.0)
    assert slow.fps >= 100 and fast.fps >= 2000 and fast.demand.dsp > slow.demand.dsp


def test_a_wish_beyond_the_fastest_form_is_not_met_and_names_the_layer(board: Resources):
    found = fit(edsr_graph(16, 1), SIZE, board, 1e6)
    assert (
        found.fps < 1e6 and found.point.roof and found.point.bottleneck == "last"
    )  # 3x3 behind the shuffle: 9 cycles for each pixel


def test_a_small_device_gets_a_lower_rate(board: Resources):
    graph, size = edsr_graph(8, 1), (64, 112)

    def with_dsps(count: int) -> Resources:
        return board.model_copy(update={"dsp": Dsp(kind="DSP48E2", count=count)})

    least = Search.of(graph, size, with_dsps(1)).at(40.0).cost.dsp  # saves DSPs before all else
    few = with_dsps(ceil(least / board.utilization_max))
    found = fit(graph, size, few)
    assert found.short == {} and 40 <= found.fps < fitting.USUAL_FPS
    assert found.demand.dsp == found.cost.dsp <= least
    asked = fit(graph, size, few, fitting.USUAL_FPS)
    assert asked.fps >= fitting.USUAL_FPS and asked.short.keys() == {"dsp"}


def test_a_device_too_small_says_what_is_short(board: Resources):
    found = fit(edsr_graph(16, 2), (45, 80), board.model_copy(update={"bram36": 2, "uram": 0}))
    assert found.short.keys() == {"bram36"} and found.short["bram36"] > 0


@pytest.mark.parametrize(
    ("name", "port", "ultra"), [("zcu104", 27, True), ("zcu102", 27, False), ("pynq-z2", 25, False)]
)
def test_what_the_units_learn_of_a_device(name: str, port: int, ultra: bool):
    resources = load_target(name).resources
    assert resources is not None and fabric_of(resources) == Fabric(port, ultra)


def test_a_factor_of_a_sum_takes_a_multiplier_unless_it_is_a_shift():
    build = GraphBuilder(4)
    total = build.add(build.add("image", "image", "even", (4, 1)), "image", "odd", (5, 8))
    design = generate(build.finish(total, "sums"), (4, 4), 16)
    counts = {i.name: (dsps(i), i.parameters["LANES"]) for i in design.netlist.instances if i.module == "srq_add"}
    assert counts == {"even": (0, 4), "odd": (4, 4)}
