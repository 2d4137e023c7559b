"""Every network with published weights as streaming Verilog, simulated whole against the reference; docs/fpga.md.

    .venv/bin/python scripts/prove_rtl.py --data ../shared/data [--networks edsr8_64_x2,idn_y_x4] [--bits 8,4]

Each network is built with `srq-hw build` for zcu104-rtl up to its simulation: small frames, many multipliers, so that a
frame passes in seconds. A second design, for video frames at 60 per second, is generated and counted by rule; where it
fits the board its very units, rows in UltraRAM among them, are simulated for small frames.
Builds resume. Exit status 1 where one integer differs or a network could not be proven.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

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
#: frames in a row where its units are simulated
FRAMES = 3


@dataclass(frozen=True)
class Row:
    """What is known of a network at a width; figures of the simulated design, then of the one for video."""

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
    video_fps: float
    video_dsp: int
    video_bram36: float
    video_uram: int
    video_bottleneck: str
    video_short: tuple[str, ...]
    video_elements: int
    video_mismatches: int


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
    video = fit(graph, VIDEO, target.resources)
    again = None if video.short else simulate_video(graph, video.design, side, out / "models")
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
        video_fps=video.fps,
        video_dsp=video.demand.dsp,
        video_bram36=video.demand.bram36,
        video_uram=video.demand.uram,
        video_bottleneck=video.design.bottleneck,
        video_short=tuple(video.short),
        video_elements=again.elements if again else 0,
        video_mismatches=again.mismatches if again else 0,
    )


def simulate_video(graph: IntGraph, design: RtlDesign, side: int, models: Path) -> RtlResult:
    """The lanes and memories of a design for video, with FIFOs for small frames, against the reference."""
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
    lines += [
        "",
        f"### Designs for frames of {VIDEO[0]}x{VIDEO[1]} on {TARGET}, by rule; the same units simulated",
        "",
        "| network | bits | frames per second | DSP | BRAM36 | URAM | slowest node | fits | integers compared | "
        "differ |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        verdict = f"no: {', '.join(r.video_short)}" if r.video_short else "yes"
        seen = f"{r.video_elements:,} | {r.video_mismatches}" if r.video_elements else "– | –"
        lines.append(
            f"| {r.network} | {r.bits} | {_rate(r.video_fps)} | {r.video_dsp:,} | {r.video_bram36:g} | "
            f"{r.video_uram} | {r.video_bottleneck} | {verdict} | {seen} |"
        )
    return "\n".join(lines)


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
            compared, differ = row.elements + row.video_elements, row.mismatches + row.video_mismatches
            print(f"  {differ} of {compared} integers differ, {row.seconds} s", flush=True)
            failed |= differ != 0 or row.elements == 0
            write_json(options.out / f"{network}_w{bits}.json", asdict(row))
    found = [json.loads(path.read_text()) for path in options.out.glob("*_w?.json")]
    order = list(NETWORKS)
    rows = sorted((Row(**item) for item in found), key=lambda row: (-row.bits, order.index(row.network)))
    write_document(rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
