"""DAQ, the run-time reference, on every network with published weights: the figures of docs/quality.md.

    .venv/bin/python scripts/score_daq.py --data ../shared/data [--networks idn_y_x4] [--bits 8,6,4] --out build/daq

DAQ takes new steps for every image while the network runs, so nothing of it can be built (docs/qat.md): a figure to
compare with, in float, inner convolutions only. Prints the losses and writes daq.json; rows that stand there are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python sees scripts/ only
from scripts.prove_rtl import NETWORKS, REPO
from srq_hw.compare.cells import weights_file
from srq_hw.compare.floats import run_tiled
from srq_hw.errors import SrqError
from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.datasets import iter_pairs
from srq_hw.evaluate.metrics import psnr_y
from srq_hw.files import write_json
from srq_hw.networks.loading import load_network
from srq_hw.normalform.trace import normalize
from srq_hw.qat.daq import run_daq


def score(network: str, widths: list[int], images: Path, data: Path) -> list[dict[str, Any]]:
    """Rows of a network on a folder of images: mean PSNR on Y of float and of DAQ at each width, weights = activations.

    A network that sees Y gets the rounded Y of the low-resolution image, as everywhere in docs/quality.md.
    """
    net = load_network(network, weights_file(network, data / "weights"))
    normal = normalize(net)
    real: list[float] = []
    daq: dict[int, list[float]] = {bits: [] for bits in widths}
    for pair in iter_pairs(images, net.scale):
        seen = network_view(pair.lr, net.channels)
        real.append(psnr_y(run_tiled(net, normal, seen), pair.hr, net.scale))
        for bits in widths:
            daq[bits].append(psnr_y(run_daq(normal, seen, bits, bits), pair.hr, net.scale))
    mean = float(np.mean(real))
    return [
        {
            "network": network,
            "bits": bits,
            "images": images.name,
            "count": len(real),
            "float_psnr": round(mean, 4),
            "drop_psnr": round(mean - float(np.mean(daq[bits])), 4),
        }
        for bits in widths
    ]


def main(arguments: list[str]) -> int:
    """Score what daq.json does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPO.parent / "shared" / "data")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--bits", default="8,6,4")
    parser.add_argument("--sets", default="Set5,Set14")
    parser.add_argument("--out", type=Path, default=REPO / "build" / "daq")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    place = options.out / "daq.json"
    rows: list[dict[str, Any]] = json.loads(place.read_text()) if place.exists() else []
    for network in options.networks.split(","):
        for images in options.sets.split(","):
            held = {row["bits"] for row in rows if (row["network"], row["images"]) == (network, images)}
            missing = [bits for bits in map(int, options.bits.split(",")) if bits not in held]
            if not missing:
                continue
            try:
                found = score(network, missing, options.data / images, options.data)
            except SrqError as error:
                print(f"{network}: {error}", file=sys.stderr)
                return 1
            rows += found
            write_json(place, rows)
            print(network, images, " ".join(f"{row['bits']} bits {row['drop_psnr']:.3f}" for row in found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
