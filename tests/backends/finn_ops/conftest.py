"""Makes the modules of this folder importable by its tests, and compiled models as in the tests of the RTL."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from srq_hw.tools import find_tool

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of compiled models, kept between runs."""
    for name in ("verilator", "g++"):
        status = find_tool(name)
        if not status.usable:
            pytest.skip(f"{name}: {status.problem}; {status.get}")
    folder = Path(os.environ["SRQ_CACHE"]) / "srq-hw" / "rtl"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
