"""The cells as one table: markdown for people, CSV for spreadsheets, JSON with everything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.peers.catalogue import PEERS
from scripts.peers.cells import Cell
from srq_hw.files import write_text


@dataclass
class Baseline:
    """PSNR of the float network and of bicubic upscaling on one set, dB on Y, mean over its images."""

    network: str
    images: str
    count: int
    float_psnr: float
    bicubic_psnr: float


@dataclass
class Results:
    """Everything measured so far; facts: the options of the run."""

    facts: Mapping[str, Any]
    baselines: list[Baseline] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per cell, with its loss against float in dB (positive: worse than float)."""
        floats = {(item.network, item.images): item for item in self.baselines}
        found = []
        for cell in self.cells:
            base = floats[cell.network, cell.images]
            row = asdict(cell)
            row["float_psnr"], row["bicubic_psnr"] = base.float_psnr, base.bicubic_psnr
            row["loss"] = None if cell.psnr is None else base.float_psnr - cell.psnr
            found.append(row)
        return found


_COLUMNS = (
    "network",
    "images",
    "setting",
    "peer",
    "variant",
    "float_psnr",
    "bicubic_psnr",
    "psnr",
    "loss",
    "quantize_seconds",
    "run_seconds",
    "layers",
    "float_difference",
    "note",
    "versions",
    "error",
)


def write(results: Results, folder: Path) -> None:
    """quality.md, quality.csv and quality.json in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "quality.md": markdown(results),
        "quality.csv": _csv(results.rows()),
        "quality.json": json.dumps(
            {
                "facts": results.facts,
                "baselines": [asdict(item) for item in results.baselines],
                "cells": results.rows(),
            },
            indent=1,
        ),
    }
    for name, text in texts.items():
        write_text(folder / name, text)


def markdown(results: Results) -> str:
    """Losses at a glance (rows: setting and peer; columns: networks; sets divided by strokes), then every cell."""
    sets = list(dict.fromkeys(item.images for item in results.baselines))
    networks = list(dict.fromkeys(item.network for item in results.baselines))
    lines = [
        "# What today's quantizers lose",
        "",
        f"Loss against float in dB, PSNR on Y, {' / '.join(sets)}; ht8: head and tail at 8 bits. "
        + ", ".join(f"{key} {value}" for key, value in results.facts.items())
        + ".",
        "",
        *_table(["setting", "peer", "variant", *networks], _losses(results.rows(), networks, sets)),
        "",
        "## Float networks",
        "",
        *_table(
            ["network", "set", "images", "float dB", "bicubic dB"],
            [
                [b.network, b.images, str(b.count), f"{b.float_psnr:.3f}", f"{b.bicubic_psnr:.3f}"]
                for b in results.baselines
            ],
        ),
        "",
        "## Peers",
        "",
        *_table(["peer", "what", "versions", "limits"], _peers(results.cells)),
        "",
        "## Every cell",
        "",
        "Seconds: quantize (calibration included), run (all images of the set). Layers: quantized of all.",
        "",
        *_table(
            ["network", "set", "setting", "peer", "variant", "dB", "loss", "s quantize", "s run", "layers", "note"],
            [_cell(row) for row in results.rows()],
        ),
        "",
    ]
    return "\n".join(lines)


def _losses(rows: Sequence[dict[str, Any]], networks: Sequence[str], sets: Sequence[str]) -> list[list[str]]:
    found: dict[tuple[str, str, str], dict[tuple[str, str], str]] = {}
    for row in rows:
        text = "failed" if row["loss"] is None else f"{row['loss']:.3f}"
        found.setdefault((row["setting"], row["peer"], row["variant"]), {})[row["network"], row["images"]] = text
    table = []
    for way in sorted(found, key=lambda way: (way[0], list(PEERS).index(way[1]) if way[1] in PEERS else 0)):
        cells = [[found[way].get((network, images), "") for images in sets] for network in networks]
        table.append([*way, *(" / ".join(texts) if any(texts) else "" for texts in cells)])
    return table


def _peers(cells: Iterable[Cell]) -> list[list[str]]:
    versions: dict[str, dict[str, str]] = {}
    for cell in cells:
        versions.setdefault(cell.peer, {}).update(cell.versions)
    return [
        [name, PEERS[name].title, _pairs(found), PEERS[name].limits]
        for name, found in versions.items()
        if name in PEERS
    ]


def _cell(row: Mapping[str, Any]) -> list[str]:
    layers = ", ".join(f"{kind} {done}/{total}" for kind, (done, total) in row["layers"].items())
    return [
        *(row[name] for name in ("network", "images", "setting", "peer", "variant")),
        _number(row["psnr"], 3),
        _number(row["loss"], 3),
        _number(row["quantize_seconds"], 1),
        _number(row["run_seconds"], 1),
        layers,
        f"FAILED: {row['error']}" if row["error"] else row["note"],
    ]


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        layers = " ".join(f"{kind}={done}/{total}" for kind, (done, total) in row["layers"].items())
        writer.writerow({**row, "layers": layers, "versions": _pairs(row["versions"])})
    return sink.getvalue()


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(head), "|" + " --- |" * len(head), *(line(row) for row in rows)]
