"""The wrapper and the test bench as Verilator's lint and Yosys read them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from srq_hw.backends.rtl.toolchain import find_verilator
from srq_hw.tools import find_tool

ALLOWED = {"PROCASSINIT"}  # a register with an initial value: what an FPGA starts with


def lint(made, place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    if not find_tool("verilator").usable:
        pytest.skip(find_tool("verilator").problem)
    for memory in (made.folder / "mem").iterdir():
        (place / memory.name).write_bytes(memory.read_bytes())
    sources = [made.folder / name for name in (made.folder / "filelist.f").read_text().split()]
    words = ["--lint-only", "-Wno-fatal", "--language", "1364-2005", *more, *sources]
    return find_verilator().run(words, place)


def findings(done: subprocess.CompletedProcess[str], file: str) -> set[str]:
    """Warnings of one file; those of the generated top and the library have their own tests."""
    return set(re.findall(rf"%Warning-(\w+): [^:\n]*{re.escape(file)}:", done.stderr)) - ALLOWED


@pytest.mark.parametrize("widths", [(), ("-GS_TDATA_WIDTH=32", "-GM_TDATA_WIDTH=32"), ("-GM_TDATA_WIDTH=21",)])
def test_verilator_has_nothing_to_say_of_the_wrapper(made, tmp_path: Path, widths: tuple[str, ...]):
    done = lint(made, tmp_path, "-Wall", "--top-module", "small_top_wrapper", *widths)
    assert done.returncode == 0 and not findings(done, "small_top_wrapper.v"), done.stderr


def test_a_tdata_narrower_than_the_beat_is_refused(made, tmp_path: Path):
    done = lint(made, tmp_path, "--top-module", "small_top_wrapper", "-GM_TDATA_WIDTH=16")
    assert done.returncode != 0 and "srq_error_tdata_is_narrower_than_the_beat" in done.stderr


def test_verilator_reads_the_test_bench_as_verilog_2005(made, tmp_path: Path):
    done = lint(made, tmp_path, "--timing", "--top-module", "testbench", str(made.folder / "sim/testbench.v"))
    assert done.returncode == 0 and not findings(done, "testbench.v") - {"BLKSEQ"}, done.stderr


_YOSYS = """
import sys
from pyosys import libyosys as ys
top, *files = sys.argv[1:]
ys.run_pass(f"read_verilog -defer {' '.join(files)}; hierarchy -check -top {top}; proc; check -assert", ys.Design())
print("read", top)
"""


def test_yosys_reads_the_wrapper(made):
    if importlib.util.find_spec("pyosys") is None:
        pytest.skip("pyosys is not installed; pip install '.[rtl]'")
    sources = [str(made.folder / name) for name in (made.folder / "filelist.f").read_text().split()]
    command = [sys.executable, "-c", _YOSYS, "small_top_wrapper", *sources]
    done = subprocess.run(
        command, cwd=made.folder / "mem", capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    assert done.returncode == 0 and "read small_top_wrapper" in done.stdout, (done.stdout + done.stderr)[-3000:]


def test_ip_integrator_sees_every_port(made):
    text = (made.folder / "rtl/small_top_wrapper.v").read_text()
    ports = re.findall(
        r'X_INTERFACE_INFO = "([^"]+)".*?(?:input|output)\s+wire\s+(?:\[[^]]+\]\s+)?(\w+)', text, re.DOTALL
    )
    bus = "xilinx.com:interface:axis:1.0"
    wanted = {"aclk": "xilinx.com:signal:clock:1.0 aclk CLK", "aresetn": "xilinx.com:signal:reset:1.0 aresetn RST"}
    for side in ("s_axis", "m_axis"):
        for signal in ("tdata", "tvalid", "tready", "tlast"):
            wanted[f"{side}_{signal}"] = f"{bus} {side} {signal.upper()}"
    assert {port: info for info, port in ports} == wanted
    assert "ASSOCIATED_BUSIF s_axis:m_axis, ASSOCIATED_RESET aresetn" in text and "POLARITY ACTIVE_LOW" in text
