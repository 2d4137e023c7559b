"""One way to bench a module: random beats through its model under stalls and resets, equality with numpy demanded.

In Verilator and in Icarus; a test asks for the fixture `bench` and runs in both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl import icarus, verilate
from srq_hw.backends.rtl.verilate import LIBRARY, BoolArray, Design, IntArray, Port, Run, Simulator, Stalls, build
from srq_hw.tools import find_tool

FREE = Stalls()
STALLS = (FREE, Stalls(in_=40, seed=1), Stalls(out=40, seed=2), Stalls(in_=30, out=30, seed=3), Stalls(10, 70, seed=4))
LONG_IN_ICARUS = 8_000  # cycles: about a second

#: simulator: the programs it takes, and how a design is compiled for it
SIMULATORS: dict[str, tuple[tuple[str, ...], Callable[[Design, Path], Simulator]]] = {
    "verilator": (("verilator", "g++"), lambda design, models: verilate.build(design, models, jobs=1)),
    "icarus": (("icarus",), icarus.build),
}


def models_of(simulator: str) -> Path:
    """Folder of models, kept between runs and shared with the builds of other tests; skips without the simulator."""
    for name in SIMULATORS[simulator][0]:
        status = find_tool(name)
        if not status.usable:
            pytest.skip(f"{name}: {status.problem}; {status.get}")
    return Path(os.environ["SRQ_CACHE"]) / "srq-hw" / "rtl"


@dataclass(frozen=True)
class Bench:
    """A simulator by its name in SIMULATORS, and where its models are kept."""

    simulator: str
    models: Path

    @staticmethod
    def of(simulator: str) -> Bench:
        """Skips the test where the simulator is missing."""
        return Bench(simulator, models_of(simulator))

    @property
    def stalls(self) -> tuple[Stalls, ...]:
        """Patterns of stalls that a module is tried with: in Icarus, which is slow, one on both sides."""
        return STALLS[1:] if self.simulator == "verilator" else STALLS[3:4]

    def build(self, design: Design) -> Simulator:
        """The design as a model."""
        return SIMULATORS[self.simulator][1](design, self.models)


def library(*names: str) -> tuple[Path, ...]:
    """Files of library modules: ``library("fifo")`` is lib/srq_fifo.v."""
    return tuple(LIBRARY / f"srq_{name}.v" for name in names)


def random_beats(port: Port, beats: int, seed: int = 0) -> IntArray:
    """Uniform values of the port's whole range with its two ends mixed in, int64 (beats, lanes)."""
    random = np.random.default_rng(seed)
    lo, hi = port.limits
    values = random.integers(lo, hi, (beats, port.lanes), np.int64, endpoint=True)
    ends = random.integers(0, 8, values.shape)
    return np.where(ends == 0, lo, np.where(ends == 1, hi, values))


def to_beats(images: IntArray, lanes: int) -> IntArray:
    """NHWC images as a stream, (N*H*W*C/lanes, lanes)."""
    return np.ascontiguousarray(images, np.int64).reshape(-1, lanes)


def from_beats(beats: IntArray, height: int, width: int, channels: int) -> IntArray:
    """The inverse of `to_beats`."""
    return beats.reshape(-1, height, width, channels)


def frame_ends(beats: int, frames: int) -> BoolArray:
    """tlast of `beats` beats that are `frames` frames of one size."""
    size, rest = divmod(beats, frames)
    assert rest == 0, f"{beats} beats are not {frames} frames"
    return np.arange(1, beats + 1) % size == 0


def check(
    design: Design,
    bench: Bench,
    inputs: Mapping[str, IntArray],
    expected: Mapping[str, IntArray],
    frames: int | None = None,
    lasts: Mapping[str, BoolArray] | None = None,
    lasts_out: Mapping[str, BoolArray] | None = None,
    flags: Mapping[str, int] | None = None,
) -> Run:
    """Build the design, run it without stalls, under every pattern of the bench, and with resets while it works (not in
    Icarus where that takes long).

    Demands the expected beats on every output each time, tlast where `frames` frames of one size end (or `lasts_out`;
    neither: not looked at), and the flags. Returns the run without stalls, for statements about cycles.
    """
    simulator = bench.build(design)
    wanted = {name: len(beats) for name, beats in expected.items()}
    if frames is not None:
        lasts_out = {name: frame_ends(beats, frames) for name, beats in wanted.items()}

    def one(stalls: Stalls, resets: tuple[int, ...] = ()) -> Run:
        run = simulator.run(inputs, wanted, stalls, lasts=lasts, resets=resets)
        for name, beats in expected.items():
            equal(run.outputs[name], beats, f"{design.top} {dict(design.parameters)} {name} {stalls} resets {resets}")
            if lasts_out is not None:
                assert np.array_equal(run.lasts[name], lasts_out[name]), f"{design.top} {name} tlast, {stalls}"
        if flags is not None:
            assert run.flags == dict(flags)
        return run

    free = one(FREE)
    for stalls in bench.stalls:
        one(stalls)
    if bench.simulator == "verilator" or free.cycles < LONG_IN_ICARUS:
        one(STALLS[3], resets=(free.cycles // 3, free.cycles // 2))
    return free


def equal(found: IntArray, wanted: IntArray, what: str) -> None:
    """Equality of two (beats, lanes) arrays; says the first beat that differs."""
    assert found.shape == wanted.shape, f"{what}: shape {found.shape}, wanted {wanted.shape}"
    wrong = np.nonzero((found != wanted).any(1))[0]
    if len(wrong):
        beat = int(wrong[0])
        raise AssertionError(
            f"{what}: {len(wrong)} of {len(wanted)} beats differ, first {beat}: {found[beat]}, wanted {wanted[beat]}"
        )


def flowing(run: Run, name: str) -> bool:
    """Whether the beats of a stream came one per cycle without a gap."""
    beats = len(run.outputs[name])
    return run.last[name] - run.first[name] + 1 == beats


__all__ = [
    "FREE",
    "SIMULATORS",
    "STALLS",
    "Bench",
    "Design",
    "Port",
    "Simulator",
    "Stalls",
    "build",
    "check",
    "equal",
    "flowing",
    "frame_ends",
    "from_beats",
    "library",
    "models_of",
    "random_beats",
    "to_beats",
]
