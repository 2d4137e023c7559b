"""report.html: one self-contained page made from report.json; the same report and images give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from srq_hw.files import write_text
from srq_hw.report.axis import real
from srq_hw.report.pictures import CROP_SIDE, pictures
from srq_hw.report.plots import clipped_share, clipping_plot, histogram_plot, shorten, tradeoff_plot
from srq_hw.report.schema import validate

FOLDER = Path(__file__).resolve().parent
TEMPLATE = "report.html.j2"

#: oracle name -> what it is, for the left column of the equality chain
ORACLES = {
    "qonnx": "QONNX file, executed by qonnx (float32)",
    "finn": "FINN dataflow graph, executed by FINN",
    "finn_rtl": "Sources that FINN generated, simulated by Verilator",
    "rtl": "Verilog, simulated by Verilator",
    "litert": "TFLite file, executed by LiteRT",
    "onnxruntime": "QDQ ONNX file, executed by onnxruntime",
}
#: origin of a node in the simulation of FINN's sources -> in words
ORIGINS = {"finn": "FINN's", "patched": "patched copy of FINN's", "stand-in": "stand-in of ours", "srq": "ours"}
#: resource -> heading, in the order boards list them
RESOURCES = {"lut": "LUT", "ff": "FF", "dsp": "DSP", "bram36": "BRAM36", "uram": "URAM"}
STATUS_WORDS = ("passed", "failed", "not run")
SLOWEST_SHOWN = 16  # with more hardware layers than this, the full table is folded away


@dataclass(frozen=True)
class Link:
    """One link of the equality chain; counts are None where nothing was compared."""

    left: str
    right: str
    what: str
    compared: int | None
    mismatches: int | None
    ties: int | None
    status: str
    detail: str


def write_html(report: dict[str, Any], out_dir: Path) -> Path:
    """Write `out_dir`/report.html and return its path. Image files are read from `out_dir`, as the report names them.

    Raises RunError where the report breaks its schema, or an image it names is missing, unreadable or outside.
    """
    path = out_dir / "report.html"
    write_text(path, render(report, out_dir))
    return path


def render(report: dict[str, Any], out_dir: Path) -> str:
    """The text of report.html; arguments and errors as in `write_html`."""
    validate(report)
    shown, left_out = pictures(report, out_dir)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=count,
        real=real,
        fixed=fixed,
        percent=percent,
        shorten=shorten,
        histogram=histogram_plot,
        kept=_kept,
        small_share=small_share,
    )
    page: str = environment.get_template(TEMPLATE).render(
        r=report,
        verdict=verdict(report),
        chain=equality_chain(report),
        pictures=shown,
        left_out=left_out,
        crop_side=CROP_SIDE,
        clipping=clipping_plot(report["quantization"]["layers"]),
        clipped={row["name"]: clipped_share(row) for row in report["quantization"]["layers"]},
        hardware=_hardware(report["estimate"]),
        boards=RESOURCES,
        origins=ORIGINS,
        tradeoffs={key: _tradeoff(report[key]) for key in ("estimate", "rtl")},
        ran_seconds=sum(step["seconds"] for step in report["steps"] if not step["cached"]),
    )
    return page.rstrip("\n") + "\n"


def verdict(report: Mapping[str, Any]) -> dict[str, Any]:
    """status ("not run" where not one gate ran), the words beside it."""
    number = {status: sum(gate["status"] == status for gate in report["gates"]) for status in STATUS_WORDS}
    words = f"{number['passed']} of {len(report['gates'])} gates passed"
    if number["failed"]:
        words += f", {number['failed']} failed"
    if number["not run"]:
        words += f", {number['not run']} not run"
    status = "failed" if not report["ok"] else "passed" if number["passed"] else "not run"
    return {"status": status, "words": words}


def equality_chain(report: Mapping[str, Any]) -> list[Link]:
    """Every link between executors, in the order the data travels; what did not run stays in the list."""
    graph, parity, fast = report["graph"], report["parity"], report["simulators"]
    lowered, memory = graph["content_sha256_lowered"], graph["content_sha256_in_memory"]
    same = {True: "passed", False: "failed", None: "not run"}
    reference = "Reference simulator (int64)"
    detail = f"{(lowered or 'none')[:12]} against {(memory or 'none')[:12]}"
    wrong = None if graph["equal"] is None else int(not graph["equal"])
    nodes = graph["nodes"] if graph["equal"] is not None else None
    links = [Link("Integer graph lowered from the QONNX file", "Integer graph built in memory", "nodes, content hash",
                  nodes, wrong, None, same[graph["equal"]], detail)]  # fmt: skip
    links.append(_simulated("Frozen Brevitas model (float64)", reference, parity))
    links.append(_simulated("Fast simulator", reference, fast))
    for row in report["oracles"]:
        left = ORACLES.get(row["name"], row["name"])
        ran = row["status"] != "not run"
        elements, mismatches, ties = (row[key] if ran else None for key in ("elements", "mismatches", "ties"))
        status, detail = row["status"], row["detail"]
        links.append(Link(left, reference, "elements", elements, mismatches, ties, status, detail))
    return links


def _simulated(left: str, right: str, row: Mapping[str, Any] | None) -> Link:
    if row is None:
        return Link(left, right, "elements", None, None, None, "not run", "")
    height, width = row["size"]
    detail = f"{row['image']}, {width}×{height} pixels"
    if "tensors" in row:
        detail += f", {row['tensors']} tensors"
    if row.get("fast_seconds") and row.get("reference_seconds"):
        ratio = row["reference_seconds"] / row["fast_seconds"]
        detail += (
            f", {real(row['fast_seconds'], 3)} s against {real(row['reference_seconds'], 3)} s (×{real(ratio, 3)})"
        )
    first = row.get("first_mismatch")
    if first:
        n, y, x, c = first["index"]
        place = f"image {n}, row {y}, column {x}, channel {c}"
        detail += f"; first at {first['tensor']}, {place}: {first['left']:g} against {first['right']:g}"
    status = "passed" if row["equal"] else "failed"
    return Link(left, right, "elements", row["elements"], row["mismatches"], None, status, detail)


def _hardware(estimate: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the hardware tables need beside the estimate itself; None where there is none."""
    if estimate is None:
        return None
    nodes = estimate["nodes"]
    by_cycles = sorted(nodes, key=lambda node: -node["cycles"])  # stable: equals stay in dataflow order
    most = by_cycles[0]["cycles"] if by_cycles else 0
    used = [key for key in RESOURCES if key in estimate["utilization"] or estimate[key] is not None]
    return {
        "resources": {key: RESOURCES[key] for key in used},
        "columns": {key: RESOURCES[key] for key in ("lut", "dsp", "bram36", "uram")},
        "slowest": by_cycles[:SLOWEST_SHOWN],
        "most": most,
        "bottlenecks": [node["name"] for node in by_cycles if node["cycles"] == most],
        "folded": len(nodes) > SLOWEST_SHOWN,
        "fullest": max(RESOURCES, key=lambda name: estimate["utilization"].get(name) or 0.0),
    }


