"""The tiled float network gives the picture of the whole image, and its overlap is the least that does."""

from __future__ import annotations

import numpy as np
import pytest

from srq_hw.compare import floats
from srq_hw.compare.floats import bytes_per_pixel, float_side, receptive_radius, run_tiled
from srq_hw.exchange.direct import to_intgraph
from srq_hw.networks.loading import load_network, run_levels
from srq_hw.normalform.normal import upscales
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.freeze import freeze
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.recipe import load_recipe
from srq_hw.simulate.tiles import halo
from srq_hw.target import load_target

from .conftest import RGB, picture

EXACT = "tests.compare.nets:exact"


@pytest.mark.parametrize("side", [5, 16, 23])
def test_tiles_are_the_whole_image(side: int) -> None:
    net = load_network(EXACT)
    image = picture(5, 45, 61)
    whole = run_levels(net, image)
    assert len(np.unique(whole)) > 50
    assert np.array_equal(run_tiled(net, normalize(net), image, side), whole)


def test_a_smaller_overlap_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    net = load_network(EXACT)
    normal, image = normalize(net), picture(5, 45, 61)
    assert receptive_radius(normal) == 4  # four 3x3 convolutions at the image's own resolution
    monkeypatch.setattr(floats, "receptive_radius", lambda _: 3)
    assert not np.array_equal(run_tiled(net, normal, image, 16), run_levels(net, image))


def test_radius_is_that_of_the_integer_program() -> None:
    target = load_target("int-generic")
    for spec in (RGB, None):
        normal = normalize(load_network(spec))
        plan = make_plan(normal, target, 8, 8)
        calibration = calibrate(plan, target, load_recipe("minmax"), [picture(1, 32, 32)])
        assert receptive_radius(normal) == halo(to_intgraph(freeze(plan, calibration, target)))


def test_memory_decides_the_tile() -> None:
    normal = normalize(load_network(RGB))
    assert max(upscales(normal).values()) == 2
    assert bytes_per_pixel(normal) == floats.ALIVE * 4 * 12
    assert float_side(normal, 100, 300) == 300
    pixels = 64 * 64
    side = float_side(normal, 100, 300, bytes_per_pixel(normal) * pixels)
    assert side == 64 - 2 * receptive_radius(normal)


def test_unknown_radius_runs_whole() -> None:
    net = load_network(EXACT)
    image = picture(5, 20, 20)
    assert np.array_equal(run_tiled(net, None, image, 8), run_levels(net, image))
