"""What is kept: made once, the least recently used removed first, several processes at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from srq_hw.backends.rtl import store
from srq_hw.backends.rtl.store import kept, locked, shrink

KILO = 1000


def entry(folder: Path, name: str, size: int, age: float) -> Path:
    """An entry of so many bytes that was used so many seconds ago."""
    path = kept(folder / name, "proof", lambda work: (work / "proof").write_bytes(bytes(size)) and None)
    os.utime(path, (time.time() - age,) * 2)
    return path


def names(folder: Path) -> list[str]:
    """Entries, whole ones and what is left of others; not their locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_made_once_and_marked_as_used(tmp_path: Path):
    path = entry(tmp_path, "a", 5, age=5000)
    before = path.stat().st_mtime
    assert kept(path, "proof", lambda _: pytest.fail("made again")) == path
    assert path.stat().st_mtime > before + 4000


def test_a_failure_leaves_nothing(tmp_path: Path):
    def fails(work: Path) -> None:
        (work / "half").write_text("")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        kept(tmp_path / "a", "proof", fails)
    assert names(tmp_path) == []


def test_the_least_recently_used_go_until_the_rest_fits(tmp_path: Path):
    for name, age in (("new", 4000), ("old", 9000), ("middle", 7000), ("fresh", 10)):
        entry(tmp_path, name, 10 * KILO, age)
    assert shrink(tmp_path, limit=40 * KILO) == []
    assert shrink(tmp_path, limit=25 * KILO) == ["old", "middle"]
    assert names(tmp_path) == ["fresh", "new"]
    assert not (tmp_path / ".old.lock").exists()
    assert shrink(tmp_path, limit=0) == ["new"]  # what was used in the last hour stays
    assert shrink(tmp_path, limit=0, grace=0) == ["fresh"]


def test_using_an_entry_saves_it(tmp_path: Path):
    for name, age in (("a", 9000), ("b", 8000)):
        entry(tmp_path, name, 10 * KILO, age)
    kept(tmp_path / "a", "proof", lambda _: pytest.fail("made again"))
    assert shrink(tmp_path, limit=10 * KILO) == ["b"]


def test_a_new_entry_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entry(tmp_path, "a", 10 * KILO, age=9000)
    monkeypatch.setattr(store, "LIMIT_BYTES", 15 * KILO)
    kept(tmp_path / "a2", "proof", lambda work: (work / "proof").write_bytes(bytes(10 * KILO)) and None)
    assert names(tmp_path) == ["a2"]


def test_an_entry_that_is_locked_stays(tmp_path: Path):
    entry(tmp_path, "a", KILO, age=9000)
    with locked(tmp_path / "a"):
        assert shrink(tmp_path, limit=0) == []
    assert shrink(tmp_path, limit=0) == ["a"]


def test_scratch_of_killed_processes_goes_after_a_day(tmp_path: Path):
    for name, days in ((".a.x1", 0.5), (".a.x2", 1.5)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    shrink(tmp_path)
    assert names(tmp_path) == [".a.x1"]


_WORKER = """
import random, sys
from pathlib import Path
from srq_hw.backends.rtl.store import kept, shrink
folder, choose = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
for _ in range(150):
    name = f"e{choose.randrange(6)}"
    def make(work):
        for part in ("part0", "part1", "part2", "proof"):
            (work / part).write_text(name)
    kept(folder / name, "proof", make)
    shrink(folder, limit=20, grace=0.0)
print("done")
"""


def test_two_processes_that_make_and_remove_at_once(tmp_path: Path):
    """No error, and no entry that is not whole."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(tmp_path), str(seed)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    for worker in workers:
        out, error = worker.communicate(timeout=60)
        assert (out, error, worker.returncode) == ("done\n", "", 0)
    left = [path for path in tmp_path.iterdir() if path.is_dir()]
    for path in left:
        assert sorted(item.name for item in path.iterdir()) == ["part0", "part1", "part2", "proof"]


def test_a_lock_removed_while_another_waits_is_taken_anew(tmp_path: Path):
    """The waiter must not hold the lock of a file that is no longer there: two would be inside."""
    code = (
        "import sys; from pathlib import Path; from srq_hw.backends.rtl.store import locked\n"
        "with locked(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    target = tmp_path / "a"
    command = [sys.executable, "-c", code, str(target)]
    with locked(target):
        waiter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        time.sleep(0.7)
        (tmp_path / ".a.lock").unlink()  # as a removal does, which holds it
    assert waiter.stdout is not None and waiter.stdout.readline() == "in\n"
    third = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    time.sleep(0.7)
    assert third.poll() is None
    waiter.communicate("")
    assert third.communicate("")[0] == "in\n"
