"""Tasks in this process and in workers: order, errors, what follows from what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from srq_hw.compare.workers import THREAD_VARIABLES, Outcome, Task, perform, run_tasks
from srq_hw.errors import InputError, RunError


def note(path: Path) -> None:
    """Leave a file that says who made it."""
    path.write_text(" ".join([str(os.getpid()), *(os.environ.get(name, "-") for name in THREAD_VARIABLES)]))


def fail(kind: str) -> None:
    """Fail in one of the ways a task can."""
    if kind == "input":
        raise InputError("a sentence")
    if kind == "memory":
        raise MemoryError
    if kind == "disk":
        raise OSError(28, "No space left on device", "somewhere")
    if kind == "end":
        os._exit(3)
    raise ValueError("first line\nsecond line")


@pytest.mark.parametrize(
    ("kind", "error", "traced"),
    [
        ("input", "a sentence", False),
        ("memory", "not enough memory; use fewer --jobs or smaller images", False),
        ("disk", "somewhere: No space left on device", False),
        ("other", "unexpected ValueError: first line", True),
    ],
)
def test_errors_are_sentences(kind: str, error: str, traced: bool) -> None:
    outcome = perform(Task("k", fail, (kind,)))
    assert (outcome.key, outcome.error) == ("k", error)
    assert ("in fail" in outcome.trace) is traced


def test_what_follows_comes_next(tmp_path: Path) -> None:
    ended = []

    def after(outcome: Outcome) -> Iterable[Task]:
        ended.append(outcome.key)
        return [Task(f"{outcome.key}{n}", note, (tmp_path / "x",)) for n in (1, 2)] if len(outcome.key) == 1 else []

    run_tasks([Task(key, note, (tmp_path / key,)) for key in "ab"], 1, after)
    assert ended == ["a", "a1", "a2", "b", "b1", "b2"]


def test_workers(tmp_path: Path) -> None:
    """Other processes, one thread each; a failing task ends no other."""
    outcomes: dict[str, Outcome] = {}

    def ended(outcome: Outcome) -> Iterable[Task]:
        outcomes[outcome.key] = outcome
        return [Task("after", note, (tmp_path / "after",))] if outcome.key == "bad" else []

    tasks = [Task("bad", fail, ("input",)), *(Task(key, note, (tmp_path / key,)) for key in "abc")]
    run_tasks(tasks, 2, ended)
    assert outcomes.pop("bad").error == "a sentence"
    assert sorted(outcomes) == ["a", "after", "b", "c"] and all(item.error is None for item in outcomes.values())
    for key in outcomes:
        process, *threads = (tmp_path / key).read_text().split()
        assert int(process) != os.getpid() and threads == ["1"] * len(THREAD_VARIABLES)


def test_a_killed_worker_is_no_silence() -> None:
    with pytest.raises(RunError, match=r"ended from outside .* fewer than --jobs 2"):
        run_tasks([Task("x", fail, ("end",)), Task("y", fail, ("end",))], 2, lambda outcome: [])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 9), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_no_worker_outlives_the_comparison(tmp_path: Path, number: int, status: int) -> None:
    command = [sys.executable, "-m", "tests.compare.sleepers", str(tmp_path)]
    process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    workers = [psutil.Process(int(path.name)) for path in tmp_path.iterdir()]
    process.send_signal(number)
    assert process.wait(30) == status
    _, alive = psutil.wait_procs(workers, 30)
    assert alive == []
    assert len(list(tmp_path.iterdir())) == 2  # the tasks that waited were never begun
