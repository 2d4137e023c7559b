"""The convergence plot: PSNR and SSIM per epoch of several runs, as in section C of the supplement of Tu et al."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from srq_hw.errors import InputError
from srq_hw.qat.checkpoint import LOG
from srq_hw.report import svg
from srq_hw.report.axis import Axis, real, round_ticks

#: drawing units
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460.0, 300.0, 58.0, 12.0, 26.0, 62.0
#: what the report's style sheet uses, for both colour schemes; the third and fourth run are dashed too
STYLE = """
svg { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; --ink: #16191d;
 --soft: #59616c; --line: #d5d9df; --run0: #0a5fa5; --run1: #b5460f; --run2: #0b6b45; --run3: #6a5200; }
@media (prefers-color-scheme: dark) { svg { --ink: #e8eaed; --soft: #a3acb8; --line: #363c45; --run0: #6db3f2;
 --run1: #f59a5f; --run2: #6fdcaa; --run3: #ecd07a; } }
text { fill: var(--soft); } .title { fill: var(--ink); font-weight: 600; } .middle { text-anchor: middle; }
.end { text-anchor: end; } .grid { stroke: var(--line); } .float { stroke: var(--soft); stroke-dasharray: 6 4; }
polyline { fill: none; } .run0, .run1, .run2, .run3 { stroke-width: 2; }
.run0 { stroke: var(--run0); } .run1 { stroke: var(--run1); }
.run2 { stroke: var(--run2); stroke-dasharray: 8 3; } .run3 { stroke: var(--run3); stroke-dasharray: 2 3; }
circle { fill: none; }
"""
#: runs that the style tells apart
MOST_RUNS = 4


@dataclass(frozen=True)
class Run:
    """A run's curve: values per epoch, 0 the start; floats None where the run has not ended."""

    title: str
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    float_psnr: float | None = None
    float_ssim: float | None = None


def read_run(title: str, folder: Path) -> Run:
    """The log of a folder that `srq-hw qat` wrote; finished or not. InputError where there is none."""
    try:
        epochs = json.loads((folder / LOG).read_text(encoding="utf-8"))["epochs"]
        psnr, ssim = (tuple(float(row[key]) for row in epochs) for key in ("psnr", "ssim"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / LOG}: no log of srq-hw qat ({error}); give the --out folder of a run") from error
    ended = folder / "qat.json"
    reference = json.loads(ended.read_text(encoding="utf-8"))["float"] if ended.is_file() else {}
    return Run(title, psnr, ssim, reference.get("psnr"), reference.get("ssim"))


def convergence_plot(runs: Sequence[Run]) -> str:
    """An SVG page of two panels, PSNR and SSIM against epochs; the float network as a dashed line.

    InputError for no run or more than the style tells apart. The same runs give the same bytes.
    """
    if not 0 < len(runs) <= MOST_RUNS:
        raise InputError(f"{len(runs)} runs: the plot shows 1 to {MOST_RUNS}")
    left = _panel("PSNR on Y, dB", [run.psnr for run in runs], runs[0].float_psnr)
    right = _panel("SSIM on Y", [run.ssim for run in runs], runs[0].float_ssim)
    height = HEIGHT + 20.0
    head = Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img">').format(2 * WIDTH, height)
    title = Markup("<title>Score of the integer network after every epoch</title><style>{}</style>").format(
        Markup(STYLE)
    )
    second = Markup('<g transform="translate({} 0)">{}</g>').format(WIDTH, right)
    return str(head + title + left + second + _legend(runs, height - 8) + Markup("</svg>\n"))


def _panel(title: str, curves: Sequence[Sequence[float]], reference: float | None) -> Markup:
    values = [value for curve in curves for value in curve] + ([] if reference is None else [reference])
    margin = 0.06 * (max(values) - min(values)) or 0.01
    y = Axis(min(values) - margin, max(values) + margin, HEIGHT - BOTTOM, TOP)
    last = max(max(len(curve) for curve in curves) - 1, 1)
    x = Axis(0.0, float(last), LEFT, WIDTH - RIGHT)
    parts = [svg.text(LEFT, TOP - 10, title, "title")]
    for value in y.ticks():
        parts.append(svg.line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"))
        parts.append(svg.text(LEFT - 6, y(value) + 4, real(value, 5), "end"))
    for value in round_ticks(0.0, float(last), min(last, 8)):
        if value == int(value):
            parts.append(svg.text(x(value), HEIGHT - BOTTOM + 18, str(int(value)), "middle"))
    parts.append(svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 36, "epoch (0: before training)", "middle"))
    if reference is not None:
        parts.append(svg.line(LEFT, y(reference), WIDTH - RIGHT, y(reference), "float"))
    for index, curve in enumerate(curves):
        points = [(x(float(epoch)), y(value)) for epoch, value in enumerate(curve)]
        parts.append(svg.polyline(points, f"run{index}"))
        parts += [Markup('<circle cx="{}" cy="{}" r="2.5" class="run{}"/>').format(a, b, index) for a, b in points]
    return Markup("").join(parts)


def _legend(runs: Sequence[Run], y: float) -> Markup:
    entries = [(run.title, f"run{index}") for index, run in enumerate(runs)]
    if runs[0].float_psnr is not None:
        entries.append(("float network", "float"))
    pitch = (2 * WIDTH - LEFT) / len(entries)
    parts = []
    for index, (title, style) in enumerate(entries):
        start = LEFT + index * pitch
        parts += [svg.line(start, y - 4, start + 28, y - 4, style), svg.text(start + 34, y, title, "")]
    return Markup("").join(parts)
