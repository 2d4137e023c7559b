"""Where the models of the bench tables are built; the tests are skipped where Verilator or the compiler is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from srq_hw.tools import find_tool


@pytest.fixture(scope="session")
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of compiled models, kept between runs (they are named by the hash of all that goes into them)."""
    for name in ("verilator", "g++"):
        status = find_tool(name)
        if not status.usable:
            pytest.skip(f"{name}: {status.problem}; {status.get}")
    cache = request.config.cache
    if cache is None:
        return tmp_path_factory.mktemp("models")
    folder = cache.mkdir("rtl_models")
    for old in sorted(folder.glob("runtime-*"), key=lambda path: path.stat().st_mtime)[:-2]:
        shutil.rmtree(old, ignore_errors=True)  # 75 MB each: precompiled headers
    return folder
