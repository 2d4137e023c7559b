"""The generated sources of a FINN graph stitched without Vivado and simulated in Verilator against the reference.

FINN's modules run from FINN's own sources, with FINN's generated weights, thresholds and window controllers; where one
does not build in Verilator, a patched copy or our module of the same function runs instead, and the result says which.
Width converters and FIFOs are ours: FINN would insert its own, which it sizes with Vivado. Of its multipliers Verilator
sees the behavioural description: the DSP primitives are synthesised, never simulated.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from srq_hw.backends.finn.build import DATAFLOW, FinnResult
from srq_hw.backends.finn.stitched_sources import Sources, collect, our_modules
from srq_hw.backends.finn.stitched_top import TOP, Top, write_top
from srq_hw.backends.finn.stitched_units import Origin, read_units
from srq_hw.backends.rtl.oracle import STALLS, differences, port_of
from srq_hw.backends.rtl.verilate import RUN_SECONDS, Design, Run, RunTooLong, Simulator, Stalls, build
from srq_hw.errors import InputError
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.simulate.reference import run as reference
from srq_hw.tools import OutOfTime, tool_seconds

#: frames that a beat may be on its way, when nothing moves outside: small ones in a deep network
PATIENCE = 4


@dataclass(frozen=True)
class StitchedNode:
    """A node of the graph and whose module computed it; reason: of a patch or a stand-in, else ""."""

    name: str
    op: str
    origin: Origin
    reason: str


@dataclass(frozen=True)
class Stitched:
    """Outcome of a simulation.

    elements: integers compared, over all runs. first: where the first difference stands. converters: stream -> lanes
    before and after; fifos: stream -> beats, both ours. cycles_per_frame: between the last beats of two frames that
    follow each other, on average over all, rounded up, without stalls; ideal: of the slowest node of the estimate.
    first_output: cycle of the first beat out, without stalls.
    """

    elements: int
    mismatches: int
    first: str | None
    frames: int
    runs: tuple[str, ...]
    nodes: tuple[StitchedNode, ...]
    converters: Mapping[str, tuple[int, int]]
    fifos: Mapping[str, int]
    cycles_per_frame: int
    ideal: int
    slowest: str
    first_output: int
    build_seconds: float
    run_seconds: float

    @property
    def passed(self) -> bool:
        """True where something was compared and nothing differs."""
        return self.elements > 0 and self.mismatches == 0

    @property
    def origins(self) -> dict[Origin, int]:
        """Nodes by whose module computed them."""
        return dict(Counter(node.origin for node in self.nodes))


@dataclass(frozen=True)
class StitchedDesign:
    """What is compiled: the top and all sources. cycles: per frame of the slowest node."""

    top: Top
    sources: Sources
    cycles: int


def stitch(result: FinnResult, matrix: Literal["finn", "srq"] = "finn") -> StitchedDesign:
    """The design of a build with sources.

    matrix: whose matrix units; "srq" compiles and runs several times faster. InputError where the build was not run or
    has no sources, RunError for what cannot be stitched.
    """
    if not result.built or result.estimate is None:
        raise InputError(f"FINN simulation: the build was not run ({result.reason})")
    graph = read_units(result.folder / DATAFLOW)
    sources = collect(graph.units, result.folder / "sources", matrix == "srq")
    return StitchedDesign(write_top(graph, sources.units), sources, result.estimate.cycles_per_frame)


def compile_stitched(design: StitchedDesign, models: Path, jobs: int = 2) -> Simulator:
    """The design as a compiled model in the folder of models; see `verilate.build`."""
    top, made = design.top, design.sources
    with tempfile.TemporaryDirectory(prefix="srq-finn-") as scratch:
        written = []
        for name, text in {**made.files, f"{TOP}.v": top.text}.items():
            (Path(scratch) / name).write_text(text)
            written.append(Path(scratch) / name)
        files = [*our_modules([*made.files.values(), top.text]), *made.library, *written]
        files.sort(key=lambda path: not path.name.endswith("_pkg.sv"))  # packages are read first
        ports = ((port_of(top.source),), (port_of(top.sink),))
        return build(Design(TOP, tuple(files), {}, *ports, made.memories), models, jobs)


def simulate_stitched(
    result: FinnResult,
    graph: IntGraph,
    images: Int,
    models: Path,
    matrix: Literal["finn", "srq"] = "finn",
    jobs: int = 2,
) -> Stitched:
    """Stream images through the build's generated sources: free, with stalls, with a reset in the middle; and compare.

    images: int64 (N, H, W, C) of the build's size, N at least 2, sent back to back. graph: what was built. models:
    folder of compiled models. matrix: see `stitch`. InputError for images of another shape and builds without sources,
    RunError where the tools are missing, refuse the design, or a simulation hangs; OutOfTime where a tool or a run
    takes longer than it may, for frames cannot be smaller than the build's.
    """
    channels = graph.tensors[graph.input].channels
    if images.shape[1:] != (*result.size, channels) or len(images) < 2:
        wanted = (*result.size, channels)
        raise InputError(f"FINN simulation: images of shape {images.shape}; wanted 2 or more of {wanted}")
    started = time.perf_counter()
    design = stitch(result, matrix)
    simulator = compile_stitched(design, models, jobs)
    built = time.perf_counter()
    expected = np.stack([reference(graph, image)[0] for image in images])
    compared = time.perf_counter()
    free = _run(simulator, design, images, Stalls())
    two, sink = images[:2], design.top.sink
    middle = free.last[sink.name] // len(images)  # within two frames
    runs = {
        "free": (free, expected),
        f"stalls of {STALLS.in_} % in and {STALLS.out} % out": (_run(simulator, design, two, STALLS), expected[:2]),
        "reset in the middle": (_run(simulator, design, two, Stalls(), (middle,)), expected[:2]),
    }
    ended = time.perf_counter()
    found = [differences(name, run.outputs[sink.name], wanted) for name, (run, wanted) in runs.items()]
    ends = free.ends[sink.name]
    assert result.estimate is not None
    return Stitched(
        elements=sum(wanted.size for _, wanted in runs.values()),
        mismatches=sum(count for count, _ in found),
        first=next((text for _, text in found if text), None),
        frames=len(images),
        runs=tuple(runs),
        nodes=tuple(StitchedNode(unit.name, unit.op, unit.origin, unit.reason) for unit in design.sources.units),
        converters=design.top.converters,
        fifos=design.top.fifos,
        cycles_per_frame=-(-int(ends[-1] - ends[0]) // (len(ends) - 1)),
        ideal=design.cycles,
        slowest=result.estimate.slowest_node,
        first_output=free.first[sink.name],
        build_seconds=built - started,
        run_seconds=ended - compared,
    )


def _run(
    simulator: Simulator, design: StitchedDesign, images: Int, stalls: Stalls, resets: tuple[int, ...] = ()
) -> Run:
    source, sink = design.top.source, design.top.sink
    beats = images.reshape(-1, source.lanes)
    seconds = tool_seconds(RUN_SECONDS)
    try:
        return simulator.run(
            {source.name: beats},
            {sink.name: len(images) * sink.beats},
            stalls,
            resets=resets,
            seconds=seconds,
            latency=PATIENCE * design.cycles,
        )
    except RunTooLong as error:
        where = "; ".join(map(str.strip, str(error).split("; ", 1)[-1].splitlines()))
        raise OutOfTime("a run of FINN's sources in Verilator", seconds, f" ({where})") from error
