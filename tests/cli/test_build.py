"""Whole builds through the command line: what they leave, what they say, that they repeat and resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srq_hw.pipeline.engine import sha256_file
from srq_hw.report.schema import faults

from .conftest import SMALL, Done

Srq = Callable[..., Done]
STEPS = (
    *("calibrate", "export", "lower", "check", "parity", "simulators", "oracle_qonnx", "rtl", "oracle_rtl"),
    *("quality", "finn", "oracle_finn", "oracle_finn_rtl", "handoff"),
)
UNLIKE = ("report.json", "report.html", "log.txt")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file that must be the same in equal builds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(".srq/") and name not in UNLIKE and path.suffix != ".log":
            found[name] = path.read_bytes()
    return found


def report(folder: Path) -> dict[str, Any]:
    """report.json without the times."""
    data: dict[str, Any] = json.loads((folder / "report.json").read_text())
    for step in data["steps"]:
        del step["seconds"], step["cached"]
    for key in ("reference_seconds", "fast_seconds"):
        del data["simulators"][key]
    return data


def cached(folder: Path) -> dict[str, bool]:
    return {step["name"]: step["cached"] for step in json.loads((folder / "report.json").read_text())["steps"]}


def gates(folder: Path) -> dict[str, str]:
    return {gate["name"]: gate["status"] for gate in report(folder)["gates"]}


def held(folder: Path) -> bool:
    """Every gate passed but the one that nobody asked for."""
    found = gates(folder)
    return found.pop("finn_rtl = reference") == "not run" and set(found.values()) == {"passed"}


def test_the_report_is_valid_and_every_gate_held(finished: Path, with_finn: bool):
    data = json.loads((finished / "report.json").read_text())
    assert faults(data) == [] and data["ok"] is True
    assert [step["name"] for step in data["steps"]] == list(STEPS)
    assert data["parity"]["equal"] is True and data["parity"]["elements"] > 100_000
    assert data["simulators"]["equal"] is True
    rows = {row["name"]: row for row in data["oracles"]}
    assert rows["qonnx"]["status"] == "passed" and rows["qonnx"]["elements"] > 0
    if with_finn:
        assert rows["finn"]["status"] == "passed" and rows["finn"]["elements"] > 0
        assert data["estimate"]["fits"] is True
        assert held(finished)


def test_the_report_lists_every_file_with_its_digest(finished: Path):
    files = report(finished)["files"]
    assert set(files) == set(tree(finished))
    assert all(sha256_file(finished / name) == digest for name, digest in files.items())


def test_no_artefact_names_this_machine(finished: Path, user_folder: Path, repo_root: Path):
    own = [str(path).encode() for path in (finished, finished.parent, user_folder, repo_root, Path(sys.prefix))]
    for path in sorted(finished.rglob("*")):
        if path.is_file() and not path.relative_to(finished).as_posix().startswith(".srq/"):
            data = path.read_bytes()
            assert not [place for place in own if place in data], path
            assert b".srq/scratch" not in data and path.suffix != ".part", path


@pytest.mark.slow
def test_the_same_build_elsewhere_gives_the_same_bytes(srq: Srq, here: Path, finished: Path):
    done = srq(*SMALL, "--out", here / "deep" / "other", "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["ok"] is True  # one JSON object and nothing else
    assert tree(here / "deep" / "other") == tree(finished)
    assert report(here / "deep" / "other") == report(finished)


def test_a_second_run_skips_every_step(srq: Srq, here: Path, finished: Path):
    folder = here / "again"
    shutil.copytree(finished, folder)
    before = tree(folder)
    assert srq(*SMALL, "--out", folder).code == 0
    assert set(cached(folder).values()) == {True}
    assert tree(folder) == before and report(folder) == report(finished)


def test_an_edited_graph_is_made_again(srq: Srq, here: Path, finished: Path):
    folder = here / "edited"
    shutil.copytree(finished, folder)
    (folder / "graph.json").write_text("{}")
    assert srq(*SMALL, "--out", folder, "--json").code == 0
    assert tree(folder) == tree(finished) and report(folder) == report(finished)
    assert [name for name, skipped in cached(folder).items() if not skipped] == ["lower"]


def test_stop_after_then_all_resumes(srq: Srq, here: Path, finished: Path):
    folder = here / "part"
    for step in ("calibrate", "lower", "check"):
        done = srq(*SMALL, "--out", folder, "--stop-after", step, "--json")
        assert json.loads(done.out) == {"stopped_after": step, "out": str(folder)}
        assert (folder / "log.txt").read_text().splitlines()[-1].startswith(step)
        assert not (folder / "report.json").exists()
    assert (folder / "graph.json").read_bytes() == (finished / "graph.json").read_bytes()
    assert [line.split()[1] for line in (folder / "log.txt").read_text().splitlines()] == ["cached"] * 3 + ["ran"]


def test_a_changed_option_withdraws_the_report(srq: Srq, here: Path, finished: Path):
    folder = here / "changed"
    shutil.copytree(finished, folder)
    assert srq(*SMALL, "--out", folder, "--bits", 4, "--stop-after", "check").code == 0
    assert not (folder / "report.json").exists() and not (folder / "report.html").exists()


@pytest.mark.slow
def test_killed_in_every_step_it_resumes_with_the_same_bytes(here: Path, finished: Path, repo_root: Path):
    """One process imports everything, then forks a build per step, and kills it there with SIGKILL."""
    folder = here / "killed"
    script = Path(__file__).with_name("kill_builds.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), *STEPS],
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [*(f"{step}:killed" for step in STEPS), "last:0"]
    assert tree(folder) == tree(finished)
    assert report(folder) == report(finished)


def test_ctrl_c_in_a_step_says_that_it_resumes(start: Callable[..., subprocess.Popen[str]], here: Path):
    process = start(*SMALL, "--out", "stopped")
    wait_for(here / "stopped/.srq/scratch/quality", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    Done(process.returncode, out, err).refused("interrupted; the same command resumes where it stopped", code=1)
    names = {path.name for path in (here / "stopped").iterdir()}
    assert names == {".srq", "calibration.json", "graph.json", "log.txt", "model.qonnx", "weights.safetensors"}


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail(f"{path} never came")


def test_two_builds_in_one_folder(srq: Srq, here: Path):
    from srq_hw.pipeline.engine import locked

    with locked(here / "busy"):
        srq(*SMALL, "--out", "busy").refused("busy: another srq-hw build is working here", "--out", code=1)
    assert {path.name for path in (here / "busy").iterdir()} == {".srq"}


TARGETS = ("zcu104", "zcu102", "ultra96-v2", "kv260", "pynq-z2", "alveo-u250")


@pytest.mark.parametrize("target", TARGETS)
def test_the_default_network_is_legal_on_every_target(srq: Srq, here: Path, target: str):
    done = srq("build", "--target", target, "--calib", "tiny.yaml", "--out", "t", "--stop-after", "check", "--json")
    assert (done.code, done.err) == (0, "")
    done = srq("check", "t", "--target", target, "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["legal"] is True
    assert found["accumulators"] and all(row["holds"] for row in found["accumulators"])


@pytest.mark.slow
def test_few_bits_an_odd_size_own_images_and_own_weights(srq: Srq, here: Path, finished: Path, with_finn: bool):
    import torch

    folder = here / "images"
    folder.mkdir()
    random = np.random.default_rng(2)
    for name in ("a", "b"):
        Image.fromarray(random.integers(0, 256, (40, 31, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    sys.path.insert(0, str(here))
    from ownnets.small import net  # type: ignore[import-not-found]

    torch.save(net().state_dict(), here / "own.pth")
    arguments = (
        "--calib",
        "tiny.yaml",
        "--calib-images",
        folder,
        "--weights",
        here / "own.pth",
        "--input-size",
        "17x23",
    )
    done = srq("build", "ownnets.small:net", *arguments, "--weight-bits", 3, "--act-bits", 5, "--out", "odd", "--json")
    assert (done.code, done.err) == (0, "")
    data = report(here / "odd")
    assert data["network"]["input_size"] == [17, 23] and data["network"]["source"] == "own.pth"
    quantization = data["quantization"]
    assert (quantization["weight_bits"], quantization["act_bits"], quantization["recipe"]) == (3, 5, "tiny")
    assert quantization["calibration_images"] == ["a.png", "b.png"]
    assert data["files"]["graph.json"] != report(finished)["files"]["graph.json"]
    if with_finn:
        assert np.load(here / "odd/handoff/finn/golden/input.npy").shape == (17, 23, 3)
        assert held(here / "odd")


@pytest.mark.slow
def test_the_embedded_network_builds_as_it_comes(srq: Srq, here: Path, with_finn: bool):
    done = srq("build", "--input-size", "16x16", "--out", "out")
    assert (done.code, done.err) == (0, "")
    assert "FAILED" not in done.out and "report.html" in done.out
    data = report(here / "out")
    assert data["parity"]["equal"] is True and data["parity"]["elements"] > 1_000_000
    assert held(here / "out") if with_finn else set(gates(here / "out").values()) == {"passed", "not run"}
    assert data["quality"][0]["psnr_integer"] > data["quality"][0]["psnr_bicubic"] + 1


def test_without_finn_its_gate_is_not_run(srq: Srq, here: Path, finished: Path, monkeypatch: pytest.MonkeyPatch):
    import srq_hw.backends.finn.build as finn_build
    from srq_hw.pipeline import hardware
    from srq_hw.tools import ToolStatus

    def missing(name: str) -> ToolStatus:
        assert name == "finn"
        return ToolStatus(name, False, None, "==1.6.1", None, "not found", "the FINN gate", "pip install finn-plus")

    monkeypatch.setattr(hardware, "find_tool", missing)
    monkeypatch.setattr(finn_build, "find_tool", missing)
    folder = here / "nofinn"
    shutil.copytree(finished, folder)
    done = srq(*SMALL, "--out", folder)
    assert done.code == 0 and "pip install finn-plus" in " ".join(done.out.split())
    data = report(folder)
    assert faults(json.loads((folder / "report.json").read_text())) == []
    assert gates(folder)["finn = reference"] == "not run" and gates(folder)["qonnx = reference"] == "passed"
    assert data["estimate"] is None
    assert [name for name in data["files"] if name.startswith("finn/")] == ["finn/not_run.txt"]
    assert "not made" in (folder / "handoff/finn/README.md").read_text()
    assert (folder / "handoff/verilog/verify.sh").is_file()
