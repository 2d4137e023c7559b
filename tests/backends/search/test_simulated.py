"""A design with the lanes of the search computes the reference's integers, in the cycles that it was chosen for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl.generate import generate
from srq_hw.backends.rtl.oracle import simulate
from srq_hw.backends.search.search import Search
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.target import load_target
from tests.backends.rtl.bench import models_of

SIZE = (8, 9)
CYCLES = 2700


@pytest.fixture(scope="module")
def models() -> Path:
    """Folder of Verilator's models."""
    return models_of("verilator")


def test_the_folding_of_the_search_is_the_reference_bit_for_bit(models: Path):
    board = load_target("zcu104-rtl").resources
    assert board is not None
    graph = edsr_graph(8, 1, mean_shift=True, weight_bits=4, act_bits=4)
    search = Search.of(graph, SIZE, board)
    point = search.at(board.clock_mhz * 1e6 / CYCLES)
    assert point.folding.nodes != search.problem.folding(search.problem.ruled(CYCLES), CYCLES).nodes
    design = generate(graph, SIZE, CYCLES, fabric=search.problem.fabric, folding=point.folding)
    images = np.random.default_rng(2).integers(0, 256, (3, *SIZE, 3))
    found = simulate(design, graph, images, models, jobs=1)
    assert found.passed and found.elements > 0, found.first
    assert found.cycles_per_frame == found.ideal == point.folding.cycles <= CYCLES
