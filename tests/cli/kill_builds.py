"""Run by test_build.py: forks one build per step into the same folder and kills it with SIGKILL inside that step."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from pathlib import Path

from srq_hw.cli import run

#: seconds into the step, so that some of its work is done and some is not
DELAYS = {"finn": 1.5, "oracle_finn": 0.7, "quality": 0.3, "parity": 0.05, "simulators": 0.05}
ARGUMENTS = ["build", "ownnets.small:net", "--calib", "tiny.yaml", "--input-size", "16x16", "--out"]


def build(folder: Path) -> int:
    """Fork a build; the child's process id."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(run([*ARGUMENTS, str(folder)]))
    return child


def killed_in(step: str, folder: Path) -> str:
    """Kill a build in this step; "killed", or how it ended before."""
    child = build(folder)
    scratch = folder / ".srq/scratch" / step
    ended = 0
    while not scratch.exists():
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return f"ended-{status}"
        time.sleep(0.0005)
    time.sleep(DELAYS.get(step, 0.0))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return "killed" if os.WIFSIGNALED(status) else f"ended-{status}"


def main(folder: Path, steps: list[str]) -> None:
    for name in ("srq_hw.pipeline.run", "srq_hw.progress", "srq_hw.show", "ownnets.small"):
        importlib.import_module(name)  # once, so that every child starts at once
    lines = [f"{step}:{killed_in(step, folder)}" for step in steps]
    if (folder / "report.json").exists():
        sys.exit("a killed build left a report")
    status = os.waitpid(build(folder), 0)[1]
    sys.stdout.write("\n".join([*lines, f"last:{os.waitstatus_to_exitcode(status)}"]) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, "")
    main(Path(sys.argv[1]), sys.argv[2:])
