"""Open synthesis: cells counted, results kept, modules flat and apart, and what is said when it goes wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from srq_hw.backends.rtl import synth
from srq_hw.backends.rtl.demand import packed, uram
from srq_hw.backends.rtl.synth import Figures, family_of, figures_of, simulation_cells, synthesise
from srq_hw.errors import InputError, RunError
from srq_hw.target import list_targets, load_target
from srq_hw.tools import OutOfTime, find_tool
from tests.backends.rtl.bench import library

SKID = library("skid")
SKID_FF = 2 * (8 + 1) + 3  # two beats of 8 bits with tlast; which are full, and s_tready

PAIR = """
module pair (
    input wire clk, input wire rst,
    input wire [31:0] s_tdata, input wire s_tvalid, output wire s_tready, input wire s_tlast,
    output wire [7:0] m_tdata, output wire m_tvalid, input wire m_tready, output wire m_tlast
);
    wire [31:0] block; wire [7:0] few, again;
    wire block_valid, block_ready, block_last, few_valid, few_ready, few_last, again_valid, again_ready, again_last;
    srq_fifo #(.BITS(32), .DEPTH(512), .RAM_STYLE("block")) deep (
        .clk(clk), .rst(rst), .s_tdata(s_tdata), .s_tvalid(s_tvalid), .s_tready(s_tready), .s_tlast(s_tlast),
        .m_tdata(block), .m_tvalid(block_valid), .m_tready(block_ready), .m_tlast(block_last)
    );
    srq_fifo #(.BITS(8), .DEPTH(32), .RAM_STYLE("distributed")) short (
        .clk(clk), .rst(rst), .s_tdata(block[7:0] ^ block[15:8] ^ block[23:16] ^ block[31:24]), .s_tvalid(block_valid),
        .s_tready(block_ready), .s_tlast(block_last),
        .m_tdata(few), .m_tvalid(few_valid), .m_tready(few_ready), .m_tlast(few_last)
    );
    srq_skid #(.BITS(8)) first (
        .clk(clk), .rst(rst), .s_tdata(few), .s_tvalid(few_valid), .s_tready(few_ready), .s_tlast(few_last),
        .m_tdata(again), .m_tvalid(again_valid), .m_tready(again_ready), .m_tlast(again_last)
    );
    srq_skid #(.BITS(8)) second (
        .clk(clk), .rst(rst), .s_tdata(again), .s_tvalid(again_valid), .s_tready(again_ready), .s_tlast(again_last),
        .m_tdata(m_tdata), .m_tvalid(m_tvalid), .m_tready(m_tready), .m_tlast(m_tlast)
    );