def _tradeoff(design: Mapping[str, Any] | None) -> Markup:
    """The drawing of the foldings that were looked at; empty where there is no design."""
    if design is None:
        return Markup("")
    return tradeoff_plot(design["tradeoff"], design["fps"], design.get("utilization_max") or 1.0, RESOURCES)


def count(value: float | None) -> str:
    """A whole number with its thousands apart (a narrow space); halves stay halves; a dash for None."""
    if value is None:
        return "–"
    text = f"{int(value):,}" if value == int(value) else f"{value:,.10g}"
    return text.replace(",", "\u202f").replace("-", "−")


def fixed(value: float | None, decimals: int = 2) -> str:
    """A number with so many decimals; a dash for None."""
    return "–" if value is None else f"{value:.{decimals}f}".replace("-", "−")


def percent(share: float | None, decimals: int = 1) -> str:
    """A share as a percentage; one too small to show is "< 0.1 %", never 0; a dash for None."""
    if share is None:
        return "–"
    smallest = 10.0**-decimals
    if 0 < 100 * share < smallest:
        return f"< {smallest:.{decimals}f}\u202f%"
    return f"{100 * share:.{decimals}f}\u202f%"


def small_share(share: float | None) -> str:
    """A share as a percentage, or in parts per million where that would round to nothing; a dash for None."""
    if share is None or share == 0 or share >= 1e-4:
        return percent(share, 2)
    return f"{real(share * 1e6, 2)}\u202fppm"


def _kept(row: Mapping[str, Any]) -> float | None:
    """Width of the kept range over the width of the data's range; None where nothing was measured."""
    if row["data_min"] is None or row["data_max"] is None or row["data_max"] == row["data_min"]:
        return None
    share: float = (row["upper"] - row["lower"]) / (row["data_max"] - row["data_min"])
    return share
