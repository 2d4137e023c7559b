"""Markdown tables of measured losses: by method, by tool, against the goals, of DAQ, and of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scripts.quality.cells import METHODS, SETS, SETTINGS, Cell, best_peers

NOT_RUN = "–"
OURS = "srq"


def by_method(cells: Sequence[Cell], rivals: Sequence[Cell]) -> list[str]:
    """One table per setting and set: a row per network, a column per method, the best peer beside them."""
    found = {(cell.network, cell.setting, cell.method, cell.images): cell for cell in cells}
    best = best_peers(rivals)
    lines: list[str] = []
    for index, setting in enumerate(SETTINGS):
        for images in SETS:
            here = [cell for cell in cells if (cell.setting, cell.images) == (index, images)]
            methods = [method for method in METHODS if any(cell.method == method for cell in here)]
            if not methods:
                continue
            lines += ["", f"### {setting.title}: {images}", "", *_head("network", *methods, "best peer")]
            for name in networks_of(cells):
                losses = [_loss(found.get((name, index, method, images))) for method in methods]
                rival = best.get((name, index, images))
                lines.append(_row(name, *losses, f"{_loss(rival)} ({rival.method})" if rival else NOT_RUN))
    return lines


def of_code(cells: Sequence[Cell], now: str) -> list[str]:
    """How many cells were computed by the code of srq_hw as it stands (digest now)."""
    count = sum(cell.code == now for cell in cells)
    kept = "" if count == len(cells) else ", the others by earlier commits (column `code` of measured/compare.csv)"
    return ["", f"{count} of {len(cells)} cells were computed by the code as it stands (digest {now}){kept}."]


def against_goals(cells: Sequence[Cell], rivals: Sequence[Cell]) -> list[str]:
    """Which networks miss what `srq` is asked for: a part of the best peer's loss, and a loss in dB."""
    best = best_peers(rivals)
    lines = ["", "### Against the goals", "", *_head("setting", "set", "of the best peer", "missed by", "goal", "by")]
    for index, setting in enumerate(SETTINGS):
        if setting.part is None or setting.goal is None:
            continue
        for images in SETS:
            losses = {
                cell.network: cell.loss
                for cell in cells
                if (cell.setting, cell.images, cell.method) == (index, images, OURS) and cell.loss is not None
            }
            if not losses:
                continue
            allowed = {
                name: setting.part * (best[name, index, images].loss or 0.0)
                for name in losses
                if (name, index, images) in best
            }
            above = [f"{name} {losses[name]:.3f} ({most:.3f})" for name, most in allowed.items() if losses[name] > most]
            beyond = [f"{name} {loss:.3f}" for name, loss in losses.items() if loss > setting.goal]
            lines.append(
                _row(
                    setting.title.split(",")[0] + (" power of two" if setting.target == "dpu-pow2" else ""),
                    images,
                    f"at most {_part(setting.part)}" if allowed else NOT_RUN,
                    _missed(above, len(allowed)),
                    f"{setting.goal:.2f}",
                    _missed(beyond, len(losses)),
                )
            )
    return lines


def by_tool(rivals: Sequence[Cell], order: Sequence[str] = ()) -> list[str]:
    """One table per setting: a row per tool and variant, a column per network, losses on the sets one after another.

    order: networks that come first, in that order.
    """
    lines: list[str] = []
    names = sorted(networks_of(rivals), key=lambda name: order.index(name) if name in order else len(order))
    found = {(cell.network, cell.setting, cell.method, cell.images): cell for cell in rivals}
    for index, setting in enumerate(SETTINGS):
        here = [cell for cell in rivals if cell.setting == index]
        sets = [images for images in SETS if any(cell.images == images for cell in here)]
        if not here:
            continue
        lines += ["", f"### {setting.peers}: {' / '.join(sets)}", "", *_head("tool", *names)]
        for tool in dict.fromkeys(cell.method for cell in here):
            losses = [[_loss(found.get((name, index, tool, images))) for images in sets] for name in names]
            lines.append(_row(tool, *(" / ".join(row) for row in losses)))
    return lines


def daq_table(cells: Sequence[Cell]) -> list[str]:
    """DAQ, which no static integers can express: its losses in float, widths one after another."""
    found = {(cell.network, cell.images, cell.setting): cell for cell in cells}
    sets = [images for images in SETS if any(cell.images == images for cell in cells)]
    settings = sorted({cell.setting for cell in cells})
    widths = ", ".join(f"{SETTINGS[index].bits} bits" for index in settings)
    title = f"### DAQ, steps of every image and channel at run time, in float: {widths}"
    lines = ["", title, "", *_head("network", *sets)]
    for name in networks_of(cells):
        losses = [" / ".join(_loss(found.get((name, images, index))) for index in settings) for images in sets]
        lines.append(_row(name, *losses))
    return lines


def of_seconds(cells: Sequence[Cell]) -> list[str]:
    """Seconds of quantization, the longest of a network's settings."""
    methods = [
        method for method in METHODS if any(cell.method == method and cell.seconds is not None for cell in cells)
    ]
    lines = ["", "### Seconds of quantization, the longest of all widths and targets", "", *_head("network", *methods)]
    for name in networks_of(cells):
        longest = [
            max(
                (c.seconds for c in cells if (c.network, c.method) == (name, method) and c.seconds is not None),
                default=None,
            )
            for method in methods
        ]
        lines.append(_row(name, *(NOT_RUN if value is None else f"{value:.0f}" for value in longest)))
    return lines


def of_guides(cells: Sequence[Cell]) -> list[str]:
    """What `srq` made of every network at the narrowest width, its guides included."""
    narrow = next(index for index, setting in enumerate(SETTINGS) if setting.name == "W4A4")
    mine = [cell for cell in cells if (cell.setting, cell.method) == (narrow, OURS) and cell.quantized]
    found = {cell.network: cell.quantized for cell in mine}
    lines = ["", "### What `srq` quantized at W4A4", "", *_head("network", "quantized")]
    return [*lines, *(_row(name, found.get(name, NOT_RUN)) for name in networks_of(cells))]


def networks_of(cells: Iterable[Cell]) -> list[str]:
    """Names in the order of their first cells."""
    return list(dict.fromkeys(cell.network for cell in cells))


def _loss(cell: Cell | None) -> str:
    if cell is None:
        return NOT_RUN
    return "failed" if cell.loss is None else f"{cell.loss:.3f}"


def _missed(names: list[str], of: int) -> str:
    if not of:
        return NOT_RUN
    return ", ".join(names) if names else f"none of {of}"


def _part(part: float) -> str:
    return {1.0: "its loss", 0.5: "half", 1 / 3: "a third"}[part]


def _head(*names: str) -> list[str]:
    return [_row(*names), "|---" * len(names) + "|"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
