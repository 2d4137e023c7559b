"""The command `srq-hw qat` in a user's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from srq_hw.cli import run
from srq_hw.evaluate.images import write_png
from tests.qat.tiny import smooth
from tests.support.tiny_nets import write_user_files

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's network and recipe, 20 training images."""
    write_user_files(tmp_path)
    (tmp_path / "train").mkdir()
    for seed in range(20):
        write_png(tmp_path / "train" / f"{seed:02}.png", smooth(seed, 48))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(folder: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run it on the user's network, one epoch of three steps; status, standard output, standard error."""

    def call(*more: str) -> tuple[int, str, str]:
        few = ("--epochs", "1", "--iterations", "3", "--batch", "2", "--patch", "12")
        code = run(["qat", "ownnets.small:net", "--data", "train", *few, *more])
        return code, *capfd.readouterr()

    return call
