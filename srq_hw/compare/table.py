"""The result of a comparison as data, markdown, CSV and a table for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Row = Mapping[str, Any]

#: name of the method in the row of a QONNX file, which is quantized already
FILE_METHOD = "file"

COLUMNS = (
    *("network", "scale", "channels", "method", "weight_bits", "act_bits", "quantized", "calibration_seconds"),
    *("parity", "set", "images", "psnr", "ssim", "drop_psnr", "drop_ssim"),
    *("psnr_float", "ssim_float", "psnr_float_8bit", "ssim_float_8bit", "psnr_bicubic", "ssim_bicubic", "error"),
)
DIGITS = {"psnr": 4, "ssim": 5}


def mean(rows: Sequence[Row], kind: str, digits: int) -> float | None:
    """Mean of one figure over images; images equal to the original have no PSNR and are left out."""
    values = [row[kind] for row in rows if row[kind] is not None]
    return round(fmean(values), digits) if values else None


def float_means(rows: Sequence[Row]) -> dict[str, Any]:
    """Means of a float record: images, psnr_* and ssim_* of float, float_8bit and bicubic."""
    found: dict[str, Any] = {"images": len(rows)}
    for version in ("float", "float_8bit", "bicubic"):
        for kind, digits in DIGITS.items():
            found[f"{kind}_{version}"] = mean([row[version] for row in rows], kind, digits)
    return found


def cell_means(rows: Sequence[Row], floats: Sequence[Row]) -> dict[str, Any]:
    """Means of a score record, and the drop against the float network on the same 8-bit input, image by image."""
    found: dict[str, Any] = {"images": len(rows)}
    for kind, digits in DIGITS.items():
        found[kind] = mean(rows, kind, digits)
        both = [
            (reference["float_8bit"][kind], row[kind])
            for row, reference in zip(rows, floats, strict=True)
            if row[kind] is not None and reference["float_8bit"][kind] is not None
        ]
        found[f"drop_{kind}"] = round(fmean(a - b for a, b in both), digits) if both else None
    return found


def number(value: float | None, digits: int) -> str:
    """A figure, a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def width_name(cell: Row) -> str:
    """W8A8."""
    return f"W{cell['weight_bits']}A{cell['act_bits']}"


def csv_rows(result: Row) -> Iterator[dict[str, Any]]:
    """One row per cell and set; of a failed cell one row with its error; of a network without cells its float row."""
    for network in result["networks"]:
        if all(cell["network"] != network["name"] for cell in result["cells"]):
            head = {"network": network["name"], "method": "float"}
            head |= {key: network[key] for key in ("scale", "channels")}
            for name, figures in network["sets"].items():
                yield head | {"set": name} | figures
    for cell in result["cells"]:
        network = next(item for item in result["networks"] if item["name"] == cell["network"])
        head = {key: cell[key] for key in ("network", "method", "weight_bits", "act_bits", "quantized", "error")}
        head |= {key: network[key] for key in ("scale", "channels")}
        head |= {"calibration_seconds": cell["calibration_seconds"]}
        head |= {"parity": "equal" if cell["parity"] else None}
        if cell["error"] is not None:
            yield head
            continue
        for name, figures in cell["sets"].items():
            yield head | {"set": name} | network["sets"][name] | figures


def full_rows(result: Row) -> list[dict[str, Any]]:
    """The rows with all COLUMNS, None where there is no figure."""
    return [dict.fromkeys(COLUMNS) | row for row in csv_rows(result)]


def to_csv(result: Row) -> str:
    """Comma-separated, one header line, empty where there is no figure."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in csv_rows(result):
        writer.writerow({key: "" if value is None else value for key, value in row.items()})
    return stream.getvalue()


# --- markdown -----------------------------------------------------------------------------------------------------


def _cell_text(text: object) -> str:
    """Text inside a markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(_cell_text(item) for item in head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(_cell_text(item) for item in row) + " |" for row in rows]


def drop_table(result: Row) -> tuple[list[str], list[list[str]]]:
    """Loss in dB, sets divided by slashes: a column per network, a row per method and widths."""
    networks = [item["name"] for item in result["networks"]]
    found: dict[tuple[str, str], dict[str, str]] = {}
    for cell in result["cells"]:
        text = "failed" if cell["error"] is not None else " / ".join(
            number(figures["drop_psnr"], 3) for figures in cell["sets"].values()
        )  # fmt: skip
        found.setdefault((width_name(cell), cell["method"]), {})[cell["network"]] = text
    rows = [[widths, method, *(texts.get(name, "–") for name in networks)] for (widths, method), texts in found.items()]
    return ["bits", "method", *networks], rows


