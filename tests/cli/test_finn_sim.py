"""FINN's generated sources as a gate of a build: `--finn-sim`, what it compares, what is said where it does not run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srq_hw.backends.finn import stitched as simulation
from srq_hw.backends.finn.build import FinnResult
from srq_hw.backends.finn.stitched import Stitched, simulate_stitched
from srq_hw.pipeline import stitched
from srq_hw.report.schema import faults
from srq_hw.tools import find_tool

from .conftest import SMALL, Done

Srq = Callable[..., Done]
STEP = "oracle_finn_rtl"


def data(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def gate(folder: Path) -> tuple[str, str]:
    return next((g["status"], g["detail"]) for g in data(folder)["gates"] if g["name"] == "finn_rtl = reference")


@pytest.fixture
def copy(here: Path, finished: Path) -> Path:
    if not find_tool("finn").usable:
        pytest.skip("FINN+ is not installed")
    shutil.copytree(finished, here / "copy")
    return here / "copy"


def test_nobody_asked_for_it(finished: Path):
    status, detail = gate(finished)
    assert status == "not run" and "--finn-sim runs it" in detail
    found = data(finished)
    assert found["finn_simulation"] is None and found["ok"] is True
    assert "--finn-sim runs it" in (finished / "report.html").read_text()


@pytest.mark.finn
@pytest.mark.parametrize("program", ["verilator", "g++"])
def test_it_is_asked_for_by_name_and_needs_its_tools(srq: Srq, copy: Path, monkeypatch, program: str):
    monkeypatch.setenv({"verilator": "SRQ_VERILATOR", "g++": "SRQ_GXX"}[program], str(copy / "nowhere"))
    srq(*SMALL, "--no-rtl-sim", "--finn-sim", "--out", copy).refused(program, "nowhere")


def broken(pattern: str, scratch: Path) -> Callable[..., Stitched]:
    """The simulation of sources of which one word of one memory file has another sign."""

    def simulate(result: FinnResult, *rest: Any) -> Stitched:
        shutil.copytree(result.folder, scratch)
        (path,) = (scratch / "sources").glob(pattern)
        words = path.read_text().split()
        words[5] = f"{int(words[5], 16) ^ 0x80:0{len(words[5])}x}"
        path.write_text("\n".join(words) + "\n")
        return simulate_stitched(replace(result, folder=scratch), *rest)

    return simulate


@pytest.mark.slow
@pytest.mark.finn
@pytest.mark.parametrize(
    ("library", "origins", "pattern"),
    [
        ("srq", {"srq"}, "SrqConv_rtl_1/*.weights.hex"),
        ("finn", {"finn", "patched", "srq"}, "MVAU_rtl_1/memblock.dat"),
    ],
)
def test_the_generated_sources_are_compared(
    srq: Srq, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, origins: set[str], pattern: str
):
    for name in ("verilator", "g++"):
        if not find_tool(name).usable:
            pytest.skip(f"{name}: {find_tool(name).problem}")
    # a rate for which the matrix units need several lanes
    command = (*SMALL, "--library", library, "--fps", 40_000, "--finn-sim", "--no-rtl-sim", "--out", copy)
    done = srq(*command)
    assert (done.code, done.err) == (0, ""), done
    report = data(copy)
    assert faults(report) == []
    row = next(row for row in report["oracles"] if row["name"] == "finn_rtl")
    assert row["status"] == "passed" and row["mismatches"] == 0
    assert row["elements"] == (3 + 2 + 2) * 32 * 32 * 3  # frames of the three runs
    found = report["finn_simulation"]
    assert found["size"] == [16, 16] and len(found["runs"]) == 3 and found["frames"] == 3
    assert [node["name"] for node in found["nodes"]] == [node["name"] for node in report["estimate"]["nodes"]]
    assert {node["origin"] for node in found["nodes"]} == origins
    assert found["ideal_cycles"] == report["estimate"]["cycles_per_frame"]
    assert found["ideal_cycles"] <= found["cycles_per_frame"] <= 1.02 * found["ideal_cycles"]
    detail = gate(copy)[1]
    assert "3 frames of 16x16" in detail and f"{len(found['nodes'])} nodes: " in detail
    assert ("patched: MVAU_rtl_" in detail) == (library == "finn")
    assert "Generated sources" in (copy / "report.html").read_text()

    assert srq(*command).code == 0
    assert {step["name"]: step["cached"] for step in data(copy)["steps"]}[STEP] is True

    # the compiled model is that of the unchanged sources: memories are read when a run starts
    monkeypatch.setattr(stitched, "simulate_stitched", broken(pattern, tmp_path / "broken"))
    (copy / f".srq/steps/{STEP}.json").unlink()
    done = srq(*command)
    assert done.code == 1 and "FAILED" in done.out
    status, detail = gate(copy)
    assert status == "failed" and "; first difference: free: frame 0, y " in detail
    row = next(row for row in data(copy)["oracles"] if row["name"] == "finn_rtl")
    assert row["mismatches"] > 0 and data(copy)["ok"] is False and faults(data(copy)) == []

    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(simulation, "RUN_SECONDS", 0.001)
    (copy / f".srq/steps/{STEP}.json").unlink()
    srq(*command).refused("a run of FINN's sources", "not finished after 0.001 s", "SRQ_TOOL_SECONDS allows", code=1)
