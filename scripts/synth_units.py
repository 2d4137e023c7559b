"""Print the table of docs/rtl.md that says what units of the Verilog library take of an UltraScale+ FPGA.

    .venv/bin/python scripts/synth_units.py            # print
    .venv/bin/python scripts/synth_units.py --write    # put it between the marks of docs/rtl.md

Constants are random with a fixed seed; the LUTs of a unit that holds some change by per cents with them. Results are
kept in build/synth, and made anew where a source, a parameter or the version of Yosys has changed (minutes).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from srq_hw.backends.rtl.memories import conv_bias, conv_weights, requant_entries, threshold_steps
from srq_hw.backends.rtl.synth import Figures, synthesise
from srq_hw.backends.rtl.verilate import LIBRARY
from srq_hw.errors import SrqError
from srq_hw.tools import require_tool

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "rtl.md"
BEGIN, END = "<!-- table: scripts/synth_units.py -->", "<!-- end of table -->"
NOTHING = "–"
PE, SIMD, IN, OUT, SIZE = 4, 9, 18, 16, 64
FOLD = IN // SIMD * 9  # beats per result of a 3x3 convolution


@dataclass(frozen=True)
class Unit:
    """One row. products: per cycle; parts: the library modules beside the top, without srq_."""

    about: str
    top: str
    parameters: dict[str, int | str]
    parts: str = ""
    products: int = 0
    memories: Callable[[], dict[str, str]] = field(default=dict)


def mac(bits: int) -> Unit:
    """The products alone, weights and biases from outside."""
    widths: dict[str, int | str] = {"PE": PE, "SIMD": SIMD, "W_BITS": bits, "A_BITS": bits, "A_SIGNED": 0}
    about = f"{bits} x {bits} bits"
    widths |= {"FOLD": FOLD, "RESULTS": SIZE * SIZE * OUT // PE}
    return Unit(about, "srq_mac", widths, "dot adder_tree", PE * SIMD)


def conv(bits: int) -> Unit:
    """A whole 3x3 convolution, weights in block RAM."""
    plan = mac(bits)
    parameters = {name: plan.parameters[name] for name in ("PE", "SIMD", "W_BITS", "A_BITS", "A_SIGNED")}
    parameters |= {"HEIGHT": SIZE, "WIDTH": SIZE, "CHANNELS_IN": IN, "CHANNELS_OUT": OUT, "WEIGHT_STYLE": "block"}
    parameters |= {"WEIGHT_FILE": "weights.hex", "BIAS_FILE": "bias.hex"}

    def memories() -> dict[str, str]:
        random = np.random.default_rng(bits)
        weights = random.integers(-(1 << (bits - 1)), 1 << (bits - 1), (OUT, IN, 3, 3))
        bias = random.integers(-9999, 9999, OUT, endpoint=True)
        return {"weights.hex": conv_weights(weights, PE, SIMD, bits), "bias.hex": conv_bias(bias, PE, 24)}

    about = f"{bits} x {bits} bits, window included, weights in block RAM"
    return Unit(about, "srq_conv", parameters, "conv_core window rom mac dot adder_tree", plan.products, memories)


def requant() -> Unit:
    """A multiplier and a shift per channel."""
    parameters: dict[str, int | str] = {"LANES": 4, "FOLDS": 4, "ACC_BITS": 24, "MULT_BITS": 17}
    parameters |= {"SHIFT_MIN": 8, "SHIFT_MAX": 23, "FILE": "requant.hex"}

    def memories() -> dict[str, str]:
        random = np.random.default_rng(1)
        multiplier, shift = random.integers(1 << 15, 1 << 16, OUT), random.integers(8, 23, OUT, endpoint=True)
        return {"requant.hex": requant_entries(multiplier, shift, None, 4, 17, 8, 23)}

    about = "4 lanes, 24-bit accumulators, 17-bit multipliers, shift per channel"
    return Unit(about, "srq_requant", parameters, "wide_multiply shift_right", memories=memories)


def threshold() -> Unit:
    """15 thresholds per channel."""
    parameters: dict[str, int | str] = {"LANES": 4, "FOLDS": 4, "ACC_BITS": 24, "T_BITS": 24, "BITS": 4, "FILE": "t"}

    def memories() -> dict[str, str]:
        levels = np.sort(np.random.default_rng(2).integers(-(1 << 23), 1 << 23, (OUT, 15)), axis=1)
        return threshold_steps(levels, 4, 24, "t")

    return Unit("4 lanes, 24-bit accumulators, 4 bits out", "srq_threshold", parameters, memories=memories)


def plain_units() -> list[Unit]:
    """Those without a memory file."""
    window: dict[str, int | str] = {"HEIGHT": SIZE, "WIDTH": SIZE, "CHANNELS": IN, "LANES": SIMD, "REPEAT": OUT // PE}
    frame: dict[str, int | str] = {"HEIGHT": SIZE, "WIDTH": SIZE}
    factors: dict[str, int | str] = {"A_FACTOR": 19661, "B_FACTOR": -26214}
    add: dict[str, int | str] = frame | {"CHANNELS": OUT, "LANES": 4}
    return [
        Unit(f"3x3, {IN} channels of 8 bits, {SIMD} lanes, rows of {SIZE}", "srq_window", window),
        Unit("512 beats of 32 bits", "srq_fifo", {"BITS": 32, "DEPTH": 512}),
        Unit("96 to 32 bits", "srq_width", frame | {"CHANNELS": 12, "IN_LANES": 12, "OUT_LANES": 4}, "frame"),
        Unit("4 lanes of 8 bits, factors 1", "srq_add", add | {"OUT_BITS": 10}, "frame"),
        Unit("4 lanes of 8 bits, 16-bit factors", "srq_add", add | factors, "frame"),
        Unit(
            f"12 to 3 channels of 8 bits, rows of {SIZE}",
            "srq_shuffle",
            frame | {"CHANNELS": 12, "BLOCK": 2, "IN_LANES": 12, "OUT_LANES": 3},
            "rows width frame",
        ),
    ]


def units() -> list[Unit]:
    """The rows of the table."""
    return [mac(8), mac(4), conv(8), conv(4), requant(), threshold(), *plain_units()]


def run(unit: Unit, folder: Path) -> Figures:
    """Synthesise one unit for UltraScale+."""
    sources = tuple(LIBRARY / f"srq_{name}.v" for name in [unit.top.removeprefix("srq_"), *unit.parts.split()])
    return synthesise(unit.top, sources, unit.parameters, unit.memories(), folder)


def row(unit: Unit, figures: Figures) -> str:
    """One line of the table."""
    share = f"{figures.dsp / unit.products:g}" if unit.products else NOTHING
    logic = [f"{number:,}" for number in (figures.lut, figures.lut_memory, figures.ff)]
    cells = [*logic, f"{figures.carry8:g}", str(figures.dsp)]
    blocks = f"{figures.bram36}/{figures.bram18}"
    return f"| `{unit.top}` {unit.about} | {' | '.join(cells)} | {share} | {blocks} |"


def table(rows: list[str], version: str) -> list[str]:
    """The lines between the marks."""
    return [
        f"Yosys {version}, `synth_xilinx -family xcup`. The first four units have PE {PE}, SIMD {SIMD}: {PE * SIMD}",
        f"products per cycle, {IN} to {OUT} channels on {SIZE}x{SIZE}.",
        "",
        "| unit | LUT | LUT as memory | FF | CARRY8 | DSP48E2 | per product | RAMB36/18 |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def replace_table(text: str, lines: list[str]) -> str:
    """The document with another table between its two marks."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return before + "\n".join([BEGIN, *lines, END]) + after


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/rtl.md")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "synth", help="where results are kept")
    args = parser.parse_args()
    rows = []
    try:
        version = str(require_tool("yosys").version)
        for unit in units():
            figures = run(unit, args.folder)
            rows.append(row(unit, figures))
            print(f"{unit.top} {unit.about}: {figures.seconds:g} s", file=sys.stderr)
    except SrqError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    lines = table(rows, version)
    print("\n".join(lines))
    if args.write:
        DOCUMENT.write_text(replace_table(DOCUMENT.read_text(), lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
