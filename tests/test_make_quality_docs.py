"""The tables of docs/quality.md and docs/peers.md: every cell in its place, every miss named, nothing left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.make_quality_docs import BEGIN, END, replace_tables
from scripts.quality import measured
from scripts.quality.cells import Cell, of_compare, of_daq, of_peers
from scripts.quality.tables import against_goals, by_method, by_tool, daq_table, of_code, of_guides, of_seconds


def cell(network: str, method: str, bits: int, losses: dict[str, float], error: str | None = None) -> dict[str, Any]:
    sets = {name: {"drop_psnr": loss} for name, loss in losses.items()}
    widths = {"weight_bits": bits, "act_bits": bits, "calibration_seconds": 3.0}
    text = f"{method} text"
    return {"network": network, "method": method, "error": error, "sets": sets, "quantized": text} | widths


def write(path: Path, cells: list[dict[str, Any]], tail: int | None = None) -> Path:
    policy = {"edges": None, "tail": tail, "sums": 16}
    tool = {"version": "0", "source_sha256": "0123456789abcdef"}
    path.write_text(json.dumps({"tool": tool, "target": {"name": "int-generic"}, "policy": policy, "cells": cells}))
    return path


def rival(peer: str, variant: str, psnr: float | None, setting: str = "W4A4 ht8") -> dict[str, Any]:
    own = {"network": "a", "setting": setting, "images": "Set5", "float_psnr": 37.0, "quantize_seconds": 1.0}
    return own | {"peer": peer, "variant": variant, "psnr": psnr}


def rivals(folder: Path) -> list[Cell]:
    found = folder / "peers.json"
    cells = [rival("one", "x", 36.0), rival("two", "y", 36.5), rival("publisher", "z", 37.0), rival("two", "w", None)]
    found.write_text(json.dumps({"cells": cells}))
    return of_peers([found])


def ours(folder: Path) -> list[Cell]:
    plain = write(folder / "plain.json", [cell("a", "srq", 4, {"Set5": 0.5}), cell("b", "mse", 4, {"Set5": 2.0})])
    later = write(folder / "later.json", [cell("a", "srq", 4, {"Set5": 0.2505})])
    tail = write(folder / "tail.json", [cell("a", "srq", 4, {"Set5": 0.125}, error="no")], tail=8)
    return of_compare([plain, later, tail])


def test_by_method(tmp_path: Path) -> None:
    lines = by_method(ours(tmp_path), rivals(tmp_path))
    at = lines.index("### W4A4, first and last convolutions 8 bits: Set5")
    assert lines[at + 2 : at + 6] == [
        "| network | mse | srq | best peer |",
        "|---|---|---|---|",
        "| a | – | 0.251 | 0.500 (two y) |",
        "| b | 2.000 | – | – |",
    ]
    at = lines.index("### W4A4, first and last convolutions and upsampler 8 bits (--tail 8): Set5")
    assert lines[at + 4] == "| a | failed | – |"
    assert len([line for line in lines if line.startswith("###")]) == 2


def test_misses_are_named(tmp_path: Path) -> None:
    """0.2505 is above half of the best peer's 0.5 and within the goal; what has no peer is judged by the goal alone."""
    cells = [*ours(tmp_path), Cell("b", 2, "srq", "Set5", 0.75)]
    rows = against_goals(cells, rivals(tmp_path))[5:]
    assert rows == ["| W4A4 | Set5 | at most half | a 0.251 (0.250) | 0.50 | b 0.750 |"]
    rows = against_goals([Cell("b", 2, "srq", "Set14", 0.5)], rivals(tmp_path))[5:]
    assert rows == ["| W4A4 | Set14 | – | – | 0.50 | none of 1 |"]


def test_by_tool(tmp_path: Path) -> None:
    assert by_tool(rivals(tmp_path)) == [
        "",
        "### W4A4 ht8: Set5",
        "",
        "| tool | a |",
        "|---|---|",
        "| one x | 1.000 |",
        "| two y | 0.500 |",
        "| publisher z | 0.000 |",
        "| two w | failed |",
    ]


def test_daq_and_seconds(tmp_path: Path) -> None:
    rows = [{"network": "a", "images": "Set5", "bits": bits, "drop_psnr": 1 / bits} for bits in (4, 8)]
    (tmp_path / "daq.json").write_text(json.dumps(rows))
    assert daq_table(of_daq(tmp_path / "daq.json"))[-2:] == ["|---|---|", "| a | 0.125 / 0.250 |"]
    assert of_guides(ours(tmp_path))[-2:] == ["| a | srq text |", "| b | – |"]
    assert of_seconds(ours(tmp_path))[-2:] == ["| a | – | 3 |", "| b | 3 | – |"]


def test_measured_values_are_kept(tmp_path: Path) -> None:
    """What was written is read back, digits and failures included; a new cell takes the place of the old one."""
    place = tmp_path / "measured" / "compare.csv"
    assert measured.read(place) == []
    cells = ours(tmp_path)
    measured.write(place, cells)
    assert measured.read(place) == cells
    assert [cell.code for cell in cells] == ["0123456789ab"] * 3
    again = Cell("a", 2, "srq", "Set5", 0.125, 4.0, "feedfeedfeed")
    merged = measured.merge(cells, [again])
    assert merged == [again, *cells[1:]]
    assert of_code(merged, "feedfeedfeed") == [
        "",
        "1 of 3 cells were computed by the code as it stands (digest feedfeedfeed), the others by earlier commits "
        "(column `code` of measured/compare.csv).",
    ]
    assert of_code([again], "feedfeedfeed")[1].endswith("(digest feedfeedfeed).")


def test_the_text_around_stays() -> None:
    text = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert replace_tables(text, ["new"]) == f"above\n{BEGIN}\nnew\n\n{END}\nbelow\n"
