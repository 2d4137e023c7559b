"""Where the models of the bench tables are built; the tests are skipped where Verilator or the compiler is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from srq_hw.tools import find_tool


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of compiled models, kept between runs and shared with the builds of other tests."""
    for name in ("verilator", "g++"):
        status = find_tool(name)
        if not status.usable:
            pytest.skip(f"{name}: {status.problem}; {status.get}")
    folder = Path(os.environ["SRQ_CACHE"]) / "srq-hw" / "rtl"
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("runtime-*"), key=lambda path: path.stat().st_mtime)[:-2]:
        shutil.rmtree(old, ignore_errors=True)  # 75 MB each: precompiled headers
    return folder
