"""The step engine: what is skipped, what runs again, what is left when a step fails or the process dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from srq_hw.errors import InputError, RunError
from srq_hw.pipeline import engine
from srq_hw.pipeline.engine import STATE, Step, locked, run_step, sha256_path, tool_sha256

PROGRAM = Path(__file__).with_name("toy_build.py")


@dataclass
class Toy:
    """A step that writes a file and a folder from its setting and from a file it needs, and counts its runs."""

    folder: Path
    setting: str = "a"
    runs: list[str] = field(default_factory=list)

    def step(self) -> Step:
        def run(scratch: Path) -> None:
            self.runs.append(self.setting)
            text = f"{self.setting} {(self.folder / 'in.txt').read_text()}"
            (scratch / "out.txt").write_text(text)
            (scratch / "tree" / "deep").mkdir(parents=True)
            (scratch / "tree" / "deep" / f"{self.setting}.txt").write_text(text)
            (scratch / "tree" / "notes.log").write_text(str(len(self.runs)))

        return Step("toy", lambda: {"setting": self.setting}, ("in.txt",), ("out.txt", "tree"), run)

    def go(self) -> bool:
        """Run it; True where it was skipped."""
        return run_step(self.step(), self.folder).cached


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    (tmp_path / "in.txt").write_text("1")
    made = Toy(tmp_path)
    assert made.go() is False
    return made


def record(toy: Toy) -> Path:
    return toy.folder / STATE / "steps" / "toy.json"


def test_what_may_be_otherwise_next_time_runs_again(toy: Toy):
    def passing() -> Step:
        step = toy.step()
        return replace(step, run=lambda scratch: step.run(scratch) is None and len(toy.runs) > 3)

    toy.setting = "b"
    for again in (False, False, False, True):
        assert run_step(passing(), toy.folder).cached is again
        assert (toy.folder / "out.txt").read_text() == "b 1"
    assert len(toy.runs) == 4


def test_nothing_changed_is_skipped_and_keeps_its_record(toy: Toy):
    before = record(toy).read_bytes()
    first = run_step(toy.step(), toy.folder)
    assert first.cached and toy.runs == ["a"]
    assert record(toy).read_bytes() == before
    assert (toy.folder / "out.txt").read_text() == "a 1"


CHANGES: dict[str, Callable[[Toy], object]] = {
    "material": lambda toy: setattr(toy, "setting", "b"),
    "needs": lambda toy: (toy.folder / "in.txt").write_text("2"),
    "needs gone and back": lambda toy: (toy.folder / "in.txt").write_text("1 "),
    "output edited": lambda toy: (toy.folder / "out.txt").write_text("forged"),
    "output deleted": lambda toy: (toy.folder / "out.txt").unlink(),
    "output is a folder": lambda toy: ((toy.folder / "out.txt").unlink(), (toy.folder / "out.txt").mkdir()),
    "file in folder edited": lambda toy: (toy.folder / "tree/deep/a.txt").write_text("forged"),
    "file in folder added": lambda toy: (toy.folder / "tree/extra.txt").write_text("x"),
    "file in folder deleted": lambda toy: (toy.folder / "tree/deep/a.txt").unlink(),
    "record deleted": lambda toy: record(toy).unlink(),
    "record cut short": lambda toy: record(toy).write_bytes(record(toy).read_bytes()[:40]),
    "record empty": lambda toy: record(toy).write_bytes(b""),
    "record not text": lambda toy: record(toy).write_bytes(b"\xff\xfe\x00"),
    "record of another kind": lambda toy: record(toy).write_text("[1, 2]"),
    "record without times": lambda toy: record(toy).write_text(
        json.dumps({k: v for k, v in json.loads(record(toy).read_text()).items() if k != "seconds"})
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_runs_the_step_again(toy: Toy, change: str):
    CHANGES[change](toy)
    assert toy.go() is False
    wanted = f"{toy.setting} {(toy.folder / 'in.txt').read_text()}"
    assert (toy.folder / "out.txt").read_text() == wanted
    files = {p.relative_to(toy.folder).as_posix() for p in (toy.folder / "tree").rglob("*") if p.is_file()}
    assert files == {f"tree/deep/{toy.setting}.txt", "tree/notes.log"}  # the folder is replaced, not added to
    assert toy.go() is True


def test_a_changed_log_changes_nothing(toy: Toy):
    (toy.folder / "tree" / "notes.log").write_text("other times")
    assert toy.go() is True


def test_another_version_of_the_tool_runs_the_step_again(toy: Toy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "tool_sha256", lambda: "0" * 64)
    assert toy.go() is False


def test_the_tool_digest_sees_sources_data_and_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    package = tmp_path / "package"
    (package / "build").mkdir(parents=True)
    (package / "__pycache__").mkdir()
    (package / "build" / "engine.py").write_text("one")
    (package / "page.j2").write_text("one")
    monkeypatch.setattr(engine, "__file__", str(package / "build" / "engine.py"))
    digest = tool_sha256.__wrapped__
    seen = [digest()]
    (package / "__pycache__" / "engine.pyc").write_text("compiled")
    assert digest() == seen[0]
    (package / "page.j2").write_text("two")
    seen.append(digest())
    (package / "build" / "engine.py").write_text("two")
    seen.append(digest())
    monkeypatch.setattr(engine.importlib.metadata, "version", lambda name: "9.9")
    seen.append(digest())
    assert len(set(seen)) == 4


@pytest.mark.parametrize("error", [InputError("wrong"), RunError("broke"), KeyboardInterrupt(), ValueError("a bug")])
def test_a_step_that_raises_leaves_nothing_under_a_final_name(tmp_path: Path, error: BaseException):
    def run(scratch: Path) -> None:
        (scratch / "one.txt").write_text("half")
        raise error

    step = Step("bad", lambda: 1, (), ("one.txt", "two.txt"), run)
    with pytest.raises(type(error)):
        run_step(step, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [STATE]
    good = replace(step, run=lambda scratch: [(scratch / n).write_text("whole") for n in step.makes] and None)
    assert run_step(good, tmp_path).cached is False
    assert (tmp_path / "one.txt").read_text() == "whole"
    assert list((tmp_path / STATE / "scratch").iterdir()) == []


def test_a_step_that_fails_keeps_what_was_there(toy: Toy):
    toy.setting = "b"
    step = replace(toy.step(), run=lambda scratch: (_ for _ in ()).throw(RunError("broke")))
    with pytest.raises(RunError, match="broke"):
        run_step(step, toy.folder)
    assert (toy.folder / "out.txt").read_text() == "a 1"  # the old one, whole
    toy.setting = "a"
    assert toy.go() is False  # its record is gone: it is never taken for the new one


def test_a_step_that_forgets_an_output_is_an_error(tmp_path: Path):
    step = Step("lazy", lambda: 1, (), ("made/never.txt",), lambda scratch: None)
    with pytest.raises(RunError, match=r"step lazy: did not make made/never\.txt"):
        run_step(step, tmp_path)


def test_before_is_called_only_when_the_step_runs(toy: Toy):
    called: list[str] = []
    run_step(toy.step(), toy.folder, lambda: called.append("cached"))
    toy.setting = "b"
    run_step(toy.step(), toy.folder, lambda: called.append("ran"))
    assert called == ["ran"]


def test_scratch_of_a_killed_build_is_not_reused(toy: Toy):
    left = toy.folder / STATE / "scratch" / "toy" / "tmpold" / "tree"
    left.mkdir(parents=True)
    (left / "stale.txt").write_text("of a worker that lives on")
    toy.setting = "b"
    assert toy.go() is False
    assert not (toy.folder / "tree" / "stale.txt").exists()
    assert not left.exists()


def test_one_build_at_a_time(tmp_path: Path):
    lock = "from pathlib import Path; from srq_hw.pipeline.engine import locked"
    code = f"{lock}\nwith locked(Path({str(tmp_path)!r})): pass"
    with locked(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "another srq-hw build is working here; wait for it or choose another --out" in done.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_digest_of_a_folder_sees_names_and_contents(tmp_path: Path):
    folder = tmp_path / "f"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "x").write_text("1")
    first = sha256_path(folder)
    (folder / "a" / "x").rename(folder / "a" / "y")
    second = sha256_path(folder)
    (folder / "a" / "y").write_text("2")
    assert len({first, second, sha256_path(folder), sha256_path(tmp_path / "none")}) == 4


def _visible(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(STATE):
            found[name] = path.read_bytes()
    return found


def test_killed_at_any_moment_it_resumes_with_the_same_bytes(tmp_path: Path):
    """SIGKILL after 0, 1, 2 ... file operations of a toy build; whatever is visible is whole, and it resumes."""
    environment = os.environ | {"PYTHONPATH": str(Path(engine.__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    points, interrupted = map(int, out.split())
    assert points > 40 and interrupted == points  # every point was hit, and the program judged what it found there
    assert _visible(tmp_path / "whole") == _visible(tmp_path / "resumed")
    assert set(_visible(tmp_path / "whole")) == {"a.txt", "tree/0.bin", "tree/1.bin", "tree/sub/2.bin", "b.txt"}


def test_the_lock_ends_with_a_killed_process(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path; from srq_hw.pipeline.engine import locked\n"
        f"with locked(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(RunError), locked(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for _ in range(50):  # the kernel closes the file a moment after the process is reaped
        try:
            with locked(tmp_path):
                return
        except RunError:
            time.sleep(0.02)
    pytest.fail("the lock outlived its process")
