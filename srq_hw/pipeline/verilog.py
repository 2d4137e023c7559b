"""The Verilog steps: the design, its simulation as an oracle, its bundle, and, where asked for, its open synthesis."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from srq_hw.backends.handoff.rtl import write_rtl_handoff
from srq_hw.backends.rtl import oracle, synth
from srq_hw.backends.rtl.fit import Fitted
from srq_hw.backends.rtl.generate import RtlDesign, generate
from srq_hw.backends.rtl.verilate import SimulationFailed
from srq_hw.backends.search.search import board_counts
from srq_hw.cache import user_cache
from srq_hw.files import write_json
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.pipeline.engine import RESULTS, STATE, Step
from srq_hw.pipeline.session import Session, centre, image_sha256
from srq_hw.tools import OutOfTime, find_tool, require_tool

#: what a frame may cost in simulation, in cycles x (products + instances): a second or two
SIMULATION_COST = 8e7
#: side of the smallest frame that is simulated instead of the design's own
SMALLEST_SIDE = 8
FRAMES = 3
TOOLS = ("verilator", "g++")


def verilog_steps(session: Session) -> list[Step]:
    """rtl, oracle_rtl, synth. Where the target has no Verilog design each step says "not run" and why."""
    return [_rtl(session), _oracle(session), *([_synth(session)] if session.options.synth else [])]


def _has_design(session: Session) -> bool:
    resources = session.target.resources
    return resources is not None and resources.has_flow("verilog")


def _no_design(session: Session) -> str:
    if session.target.resources is None:
        return f"target {session.target.name} describes no FPGA (it has no resources)"
    return f"target {session.target.name} leaves Verilog out (resources.flows)"


def _material(session: Session) -> Any:
    return {"target": session.target.sha256, "size": session.size, "fps": session.options.fps}


def _rtl(session: Session) -> Step:
    def run(scratch: Path) -> None:
        fitted = session.fitted
        write_json(scratch / RESULTS / "rtl.json", fitted and _design_json(fitted, session))

    return Step("rtl", lambda: _material(session), ("graph.json",), (f"{RESULTS}/rtl.json",), run)


def _design_json(fitted: Fitted, session: Session) -> dict[str, Any]:
    design, asked = fitted.design, session.options.fps
    fifo_bits = sum(
        int(i.parameters["DEPTH"]) * int(i.parameters["BITS"])
        for i in design.netlist.instances
        if i.module == "srq_fifo"
    )
    return {
        "top": design.name,
        "input_size": list(design.size),
        "clock_mhz": fitted.clock_mhz,
        "cycles_per_frame": design.cycles,
        "bottleneck": fitted.point.bottleneck,
        "fps": fitted.fps,
        "fps_requested": asked,
        "fps_met": None if asked is None else fitted.fps >= asked,
        "latency_cycles": design.latency,
        "instances": len(design.netlist.instances),
        "fifos": len(design.fifos),
        "fifo_bits": fifo_bits,
        **board_counts(fitted.cost),
        "short_of": fitted.short,
        "fullest": fitted.point.fullest,
        "weight_bits_per_cycle": fitted.point.weight_bits,
        "utilization_max": fitted.search.resources.utilization_max,
        "tradeoff": [point.row() for point in fitted.search.curve()],
    }


# --- simulation ---------------------------------------------------------------------------------------------------


def simulated_design(graph: IntGraph, design: RtlDesign) -> RtlDesign:
    """The design, or the same units for smaller frames where the simulation of its own would take too long."""
    height, width = design.size
    size = design.size
    products = sum(pe * simd for pe, simd in (lanes.core for lanes in design.folding.nodes.values()))
    weight = products + len(design.netlist.instances)
    pixels = SIMULATION_COST / weight / design.cycles * height * width
    while size[0] * size[1] > pixels and min(size) >= 2 * SMALLEST_SIDE:
        size = (size[0] // 2, size[1] // 2)
    if size == design.size:
        return design
    folding = design.folding.resized(design.size, size)
    return generate(graph, size, folding.wanted, design.name, design.fabric, folding)


def _oracle(session: Session) -> Step:
    def run(scratch: Path) -> bool:
        row: dict[str, Any] = {"name": "rtl", "elements": 0, "mismatches": 0, "ties": 0}
        found, reason, lasting = None, _why_not(session), True
        fitted = session.fitted
        if reason or fitted is None:
            row |= {"status": "not run", "detail": reason}
        else:
            try:
                found, more = _simulated(session, fitted.design)
                row |= more
            except OutOfTime as error:
                if session.options.rtl_sim:  # asked for by name
                    raise
                row |= {"status": "not run", "detail": str(error)}
                lasting = False
            except SimulationFailed as error:
                row |= {"status": "failed", "detail": "; ".join(map(str.strip, str(error).splitlines()))}
                lasting = False
        write_json(scratch / RESULTS / "oracle_rtl.json", {"oracle": row, "simulation": found})
        return lasting

    def material() -> Any:
        tools = {name: find_tool(name).version for name in TOOLS}
        return _material(session) | {"tile": image_sha256(session.tile), "tools": tools, "why": _why_not(session)}

    return Step("oracle_rtl", material, ("graph.json",), (f"{RESULTS}/oracle_rtl.json",), run)


def _simulated(session: Session, whole: RtlDesign) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the simulation went: for the report, and the oracle's verdict."""
    design = simulated_design(session.graph, whole)
    result = oracle.simulate(design, session.graph, _frames(session, design), models_folder(session))
    found = {
        "size": list(design.size),
        "frames": result.frames,
        "runs": list(result.runs),
        "cycles_per_frame": result.cycles_per_frame,
        "ideal_cycles": result.ideal,
        "first_output": result.first_output,
    }
    return found, {
        "status": "passed" if result.passed else "failed",
        "elements": result.elements,
        "mismatches": result.mismatches,
        "detail": _detail(design, found, session.size)
        + (f"; first difference: {result.first}" if result.first else ""),
    }


