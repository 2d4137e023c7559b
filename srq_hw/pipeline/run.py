"""Run a build: check the options, run the steps, write the report, return its verdict."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from srq_hw.backends.finn.placement import check_library
from srq_hw.errors import InputError, RunError, SrqError
from srq_hw.exchange.lower import image_size
from srq_hw.files import write_json, write_text
from srq_hw.pipeline.assemble import assemble
from srq_hw.pipeline.engine import StepRecord, final_places, locked, run_step
from srq_hw.pipeline.notes import build_notes
from srq_hw.pipeline.options import BuildOptions, check_file_options, check_fps, prepare_folder
from srq_hw.pipeline.session import Session, lower_image_network
from srq_hw.pipeline.steps import build_steps
from srq_hw.pipeline.stored import check_quantized_options
from srq_hw.report.html import write_html
from srq_hw.report.schema import validate
from srq_hw.tools import tool_seconds

#: bytes; with less than this left, a failed step failed for want of space
FULL_DISK = 1 << 18


class Watcher(Protocol):
    """Who is told how a build goes (the command line shows bars)."""

    def step_started(self, name: str, number: int, total: int) -> None:
        """A step begins."""

    def advanced(self, done: int, total: int) -> None:
        """A part of the running step is done."""

    def step_ended(self, record: StepRecord) -> None:
        """A step is done or was skipped."""


def run_build(
    options: BuildOptions, watcher: Watcher, warn: Callable[[str], None] = lambda text: None
) -> dict[str, Any] | None:
    """The report of the finished build, or None where --stop-after ended it earlier.

    warn: told of what may spoil the figures, before any work. InputError for what the user can mend, RunError where a
    step fails. A gate that does not hold is in the report ("ok": false), not an exception.
    """
    check_fps(options.fps)
    check_library(options.library)
    session = Session(options)
    _check_inputs(session)
    steps = build_steps(session, watcher.advanced)
    names = [step.name for step in steps]
    if options.stop_after is not None and options.stop_after not in names:
        raise InputError(f"--stop-after {options.stop_after!r}: steps of this build are {', '.join(names)}")
    for text in build_notes(session):
        warn(text)
    prepare_folder(options.out)
    with _disk_errors(options.out), locked(options.out):
        records: list[StepRecord] = []
        for number, step in enumerate(steps, 1):
            watcher.step_started(step.name, number, len(steps))
            record = run_step(step, options.out, lambda: _withdraw_report(options.out))
            records.append(record)
            _log(options.out, records)
            watcher.step_ended(record)
            if step.name == options.stop_after:
                return None
        report = assemble(session, steps, records)
        validate(report)
        write_json(options.out / "report.json", report)
        write_html(report, options.out)
        return report


def _check_inputs(session: Session) -> None:
    """Read everything the user gave before the build folder is touched."""
    tool_seconds(1)  # is it a time at all
    _ = session.target
    if session.options.is_file:
        check_file_options(session.options, image_size(session.foreign))
        lower_image_network(session.foreign, session.target, str(session.options.model))
        return
    if session.options.quantized is not None:
        check_quantized_options(session.options, session.plan, session.target)
    _ = session.recipe
    _ = session.plan
    if session.options.calib_images is not None:
        _ = session.calibration_images


def _withdraw_report(out: Path) -> None:
    """A report vouches for the files beside it: it goes before the first of them changes."""
    for name in ("report.json", "report.html"):
        (out / name).unlink(missing_ok=True)


def _log(out: Path, records: list[StepRecord]) -> None:
    lines = [
        f"{r.name:15s} {'cached' if r.cached else 'ran':7s} {r.seconds:8.2f} s  {r.inputs_sha256[:16]}" for r in records
    ]
    write_text(out / "log.txt", "\n".join(lines) + "\n")


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    """A full or read-only disk is the user's to mend: one message, no traceback."""
    try:
        yield
    except OSError as error:
        where = final_places(str(error.filename or out), out)
        raise RunError(
            f"{where}: {error.strerror or error}; free some space or choose another --out, then run again"
        ) from error
    except SrqError as error:  # a worker or a writer on a full disk fails in its own words
        free = shutil.disk_usage(out).free
        if free >= FULL_DISK:
            if isinstance(error.__cause__, OSError):  # a file of a scratch folder that could not be written
                raise type(error)(final_places(str(error), out)) from error
            raise
        raise RunError(
            f"{out}: the disk is full ({free} bytes left); free some space or choose another --out, then run again. "
            f"Failed: {error}"
        ) from error


def summary(report: dict[str, Any]) -> str:
    """The report's verdict as JSON for --json: everything but histograms and per-node tables."""
    short = {key: report[key] for key in ("target", "network", "parity", "quality", "oracles", "gates", "ok")}
    estimate = report["estimate"]
    short["estimate"] = estimate and {
        k: v for k, v in estimate.items() if k not in ("nodes", "corrections", "not_counted")
    }
    return json.dumps(short, sort_keys=True)
