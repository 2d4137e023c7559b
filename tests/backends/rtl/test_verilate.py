"""Building and running models: formats, the cache, stalls, resets, and what is said when something is wrong."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl import toolchain, verilate
from srq_hw.backends.rtl.verilate import Design, Port, Simulator, Stalls, build
from srq_hw.errors import InputError, RunError
from srq_hw.tools import OutOfTime, find_tool
from tests.backends.rtl.bench import library, random_beats

S, M = Port("s", 1, 8), Port("m", 1, 8)

#: passes its stream on through a register, with one line of its own
REGISTER = """
module {name} #(parameter STEP = 1, parameter WORD = "abc", parameter FILE = "none.hex") (
    input wire clk, input wire rst,
    input wire [7:0] s_tdata, input wire s_tvalid, output wire s_tready,
    output reg [7:0] m_tdata, output reg m_tvalid, input wire m_tready,
    output wire [23:0] word
);
    assign s_tready = !m_tvalid || m_tready;
    assign word = WORD;
    reg [7:0] count;
    reg [7:0] table_ [0:3];
    initial begin count = 0; m_tvalid = 0; if (FILE != "none.hex") $readmemh(FILE, table_); end
    always @(posedge clk) begin
        count <= count + 1'b1;
        if (s_tready) begin m_tdata <= s_tdata; m_tvalid <= s_tvalid; end
        {line}
        if (rst) m_tvalid <= 0;
    end
