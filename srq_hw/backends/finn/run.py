"""Starts the FINN worker and waits for it: clean environment, progress, Ctrl-C, one plain error."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from srq_hw.errors import RunError

Progress = Callable[[str, float | None], None]
LOG = "finn.log"
RESULT = "result.json"


def run_worker(
    job: dict[str, Any],
    folder: Path,
    progress: Progress | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Run one job in its own process and return its result.

    folder: an existing folder that holds the job's input files and gets everything FINN writes.
    progress(step, seconds): called at the start of a step (seconds None) and at its end.
    meanwhile: writes input files of a "build" while FINN starts, which takes seconds; the job begins when it returns.
    RunError names the step, FINN's message, the model before that step and the log.
    """
    (folder / RESULT).unlink(missing_ok=True)
    job_file = folder / "job.json"
    told = {"log": LOG, "result": RESULT, "waits": meanwhile is not None}
    job_file.write_text(json.dumps(job | told, indent=1, sort_keys=True) + "\n")
    command = [sys.executable, "-m", "srq_hw.backends.finn.worker", str(job_file)]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    last = job["kind"]
    try:
        assert process.stdin is not None and process.stdout is not None
        if meanwhile:
            meanwhile()
        with contextlib.suppress(BrokenPipeError):  # it ended early; what it left says why
            process.stdin.write("go\n")
            process.stdin.close()
        process.stdin = None  # `communicate` would flush it
        for line in process.stdout:
            message = json.loads(line)
            last = message["step"]
            if progress:
                progress(last, message["seconds"])
        _, complaint = process.communicate()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
            stream.close()
    log = folder / LOG
    if not (folder / RESULT).is_file():
        raise RunError(
            f"FINN: the worker ended with status {process.returncode} during step {last} and left no result. "
            f"{complaint.strip()[-400:]} Log: {log}"
        )
    result: dict[str, Any] = json.loads((folder / RESULT).read_text())
    if result["status"] != "ok":
        saved = f" Model before the step: {result['model']}." if result["model"] else ""
        raise RunError(f"FINN: step {result['step']} failed: {result['message']}.{saved} Log: {log}")
    return result


def _environment(folder: Path) -> dict[str, str]:
    """Ours without FINN's or Vivado's settings; home and temporary files inside the work folder."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("FINN_", "XILINX_", "VIVADO_", "PYTEST_"))
    }
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join([root, *filter(None, [kept.get("PYTHONPATH")])])
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    return kept | {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "MPLCONFIGDIR": str(scratch),
        "PYTHONPATH": path,
        "PYTHONHASHSEED": "0",
    }
