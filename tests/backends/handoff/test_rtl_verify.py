"""verify.sh run for real: what passes, what fails and how, and what it says where it cannot run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from srq_hw.backends.handoff.manifest import write_manifest
from srq_hw.backends.handoff.rtl.layout import checksum
from srq_hw.tools import find_tool

PROGRAMS = (
    "sh", "cat", "chmod", "cp", "cut", "dirname", "env", "find", "getconf", "grep", "head", "mkdir", "mktemp", "rm",
    "sed", "sha256sum", "sort", "tail", "tr", "uname", "wc",
)  # fmt: skip
NOTHING = "+STALL_IN=20 +STALL_OUT=20 +SEED=3 +RESET_AT="


@dataclass(frozen=True)
class Bundle:
    """A copy of the bundle that may be changed, and the folder in which its model is built, once where it can be."""

    folder: Path
    work: Path
    environ: Mapping[str, str]

    def verify(self, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "verify.sh", *arguments],
            env=self.environ if environ is None else environ,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def simulate(self) -> subprocess.CompletedProcess[str]:
        return self.verify("--work", str(self.work), "--only", "verilator")

    def replace(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) >= 1, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="module")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verify")


@pytest.fixture
def bundle(made, build_folder: Path) -> Iterator[Bundle]:
    """Always at one place, so that the model is built once; whole again for every test."""
    folder = build_folder / "bundle"
    for path in made.folder.rglob("*"):
        place = folder / path.relative_to(made.folder)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists() or place.read_bytes() != path.read_bytes():
            shutil.copy(path, place)  # a new time stamp only where a test changed it
    environ = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "HOME": str(build_folder)}
    yield Bundle(folder, build_folder / "work", environ)
    for path in folder.rglob("*"):
        if path.is_file() and not (made.folder / path.relative_to(folder)).exists():
            path.unlink()


@pytest.fixture
def simulated(bundle: Bundle) -> Bundle:
    """The bundle where a Verilator can run."""
    for name in ("verilator", "g++"):
        if not find_tool(name).usable:
            pytest.skip(f"{name}: {find_tool(name).problem}")
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    path = Path(str(find_tool("verilator").path))
    return bundle if path.is_dir() else Bundle(bundle.folder, bundle.work, {**bundle.environ, "VERILATOR": str(path)})


@pytest.fixture
def without_simulator(tmp_path: Path) -> dict[str, str]:
    """An environment with the programs of any Unix and nothing else."""
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is not None:
            (tmp_path / name).symlink_to(found)
    return {"PATH": str(tmp_path), "PYTHON": "no-python-here"}


def test_it_passes(simulated: Bundle, made):
    before = {path: path.read_bytes() for path in simulated.folder.rglob("*") if path.is_file()}
    done = simulated.simulate()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"manifest: {len(before) - 1} files as written"
    beats = 2 * 3 * made.design.output.beats
    runs = [line for line in lines if line.startswith("verilator ")]
    assert len(runs) == 5 and all(f"PASS: {beats} beats compared, 0 differ" in line for line in runs[:4])
    assert runs[4].startswith(f"verilator {NOTHING}")
    assert int(runs[4].split("PASS: ")[1].split()[0]) > beats  # what came out before the reset counts as well
    assert lines[-2:] == [
        "host driver: 3 frames packed and unpacked as in golden/", "verify.sh: PASS in 1 simulator(s)",
    ]  # fmt: skip
    for number, said in ((1, "stalls 0 % in, 0 % out, seed 1"), (4, "stalls 30 % in, 60 % out, seed 7")):
        assert said in (simulated.work / f"verilator.{number}.log").read_text()
    assert {path: path.read_bytes() for path in simulated.folder.rglob("*") if path.is_file()} == before


def test_the_analytic_figures_hold(simulated: Bundle, made):
    """Cycles of the run without stalls: the latency, then a frame every `cycles`."""
    assert simulated.simulate().returncode == 0
    log = (simulated.work / "verilator.1.log").read_text()
    first, total = (
        int(word)
        for line in log.splitlines()
        if line.startswith("first beat")
        for word in line.split()
        if word.isdigit()
    )
    assert first <= made.design.latency
    ideal = 6 * made.design.cycles
    assert ideal <= total <= 1.02 * ideal + made.design.latency


def test_a_wrong_weight_fails_although_the_manifest_fits(simulated: Bundle):
    path = simulated.folder / "mem" / "up.weights.hex"
    text = path.read_text()
    path.write_text(("0" if text[0] != "0" else "1") + text[1:])
    write_manifest(simulated.folder)
    done = simulated.simulate()
    assert done.returncode == 1
    assert "FAIL" in done.stderr and "beats compared" in done.stderr and "wanted" in done.stderr
    assert "PASS" not in done.stdout.replace("host driver", "")


def test_a_changed_golden_beat_fails_although_the_manifest_fits(simulated: Bundle):
    path = simulated.folder / "golden" / "output.hex"
    lines = path.read_text().split()
    lines[-1] = f"{int(lines[-1], 16) ^ 1:06x}"
    path.write_text("\n".join(lines) + "\n")
    write_manifest(simulated.folder)
    done = simulated.simulate()
    assert done.returncode == 1 and "output.hex is not what was written" in done.stderr
    assert "host driver: FAIL" in done.stderr


def test_wrong_beats_are_shown(simulated: Bundle, made):
    """Two golden beats changed so that the test bench's checksum stays: exactly these two differ, in every round."""
    path = simulated.folder / "golden" / "output.hex"
    text = path.read_text()
    lines = text.split()
    lines[-2:] = [f"{int(lines[-2], 16) ^ 1:06x}", f"{int(lines[-1], 16) ^ 2:06x}"]
    path.write_text("\n".join(lines) + "\n")
    assert checksum(path.read_text()) == checksum(text)
    write_manifest(simulated.folder)
    done = simulated.simulate()
    assert done.returncode == 1
    last = made.design.output.beats - 1
    assert f"FAIL: {6 * last + 6} beats compared, 4 differ, wanted {6 * last + 6}" in done.stderr
    assert f"beat {last} of frame 2: tdata" in done.stderr and f"beat {last - 1} of frame 5: tdata" in done.stderr
    assert f"wanted {lines[-1]} 1, cycle" in done.stderr