def _detail(design: RtlDesign, found: dict[str, Any], size: tuple[int, int]) -> str:
    height, width = design.size
    runs = ", ".join(found["runs"])
    stands_in = "" if design.size == size else f" (for {size[0]}x{size[1]}: the same lanes, FIFOs for smaller frames)"
    return (
        f"Verilator: {found['frames']} frames of {height}x{width}{stands_in} in a row ({runs}); "
        f"{found['cycles_per_frame']} cycles per frame, the slowest unit alone {found['ideal_cycles']}"
    )


def _why_not(session: Session) -> str:
    """Why the Verilog is not simulated; empty where it is. A simulation that was asked for by name needs its tools."""
    if session.options.rtl_sim is False:
        return "--no-rtl-sim"
    if not _has_design(session):
        return _no_design(session)
    for name in TOOLS:
        status = require_tool(name) if session.options.rtl_sim else find_tool(name)
        if not status.usable:
            return f"{name}: {status.problem}; {status.get}"
    return ""


def _frames(session: Session, design: RtlDesign) -> Int:
    """The build's tile, upside down and mirrored as well, so that frames in a row differ."""
    tile = centre(session.tile, *design.size).astype(np.int64)
    return np.stack([tile, tile[::-1], tile[:, ::-1]][:FRAMES])


def models_folder(session: Session) -> Path:
    """Where compiled models are kept: SRQ_CACHE, the user's cache folder, or the build's own state."""
    own = os.environ.get("SRQ_CACHE")
    place = (Path(own) / "srq-hw" if own else user_cache(os.environ, sys.platform)) / "rtl"
    try:
        place.mkdir(parents=True, exist_ok=True)
        writable = os.access(place, os.W_OK)
    except OSError:
        writable = False
    return place if writable else session.folder / STATE / "rtl"


# --- bundle -------------------------------------------------------------------------------------------------------


def write_bundle(session: Session, folder: Path) -> None:
    """The design with all that a synthesis engineer needs; golden vectors of FRAMES - 1 frames."""
    if session.fitted is None:
        folder.mkdir(parents=True)
        (folder / "README.md").write_text(f"# Verilog: not made\n\n{_no_design(session)}\n")
    else:
        design = session.fitted.design
        images = _frames(session, design)[: FRAMES - 1]
        write_rtl_handoff(design, session.graph, session.target, images, folder)


# --- open synthesis -----------------------------------------------------------------------------------------------


def _synth(session: Session) -> Step:
    def run(scratch: Path) -> bool:
        found: dict[str, Any] = {"status": "not run", "detail": _why_no_synthesis(session)}
        fitted, resources, lasting = session.fitted, session.target.resources, True
        if not found["detail"] and fitted is not None and resources is not None:
            family = synth.family_of(resources.part)
            try:
                figures = synth.synthesise_design(fitted.design, family, models_folder(session))
            except OutOfTime as error:
                found["detail"], lasting = str(error), False
            else:
                cells = {key: value for key, value in asdict(figures).items() if key not in ("seconds", "cells")}
                found = {"status": "done", "detail": f"Yosys {find_tool('yosys').version}"} | cells
        write_json(scratch / RESULTS / "synth.json", found)
        return lasting

    def material() -> Any:
        return _material(session) | {"yosys": find_tool("yosys").version, "why": _why_no_synthesis(session)}

    return Step("synth", material, ("graph.json",), (f"{RESULTS}/synth.json",), run)


def _why_no_synthesis(session: Session) -> str:
    if not _has_design(session):
        return _no_design(session)
    status = find_tool("yosys")
    if not status.usable:
        return f"yosys: {status.problem}; {status.get}"
    assert session.target.resources is not None
    return synth.family_problem(session.target.resources.part)