def network_table(result: Row, network: Row) -> tuple[list[str], list[list[str]]]:
    """Everything about one network: bicubic and float first, then its cells."""
    names = [item["name"] for item in result["sets"]]
    head = ["method", "bits", *(f"{name} PSNR / SSIM" for name in names), *(f"{name} drop" for name in names)]
    head += ["calibration s", "quantized"]
    rows = []
    sets = network["sets"]
    versions = [("bicubic", "bicubic", ""), ("float", "float", "published input")]
    if network["channels"] == 1:
        versions.append(("float_8bit", "float", "8-bit input"))
    for version, title, about in versions if sets else ():
        if all(sets[name][f"ssim_{version}"] is None for name in names):  # a file has no float network
            continue
        figures = [
            f"{number(sets[name][f'psnr_{version}'], 3)} / {number(sets[name][f'ssim_{version}'], 4)}" for name in names
        ]
        rows.append([title, "float32" if title == "float" else "–", *figures, *["–"] * len(names), "–", about])
    for cell in result["cells"]:
        if cell["network"] != network["name"]:
            continue
        if cell["error"] is not None:
            rows.append(
                [cell["method"], width_name(cell), *["failed"] * len(names), *["–"] * len(names), "–", cell["error"]]
            )
            continue
        sets = cell["sets"]
        figures = [f"{number(sets[name]['psnr'], 3)} / {number(sets[name]['ssim'], 4)}" for name in names]
        drops = [number(sets[name]["drop_psnr"], 3) for name in names]
        seconds = number(cell["calibration_seconds"], 1)
        rows.append([cell["method"], width_name(cell), *figures, *drops, seconds, cell["quantized"]])
    return head, rows


def _calibration_text(calibration: Row | None) -> str:
    if calibration is None:
        return "none"
    low = "low resolution as they are" if calibration["low"] else "made low-resolution"
    return f"{calibration['folder']}, {calibration['images']} image{'s' * (calibration['images'] != 1)}, {low}"


def _proof_text(cells: Sequence[Row]) -> str:
    """What stands behind the figures: of a QONNX file there is no frozen model."""
    if not cells:
        return ""
    files = [cell["method"] == FILE_METHOD for cell in cells]
    own = "" if all(files) else ", proven equal to the frozen model on a crop"
    file = ", of a QONNX file proven equal in both simulators on a crop" if any(files) else ""
    return f"Every figure is that of the integer program{own}{file}; "


def to_markdown(result: Row, command: str = "compare") -> str:
    """compare.md, evaluate.md: conditions, losses at a glance, one table per network, figures."""
    sets = ", ".join(f"{item['name']} ({item['images']})" for item in result["sets"])
    lines = [
        f"# srq-hw {command}",
        "",
        f"Target {result['target']['name']}. Test sets: {sets}. Calibration: "
        f"{_calibration_text(result['calibration'])}. {_proof_text(result['cells'])}PSNR in dB and SSIM on Y, scale "
        "pixels cropped; drop: float network on the same 8-bit input minus integer.",
    ]
    lines += [""] if result["warnings"] or result["notes"] else []
    for text in (*result["warnings"], *result["notes"]):
        lines.append(f"- {text}")
    if result["cells"]:
        lines += ["", f"## Loss in dB ({' / '.join(item['name'] for item in result['sets'])})", ""]
        lines += _table(*drop_table(result))
    for network in result["networks"]:
        colour = "RGB" if network["channels"] == 3 else "Y"
        lines += ["", f"## {network['name']} (x{network['scale']}, {colour})", ""]
        lines += _table(*network_table(result, network))
        if network["error"] is not None:
            lines += ["", f"Float network: {network['error']}"]
        for title, place in network["figures"].items():
            lines += ["", f"![{title} of {network['name']}]({place})"]
    return "\n".join(lines) + "\n"


def print_row(result: Row, out: Path | None, console: Console) -> None:
    """Of an evaluation what its table of images leaves out: widths, drop, calibration, proof, files."""
    if result["layers"] is not None:
        mean, seconds = result["mean"], result["calibration_seconds"]
        side, _ = result["parity"]["size"]
        drop = f"drop {number(mean['drop_psnr'], 3)} dB, SSIM {number(mean['drop_ssim'], 4)}"
        parts = [
            f"{width_name(result)} by {result['method']}: {result['quantized']}",
            "no drop: a file brings no float network" if result["method"] == FILE_METHOD else drop,
            "nothing calibrated" if seconds is None else f"calibration {seconds:.1f} s",
            f"parity equal on {side}x{side}",
        ]
        console.print("\n".join(parts), markup=False)
    if out is not None:
        console.print(f"{out / 'evaluate.md'}, evaluate.csv, evaluate.json", markup=False)


def print_result(result: Row, out: Path, console: Console) -> None:
    """The losses, what failed and why, and where the rest stands."""
    head, rows = drop_table(result)
    table = Table(*head, box=None)
    for row in rows:
        table.add_row(*(escape(text) for text in row))
    sets = " / ".join(item["name"] for item in result["sets"])
    console.print(f"Loss in dB against float, PSNR on Y: {escape(sets)}")
    console.print(table)
    for cell in result["cells"]:
        if cell["sets"] and all(figures["drop_psnr"] is None for figures in cell["sets"].values()):
            psnr = " / ".join(number(figures["psnr"], 3) for figures in cell["sets"].values())
            console.print(f"{cell['network']} {width_name(cell)} has no drop, its PSNR is {psnr} dB", markup=False)
        if cell["error"] is not None:
            console.print(f"[red]failed[/] {cell['network']} {cell['method']} {width_name(cell)}:", end=" ")
            console.print(cell["error"], markup=False)
    for network in result["networks"]:
        if network["error"] is not None:
            console.print(f"[red]failed[/] {network['name']}:", end=" ")
            console.print(network["error"], markup=False)
    console.print(f"{out / 'compare.md'}, compare.csv, compare.json, figures/", markup=False)
