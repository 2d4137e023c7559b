"""Every network with published weights as an all-RTL FINN design, executed by FINN against the reference; docs/finn.md.

    .venv/bin/python scripts/prove_finn.py --data ../shared/data [--networks edsr8_64_x2] [--bits 8,4] [--library finn]

Integer graphs are those of scripts/prove_rtl.py, made by the rules of zcu104-rtl (bicubic skips, groups, slices); what
is in build/prove_rtl already is used. Each becomes a FINN design for small frames on the ZCU104 with all its sources,
and FINN executes the folded design on a piece of a photograph. The estimates are those of the small frames.
--simulate streams frames through the stitched sources in Verilator as well (minutes per design: FINN's modules compile
slowly). Rows are kept in --out: what is there for the same graph, size and library is not built again (--again does).
Exit status 1 where one integer differs, a node needs HLS, or a network could not be built.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python sees scripts/ only
from scripts.documents import put
from scripts.photographs import frames, photograph
from scripts.prove_rtl import NETWORKS, Quiet
from scripts.prove_rtl import TARGET as RULES
from srq_hw.backends.finn import build_finn, finn_oracle
from srq_hw.backends.finn.build import load_result
from srq_hw.backends.finn.stitched import simulate_stitched
from srq_hw.compare.cells import weights_file
from srq_hw.errors import SrqError
from srq_hw.files import write_json
from srq_hw.graph.ir import IntGraph
from srq_hw.pipeline.options import BuildOptions
from srq_hw.pipeline.run import run_build
from srq_hw.target import load_target

REPO = Path(__file__).resolve().parents[1]
DOCUMENT = REPO / "docs" / "finn.md"
BEGIN, END = "<!-- table: scripts/prove_finn.py -->", "<!-- end of table -->"
BEGIN_RTL, END_RTL = "<!-- simulations: scripts/prove_finn.py -->", "<!-- end of simulations -->"
#: frames that are streamed through a stitched design
FRAMES = 3
BOARD = "zcu104"


@dataclass(frozen=True)
class Row:
    """A network at a width in a library. nodes: of the FINN graph; finn, srq: whose; forks and windows count, too."""

    network: str
    bits: int
    library: str
    graph_sha256: str
    size: tuple[int, int]
    nodes: int
    hls: int
    finn: int
    srq: int
    tensors: int
    elements: int
    mismatches: int
    first_node: str
    seconds_estimates: float
    seconds_sources: float
    fps: float
    lut: int
    dsp: int
    bram36: int
    uram: int
    fits: bool
    without_lut: tuple[str, ...]


@dataclass(frozen=True)
class Simulated:
    """The stitched sources of a row in Verilator. origins: nodes by whose module computed them."""

    network: str
    bits: int
    library: str
    graph_sha256: str
    size: tuple[int, int]
    origins: dict[str, int]
    elements: int
    mismatches: int
    cycles: int
    ideal: int
    seconds: float


def integer_graph(network: str, bits: int, data: Path, folder: Path) -> IntGraph:
    """graph.json of an earlier build in the folder, else of a new one up to that step."""
    if not (folder / "graph.json").is_file():
        options = BuildOptions(
            target=RULES, out=folder, model=network, weights=weights_file(network, data / "weights"), weight_bits=bits,
            act_bits=bits, edges=8 if bits < 8 else None, input_size=(12, 12), stop_after="lower",
        )  # fmt: skip
        run_build(options, Quiet())
    return IntGraph.load(folder / "graph.json")


def prove(network: str, bits: int, library: str, graph: IntGraph, side: int, folder: Path) -> Row:
    """Build the design with its sources and execute it."""
    started = time.perf_counter()
    reached: dict[str, float] = {}

    def progress(step: str, seconds: float | None) -> None:
        if seconds is not None:
            reached[step] = time.perf_counter() - started

    target, size = load_target(BOARD), (side, side)
    result = build_finn(graph, target, size, None, folder, progress=progress, library=library)
    seconds = time.perf_counter() - started
    found = finn_oracle(result, graph, photograph(graph, side), nodewise=True)
    assert result.estimate is not None
    own = Counter(node["op"].startswith("Srq") for node in result.nodes)
    return Row(
        network=network,
        bits=bits,
        library=library,
        graph_sha256=graph.content_sha256,
        size=size,
        nodes=len(result.nodes),
        hls=len(result.hls_nodes),
        finn=own[False],
        srq=own[True],
        tensors=found.tensors,
        elements=found.elements,
        mismatches=found.mismatches,
        first_node=found.first_node,
        seconds_estimates=round(reached["generate_estimate_reports"], 1),
        seconds_sources=round(seconds, 1),
        fps=result.estimate.fps,
        lut=result.estimate.lut,
        dsp=result.estimate.dsp,
        bram36=result.estimate.bram36,
        uram=result.estimate.uram,
        fits=result.estimate.fits,
        without_lut=tuple(row["name"] for row in result.nodes if not row["ours"]["LUT"]),
    )


def simulate(row: Row, graph: IntGraph, folder: Path, models: Path) -> Simulated:
    """Stream shifted pieces of a photograph through the sources that the build left in the folder."""
    started = time.perf_counter()
    found = simulate_stitched(load_result(folder), graph, frames(graph, row.size[0], FRAMES), models)
    return Simulated(
        network=row.network,
        bits=row.bits,
        library=row.library,
        graph_sha256=row.graph_sha256,
        size=row.size,
        origins={str(origin): count for origin, count in found.origins.items()},
        elements=found.elements,
        mismatches=found.mismatches,
        cycles=found.cycles_per_frame,
        ideal=found.ideal,
        seconds=round(time.perf_counter() - started, 1),
    )


def simulations(rows: list[Simulated]) -> str:
    """In markdown."""
    lines = [
        "| network | bits | library | nodes by module | frames | integers compared | differ | cycles per frame | "
        "estimate | ratio | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        origins = ", ".join(f"{count} {origin}" for origin, count in sorted(r.origins.items()))
        lines.append(
            f"| {r.network} | {r.bits} | {r.library} | {origins} | {r.size[0]}x{r.size[1]} | {r.elements:,} | "
            f"{r.mismatches} | {r.cycles:,} | {r.ideal:,} | {r.cycles / r.ideal:.4f} | {r.seconds:.0f} |"
        )
    return "\n".join(lines)


def table(rows: list[Row]) -> str:
    """In markdown."""
    lines = [
        "| network | bits | library | nodes: FINN's + ours | HLS | frames | integers compared | differ | "
        "estimates, s | sources, s | frames/s | LUT | DSP | BRAM36 | URAM | fits |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.network} | {r.bits} | {r.library} | {r.finn} + {r.srq} | {r.hls} | {r.size[0]}x{r.size[1]} | "
            f"{r.elements:,} | {r.mismatches} | {r.seconds_estimates} | {r.seconds_sources} | {r.fps:.0f} | "
            f"{r.lut:,} | {r.dsp:,} | {r.bram36} | {r.uram} | {'yes' if r.fits else 'no'} |"
        )
    return "\n".join(lines)


def write_document(rows: list[Row], simulated: list[Simulated]) -> None:
    """Put the tables where the markers stand."""
    put(DOCUMENT, BEGIN, END, table(rows))
    put(DOCUMENT, BEGIN_RTL, END_RTL, simulations(simulated))


def kept_row(path: Path, graph: IntGraph, side: int) -> Row | None:
    """The row of an earlier run, if it is of this graph and size."""
    if not path.is_file():
        return None
    row = Row(**json.loads(path.read_text()))
    return row if row.graph_sha256 == graph.content_sha256 and tuple(row.size) == (side, side) else None


def main(arguments: list[str]) -> int:
    """Run the proofs that are asked for; rows of earlier runs in --out stay in the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPO.parent / "shared" / "data")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--bits", default="8,4")
    parser.add_argument("--library", default="finn,srq")
    parser.add_argument("--side", type=int, default=16, help="side of the frames")
    parser.add_argument("--graphs", type=Path, default=REPO / "build" / "prove_rtl")
    parser.add_argument("--out", type=Path, default=REPO / "build" / "prove_finn")
    parser.add_argument("--again", action="store_true", help="build what is there, too")
    parser.add_argument("--simulate", action="store_true", help="stitch and simulate the sources in Verilator")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    unknown = set(options.networks.split(",")) - set(NETWORKS)
    if unknown:
        parser.error(f"--networks {', '.join(sorted(unknown))}: known are {', '.join(NETWORKS)}")
    failed = False
    cells = [
        (library, int(bits), network)
        for library in options.library.split(",")
        for bits in options.bits.split(",")
        for network in options.networks.split(",")
    ]
    for library, bits, network in cells:
        name = f"{network}_w{bits}_{library}"
        print(f"{name}:", end="", flush=True)
        try:
            graph = integer_graph(network, bits, options.data, options.graphs / f"{network}_w{bits}")
            row = None if options.again else kept_row(options.out / f"{name}.json", graph, options.side)
            if row is None:
                row = prove(network, bits, library, graph, options.side, options.out / name)
                write_json(options.out / f"{name}.json", asdict(row))
                (options.out / f"{name}.rtl.json").unlink(missing_ok=True)
            if options.simulate and not (options.out / f"{name}.rtl.json").is_file():
                rtl = simulate(row, graph, options.out / name, options.out / "models")
                write_json(options.out / f"{name}.rtl.json", asdict(rtl))
                print(f"  RTL: {rtl.mismatches} of {rtl.elements} differ, {rtl.seconds} s;", end="", flush=True)
                failed |= rtl.mismatches != 0 or rtl.elements == 0
        except SrqError as error:
            print(f"\n  {error}")
            failed = True
            continue
        print(
            f"  {row.hls} HLS, {row.mismatches} of {row.elements} integers differ, {row.seconds_sources} s", flush=True
        )
        failed |= row.mismatches != 0 or row.elements == 0 or row.hls != 0
    found = {path: json.loads(path.read_text()) for path in options.out.glob("*_w?_*.json")}
    rows = [Row(**item) for path, item in found.items() if not path.name.endswith(".rtl.json")]
    simulated = [Simulated(**item) for path, item in found.items() if path.name.endswith(".rtl.json")]

    def place(row: Row | Simulated) -> tuple[str, int, int]:
        return row.library, -row.bits, NETWORKS.index(row.network)

    write_document(sorted(rows, key=place), sorted(simulated, key=place))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
