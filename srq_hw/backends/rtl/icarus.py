"""The benches of `verilate` in Icarus Verilog: a second opinion, slow, with four-valued signals.

Takes the same designs, arrays, stalls and resets and gives the same runs, cycle for cycle. What Verilator cannot see
fails here: tdata and tlast of the inputs are undefined while tvalid is low, memories while they are not written, and
nothing undefined may come out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from srq_hw.backends.rtl.memories import hex_words
from srq_hw.backends.rtl.store import kept
from srq_hw.backends.rtl.toolchain import call
from srq_hw.backends.rtl.verilate import (
    STOP_SECONDS,
    Design,
    IntArray,
    Job,
    Port,
    Run,
    RunTooLong,
    SimulationFailed,
    Simulator,
    design_key,
    run_of,
)
from srq_hw.errors import RunError
from srq_hw.tools import require_tool

TEMPLATE = Path(__file__).with_name("icarus.v.jinja")
BENCH = "srq_bench"

# of harness.cpp's generator
_MASK = (1 << 64) - 1
_SEED, _START = (0x9E3779B97F4A7C15, 0x2545F4914F6CDD1D)
_FACTOR, _ADDED = (6364136223846793005, 1442695040888963407)


def build(design: Design, folder: Path) -> Simulator:
    """Compile the design with its bench into ``folder/<top>-<hash>``, or return what is already there.

    Raises RunError with Icarus' words where it refuses the design, OutOfTime where it takes too long, RunError or
    InputError where it is missing.
    """
    status = require_tool("icarus")
    program = Path(str(status.path))
    runner = _beside(program)
    text = _bench(design)

    def make(work: Path) -> None:
        (work / "bench.v").write_text(text)
        sources = [path.resolve() for path in design.sources]
        command: list[str | Path] = [program, "-g2005", "-s", BENCH, "-o", "model.vvp", "bench.v", *sources]
        done = call(command, work)
        if done.returncode:
            raise RunError(f"iverilog refuses {design.top}:\n{(done.stdout + done.stderr).strip()}")

    key = design_key(design, f"{program} {status.version} {text}")
    return IcarusSimulator(design, kept(folder.resolve() / f"{design.top}-{key}", "model.vvp", make), runner)


def _beside(program: Path) -> Path:
    """vvp, which runs what iverilog has compiled."""
    own = program.with_name("vvp")
    found = str(own) if own.is_file() else shutil.which("vvp")
    if found is None:
        raise RunError(f"icarus: {program} has no vvp beside it, and none is on PATH; {require_tool('icarus').get}")
    return Path(found)


def _bench(design: Design) -> str:
    template = jinja2.Template(
        TEMPLATE.read_text(), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    named = _ports_of(design)
    values = {key: f'"{value}"' if isinstance(value, str) else value for key, value in design.parameters.items()}
    return template.render(
        top=design.top,
        parameters=list(values.items()),
        flags=design.flags,
        ports=[
            {"name": port.name, "width": port.lanes * port.bits, "into": into, "tlast": f"{port.name}_tlast" in named}
            for into, ports in ((True, design.inputs), (False, design.outputs))
            for port in ports
        ],
    )


def _ports_of(design: Design) -> set[str]:
    """The names in the top's header: a stream of it may have no tlast."""
    for source in design.sources:
        header = re.search(rf"^\s*module\s+{re.escape(design.top)}\b.*?;", source.read_text(), re.MULTILINE | re.DOTALL)
        if header:
            return set(re.findall(r"\w+", re.sub(r"//.*|/\*.*?\*/", "", header[0])))
    raise RunError(f"iverilog refuses {design.top}: no source has a module of that name")


@dataclass(frozen=True)
class IcarusSimulator(Simulator):
    """A model that vvp runs."""

    vvp: Path

    def _prepare(self, place: Path, job: Job) -> None:
        lines = [f"{job.cycles_max} {job.idle_max}"]
        sides = [(port, job.stalls.in_) for port in self.design.inputs]
        sides += [(port, job.stalls.out) for port in self.design.outputs]
        for number, (port, percent) in enumerate(sides, 1):
            lines.append(f"{job.wanted[port.name]} {_generator(job.stalls.seed + number):x} {_odds(percent)}")
        lines += [str(cycle) for cycle in job.resets]
        (place / "job.txt").write_text("\n".join(lines) + "\n")
        for port in self.design.inputs:
            words = hex_words(job.beats[port.name], port.bits).split() if len(job.beats[port.name]) else []
            text = (f"{word} {int(last)}\n" for word, last in zip(words, job.lasts[port.name], strict=True))
            (place / f"{port.name}.in").write_text("".join(text))

    def _execute(self, place: Path, seconds: float) -> None:
        command = [str(self.vvp), "-n", str(self.folder / "model.vvp")]
        late = ""
        with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as model:
            try:
                said = model.communicate(timeout=seconds)[0]
            except subprocess.TimeoutExpired:
                late = f"not finished after {seconds:g} s; "
                (place / "stop").touch()  # it looks for that and tells the state of its streams
                try:
                    said = model.communicate(timeout=STOP_SECONDS)[0]
                except subprocess.TimeoutExpired:
                    model.kill()
                    said = "no word from the model"
            except BaseException:
                model.kill()
                raise
        if not (place / "result.txt").exists():
            reason = place / "reason.txt"
            told = reason.read_text().rstrip() if reason.exists() else ""
            kind = RunTooLong if late else SimulationFailed
            raise self._failed(late + (told or said.strip() or f"exit status {model.returncode}"), kind)

    def _results(self, place: Path, job: Job) -> Run:
        outputs, lasts, ends = {}, {}, {}
        for port in self.design.outputs:
            rows = [line.split() for line in (place / f"{port.name}.out").read_text().splitlines()]
            if len(rows) != job.wanted[port.name] or any(len(row) != 3 for row in rows):
                raise RunError(
                    f"{port.name}.out could not be written whole; free some space for temporary files (TMPDIR)"
                )
            outputs[port.name] = _lanes([row[0] for row in rows], port)
            lasts[port.name] = np.array([row[1] == "1" for row in rows], np.bool_)
            ends[port.name] = np.array([int(row[2]) for row in rows if row[1] == "1"], np.int64)
        return run_of((place / "result.txt").read_text(), outputs, lasts, ends, _flag)


def _flag(text: str) -> int:
    """A flag in binary digits; undefined ones are a failure."""
    if set(text) - {"0", "1"}:
        raise RunError(f"undefined bits in a flag: {text}")
    return int(text, 2)


def _generator(seed: int) -> int:
    """State of a stream's stalls before its first cycle."""
    state = (seed * _SEED + _START) & _MASK
    for _ in range(4):
        state = (state * _FACTOR + _ADDED) & _MASK
    return state


def _odds(percent: int) -> int:
    """Of 2**32, that a burst of 1 to 7 cycles starts, so that stalls take so many per cent of all cycles."""
    share = percent / 100.0
    return int(share / (4.0 - 3.0 * share) * 4294967296.0)


def _lanes(words: Sequence[str], port: Port) -> IntArray:
    """Beats in hex to int64 (beats, lanes)."""
    mask, half = (1 << port.bits) - 1, 1 << port.bits - 1
    beats: list[list[int]] = []
    for word in words:
        whole = int(word, 16)
        values = [whole >> lane * port.bits & mask for lane in range(port.lanes)]
        beats.append([(value ^ half) - half for value in values] if port.signed else values)
    dtype: Any = np.uint64 if port.bits == 64 and not port.signed else np.int64
    return np.array(beats, dtype).reshape(-1, port.lanes).astype(np.int64)
