"""A folder as a user has it, the program run in it, and one finished build that all tests and workers share."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from srq_hw.cli import run
from srq_hw.tools import find_tool
from tests.support.tiny_nets import write_user_files

#: a build of the user's own network that takes seconds
SMALL = ("build", "ownnets.small:net", "--calib", "tiny.yaml", "--input-size", "16x16")


@dataclass(frozen=True)
class Done:
    """A finished run of the program."""

    code: int
    out: str
    err: str

    def refused(self, *words: str, code: int = 2) -> None:
        """One message on standard error that holds these words, nothing else anywhere, no traceback."""
        assert (self.code, self.out) == (code, ""), self
        message = " ".join(self.err.split())
        assert message.startswith("srq-hw: ") and message.count("srq-hw: ") == 1, self.err
        assert "Traceback" not in message
        for word in words:
            assert word in message, f"{word!r} is not in: {message}"


@pytest.fixture(scope="session")
def user_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    write_user_files(folder)
    return folder


@pytest.fixture
def here(user_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty but for the user's files."""
    for item in user_folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def srq(here: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command line in this process, as the program would."""

    def call(*arguments: object) -> Done:
        capfd.readouterr()
        code = run([str(item) for item in arguments])
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return call


def program(*arguments: object, cwd: Path, **settings: object) -> subprocess.Popen[str]:
    """Start the program as its own process."""
    command = [sys.executable, "-c", "from srq_hw.cli import main; main()", *map(str, arguments)]
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment, "cwd": cwd}
    return subprocess.Popen(command, **(options | settings))  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def start(here: Path) -> Callable[..., subprocess.Popen[str]]:
    return lambda *arguments, **settings: program(*arguments, **({"cwd": here} | settings))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, user_folder: Path) -> Path:
    """The small build, made once for all workers by the real program; nobody writes into it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = shared / "finished"
        if not (folder / "report.json").exists():
            process = program(*SMALL, "--out", folder, cwd=user_folder)
            out, err = process.communicate(timeout=300)
            assert (process.returncode, err) == (0, ""), out + err
    return folder


@pytest.fixture(scope="session")
def with_finn() -> bool:
    return find_tool("finn").usable
