"""The bundle of a design whose weights are written at run time: files, wrapper, Vivado scripts, verify.sh run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.handoff import verify_manifest
from srq_hw.backends.handoff.manifest import write_manifest
from srq_hw.backends.handoff.rtl import layout, write_rtl_handoff
from srq_hw.backends.handoff.rtl.layout import checksum, dma_problem, layout_of
from srq_hw.backends.rtl.netlist import Stream
from srq_hw.target import load_target
from srq_hw.tools import find_tool
from tests.backends.handoff.test_rtl_tcl import BOARD, of, source, wired
from tests.backends.handoff.test_rtl_verify import Bundle
from tests.backends.handoff.test_rtl_wrapper import findings, lint

WRAPPER = "rtl/srq_top_wrapper.v"


def names_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_weights_are_in_the_bundle(made, made_loaded):
    words = made_loaded.design.loads
    assert len(words) > 100 and np.array_equal(np.fromfile(made_loaded.folder / "weights.bin", "<u4"), words)
    lines = (made_loaded.folder / "golden/weights.hex").read_text().split()
    assert [int(line, 16) for line in lines] == words.tolist() and {len(line) for line in lines} == {8}
    assert verify_manifest(made_loaded.folder) == []
    plain = {name.replace("small_top", "srq_top") for name in names_of(made.folder)}
    more = names_of(made_loaded.folder) - plain
    assert {name for name in more if not name.startswith("rtl/lib/")} == {"weights.bin", "golden/weights.hex"}
    gone = {name for name in plain - names_of(made_loaded.folder) if not name.startswith("rtl/lib/")}
    assert gone == {"mem/head.weights.hex", "mem/up.weights.hex"}


def test_interface_json(made, made_loaded):
    plain, facts = (json.loads((one.folder / "interface.json").read_text()) for one in (made, made_loaded))
    words = len(made_loaded.design.loads)
    stream = facts["streams"]["weights"]
    assert set(facts["streams"]) == {"input", "output", "weights"} and set(stream) == set(facts["streams"]["input"])
    assert (stream["port"], stream["element_type"], stream["tdata_bits"]) == ("w_axis", "UINT32", 32)
    assert (stream["beats_per_frame"], stream["dma_bytes_per_frame"]) == (words, 4 * words)
    assert (facts["weights"]["file"], facts["weights"]["words"]) == ("weights.bin", words)
    assert "again after every reset" in facts["weights"]["when"] and "no frame is inside" in facts["weights"]["when"]
    assert facts["verify_reset_at"] > words + made_loaded.design.latency
    assert set(plain) == set(facts) - {"weights"} and set(plain["streams"]) == {"input", "output"}


def test_nothing_of_it_where_no_weights_are_written(made):
    """verify.sh and the driver are the same in every bundle; all other files say nothing of such weights."""
    for name in names_of(made.folder) - {"verify.sh", "MANIFEST.sha256"}:
        if not name.startswith(("host/", "rtl/lib/", "golden/")):
            text = (made.folder / name).read_text()
            assert not re.search(r"w_axis|weights_error|weights_dma|weights\.bin|RELOAD", text), name


def test_the_readme_says_how(made_loaded):
    readme = (made_loaded.folder / "README.md").read_text()
    words = len(made_loaded.design.loads)
    for text in (f"the {words} words of", f"takes {words} cycles", "`w_axis_tdata[31:0]`", "driver.load_weights()"):
        assert text in readme, text
    for name in names_of(made_loaded.folder) - {"README.md"}:
        above = [f"`{folder.as_posix()}/`" for folder in Path(name).parents]
        assert any(part in readme for part in (f"`{name}`", *above)), f"README.md does not name {name}"


def test_verilator_reads_wrapper_and_test_bench(made_loaded, tmp_path: Path):
    done = lint(made_loaded, tmp_path, "-Wall", "--top-module", "srq_top_wrapper")
    assert done.returncode == 0 and not findings(done, "srq_top_wrapper.v"), done.stderr
    bench = str(made_loaded.folder / "sim/testbench.v")
    done = lint(made_loaded, tmp_path, "--timing", "--top-module", "testbench", bench)
    assert done.returncode == 0 and not findings(done, "testbench.v") - {"BLKSEQ"}, done.stderr
    for name in ("sim/testbench.v", WRAPPER):
        assert max(map(len, (made_loaded.folder / name).read_text().splitlines())) <= 132, name


def test_ip_integrator_sees_the_third_stream(made_loaded, tmp_path: Path):
    text = (made_loaded.folder / WRAPPER).read_text()
    assert "ASSOCIATED_BUSIF s_axis:m_axis:w_axis, ASSOCIATED_RESET aresetn" in text
    ports = (
        r'X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 w_axis (\w+)".*?(input|output) +wire +(?:\[31:0\] +)?(\w+)'
    )
    assert re.findall(ports, text, re.DOTALL) == [
        ("TDATA", "input", "w_axis_tdata"),
        ("TVALID", "input", "w_axis_tvalid"),
        ("TREADY", "output", "w_axis_tready"),
        ("TLAST", "input", "w_axis_tlast"),
    ]
    commands, done = source(made_loaded.folder / "scripts/package_ip.tcl", tmp_path, str(tmp_path / "out"))
    assert done.returncode == 0 and not done.stderr, done.stderr
    buses = of(commands, "ipx::associate_bus_interfaces")
    assert [bus[:4] for bus in buses] == [["-busif", side, "-clock", "aclk"] for side in ("s_axis", "m_axis", "w_axis")]


def test_block_design(made, made_loaded, tmp_path: Path):
    """The block design of `made` with a second DMA, read channel only, and a GPIO for the flag; nothing hangs loose."""
    recorded = []
    for one in (made, made_loaded):
        commands, done = source(one.folder / "scripts/block_design.tcl", tmp_path, str(tmp_path / "out"), answers=BOARD)
        assert done.returncode == 0 and not done.stdout and not done.stderr, done.stderr
        cells = {cell[-1]: cell[-2] for cell in of(commands, "create_bd_cell")}
        recorded.append((commands, cells, wired(commands, "connect_bd_intf_net"), wired(commands, "connect_bd_net")))
    (_, cells, buses, nets), (commands, more_cells, more_buses, more_nets) = recorded
    assert set(more_cells) - set(cells) == {"weights_dma", "weights_control"}
    assert more_cells["weights_dma"] == cells["axi_dma"] and more_cells["weights_control"] == cells["control"]
    assert buses < more_buses and more_buses - buses == {
        ("registers/M02_AXI", "weights_dma/S_AXI_LITE"),
        ("registers/M03_AXI", "weights_control/S_AXI"),
        ("weights_dma/M_AXI_MM2S", "memory/S02_AXI"),
        ("weights_dma/M_AXIS_MM2S", "core/w_axis"),
    }
    assert nets < more_nets and more_nets - nets == {
        ("ps/pl_clk0", "weights_dma/s_axi_lite_aclk"),
        ("ps/pl_clk0", "weights_dma/m_axi_mm2s_aclk"),
        ("ps/pl_clk0", "weights_control/s_axi_aclk"),
        ("reset/peripheral_aresetn", "weights_dma/axi_resetn"),
        ("reset/peripheral_aresetn", "weights_control/s_axi_aresetn"),
        ("core/weights_error", "weights_control/gpio_io_i"),
    }
    settings = {
        command[2]: command[1].split("CONFIG.") for command in of(commands, "set_property") if command[0] == "-dict"
    }
    of_cell = {name: [text.strip() for text in texts[1:]] for name, texts in settings.items()}
    (dma,) = (texts for name, texts in of_cell.items() if name.endswith("_weights_dma>"))
    assert {"c_include_sg 0", "c_include_mm2s 1", "c_include_s2mm 0", "c_sg_length_width 26"} < set(dma)
    assert {"c_m_axis_mm2s_tdata_width 32", "c_m_axi_mm2s_data_width 32", "c_addr_width 64"} < set(dma)
    (registers,) = (texts for name, texts in of_cell.items() if name.endswith("_registers>"))
    (memory,) = (texts for name, texts in of_cell.items() if name.endswith("_memory>"))
    assert registers == ["NUM_SI 1", "NUM_MI 4"] and memory == ["NUM_SI 3", "NUM_MI 1"]
    assert ["assign_bd_address"] in commands


def test_a_set_beyond_one_transfer_has_no_block_design(made_loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert dma_problem(layout_of(Stream("w", 1, (1 << 24) - 1, 1, 1, 32, False)), "a set of weights") == ""
    problem = dma_problem(layout_of(Stream("w", 1, 1 << 24, 1, 1, 32, False)), "a set of weights")
    assert problem.startswith("a set of weights of 67108864 bytes exceeds one DMA transfer")
    monkeypatch.setattr(layout, "DMA_LENGTH_BITS", 9)  # a frame has 480 bytes at most, the set more than 512
    folder = write_rtl_handoff(
        made_loaded.design, made_loaded.graph, load_target("zcu104"), made_loaded.images, tmp_path / "bundle"
    )
    told = json.loads((folder / "interface.json").read_text())["block_design"]
    assert told.startswith("none: a set of weights of ") and told.count("exceeds") == 1
    assert not (folder / "scripts/block_design.tcl").exists()


@pytest.fixture(scope="module")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verify_weights")


@pytest.fixture
def simulated(made_loaded, build_folder: Path) -> Iterator[Bundle]:
    """At one place, so that the model is built again only where a test changed a source."""
    for name in ("verilator", "g++"):
        if not find_tool(name).usable:
            pytest.skip(f"{name}: {find_tool(name).problem}")
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    folder = build_folder / "bundle"
    for name in names_of(made_loaded.folder):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists() or place.read_bytes() != (made_loaded.folder / name).read_bytes():
            shutil.copy(made_loaded.folder / name, place)
    environ = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "HOME": str(build_folder)}
    path = Path(str(find_tool("verilator").path))
    yield Bundle(folder, build_folder / "work", environ if path.is_dir() else {**environ, "VERILATOR": str(path)})


def test_it_passes(simulated: Bundle, made_loaded):
    done = simulated.simulate()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    words, beats = len(made_loaded.design.loads), 6 * made_loaded.design.output.beats
    runs = [line for line in lines if line.startswith("verilator ")]
    assert len(runs) == 7 and all("PASS: " in line and ", 0 differ" in line for line in runs)
    assert int(runs[4].split("PASS: ")[1].split()[0]) > beats  # reset in the middle of the first frame's way out
    assert f"+RESET_AT={16 + words // 2}: PASS: {beats} beats" in runs[5]
    assert f"+RELOAD=1: PASS: {beats} beats" in runs[6]
    for number, taken in ((1, words), (4, words), (6, words), (7, 2 * words)):
        assert f"{taken} weights were taken" in (simulated.work / f"verilator.{number}.log").read_text().splitlines()
    assert lines[-2] == f"host driver: 3 frames packed and unpacked as in golden/, {words} weights before them"
    assert lines[-1] == "verify.sh: PASS in 1 simulator(s)"


def test_wrong_weights_fail_although_manifest_and_checksum_fit(simulated: Bundle):
    path = simulated.folder / "golden/weights.hex"
    text = path.read_text()
    lines = text.split()
    lines[:2] = [f"{int(lines[0], 16) ^ 1:08x}", f"{int(lines[1], 16) ^ 2:08x}"]
    path.write_text("\n".join(lines) + "\n")
    assert checksum(path.read_text()) == checksum(text)
    write_manifest(simulated.folder)
    done = simulated.simulate()
    assert done.returncode == 1 and "FAIL" in done.stderr and "wanted" in done.stderr
    assert "PASS" not in done.stdout
    assert "host driver: FAIL, weights.bin has other words than golden/weights.hex" in done.stderr


def test_weights_that_are_not_those_written_are_refused(simulated: Bundle):
    path = simulated.folder / "golden/weights.hex"
    path.write_text("\n".join(path.read_text().split()[:-1]) + "\n")
    write_manifest(simulated.folder)
    done = simulated.simulate()
    assert done.returncode == 1 and "FAIL: weights.hex is not what was written" in done.stderr


def test_icarus_is_left_out_where_the_set_is_long(simulated: Bundle, tmp_path: Path, made_loaded):
    for name in ("iverilog", "vvp"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
        (tmp_path / name).chmod(0o755)
    simulated.replace("interface.json", f'"words": {len(made_loaded.design.loads)}', '"words": 100000')
    write_manifest(simulated.folder)
    environ = {**simulated.environ, "PATH": f"{tmp_path}:{simulated.environ['PATH']}"}
    done = simulated.verify("--work", str(simulated.work), environ=environ)
    cycles = made_loaded.design.cycles
    assert f"icarus: not run, it would take long for 3 frames of {cycles} cycles and 100000 weights" in done.stdout
    assert not (tmp_path / "asked").exists()
    assert (
        done.returncode == 1 and "the run was over before cycle 50016" in done.stderr
    )  # no reset among so few weights


def test_what_the_test_bench_says_of_a_broken_stream(simulated: Bundle, made_loaded):
    """Last in the file: it changes a source, and the model is built once more, for both ways to break the stream."""
    simulated.replace(WRAPPER, ".w_tlast(w_axis_tlast)", '.w_tlast(w_axis_tlast && !$test$plusargs("LATE"))')
    simulated.replace(WRAPPER, ".w_tvalid(w_axis_tvalid)", '.w_tvalid(w_axis_tvalid && !$test$plusargs("NONE"))')
    simulated.replace(WRAPPER, "w_tready && !rst", 'w_tready && !rst && !$test$plusargs("NONE")')
    write_manifest(simulated.folder)
    assert simulated.simulate().returncode == 0  # without these words nothing is broken

    def said(word: str) -> str:
        command = [simulated.work / "verilator/Vtestbench", word]
        done = subprocess.run(command, cwd=simulated.work, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout

    late, none = said("+LATE"), said("+NONE")
    assert "weights_error is 1 although every TLAST was in its place" in late
    assert f"FAIL: {6 * made_loaded.design.output.beats} beats compared, 0 differ" in late  # the weights are there
    assert "time-out: no beat for" in none and "FAIL: 0 beats compared" in none
    assert f"w_axis waits: 0 of {len(made_loaded.design.loads)} weights were taken" in none
    assert "last transaction on w_axis: cycle -1 (-1: none); now tvalid 1 tready 0" in none
    assert "last transaction on m_axis: none" in none
