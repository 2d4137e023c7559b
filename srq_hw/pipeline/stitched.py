"""The simulation of FINN's generated sources as an oracle: what `--finn-sim` asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srq_hw.backends.finn.stitched import Stitched, StitchedNode, simulate_stitched
from srq_hw.backends.finn.stitched_units import Origin
from srq_hw.files import write_json
from srq_hw.pipeline.engine import RESULTS, Step
from srq_hw.pipeline.session import Session, image_sha256
from srq_hw.pipeline.simulation import (
    TOOLS,
    figures,
    frames_of,
    missing_tool,
    models_folder,
    simulation_findings,
    verdict,
    what_ran,
)
from srq_hw.tools import find_tool

#: whose module computed a node, in words
ORIGINS: dict[Origin, str] = {
    "finn": "from FINN's sources",
    "patched": "from patched copies",
    "stand-in": "by our stand-ins",
    "srq": "operations of ours",
}
#: nodes that the gate names per reason; the report has all
NAMED = 3


def stitched_step(session: Session) -> Step:
    """oracle_finn_rtl: "not run" where it was not asked for, or where there is no FINN design."""

    def run(scratch: Path) -> bool:
        found, lasting = simulation_findings("finn_rtl", _why_not(session), True, lambda: _simulated(session))
        write_json(scratch / RESULTS / "oracle_finn_rtl.json", found)
        return lasting

    def material() -> Any:
        asked = session.options.finn_sim
        tools = {name: find_tool(name).version for name in (*TOOLS, "finn")} if asked else {}
        return {"asked": asked, "tile": image_sha256(session.tile), "tools": tools, "why": _why_not(session)}

    return Step("oracle_finn_rtl", material, ("graph.json", "finn"), (f"{RESULTS}/oracle_finn_rtl.json",), run)


def _why_not(session: Session) -> str:
    """Why FINN's sources are not simulated; empty where they are. A simulation is asked for by name: it needs tools."""
    if not session.options.finn_sim:
        return "not asked for; --finn-sim runs it (FINN's matrix units take minutes to compile)"
    if not session.finn.built:
        return session.finn.reason
    return missing_tool(asked=True)


def _simulated(session: Session) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the simulation went: for the report, and the oracle's verdict. Frames are of the build's own size."""
    images = frames_of(session.tile, session.size)
    result = simulate_stitched(session.finn, session.graph, images, models_folder(session))
    found = figures(result, session.size) | {
        "slowest": result.slowest,
        "nodes": [vars(node) for node in result.nodes],
        "converters": {stream: list(lanes) for stream, lanes in result.converters.items()},
        "fifos": dict(result.fifos),
    }
    return found, verdict(result, detail(result, session.size))


def detail(result: Stitched, size: tuple[int, int]) -> str:
    """Frames, runs, whose modules ran and why not FINN's own, cycles against the estimate."""
    counts = result.origins
    whose = ", ".join(f"{counts[origin]} {words}" for origin, words in ORIGINS.items() if counts.get(origin))
    return "; ".join(
        [
            what_ran(result, size),
            f"{len(result.nodes)} nodes: {whose}",
            *_reasons(result.nodes),
            f"{result.cycles_per_frame} cycles per frame, the estimate {result.ideal}",
        ]
    )


def _reasons(nodes: tuple[StitchedNode, ...]) -> list[str]:
    """Per reason that FINN's own source did not run: the first few nodes, how many more, the reason."""
    groups: dict[tuple[Origin, str], list[str]] = {}
    for node in nodes:
        if node.reason:
            groups.setdefault((node.origin, node.reason), []).append(node.name)
    texts = []
    for (origin, reason), names in groups.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        texts.append(f"{origin}: {', '.join(names[:NAMED])}{more} ({reason})")
    return texts