@pytest.mark.parametrize("name", ["golden/output.hex", "mem/head.weights.hex", "rtl/small_top.v", "verify.sh"])
def test_a_changed_file_is_found_before_anything_runs(bundle: Bundle, name: str):
    with (bundle.folder / name).open("a") as file:
        file.write("\n")
    done = bundle.verify()
    assert done.returncode == 1 and f"{name}: FAILED" in done.stderr and "manifest: FAIL" in done.stderr
    assert done.stdout == ""


def test_missing_and_unlisted_files_are_found(bundle: Bundle):
    (bundle.folder / "mem" / "more.hex").write_text("0\n")
    done = bundle.verify()
    assert done.returncode == 1 and "mem/more.hex" in done.stderr and "not listed" in done.stderr
    (bundle.folder / "mem" / "more.hex").unlink()
    (bundle.folder / "mem" / "head.bias.hex").unlink()
    done = bundle.verify()
    assert done.returncode == 1 and "mem/head.bias.hex" in done.stderr
    (bundle.folder / "MANIFEST.sha256").unlink()
    assert bundle.verify().returncode == 1


def test_without_a_simulator_it_has_not_run(bundle: Bundle, without_simulator: dict[str, str]):
    done = bundle.verify(environ=without_simulator)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "verilator: not run" in done.stdout and "icarus: not run" in done.stdout and "PASS" not in done.stdout
    assert "host driver: not run" in done.stdout and "verify.sh: not run, no simulator" in done.stderr


