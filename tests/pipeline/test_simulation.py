"""Findings of the simulations of a build: every way in which one may end, and what is said of FINN's nodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srq_hw.backends.finn.stitched import Stitched, StitchedNode
from srq_hw.backends.rtl.verilate import RunTooLong, SimulationFailed
from srq_hw.errors import RunError
from srq_hw.pipeline.options import BuildOptions
from srq_hw.pipeline.session import FINN_NOT_RUN, Session
from srq_hw.pipeline.simulation import figures, frames_of, simulation_findings, verdict
from srq_hw.pipeline.stitched import detail, stitched_step
from srq_hw.tools import OutOfTime

Work = Callable[[], tuple[dict[str, Any], dict[str, Any]]]


def result(mismatches: int = 0, first: str | None = None) -> Stitched:
    """A simulation of twelve nodes, two kinds of which did not run from FINN's sources."""
    nodes = [StitchedNode(f"FMPadding_rtl_{number}", "FMPadding_rtl", "finn", "") for number in range(4)]
    nodes += [StitchedNode(f"MVAU_rtl_{number}", "MVAU_rtl", "patched", "add_multi.sv: moved") for number in range(5)]
    nodes += [StitchedNode("MVAU_rtl_5", "MVAU_rtl", "stand-in", "no patch fits")]
    nodes += [StitchedNode(f"SrqAdd_rtl_{number}", "SrqAdd_rtl", "srq", "") for number in range(2)]
    return Stitched(
        elements=100,
        mismatches=mismatches,
        first=first,
        frames=3,
        runs=("free", "reset"),
        nodes=tuple(nodes),
        converters={},
        fifos={},
        cycles_per_frame=1003,
        ideal=1000,
        slowest="MVAU_rtl_2",
        first_output=77,
        build_seconds=1.0,
        run_seconds=1.0,
    )


def raises(error: RunError) -> Work:
    def work() -> tuple[dict[str, Any], dict[str, Any]]:
        raise error

    return work


def test_what_ran_is_told_with_names_and_reasons() -> None:
    assert detail(result(), (16, 24)) == (
        "Verilator: 3 frames of 16x24 in a row (free, reset); "
        "12 nodes: 4 from FINN's sources, 5 from patched copies, 1 by our stand-ins, 2 operations of ours; "
        "patched: MVAU_rtl_0, MVAU_rtl_1, MVAU_rtl_2 and 2 more (add_multi.sv: moved); "
        "stand-in: MVAU_rtl_5 (no patch fits); 1003 cycles per frame, the estimate 1000"
    )


def test_a_difference_fails_and_is_kept() -> None:
    for found, status in ((result(), "passed"), (result(3, "free: frame 0, y 1"), "failed")):
        made, lasting = simulation_findings(
            "finn_rtl", "", True, lambda found=found: (figures(found, (16, 24)), verdict(found, "what ran"))
        )
        assert lasting and made["oracle"]["status"] == status and made["oracle"]["elements"] == 100
        assert made["oracle"]["name"] == "finn_rtl" and made["oracle"]["ties"] == 0
        assert made["simulation"]["size"] == [16, 24] and made["simulation"]["ideal_cycles"] == 1000
    assert made["oracle"]["mismatches"] == 3
    assert made["oracle"]["detail"] == "what ran; first difference: free: frame 0, y 1"


def test_nothing_compared_is_no_pass() -> None:
    assert verdict(replace(result(), elements=0), "")["status"] == "failed"


@pytest.mark.parametrize("kind", [SimulationFailed, RunTooLong])
def test_a_simulation_that_fails_is_a_failed_gate_that_is_not_kept(kind: type[RunError]) -> None:
    made, lasting = simulation_findings("rtl", "", True, raises(kind("a hang\n  input s: 3 of 9")))
    assert made == {
        "oracle": {
            "name": "rtl", "elements": 0, "mismatches": 0, "ties": 0, "status": "failed",
            "detail": "a hang; input s: 3 of 9",
        },
        "simulation": None,
    }  # fmt: skip
    assert not lasting


def test_a_tool_that_is_too_slow_is_an_error_where_it_was_asked_for() -> None:
    late = raises(OutOfTime("verilator", 3))
    made, lasting = simulation_findings("rtl", "", False, late)
    assert made["oracle"]["status"] == "not run" and "not finished after 3 s" in made["oracle"]["detail"]
    assert made["simulation"] is None and not lasting
    with pytest.raises(OutOfTime):
        simulation_findings("rtl", "", True, late)
    with pytest.raises(RunError, match="refused"):  # no gate hides what is no simulation's failure
        simulation_findings("rtl", "", False, raises(RunError("refused by the compiler")))


@pytest.mark.parametrize(
    ("asked", "told"), [(False, "--finn-sim runs it"), (True, "target int-generic has no FPGA resources")]
)
def test_why_finns_sources_were_not_simulated(tmp_path: Path, asked: bool, told: str) -> None:
    (tmp_path / "finn").mkdir()
    (tmp_path / "finn" / FINN_NOT_RUN).write_text("target int-generic has no FPGA resources\n")
    session = Session(BuildOptions(target="int-generic", out=tmp_path, finn_sim=asked))
    step = stitched_step(session)
    assert step.run(tmp_path / "scratch") is True
    found = json.loads((tmp_path / "scratch" / step.makes[0]).read_text())
    assert found["oracle"]["status"] == "not run" and told in found["oracle"]["detail"]
    assert found["simulation"] is None


def test_frames_in_a_row_differ() -> None:
    """Equal ones would hide a state that is left over from the frame before."""
    tile = np.random.default_rng(3).integers(0, 256, (12, 14, 3)).astype(np.uint8)
    frames = frames_of(tile, (8, 10))
    assert frames.shape == (3, 8, 10, 3) and frames.dtype == np.int64
    np.testing.assert_array_equal(frames[0], tile[2:10, 2:12])
    np.testing.assert_array_equal(frames[1], frames[0][::-1])
    np.testing.assert_array_equal(frames[2], frames[0][:, ::-1])
