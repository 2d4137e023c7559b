"""The stream buffers and the store of weights for every sequence of inputs of some length, resets among them: Yosys'
SAT solver looks for one that loses, doubles, reorders or changes a beat.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from srq_hw.backends.rtl.verilate import LIBRARY

HERE = Path(__file__).parent
PROVE = """
import sys
from pyosys import libyosys as ys
top = sys.argv[2]
ys.run_pass(f"read_verilog -formal {top}.v; read_verilog dut.v; hierarchy -check -top {top}; proc; flatten; "
    "memory -nomap; memory_map; opt -full; async2sync; chformal -lower; opt_clean; "
    "sat -verify -prove-asserts -tempinduct-baseonly -maxsteps " + sys.argv[1], ys.Design())
print("no such sequence")
"""


def holds(folder: Path, top: str, words: dict[str, str], source: str, cycles: int) -> bool:
    """Whether no sequence of that many cycles breaks an assertion of `top`, words in its text replaced."""
    if importlib.util.find_spec("pyosys") is None:
        pytest.skip("pyosys is not installed; pip install '.[rtl]'")
    text = (HERE / f"{top}.v").read_text()
    for word, value in words.items():
        text = text.replace(word, value)
    (folder / f"{top}.v").write_text(text)
    (folder / "dut.v").write_text(source)
    command = [sys.executable, "-c", PROVE, str(cycles), top]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    found = "no such sequence" in said
    assert found or "proof did fail" in said, said[-2000:]
    return found


# --- stream buffers ---------------------------------------------------------------------------------------------------


def queue(name: str, parameters: str, room: int) -> dict[str, str]:
    """What queue.v leaves open."""
    return {"DUT": f"srq_{name} #({parameters})", "ROOM": str(room)}


@pytest.mark.parametrize(
    ("name", "parameters", "room", "cycles"),
    [("fifo", f".BITS(1), .DEPTH({depth})", depth + 1, cycles) for depth, cycles in ((2, 14), (3, 12), (4, 11))]
    + [("skid", ".BITS(1)", 2, 16)],
)
def test_a_buffer_keeps_every_beat(tmp_path: Path, name: str, parameters: str, room: int, cycles: int):
    source = (LIBRARY / f"srq_{name}.v").read_text()
    assert holds(tmp_path, "queue", queue(name, parameters, room), source, cycles)


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
    assert not holds(tmp_path, "queue", queue(name, parameters, room), source.replace(right, wrong), 8)


# --- the store of weights ---------------------------------------------------------------------------------------------

#: bits of a word, words, bits of a beat, style, words to a row: two beats to a row of three words, the last row has one
#: word; a beat to a row; a word to a row, in two beats and in one
STORES = [(2, 4, 3, "ultra", 3), (2, 5, 6, "ultra", 3), (2, 2, 1, "block", 1), (2, 3, 2, "block", 1)]


def store(width: int, depth: int, load: int, style: str, pack: int) -> dict[str, str]:
    """What share.v leaves open."""
    words = {"WIDTH_": width, "DEPTH_": depth, "LOAD_": load, "STYLE_": f'"{style}"', "PACK_": pack}
    return {word: str(value) for word, value in words.items()}


def store_source() -> str:
    """With rows of 6 bits instead of UltraRAM's 72, for which the solver takes half a minute."""
    source = "".join((LIBRARY / f"srq_{name}.v").read_text() for name in ("store", "skid"))
    assert source.count("72 / WIDTH") == 1
    return source.replace("72 / WIDTH", "6 / WIDTH")


@pytest.mark.parametrize("shape", STORES)
def test_a_store_plays_its_share_and_passes_the_rest_on(tmp_path: Path, shape: tuple[int, int, int, str, int]):
    assert holds(tmp_path, "share", store(*shape), store_source(), 14)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("full <= (full || all_end) && !set_end;", "full <= full || all_end;"),
        ("loaded <= all_end || (loaded && !taken);", "loaded <= all_end || loaded;"),
        ("rst || !loaded || taken;", "rst || !loaded;"),
        ("if (set_end || all_end) write_row <=", "if (all_end) write_row <="),
        ("if (set_end || row_end) write_beat <=", "if (row_end) write_beat <="),
        ("(final_row ? FINAL_PART : LAST_PART)", "LAST_PART"),
        ("assign beat_ready = !full || next_tready;", "assign beat_ready = 1'b1;"),
    ],
)
def test_the_solver_finds_a_mistake_in_a_store(tmp_path: Path, right: str, wrong: str):
    source = store_source()
    assert source.count(right) == 1
    assert not holds(tmp_path, "share", store(*STORES[0]), source.replace(right, wrong), 13)
