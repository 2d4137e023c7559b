"""Both figures of one network, drawn from its records and programs, and drawn again only where these have changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from srq_hw.compare.cells import Cell, NetworkEntry
from srq_hw.compare.clipping_figure import clipping_figure
from srq_hw.compare.crops import Version, sheet, window
from srq_hw.compare.floats import run_tiled
from srq_hw.compare.measure import as_image, graph_path, network_of, read_floats, read_program, read_scores
from srq_hw.compare.sets import ImageSet, one_pair
from srq_hw.compare.store import read_record, write_record
from srq_hw.errors import RunError
from srq_hw.evaluate.colour import network_view, picture_of
from srq_hw.evaluate.images import write_png
from srq_hw.evaluate.metrics import psnr_y, ssim_y
from srq_hw.evaluate.resize import upscale
from srq_hw.files import write_bytes
from srq_hw.graph.ir import IntGraph
from srq_hw.pipeline.engine import sha256_file, sha256_json
from srq_hw.simulate.fast import compile_graph

Found = TypeVar("Found")

FOLDER = "figures"
CODE = ("figures.py", "clipping_figure.py", "crops.py")


def figures_key(network: NetworkEntry, cells: Sequence[Cell], sets: Sequence[ImageSet]) -> str:
    """Hash of what the figures show and of the code that draws them."""
    here = Path(__file__).parent
    return sha256_json(
        {
            "code": [sha256_file(here / name) for name in CODE],
            "network": network.spec,
            "cells": [[cell.method, str(cell.widths), cell.key(tuple(sets))] for cell in cells],
        }
    )


def drawn(out: Path, key: str) -> dict[str, Any] | None:
    """The record of figures that are there as they were drawn."""
    record = read_record(out, FOLDER, key)
    if record is None:
        return None
    for place, digest in record["files"].items():
        if not (out / place).is_file() or sha256_file(out / place) != digest:
            return None
    return record


def draw(network: NetworkEntry, cells: Sequence[Cell], sets: Sequence[ImageSet], out: Path) -> None:
    """Draw the figures of a network's finished cells into figures/ and record them."""
    base = f"{FOLDER}/{re.sub(r'[^A-Za-z0-9._+-]', '_', network.spec)}"
    files: dict[str, bytes] = {}
    if not network.is_file:  # of whose ranges nothing is known
        panels: dict[str, dict[str, Any]] = {}
        for cell in cells:
            panels.setdefault(str(cell.widths), {})[cell.method] = _there(out, read_program(out, cell))
        svg, png = clipping_figure(f"{network.spec}, activations", panels)
        files = {f"{base}-clipping.svg": svg, f"{base}-clipping.png": png}
    for place, data in files.items():
        write_bytes(out / place, data)
    crops = f"{base}-crops.png"
    (out / crops).parent.mkdir(parents=True, exist_ok=True)
    chosen = _draw_crops(network, cells, sets, out, out / crops)
    places = [*files, crops]
    record = {
        "network": network.spec,
        "files": {place: sha256_file(out / place) for place in places},
        "figures": {"crops": crops} if network.is_file else {"clipping": f"{base}-clipping.svg", "crops": crops},
        "crops": chosen,
    }
    write_record(out, FOLDER, figures_key(network, cells, sets), record)


def _there(out: Path, record: Found | None) -> Found:
    if record is None:
        raise RunError(f"{out}: a record is gone; run the same command again")
    return record


def most_different(scores: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> tuple[str, str, int] | None:
    """(widths, set, index of the image) where PSNR differs most; scores: widths -> "set" -> image -> {version: PSNR}.

    The span is that of the methods; of a single method, that between it and the float network ("float"). The first of
    equals wins. None where no image has two figures.
    """
    best, found = -1.0, None
    for widths, sets in scores.items():
        for name, images in sets.items():
            for index, row in enumerate(images):
                methods = [value for version, value in row.items() if version != "float" and value is not None]
                if len(methods) == 1 and row.get("float") is not None:
                    methods.append(row["float"])
                if len(methods) > 1 and max(methods) - min(methods) > best:
                    best, found = max(methods) - min(methods), (widths, name, index)
    return found


def _draw_crops(
    network: NetworkEntry, cells: Sequence[Cell], sets: Sequence[ImageSet], out: Path, path: Path
) -> dict[str, Any]:
    scores: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for images in sets:
        floats = _there(out, read_floats(out, network, images))
        for cell in cells:
            rows = _there(out, read_scores(out, cell, images))
            table = scores.setdefault(str(cell.widths), {}).setdefault(
                images.name, [{"float": row["float_8bit"]["psnr"]} for row in floats]
            )
            for place, row in zip(table, rows, strict=True):
                place[cell.method] = row["psnr"]
    widths, name, index = most_different(scores) or (str(cells[0].widths), sets[0].name, 0)
    images = next(item for item in sets if item.name == name)
    pair = one_pair(images, index, network.scale)
    view = network_view(pair.lr, network.channels)
    results = {"bicubic": upscale(pair.lr, network.scale)}
    if not network.is_file:
        results["float"] = run_tiled(*network_of(network), view)
    for cell in cells:
        if str(cell.widths) == widths:
            graph = IntGraph.load(graph_path(out, cell.program_key))
            results[cell.method] = as_image(compile_graph(graph).run(view)[0])
    base = "bicubic" if network.is_file else "float"
    box = window(results[base], [image for key, image in results.items() if key not in ("bicubic", "float")])
    versions = [Version("original", pair.hr, "PSNR / SSIM")]
    for key, image in results.items():
        psnr, ssim = psnr_y(image, pair.hr, network.scale), ssim_y(image, pair.hr, network.scale)
        caption = f"{psnr:.2f} / {ssim:.4f}" if isfinite(psnr) else f"equal / {ssim:.4f}"
        versions.append(Version(key, picture_of(image, pair.lr), caption))
    title = f"{network.spec} x{network.scale}, {widths}: {name}/{pair.name}; figures are those of the whole image"
    write_png(path, sheet(title, versions, box))
    return {"widths": widths, "set": name, "image": pair.name, "box": list(box)}
