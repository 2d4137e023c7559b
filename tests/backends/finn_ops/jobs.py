"""Starts a script of this folder in a process of its own, away from the home folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[3]


def run_job(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run it on the folder and read the result.json that it writes there; its words where it fails."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FINN_", "XILINX_", "PYTEST_"))}
    environment = kept | {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name(script)), str(folder), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result
