"""RTL against the reference simulator: frames streamed through the compiled design, every output integer compared."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from srq_hw.backends.rtl.generate import RtlDesign, written_sources
from srq_hw.backends.rtl.netlist import Stream
from srq_hw.backends.rtl.verilate import Design, Port, Run, Simulator, Stalls, build
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.simulate.reference import run as reference

#: both sides stall in so many per cent of the cycles
STALLS = Stalls(in_=30, out=30, seed=1)


@dataclass(frozen=True)
class RtlResult:
    """Outcome of the simulation of a design.

    elements: integers compared, over all runs. first: where the first difference stands. cycles_per_frame: between the
    last beats of two frames that follow each other, on average over all, rounded up, without stalls; ideal: of the
    slowest unit. first_output: cycle of the first beat out, without stalls.
    """

    elements: int
    mismatches: int
    first: str | None
    frames: int
    runs: tuple[str, ...]
    cycles_per_frame: int
    ideal: int
    first_output: int
    build_seconds: float
    run_seconds: float

    @property
    def passed(self) -> bool:
        """True where something was compared and nothing differs."""
        return self.elements > 0 and self.mismatches == 0


def port_of(stream: Stream) -> Port:
    """A stream of the top as the simulation sees it."""
    return Port(stream.name, stream.lanes, stream.bits, stream.signed)


def compile_design(design: RtlDesign, models: Path, jobs: int = 2) -> Simulator:
    """The design as a compiled model in the folder of models; see `verilate.build`."""
    with written_sources(design) as sources:
        entries = (design.input, design.weights) if design.weights else (design.input,)
        ports = (tuple(map(port_of, entries)), (port_of(design.output),))
        return build(Design(design.name, sources, {}, *ports, design.memories, design.flags), models, jobs)


def simulate(design: RtlDesign, graph: IntGraph, images: Int, models: Path, jobs: int = 2) -> RtlResult:
    """Stream images through the design: free, with stalls on both sides, and with a reset in the middle.

    images: int64 (N, H, W, C) of the design's size, N at least 2, sent back to back. graph: what the design was made
    from. RunError where the tools are missing or a simulation hangs.
    """
    if images.shape[1:] != (*design.size, design.input.channels) or len(images) < 2:
        raise ValueError(f"images of shape {images.shape}; wanted 2 or more of {(*design.size, design.input.channels)}")
    started = time.perf_counter()
    simulator = compile_design(design, models, jobs)
    built = time.perf_counter()
    expected = np.stack([reference(graph, image)[0] for image in images])
    compared = time.perf_counter()
    free = _run(simulator, design, images, Stalls())
    two = images[:2]
    ends = free.ends[design.output.name]
    middle = free.last[design.output.name] // len(images)  # within two frames
    runs = {
        "free": (free, expected),
        f"stalls of {STALLS.in_} % in and {STALLS.out} % out": (_run(simulator, design, two, STALLS), expected[:2]),
        "reset in the middle": (_run(simulator, design, two, Stalls(), (middle,)), expected[:2]),
    }
    ended = time.perf_counter()
    found = [_compare(run, wanted, design, name) for name, (run, wanted) in runs.items()]
    return RtlResult(
        elements=sum(wanted.size for _, wanted in runs.values()),
        mismatches=sum(count for count, _ in found),
        first=next((text for _, text in found if text), None),
        frames=len(images),
        runs=tuple(runs),
        cycles_per_frame=-(-int(ends[-1] - ends[0]) // (len(ends) - 1)) if len(ends) > 1 else 0,
        ideal=design.cycles,
        first_output=free.first[design.output.name],
        build_seconds=built - started,
        run_seconds=ended - compared,
    )


def _run(simulator: Simulator, design: RtlDesign, images: Int, stalls: Stalls, resets: tuple[int, ...] = ()) -> Run:
    source, out = design.input, design.output
    beats = {source.name: images.reshape(-1, source.lanes)}
    lasts = {source.name: np.arange(1, len(beats[source.name]) + 1) % source.beats == 0}
    if design.weights:  # sent beside the first frame, which waits for them
        beats[design.weights.name] = design.loads.reshape(-1, 1)
        lasts[design.weights.name] = np.arange(1, len(design.loads) + 1) == len(design.loads)
    wanted = {out.name: len(images) * out.beats}
    return simulator.run(beats, wanted, stalls, lasts, resets, latency=design.latency + design.cycles)


def _compare(run: Run, expected: Int, design: RtlDesign, name: str) -> tuple[int, str | None]:
    """Differing integers, and the first of them in words; a tlast or a flag in the wrong place counts as one more."""
    out = design.output
    wrong, text = differences(name, run.outputs[out.name], expected)
    lasts = np.arange(1, len(expected) * out.beats + 1) % out.beats == 0
    misplaced = int((run.lasts[out.name] != lasts).sum())
    flags = sum(run.flags.values())
    if not wrong and misplaced:
        text = f"{name}: tlast differs on {misplaced} beats"
    elif not wrong and flags:
        text = f"{name}: {' and '.join(flag for flag, up in run.flags.items() if up)} up"
    return wrong + misplaced + flags, text


def differences(name: str, values: Int, expected: Int) -> tuple[int, str | None]:
    """Integers that differ, and the first of them in words, after the name of the run.

    expected: int64 (N, H, W, C); values: as many, in the order of the stream.
    """
    found = values.reshape(expected.shape)
    wrong = np.argwhere(found != expected)
    if not len(wrong):
        return 0, None
    at = tuple(wrong[0])
    frame, y, x, c = (int(value) for value in at)
    text = f"{name}: frame {frame}, y {y}, x {x}, channel {c}: {int(found[at])}, wanted {int(expected[at])}"
    return len(wrong), text
