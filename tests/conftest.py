"""What all tests share: seeded hypothesis, one thread per xdist worker, the shared data, golden files."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

# Before torch or numba is imported: workers that each start a thread per core slow one another down.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

# A shell ignores Ctrl-C for what it starts in the background, and children inherit that: tests of Ctrl-C would wait.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis
import pytest

REPO = Path(__file__).resolve().parents[1]
# Compiled models of Verilog designs, kept between runs: they are named by the hash of all that goes into them.
os.environ.setdefault("SRQ_CACHE", str(REPO / ".pytest_cache" / "srq"))

hypothesis.settings.register_profile(
    "srq",
    derandomize=True,  # the same examples every run
    database=None,
    deadline=None,  # a busy machine is no failure
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("srq")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew instead of comparing")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared data sets and checkpoints: $SRQ_DATA, else shared/data beside the checkout."""
    folder = Path(os.environ.get("SRQ_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"shared data not found at {folder}; set SRQ_DATA to the folder that holds Set5, T91, weights ...")
    return folder


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str | bytes], None]:
    """Compare text or bytes with a golden file: ``golden("golden/tiny.json", text)``, beside the test's own file.

    With --update-golden the file is written instead; look at the difference before you commit it.
    """
    folder = request.path.parent
    update = bool(request.config.getoption("--update-golden"))

    def check(name: str, actual: str | bytes) -> None:
        path = folder / name
        data = actual.encode() if isinstance(actual, str) else actual
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            return
        assert path.is_file(), f"{path} is missing; write it with: pytest --update-golden {request.path}"
        expected = path.read_bytes()
        if isinstance(actual, str):
            assert actual == expected.decode(), f"differs from {path}"
        assert data == expected, f"differs from {path}"

    return check
