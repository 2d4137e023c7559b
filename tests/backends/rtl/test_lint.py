"""Every module of lib/ as Verilator's lint and as Yosys read it, with default parameters and those that add code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from srq_hw.backends.rtl.toolchain import find_verilator
from srq_hw.backends.rtl.verilate import LIBRARY
from srq_hw.tools import find_tool

MODULES = sorted(LIBRARY.glob("srq_*.v"))
ALLOWED = {"PROCASSINIT"}  # a register with an initial value: what an FPGA starts with
SYSTEM_VERILOG = ("logic", "always_ff", "always_comb", "int ", "typedef", "struct", "package", "import", "interface")
#: (module, parameter, value) whose default leaves out a part of the module
OPTIONS = [
    *(("srq_window", "EDGE", "1"), ("srq_conv", "EDGE", "1"), ("srq_conv_load", "EDGE", "1")),
    *(("srq_window", "RAM_STYLE", '"ultra"'), ("srq_offset", "FILE", '"offsets.hex"')),
    *(("srq_store", "WIDTH", "5"), ("srq_store", "WIDTH", "72"), ("srq_store", "DEPTH", "1")),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with every memory file that a default parameter names, so that no tool misses one."""
    for path in MODULES:
        for name in re.findall(r'"([\w.]+\.(?:hex|mem|dat))"', path.read_text()):
            (tmp_path / name).write_text("0\n")
    (tmp_path / "offsets.hex").write_text("0\n0\n")
    return tmp_path


def test_a_file_holds_the_module_of_its_name_and_says_what_it_does():
    assert MODULES
    for path in MODULES:
        text = path.read_text()
        assert re.findall(r"^module (\w+)", text, re.MULTILINE) == [path.stem]
        assert text.startswith(f"// {path.stem}: "), f"{path.name} does not begin with what it computes"
        code = re.sub(r"//.*|/\*.*?\*/", "", text)
        for word in SYSTEM_VERILOG:
            assert not re.search(rf"\b{word}", code), f"{path.name}: {word!r} is SystemVerilog"
        assert "\t" not in text and max(map(len, text.splitlines())) <= 132, path.name


@pytest.mark.parametrize(
    ("module", "options"),
    [*((path.stem, []) for path in MODULES), *((module, [f"-G{name}={value}"]) for module, name, value in OPTIONS)],
)
def test_verilator_has_nothing_to_say(module: str, options: list[str], place: Path):
    if not find_tool("verilator").usable:
        pytest.skip(find_tool("verilator").problem)
    words = ["--lint-only", "-Wall", "-Wno-fatal", "--language", "1364-2005", "-y", LIBRARY, *options]
    done = find_verilator().run([*words, "--top-module", module, LIBRARY / f"{module}.v"], place)
    found = set(re.findall(r"%Warning-(\w+)", done.stderr)) - ALLOWED
    assert done.returncode == 0 and not found, f"{sorted(found)}\n{done.stderr}"


@pytest.mark.parametrize(
    ("module", "options"),
    [*((path.stem, {}) for path in MODULES), *((module, {name: value}) for module, name, value in OPTIONS)],
)
def test_icarus_has_nothing_to_say(module: str, options: dict[str, str], place: Path):
    status = find_tool("icarus")
    if not status.usable:
        pytest.skip(f"icarus: {status.problem}; {status.get}")
    given = [f"-P{module}.{name}={value}" for name, value in options.items()]
    command = [str(status.path), "-g2005", "-Wall", "-t", "null", "-s", module, *given, *map(str, MODULES)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_verilator_refuses_lanes_that_do_not_divide(place: Path):
    if not find_tool("verilator").usable:
        pytest.skip(find_tool("verilator").problem)
    words = ["--lint-only", "-GIN_LANES=3", "-y", LIBRARY, "--top-module", "srq_width", LIBRARY / "srq_width.v"]
    done = find_verilator().run(words, place)
    assert done.returncode != 0 and "srq_error_lanes_do_not_divide_channels" in done.stderr


_YOSYS = """
import sys
from pyosys import libyosys as ys
for top in sys.argv[2:]:
    design = ys.Design()
    files = " ".join(sorted(sys.argv[1].split(":")))
    ys.run_pass(f"read_verilog -defer {files}; hierarchy -check -top {top}; proc; opt_clean; check -assert", design)
    print("read", top)
"""


def test_yosys_reads_every_module(place: Path):
    if importlib.util.find_spec("pyosys") is None:
        pytest.skip("pyosys is not installed; pip install '.[rtl]'")
    files = ":".join(map(str, MODULES))
    tops = [path.stem for path in MODULES]
    tops += [f"{module} -chparam {name} {value}" for module, name, value in OPTIONS if value.isdigit()]  # no strings
    done = subprocess.run(
        [sys.executable, "-c", _YOSYS, files, *tops],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    assert [line for line in said.splitlines() if line.startswith("read ")] == [f"read {top}" for top in tops]
    found = [line for line in said.splitlines() if "Warning" in line]
    assert not found, "\n".join(found)