endmodule
"""


@pytest.fixture
def yosys() -> None:
    """Skips where there is no Yosys."""
    status = find_tool("yosys")
    if not status.usable:
        pytest.skip(f"yosys: {status.problem}; {status.get}")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, yosys: None) -> Path:
    """A yosys program, as a system package has it: what it runs is the Python package."""
    status = find_tool("yosys")
    if not Path(str(status.path)).is_dir():
        pytest.skip("this Yosys is a program already")
    path = tmp_path / "bin" / "yosys"
    path.parent.mkdir()
    answer = f'if [ "$1" = -V ]; then echo "Yosys {status.version} (git)"; exit; fi\n'
    path.write_text(f'#!/bin/sh\n{answer}[ "$1" = -s ] && exec "{sys.executable}" -P "{synth.WORKER}" "$2"\n')
    path.chmod(0o755)
    monkeypatch.setenv("SRQ_YOSYS", str(path))
    return path


def forbidden(*_: object) -> None:
    raise AssertionError("Yosys was run")


# --- families and counting --------------------------------------------------------------------------------------------


def test_packaged_targets_have_a_family():
    resources = [load_target(name).resources for name in list_targets()]
    found = {r.part: family_of(r.part) for r in resources if r is not None}
    assert found and found.pop("xc7z020clg400-1") == "xc7" and set(found.values()) == {"xcup"}


@pytest.mark.parametrize(
    ("part", "family"),
    [
        ("XCZU3EG-sbva484-1-i", "xcup"),
        ("xck26-sfvc784-2LV-c", "xcup"),
        ("xcu55c-fsvh2892-2L-e", "xcup"),
        ("xcku5p-ffvb676-2-e", "xcup"),
        ("xcvu9p-flga2104-2L-e", "xcup"),
        ("xc7a35tcpg236-1", "xc7"),
    ],
)
def test_family_of(part: str, family: str):
    assert family_of(part) == family


@pytest.mark.parametrize(
    "part", ["xcku040-ffva1156-2-e", "xcvu095-ffva2104-2-e", "xcvc1902-vsva2197-2MP-e-S", "xc6slx9"]
)
def test_family_of_another_part(part: str):
    with pytest.raises(InputError, match=rf"resources.part '{part}'.*Supported: .*xczu\*.*xc7z\*"):
        family_of(part)


def test_counting():
    """Instances times cells, through two levels; LUT sites of memories; pairs of CARRY4."""
    leaf = {"LUT6": 2, "LUT6_2": 1, "INV": 9, "FDRE": 3, "FDSE": 1, "SRL16E": 1, "CARRY4": 1, "$scopeinfo": 4}
    middle = {"$paramod$0a\\leaf": 2, "RAM64M8": 1, "RAM32X1D": 1, "CARRY8": 1, "DSP48E2": 5, "DSP48E1": 1}
    top = {"\\middle": 3, "$paramod$0a\\leaf": 1, "RAMB36E2": 2, "RAMB18E1": 3, "URAM288": 1, "LUT1": 1, "MUXF7": 1}
    modules = {"\\top": top, "\\middle": middle, "$paramod$0a\\leaf": leaf}
    stat = {"modules": {name: {"num_cells_by_type": cells} for name, cells in modules.items()}}
    figures = figures_of(stat, "top", 1.5)
    cells = {"CARRY4": 7, "CARRY8": 3, "DSP48E1": 3, "DSP48E2": 15, "FDRE": 21, "FDSE": 7, "INV": 63, "LUT1": 1}
    cells |= {"LUT6": 14, "LUT6_2": 7, "MUXF7": 1, "RAM32X1D": 3, "RAM64M8": 3, "RAMB18E1": 3, "RAMB36E2": 2}
    cells |= {"SRL16E": 7, "URAM288": 1}
    assert figures == Figures(22, 7 + 3 * 8 + 3 * 2, 28, 18, 2, 3, 1, 6.5, 1.5, cells)


def test_a_cell_that_the_family_has_not_is_no_figure():
    stat = {"modules": {"\\top": {"num_cells_by_type": {"LUT2": 1, "$mem_v2": 1}}}}
    with pytest.raises(RunError, match=r"synthesis of top: .* \$mem_v2"):
        figures_of(stat, "top", 1.0)


# --- runs -------------------------------------------------------------------------------------------------------------


def test_figures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, yosys: None):
    folder = tmp_path / "a folder"
    figures = synthesise("srq_skid", SKID, {"BITS": 8}, {}, folder)
    assert (figures.ff, figures.dsp, figures.bram36, figures.bram18, figures.uram) == (SKID_FF, 0, 0, 0, 0)
    assert 8 <= figures.lut <= 30 and figures.lut_memory == 0 and figures.seconds > 0
    monkeypatch.setattr(synth, "_run", forbidden)
    assert synthesise("srq_skid", SKID, {"BITS": 8}, {}, folder) == figures
    changes = ({"parameters": {"BITS": 9}}, {"memories": {"x.hex": "1"}}, {"family": "xc7"}, {"flatten": False})
    for change in changes:
        given = {"parameters": {"BITS": 8}, "memories": {}, "folder": folder} | change
        with pytest.raises(AssertionError, match="Yosys was run"):
            synthesise("srq_skid", SKID, **given)
    own = tmp_path / "srq_skid.v"
    own.write_text(SKID[0].read_text() + "// changed\n")
    with pytest.raises(AssertionError, match="Yosys was run"):
        synthesise("srq_skid", (own,), {"BITS": 8}, {}, folder)


def test_a_yosys_program_gives_the_same(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch):
    by_program = synthesise("srq_skid", SKID, {"BITS": 8}, {}, tmp_path / "program")
    with pytest.raises(RunError, match="its simulation cells are not where they are expected"):
        simulation_cells()
    monkeypatch.delenv("SRQ_YOSYS")
    by_package = synthesise("srq_skid", SKID, {"BITS": 8}, {}, tmp_path / "package")
    assert replace(by_program, seconds=0) == replace(by_package, seconds=0)
    assert simulation_cells().is_file()


def test_units_flat_and_apart(tmp_path: Path, yosys: None):
    """A block RAM, LUTs as memory, and two of one module: the same but for a few LUTs."""
    top = tmp_path / "pair.v"
    top.write_text(PAIR)
    sources = (top, *library("fifo", "skid"))
    flat, apart = (synthesise("pair", sources, {}, {}, tmp_path / str(way), flatten=way) for way in (True, False))
    for figures in (flat, apart):
        assert (figures.bram36, figures.bram18, figures.dsp) == (0, 1, 0)
        assert figures.lut_memory == 8 * figures.cells["RAM32M16"] > 0
        assert figures.ff >= 2 * SKID_FF
    assert apart.ff == flat.ff and abs(apart.lut - flat.lut) <= 8
    netlists = [next((tmp_path / str(way)).glob("pair-*/netlist.v")).read_text() for way in (True, False)]
    assert [text.count("\nendmodule") for text in netlists] == [1, 4]  # two FIFOs, one skid for both, the top


@pytest.mark.parametrize(("lanes", "bits", "blocks"), [(3, 4, 1), (3, 12, 2)])
def test_rows_in_ultraram_take_what_the_rule_says(tmp_path: Path, yosys: None, lanes: int, bits: int, blocks: int):
    """Three rows of 320 pixels, 48 channels: beats of 12 bits lie four to a word, those of 36 bits two."""
    channels = 48
    parameters = {"WIDTH": 320, "CHANNELS": channels, "LANES": lanes, "BITS": bits, "RAM_STYLE": "ultra"}
    figures = synthesise("srq_window", library("window"), parameters, {}, tmp_path)
    beats = (3 * 320 + 3) * channels // lanes
    assert figures.uram == uram(*packed(beats, lanes * bits)) == blocks
    assert (figures.bram36, figures.bram18, figures.lut_memory) == (0, 0, 0)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_an_unknown_module_is_named(tmp_path: Path, yosys: None):
    with pytest.raises(RunError, match=r"yosys refuses srq_skip:\nERROR: Module `\\srq_skip' .* is not part of the"):
        synthesise("srq_skip", SKID, {}, {}, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]  # nothing half made is left


def test_parameters_that_do_not_fit_are_named(tmp_path: Path, yosys: None):
    with pytest.raises(RunError, match="srq_error_lanes_do_not_divide_channels"):
        synthesise("srq_width", library("width", "frame"), {"IN_LANES": 3}, {}, tmp_path)


def test_a_missing_memory_file_is_named(tmp_path: Path, yosys: None):
    with pytest.raises(RunError, match=r"srq_rom.v:\d+: ERROR: ?Can not open file `words.hex[`'] for"):
        synthesise("srq_rom", library("rom"), {"FILE": "words.hex"}, {"other.hex": "0"}, tmp_path)


def test_the_time_limit(tmp_path: Path, yosys: None, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OutOfTime, match="synthesis of srq_skid: not finished after 1 s, in the step: Executing "):
        synthesise("srq_skid", SKID, {}, {}, tmp_path, seconds=1)
    monkeypatch.setenv("SRQ_TOOL_SECONDS", "0.1")
    with pytest.raises(OutOfTime, match=r"not finished after 0\.1 s.* SRQ_TOOL_SECONDS allows more"):
        synthesise("srq_skid", SKID, {}, {}, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_without_yosys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SRQ_YOSYS", "/no/such/yosys")
    with pytest.raises(InputError, match="SRQ_YOSYS='/no/such/yosys' is not a program"):
        synthesise("srq_skid", SKID, {}, {}, tmp_path)
