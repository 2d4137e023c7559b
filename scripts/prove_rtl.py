"""Every network with published weights as streaming Verilog, simulated whole against the reference; docs/fpga.md.

    .venv/bin/python scripts/prove_rtl.py --data ../shared/data [--networks edsr8_64_x2,idn_y_x4] [--bits 8,4]

Each network is built with `srq-hw build` for zcu104-rtl up to its simulation: small frames, many multipliers, so that a
frame passes in seconds. A second design, for video frames at 60 per second, is generated and counted by rule, where it
does not fit the board another for tiles; the very units of what fits, rows and weights in UltraRAM among them, are
simulated for small frames.
Builds resume. Exit status 1 where one integer differs or a network could not be proven.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python sees scripts/ only
from scripts.documents import put
from scripts.photographs import frames
from srq_hw.backends.rtl.fit import fit
from srq_hw.backends.rtl.generate import RtlDesign, generate
from srq_hw.backends.rtl.oracle import RtlResult, simulate
from srq_hw.compare.cells import weights_file
from srq_hw.errors import SrqError
from srq_hw.files import write_json
from srq_hw.graph.ir import IntGraph
from srq_hw.pipeline.engine import RESULTS, StepRecord
from srq_hw.pipeline.options import BuildOptions
from srq_hw.pipeline.run import run_build
from srq_hw.pipeline.session import macs_per_pixel
from srq_hw.target import load_target

REPO = Path(__file__).resolve().parents[1]
DOCUMENT = REPO / "docs" / "fpga.md"
BEGIN, END = "<!-- tables: scripts/prove_rtl.py -->", "<!-- end of tables -->"
TARGET = "zcu104-rtl"
NETWORKS = (
    *("edsr_mlperf_f32b5_x2", "idn_y_x2", "idn_y_x4", "edsr8_64_x2", "carn_x2", "carn_m_x4", "rnet9_64_x4"),
    "srresnet8_bn_x4",
)
#: products per cycle of the design that is simulated, all layers together
PRODUCTS = 400
#: frames of the design that is counted (height, width)
VIDEO = (180, 320)
#: frames of the design that is counted where that one does not fit: tiles of an image
TILES = (64, 64)
#: columns of the tables of such designs
HEADS = (
    "| network | bits | frames per second | DSP | BRAM36 | URAM | weights written, words | slowest node | fits | "
    "integers compared | differ |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)
#: frames in a row where its units are simulated
FRAMES = 3


@dataclass(frozen=True)
class Placed:
    """The design for frames of a size on the board, by rule; integers that its units made, where it fits.

    load_words: of weights that are written at run time.
    """

    size: tuple[int, int]
    fps: float
    dsp: int
    bram36: float
    uram: int
    load_words: int
    bottleneck: str
    short: tuple[str, ...]
    elements: int
    mismatches: int


@dataclass(frozen=True)
class Row:
    """What is known of a network at a width: figures of the simulated design, then of those that fit the board."""

    network: str
    bits: int
    nodes: int
    instances: int
    size: tuple[int, int]
    elements: int
    mismatches: int
    cycles: int
    ideal: int
    first_output: int
    seconds: float
    fitted: tuple[Placed, ...]


class Quiet:
    """Says which step runs."""

    def step_started(self, name: str, number: int, total: int) -> None:
        """A step begins."""
        print(f"  {name}", end="", flush=True)

    def advanced(self, done: int, total: int) -> None:
        """Not shown."""

    def step_ended(self, record: StepRecord) -> None:
        """Not shown."""


def prove(network: str, bits: int, side: int, data: Path, out: Path) -> Row:
    """Build the network for small frames up to the simulation of its Verilog."""
    started = time.perf_counter()
    target = load_target(TARGET)
    assert target.resources is not None
    folder = out / f"{network}_w{bits}"
    weights = weights_file(network, data / "weights")

    def build(stop_after: str, fps: float | None) -> None:
        options = BuildOptions(
            target=TARGET, out=folder, model=network, weights=weights, weight_bits=bits,
            act_bits=bits, edges=8 if bits < 8 else None, input_size=(side, side), fps=fps, stop_after=stop_after,
            rtl_sim=True,
        )  # fmt: skip
        run_build(options, Quiet())

    build("lower", None)
    graph = IntGraph.load(folder / "graph.json")
    cycles = macs_per_pixel(graph) * side * side / PRODUCTS
    build("oracle_rtl", target.resources.clock_mhz * 1e6 / cycles)
    print()
    design = json.loads((folder / RESULTS / "rtl.json").read_text())
    found = json.loads((folder / RESULTS / "oracle_rtl.json").read_text())
    oracle, simulation = found["oracle"], found["simulation"]
    fitted = [placed(graph, VIDEO, side, out / "models")]
    if fitted[0].short:
        fitted.append(placed(graph, TILES, side, out / "models"))
    return Row(
        network=network,
        bits=bits,
        nodes=len(graph.nodes),
        instances=design["instances"],
        size=tuple(simulation["size"]),
        elements=oracle["elements"],
        mismatches=oracle["mismatches"],
        cycles=simulation["cycles_per_frame"],
        ideal=simulation["ideal_cycles"],
        first_output=simulation["first_output"],
        seconds=round(time.perf_counter() - started, 1),
        fitted=tuple(fitted),
    )


def placed(graph: IntGraph, size: tuple[int, int], side: int, models: Path) -> Placed:
    """The fastest design that fits, up to 60 frames a second; its units, with FIFOs for small frames, are simulated."""
    resources = load_target(TARGET).resources
    assert resources is not None
    found = fit(graph, size, resources)
    result = None if found.short else simulate_units(graph, found.design, side, models)
    return Placed(
        size=size,
        fps=found.fps,
        dsp=found.demand.dsp,
        bram36=found.demand.bram36,
        uram=found.demand.uram,
        load_words=len(found.design.loads),
        bottleneck=found.design.bottleneck,
        short=tuple(found.short),
        elements=result.elements if result else 0,
        mismatches=result.mismatches if result else 0,
    )


def simulate_units(graph: IntGraph, design: RtlDesign, side: int, models: Path) -> RtlResult:
    """The lanes and memories of a design, with FIFOs for small frames, against the reference."""
    size = (side, side)
    folding = design.folding.resized(design.size, size)
    small = generate(graph, size, folding.wanted, design.name, design.fabric, folding)
    return simulate(small, graph, frames(graph, side, FRAMES), models)


def _rate(fps: float) -> str:
    """One decimal, more where that would be 0."""
    return f"{fps:.1f}" if fps >= 0.1 else f"{fps:.1g}"


def tables(rows: list[Row]) -> str:
    """Both tables in markdown."""
    lines = [
        "### Simulated whole, in Verilator",
        "",
        "| network | bits | nodes | instances | frames | integers compared | differ | cycles per frame | "
        "slowest unit | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.network} | {r.bits} | {r.nodes} | {r.instances} | {r.size[0]}x{r.size[1]} | {r.elements:,} | "
            f"{r.mismatches} | {r.cycles:,} | {r.ideal:,} | {r.cycles / r.ideal:.4f} |"
        )
    for place, what in enumerate(
        (f"{VIDEO[0]}x{VIDEO[1]}", f"{TILES[0]}x{TILES[1]}, where {VIDEO[0]}x{VIDEO[1]} does not fit")
    ):
        lines += ["", f"### Designs for frames of {what}, on {TARGET}, by rule; the same units simulated", "", *HEADS]
        lines += [_placed_line(r, r.fitted[place]) for r in rows if len(r.fitted) > place]
    return "\n".join(lines)


def _placed_line(row: Row, found: Placed) -> str:
    verdict = f"no: {', '.join(found.short)}" if found.short else "yes"
    seen = f"{found.elements:,} | {found.mismatches}" if found.elements else "– | –"
    return (
        f"| {row.network} | {row.bits} | {_rate(found.fps)} | {found.dsp:,} | {found.bram36:g} | {found.uram} | "
        f"{found.load_words:,} | {found.bottleneck} | {verdict} | {seen} |"
    )


def _row(item: dict[str, Any]) -> Row:
    """The inverse of `asdict`."""
    return Row(**item | {"fitted": tuple(Placed(**one) for one in item["fitted"])})


def write_document(rows: list[Row]) -> None:
    """Put the tables where the markers stand."""
    put(DOCUMENT, BEGIN, END, tables(rows))


def main(arguments: list[str]) -> int:
    """Run the proofs that are asked for; rows of earlier runs in --out stay in the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPO.parent / "shared" / "data")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--bits", default="8,4")
    parser.add_argument("--side", type=int, default=12, help="side of the frames that are simulated")
    parser.add_argument("--out", type=Path, default=REPO / "build" / "prove_rtl")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    unknown = set(options.networks.split(",")) - set(NETWORKS)
    if unknown:
        parser.error(f"--networks {', '.join(sorted(unknown))}: known are {', '.join(NETWORKS)}")
    failed = False
    for bits in map(int, options.bits.split(",")):
        for network in options.networks.split(","):
            print(f"{network}, {bits} bits:", end="", flush=True)
            (options.out / f"{network}_w{bits}.json").unlink(missing_ok=True)
            try:
                row = prove(network, bits, options.side, options.data, options.out)
            except SrqError as error:
                print(f"\n  {error}")
                failed = True
                continue
            compared = row.elements + sum(found.elements for found in row.fitted)
            differ = row.mismatches + sum(found.mismatches for found in row.fitted)
            print(f"  {differ} of {compared} integers differ, {row.seconds} s", flush=True)
            failed |= differ != 0 or row.elements == 0
            write_json(options.out / f"{network}_w{bits}.json", asdict(row))
    found = [json.loads(path.read_text()) for path in options.out.glob("*_w?.json")]
    order = list(NETWORKS)
    rows = sorted(map(_row, found), key=lambda row: (-row.bits, order.index(row.network)))
    write_document(rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
