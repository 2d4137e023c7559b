"""Run a comparison: what is recorded already is read, the rest is measured, and all of it is written down."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from srq_hw import __version__
from srq_hw.compare.cells import (
    Cell,
    Method,
    NetworkEntry,
    check_policy,
    check_widths,
    find_methods,
    find_networks,
    float_key,
    make_cells,
)
from srq_hw.compare.figures import draw, drawn, figures_key
from srq_hw.compare.files import is_file
from srq_hw.compare.measure import (
    graph_path,
    make_program,
    read_floats,
    read_program,
    read_scores,
    score_float,
    score_program,
)
from srq_hw.compare.options import CALIBRATION_SET, CompareOptions
from srq_hw.compare.sets import CalibrationSet, ImageSet, calibration_notes, calibration_set, find_sets, in_both
from srq_hw.compare.store import record_path, source_sha256, write_record
from srq_hw.compare.table import FILE_METHOD, cell_means, float_means, to_csv, to_markdown
from srq_hw.compare.workers import Outcome, Task, run_tasks
from srq_hw.errors import InputError, RunError
from srq_hw.evaluate.material import shared_warnings
from srq_hw.files import write_json, write_text
from srq_hw.pipeline.engine import locked
from srq_hw.pipeline.options import prepare_folder
from srq_hw.quantize.fallbacks import fallback_notes
from srq_hw.target import Target, load_target

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Grid:
    """The checked comparison. calibration: None where nothing is calibrated, all networks being QONNX files."""

    options: CompareOptions
    target: Target
    networks: tuple[NetworkEntry, ...]
    cells: tuple[Cell, ...]
    sets: tuple[ImageSet, ...]
    calibration: CalibrationSet | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def cells_of(self, network: NetworkEntry) -> list[Cell]:
        """Cells of one network."""
        return [cell for cell in self.cells if cell.network is network]


def make_grid(options: CompareOptions) -> Grid:
    """Read and check all that the user gave. InputError for what is wrong with it."""
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: wanted at least 1 image per set")
    if options.jobs is not None and options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: wanted at least 1 worker")
    target = load_target(options.target)
    if not all(is_file(spec) for spec in options.networks):  # a file has its own widths
        check_widths(options.widths, target)
        check_policy(options, target)
    methods = find_methods(options.methods)
    networks = find_networks(options, target)
    scales = sorted({network.scale for network in networks})
    sets = find_sets(options.sets, options.data, options.limit, scales)
    calibrated = sorted({network.scale for network in networks if not network.is_file})
    calibration = _calibration(options) if calibrated else None
    cells = make_cells(options, networks, methods, target, calibration)
    warnings = [] if calibration is None else shared_warnings(in_both(calibration, sets, calibrated))
    notes = [note for network in networks for note in _file_notes(network)]
    if calibration is not None:
        notes += _method_notes(methods, target, calibration, calibrated)
    return Grid(options, target, networks, cells, sets, calibration, tuple(warnings), tuple(dict.fromkeys(notes)))


def _method_notes(
    methods: Sequence[Method], target: Target, calibration: CalibrationSet, scales: Sequence[int]
) -> list[str]:
    found = [note for method in methods for note in fallback_notes(method.name, method.recipe, target)]
    for scale in scales:
        for method in methods:
            patches = method.recipe.patches
            found += calibration_notes(calibration, scale, patches.size, patches.count)
    return found


def _file_notes(network: NetworkEntry) -> list[str]:
    if not network.is_file:
        return []
    return [
        f"{network.spec} is quantized already: one row, method {FILE_METHOD}, of its own widths (--methods, --bits, "
        "--edges, --tail, --sums change nothing in it); without its float network there is no drop"
    ]


def _calibration(options: CompareOptions) -> CalibrationSet:
    folder = options.calib_images or options.data / CALIBRATION_SET
    if options.calib_images is None and not folder.is_dir():
        raise InputError(f"calibration: {folder} is no folder; give one of your own with --calib-images")
    return calibration_set(folder, options.calib_low)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- work ---------------------------------------------------------------------------------------------------------


class _Work:
    """Which tasks there are, what follows from which, and what failed."""

    def __init__(self, grid: Grid, progress: Callable[[int, int], None]) -> None:
        self.grid, self.out, self.progress = grid, grid.options.out, progress
        self.errors: dict[str, str] = {}
        self.following: dict[str, list[Task]] = {}  # program -> its scores
        self.open: dict[str, set[str]] = {}  # network -> tasks that its figures wait for
        self.total = self.done = 0

    def run(self) -> None:
        """Everything that has no record yet; a network's figures as soon as its cells are done."""
        first: dict[str, Task] = {}
        for network in self.grid.networks:
            own: dict[str, Task] = {}
            for images in self.grid.sets:
                if read_floats(self.out, network, images) is None:
                    key = float_key(network, images)
                    own[key] = Task(key, score_float, (network, images, self.out))
            for cell in self.grid.cells_of(network):
                self._plan_cell(cell, own)
            self.open[network.spec] = {*own, *(task.key for key in own for task in self.following.get(key, ()))}
            first.update(own or {task.key: task for task in self._figures(network)})
        self.total = len(first) + sum(len(tasks) for tasks in self.following.values())
        self.progress(0, self.total)
        jobs = min(self.grid.options.jobs or cores(), max(self.total, 1))
        run_tasks(first.values(), jobs, self._ended)

    def _plan_cell(self, cell: Cell, first: dict[str, Task]) -> None:
        """A program's task with those that score it behind; the latter at once where the program is there."""
        key = cell.program_key
        if key in self.following:  # two methods of the same content
            return
        there = read_program(self.out, cell) is not None
        scores = {
            cell.score_key(images): Task(cell.score_key(images), score_program, (cell, images, self.out))
            for images in self.grid.sets
            if not there or read_scores(self.out, cell, images) is None
        }
        if there:
            first.update(scores)
        else:
            first[key] = Task(key, make_program, (cell, self.out))
            self.following[key] = list(scores.values())

    def _figures(self, network: NetworkEntry) -> list[Task]:
        """The task that draws a network's finished cells, unless its figures are there."""
        cells = self.grid.cells_of(network)
        cells = [cell for cell in cells if self.error_of(cell) is None]
        key = figures_key(network, cells, self.grid.sets)
        if not cells or drawn(self.out, key) is not None:
            return []
        return [Task(key, draw, (network, cells, self.grid.sets, self.out))]

    def _ended(self, outcome: Outcome) -> list[Task]:
        after = self.following.get(outcome.key, [])
        gone = {outcome.key}
        self.done += 1
        if outcome.error is not None:
            self.errors[outcome.key] = outcome.error
            if outcome.trace:
                write_text(self.out / "errors" / f"{outcome.key}.txt", outcome.trace)
            gone |= {task.key for task in after}
            self.done += len(after)
            after = []
        for network in self.grid.networks:
            waiting = self.open[network.spec]
            if waiting & gone:
                waiting -= gone
                figures = [] if waiting else self._figures(network)
                self.total += len(figures)
                after = [*after, *figures]
        self.progress(self.done, self.total)
        return after

    def error_of(self, cell: Cell) -> str | None:
        """Why a cell has no figures."""
        keys = [cell.program_key, *(cell.score_key(images) for images in self.grid.sets)]
        keys += [float_key(cell.network, images) for images in self.grid.sets]
        return next((self.errors[key] for key in keys if key in self.errors), None)