def test_an_old_verilator_is_not_run(bundle: Bundle, without_simulator: dict[str, str]):
    program = Path(without_simulator["PATH"]) / "verilator"
    program.write_text("#!/bin/sh\necho 'Verilator 4.038 2020-07-11 rev v4.036'\n")
    program.chmod(0o755)
    done = bundle.verify(environ=without_simulator)
    assert done.returncode == 3 and "not version 5 or later but: Verilator 4.038" in done.stdout


@pytest.mark.parametrize(
    ("log", "status"), [("PASS: 9 beats compared, 0 differ", 0), ("FAIL: 9 beats", 1), ("hello", 1)]
)
def test_icarus_is_asked_the_same(bundle: Bundle, without_simulator: dict[str, str], log: str, status: int):
    """Icarus itself is not here: its command line and how its words are taken, with programs that only record."""
    folder = Path(without_simulator["PATH"])
    (folder / "iverilog").write_text(f'#!/bin/sh\necho "$@" > {folder}/said\n')
    (folder / "vvp").write_text(f'#!/bin/sh\necho "$@" >> {folder}/runs\necho "{log}"\n')
    for name in ("iverilog", "vvp"):
        (folder / name).chmod(0o755)
    done = bundle.verify("--only", "icarus", environ=without_simulator)
    assert done.returncode == status, done.stdout + done.stderr
    said = (folder / "said").read_text().split()
    assert said[:3] == ["-g2005", "-s", "testbench"] and said[-1].endswith("/sim/testbench.v")
    runs = (folder / "runs").read_text().splitlines()
    assert len(runs) == 5 and all(run.startswith("-N ") for run in runs) and runs[1].endswith(".vvp +STALL_IN=40")


def test_icarus_is_left_out_where_it_takes_long(simulated: Bundle, tmp_path: Path, made):
    for name in ("iverilog", "vvp"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
        (tmp_path / name).chmod(0o755)
    cycles = f'"cycles_per_frame": {made.design.cycles}'
    simulated.replace("interface.json", cycles, '"cycles_per_frame": 1000000')
    write_manifest(simulated.folder)
    environ = {**simulated.environ, "PATH": f"{tmp_path}:{simulated.environ['PATH']}"}
    done = simulated.verify("--work", str(simulated.work), environ=environ)
    assert done.returncode == 0 and "PASS in 1 simulator(s)" in done.stdout
    assert "icarus: not run, it would take long for 3 frames of 1000000 cycles" in done.stdout
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("arguments", [("--fast",), ("--only", "xsim"), ("--work",)])
def test_wrong_usage(bundle: Bundle, arguments: tuple[str, ...]):
    done = bundle.verify(*arguments)
    assert done.returncode == 2 and "verify.sh: " in done.stderr


def test_work_inside_the_bundle_is_refused_and_help_is_given(bundle: Bundle):
    done = bundle.verify("--work", str(bundle.folder / "w"))
    assert done.returncode == 2 and "outside" in done.stderr
    (bundle.folder / "w").rmdir()
    done = bundle.verify("--work", f"{bundle.folder.parent}/two words")
    assert done.returncode == 2 and "without blanks" in done.stderr
    done = bundle.verify("--help")
    assert done.returncode == 0 and "Exit status: 0 passed" in done.stdout


def test_a_hang_ends_with_the_last_transactions(simulated: Bundle, made):
    """Last in the file: it changes a source, and the model is built once more."""
    wrapper = "rtl/small_top_wrapper.v"
    simulated.replace(wrapper, "m_tvalid && !rst", "m_tvalid && !rst && !m_axis_tlast")
    simulated.replace(wrapper, ".m_tready(m_axis_tready)", ".m_tready(m_axis_tready && !m_axis_tlast)")
    write_manifest(simulated.folder)
    done = simulated.simulate()
    assert done.returncode == 1 and "time-out: no beat for" in done.stderr
    seen = made.design.output.beats - 2
    assert f"last transaction on m_axis: beat {seen} of " in done.stderr
    assert "last transaction on s_axis: beat " in done.stderr and "now tvalid 0 tready 1" in done.stderr
