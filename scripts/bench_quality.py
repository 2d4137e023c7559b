"""What today's quantizers lose on the same float networks, weights, calibration patches and images, in one run.

    .venv/bin/python scripts/bench_quality.py --data ../shared/data --networks edsr8_64_x2 --sets Set5 --limit-images 2

Peers: onnxruntime, NNCF, Brevitas, AMD Quark (power of two), and the publisher's own uint8 file of one network. Each
runs in a virtual environment of its own below --environments, made from scripts/peers/requirements. docs/peers.md says
what they do. Results (quality.md, .csv, .json) are rewritten after every cell; a finished cell is not run again.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

# Run as a file, Python sees scripts/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.peers.catalogue import BITS, DEFAULT_PEERS, PEERS, Peer, Setting, choose
from scripts.peers.cells import Bench, Cell, measure
from scripts.peers.material import (
    Material,
    TestSet,
    calibration_images,
    patch_recipe,
    prepare,
    score_bicubic,
    score_float,
    test_set,
)
from scripts.peers.tables import Baseline, Results, write
from srq_hw.errors import InputError, SrqError
from srq_hw.networks.loading import load_network

REPO = Path(__file__).resolve().parents[1]

#: network -> its file below <data>/weights
WEIGHTS = {
    "edsr8_64_x2": "edsr8_64_x2.pth",
    "srresnet8_bn_x4": "srresnet8_bn_x4.pth",
    "rnet9_64_x4": "rnet9_64_x4.pth",
    "carn_x2": "carn_x2.pth",
    "carn_m_x2": "carn_m_x2x3x4.pth",
    "carn_m_x3": "carn_m_x2x3x4.pth",
    "carn_m_x4": "carn_m_x2x3x4.pth",
    "idn_y_x2": "idn_y_x2.pth",
    "idn_y_x4": "idn_y_x4.pth",
    "edsr_mlperf_f32b5_x2": "edsr_mlperf_f32b5_x2.pth",
}


@dataclass(frozen=True)
class Calibration:
    """Where the calibration patches come from: `count` squares of `size` low-resolution pixels."""

    folders: tuple[Path, ...]
    count: int
    size: int
    seed: int


def main() -> None:
    """Measure what the command line names. Exit status 2 for a user's mistake."""
    options = _options()
    signal.signal(signal.SIGTERM, _stop)
    try:
        results = run(
            options.networks.split(","),
            choose(options.peers.split(",")),
            _bits(options.bits),
            options.data,
            options.sets.split(","),
            Calibration(_folders(options), options.patches, options.patch_size, options.seed),
            Bench(
                options.out,
                options.environments,
                options.data / "weights",
                options.threads,
                options.timeout,
                options.retry,
            ),
            options.limit_images,
        )
    except SrqError as error:
        print(f"bench_quality: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    failed = sum(cell.error is not None for cell in results.cells)
    print(f"{len(results.cells)} cells, {failed} failed; {options.out / 'quality.md'}")


def run(
    networks: Sequence[str],
    peers: Sequence[Peer],
    bits: Sequence[int],
    data: Path,
    sets: Sequence[str],
    calibration: Calibration,
    bench: Bench,
    limit: int | None = None,
) -> Results:
    """Measure networks x peers x bits x sets; the tables in bench.out grow as cells are done."""
    found = Results(
        {
            "calibration": f"{calibration.count} patches of {calibration.size} from "
            + "+".join(folder.name for folder in calibration.folders),
            "seed": calibration.seed,
            "threads": bench.threads,
            "images per set": "all" if limit is None else f"the first {limit}",
        }
    )
    plan = [(name, _weights_file(name, data)) for name in networks]
    for name in sets:
        if not (data / name).is_dir():
            raise InputError(f"--sets {name}: {data / name} is not a folder of images")
    recipe = patch_recipe(calibration.count, calibration.size, calibration.seed)
    for name, weights in plan:
        net = load_network(name, weights)
        material = prepare(
            net,
            calibration_images(calibration.folders, net.scale, recipe),
            recipe,
            bench.out / "networks" / name,
        )
        images = [test_set(data / folder, net.scale, limit) for folder in sets]
        found.baselines += [_baseline(material, item) for item in images]
        for peer in peers:
            if not peer.networks or name in peer.networks:
                _measure(bench, peer, bits, material, images, found)
    write(found, bench.out)
    return found


def _measure(
    bench: Bench, peer: Peer, bits: Sequence[int], material: Material, images: Sequence[TestSet], found: Results
) -> None:
    """All settings and variants of a peer on one network; its stand-in after a failed environment."""
    for setting in _settings(peer, bits):
        for variant in peer.variants:
            cells = measure(bench, peer, setting, variant, material, images)
            found.cells += cells
            write(found, bench.out)
            for cell in cells:
                print(_line(cell, found), flush=True)
            if peer.stand_in and all(cell.error and cell.error.startswith("environment ") for cell in cells):
                _measure(bench, PEERS[peer.stand_in], bits, material, images, found)
                return


def _stop(number: int, frame: object) -> None:
    """End by an exception: it takes the running worker along."""
    sys.exit(128 + number)


def _settings(peer: Peer, bits: Sequence[int]) -> Iterable[Setting]:
    return [setting for setting in peer.settings if setting.bits in bits]


def _baseline(material: Material, images: TestSet) -> Baseline:
    net = material.net
    floats, bicubics = score_float(net, images), score_bicubic(net, images)
    return Baseline(net.name, images.name, len(images.pairs), fmean(floats.values()), fmean(bicubics.values()))


def _line(cell: Cell, found: Results) -> str:
    row = found.rows()[found.cells.index(cell)]
    result = f"FAILED: {cell.error}" if row["loss"] is None else f"{cell.psnr:.3f} dB, loss {row['loss']:.3f}"
    return f"{cell.network} {cell.images} {cell.setting} {cell.peer} {cell.variant}: {result}"


def _weights_file(name: str, data: Path) -> Path | None:
    """The file of a network in the data folder; the embedded network needs none."""
    if name not in WEIGHTS:
        return None
    path = data / "weights" / WEIGHTS[name]
    if not path.is_file():
        raise InputError(f"--networks {name}: its weights {path} do not exist; give their folder's parent with --data")
    return path


def _bits(text: str) -> list[int]:
    found = text.split(",")
    if not all(item in map(str, BITS) for item in found):
        raise InputError(f"--bits {text}: allowed are {', '.join(map(str, BITS))}, divided by commas")
    return [int(item) for item in found]


def _folders(options: argparse.Namespace) -> tuple[Path, ...]:
    return tuple(options.calibration or [options.data / "General100"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--networks", default=",".join(WEIGHTS), help="names divided by commas (default: all with weights)")
    add("--peers", default=",".join(DEFAULT_PEERS), help=f"of {', '.join(PEERS)}")
    add("--bits", default=",".join(map(str, BITS)), help="of 8, 6, 4; 6 and 4 keep head and tail at 8")
    add("--sets", default="Set5,Set14", help="folders of high-resolution images below --data")
    add("--patches", type=int, default=32, help="calibration patches")
    add("--patch-size", type=int, default=64, help="their side in low-resolution pixels")
    add("--seed", type=int, default=0, help="of the patches' positions")
    add("--calibration", type=Path, action="append", help="folder of high-resolution images (default General100)")
    add("--data", type=Path, default=REPO.parent / "shared" / "data", help="folder of the sets and weights/")
    add("--out", type=Path, default=REPO / "build" / "bench_quality", help="results")
    add("--environments", type=Path, default=REPO / "build" / "peers", help="where the peers' environments are made")
    add("--limit-images", type=int, help="only the first images of every set")
    add("--threads", type=int, default=1, help="of every peer")
    add("--timeout", type=float, default=7200, help="seconds a peer may take for one network and variant")
    add("--retry", action="store_true", help="measure failed cells again")
    return parser.parse_args()


if __name__ == "__main__":
    main()
