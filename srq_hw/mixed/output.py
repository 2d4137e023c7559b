"""The result of a search as files: search.json, recipe.yaml, front.svg, table.md; and what the terminal shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srq_hw.files import write_text
from srq_hw.mixed.search import Point, Result
from srq_hw.quantize.recipe import Recipe
from srq_hw.report import svg
from srq_hw.report.axis import Axis, real, round_ticks

FILES = ("search.json", "recipe.yaml", "front.svg", "table.md")
#: the drawing stands alone, so it brings the colours of the report's page (report.css) with it
STYLE = Markup(
    "<style>svg{background:#fff;font-family:system-ui,sans-serif}.tick{fill:#59616c;font-size:12px}"
    ".middle{text-anchor:middle}.end{text-anchor:end}.grid{stroke:#d5d9df}.clip-up{stroke:#0a5fa5;stroke-width:1.6;"
    "fill:none}.clip-low{stroke:#b5460f;stroke-width:1.6;fill:none;stroke-dasharray:5 3}.faint{stroke:#7fa8cc;"
    "stroke-width:1.2;fill:none;stroke-dasharray:2 3}.dot{fill:#0a5fa5}.low{fill:#b5460f}.ring{fill:none;"
    "stroke:#16191d;stroke-width:2}</style>"
)


def write_result(result: Result, folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write FILES into the folder and return search.json's data. about: what was searched (network, target ...)."""
    data = {**about, **as_dict(result)}
    texts = {
        "search.json": json.dumps(data, indent=1) + "\n",
        "recipe.yaml": recipe_text(result.recipe),
        "front.svg": front_plot(result) + "\n",
        "table.md": markdown(result),
    }
    for name in FILES:
        write_text(folder / name, texts[name])
    return data


def as_dict(result: Result) -> dict[str, Any]:
    """Plain data: the budget, every point, every sensitivity."""
    return {
        "cost": {"kind": result.model.name, "unit": result.model.unit, "about": result.model.about},
        "limits": result.limits,
        "chosen": _row(result.chosen),
        "uniform": None if result.uniform is None else _row(result.uniform),
        "uniforms": [_row(point) for point in result.uniforms],
        "front": [_row(point) for point in result.front],
        "round_errors": list(result.rounds),
        "repaired": result.repaired,
        "layers": [
            {
                "name": name,
                "weights": shape.weights,
                "macs_per_input_pixel": shape.macs,
                "damage_weights": {str(bits): value for bits, value in result.damages[name].weights.items()},
                "damage_activations": {str(bits): value for bits, value in result.damages[name].activations.items()},
            }
            for name, shape in result.shapes.items()
        ],
    }


def _row(point: Point) -> dict[str, Any]:
    return {
        "name": point.name,
        "cost": point.cost,
        "psnr_predicted": point.predicted,
        "psnr_measured": point.measured,
        "widths": {name: list(pair) for name, pair in point.widths.items()},
    }


def recipe_text(recipe: Recipe) -> str:
    """A recipe file that `--calib` takes."""
    data = recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
    ordered = {"schema": data.pop("schema"), **data}
    text: str = yaml.safe_dump(ordered, sort_keys=False, width=120)
    return text


# --- tables -------------------------------------------------------------------------------------------------------


def rows(result: Result) -> list[tuple[str, ...]]:
    """(network, cost per axis ..., predicted, measured): the chosen point, its rival, then the front by cost."""
    table = [_cells(result.chosen, "chosen, whole recipe")]
    if result.uniform is not None:
        table.append(_cells(result.uniform, f"{result.uniform.name}, whole recipe"))
    points = sorted((*result.uniforms, *result.front), key=lambda point: (point.figure, point.name))
    return table + [_cells(point, point.name) for point in points]


def header(result: Result) -> tuple[str, ...]:
    """Column names of `rows`."""
    costs = (axis.label if axis.label != result.model.name else result.model.unit for axis in result.model.axes)
    return ("widths", *costs, "predicted dB", "integer dB")


def _cells(point: Point, name: str) -> tuple[str, ...]:
    predicted = "–" if point.predicted is None else f"{point.predicted:.2f}"
    return (name, *(real(value) for value in point.cost.values()), predicted, f"{point.measured:.2f}")