def run_compare(
    options: CompareOptions, progress: Callable[[int, int], None], warn: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the grid and write compare.json, compare.md, compare.csv and figures/ into options.out.

    Returns what compare.json holds; "ok" is false where a cell failed. warn: told of what may spoil the figures.
    InputError for wrong input, KeyboardInterrupt passes through and leaves every finished record.
    """
    grid = make_grid(options)
    for text in (*grid.warnings, *grid.notes):
        warn(text)
    prepare_folder(options.out)
    with locked(options.out):
        work = _Work(grid, progress)
        work.run()
        result = _result(work)
        write_json(options.out / "compare.json", result)
        write_text(options.out / "compare.csv", to_csv(result))
        write_text(options.out / "compare.md", to_markdown(result))
    return result


# --- result -------------------------------------------------------------------------------------------------------


def _result(work: _Work) -> dict[str, Any]:
    grid = work.grid
    cells = [_cell(work, cell) for cell in grid.cells]
    networks = [_network(work, network) for network in grid.networks]
    return {
        "schema": SCHEMA,
        "tool": {"version": __version__, "source_sha256": source_sha256()},
        "target": {"name": grid.target.name, "sha256": grid.target.sha256},
        "calibration": _calibration_row(grid.calibration),
        "policy": {name: getattr(grid.options, name) for name in ("edges", "tail", "sums")},
        "sets": [{"name": item.name, "images": len(item.files), "sha256": item.sha256} for item in grid.sets],
        "networks": networks,
        "cells": cells,
        "warnings": list(grid.warnings),
        "notes": list(grid.notes),
        "ok": all(row["error"] is None for row in (*cells, *networks)),
    }


def _calibration_row(calibration: CalibrationSet | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return {
        "folder": calibration.images.name,
        "images": len(calibration.images.files),
        "low": calibration.low,
        "sha256": calibration.sha256,
    }


def _network(work: _Work, network: NetworkEntry) -> dict[str, Any]:
    out, sets = work.out, work.grid.sets
    done = [cell for cell in work.grid.cells_of(network) if work.error_of(cell) is None]
    key = figures_key(network, done, sets)
    errors = [work.errors.get(name) for name in (key, *(float_key(network, images) for images in sets))]
    figures = drawn(out, key) if done else None
    rows = {images.name: read_floats(out, network, images) for images in sets}
    return {
        "name": network.spec,
        "scale": network.scale,
        "channels": network.channels,
        "weights": network.weights.name if network.weights is not None else None,
        "sha256": network.sha256,
        "sets": {name: float_means(found) for name, found in rows.items() if found is not None},
        "figures": figures["figures"] if figures else {},
        "crops": figures["crops"] if figures else None,
        "error": next((text for text in errors if text is not None), None),
    }


def _cell(work: _Work, cell: Cell) -> dict[str, Any]:
    """A row of the result; of a finished cell also the file cells/<hash>.json with everything known of it."""
    sets = work.grid.sets
    head: dict[str, Any] = {
        "network": cell.network.spec,
        "method": cell.method,
        "weight_bits": cell.widths.weights,
        "act_bits": cell.widths.activations,
        "error": work.error_of(cell),
    }
    if head["error"] is not None:
        nothing = dict.fromkeys(("quantized", "calibration_seconds", "parity", "file"))
        return head | nothing | {"sets": {}}
    program = read_program(work.out, cell)
    scores, means = {}, {}
    for images in sets:
        rows, floats = read_scores(work.out, cell, images), read_floats(work.out, cell.network, images)
        if program is None or rows is None or floats is None:
            raise RunError(f"{work.out}: a record of {cell.network.spec} is gone; run the same command again")
        scores[images.name], means[images.name] = rows, cell_means(rows, floats)
    assert program is not None  # there is at least one set
    key = cell.key(sets)
    path = record_path(work.out, "cells", key)
    row = head | {
        "quantized": program["quantized"],
        "calibration_seconds": program["calibration_seconds"],
        "parity": program["parity"],
        "file": path.relative_to(work.out).as_posix(),
        "sets": means,
    }
    more = {name: program[name] for name in ("threads", "layers", "ranges", "equalized", "graph_sha256")}
    recipe = None if cell.recipe is None else cell.recipe.model_dump(mode="json", by_alias=True)
    graph = graph_path(work.out, cell.program_key).relative_to(work.out).as_posix()
    write_record(work.out, "cells", key, row | more | {"recipe": recipe, "graph": graph, "images": scores})
    return row
