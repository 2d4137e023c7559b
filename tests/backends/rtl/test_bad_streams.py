"""Frames cut short, too long or without an end on a whole design: filled or dropped, flagged, the next one correct."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl.generate import RtlDesign, generate
from srq_hw.backends.rtl.oracle import compile_design
from srq_hw.backends.rtl.verilate import Simulator, Stalls
from srq_hw.errors import RunError
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.simulate.reference import run as reference

SIZE = (5, 4)
BEATS = 20  # a pixel per beat


@pytest.fixture(scope="module")
def graph() -> IntGraph:
    """With skips, and an image whose zero point is not 0: the filling value."""
    made = edsr_graph(2, 0, weight_bits=4, act_bits=4)
    return made.with_nodes(made.nodes, {**made.tensors, "image": replace(made.tensors["image"], zero_point=37)})


@pytest.fixture(scope="module")
def design(graph: IntGraph) -> RtlDesign:
    return generate(graph, SIZE, 400)


@pytest.fixture(scope="module")
def simulator(design: RtlDesign, models: Path) -> Simulator:
    return compile_design(design, models, jobs=1)


def repaired(beats: Int, sizes: tuple[int, ...], pad: int) -> Int:
    """The frames that the design should see: each run of beats up to a tlast, cut or filled to a frame."""
    parts = np.split(beats, np.cumsum(sizes)[:-1])
    whole = [np.vstack([part, np.full((BEATS, 3), pad)])[:BEATS] for part in parts]
    return np.stack(whole).reshape(-1, *SIZE, 3)


@pytest.mark.parametrize("stalls", [Stalls(), Stalls(in_=30, out=30, seed=5)], ids=["free", "stalls"])
@pytest.mark.parametrize(
    "sizes",
    [
        (20, 20, 20),
        (20, 7, 20),  # cut short
        (1, 20, 1, 20),  # a tlast on the first beat
        (20, 21, 20),  # a beat too many
        (19, 55, 20),  # one too few, then many too many
        (3, 2, 41, 20),
    ],
)
def test_frames_of_the_wrong_length(
    graph: IntGraph, design: RtlDesign, simulator: Simulator, sizes: tuple[int, ...], stalls: Stalls
):
    beats = np.random.default_rng(len(sizes)).integers(0, 256, (sum(sizes), 3))
    last = np.zeros(len(beats), bool)
    last[np.cumsum(sizes) - 1] = True
    images = repaired(beats, sizes, graph.tensors[graph.input].zero_point)
    wanted = np.concatenate([reference(graph, image) for image in images])
    run = simulator.run({"s": beats}, {"m": len(sizes) * design.output.beats}, stalls, {"s": last})
    assert np.array_equal(run.outputs["m"].reshape(wanted.shape), wanted)
    assert np.array_equal(np.nonzero(run.lasts["m"])[0] + 1, np.arange(1, len(sizes) + 1) * design.output.beats)
    assert run.flags["frame_error"] == (set(sizes) != {BEATS})


def test_a_source_without_tlast_gets_its_first_frame_and_no_hang(
    graph: IntGraph, design: RtlDesign, simulator: Simulator
):
    beats = np.random.default_rng(1).integers(0, 256, (3 * BEATS, 3))
    run = simulator.run({"s": beats}, {"m": design.output.beats})
    assert np.array_equal(run.outputs["m"].reshape(1, 10, 8, 3), reference(graph, beats[:BEATS].reshape(*SIZE, 3)))
    assert run.flags["frame_error"] == 1


def test_a_frame_that_never_ends_is_reported_with_the_last_transfer_of_every_stream(
    design: RtlDesign, simulator: Simulator
):
    """Half a frame without a tlast: the design waits for the rest."""
    with pytest.raises(RunError, match="hang: no beat on any stream") as caught:
        simulator.run({"s": np.zeros((10, 3), np.int64)}, {"m": design.output.beats})
    text = str(caught.value)
    assert "input s: 10 of 10 beats, last at cycle" in text
    assert f"output m: 0 of {design.output.beats} beats, none transferred" in text


def test_a_reset_within_a_frame_forgets_it(graph: IntGraph, design: RtlDesign, simulator: Simulator):
    beats = np.random.default_rng(2).integers(0, 256, (2 * BEATS, 3))
    last = np.arange(1, len(beats) + 1) % BEATS == 0
    run = simulator.run({"s": beats}, {"m": 2 * design.output.beats}, lasts={"s": last}, resets=(7, 60))
    wanted = np.concatenate([reference(graph, image) for image in beats.reshape(2, *SIZE, 3)])
    assert np.array_equal(run.outputs["m"].reshape(wanted.shape), wanted)
    assert run.flags["frame_error"] == 0
