"""The stream buffers for every sequence of inputs of some length, resets among them: Yosys' SAT solver looks for one
that loses, doubles, reorders or changes a beat.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from srq_hw.backends.rtl.verilate import LIBRARY

QUEUE = Path(__file__).with_name("queue.v")
PROVE = """
import sys
from pyosys import libyosys as ys
ys.run_pass("read_verilog -formal queue.v; read_verilog dut.v; hierarchy -check -top queue; proc; flatten; "
    "memory -nomap; memory_map; opt -full; async2sync; chformal -lower; opt_clean; "
    "sat -verify -prove-asserts -tempinduct-baseonly -maxsteps " + sys.argv[1], ys.Design())
print("no such sequence")
"""


def holds(folder: Path, instance: str, room: int, source: str, cycles: int) -> bool:
    """Whether no sequence of that many cycles breaks an assertion of queue.v."""
    if importlib.util.find_spec("pyosys") is None:
        pytest.skip("pyosys is not installed; pip install '.[rtl]'")
    (folder / "queue.v").write_text(QUEUE.read_text().replace("DUT", instance).replace("ROOM", str(room)))
    (folder / "dut.v").write_text(source)
    command = [sys.executable, "-c", PROVE, str(cycles)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    found = "no such sequence" in said
    assert found or "proof did fail" in said, said[-2000:]
    return found


@pytest.mark.parametrize(
    ("name", "parameters", "room", "cycles"),
    [("fifo", f".BITS(1), .DEPTH({depth})", depth + 1, cycles) for depth, cycles in ((2, 14), (3, 12), (4, 11))]
    + [("skid", ".BITS(1)", 2, 16)],
)
def test_a_buffer_keeps_every_beat(tmp_path: Path, name: str, parameters: str, room: int, cycles: int):
    source = (LIBRARY / f"srq_{name}.v").read_text()
    assert holds(tmp_path, f"srq_{name} #({parameters})", room, source, cycles)


@pytest.mark.parametrize(
    ("name", "parameters", "room", "right", "wrong"),
    [
        ("fifo", ".BITS(1), .DEPTH(2)", 3, "held_next != FULL[ADDRESS:0]", "held != FULL[ADDRESS:0]"),
        ("fifo", ".BITS(1), .DEPTH(2)", 3, "(!m_tvalid || m_tready)", "1'b1"),
        ("skid", ".BITS(1)", 2, "spare_full ? spare : {s_tlast, s_tdata}", "{s_tlast, s_tdata}"),
        ("skid", ".BITS(1)", 2, "s_tready <= !spare_full_next", "s_tready <= 1'b1"),
    ],
)
def test_the_solver_finds_a_mistake(tmp_path: Path, name: str, parameters: str, room: int, right: str, wrong: str):
    source = (LIBRARY / f"srq_{name}.v").read_text()
    assert source.count(right) >= 1
    assert not holds(tmp_path, f"srq_{name} #({parameters})", room, source.replace(right, wrong), 8)
