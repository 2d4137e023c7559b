"""A QONNX file made by somebody else: a whole build, and what cannot be said of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from srq_hw.report.schema import faults

from .conftest import SMALL, Done


@pytest.mark.slow
def test_a_foreign_file_builds(srq: Callable[..., Done], here: Path, with_finn: bool):
    done = srq("build", here / "foreign.onnx", "--out", "out", "--json")
    assert (done.code, done.err) == (0, "")
    report = json.loads((here / "out/report.json").read_text())
    assert faults(report) == [] and report["ok"] is True
    gates = {gate["name"]: gate["status"] for gate in report["gates"]}
    assert gates["frozen Brevitas (float64) = reference"] == "not run"
    assert gates["lowered file = graph in memory"] == "not run"
    assert gates["fast simulator = reference"] == gates["qonnx = reference"] == "passed"
    assert gates["finn = reference"] == ("passed" if with_finn else "not run")
    assert report["parity"] is None and report["network"]["source"] == "QONNX file foreign.onnx"
    assert report["quality"][0]["psnr_float"] is None and report["quality"][0]["psnr_integer"] > 0
    for image in report["images"]:
        assert set(image["files"]) == {"input", "hr", "bicubic", "integer"}
        assert all((here / "out" / path).is_file() for path in image["files"].values())
    assert (here / "out/model.qonnx").read_bytes() == (here / "foreign.onnx").read_bytes()
    assert str(here).encode() not in (here / "out/report.html").read_bytes()


def test_results_of_another_build_are_not_reported(srq: Callable[..., Done], here: Path, finished: Path):
    """A foreign file built over our own network's folder: parity and calibration of the old one are not its own."""
    shutil.copytree(finished, here / "out")
    assert srq("build", "foreign.onnx", "--out", "out").code == 0
    report = json.loads((here / "out/report.json").read_text())
    assert report["parity"] is None and "calibration.json" not in report["files"]
    assert [step["cached"] for step in report["steps"]].count(True) == 0


def test_the_source_of_a_network_is_no_path(finished: Path):
    report = json.loads((finished / "report.json").read_text())
    assert report["network"]["source"] == SMALL[1]
