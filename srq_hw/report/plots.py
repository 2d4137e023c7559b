"""The report's drawings as inline SVG: colours come from the page's style sheet, so both colour schemes work.

A hostile layer name stays text (see `svg`). The same rows give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from srq_hw.report import svg
from srq_hw.report.axis import Axis, real, round_ticks, value_axis

Row = Mapping[str, Any]

NAMED_LAYERS = 22  # with more layers than this the axis shows numbers instead of names
HISTOGRAM_BINS = 64
TRADEOFF_MOST = 1.5  # foldings that need more than this share of a device are not drawn


def clipping_plot(rows: Sequence[Row]) -> Markup:
    """Clipping values against layers, as in figure 1 of the supplement of Tu et al..

    Filled band: smallest to largest value seen; lines with marks: the bounds the quantizer keeps. Quantizers whose
    step is fixed to the grey level are left out: nothing was chosen there, and their 0 to 255 would hide the others.
    Empty where nothing is left.
    """
    numbered = [(number, row) for number, row in enumerate(rows, 1) if not row["fixed"]]
    layers = [row for _, row in numbered]
    if not layers:
        return Markup("")
    named = len(layers) <= NAMED_LAYERS
    width, left, top, plot_height = 960.0, 64.0, 20.0, 300.0
    height = top + plot_height + (120.0 if named else 46.0)
    seen = [row for row in layers if row["data_min"] is not None and row["data_max"] is not None]
    values = [row[key] for row in layers for key in ("lower", "upper")]
    values += [row[key] for row in seen for key in ("data_min", "data_max")]
    spans = [max(abs(row["lower"]), abs(row["upper"])) for row in layers]
    axis = value_axis(values, spans, top + plot_height, top)
    pitch = (width - left - 16) / len(layers)
    centre = [round(left + (index + 0.5) * pitch, 1) for index in range(len(layers))]
    parts = [*_grid(axis, left, width)]
    half = min(0.36 * pitch, 14.0)
    for x, row in zip(centre, layers, strict=True):
        parts.append(_layer_mark(x, half, row, axis))
    for key, style in (("upper", "clip-up"), ("lower", "clip-low")):
        parts.append(svg.polyline([(x, axis(row[key])) for x, row in zip(centre, layers, strict=True)], style))
    every = 1 if named else math.ceil(len(layers) / 32)
    base = top + plot_height
    for index, (x, (number, row)) in enumerate(zip(centre, numbered, strict=True)):
        if named:
            label = Markup('<text x="{0}" y="{1}" class="tick end" transform="rotate(-40 {0} {1})">{2}</text>')
            parts.append(label.format(x + 3, base + 16, shorten(row["name"], 20)))
        elif index % every == 0:
            parts.append(svg.text(x, base + 16, str(number), "tick middle"))
    parts.append(svg.text(left, top - 3, "value, log scale on both sides of 0" if axis.knee else "value", "tick"))
    foot = "layer" if named else "layer number (see the table)"
    parts.append(svg.text(round((left + width) / 2, 1), height - 4, foot, "tick middle"))
    return svg.drawing(width, height, "Clipping bounds and data range of every quantizer", "wide", parts)


def _grid(axis: Axis, left: float, width: float) -> list[Markup]:
    parts = []
    for value in axis.ticks():
        y = axis(value)
        parts.append(svg.line(left, y, width - 8, y, "zero" if value == 0 else "grid"))
        parts.append(svg.text(left - 8, y + 4, real(value, 3), "tick end"))
    return parts


def _layer_mark(x: float, half: float, row: Row, axis: Axis) -> Markup:
    about = f"{row['name']}: keeps {real(row['lower'])} to {real(row['upper'])}"
    parts = []
    if row["data_min"] is not None and row["data_max"] is not None:
        about += f", data {real(row['data_min'])} to {real(row['data_max'])}"
        y, end = axis(row["data_max"]), axis(row["data_min"])
        box = '<rect x="{}" y="{}" width="{}" height="{}" class="band"/>'
        parts.append(Markup(box).format(round(x - half, 1), y, round(2 * half, 1), round(max(end - y, 1.0), 1)))
    for key, style in (("upper", "mark-up"), ("lower", "mark-low")):
        y = axis(row[key])
        parts.append(svg.line(round(x - half, 1), y, round(x + half, 1), y, style))
    return Markup("<g><title>{}</title>{}</g>").format(about, Markup("").join(parts))


def clipped_share(row: Row) -> float | None:
    """Share of the counted values outside [lower, upper], bins split in proportion; None without a histogram."""
    counts, total = row["histogram"], sum(row["histogram"])
    if not total:
        return None
    low, high = row["data_min"], row["data_max"]
    if high == low:
        return 0.0 if row["lower"] <= low <= row["upper"] else 1.0
    size = (high - low) / len(counts)
    kept = 0.0
    for index, count in enumerate(counts):
        edge = low + index * size
        inside = min(edge + size, row["upper"]) - max(edge, row["lower"])
        kept += count * min(max(inside / size, 0.0), 1.0)
    return min(max(1.0 - kept / total, 0.0), 1.0)


def _rebinned(counts: Sequence[int]) -> list[int]:
    """At most HISTOGRAM_BINS bins: neighbours are added up where there are more."""
    join = math.ceil(len(counts) / HISTOGRAM_BINS)
    return [sum(counts[index : index + join]) for index in range(0, len(counts), join)]


def histogram_plot(row: Row) -> Markup:
    """Counts (log scale) against value, with the two clipping bounds; what lies outside them is drawn as clipped."""
    counts = _rebinned(row["histogram"])
    if not counts or not any(counts):
        return Markup("")
    width, height, base, top = 240.0, 104.0, 86.0, 6.0
    low, high = row["data_min"], row["data_max"]
    if high == low:
        low, high = low - 0.5, high + 0.5
    # The last joined bin may be shorter than the others; its width below is that of the data, so nothing shifts.
    join = math.ceil(len(row["histogram"]) / HISTOGRAM_BINS)
    size = (high - low) / len(row["histogram"]) * join
    left, right = min(low, row["lower"]), max(high, row["upper"])
    pad = 0.02 * (right - left)
    axis = Axis(left - pad, right + pad, 2.0, width - 2)
    tallest = math.log1p(max(counts))
    kept: list[str] = []
    clipped: list[str] = []
    for index, count in enumerate(counts):
        if count:
            edge = low + index * size
            end = min(edge + size, high)
            y = round(base - (base - top) * math.log1p(count) / tallest, 1)
            bar = f"M{axis(edge)} {base}V{y}H{axis(end)}V{base}z"
            inside = row["lower"] <= (edge + end) / 2 <= row["upper"]
            (kept if inside else clipped).append(bar)
    parts = [Markup('<path d="{}" class="{}"/>').format("".join(bars), style)
             for bars, style in ((kept, "kept"), (clipped, "cut")) if bars]  # fmt: skip
    parts.append(svg.line(0, base, width, base, "zero"))
    for key, style in (("lower", "clip-low"), ("upper", "clip-up")):
        x = axis(row[key])
        parts.append(svg.line(x, 0, x, base, style))
    parts.append(svg.text(1, height - 3, real(left, 3), "tick"))
    parts.append(svg.text(width - 1, height - 3, real(right, 3), "tick end"))
    if left < 0 < right and 0.25 < -left / (right - left) < 0.75:
        parts.append(svg.text(axis(0.0), height - 3, "0", "tick middle"))
    return svg.drawing(width, height, f"Histogram of {row['name']}", "small", parts)


def tradeoff_plot(rows: Sequence[Row], fps: float, limit: float, names: Mapping[str, str]) -> Markup:
    """Share of the device by each resource against frames per second (log scale), slowest folding first.

    rows: `tradeoff` of report.json; those far above the whole device are left out. fps: of the design that was made;
    limit: what a design may take of each resource. names: resource -> heading. Empty with fewer than two foldings.
    """
    near = [row for row in rows if max(row["shares"].values()) <= TRADEOFF_MOST]
    if len(near) < 2:
        return Markup("")
    width, height, left, top, base = 960.0, 380.0, 64.0, 20.0, 320.0
    rates = [math.log10(value) for value in (fps, near[0]["fps"], near[-1]["fps"])]
    across = Axis(min(rates), max(rates), left + 16, width - 90)
    most = max(1.0, *(max(row["shares"].values()) for row in near))
    up = Axis(0.0, most, base, top)
    parts = []
    for value in round_ticks(0.0, most):
        parts.append(svg.line(left, up(value), width - 80, up(value), "grid"))
        parts.append(svg.text(left - 8, up(value) + 4, f"{100 * value:.0f} %", "tick end"))
    parts.append(svg.line(left, up(limit), width - 80, up(limit), "zero"))
    for exponent in range(math.floor(across.low), math.ceil(across.high) + 1):
        for digit in (1, 2, 5):
            value = digit * 10.0**exponent
            if across.low <= math.log10(value) <= across.high:
                parts.append(svg.text(across(math.log10(value)), base + 18, f"{value:g}", "tick middle"))
    here = across(rates[0])
    parts += [svg.line(here, top, here, base, "chosen"), svg.text(here, top - 6, "this design", "tick middle")]
    ends: list[float] = []
    for key, name in names.items():
        if not any(row["shares"][key] for row in near):
            continue
        points = [(across(math.log10(row["fps"])), up(row["shares"][key])) for row in near]
        parts.append(svg.polyline(points, f"trade {key}"))
        y = points[-1][1]
        while any(abs(y - other) < 14 for other in ends):  # names do not cover one another
            y -= 14
        ends.append(y)
        parts.append(svg.text(width - 84, y + 4, name, f"tick trade-{key}"))
        for (x, dot), row in zip(points, near, strict=True):
            about = f"{real(row['fps'])} frames/s: {name} {100 * row['shares'][key]:.1f} %, slowest {row['bottleneck']}"
            mark = Markup('<circle cx="{}" cy="{}" r="3.5" class="dot {}"><title>{}</title></circle>')
            parts.append(mark.format(x, dot, key, about))
    parts.append(
        svg.text(left, height - 8, "frames per second, log scale; the dark line: what a design may take", "tick")
    )
    return svg.drawing(width, height, "Share of the device against frames per second", "wide", parts)


def shorten(text: str, limit: int) -> str:
    """A name with its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    return text[: limit - tail - 1] + "…" + text[-tail:]
