"""Measured losses, read from the results of `srq-hw compare`, `bench_quality.py` and `score_daq.py`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: in the order in which tables stand
SETS = ("Set5", "Set14", "BSD100")
METHODS = ("minmax", "percentile", "mse", "psnr", "dbdc", "pac", "srq")
#: digits of a digest of code that a cell keeps
DIGEST = 12


@dataclass(frozen=True)
class Setting:
    """Widths and target that one table is about.

    name: in docs/measured; peers: in the peers' benchmark; part: what of the best peer's loss is the most allowed;
    goal: the loss in dB that is aimed at; None where the project has set none.
    """

    name: str
    target: str
    bits: int
    tail: int | None
    peers: str
    title: str
    part: float | None = None
    goal: float | None = None


SETTINGS = (
    Setting("W8A8", "int-generic", 8, None, "W8A8", "W8A8, all layers", 1.0, 0.03),
    Setting("W6A6", "int-generic", 6, None, "W6A6 ht8", "W6A6, first and last convolutions 8 bits", 1 / 2, 0.12),
    Setting("W4A4", "int-generic", 4, None, "W4A4 ht8", "W4A4, first and last convolutions 8 bits", 1 / 2, 0.50),
    Setting(
        "W4A4 tail 8",
        "int-generic",
        4,
        8,
        "-",
        "W4A4, first and last convolutions and upsampler 8 bits (--tail 8)",
    ),
    Setting(
        "W8A8 pow2",
        "dpu-pow2",
        8,
        None,
        "W8A8 pow2",
        "W8A8, all layers and sums, one power-of-two scale per tensor (dpu-pow2)",
        1 / 3,
        0.08,
    ),
)


@dataclass(frozen=True)
class Cell:
    """Loss of one network in one setting by one method (ours) or tool and variant (a peer's) on one set.

    loss: float minus quantized, dB; None where the run failed. setting: index into SETTINGS. code: digest of what
    computed it, quantized: which layers got which width, where a cell tells.
    """

    network: str
    setting: int
    method: str
    images: str
    loss: float | None
    seconds: float | None = None
    code: str = ""
    quantized: str = ""


def of_compare(files: Iterable[Path]) -> list[Cell]:
    """Cells of compare.json files; a later file wins where two hold the same cell."""
    found: dict[tuple[str, int, str, str], Cell] = {}
    for path in files:
        data = json.loads(path.read_text())
        code = data["tool"]["source_sha256"]
        for cell in data["cells"]:
            where = _setting(data["target"]["name"], cell["weight_bits"], cell["act_bits"], data["policy"]["tail"])
            if where is None:
                continue
            for images, score in cell["sets"].items():
                loss = None if cell["error"] else score["drop_psnr"]
                key = cell["network"], where, cell["method"], images
                found[key] = Cell(*key, loss, cell["calibration_seconds"], code[:DIGEST], cell["quantized"] or "")
    return list(found.values())


def of_peers(files: Iterable[Path]) -> list[Cell]:
    """Cells of quality.json files; method is tool and variant."""
    found: dict[tuple[str, int, str, str], Cell] = {}
    places = {setting.peers: index for index, setting in enumerate(SETTINGS)}
    for path in files:
        for cell in json.loads(path.read_text())["cells"]:
            loss = None if cell["psnr"] is None else cell["float_psnr"] - cell["psnr"]
            key = cell["network"], places[cell["setting"]], f"{cell['peer']} {cell['variant']}", cell["images"]
            found[key] = Cell(*key, loss, cell["quantize_seconds"])
    return list(found.values())


def of_daq(file: Path) -> list[Cell]:
    """Cells of daq.json; the widths stand for the settings of that name, though DAQ quantizes less."""
    found = []
    for row in json.loads(file.read_text()):
        where = _setting("int-generic", row["bits"], row["bits"], None)
        if where is not None:
            found.append(Cell(row["network"], where, "daq", row["images"], row["drop_psnr"]))
    return found


def best_peers(cells: Iterable[Cell]) -> dict[tuple[str, int, str], Cell]:
    """(network, setting, set) -> the peer that loses least. A publisher's own file is trained: not a peer's setting."""
    best: dict[tuple[str, int, str], tuple[float, Cell]] = {}
    for cell in cells:
        if cell.loss is None or cell.method.startswith("publisher "):
            continue
        key = cell.network, cell.setting, cell.images
        if key not in best or cell.loss < best[key][0]:
            best[key] = cell.loss, cell
    return {key: cell for key, (_, cell) in best.items()}


def _setting(target: str, weight_bits: int, act_bits: int, tail: int | None) -> int | None:
    """The table that a cell belongs to, None where there is none."""
    wanted = target, weight_bits, act_bits, tail
    matches = (index for index, item in enumerate(SETTINGS) if (item.target, item.bits, item.bits, item.tail) == wanted)
    return next(matches, None)
