"""Device families and boards: the processing system of a part, and what Vivado calls the board."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessingSystem:
    """A Zynq processing system in a block design.

    settings: its CONFIG keys (without ``CONFIG.``) and values, ``{clock}`` for MHz. clocked: pins that take the clock
    of the logic. external: interfaces that its block automation takes to the pins of the chip.
    """

    vlnv: str
    rule: str
    settings: tuple[tuple[str, str], ...]
    external: str
    clock: str
    reset: str
    clocked: tuple[str, ...]
    master: str
    slave: str
    address_bits: int


# PG201: GP0/GP1/GP2 of the masters are HPM0_FPD, HPM1_FPD, HPM0_LPD; GP2 of the slaves is HP0_FPD.
ZYNQ_ULTRA = ProcessingSystem(
    vlnv="xilinx.com:ip:zynq_ultra_ps_e",
    rule="xilinx.com:bd_rule:zynq_ultra_ps_e",
    settings=(
        ("PSU__FPGA_PL0_ENABLE", "1"),
        ("PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ", "{clock}"),
        ("PSU__USE__M_AXI_GP0", "1"),
        ("PSU__USE__M_AXI_GP1", "0"),
        ("PSU__USE__M_AXI_GP2", "0"),
        ("PSU__USE__S_AXI_GP2", "1"),
    ),
    external="",
    clock="pl_clk0",
    reset="pl_resetn0",
    clocked=("maxihpm0_fpd_aclk", "saxihp0_fpd_aclk"),
    master="M_AXI_HPM0_FPD",
    slave="S_AXI_HP0_FPD",
    address_bits=64,
)
ZYNQ_7000 = ProcessingSystem(
    vlnv="xilinx.com:ip:processing_system7",
    rule="xilinx.com:bd_rule:processing_system7",
    settings=(
        ("PCW_FPGA0_PERIPHERAL_FREQMHZ", "{clock}"),
        ("PCW_USE_M_AXI_GP0", "1"),
        ("PCW_USE_S_AXI_HP0", "1"),
    ),
    external="FIXED_IO, DDR",
    clock="FCLK_CLK0",
    reset="FCLK_RESET0_N",
    clocked=("M_AXI_GP0_ACLK", "S_AXI_HP0_ACLK"),
    master="M_AXI_GP0",
    slave="S_AXI_HP0",
    address_bits=32,
)


@dataclass(frozen=True)
class Family:
    """A device family by the beginning of the part number. ip_name: what IP packaging calls it."""

    pattern: str
    title: str
    ip_name: str
    ps: ProcessingSystem | None = None


FAMILIES = (
    Family(r"xc7z", "Zynq-7000", "zynq", ZYNQ_7000),
    Family(r"xczu\d+dr", "Zynq UltraScale+ RFSoC", "zynquplusRFSOC", ZYNQ_ULTRA),
    Family(r"xczu|xck2[46]", "Zynq UltraScale+", "zynquplus", ZYNQ_ULTRA),
    Family(r"xc7a", "Artix-7", "artix7"),
    Family(r"xc7k", "Kintex-7", "kintex7"),
    Family(r"xc7v", "Virtex-7", "virtex7"),
    Family(r"xcau", "Artix UltraScale+", "artixuplus"),
    Family(r"xcku\w*p-", "Kintex UltraScale+", "kintexuplus"),
    Family(r"xcku", "Kintex UltraScale", "kintexu"),
    Family(r"xcu\d|xcvu\w*p-", "Virtex UltraScale+", "virtexuplus"),
    Family(r"xcvu", "Virtex UltraScale", "virtexu"),
    Family(r"xcv", "Versal", "versal"),
)
UNKNOWN = Family("", "unknown", "")

#: FINN's name of a board -> name in the board files of Vivado (vendor:NAME:part0:version)
BOARD_FILES = {
    "KV260_SOM": "kv260_som",
    "Pynq-Z1": "pynq-z1",
    "Pynq-Z2": "pynq-z2",
    "RFSoC2x2": "rfsoc2x2",
    "RFSoC4x2": "rfsoc4x2",
    "Ultra96": "ultra96v1",
    "Ultra96-V2": "ultra96v2",
    "ZCU102": "zcu102",
    "ZCU104": "zcu104",
    "ZCU111": "zcu111",
}


def family_of(part: str) -> Family:
    """The family of a part, UNKNOWN where the table has none."""
    return next((family for family in FAMILIES if re.match(family.pattern, part)), UNKNOWN)
