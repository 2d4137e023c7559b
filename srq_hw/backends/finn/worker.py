"""Entry point of the FINN subprocess: ``python -m srq_hw.backends.finn.worker JOB.json``.

The job names what to do and where; progress goes to standard output as one JSON object per line, FINN's talk into the
log file, the result (or the failed step) into one JSON file written at the end.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from srq_hw.files import beside


def main(job_file: Path) -> int:
    """Run the job; 0 when the result file says "ok", 1 when it says what failed."""
    job = json.loads(job_file.read_text())
    folder = job_file.resolve().parent
    progress = _separate_streams(folder / job["log"])
    try:
        result = {"status": "ok"} | _JOBS[job["kind"]](job, folder, progress)
    except Exception as error:
        traceback.print_exc()
        result = {
            "status": "failed",
            "step": getattr(error, "step", job["kind"]),
            "message": getattr(error, "message", f"{type(error).__name__}: {error}"),
            "model": getattr(error, "model", ""),
        }
    with beside(folder / job["result"]) as place:  # a folder that is gone by now is not made again
        place.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    return 0 if result["status"] == "ok" else 1


def _separate_streams(log: Path) -> Callable[[str, float | None], None]:
    """Everything printed from here on goes into the log; the returned function still reaches the parent."""
    sys.stdout.flush()
    parent = os.fdopen(os.dup(1), "w")
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

    def progress(step: str, seconds: float | None) -> None:
        parent.write(json.dumps({"step": step, "seconds": seconds}) + "\n")
        parent.flush()

    return progress


def _build(job: dict[str, Any], folder: Path, progress: Callable[[str, float | None], None]) -> dict[str, Any]:
    from srq_hw.backends.finn.boot import boot

    progress("start_finn", None)
    start = time.monotonic()
    boot(folder)
    import finn.transformation.fpgadataflow.specialize_layers  # noqa: F401  (slow: count it as starting FINN)

    from srq_hw.backends.finn.ops import register

    register()
    from srq_hw.backends.finn.flow import run_build

    seconds = time.monotonic() - start
    progress("start_finn", seconds)
    if job.get("waits") and not sys.stdin.readline():
        raise RuntimeError("the build was given up while FINN started")
    return run_build(job | {"import_seconds": seconds}, folder, progress)


def _execute(job: dict[str, Any], folder: Path, progress: Callable[[str, float | None], None]) -> dict[str, Any]:
    import numpy as np

    from srq_hw.backends.finn.boot import boot

    progress("execute", None)
    start = time.monotonic()
    boot(folder)
    from qonnx.core.modelwrapper import ModelWrapper

    from srq_hw.backends.finn.execute import execute
    from srq_hw.backends.finn.ops import register

    register()
    model = ModelWrapper(str(folder / job["model"]))
    kept = execute(model, np.load(folder / job["image"], allow_pickle=False), job["keep"])
    for name, array in kept.items():
        np.save(folder / f"{job['keep'].index(name)}.npy", array)
    seconds = time.monotonic() - start
    progress("execute", seconds)
    return {"made": sorted(kept), "seconds": round(seconds, 3)}


_JOBS: dict[str, Callable[[dict[str, Any], Path, Callable[[str, float | None], None]], dict[str, Any]]] = {
    "build": _build,
    "execute": _execute,
}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
