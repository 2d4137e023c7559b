"""The Verilog steps: the design, its simulation as an oracle, its bundle, and, where asked for, its open synthesis."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from srq_hw.backends.handoff.rtl import write_rtl_handoff
from srq_hw.backends.rtl import oracle, synth
from srq_hw.backends.rtl.fit import Fitted
from srq_hw.backends.rtl.generate import RtlDesign, generate
from srq_hw.backends.search.search import board_counts
from srq_hw.files import write_json
from srq_hw.graph.ir import IntGraph
from srq_hw.pipeline.engine import RESULTS, Step
from srq_hw.pipeline.session import Session, image_sha256
from srq_hw.pipeline.simulation import (
    FRAMES,
    TOOLS,
    figures,
    frames_of,
    missing_tool,
    models_folder,
    simulation_findings,
    verdict,
    what_ran,
)
from srq_hw.tools import OutOfTime, find_tool

#: what a frame may cost in simulation, in cycles x (products + instances): a second or two
SIMULATION_COST = 8e7
#: side of the smallest frame that is simulated instead of the design's own
SMALLEST_SIDE = 8


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
    options = session.options
    asked = {"size": session.size, "fps": options.fps, "fixed_weights": options.fixed_weights}
    return {"target": session.target.sha256, **asked}


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
        "load_words": len(design.loads),
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
        asked = session.options.rtl_sim is True
        found, lasting = simulation_findings("rtl", _why_not(session), asked, lambda: _simulated(session))
        write_json(scratch / RESULTS / "oracle_rtl.json", found)
        return lasting

    def material() -> Any:
        tools = {name: find_tool(name).version for name in TOOLS}
        return _material(session) | {"tile": image_sha256(session.tile), "tools": tools, "why": _why_not(session)}

    return Step("oracle_rtl", material, ("graph.json",), (f"{RESULTS}/oracle_rtl.json",), run)


def _why_not(session: Session) -> str:
    """Why the Verilog is not simulated; empty where it is. A simulation that was asked for by name needs its tools."""
    if session.options.rtl_sim is False:
        return "--no-rtl-sim"
    if not _has_design(session):
        return _no_design(session)
    return missing_tool(asked=session.options.rtl_sim is True)


def _simulated(session: Session) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the simulation went: for the report, and the oracle's verdict."""
    assert session.fitted is not None  # `_why_not` has asked
    design = simulated_design(session.graph, session.fitted.design)
    images = frames_of(session.tile, design.size)
    result = oracle.simulate(design, session.graph, images, models_folder(session))
    height, width = session.size
    note = "" if design.size == session.size else f" (for {height}x{width}: the same lanes, FIFOs for smaller frames)"
    pace = f"{result.cycles_per_frame} cycles per frame, the slowest unit alone {result.ideal}"
    return figures(result, design.size), verdict(result, f"{what_ran(result, design.size, note)}; {pace}")


# --- bundle -------------------------------------------------------------------------------------------------------


def write_bundle(session: Session, folder: Path) -> None:
    """The design with all that a synthesis engineer needs; golden vectors of FRAMES - 1 frames."""
    if session.fitted is None:
        folder.mkdir(parents=True)
        (folder / "README.md").write_text(f"# Verilog: not made\n\n{_no_design(session)}\n")
    else:
        design = session.fitted.design
        images = frames_of(session.tile, design.size)[: FRAMES - 1]
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
