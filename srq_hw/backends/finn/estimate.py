"""FINN's estimates, with its known errors put right and both figures shown. Everything here is an estimate.

Per-unit figures come from synthesis of FINN's own sources with yosys (synth_xilinx, no placement): an 8-bit matrix unit
of PE 4 x SIMD 9 took 1,206 LUT and 18 DSP48E2, a padding unit 51 LUT, an 8-bit stream adder 149, an inner shuffle 324,
a width converter 209. docs/finn.md lists them with what they leave open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

RAMB18_BITS = 18432
#: a buffer up to this size goes into LUTs (shift registers, LUT RAM) instead of a block RAM
LUTRAM_BITS = 1024

MVU_LUT_PER_LANE = 1206 / 36  # 8-bit weights and activations; scaled with the operand widths
NODE_LUT: dict[str, int] = {  # op without backend suffix -> LUT per lane (PE or SIMD)
    "FMPadding": 51,
    "ElementwiseAdd": 149,
    "InnerShuffle": 324,
    "OuterShuffle": 324,
    "DuplicateStreams": 51,
    "StreamingConcat": 51,
}
PER_LANE = frozenset({"ElementwiseAdd"})  # the others cost about the same whatever their width
DWC_LUT = 209
#: where a figure of the tables above was not measured on the unit itself
ASSUMED = {
    "OuterShuffle": "as an inner shuffle",
    "DuplicateStreams": "as a padding unit",
    "StreamingConcat": "as a padding unit",
}
#: A operand of the multiplier, bits; lanes of a matrix unit are packed into it (finn-rtllib/mvu/mvu.sv)
DSP_A_BITS = {"DSP48E1": 25, "DSP48E2": 27, "DSP58": 27}

NOT_COUNTED = (
    "flip-flops (FINN has no estimate of them)",
    "stream FIFOs other than those that balance skips: FINN sizes them by RTL simulation, which needs Vivado",
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


@dataclass(frozen=True)
class NodeFigures:
    """One node: folding, widths in bits, cycles per frame, FINN's raw estimate, and memory FINN does not count.

    buffer_bits: what a shuffle has to hold. converters: LUTs of the width converters behind it. memory: our count of a
    threshold layer's memory, or the LUTs of weights in distributed memory. fifo: what holds the early side of a join.
    """

    name: str
    op: str
    cycles: int
    pe: int
    simd: int
    input_bits: int
    weight_bits: int
    narrow_weights: bool
    buffer_bits: int
    converters: int
    raw: dict[str, int]
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
    ff: int | None
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
    a_bits = DSP_A_BITS[dsp_kind]
    if weight_bits == a_bits:
        return 1
    return 1 + (a_bits - (0 if narrow else 1) - weight_bits) // (weight_bits + input_bits - 1)


def _mvu_dsp(node: NodeFigures, device: Device) -> int | None:
    if node.op != "MVAU_rtl":
        return None
    lanes = mvu_lanes(node.weight_bits, node.input_bits, node.narrow_weights, device.dsp_kind)
    if device.dsp_kind == "DSP58" and lanes <= 3 and node.weight_bits <= 8 and node.input_bits <= 9:
        return None  # the INT8 mode of the DSP58, which FINN's formula describes
    return -(-node.pe // lanes) * node.simd


def _mvu_lut(node: NodeFigures, device: Device) -> int | None:
    if node.op != "MVAU_rtl" or node.raw["LUT"]:
        return None
    return round(MVU_LUT_PER_LANE * node.pe * node.simd * (node.weight_bits + node.input_bits) / 16)


def _node_lut(node: NodeFigures, device: Device) -> int | None:
    if node.raw["LUT"] or node.kind not in NODE_LUT:
        return None
    return NODE_LUT[node.kind] * (max(node.pe, node.simd) if node.kind in PER_LANE else 1)


def converter_luts(source: int, reader: int) -> int:
    """LUTs of a width converter between streams of `source` and `reader` bits; 0 where they are equal.

    FINN's StreamingDataWidthConverter.lut_estimation, but never less than what one took in synthesis.
    """
    if source == reader:
        return 0
    between = math.lcm(source, reader)  # FINN widens to this first where neither is a multiple of the other
    luts = 0
    if source != between:
        luts += between + math.ceil(math.log2(between / source))
    if reader != between:
        luts += reader + math.ceil(math.log2(between / reader))
    return max(DWC_LUT, luts)


def _converter_lut(node: NodeFigures, device: Device) -> int | None:
    return node.converters or None


def _buffer_bram(node: NodeFigures, device: Device) -> int | None:
    return -(-node.buffer_bits // RAMB18_BITS) if node.buffer_bits > LUTRAM_BITS else None


def _thresholds(resource: str) -> Callable[[NodeFigures, Device], int | None]:
    return lambda node, device: node.memory[resource] if node.op == "Thresholding_rtl" and node.memory else None


def _weight_rom(node: NodeFigures, device: Device) -> int | None:
    return node.memory.get("LUT") if node.op == "MVAU_rtl" else None


def _fifo(resource: str) -> Callable[[NodeFigures, Device], int | None]:
    return lambda node, device: node.fifo.get(resource) or None


def _node_lut_text(op: str) -> str:
    """The figure of an operator, and where it was not measured on the unit itself, whose it is."""
    return f"{op} {NODE_LUT[op]}" + (f" (assumed {ASSUMED[op]})" if op in ASSUMED else "")


@dataclass(frozen=True)
class _Rule:
    resource: str  # FINN's name of it
    replaces: bool  # True: our figure instead of FINN's; False: on top of it
    rule: Callable[[NodeFigures, Device], int | None]
    why: str


_THRESHOLDS = (
    "FINN takes the memory with the least waste for each search stage, that of a Versal included; here what the node's "
    "depth trigger makes of it: RAMB18 from the trigger on, 64 bits per LUT6 below, one LUT per bit for a comparator"
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
    _Rule("LUT", True, _mvu_lut, "FINN says 0; yosys: 33.5 LUT per PE*SIMD at 8x8 bit, scaled with the operand widths"),
    _Rule("LUT", True, _node_lut, "FINN says 0; yosys: " + ", ".join(map(_node_lut_text, NODE_LUT))),
    _Rule(
        "LUT",
        False,
        _converter_lut,
        f"width converters FINN inserts later: its estimate, at least the {DWC_LUT} LUT of yosys",
    ),
    _Rule("LUT", False, _weight_rom, "weights in distributed memory, which FINN does not count: 64 bits per LUT6"),
    *(_Rule(resource, True, _thresholds(resource), _THRESHOLDS) for resource in ("LUT", "BRAM_18K", "URAM")),
    _Rule("BRAM_18K", False, _buffer_bram, "row buffers of shuffles, which FINN does not count"),
    *(_Rule(resource, False, _fifo(resource), _SKIPS) for resource in ("LUT", "BRAM_18K", "URAM")),
)


def node_cost(node: NodeFigures, device: Device) -> dict[str, int]:
    """One node's LUT, DSP, BRAM_18K and URAM after all corrections."""
    cost = dict(node.raw)
    for rule in _RULES:
        figure = rule.rule(node, device)
        if figure is not None:
            cost[rule.resource] = figure if rule.replaces else cost[rule.resource] + figure
    return cost


