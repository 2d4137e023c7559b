"""Seconds per step and peak memory of builds: the demo network whole, and FINN input and sources for EDSR 16x64.

    .venv/bin/python scripts/bench_build.py [--quick]

Every job runs in a process of its own, in an empty folder. EDSR 16x64 (random 8-bit weights, 64x64 input, 30 frames/s
asked) is taken from the integer graph to FINN's estimates, and in a second run to generated sources. --quick takes 2
blocks of 16 channels instead. Prints a table and, as last line, JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZE = (64, 64)
FPS = 30.0


def demo(folder: Path, quick: bool) -> dict[str, float]:
    """Seconds of every step of `srq-hw build --target zcu104` on the embedded network."""
    size = "32x32" if quick else "64x64"
    command = [
        sys.executable,
        "-m",
        "srq_hw",
        "build",
        "--target",
        "zcu104",
        "--input-size",
        size,
        "--out",
        str(folder),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report = json.loads((folder / "report.json").read_text())
    return {step["name"]: step["seconds"] for step in report["steps"]}


def _finn(folder: Path, quick: bool, codegen: bool) -> dict[str, float]:
    from srq_hw.backends.finn import build_finn
    from srq_hw.graph.synthetic import edsr_graph
    from srq_hw.target import load_target

    graph = edsr_graph(16, 2, last_conv=False) if quick else edsr_graph(64, 16, last_conv=False)
    result = build_finn(graph, load_target("zcu104"), SIZE, FPS, folder / "finn", codegen=codegen)
    if not result.built:
        raise SystemExit(f"bench_build: {result.reason}")
    return dict(result.seconds)


def estimates(folder: Path, quick: bool) -> dict[str, float]:
    """EDSR 16x64 from the integer graph to estimates."""
    return _finn(folder, quick, False)


def sources(folder: Path, quick: bool) -> dict[str, float]:
    """EDSR 16x64 from the integer graph to generated sources."""
    return _finn(folder, quick, True)


JOBS = {"demo": demo, "finn_16x64_estimates": estimates, "finn_16x64_sources": sources}


def run_job(name: str, quick: bool) -> dict[str, Any]:
    """Run a job in a fresh process: wall seconds, steps, and the largest process of it in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--job", name, "--folder", folder, *(["--quick"] if quick else [])]
        started = time.monotonic()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"bench_build: job {name} failed with exit status {process.returncode}")
        steps = json.loads((Path(folder) / "seconds.json").read_text())
    return {"seconds": round(wall, 1), "peak_mib": usage.ru_maxrss // 1024, "steps": steps}


def main() -> None:
    """Run all jobs, or one of them inside a child process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small graphs")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        seconds = JOBS[options.job](options.folder / "work", options.quick)
        (options.folder / "seconds.json").write_text(json.dumps(seconds))
        return
    found = {name: run_job(name, options.quick) for name in JOBS}
    for name, row in found.items():
        print(f"{name}: {row['seconds']:.1f} s, peak {row['peak_mib']} MiB")
        for step, seconds in row["steps"].items():
            print(f"    {step:30s} {seconds:8.2f} s")
    print(json.dumps({"quick": options.quick, **found}))


if __name__ == "__main__":
    main()
