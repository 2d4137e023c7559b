"""Run by test_command.py: forks comparisons into one folder, kills one, interrupts the next, lets the last one end."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from srq_hw.cli import run


def start(arguments: Sequence[str]) -> int:
    """Fork a comparison; the child's process id."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(run(list(arguments)))
    return child


def stop_when(pattern: str, folder: Path, number: int, arguments: Sequence[str]) -> int:
    """Send a signal as soon as such a file is there; how the comparison ended, as os.waitstatus_to_exitcode says it."""
    child = start(arguments)
    while not list(folder.glob(pattern)):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, arguments: list[str]) -> None:
    """Prints how the three ended."""
    for name in ("srq_hw.compare.run", "srq_hw.progress", "tests.compare.nets"):
        importlib.import_module(name)  # once, so that every child starts at once
    alone = [*arguments, "--jobs", "1"]
    ends = [
        stop_when("programs/*.json", folder, signal.SIGKILL, alone),
        stop_when("scores/*.json", folder, signal.SIGINT, alone),
        os.waitstatus_to_exitcode(os.waitpid(start([*arguments, "--jobs", "2"]), 0)[1]),
    ]
    sys.stdout.write(" ".join(map(str, ends)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