def estimate(nodes: Iterable[NodeFigures], device: Device) -> Estimate:
    """Add up the nodes, put FINN's known errors right, and hold the sum against the device."""
    table = list(nodes)
    keys = ("LUT", "DSP", "BRAM_18K", "URAM")
    ours = [dict(node.raw) for node in table]  # ends up as node_cost of each
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
    total = {key: sum(item[key] for item in ours) for key in keys}
    slowest = max(table, key=lambda node: node.cycles)
    used = {"lut": total["LUT"], "dsp": total["DSP"], "bram36": -(-total["BRAM_18K"] // 2), "uram": total["URAM"]}
    has = {"lut": device.lut, "dsp": device.dsp, "bram36": device.bram36, "uram": device.uram}
    allowed = {key: int(count * device.utilization_max) for key, count in has.items()}
    short = {key: used[key] - allowed[key] for key in used if used[key] > allowed[key]}
    return Estimate(
        cycles_per_frame=slowest.cycles,
        slowest_node=slowest.name,
        clock_mhz=device.clock_mhz,
        fps=round(device.clock_mhz * 1e6 / slowest.cycles, 4),
        ff=None,
        **used,
        utilization={key: round(used[key] / has[key], 4) if has[key] else float(used[key] > 0) for key in used},
        fits=not short,
        short=short,
        raw={key: sum(node.raw[key] for node in table) for key in keys},
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