def markdown(result: Result) -> str:
    """The table of points, then the chosen width of every layer."""
    names = header(result)
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(row) for row in rows(result)]
    lines += ["", "layer | weights | input", "--- | --- | ---"]
    lines += [f"{name} | {pair[0]} | {pair[1]}" for name, pair in result.chosen.widths.items()]
    return "".join(f"| {line} |\n" if line else "\n" for line in lines)


def print_result(data: Mapping[str, Any], result: Result, folder: Path, console: Console) -> None:
    """The chosen widths, the points, where the files lie."""
    limits = ", ".join(f"{label} {real(value)}" for label, value in result.limits.items())
    console.print(
        f"[bold]{escape(data['network'])}[/] on [bold]{data['target']}[/], budget {escape(data['budget'])} ({limits}): "
        f"{escape(result.model.about)}"
    )
    table = Table("layer", "weights", "input", box=None)
    for name, (weights, inputs) in result.chosen.widths.items():
        table.add_row(escape(name), str(weights), str(inputs))
    console.print(table)
    table = Table(*header(result), box=None)
    for row in rows(result):
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    console.print("dB: PSNR against the float network's output, on images that calibration did not see")
    if result.repaired:
        console.print(f"[yellow]{escape(result.repaired)}[/]")
    console.print(f"{escape(str(folder / 'recipe.yaml'))}: give it to `srq-hw build` with --calib")


# --- the drawing --------------------------------------------------------------------------------------------------


def front_plot(result: Result) -> Markup:
    """PSNR of the integer output against cost: mixed points (and what was predicted), uniform ones, the chosen one."""
    points = [*result.front, *result.uniforms, *([result.uniform] if result.uniform else [])]
    width, height, left, base, top = 760.0, 420.0, 58.0, 370.0, 18.0
    costs = [point.figure for point in (*points, result.chosen)]
    psnr = [point.measured for point in (*points, result.chosen)]
    psnr += [point.predicted for point in points if point.predicted is not None]
    pad_x, pad_y = 0.03 * (max(costs) - min(costs) or 1.0), 0.04 * (max(psnr) - min(psnr) or 1.0)
    across = Axis(min(costs) - pad_x, max(costs) + pad_x, left, width - 14)
    up = Axis(min(psnr) - pad_y, max(psnr) + pad_y, base, top)
    parts = [STYLE]
    for value in round_ticks(up.low, up.high):
        parts += [svg.line(left, up(value), width - 14, up(value), "grid"),
                  svg.text(left - 7, up(value) + 4, real(value, 3), "tick end")]  # fmt: skip
    for value in round_ticks(across.low, across.high):
        parts += [svg.line(across(value), base, across(value), base + 5, "grid"),
                  svg.text(across(value), base + 19, real(value, 3), "tick middle")]  # fmt: skip
    curves = (
        ("clip-up", [(point.figure, point.measured) for point in result.front]),
        ("faint", [(point.figure, point.predicted) for point in result.front if point.predicted is not None]),
        ("clip-low", [(point.figure, point.measured) for point in result.uniforms]),
    )
    for style, line in curves:
        parts.append(svg.polyline([(across(x), up(y)) for x, y in line], style))
    for point in points:
        parts.append(_dot(across(point.figure), up(point.measured), point, "low" if point.name != "mixed" else "dot"))
    parts.append(_dot(across(result.chosen.figure), up(result.chosen.measured), result.chosen, "ring", 7.0))
    keys = (("dot", "mixed (dotted: predicted)"), ("low", "uniform"), ("ring", "chosen, whole recipe"))
    for row, (style, text) in enumerate(keys):
        y = base - 14 - 18 * (len(keys) - 1 - row)
        parts += [Markup('<circle cx="{}" cy="{}" r="4" class="{}"/>').format(width - 200, y - 4, style),
                  svg.text(width - 188, y, text, "tick")]  # fmt: skip
    parts.append(svg.text((left + width) / 2, height - 8, result.model.unit, "tick middle"))
    parts.append(svg.text(left, top - 5, "PSNR of the integer output against the float network, dB", "tick"))
    drawing = svg.drawing(width, height, "Cost against quality", "wide", parts)
    return Markup(str(drawing).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def _dot(x: float, y: float, point: Point, style: str, radius: float = 3.5) -> Markup:
    about = f"{point.name}: cost {real(point.figure)}, {point.measured:.2f} dB"
    mark = '<circle cx="{}" cy="{}" r="{}" class="{}"><title>{}</title></circle>'
    return Markup(mark).format(x, y, radius, style, about)
