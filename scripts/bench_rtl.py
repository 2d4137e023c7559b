"""Speed of the Verilog simulation; small networks for video at 60 frames per second: resources by rule and by Yosys.

    .venv/bin/python scripts/bench_rtl.py [--parts simulation,video] [--networks fsrcnn_x4,abpn_x3] [--write]

simulation: EDSR of 2 blocks of 16 features (7 convolutions), 64x64 to 128x128, 147,456 cycles per frame, and EDSR of 16
blocks of 64 features with small frames: seconds to build the model, frames per second. video: frames of 180x320 on
zcu104-rtl at 60 per second, 8 bits, weights drawn at random (shapes decide the resources); simulated with smaller
frames, synthesised whole, which takes minutes. --write puts the tables into docs/fpga.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python sees scripts/ only
from scripts.documents import put
from scripts.prove_rtl import Quiet
from srq_hw.backends.rtl.generate import generate
from srq_hw.backends.rtl.oracle import simulate
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.networks.registry import NETWORKS
from srq_hw.pipeline.engine import RESULTS
from srq_hw.pipeline.options import BuildOptions
from srq_hw.pipeline.run import run_build
from srq_hw.target import load_target

REPO = Path(__file__).resolve().parents[1]
DOCUMENT = REPO / "docs" / "fpga.md"
TARGET, FPS, VIDEO = "zcu104-rtl", 60.0, (180, 320)
#: features, blocks, side of the frames, cycles per frame that are asked for, frames in a row
SHAPES = ((16, 2, 64, 147_456, 12), (64, 16, 12, 500_000, 2))


def simulation() -> list[str]:
    """Build and run time of designs from nothing, with weights drawn at random; every integer must be right."""
    return [
        "### Simulation",
        "",
        "| design | instances | cycles per frame | slowest unit | integers compared | differ | model built in, s | "
        "frames per second |",
        "|---|---|---|---|---|---|---|---|",
        *(simulated(*shape) for shape in SHAPES),
    ]


def simulated(features: int, blocks: int, side: int, cycles: int, count: int) -> str:
    """A row: an EDSR of that shape, frames of side x side."""
    graph, size = edsr_graph(features, blocks, last_conv=False), (side, side)
    design = generate(graph, size, cycles)
    images = np.random.default_rng(0).integers(0, 256, (count, *size, 3))
    with tempfile.TemporaryDirectory(prefix="srq-bench-") as models:
        found = simulate(design, graph, images, Path(models))
    assert found.passed, found.first
    frames = count + 2 + 1 + 2  # the free run, the one with stalls, the one with a reset in the middle
    return (
        f"| {graph.name}, {side}x{side} | {len(design.netlist.instances)} | {found.cycles_per_frame:,} | "
        f"{found.ideal:,} | {found.elements:,} | {found.mismatches} | {found.build_seconds:.0f} | "
        f"{frames / found.run_seconds:.1f} |"
    )


def video(network: str, out: Path) -> str:
    """A row: the network with random weights, built up to its synthesis."""
    info = NETWORKS[network]
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    weights = out / f"{network}.pth"
    if not weights.exists():
        torch.save(info.factory().state_dict(), weights)
    options = BuildOptions(
        target=TARGET, out=out / network, model=network, weights=weights, weight_bits=8, act_bits=8, recipe="minmax",
        input_size=VIDEO, fps=FPS, stop_after="synth", rtl_sim=True, synth=True,
    )  # fmt: skip
    print(f"{network}:", end="", flush=True)
    run_build(options, Quiet())
    print()
    results = out / network / RESULTS
    design, oracle, synthesis = (
        json.loads((results / f"{name}.json").read_text()) for name in ("rtl", "oracle_rtl", "synth")
    )
    resources = load_target(TARGET).resources
    assert resources is not None and oracle["oracle"]["status"] == "passed", oracle
    blocks = synthesis["bram36"] + synthesis["bram18"] / 2
    sites = synthesis["lut"] + synthesis["lut_memory"]
    taken = [
        (sites, resources.lut),
        (synthesis["ff"], resources.ff),
        (synthesis["dsp"], resources.dsp.count),
        (blocks, resources.bram36),
        (synthesis["uram"], resources.uram),
    ]
    fits = all(count <= resources.utilization_max * there for count, there in taken)
    simulated = oracle["simulation"]
    return (
        f"| {network} | {design['fps']:.1f} | {design['dsp']} / {synthesis['dsp']} | {synthesis['lut']:,} + "
        f"{synthesis['lut_memory']:,} | {synthesis['ff']:,} | {design['bram36']:g} / {blocks:g} | "
        f"{design['uram']} / {synthesis['uram']} | "
        f"{'yes' if fits else 'no'} | {simulated['cycles_per_frame'] / simulated['ideal_cycles']:.4f} |"
    )


def videos(networks: list[str], out: Path) -> list[str]:
    """The table of the networks for video."""
    return [
        f"### {VIDEO[0]}x{VIDEO[1]} at {FPS:g} frames per second, {TARGET}, 8 bits",
        "",
        "| network | frames per second | DSP by rule / Yosys | LUT + as memory | FF | BRAM36 by rule / Yosys | "
        "URAM by rule / Yosys | fits | cycles against the slowest unit |",
        "|---|---|---|---|---|---|---|---|---|",
        *(video(network, out) for network in networks),
    ]


#: --parts: what makes the lines of its table from networks and a folder for builds
PARTS: dict[str, Callable[[list[str], Path], list[str]]] = {
    "simulation": lambda networks, out: simulation(),
    "video": videos,
}


def main(arguments: list[str]) -> int:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--networks", default="fsrcnn_x4,abpn_x3")
    parser.add_argument("--out", type=Path, default=REPO / "build" / "bench_rtl")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"--parts {', '.join(sorted(unknown))}: known are {', '.join(PARTS)}")
    for part in options.parts.split(","):
        text = "\n".join(PARTS[part](options.networks.split(","), options.out))
        print(text, end="\n\n")
        if options.write:
            put(DOCUMENT, f"<!-- {part}: scripts/bench_rtl.py -->", f"<!-- end of {part} -->", text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
