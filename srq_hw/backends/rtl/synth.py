"""Open synthesis: what a Verilog design takes of an AMD FPGA as Yosys maps it, and its netlist for simulation.

An estimate: no placement, no timing. A design is synthesised once: the folder of a result is named by the hash of
everything that goes into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srq_hw.backends.rtl.generate import RtlDesign, written_sources
from srq_hw.backends.rtl.store import kept
from srq_hw.errors import InputError, RunError
from srq_hw.tools import OutOfTime, ToolStatus, require_tool, tool_seconds

WORKER = Path(__file__).with_name("yosys_worker.py")
SECONDS = 1800.0  # for one synthesis, where the user allows no other time
SAID_LINES = 12  # of Yosys' log in a message, where no line of it is an error

#: Yosys' name of a family: the parts it stands for, and how a user would say them. UltraScale without + is neither.
FAMILIES = {
    "xcup": (r"xczu\d|xck2[46]|xcu\d|xc[akv]u\d+p", "UltraScale+ (xczu*, xck24*, xck26*, xcu*, xc[akv]u*p)"),
    "xc7": (r"xc7[aksvz]", "7 series and Zynq-7000 (xc7a*, xc7k*, xc7s*, xc7v*, xc7z*)"),
}

#: LUT sites that a cell takes as memory or shift register (AMD UG474, UG574)
LUT_MEMORY = {
    **dict.fromkeys(("SRL16E", "SRLC16E", "SRLC32E", "RAM16X1S", "RAM32X1S", "RAM64X1S"), 1),
    **dict.fromkeys(("RAM16X1D", "RAM32X1D", "RAM64X1D", "RAM128X1S"), 2),
    **dict.fromkeys(("RAM32M", "RAM64M", "RAM128X1D", "RAM256X1S"), 4),
    **dict.fromkeys(("RAM32M16", "RAM64M8", "RAM32X16DR8", "RAM64X8SW", "RAM256X1D", "RAM512X1S"), 8),
}
#: figure: cells that count for it, each once
COUNTED = {
    "lut": r"LUT[1-6]|LUT6_2",
    "ff": r"FD[RSCP]E(_1)?",
    "dsp": r"DSP48E[12]",
    "bram36": r"RAMB36E[12]",
    "bram18": r"RAMB18E[12]",
    "uram": r"URAM288(_BASE)?",
}


@dataclass(frozen=True)
class Figures:
    """Cells of a synthesised design.

    lut: logic only, inverters not counted (they go into the next LUT). lut_memory: LUT sites used as memory or shift
    register. carry8: carry chains in blocks of 8 bits, two CARRY4 to one. seconds: that the synthesis took when it was
    run. cells: every cell type and how often it occurs.
    """

    lut: int
    lut_memory: int
    ff: int
    dsp: int
    bram36: int
    bram18: int
    uram: int
    carry8: float
    seconds: float
    cells: Mapping[str, int]


def family_of(part: str) -> str:
    """Yosys' family of an AMD part number as in a target's ``resources.part``; InputError for one it is not told of."""
    problem = family_problem(part)
    if problem:
        raise InputError(problem)
    return next(family for family, (pattern, _) in FAMILIES.items() if re.match(pattern, part.lower()))


def family_problem(part: str) -> str:
    """Why a part cannot be synthesised; empty where it can."""
    if any(re.match(pattern, part.lower()) for pattern, _ in FAMILIES.values()):
        return ""
    known = "; ".join(about for _, about in FAMILIES.values())
    return f"resources.part {part!r}: open synthesis knows no family for it. Supported: {known}"


def synthesise(
    top: str,
    sources: tuple[Path, ...],
    parameters: Mapping[str, int | str],
    memories: Mapping[str, str],
    folder: Path,
    family: str = "xcup",
    seconds: float | None = None,
    flatten: bool = True,
) -> Figures:
    """Synthesise a design out of context (no pads, no clock buffer), or return the figures of an earlier run.

    sources: Verilog files, all modules. parameters: of the top; a text is passed as a Verilog string. memories: file
    name -> hex text, for ``$readmemh`` of a bare file name. folder: where results are kept. family: a key of FAMILIES.
    flatten: False keeps the instances in the top apart, each of them flat, and equal ones are synthesised once. Nothing
    is optimized across their borders; the figures are sums over all instances, some per cent above the flat design's.
    It is faster only where many instances are equal: every module costs a pass of its own. (All modules kept apart
    would be no estimate: srq_conv grows by 60 % in LUT, because constants no longer reach the adder trees.)

    Raises RunError with Yosys' words where it refuses the design or a cell is left that the family has not; OutOfTime
    when it takes longer than `seconds` (SECONDS, or what the user allows); RunError or InputError, with what to do,
    where there is no Yosys.
    """
    place = _made(top, sources, parameters, memories, folder, family, seconds, flatten)
    took = float((place / "seconds.txt").read_text())
    return figures_of(json.loads((place / "stat.json").read_text()), top, took)


def synthesise_design(design: RtlDesign, family: str, results: Path) -> Figures:
    """Open synthesis of the whole design; see `synthesise`."""
    with written_sources(design) as sources:
        return synthesise(design.name, sources, {}, design.memories, results, family)


def netlist(
    top: str,
    sources: tuple[Path, ...],
    parameters: Mapping[str, int | str],
    memories: Mapping[str, str],
    folder: Path,
    family: str = "xcup",
    seconds: float | None = None,
) -> Path:
    """The flat netlist of `synthesise` as a Verilog file: one module named `top` without parameters, of cells that
    ``simulation_cells()`` holds (except block RAM, UltraRAM and DSPs). Raises as `synthesise` does.
    """
    return _made(top, sources, parameters, memories, folder, family, seconds, True) / "netlist.v"


def simulation_cells() -> Path:
    """Yosys' Verilog models of the cells of a netlist; RunError where this Yosys comes without them."""
    place = Path(str(require_tool("yosys").path))
    share = place / "share" if place.is_dir() else place.resolve().parents[1] / "share" / "yosys"
    cells = share / "xilinx" / "cells_sim.v"
    if not cells.is_file():
        raise RunError(f"yosys: its simulation cells are not where they are expected, {cells}")
    return cells


