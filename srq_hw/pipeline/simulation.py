"""What the simulations of a build share: frames, tools, the place of compiled models, and findings for the report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from srq_hw.backends.rtl.verilate import SimulationFailed
from srq_hw.cache import user_cache
from srq_hw.graph.ir import Int
from srq_hw.pipeline.engine import STATE
from srq_hw.pipeline.session import Image, Session, centre
from srq_hw.tools import OutOfTime, find_tool, require_tool

FRAMES = 3
TOOLS = ("verilator", "g++")


class Outcome(Protocol):
    """What every simulation against the reference tells (`rtl.oracle.RtlResult`, `finn.stitched.Stitched`)."""

    @property
    def elements(self) -> int: ...
    @property
    def mismatches(self) -> int: ...
    @property
    def first(self) -> str | None: ...
    @property
    def passed(self) -> bool: ...
    @property
    def frames(self) -> int: ...
    @property
    def runs(self) -> tuple[str, ...]: ...
    @property
    def cycles_per_frame(self) -> int: ...
    @property
    def ideal(self) -> int: ...
    @property
    def first_output(self) -> int: ...


def missing_tool(asked: bool) -> str:
    """Which tool is missing and how to get it; empty where none is. asked: by name, then that is an error."""
    for name in TOOLS:
        status = require_tool(name) if asked else find_tool(name)
        if not status.usable:
            return f"{name}: {status.problem}; {status.get}"
    return ""


def frames_of(tile: Image, size: tuple[int, int]) -> Int:
    """The middle of the tile, upside down and mirrored as well, so that frames in a row differ: (FRAMES, H, W, C)."""
    middle = centre(tile, *size).astype(np.int64)
    return np.stack([middle, middle[::-1], middle[:, ::-1]][:FRAMES])


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


# --- findings -----------------------------------------------------------------------------------------------------


def figures(result: Outcome, size: tuple[int, int]) -> dict[str, Any]:
    """How a simulation of frames of this size went, for the report."""
    return {
        "size": list(size),
        "frames": result.frames,
        "runs": list(result.runs),
        "cycles_per_frame": result.cycles_per_frame,
        "ideal_cycles": result.ideal,
        "first_output": result.first_output,
    }


def what_ran(result: Outcome, size: tuple[int, int], note: str = "") -> str:
    """Frames and runs in words. note: stands behind the size."""
    height, width = size
    return f"Verilator: {result.frames} frames of {height}x{width}{note} in a row ({', '.join(result.runs)})"


def verdict(result: Outcome, detail: str) -> dict[str, Any]:
    """What a simulation that ran adds to its oracle's row."""
    return {
        "status": "passed" if result.passed else "failed",
        "elements": result.elements,
        "mismatches": result.mismatches,
        "detail": detail + (f"; first difference: {result.first}" if result.first else ""),
    }


def simulation_findings(
    name: str, why_not: str, asked: bool, simulate: Callable[[], tuple[dict[str, Any], dict[str, Any]]]
) -> tuple[dict[str, Any], bool]:
    """{"oracle": the row, "simulation": figures or None}, and whether that lasts: False runs the step again next time.

    name: of the oracle. why_not: why it does not run; empty where it does. asked: by name, then a tool that takes too
    long is an error. simulate: runs it; figures, and what `verdict` says.
    """
    row: dict[str, Any] = {"name": name, "elements": 0, "mismatches": 0, "ties": 0}
    if why_not:
        return {"oracle": row | {"status": "not run", "detail": why_not}, "simulation": None}, True
    try:
        found, more = simulate()
    except OutOfTime as error:
        if asked:
            raise
        return {"oracle": row | {"status": "not run", "detail": str(error)}, "simulation": None}, False
    except SimulationFailed as error:
        said = "; ".join(map(str.strip, str(error).splitlines()))
        return {"oracle": row | {"status": "failed", "detail": said}, "simulation": None}, False
    return {"oracle": row | more, "simulation": found}, True
