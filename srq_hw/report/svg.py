"""Elements of an SVG drawing; style: a class of the style sheet around it.

Every string passes through markupsafe, so a hostile name stays text.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup


def text(x: float, y: float, content: str, style: str) -> Markup:
    """Words that start at a point, unless the style places them otherwise."""
    return Markup('<text x="{}" y="{}" class="{}">{}</text>').format(x, y, style, content)


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """A straight line between two points."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(x1, y1, x2, y2, style)


def drawing(width: float, height: float, title: str, style: str, parts: Sequence[Markup]) -> Markup:
    """The whole drawing; title: what a screen reader says."""
    head = Markup('<svg viewBox="0 0 {} {}" class="{}" role="img"><title>{}</title>').format(
        width, height, style, title
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def polyline(points: Sequence[tuple[float, float]], style: str) -> Markup:
    """Straight lines from point to point."""
    return Markup('<polyline points="{}" class="{}"/>').format(" ".join(f"{x},{y}" for x, y in points), style)