# --- one run ----------------------------------------------------------------------------------------------------------


def _made(
    top: str,
    sources: tuple[Path, ...],
    parameters: Mapping[str, int | str],
    memories: Mapping[str, str],
    folder: Path,
    family: str,
    seconds: float | None,
    flatten: bool,
) -> Path:
    """Folder with stat.json, netlist.v and seconds.txt, which is written last."""
    if family not in FAMILIES:
        raise ValueError(f"family {family!r}; known: {', '.join(FAMILIES)}")
    yosys = require_tool("yosys")
    holder = _holder(top, parameters)
    script = _script(top, [path.resolve() for path in sources], family, flatten)
    named = _script(top, [Path(path.name) for path in sources], family, flatten)
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]
    said = [holder, named, contents, sorted(memories.items()), yosys.version]
    key = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def make(work: Path) -> None:
        files = {name: text if text.endswith("\n") else text + "\n" for name, text in memories.items()}
        files |= {"srq_holder.v": holder, "script.ys": script}
        for name, text in files.items():
            (work / name).write_text(text)
        start = time.perf_counter()
        _run(yosys, top, work, tool_seconds(SECONDS) if seconds is None else seconds)
        (work / "seconds.txt").write_text(f"{time.perf_counter() - start:.1f}\n")

    return kept(folder.resolve() / f"{top}-{key}", "seconds.txt", make)


def _holder(top: str, parameters: Mapping[str, int | str]) -> str:
    """A module that holds the top with its parameters: so they are what Verilog makes of them, sign and all."""
    values = {name: f'"{value}"' if isinstance(value, str) else str(value) for name, value in parameters.items()}
    given = ", ".join(f".{name}({value})" for name, value in values.items())
    return f"module srq_holder;\n    {top} #({given}) unit ();\nendmodule\n"


def _script(top: str, sources: list[Path], family: str, flatten: bool) -> str:
    """Commands for Yosys. -defer: nothing is elaborated with its default parameters."""
    return "\n".join(
        [
            *[f'read_verilog -defer "{path}"' for path in sources],
            "read_verilog -defer srq_holder.v",
            "hierarchy -check -top srq_holder",
            "delete srq_holder",
            "hierarchy -auto-top",  # the top is the only module left that no other holds
            f"rename -top {top}",
            *([] if flatten else [f"setattr -set keep_hierarchy 1 {top}/c:*"]),
            f"synth_xilinx -family {family} -top {top} -flatten -noiopad -noclkbuf",
            "tee -q -o stat.json stat -json",
            "write_verilog -noattr netlist.v",
            "",
        ]
    )


def _run(yosys: ToolStatus, top: str, work: Path, seconds: float) -> None:
    place = Path(str(yosys.path))
    # -P: the folder of the worker holds modules of ours that its imports must not find
    command = [sys.executable, "-P", str(WORKER), "script.ys"] if place.is_dir() else [str(place), "-s", "script.ys"]
    with (work / "yosys.log").open("w") as log:
        process = subprocess.Popen(command, cwd=work, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise OutOfTime(f"synthesis of {top}", seconds, _last_step(work)) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # it and the ABC that it has started
                process.wait()
    if status:
        lines = (work / "yosys.log").read_text(errors="replace").splitlines()
        errors = [line for line in lines if "ERROR" in line] or [f"exit status {status}", *lines[-SAID_LINES:]]
        raise RunError(f"yosys refuses {top}:\n" + "\n".join(errors))
    (work / "yosys.log").unlink()


def _last_step(work: Path) -> str:
    steps = re.findall(r"^[\d.]+ (Executing .*)", (work / "yosys.log").read_text(errors="replace"), re.MULTILINE)
    return f", in the step: {steps[-1]}" if steps else ""


# --- counting ---------------------------------------------------------------------------------------------------------


def figures_of(stat: Mapping[str, Any], top: str, seconds: float) -> Figures:
    """Figures from the output of Yosys' ``stat -json``, summed over the instances of all modules under `top`."""
    modules = {name.removeprefix("\\"): entry["num_cells_by_type"] for name, entry in stat["modules"].items()}
    cells = _cells(modules, top, {})
    left = sorted(name for name in cells if name.startswith("$"))
    if left:
        raise RunError(f"synthesis of {top}: Yosys found no cells of the family for {', '.join(left)}")
    counted = {
        figure: sum(number for name, number in cells.items() if re.fullmatch(pattern, name))
        for figure, pattern in COUNTED.items()
    }
    memory = sum(number * LUT_MEMORY.get(name, 0) for name, number in cells.items())
    carry = cells["CARRY4"] * 0.5 + cells["CARRY8"]
    return Figures(**counted, lut_memory=memory, carry8=carry, seconds=seconds, cells=dict(sorted(cells.items())))


def _cells(modules: Mapping[str, Mapping[str, int]], name: str, known: dict[str, Counter[str]]) -> Counter[str]:
    if name not in known:
        total: Counter[str] = Counter()
        for cell, number in modules[name].items():
            inner = cell.removeprefix("\\")
            if inner in modules:
                below = _cells(modules, inner, known)
                total.update({kind: number * count for kind, count in below.items()})
            elif inner != "$scopeinfo":  # where a module was before it was flattened
                total[inner] += number
        known[name] = total
    return known[name]
