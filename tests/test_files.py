"""Files written beside their final name: whole or not there, whoever else writes them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from srq_hw.files import beside, write_bytes, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with beside(path) as place:
        place.write_text("new")
        assert path.read_text() == "old" and place.parent == tmp_path and place.suffix == ".part"
    assert path.read_text() == "new" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), OSError("full")])
def test_a_body_that_raises_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)), beside(tmp_path / "a.txt") as place:
        place.write_text("half")
        raise error
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_name_that_cannot_be_replaced_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_text(tmp_path / "folder", "text")
    assert names(tmp_path) == ["folder"]


def test_a_suffix_is_kept(tmp_path: Path) -> None:
    with beside(tmp_path / "a.npz", ".npz") as place:
        assert place.name.endswith(".part.npz")
        place.write_bytes(b"1")
    assert names(tmp_path) == ["a.npz"]


def test_what_is_written(tmp_path: Path) -> None:
    """Bytes as they are; text in UTF-8 without another line end; plain data with sorted keys; folders are made."""
    folder = tmp_path / "deep" / "er"
    write_bytes(folder / "b", b"\x00\r\n")
    write_text(folder / "t", "3 × 4\n")
    write_json(folder / "j", {"b": [1], "a": None})
    assert (folder / "b").read_bytes() == b"\x00\r\n"
    assert (folder / "t").read_bytes() == b"3 \xc3\x97 4\n"
    assert (folder / "j").read_text() == '{\n "a": null,\n "b": [\n  1\n ]\n}\n'
    assert json.loads((folder / "j").read_text()) == {"a": None, "b": [1]}
    assert names(folder) == ["b", "j", "t"]


def test_two_processes_write_one_file_at_once(tmp_path: Path) -> None:
    """A child begins, this process writes the whole file, the child ends: each has a name of its own."""
    path = tmp_path / "a.txt"
    code = (
        "import sys; from pathlib import Path; from srq_hw.files import beside\n"
        "with beside(Path(sys.argv[1])) as place:\n"
        "    place.write_text('child'); print('begun', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ours()) as child:
        assert child.stdout is not None and child.stdout.readline() == "begun\n"
        write_text(path, "parent")
        assert path.read_text() == "parent" and len(names(tmp_path)) == 2
        child.communicate("\n")
    assert child.returncode == 0 and path.read_text() == "child" and names(tmp_path) == ["a.txt"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """By the next writer of the same file, and nothing else: not what is of another file, nor of a live process."""
    path = tmp_path / "a[1].txt"
    code = (
        "import os, signal, sys; from pathlib import Path; from srq_hw.files import beside\n"
        "with beside(Path(sys.argv[1])) as place:\n"
        "    place.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    dead = subprocess.Popen([sys.executable, "-c", code, str(path)], env=ours())
    assert dead.wait() == -signal.SIGKILL
    assert names(tmp_path) == [f".a[1].txt.{dead.pid}.part"]
    others = {f".a1.txt.{dead.pid}.part", f".a[1].txt.{os.getppid()}.part", ".a[1].txt.old.part"}
    for name in others:
        (tmp_path / name).write_text("kept")
    write_text(path, "whole")
    assert set(names(tmp_path)) == {"a[1].txt"} | others


def ours() -> dict[str, str]:
    """The environment with this checkout first."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
