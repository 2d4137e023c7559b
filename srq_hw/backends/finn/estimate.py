"""FINN's estimates, with its known errors put right and both figures shown. Everything here is an estimate.

LUTs and flip-flops of FINN's units come from `unit_costs`, of ours from `rtl.costs`: formulas fitted to what Yosys
makes of the sources (docs/costs.md). DSPs follow FINN's RTL, memories its RTL's rules (`memory`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from srq_hw.backends.finn.unit_costs import finn_ff, finn_lut
from srq_hw.backends.rtl.netlist import PORTS

#: FINN's names of what is counted
RESOURCES = ("LUT", "FF", "DSP", "BRAM_18K", "URAM")

NOT_COUNTED = (
    "what reads the memories of FINN's weights (a counter and registers of a beat)",
    "stream FIFOs other than those that balance skips, and the flip-flops of those: FINN sizes FIFOs by RTL "
    "simulation, which needs Vivado",
    "the shell around the accelerator (DMA, interconnect)",
)


@dataclass(frozen=True)
class Device:
    """What an estimate is held against: counts of the whole device, and the share of each that a design may take."""

    part: str
    clock_mhz: float
    dsp_kind: str
    lut: int
    dsp: int
    bram36: int
    uram: int
    utilization_max: float
    ff: int


@dataclass(frozen=True)
class NodeFigures:
    """One node: folding, cycles per frame, and what its own estimation functions say.

    raw: per RESOURCES; FF of FINN's units is 0, FINN has no such function. unit: parameters of the node in
    `unit_costs`; empty for ours, whose own figures stand. converters: LUT and FF of the width converters behind it.
    memory: RAMB18 and UltraRAMs of a threshold layer, LUTs of weights in distributed memory. fifo: what holds the early
    side of a join.
    """

    name: str
    op: str
    cycles: int
    pe: int
    simd: int
    raw: dict[str, int]
    unit: dict[str, int] = field(default_factory=dict)
    converters: dict[str, int] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    fifo: dict[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Operation without _rtl or _hls."""
        return self.op.rsplit("_", 1)[0]


@dataclass(frozen=True)
class Correction:
    """A figure of FINN that was replaced, over all nodes it concerns."""

    resource: str
    nodes: str
    count: int
    finn: int
    ours: int
    why: str


@dataclass(frozen=True)
class Estimate:
    """Estimate of a whole folded design; never a measurement. `nodes` holds both FINN's and our figures."""

    cycles_per_frame: int
    slowest_node: str
    clock_mhz: float
    fps: float
    lut: int
    ff: int
    dsp: int
    bram36: int
    uram: int
    utilization: dict[str, float]
    fits: bool
    short: dict[str, int]
    raw: dict[str, int]
    corrections: tuple[Correction, ...]
    not_counted: tuple[str, ...]
    nodes: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Estimate:
        """The inverse of `as_dict`."""
        fixed = dict(data)
        fixed["corrections"] = tuple(Correction(**item) for item in data["corrections"])
        fixed["not_counted"], fixed["nodes"] = tuple(data["not_counted"]), tuple(data["nodes"])
        return Estimate(**fixed)


# --- one function per corrected figure: None where FINN's stands ---------------------------------------------------


def mvu_lanes(weight_bits: int, input_bits: int, narrow: bool, dsp_kind: str) -> int:
    """Products that one DSP slice of FINN's RTL matrix unit computes: the formula of mvu.sv, NUM_LANES."""
    a_bits = PORTS[dsp_kind]  # lanes are packed into it (finn-rtllib/mvu/mvu.sv)
    if weight_bits == a_bits:
        return 1
    return 1 + (a_bits - (0 if narrow else 1) - weight_bits) // (weight_bits + input_bits - 1)


