"""The table that `srq-hw estimate` prints: a column per board."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srq_hw.backends.search.search import BOARD
from srq_hw.estimate.boards import Row

HEADINGS = {"lut": "LUT", "ff": "FF", "dsp": "DSP", "bram36": "BRAM36", "uram": "URAM"}


def print_rows(rows: list[Row], name: str, size: tuple[int, int], free: bool, console: Console) -> None:
    """Boards side by side, then what was left out of the cells."""
    asked = f", {rows[0].wanted:g} frames/s wanted" if rows[0].wanted is not None else ""
    title = f"{name}, frames of {size[0]}x{size[1]} (HxW){asked}: estimate before synthesis"
    console.print(title, markup=False)
    table = Table("", *[escape(row.target) for row in rows], box=None)
    for label, cell in _lines(free):
        cells = [cell(row) for row in rows]
        if any(cells):
            table.add_row(label, *cells)
    console.print(table)
    for row in rows:
        if row.problem:
            console.print(f"{row.target}: {row.problem}", markup=False)
        for rule in row.rules:
            console.print(f"{row.target}: breaks a rule: {rule}", markup=False)
    if not free and any(row.point is not None and not row.fits for row in rows):
        console.print("bits to fit: the graph is quantized already; name its float network to have other widths tried")


def _lines(free: bool) -> list[tuple[str, Callable[[Row], str]]]:
    lines: list[tuple[str, Callable[[Row], str]]] = [
        ("", _verdict),
        ("units", lambda row: row.library if row.point else ""),
        ("bits", lambda row: str(row.bits) if row.bits else ""),
        ("clock, MHz", lambda row: f"{row.clock_mhz:g}"),
        ("frames/s", lambda row: f"{row.point.fps:.4g}" if row.point else ""),
        ("highest that fits", lambda row: f"{row.best.fps:.4g}" if row.best and row.wanted is not None else ""),
        ("latency, ms", lambda row: f"{row.latency_ms:.3g}" if row.latency_ms is not None else ""),
        *((HEADINGS[key], _share(key)) for key in BOARD),
        ("bottleneck", _bottleneck),
        ("fullest", lambda row: HEADINGS[row.point.fullest] if row.point else ""),
        ("weight bits/cycle", lambda row: f"{row.point.weight_bits:,}" if row.point else ""),
        ("weights by the host", _loaded),
        ("board that fits", lambda row: "" if row.fits or row.point is None else row.larger or "none of ours"),
    ]
    if free:
        lines.append(("bits that fit", _bits))
    return lines


def _verdict(row: Row) -> str:
    if row.point is None:
        return "[bold red]no estimate[/]"
    if row.rules:
        return "[bold red]rules broken[/]"
    if row.fits:
        return "[green]fits[/]"
    if row.point.short:
        short = ", ".join(f"{amount:,.4g} {HEADINGS[key]}" for key, amount in row.point.short.items())
        return f"[bold red]short of {short}[/]"
    return "[bold red]too slow[/]"


def _share(key: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        if row.point is None:
            return ""
        if not row.has[key]:
            return f"{row.point.used[key]:,g} of 0"
        text = f"{row.point.used[key]:,g} ({100 * row.point.shares[key]:.0f} %)"
        return f"[red]{text}[/]" if key in row.point.short else text

    return cell


def _bottleneck(row: Row) -> str:
    if row.point is None:
        return ""
    return escape(row.point.bottleneck) + (" (at its fastest)" if row.point.roof else "")


def _loaded(row: Row) -> str:
    """Convolutions whose weights are written at run time."""
    return f"of {len(row.point.loaded)} convolutions" if row.point and row.point.loaded else ""


def _bits(row: Row) -> str:
    if row.point is None or row.fits:
        return ""
    return str(row.bits_to_fit) if row.bits_to_fit else "none of 8, 6, 4"
