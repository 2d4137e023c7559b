"""What every method keeps of each layer's range, against min and max (figure 1 of the supplement of Tu et al.)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from srq_hw.report.axis import LINEAR_RATIO
from srq_hw.report.plots import NAMED_LAYERS, shorten

Row = Mapping[str, Any]
#: method -> (lower, upper) of every layer, None where it has no quantizer there
Lines = dict[str, list[tuple[float, float] | None]]

#: the palette of Okabe and Ito, told apart with every kind of colour vision, and marks besides
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
MARKS = ("o", "s", "^", "v", "D", "P", "X", "*")
BAND = "#d9e2ec"
STYLE = {"svg.hashsalt": "srq-hw", "svg.fonttype": "none", "font.size": 9.0, "font.family": "DejaVu Sans"}
DPI = 110


def narrowest(ranges: Sequence[Row]) -> dict[str, Row]:
    """Layer -> its quantizer; of two (a wide one for a sum, a narrow one for a convolution) the narrower."""
    found: dict[str, Row] = {}
    for row in ranges:
        if row["layer"] not in found or row["bits"] < found[row["layer"]]["bits"]:
            found[row["layer"]] = row
    return found


def clipping_lines(methods: Mapping[str, Row]) -> tuple[list[str], list[tuple[float, float]], Lines]:
    """Layers, their smallest and largest value, and what each method keeps of them; methods: name -> program record.

    A quantizer whose range is wider than the data keeps all of the data. An equalised network has other units in every
    layer: its bounds are scaled by the ratio of the two networks' extremes, so that a share stays the same share.
    """
    tables = {name: narrowest(record["ranges"]) for name, record in methods.items()}
    plain = [name for name in methods if not methods[name]["equalized"]] or list(methods)
    basis = tables[plain[0]]
    layers = list(basis)
    data = [(basis[layer]["data_min"], basis[layer]["data_max"]) for layer in layers]
    lines: Lines = {}
    for name, table in tables.items():
        kept: list[tuple[float, float] | None] = []
        for layer, (low, high) in zip(layers, data, strict=True):
            row = table.get(layer)
            if row is None:
                kept.append(None)
                continue
            lower, upper = max(row["lower"], row["data_min"]), min(row["upper"], row["data_max"])
            if methods[name]["equalized"] and name != plain[0]:
                lower = lower / row["data_min"] * low if row["data_min"] else 0.0
                upper = upper / row["data_max"] * high if row["data_max"] else 0.0
            kept.append((lower, upper))
        lines[name] = kept
    return layers, data, lines


def clipping_figure(title: str, panels: Mapping[str, Mapping[str, Row]]) -> tuple[bytes, bytes]:
    """(SVG, PNG) of one network; panels: widths -> method -> program record. The same records give the same bytes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 1.2 + 3.4 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for place, (widths, methods) in zip(axes, panels.items(), strict=True):
            _panel(place, widths, methods)
        figure.suptitle(_plain(f"Clipping bounds of {title}"), fontsize=11)
        canvas = FigureCanvasAgg(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        canvas.print_figure(png, format="png", dpi=DPI, metadata={"Software": None})
        canvas.print_figure(svg, format="svg", metadata={"Date": None, "Creator": None})
    return svg.getvalue(), png.getvalue()


def _panel(place: Axes, widths: str, methods: Mapping[str, Row]) -> None:
    layers, data, lines = clipping_lines(methods)
    xs = range(len(layers))
    place.bar(
        xs,
        [high - low for low, high in data],
        bottom=[low for low, _ in data],
        label="min to max",
        color=BAND,
        zorder=1,
    )
    for index, (name, kept) in enumerate(lines.items()):
        there = [(x, bounds) for x, bounds in zip(xs, kept, strict=True) if bounds is not None]
        style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "marker": MARKS[index % len(MARKS)]}
        shift = 0.6 * ((index + 0.5) / len(lines) - 0.5)  # side by side where methods agree
        label = _plain(name + (" (rescaled)" if methods[name]["equalized"] else ""))
        for side, text in ((1, label), (0, "_nolegend_")):
            values = [bounds[side] for _, bounds in there]
            place.plot(
                [x + shift for x, _ in there], values, linewidth=0.9, markersize=3.5, label=text, zorder=3, **style
            )
    spans = sorted(max(abs(low), abs(high)) for low, high in data)
    median = spans[len(spans) // 2] if spans else 0.0
    if median and spans[-1] > LINEAR_RATIO * median:
        place.set_yscale("asinh", linear_width=median / 10)
    place.axhline(0, color="#59616c", linewidth=0.6, zorder=2)
    place.grid(axis="y", color="#e3e6ea", linewidth=0.6)
    place.set_axisbelow(True)
    place.spines[["top", "right"]].set_visible(False)
    if len(layers) <= NAMED_LAYERS:
        place.set_xticks(xs, [_plain(shorten(layer, 20)) for layer in layers], rotation=40, ha="right", fontsize=7.5)
    else:
        place.set_xlabel("activation quantizer, in execution order (named in cells/)")
    place.use_sticky_edges = False
    place.margins(x=0.01, y=0.05)
    place.set_ylabel("value")
    place.set_title(widths, loc="left", fontsize=10)
    place.legend(ncols=8, fontsize=7.5, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0))


def _plain(text: str) -> str:
    """Text without matplotlib's mathematics."""
    return text.replace("$", r"\$")
