"""Tables of docs/quality.md from the results of `srq-hw compare` and `scripts/bench_quality.py`.

    .venv/bin/python scripts/make_quality_docs.py --compare build/compare/compare.json --peers build/peers/quality.json

Several files of each kind may be given; a later one wins where both hold the same cell. The text around the tables
stays.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "quality.md"
BEGIN, END = "<!-- tables: scripts/make_quality_docs.py -->", "<!-- end of tables -->"

#: (target, weight bits, activation bits, bits of the tail) -> setting of the peers' benchmark, and the table's title
SETTINGS = {
    ("int-generic", 8, 8, None): ("W8A8", "W8A8, all layers"),
    ("int-generic", 6, 6, None): ("W6A6 ht8", "W6A6, first and last convolutions 8 bits"),
    ("int-generic", 4, 4, None): ("W4A4 ht8", "W4A4, first and last convolutions 8 bits"),
    ("int-generic", 4, 4, 8): ("W4A4 tail 8", "W4A4, first and last convolutions and upsampler 8 bits (--tail 8)"),
    ("dpu-pow2", 8, 8, None): ("W8A8 pow2", "W8A8, all layers and sums, one power-of-two scale per tensor (dpu-pow2)"),
}
METHODS = ("minmax", "percentile", "mse", "psnr", "dbdc", "pac", "srq")
NOT_RUN = "–"

Setting = tuple[str, int, int, int | None]
Losses = dict[tuple[str, Setting, str, str], str]


def ours(files: list[Path]) -> tuple[Losses, list[str], dict[tuple[str, Setting, str], float]]:
    """(network, setting, method, set) -> loss as text; the networks in order; (network, setting, method) -> seconds."""
    losses: Losses = {}
    seconds: dict[tuple[str, Setting, str], float] = {}
    networks: list[str] = []
    for path in files:
        data = json.loads(path.read_text())
        tail = data["policy"]["tail"]
        for cell in data["cells"]:
            name, bits = cell["network"], (data["target"]["name"], cell["weight_bits"], cell["act_bits"], tail)
            if name not in networks:
                networks.append(name)
            if cell["calibration_seconds"] is not None:
                seconds[name, bits, cell["method"]] = cell["calibration_seconds"]
            for images, found in cell["sets"].items():
                text = "failed" if cell["error"] else f"{found['drop_psnr']:.3f}"
                losses[name, bits, cell["method"], images] = text
    return losses, networks, seconds


def peers(files: list[Path]) -> dict[tuple[str, str, str], tuple[float, str]]:
    """(network, setting, set) -> least loss of any peer, and whose it is."""
    best: dict[tuple[str, str, str], tuple[float, str]] = {}
    for path in files:
        for cell in json.loads(path.read_text())["cells"]:
            if cell["psnr"] is None or cell["peer"] == "publisher":
                continue
            key = cell["network"], cell["setting"], cell["images"]
            found = cell["float_psnr"] - cell["psnr"], f"{cell['peer']} {cell['variant']}"
            best[key] = min(best.get(key, found), found)
    return best


def tables(losses: Losses, networks: list[str], rivals: dict[tuple[str, str, str], tuple[float, str]]) -> list[str]:
    """Markdown: one table per setting and set."""
    lines: list[str] = []
    sets = sorted({key[3] for key in losses}, key=("Set5", "Set14", "BSD100").index)
    for bits, (setting, title) in SETTINGS.items():
        for images in sets:
            methods = [method for method in METHODS if any(key[1:] == (bits, method, images) for key in losses)]
            if not methods:
                continue
            lines += ["", f"### {title}: {images}", "", f"| network | {' | '.join(methods)} | best peer |"]
            lines.append("|---" * (len(methods) + 2) + "|")
            for name in networks:
                cells = [losses.get((name, bits, method, images), NOT_RUN) for method in methods]
                rival = rivals.get((name, setting, images))
                beside = f"{rival[0]:.3f} ({rival[1]})" if rival else NOT_RUN
                lines.append(f"| {name} | {' | '.join(cells)} | {beside} |")
    return lines


def seconds_table(seconds: dict[tuple[str, Setting, str], float], networks: list[str]) -> list[str]:
    """Seconds of calibration, the longest of a network's widths."""
    methods = [method for method in METHODS if any(key[2] == method for key in seconds)]
    lines = ["", "### Seconds of quantization", "", f"| network | {' | '.join(methods)} |"]
    lines.append("|---" * (len(methods) + 1) + "|")
    for name in networks:
        found = [[value for key, value in seconds.items() if key[0] == name and key[2] == method] for method in methods]
        lines.append(f"| {name} | {' | '.join(f'{max(row):.0f}' if row else NOT_RUN for row in found)} |")
    return lines


def replace_tables(text: str, lines: list[str]) -> str:
    """The document with other tables between its two marks."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return before + "\n".join([BEGIN, *lines, "", END]) + after


def rows(item: Any) -> list[Path]:
    """The paths of an option that may be left out."""
    return item or []


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", type=Path, nargs="*", help="compare.json of srq-hw compare")
    parser.add_argument("--peers", type=Path, nargs="*", help="quality.json of scripts/bench_quality.py")
    args = parser.parse_args()
    losses, networks, seconds = ours(rows(args.compare))
    lines = tables(losses, networks, peers(rows(args.peers))) + seconds_table(seconds, networks)
    DOCUMENT.write_text(replace_tables(DOCUMENT.read_text(), lines))


if __name__ == "__main__":
    main()
