"""A small generated design and its hand-off bundle, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.handoff.rtl import write_rtl_handoff
from srq_hw.backends.rtl.generate import RtlDesign, generate
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.graph.synthetic import GraphBuilder, random_requant
from srq_hw.target import load_target
from tests.backends.rtl.test_load import loaded


@dataclass(frozen=True)
class Made:
    """What a bundle was written from. folder: shared by all tests, to be copied before anything is changed."""

    graph: IntGraph
    design: RtlDesign
    images: Int
    folder: Path


def small_graph() -> IntGraph:
    """RGB -> 3x3 conv -> 5 unsigned bits -> 3x3 conv -> 7 signed bits -> pixel shuffle by 2."""
    rng = np.random.default_rng(5)
    build = GraphBuilder(3)
    weights = rng.integers(-127, 128, (4, 3, 3, 3))
    x = build.conv("image", weights, rng.integers(-9000, 9000, 4), "head")
    x = build.requant(x, *random_requant(rng, 60_000, 5, 4), 5, False, "head_q")
    x = build.conv(x, rng.integers(-127, 128, (12, 4, 3, 3)), rng.integers(-900, 900, 12), "up")
    x = build.requant(x, *random_requant(rng, 10_000, 7, 12), 7, True, "up_q")
    return build.finish(build.depth_to_space(x, 2, "shuffle"), "small")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three frames of 5 x 6 pixels through `small_graph`, for the zcu104."""
    graph = small_graph()
    images = np.random.default_rng(6).integers(0, 256, (3, 5, 6, 3))
    design = generate(graph, (5, 6), 200, "small_top")
    folder = write_rtl_handoff(
        design, graph, load_target("zcu104"), images, tmp_path_factory.mktemp("handoff") / "bundle"
    )
    return Made(graph, design, images, folder)


@pytest.fixture(scope="session")
def made_loaded(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same with the weights of both convolutions written at run time."""
    graph = small_graph()
    images = np.random.default_rng(6).integers(0, 256, (3, 5, 6, 3))
    design = loaded(graph, 200, (5, 6))
    folder = write_rtl_handoff(
        design, graph, load_target("zcu104"), images, tmp_path_factory.mktemp("handoff") / "loaded"
    )
    return Made(graph, design, images, folder)