def _mvu_dsp(node: NodeFigures, device: Device) -> int | None:
    if node.op != "MVAU_rtl":
        return None
    weight_bits, input_bits = node.unit["weight_bits"], node.unit["act_bits"]
    lanes = mvu_lanes(weight_bits, input_bits, bool(node.unit["narrow"]), device.dsp_kind)
    if device.dsp_kind == "DSP58" and lanes <= 3 and weight_bits <= 8 and input_bits <= 9:
        return None  # the INT8 mode of the DSP58, which FINN's formula describes
    return -(-node.pe // lanes) * node.simd


def _logic(kind: str) -> Callable[[NodeFigures, Device], int | None]:
    return lambda node, device: finn_lut(kind, node.unit) if node.unit and node.kind == kind else None


def _registers(node: NodeFigures, device: Device) -> int | None:
    return finn_ff(node.kind, node.unit) if node.unit else None


def converter(source: int, reader: int) -> dict[str, int]:
    """LUT and FF of FINN's width converter between streams of so many bits; nothing where they are equal."""
    if source == reader:
        return {}
    widths = {"in_bits": source, "out_bits": reader}
    return {"LUT": finn_lut(_CONVERTER, widths), "FF": finn_ff(_CONVERTER, widths)}


def _converters(resource: str) -> Callable[[NodeFigures, Device], int | None]:
    return lambda node, device: node.converters.get(resource) or None


def _thresholds(resource: str) -> Callable[[NodeFigures, Device], int | None]:
    return lambda node, device: node.memory[resource] if node.op == "Thresholding_rtl" and node.memory else None


def _weight_rom(node: NodeFigures, device: Device) -> int | None:
    return node.memory.get("LUT") if node.op == "MVAU_rtl" else None


def _fifo(resource: str) -> Callable[[NodeFigures, Device], int | None]:
    return lambda node, device: node.fifo.get(resource) or None


@dataclass(frozen=True)
class _Rule:
    resource: str  # FINN's name of it
    replaces: bool  # True: our figure instead of FINN's; False: on top of it
    rule: Callable[[NodeFigures, Device], int | None]
    why: str


_CONVERTER = "StreamingDataWidthConverter"
_FITTED = "here a formula fitted to open synthesis of FINN's own sources"
#: what FINN says about LUTs of its RTL units
_LUTS = {
    "MVAU": "FINN says 0",
    "FMPadding": "FINN says 0",
    "ConvolutionInputGenerator": "FINN says 300, and one per bit and 38 words of rows in LUTs",
    "Thresholding": "FINN counts the memories of the search stages alone",
}
_THRESHOLDS = (
    "FINN takes the memory with the least waste for each search stage, that of a Versal included; here RAMB18 from the "
    "node's depth trigger on, LUTs below"
)
_SKIPS = (
    "FIFOs that hold the early side of a skip, not in FINN's sum: FINN's own cost of its FIFO, which goes to UltraRAM "
    "above 2,028 words where the device has any"
)
_RULES = (
    _Rule(
        "DSP",
        True,
        _mvu_dsp,
        "FINN assumes four products per DSP48 at any width; its RTL packs 1 + (A - w) // (w + a - 1) lanes of w-bit "
        "weights and a-bit activations into the A-bit port, two at 8 bits",
    ),
    *(_Rule("LUT", True, _logic(kind), f"{says}; {_FITTED}") for kind, says in _LUTS.items()),
    _Rule("FF", True, _registers, f"FINN counts none; {_FITTED}"),
    *(
        _Rule(resource, False, _converters(resource), f"width converters, which FINN inserts later; {_FITTED}")
        for resource in ("LUT", "FF")
    ),
    _Rule("LUT", False, _weight_rom, "weights in distributed memory, which FINN does not count: 64 bits per LUT6"),
    *(_Rule(resource, True, _thresholds(resource), _THRESHOLDS) for resource in ("BRAM_18K", "URAM")),
    *(_Rule(resource, False, _fifo(resource), _SKIPS) for resource in ("LUT", "BRAM_18K", "URAM")),
)


def estimate(nodes: Iterable[NodeFigures], device: Device) -> Estimate:
    """Add up the nodes, put FINN's known errors right, and hold the sum against the device."""
    table = list(nodes)
    ours = [dict(node.raw) for node in table]
    corrections = []
    for rule in _RULES:
        touched = [
            (index, figure) for index, node in enumerate(table) if (figure := rule.rule(node, device)) is not None
        ]
        finn = sum(table[index].raw[rule.resource] for index, _ in touched)
        before = sum(ours[index][rule.resource] for index, _ in touched)
        for index, figure in touched:
            ours[index][rule.resource] = figure if rule.replaces else ours[index][rule.resource] + figure
        after = sum(ours[index][rule.resource] for index, _ in touched)
        if after != before:
            kinds = ", ".join(sorted({table[index].op for index, _ in touched}))
            shown = (finn, after) if rule.replaces else (0, after - before)
            corrections.append(Correction(rule.resource, kinds, len(touched), *shown, rule.why))
    total = {key: sum(item[key] for item in ours) for key in RESOURCES}
    slowest = max(table, key=lambda node: node.cycles)
    used = {key.lower(): total[key] for key in ("LUT", "FF", "DSP", "URAM")} | {"bram36": -(-total["BRAM_18K"] // 2)}
    has = {key: getattr(device, key) for key in used}
    allowed = {key: int(count * device.utilization_max) for key, count in has.items()}
    short = {key: used[key] - allowed[key] for key in used if used[key] > allowed[key]}
    return Estimate(
        cycles_per_frame=slowest.cycles,
        slowest_node=slowest.name,
        clock_mhz=device.clock_mhz,
        fps=round(device.clock_mhz * 1e6 / slowest.cycles, 4),
        **used,
        utilization={key: round(used[key] / has[key], 4) if has[key] else float(used[key] > 0) for key in used},
        fits=not short,
        short=short,
        raw={key: sum(node.raw[key] for node in table) for key in RESOURCES},
        corrections=tuple(corrections),
        not_counted=NOT_COUNTED,
        nodes=tuple(_row(node, figures) for node, figures in zip(table, ours, strict=True)),
    )


def _row(node: NodeFigures, ours: dict[str, int]) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": node.op,
        "cycles": node.cycles,
        "pe": node.pe,
        "simd": node.simd,
        "finn": dict(node.raw),
        "ours": ours,
    }
