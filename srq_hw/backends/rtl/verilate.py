"""A Verilog design as a compiled model, and arrays streamed through it, with stalls and resets.

A design is built once: the folder of a model is named by the hash of everything that goes into it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from srq_hw.backends.rtl import toolchain
from srq_hw.backends.rtl.store import kept, mark
from srq_hw.errors import RunError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

LIBRARY = Path(__file__).with_name("lib")
RUN_SECONDS = 600
STOP_SECONDS = 10  # for a model that was told to end
IDLE_CYCLES = 200_000  # no beat anywhere for so long is a hang
CYCLES_MAX = 2_000_000_000
CANNOT_WRITE = "could not be written"  # the harness' words for a full disk: no fault of the design


class SimulationFailed(RunError):
    """The simulated design hangs, breaks a handshake, sends too much, or takes longer than a run may."""


class RunTooLong(SimulationFailed):
    """A run was not finished within its seconds; it may have been at work all the time."""


@dataclass(frozen=True)
class Port:
    """One AXI-Stream of the top: ports ``name_tdata``, ``name_tvalid``, ``name_tready`` and, or not, ``name_tlast``.

    tdata holds lanes x bits, lane 0 lowest; bits at most 64.
    """

    name: str
    lanes: int
    bits: int
    signed: bool = False

    def __post_init__(self) -> None:
        if self.lanes < 1 or not 1 <= self.bits <= 64:
            raise ValueError(f"port {self.name}: {self.lanes} lanes of {self.bits} bits; wanted 1 or more of 1 to 64")

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and greatest value of a lane."""
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)


@dataclass(frozen=True)
class Design:
    """A Verilog top with ``clk`` and ``rst`` and its streams.

    sources: Verilog files, all modules. parameters: of the top; a text is passed as a Verilog string.
    memories: file name -> hex text, written where ``$readmemh`` of a bare file name finds it. A model reads them when a
    run starts, so designs that differ in their contents alone share one model.
    flags: output bits of the top that are no stream, read at the end of a run.
    """

    top: str
    sources: tuple[Path, ...]
    parameters: Mapping[str, int | str]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    memories: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stalls:
    """Share of the cycles, in per cent (0 to 95), in which the inputs offer no beat and the outputs take none.

    They come in bursts of 1 to 7 cycles, drawn anew for every stream from the seed.
    """

    in_: int = 0
    out: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.in_ <= 95 and 0 <= self.out <= 95):
            raise ValueError(f"stalls of {self.in_} and {self.out} per cent; wanted 0 to 95")


@dataclass(frozen=True)
class Run:
    """What came out. Cycles count from the end of the (last) reset; `first` and `last` hold inputs and outputs.

    cycles: up to and with the last transfer of any stream.
    """

    outputs: dict[str, IntArray]  # (beats, lanes)
    lasts: dict[str, BoolArray]  # (beats,)
    cycles: int
    first: dict[str, int]  # cycle of the first beat
    last: dict[str, int]  # cycle of the last beat
    ends: dict[str, IntArray]  # of each output: cycles of the beats with tlast
    flags: dict[str, int]


@dataclass(frozen=True)
class Job:
    """What a run is asked for: per input beats (beats, lanes) and tlast, per stream the number of beats."""

    beats: Mapping[str, IntArray]
    lasts: Mapping[str, BoolArray]
    wanted: Mapping[str, int]
    stalls: Stalls
    cycles_max: int
    idle_max: int
    resets: tuple[int, ...]  # rising