endmodule
"""


def register(folder: Path, line: str = "", **more: object) -> Design:
    """A design of REGISTER with that line in its process."""
    source = folder / "try.v"
    source.write_text(REGISTER.format(name="try_register", line=line))
    return Design("try_register", (source,), {}, (S,), (M,), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fifo(models: Path) -> Simulator:
    return build(Design("srq_fifo", library("fifo"), {"BITS": 8, "DEPTH": 16}, (S,), (M,)), models, jobs=1)


@pytest.mark.parametrize(("lanes", "bits", "signed"), [(33, 1, True), (2, 31, False), (1, 64, True), (3, 64, False)])
def test_lanes_of_every_width_arrive_where_they_belong(models: Path, lanes: int, bits: int, signed: bool):
    """One lane after the other differs from zero: a value in a wrong lane cannot hide."""
    s, m = Port("s", lanes, bits, signed), Port("m", lanes, bits, signed)
    simulator = build(Design("srq_skid", library("skid"), {"BITS": lanes * bits}, (s,), (m,)), models, jobs=1)
    lo, hi = s.limits if bits < 64 else (-(1 << 63) if signed else 0, (1 << 63) - 1)
    beats = np.vstack([np.eye(lanes, dtype=np.int64) * hi, np.eye(lanes, dtype=np.int64) * lo, np.full((1, lanes), hi)])
    run = simulator.run({"s": beats}, {"m": len(beats)})
    assert np.array_equal(run.outputs["m"], beats)
    assert run.cycles == run.last["m"] + 1 == len(beats) + 2  # ready a cycle after reset, out a cycle later


def test_parameters_memories_and_flags_reach_the_model(models: Path, tmp_path: Path):
    design = register(
        tmp_path,
        "if (s_tready) m_tdata <= s_tdata * STEP + table_[s_tdata[1:0]];",
        memories={"four.hex": "01\n20\n30\n0f"},  # no newline at the end: added, older Verilators lose the word
        flags=("word",),
    )
    design = Design(**{**design.__dict__, "parameters": {"STEP": 3, "WORD": "xyz", "FILE": "four.hex"}})
    beats = np.arange(40)[:, None]
    run = build(design, models, jobs=1).run({"s": beats}, {"m": 40})
    table = np.array([0x01, 0x20, 0x30, 0x0F])
    assert np.array_equal(run.outputs["m"], beats * 3 + table[beats % 4])
    assert run.flags == {"word": int.from_bytes(b"xyz", "big")}


def test_a_model_is_built_once_and_anew_when_anything_changes(models: Path, tmp_path: Path, monkeypatch):
    first = build(register(tmp_path), models, jobs=1)
    with monkeypatch.context() as patch:
        patch.setattr(toolchain, "compile_model", lambda *_: pytest.fail("built again"))
        assert build(register(tmp_path), models, jobs=2).folder == first.folder
    changed = build(register(tmp_path, "if (s_tready) m_tdata <= ~s_tdata;"), models, jobs=1)
    assert changed.folder != first.folder
    beats = random_beats(S, 9)
    assert np.array_equal(first.run({"s": beats}, {"m": 9}).outputs["m"], beats)
    assert np.array_equal(changed.run({"s": beats}, {"m": 9}).outputs["m"], 255 - beats)


def test_a_big_model_is_compiled_in_parts(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toolchain, "SPLIT_BYTES", 0)
    design = register(tmp_path, "// in two parts")
    simulator = build(design, models, jobs=2)
    beats = random_beats(S, 9)
    assert np.array_equal(simulator.run({"s": beats}, {"m": 9}).outputs["m"], beats)
    assert sorted(path.name for path in simulator.folder.iterdir()) == ["model", "ports.h"]


def test_stalls_take_the_share_of_cycles_they_say(fifo: Simulator):
    beats = random_beats(S, 4000)
    for percent in (20, 50, 80):
        for stalls in (Stalls(in_=percent, seed=5), Stalls(out=percent, seed=5)):
            run = fifo.run({"s": beats}, {"m": 4000}, stalls)
            assert 1 - 4000 / run.cycles == pytest.approx(percent / 100, abs=0.05)
    cycles = {fifo.run({"s": beats}, {"m": 4000}, Stalls(30, 30, seed)).cycles for seed in (1, 2)}
    assert len(cycles) == 2
    assert fifo.run({"s": beats}, {"m": 4000}, Stalls(30, 30, 2)).cycles in cycles


def test_a_reset_starts_everything_over(fifo: Simulator):
    beats = random_beats(S, 50)
    free, again = (fifo.run({"s": beats}, {"m": 50}, resets=resets) for resets in ((), (20, 30)))
    assert np.array_equal(again.outputs["m"], beats)
    assert again.cycles == free.cycles
    with pytest.raises(RunError, match=r"the run was over at cycle 53, before its next reset"):
        fifo.run({"s": beats}, {"m": 50}, resets=(40, 1000))


def test_no_beats_at_all(fifo: Simulator):
    run = fifo.run({"s": np.empty((0, 1), np.int64)}, {"m": 0})
    assert run.outputs["m"].shape == (0, 1) and run.cycles == 0 and run.first == {}


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_hang_says_the_last_beat_of_every_stream(fifo: Simulator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verilate, "IDLE_CYCLES", 5000)
    with pytest.raises(RunError) as caught:
        fifo.run({"s": random_beats(S, 3)}, {"m": 5})
    assert str(caught.value).splitlines() == [
        "RTL simulation of srq_fifo: hang: no beat on any stream for 5000 cycles",
        "  input s: 3 of 3 beats, last at cycle 3; now valid 0, ready 1",
        "  output m: 3 of 5 beats, last at cycle 5; now valid 0, ready 1",
    ]


def test_a_run_ends_at_cycles_max_and_at_its_time_limit(fifo: Simulator, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RunError, match=r"not finished after 30 cycles\n  input s: 29 of 90 beats, last at cycle 29"):
        fifo.run({"s": random_beats(S, 90)}, {"m": 90}, cycles_max=30)
    monkeypatch.setattr(verilate, "IDLE_CYCLES", verilate.CYCLES_MAX)
    told = r"srq_fifo: not finished after 0\.5 s; stopped at cycle \d+\n  input s: 3 of 3 beats, last at cycle "
    with pytest.raises(RunError, match=told + r".*\n  output m: 3 of 5 beats, last at cycle"):
        fifo.run({"s": random_beats(S, 3)}, {"m": 5}, seconds=0.5)


def test_a_beat_too_many(fifo: Simulator):
    with pytest.raises(RunError, match="one beat more than asked for on m at cycle"):
        fifo.run({"s": random_beats(S, 5)}, {"m": 4})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("if (count[2:0] == 0) m_tvalid <= 0;", "tvalid fell before the beat was accepted on m"),
        ("if (count[2:0] == 0) m_tdata <= count;", "tdata or tlast changed before the beat was accepted on m"),
    ],
)
def test_a_broken_handshake_is_seen(models: Path, tmp_path: Path, line: str, said: str):
    simulator = build(register(tmp_path, line), models, jobs=1)
    with pytest.raises(RunError, match=said):
        simulator.run({"s": random_beats(S, 200)}, {"m": 200}, Stalls(out=70, seed=1))


def test_values_and_shapes_that_do_not_fit_the_port(fifo: Simulator):
    for beats, said in (([[256]], "0 to 255"), ([[-1]], "0 to 255"), ([[1, 2]], r"wanted \(beats, 1\)")):
        with pytest.raises(ValueError, match=said):
            fifo.run({"s": np.array(beats)}, {"m": 1})
    with pytest.raises(ValueError, match="tlast of shape"):
        fifo.run({"s": np.array([[1]])}, {"m": 1}, lasts={"s": np.zeros(2, bool)})
    with pytest.raises(ValueError, match="0 to 95"):
        Stalls(in_=96)
    with pytest.raises(ValueError, match="1 to 64"):
        Port("s", 1, 65)


def test_verilog_that_is_wrong_is_refused_and_leaves_nothing(tmp_path: Path, models: Path):
    design = register(tmp_path, "m_tdata <= no_such_signal;")
    with pytest.raises(RunError, match=r"verilator refuses try_register:(.|\n)*no_such_signal"):
        build(design, models, jobs=1)
    key = verilate.design_key(design, toolchain.prepare(models).key)
    assert [path.name for path in models.iterdir() if key in path.name] == [f".try_register-{key}.lock"]


def test_a_tool_that_takes_too_long_is_ended_with_what_it_has_started(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
):
    """The compiler: a script that starts another program, as g++ does."""
    toolchain.prepare(models)
    script = tmp_path / "g++"
    pids = tmp_path / "pids"
    script.write_text(f"#!/bin/sh\n[ $1 = --version ] && exec g++ --version\nsleep 60 &\necho $! >> {pids}\nwait\n")
    script.chmod(0o755)
    monkeypatch.setenv("SRQ_GXX", str(script))
    monkeypatch.setenv("SRQ_TOOL_SECONDS", "0.5")
    with pytest.raises(OutOfTime, match=re.escape(f"{script}: not finished after 0.5 s. SRQ_TOOL_SECONDS")):
        build(register(tmp_path, "// slow"), tmp_path / "models", jobs=1)
    assert not [path for path in (tmp_path / "models").iterdir() if path.suffix != ".lock"]
    (started,) = pids.read_text().split()
    status = Path(f"/proc/{started}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_a_design_without_the_named_stream_does_not_compile(tmp_path: Path, models: Path):
    design = Design(**{**register(tmp_path).__dict__, "outputs": (Port("n", 1, 8),)})
    with pytest.raises(RunError, match=r"cannot compile(.|\n)*n_tvalid"):
        build(design, models, jobs=1)


def test_a_missing_verilator(models: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SRQ_VERILATOR", "/no/such/verilator")
    with pytest.raises(InputError, match=r"verilator: SRQ_VERILATOR='/no/such/verilator' is not a program"):
        build(Design("srq_fifo", library("fifo"), {}, (S,), (M,)), models)


def test_a_program_tells_its_root(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = toolchain.find_verilator()
    script = tmp_path / "verilator"
    monkeypatch.setenv("SRQ_VERILATOR", str(script))
    monkeypatch.delenv("VERILATOR_ROOT", raising=False)
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo Verilator 5.048 && exit\n'
        f'VERILATOR_ROOT="{real.root}" exec "{real.program}" "$@"\n'
    )
    script.chmod(0o755)
    found = toolchain.find_verilator()
    assert (found.program, found.root, found.version) == (script, real.root, "5.048")
    script.write_text("#!/bin/sh\necho Verilator 5.048\n")
    with pytest.raises(RunError, match=r"does not say where its include/verilated\.h is"):
        toolchain.find_verilator()


def test_the_package_is_found_beside_python(monkeypatch: pytest.MonkeyPatch):
    status = find_tool("verilator", {"PATH": ""})
    if not status.usable:
        pytest.skip(f"verilator: {status.problem}")
    if Path(str(status.path)).is_dir():
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
        assert toolchain.find_verilator().program.name == "verilator_bin"


def test_a_result_that_cannot_be_written_says_why(models: Path):
    """A limit on the size of a file stands in for a full disk; the input is below it, the result four times as long."""
    ports = (Port("s", 2, 8),), (Port("m", 2, 8),)
    simulator = build(Design("srq_repeat", library("repeat", "rows", "frame"), {}, *ports), models, jobs=1)
    beats = random_beats(ports[0][0], 100 * 32)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limit[1]))
    try:
        with pytest.raises(RunError, match=r"m\.out could not be written: File too large; free some space"):
            simulator.run({"s": beats}, {"m": 400 * 32})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert simulator.run({"s": beats}, {"m": 400 * 32}).cycles > 0
