"""Everything that has been measured, kept as tables of values in docs/measured: what the documents are made of.

A run adds its cells to these files or replaces them, so that no document depends on a folder that somebody still has.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from scripts.quality.cells import SETTINGS, Cell

#: columns of all files
COLUMNS = ("network", "setting", "method", "set", "loss", "seconds", "code", "quantized")


def read(path: Path) -> list[Cell]:
    """Cells of a file of measured values (no loss: the run failed); none where it does not exist."""
    if not path.exists():
        return []
    names = {setting.name: index for index, setting in enumerate(SETTINGS)}
    with path.open(newline="") as stream:
        return [
            Cell(
                row["network"],
                names[row["setting"]],
                row["method"],
                row["set"],
                _number(row["loss"]),
                _number(row["seconds"]),
                row["code"],
                row["quantized"],
            )
            for row in csv.DictReader(stream)
        ]


def write(path: Path, cells: Iterable[Cell]) -> None:
    """The file anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for cell in cells:
            setting = SETTINGS[cell.setting].name
            values = (_text(cell.loss, 4), _text(cell.seconds, 1))
            writer.writerow((cell.network, setting, cell.method, cell.images, *values, cell.code, cell.quantized))


def merge(held: Iterable[Cell], new: Iterable[Cell]) -> list[Cell]:
    """All cells; where both have one, the new one in the place of the other."""
    found = {_key(cell): cell for cell in held}
    return list((found | {_key(cell): cell for cell in new}).values())


def _key(cell: Cell) -> tuple[str, int, str, str]:
    return cell.network, cell.setting, cell.method, cell.images


def _number(text: str) -> float | None:
    return float(text) if text else None


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