@dataclass(frozen=True)
class Simulator:
    """A compiled model."""

    design: Design
    folder: Path

    def run(
        self,
        inputs: Mapping[str, IntArray],
        beats_out: Mapping[str, int],
        stalls: Stalls = Stalls(),
        lasts: Mapping[str, BoolArray] | None = None,
        resets: Sequence[int] = (),
        cycles_max: int = CYCLES_MAX,
        seconds: float = RUN_SECONDS,
        latency: int = 0,
    ) -> Run:
        """Stream the inputs (beats, lanes) through the model after a reset, until every beat went in and came out.

        lasts: tlast of the inputs, else always 0. resets: cycles at which the design is reset once more while it
        works; all streams start over from their first beat then, and what came out before is dropped. latency: cycles
        that a beat may take through the design, when no stream of the top moves.

        Raises SimulationFailed for a hang (no beat for IDLE_CYCLES cycles and twice the latency, or not finished after
        cycles_max), a broken handshake, a beat more than beats_out, RunTooLong for a run longer than `seconds`; says
        the state of every stream.
        """
        given = {port.name: _checked(port, inputs[port.name]) for port in self.design.inputs}
        ends = {name: np.zeros(len(beats), np.bool_) for name, beats in given.items()}
        for name, last in ({} if lasts is None else lasts).items():
            ends[name] = np.asarray(last, np.bool_)
            if ends[name].shape != (len(given[name]),):
                raise ValueError(f"input {name}: {len(given[name])} beats, tlast of shape {ends[name].shape}")
        wanted = {name: len(beats) for name, beats in given.items()}
        wanted |= {port.name: beats_out[port.name] for port in self.design.outputs}
        idle = IDLE_CYCLES + 2 * latency
        job = Job(given, ends, wanted, stalls, cycles_max, idle, tuple(sorted(resets)))
        mark(self.folder)
        with tempfile.TemporaryDirectory(prefix="srq-rtl-") as scratch:
            place = Path(scratch)
            for name, text in self.design.memories.items():
                (place / name).write_text(text if text.endswith("\n") else text + "\n")
            self._prepare(place, job)
            self._execute(place, seconds)
            return self._results(place, job)

    def _prepare(self, place: Path, job: Job) -> None:
        """Write the files that the model reads."""
        words = [job.stalls.in_, job.stalls.out, job.stalls.seed, job.cycles_max, job.idle_max]
        words += [job.wanted[port.name] for port in (*self.design.inputs, *self.design.outputs)]
        (place / "job.txt").write_text(" ".join(map(str, [*words, *job.resets])) + "\n")
        for port in self.design.inputs:
            job.beats[port.name].tofile(place / f"{port.name}.in")
            job.lasts[port.name].astype(np.uint8).tofile(place / f"{port.name}.in_last")

    def _execute(self, place: Path, seconds: float) -> None:
        """Run the model; what it says of a failure is raised."""
        command = [str(self.folder.resolve() / "model"), str(place)]
        kind = SimulationFailed
        with subprocess.Popen(
            command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as model:
            try:
                said = model.communicate(timeout=seconds)[1].strip()
            except subprocess.TimeoutExpired:
                model.terminate()  # it tells the state of its streams
                try:
                    said = model.communicate(timeout=STOP_SECONDS)[1].strip()
                except subprocess.TimeoutExpired:
                    model.kill()
                    said = "no word from the model"
                said, kind = f"not finished after {seconds:g} s; {said}", RunTooLong
            except BaseException:
                model.kill()
                raise
        if model.returncode:
            raise self._failed(said or f"exit status {model.returncode}", kind)

    def _failed(self, reason: str, kind: type[RunError]) -> RunError:
        """The error of a run."""
        kind = RunError if CANNOT_WRITE in reason else kind
        return kind(f"RTL simulation of {self.design.top}: {reason}")

    def _results(self, place: Path, job: Job) -> Run:
        """Read what the model has written."""
        outputs, lasts, ends = {}, {}, {}
        for port in self.design.outputs:
            outputs[port.name] = np.fromfile(place / f"{port.name}.out", np.int64).reshape(-1, port.lanes)
            lasts[port.name] = np.fromfile(place / f"{port.name}.out_last", np.uint8).astype(np.bool_)
            ends[port.name] = np.fromfile(place / f"{port.name}.out_ends", np.int64)
        return run_of((place / "result.txt").read_text(), outputs, lasts, ends)


def run_of(
    result: str,
    outputs: dict[str, IntArray],
    lasts: dict[str, BoolArray],
    ends: dict[str, IntArray],
    flag: Callable[[str], int] = int,
) -> Run:
    """A run from result.txt and the streams; flag: the number in a flag's line."""
    found: dict[str, dict[str, int]] = {"first": {}, "last": {}, "flag": {}}
    cycles = 0
    for line in result.splitlines():
        key, number = line.split()
        kind, _, name = key.partition(".")
        if name:
            found[kind][name] = flag(number) if kind == "flag" else int(number)
        else:
            cycles = int(number)
    return Run(outputs, lasts, cycles, found["first"], found["last"], ends, found["flag"])


def _checked(port: Port, beats: IntArray) -> IntArray:
    beats = np.ascontiguousarray(beats, np.int64)
    if beats.ndim != 2 or beats.shape[1] != port.lanes:
        raise ValueError(f"input {port.name}: shape {beats.shape}; wanted (beats, {port.lanes})")
    lo, hi = port.limits
    if beats.size and (beats.min() < lo or beats.max() > hi):
        raise ValueError(f"input {port.name}: values {beats.min()} to {beats.max()} do not fit {lo} to {hi}")
    return beats


# --- building ---------------------------------------------------------------------------------------------------------


def build(design: Design, folder: Path, jobs: int = 2) -> Simulator:
    """Compile the design into ``folder/<top>-<hash>``, or return what is already there.

    jobs: compilers at once. Beside the models the folder holds what they have in common (``runtime-<hash>``, 75 MB of
    precompiled headers and objects, made in some seconds): a folder for many designs pays it once.

    Raises RunError with the tool's words where Verilator or the compiler refuses the design, OutOfTime where one takes
    too long, RunError or InputError where one of them is missing.
    """
    tools = toolchain.prepare(folder)

    def make(work: Path) -> None:
        (work / "ports.h").write_text(_ports_header(design))
        toolchain.compile_model(tools, design.top, design.sources, design.parameters, work, jobs)

    return Simulator(design, kept(folder / f"{design.top}-{design_key(design, tools.key)}", "model", make))


def design_key(design: Design, tools: str) -> str:
    """Hash of everything a model depends on; tools: what stands for those it is made with."""
    said: list[object] = [design.top, sorted(design.parameters.items()), sorted(design.memories), design.flags]
    said += [[port.__dict__ for port in ports] for ports in (design.inputs, design.outputs)]
    said += [[source.name, hashlib.sha256(source.read_bytes()).hexdigest()] for source in design.sources]
    return hashlib.sha256(json.dumps([*said, tools]).encode()).hexdigest()[:16]


def _ports_header(design: Design) -> str:
    inputs = " ".join(f"X({port.name}, {port.lanes}, {port.bits})" for port in design.inputs)
    outputs = " ".join(f"X({port.name}, {port.lanes}, {port.bits}, {int(port.signed)})" for port in design.outputs)
    flags = " ".join(f"X({name})" for name in design.flags)
    lists = {"INPUTS": inputs, "OUTPUTS": outputs, "FLAGS": flags}
    return "".join(f"#define SRQ_{name}(X) {text}\n" for name, text in lists.items())
