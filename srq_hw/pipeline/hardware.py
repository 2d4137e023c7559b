"""The FINN steps: design and estimates, FINN's execution and its generated sources as oracles, the hand-off bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srq_hw.backends.finn.build import build_finn
from srq_hw.backends.finn.oracle import finn_oracle
from srq_hw.backends.handoff import write_handoff
from srq_hw.files import write_json
from srq_hw.pipeline.engine import RESULTS, Step
from srq_hw.pipeline.session import FINN_NOT_RUN, Session, image_sha256
from srq_hw.pipeline.stitched import stitched_step
from srq_hw.pipeline.verilog import write_bundle
from srq_hw.tools import find_tool

ORACLE_RESULT = f"{RESULTS}/oracle_finn.json"


def hardware_steps(session: Session) -> list[Step]:
    """finn, oracle_finn, oracle_finn_rtl, handoff. Without FINN+ each says "not run" and why."""
    return [_finn(session), _oracle(session), stitched_step(session), _handoff(session)]


def _finn(session: Session) -> Step:
    def run(scratch: Path) -> None:
        options = session.options
        result = build_finn(
            session.graph, session.target, session.size, options.fps, scratch / "finn", library=options.library
        )
        if not result.built:
            (scratch / "finn").mkdir(exist_ok=True)
            (scratch / "finn" / FINN_NOT_RUN).write_text(result.reason + "\n")

    def material() -> Any:
        return {
            "target": session.target.sha256,
            "size": session.size,
            "fps": session.options.fps,
            "library": session.options.library,
            "finn": _finn_version(),
        }

    return Step("finn", material, ("graph.json",), ("finn",), run)


def _oracle(session: Session) -> Step:
    def run(scratch: Path) -> None:
        result = session.finn
        row: dict[str, Any] = {"name": "finn", "elements": 0, "mismatches": 0, "ties": 0}
        if not result.built:
            row |= {"status": "not run", "detail": result.reason}
        else:
            found = finn_oracle(result, session.graph, session.tile, nodewise=True)
            passed = found.elements > 0 and found.mismatches == 0
            height, width = session.size
            detail = (
                f"{found.tensors} tensors of the folded dataflow graph, executed by FINN on a {height}x{width} image"
            )
            row |= {
                "status": "passed" if passed else "failed",
                "elements": found.elements,
                "mismatches": found.mismatches,
                "detail": detail + (f"; first difference in {found.first_node}" if found.first_node else ""),
            }
        write_json(scratch / ORACLE_RESULT, row)

    def material() -> Any:
        return {"tile": image_sha256(session.tile), "finn": _finn_version()}

    return Step("oracle_finn", material, ("graph.json", "finn"), (ORACLE_RESULT,), run)


def _handoff(session: Session) -> Step:
    def run(scratch: Path) -> None:
        result = session.finn
        folder = scratch / "handoff" / "finn"
        folder.parent.mkdir()
        if result.built:
            write_handoff(result, session.graph, session.target, session.tile, folder)
        else:
            folder.mkdir()
            (folder / "README.md").write_text(f"# FINN bundle: not made\n\n{result.reason}\n")
        write_bundle(session, scratch / "handoff" / "verilog")

    def material() -> Any:
        asked = {"fps": session.options.fps, "fixed_weights": session.options.fixed_weights}
        return {"target": session.target.sha256, "tile": image_sha256(session.tile), **asked}

    return Step("handoff", material, ("graph.json", "finn"), ("handoff",), run)


def _finn_version() -> str | None:
    """Version of FINN+ that runs here; None without a usable one."""
    finn = find_tool("finn")
    return finn.version if finn.usable else None
