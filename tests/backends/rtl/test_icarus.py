"""The benches in Icarus: the runs of Verilator, cycle for cycle; what only four-valued signals show; failures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl import icarus, verilate
from srq_hw.backends.rtl.verilate import Design, Port, SimulationFailed, Simulator, Stalls
from srq_hw.errors import InputError, RunError
from srq_hw.tools import OutOfTime
from tests.backends.rtl.bench import FREE, STALLS, Bench, frame_ends, library, random_beats
from tests.backends.rtl.test_verilate import M, S, register


@pytest.fixture
def iv() -> Bench:
    """Icarus, whatever the other tests run in."""
    return Bench.of("icarus")


def fifo() -> Design:
    return Design("srq_fifo", library("fifo"), {"BITS": 8, "DEPTH": 16}, (S,), (M,))


@pytest.fixture
def simulator(iv: Bench) -> Simulator:
    return iv.build(fifo())


def test_every_run_is_that_of_verilator(iv: Bench, models: Path):
    """Outputs, tlast, and the cycle of everything: stalls are drawn alike."""
    one, other = verilate.build(fifo(), models, jobs=1), iv.build(fifo())
    beats, last = random_beats(S, 300), frame_ends(300, 3)
    for stalls in (*STALLS, Stalls(95, 0, 9), Stalls(0, 95, 9)):
        for resets in ((), (20, 30)):
            a, b = (unit.run({"s": beats}, {"m": 300}, stalls, {"s": last}, resets) for unit in (one, other))
            assert np.array_equal(a.outputs["m"], b.outputs["m"]) and np.array_equal(a.lasts["m"], b.lasts["m"])
            assert (a.cycles, a.first, a.last, a.flags) == (b.cycles, b.first, b.last, b.flags)
            assert np.array_equal(a.ends["m"], b.ends["m"]) and len(a.ends["m"]) == 3


@pytest.mark.parametrize(("lanes", "bits", "signed"), [(33, 1, True), (2, 31, False), (1, 64, True), (3, 64, False)])
def test_lanes_of_every_width_arrive_where_they_belong(iv: Bench, lanes: int, bits: int, signed: bool):
    s, m = Port("s", lanes, bits, signed), Port("m", lanes, bits, signed)
    simulator = iv.build(Design("srq_skid", library("skid"), {"BITS": lanes * bits}, (s,), (m,)))
    lo, hi = s.limits if bits < 64 else (-(1 << 63) if signed else 0, (1 << 63) - 1)
    beats = np.vstack([np.eye(lanes, dtype=np.int64) * hi, np.eye(lanes, dtype=np.int64) * lo, np.full((1, lanes), hi)])
    run = simulator.run({"s": beats}, {"m": len(beats)})
    assert np.array_equal(run.outputs["m"], beats)


def test_parameters_memories_and_flags_reach_the_model(iv: Bench, tmp_path: Path):
    design = register(
        tmp_path,
        "if (s_tready) m_tdata <= s_tdata * STEP + table_[s_tdata[1:0]];",
        memories={"four.hex": "01\n20\n30\n0f"},
        flags=("word",),
    )
    design = Design(**{**design.__dict__, "parameters": {"STEP": 3, "WORD": "xyz", "FILE": "four.hex"}})
    beats = np.arange(40)[:, None]
    run = iv.build(design).run({"s": beats}, {"m": 40})
    table = np.array([0x01, 0x20, 0x30, 0x0F])
    assert np.array_equal(run.outputs["m"], beats * 3 + table[beats % 4])
    assert run.flags == {"word": int.from_bytes(b"xyz", "big")}


def test_no_beats_at_all(simulator: Simulator):
    run = simulator.run({"s": np.empty((0, 1), np.int64)}, {"m": 0})
    assert run.outputs["m"].shape == (0, 1) and run.cycles == 0 and run.first == {}


# --- what only Icarus sees --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        # tdata of a cycle without a beat: Verilator sees what was there before
        ("if (s_tready && !s_tvalid && count > 20) m_tdata <= s_tdata; if (count > 25) m_tvalid <= 1;", "tdata"),
        ("if (s_tready) m_tdata <= table_[s_tdata[1:0]];", "tdata"),  # a memory that nobody has written
        ("m_tvalid <= table_[0][0];", "tvalid is undefined"),
    ],
)
def test_what_is_undefined_does_not_come_out(iv: Bench, tmp_path: Path, line: str, said: str):
    with pytest.raises(SimulationFailed, match=rf"try_register: .*{said}.* on m at cycle \d+\n  input s: \d+ of 40"):
        iv.build(register(tmp_path, line)).run({"s": random_beats(S, 40)}, {"m": 40}, Stalls(in_=50, seed=1))


def test_an_undefined_flag_is_no_number(iv: Bench, tmp_path: Path):
    design = register(tmp_path, flags=("word",))
    source = tmp_path / "try.v"
    source.write_text(source.read_text().replace("assign word = WORD;", "assign word = {WORD[23:8], table_[1]};"))
    with pytest.raises(RunError, match=r"undefined bits in a flag: [01]{16}x{8}"):
        iv.build(design).run({"s": random_beats(S, 4)}, {"m": 4})


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("if (count[2:0] == 0) m_tvalid <= 0;", "tvalid fell before the beat was accepted on m"),
        ("if (count[2:0] == 0) m_tdata <= count;", "tdata or tlast changed before the beat was accepted on m"),
    ],
)
def test_a_broken_handshake_is_seen(iv: Bench, tmp_path: Path, line: str, said: str):
    with pytest.raises(SimulationFailed, match=said):
        iv.build(register(tmp_path, line)).run({"s": random_beats(S, 200)}, {"m": 200}, Stalls(out=70, seed=1))


def test_a_hang_says_the_last_beat_of_every_stream(simulator: Simulator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verilate, "IDLE_CYCLES", 5000)
    with pytest.raises(SimulationFailed) as caught:
        simulator.run({"s": random_beats(S, 3)}, {"m": 5})
    assert str(caught.value).splitlines() == [
        "RTL simulation of srq_fifo: hang: no beat on any stream for 5000 cycles",
        "  input s: 3 of 3 beats, last at cycle 3; now valid 0, ready 1",
        "  output m: 3 of 5 beats, last at cycle 5; now valid 0, ready 1",
    ]


def test_other_ends_of_a_run(simulator: Simulator, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SimulationFailed, match="one beat more than asked for on m at cycle"):
        simulator.run({"s": random_beats(S, 5)}, {"m": 4})
    with pytest.raises(SimulationFailed, match=r"not finished after 30 cycles\n  input s: 29 of 90 beats, last at"):
        simulator.run({"s": random_beats(S, 90)}, {"m": 90}, cycles_max=30)
    with pytest.raises(SimulationFailed, match=r"the run was over at cycle 53, before its next reset"):
        simulator.run({"s": random_beats(S, 50)}, {"m": 50}, FREE, resets=(40, 1000))
    monkeypatch.setattr(verilate, "IDLE_CYCLES", verilate.CYCLES_MAX)
    told = r"srq_fifo: not finished after 0\.5 s; stopped at cycle \d+\n  input s: 3 of 3 beats, last at cycle "
    with pytest.raises(SimulationFailed, match=told + r".*\n  output m: 3 of 5 beats, last at cycle"):
        simulator.run({"s": random_beats(S, 3)}, {"m": 5}, seconds=0.5)


def test_verilog_that_is_wrong_is_refused(iv: Bench, tmp_path: Path):
    with pytest.raises(RunError, match=r"iverilog refuses try_register:(.|\n)*no_such_signal"):
        iv.build(register(tmp_path, "m_tdata <= no_such_signal;"))
    design = Design(**{**register(tmp_path).__dict__, "outputs": (Port("n", 1, 8),)})
    with pytest.raises(RunError, match=r"iverilog refuses(.|\n)*n_tdata"):
        iv.build(design)
    with pytest.raises(RunError, match="no source has a module of that name"):
        iv.build(Design(**{**register(tmp_path).__dict__, "top": "srq_nothing"}))


def test_a_time_limit(iv: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SRQ_TOOL_SECONDS", "0.001")
    with pytest.raises(OutOfTime, match=r"iverilog: not finished after 0\.001 s"):
        icarus.build(fifo(), tmp_path)


def test_a_missing_icarus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SRQ_ICARUS", "/no/such/iverilog")
    with pytest.raises(InputError, match=r"icarus: SRQ_ICARUS='/no/such/iverilog' is not a program .*iverilog package"):
        icarus.build(fifo(), tmp_path)


def test_a_missing_vvp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "iverilog"
    script.write_text("#!/bin/sh\necho 'Icarus Verilog version 11.0 (stable)'\n")
    script.chmod(0o755)
    monkeypatch.setenv("SRQ_ICARUS", str(script))
    monkeypatch.setattr(shutil, "which", lambda name, path=None: str(script) if path is not None else None)
    with pytest.raises(RunError, match="has no vvp beside it, and none is on PATH; install your system's iverilog"):
        icarus.build(fifo(), tmp_path)
