"""Where the models of the bench tables are built; the tests are skipped where a simulator is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends.rtl.bench import SIMULATORS, Bench, models_of


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of Verilator's models."""
    return models_of("verilator")


@pytest.fixture(scope="session", params=list(SIMULATORS))
def bench(request: pytest.FixtureRequest) -> Bench:
    """Each simulator after the other."""
    return Bench.of(request.param)
