"""Tiles: the halo is the receptive field, and no cut changes a bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srq_hw.graph.ir import IntGraph
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.simulate import fast, reference, tiles
from tests.support.graph_strategies import graphs, random_image


@settings(max_examples=80)
@given(graph=graphs(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_tiles_keep_the_bits(graph: IntGraph, seed: int, data: st.DataObject) -> None:
    """Odd sizes, tiles of one pixel up, smaller and larger than the halo."""
    height, width = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 25))
    side = data.draw(st.sampled_from([1, 2, 5, 8, 13, 30])) if height * width < 100 else data.draw(st.integers(5, 30))
    image = random_image(graph, height, width, seed)
    program = fast.compile_graph(graph, threads=1)
    np.testing.assert_array_equal(program.run(image, tile=side), reference.run(graph, image))


@settings(max_examples=40)
@given(graph=graphs(operations=("conv", "grouped", "shuffle", "resize", "add", "concat")), seed=st.integers(0, 1 << 30))
def test_halo_covers_the_receptive_field(graph: IntGraph, seed: int) -> None:
    """A pixel changed outside the halo of a region changes nothing inside it."""
    margin, scale = tiles.halo(graph), graph.upscale
    size = 2 * margin + 3
    image = random_image(graph, size, size, seed)
    other = random_image(graph, size, size, seed + 1)
    changed = other.copy()
    kept = slice(1, size - 1)  # what the centre pixel may depend on, if the halo is right
    changed[kept, kept] = image[kept, kept]
    centre = slice((margin + 1) * scale, (margin + 2) * scale)
    before, after = reference.run(graph, image), reference.run(graph, changed)
    np.testing.assert_array_equal(before[:, centre, centre], after[:, centre, centre])


def test_halo_of_edsr() -> None:
    """head, 2 per block, tail and up at the input's size, last at twice that: 1 + 2 * 8 + 1 + 1 + 1/2 rounded up."""
    assert tiles.halo(edsr_graph(4, 8)) == 20
    assert tiles.halo(edsr_graph(4, 8, last_conv=False)) == 19


def test_a_halo_one_pixel_smaller_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above can fail: with one pixel less, some tile gets wrong bits."""
    graph = edsr_graph(8, 1, last_conv=False)
    image = random_image(graph, 24, 24, 7)
    program = fast.compile_graph(graph, threads=1)
    wanted = reference.run(graph, image)
    np.testing.assert_array_equal(program.run(image, tile=6), wanted)
    monkeypatch.setattr(fast, "halo", lambda g: tiles.halo(g) - 1)
    assert (program.run(image, tile=6) != wanted).any()


@given(length=st.integers(1, 400), side=st.integers(1, 90), margin=st.integers(0, 40))
def test_spans_cover_once(length: int, side: int, margin: int) -> None:
    spans = tiles.spans(length, side, margin)
    assert [pixel for s in spans for pixel in range(s.first, s.last)] == list(range(length))
    for s in spans:
        assert 0 < s.last - s.first <= side
        assert (s.before, s.behind) == (max(0, s.first - margin), min(length, s.last + margin))


def test_auto_keeps_to_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """With little memory allowed, every tile's buffers stay within it, and the bits are the same."""
    graph = edsr_graph(8, 1)
    program = fast.compile_graph(graph, threads=1)
    image = random_image(graph, 90, 70, 8)
    whole = program.run(image)
    assert tiles.tile_side("auto", 90, 70, program.plan) == 90
    monkeypatch.setattr(tiles, "AUTO_BYTES", 1 << 18)
    side = tiles.tile_side("auto", 90, 70, program.plan)
    assert (side + 2 * tiles.halo(graph)) ** 2 * program.plan.bytes_per_pixel <= 1 << 18
    np.testing.assert_array_equal(program.run(image), whole)
    np.testing.assert_array_equal(whole, reference.run(graph, image))
