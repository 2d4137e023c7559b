"""The Vivado scripts, run in tclsh against a stub that records every command Tcl itself does not know."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from srq_hw.backends.handoff.rtl import write_rtl_handoff
from srq_hw.target import load_target

STUB = Path(__file__).with_name("stub.tcl")
WORD = re.compile(r"\{((?:[^{}]|\{[^{}]*\})*)\}|(\S+)")
Commands = list[list[str]]


def words(line: str) -> list[str]:
    """A line of the record as the words of the command (braces at most two deep)."""
    return [braced if braced or not bare else bare for braced, bare in WORD.findall(line)]


def source(
    script: Path, place: Path, *arguments: str, answers: Mapping[str, str] | None = None
) -> tuple[Commands, subprocess.CompletedProcess[str]]:
    """Run a script; the commands it gave, and how it ended."""
    tclsh = shutil.which("tclsh")
    if tclsh is None:
        pytest.skip("tclsh is not installed")
    place.mkdir(exist_ok=True)
    given = " ".join(f"{{{pattern}}} {{{answer}}}" for pattern, answer in (answers or {}).items())
    command = [tclsh, STUB, script, given, place / "record", *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60, check=False)
    return [words(line) for line in (place / "record").read_text().splitlines()], done


def names(commands: Commands) -> list[str]:
    return [command[0] for command in commands]


def of(commands: Commands, name: str) -> Commands:
    return [command[1:] for command in commands if command[0] == name]


def test_out_of_context_synthesis(made, tmp_path: Path):
    met = {"get_property SLACK*": "0.125"}
    commands, done = source(made.folder / "scripts/synth_ooc.tcl", tmp_path, str(tmp_path / "out"), answers=met)
    assert done.returncode == 0 and not done.stderr, done.stderr
    order = ["create_project", "read_verilog", "add_files", "read_xdc", "synth_design", "opt_design", "place_design"]
    order += ["route_design", "report_utilization", "report_timing_summary", "get_timing_paths"]
    places = [len(names(commands)) - names(commands)[::-1].index(name) for name in order]
    assert places == sorted(places)
    assert of(commands, "create_project") == [["-in_memory", "-part", "xczu7ev-ffvc1156-2-e"]]
    (read,) = of(commands, "read_verilog")
    assert read[0].split() == [str(made.folder / name) for name in (made.folder / "filelist.f").read_text().split()]
    (added,) = of(commands, "add_files")
    assert sorted(added[1].split()) == sorted(str(path) for path in (made.folder / "mem").iterdir())
    assert any(command[:2] == ["file_type", "Memory Initialization Files"] for command in of(commands, "set_property"))
    assert of(commands, "read_xdc") == [["-mode", "out_of_context", str(made.folder / "constraints/ooc.xdc")]]
    (synth,) = of(commands, "synth_design")
    assert synth[:6] == ["-top", "small_top_wrapper", "-part", "xczu7ev-ffvc1156-2-e", "-mode", "out_of_context"]
    written = [
        command[-1] for name in ("report_utilization", "report_timing_summary") for command in of(commands, name)
    ]
    assert len(written) == 4 and all(Path(path).parent == tmp_path / "out" for path in written)


def test_timing_that_is_not_met_is_an_error(made, tmp_path: Path):
    late = {"get_property SLACK*": "-0.004"}
    commands, done = source(made.folder / "scripts/synth_ooc.tcl", tmp_path, str(tmp_path / "out"), answers=late)
    assert done.returncode == 1 and "timing is not met: worst max slack -0.004 ns" in done.stderr
    assert "report_timing_summary" in names(commands)


def test_results_go_beside_the_bundle(made, tmp_path: Path):
    shutil.copytree(made.folder, tmp_path / "b")
    source(tmp_path / "b/scripts/synth_ooc.tcl", tmp_path / "run")
    source(tmp_path / "b/scripts/package_ip.tcl", tmp_path / "run")
    source(tmp_path / "b/scripts/block_design.tcl", tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "b_ip", "b_reports_ooc", "b_vivado", "run"]


def test_a_bundle_with_a_file_missing_is_refused(made, tmp_path: Path):
    shutil.copytree(made.folder, tmp_path / "b")
    (tmp_path / "b/rtl/small_top.v").unlink()
    _, done = source(tmp_path / "b/scripts/synth_ooc.tcl", tmp_path / "run")
    assert done.returncode == 1 and "filelist.f names rtl/small_top.v" in done.stderr
    shutil.copy(made.folder / "rtl/small_top.v", tmp_path / "b/rtl/small_top.v")
    (tmp_path / "b/mem/up.bias.hex").unlink()
    _, done = source(tmp_path / "b/scripts/synth_ooc.tcl", tmp_path / "run")
    count = len(made.design.memories)
    assert done.returncode == 1 and f"mem/ holds {count - 1} files, wanted {count}" in done.stderr


def test_package_ip(made, tmp_path: Path):
    commands, done = source(made.folder / "scripts/package_ip.tcl", tmp_path, str(tmp_path / "out"))
    assert done.returncode == 0 and not done.stderr, done.stderr
    (package,) = of(commands, "ipx::package_project")
    assert package[:2] == ["-root_dir", str(tmp_path / "out/small_top_wrapper")] and "-import_files" in package
    assert ["top", "small_top_wrapper", "<current_fileset>"] in of(commands, "set_property")
    assert ["supported_families", "zynquplus Production", "<ipx::current_core>"] in of(commands, "set_property")
    buses = of(commands, "ipx::associate_bus_interfaces")
    assert [bus[:4] for bus in buses] == [["-busif", side, "-clock", "aclk"] for side in ("s_axis", "m_axis")]
    assert names(commands)[-3:] == ["ipx::check_integrity", "ipx::save_core", "close_project"]


BOARD = {
    "get_board_parts*": "xilinx.com:zcu104:part0:1.0 xilinx.com:zcu104:part0:1.1",
    "get_property part*": "xczu7ev-ffvc1156-2-e",
}


def wired(commands: Commands, command: str) -> set[tuple[str, str]]:
    """What is connected: pairs of pins, as the stub answered for them."""
    pairs = of(commands, command)
    strip = re.compile(r"^<get_bd_(?:intf_)?pins_(.*)>$")
    found = {tuple(strip.sub(r"\1", pin) for pin in pair) for pair in pairs}
    assert len(found) == len(pairs)
    return {(first, second) for first, second in found}


def test_block_design_of_a_zynq_ultrascale(made, tmp_path: Path):
    script = made.folder / "scripts/block_design.tcl"
    commands, done = source(script, tmp_path, str(tmp_path / "out"), answers=BOARD)
    assert done.returncode == 0 and not done.stdout and not done.stderr, done.stderr
    assert ["board_part", "xilinx.com:zcu104:part0:1.1", "<current_project>"] in of(commands, "set_property")
    cells = {cell[-1]: cell[-2] for cell in of(commands, "create_bd_cell")}
    assert cells == {
        "ps": "xilinx.com:ip:zynq_ultra_ps_e",
        "axi_dma": "xilinx.com:ip:axi_dma",
        "core": "small_top_wrapper",
        "control": "xilinx.com:ip:axi_gpio",
        "reset": "xilinx.com:ip:proc_sys_reset",
        "core_reset": "xilinx.com:ip:proc_sys_reset",
        "registers": "xilinx.com:ip:smartconnect",
        "memory": "xilinx.com:ip:smartconnect",
    }
    (preset,) = of(commands, "apply_bd_automation")
    assert preset[:4] == ["-rule", "xilinx.com:bd_rule:zynq_ultra_ps_e", "-config", "apply_board_preset 1"]
    settings = " ".join(command[1] for command in of(commands, "set_property") if command[0] == "-dict")
    for setting in (
        "CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ 200",
        "CONFIG.PSU__USE__S_AXI_GP2 1",
        "CONFIG.c_include_sg 0",
        "CONFIG.c_m_axis_mm2s_tdata_width 32",
        "CONFIG.c_s_axis_s2mm_tdata_width 32",
        "CONFIG.S_TDATA_WIDTH 32 CONFIG.M_TDATA_WIDTH 32",
    ):
        assert setting in settings, setting
    buses = wired(commands, "connect_bd_intf_net")
    assert {("axi_dma/M_AXIS_MM2S", "core/s_axis"), ("core/m_axis", "axi_dma/S_AXIS_S2MM")} <= buses
    assert {("ps/M_AXI_HPM0_FPD", "registers/S00_AXI"), ("memory/M00_AXI", "ps/S_AXI_HP0_FPD")} <= buses
    nets = wired(commands, "connect_bd_net")
    clocked = {second for first, second in nets if first == "ps/pl_clk0"}
    assert {"core/aclk", "axi_dma/m_axi_mm2s_aclk", "ps/saxihp0_fpd_aclk", "memory/aclk"} <= clocked and len(
        clocked
    ) == 11
    assert ("core_reset/peripheral_aresetn", "core/aresetn") in nets and (
        "core/frame_error",
        "control/gpio_io_i",
    ) in nets
    every = {pin.split("/")[0] for net in (*nets, *buses) for pin in net}
    assert every == set(cells)
    order = ["assign_bd_address", "validate_bd_design", "save_bd_design", "generate_target", "make_wrapper"]
    assert [name for name in names(commands) if name in order] == order
    assert "launch_runs" not in names(commands)


def test_bitstream_with_its_description_for_pynq(made, tmp_path: Path):
    project = tmp_path / "out/project"
    made_files = (
        f"{project}/small_top.runs/impl_1/system_wrapper.bit "
        f"{project}/small_top.gen/sources_1/bd/system/hw_handoff/system.hwh"
    )
    script = made.folder / "scripts/block_design.tcl"
    arguments = (str(tmp_path / "out"), "bitstream")
    built = BOARD | {
        "get_property PROGRESS*": "100%",
        "get_property STATS.WNS*": "0.2",
        "make wait_on_run*": made_files,
    }
    commands, done = source(script, tmp_path, *arguments, answers=built)
    assert done.returncode == 0, done.stderr
    assert of(commands, "launch_runs") == [["impl_1", "-to_step", "write_bitstream", "-jobs", "4"]]
    assert (tmp_path / "out/small_top.bit").is_file() and (tmp_path / "out/small_top.hwh").is_file()
    _, done = source(script, tmp_path, *arguments, answers=built | {"get_property STATS.WNS*": "-0.2"})
    assert done.returncode == 1 and "timing is not met: worst slack -0.2 ns" in done.stderr
    _, done = source(script, tmp_path, *arguments, answers=built | {"get_property PROGRESS*": "60%"})
    assert done.returncode == 1 and "implementation stopped" in done.stderr


def test_block_design_of_a_zynq_7000(made, tmp_path: Path):
    folder = write_rtl_handoff(made.design, made.graph, load_target("pynq-z2"), made.images, tmp_path / "z2")
    board = {"get_board_parts*": "tul.com.tw:pynq-z2:part0:1.0", "get_property part*": "xc7z020clg400-1"}
    commands, done = source(folder / "scripts/block_design.tcl", tmp_path / "run", answers=board)
    assert done.returncode == 0 and not done.stdout, done.stderr
    assert of(commands, "get_board_parts") == [["-quiet", "*:pynq-z2:part0:*"]]
    assert of(commands, "create_bd_cell")[0] == ["-type", "ip", "-vlnv", "xilinx.com:ip:processing_system7", "ps"]
    (preset,) = of(commands, "apply_bd_automation")
    assert preset[3] == "make_external {FIXED_IO, DDR} apply_board_preset 1 Master Disable Slave Disable"
    assert ("memory/M00_AXI", "ps/S_AXI_HP0") in wired(commands, "connect_bd_intf_net")
    assert ("ps/FCLK_CLK0", "core/aclk") in wired(commands, "connect_bd_net")
    settings = " ".join(command[1] for command in of(commands, "set_property") if command[0] == "-dict")
    assert "CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ 100" in settings and "CONFIG.c_addr_width 32" in settings


def test_a_board_without_files_is_said_and_another_part_refused(made, tmp_path: Path):
    script = made.folder / "scripts/block_design.tcl"
    commands, done = source(script, tmp_path, str(tmp_path / "out"), answers={"get_board_parts*": ""})
    assert done.returncode == 0 and "WARNING: no board files for zcu104" in done.stdout
    assert "apply_bd_automation" not in names(commands)
    other = BOARD | {"get_property part*": "xczu9eg-ffvb1156-2-e"}
    _, done = source(script, tmp_path, str(tmp_path / "out"), answers=other)
    assert done.returncode == 1 and "are for xczu9eg-ffvb1156-2-e; the target is xczu7ev" in done.stderr


def test_a_part_without_processing_system_has_no_block_design(made, tmp_path: Path):
    folder = write_rtl_handoff(made.design, made.graph, load_target("alveo-u250"), made.images, tmp_path / "u250")
    assert not (folder / "scripts/block_design.tcl").exists()
    assert (
        "none: xcu250-figd2104-2L-e (Virtex UltraScale+) has no Zynq processing system"
        in (folder / "README.md").read_text()
    )
    commands, done = source(folder / "scripts/package_ip.tcl", tmp_path / "run")
    assert done.returncode == 0
    assert any(
        command[:2] == ["supported_families", "virtexuplus Production"] for command in of(commands, "set_property")
    )


def test_a_title_is_a_text_and_no_command(made, tmp_path: Path):
    """A target's title is free text: brackets, dollars and quotes reach Vivado as they are."""
    title = 'Mine [exec touch ran] $HOME "x" \\ end'
    target = load_target("zcu104").model_copy(update={"title": title})
    bundle = write_rtl_handoff(made.design, made.graph, target, made.images, tmp_path / "bundle")
    commands, done = source(bundle / "scripts/package_ip.tcl", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    shown = [command for command in of(commands, "set_property") if "display_name" in command]
    assert len(shown) == 1 and any(title.replace("\\", "\\\\") in word or title in word for word in shown[0]), shown
    assert not (tmp_path / "run/ran").exists()
