"""The tables of docs/quality.md: every cell in its table, a dash where nothing was run, the least loss of any peer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.make_quality_docs import BEGIN, END, ours, peers, replace_tables, tables


def cell(network: str, method: str, bits: int, losses: dict[str, float], error: str | None = None) -> dict[str, Any]:
    sets = {name: {"drop_psnr": loss} for name, loss in losses.items()}
    widths = {"weight_bits": bits, "act_bits": bits, "calibration_seconds": 3.0}
    return {"network": network, "method": method, "error": error, "sets": sets} | widths


def write(path: Path, cells: list[dict[str, Any]], tail: int | None = None) -> Path:
    policy = {"edges": None, "tail": tail, "sums": 16}
    path.write_text(json.dumps({"target": {"name": "int-generic"}, "policy": policy, "cells": cells}))
    return path


def rival(peer: str, variant: str, psnr: float | None, setting: str = "W4A4 ht8") -> dict[str, Any]:
    own = {"network": "a", "setting": setting, "images": "Set5", "float_psnr": 37.0}
    return own | {"peer": peer, "variant": variant, "psnr": psnr}


def test_tables(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.json", [cell("a", "srq", 4, {"Set5": 0.5}), cell("b", "mse", 4, {"Set5": 2.0})])
    later = write(tmp_path / "later.json", [cell("a", "srq", 4, {"Set5": 0.25})])
    tail = write(tmp_path / "tail.json", [cell("a", "srq", 4, {"Set5": 0.125}, error="no")], tail=8)
    found = tmp_path / "peers.json"
    cells = [rival("one", "x", 36.0), rival("two", "y", 36.5), rival("publisher", "z", 37.0), rival("two", "w", None)]
    found.write_text(json.dumps({"cells": cells}))
    losses, networks, seconds = ours([plain, later, tail])
    lines = tables(losses, networks, peers([found]))
    assert networks == ["a", "b"] and set(seconds.values()) == {3.0}
    at = lines.index("### W4A4, first and last convolutions 8 bits: Set5")
    assert lines[at + 2 : at + 6] == [
        "| network | mse | srq | best peer |",
        "|---|---|---|---|",
        "| a | – | 0.250 | 0.500 (two y) |",
        "| b | 2.000 | – | – |",
    ]
    at = lines.index("### W4A4, first and last convolutions and upsampler 8 bits (--tail 8): Set5")
    assert lines[at + 4] == "| a | failed | – |"
    assert len([line for line in lines if line.startswith("###")]) == 2


def test_the_text_around_stays() -> None:
    text = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert replace_tables(text, ["new"]) == f"above\n{BEGIN}\nnew\n\n{END}\nbelow\n"
