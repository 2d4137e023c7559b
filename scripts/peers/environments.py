"""One virtual environment per peer, made from its pinned requirements; a stamp says which ones it holds."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from srq_hw.errors import RunError
from srq_hw.files import write_text

_STAMP = "requirements.sha256"


def ensure(name: str, requirements: Path, root: Path) -> Path:
    """Make the environment root/name unless it is there and up to date; gives its interpreter.

    RunError with pip's own last error where it cannot be made.
    """
    folder = root / name
    python = folder / "bin" / "python"
    stamp, digest = folder / _STAMP, hashlib.sha256(requirements.read_bytes()).hexdigest()
    if python.exists() and stamp.is_file() and stamp.read_text() == digest:
        return python
    root.mkdir(parents=True, exist_ok=True)
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(folder)], f"environment {name}")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "-r", str(requirements)]
    _run(pip, f"environment {name}, pip install -r {requirements.name}")
    write_text(stamp, digest)
    return python


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
        raise RunError(f"{what}: exit status {done.returncode}: {errors[-1][:300]}")
