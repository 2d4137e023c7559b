"""Run by test_engine.py: a two-step toy build, killed before its n-th audited file operation for every n, then resumed.

Prints the number of points and how many of them ended by SIGKILL with only whole files visible. A changed input makes
every killed build a rebuild over older results, so that replacing is tested too.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from srq_hw.pipeline.engine import Step, run_step, tool_sha256

#: audit events of calls that change the disk
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
FILES = {"tree/0.bin": 3, "tree/1.bin": 1, "tree/sub/2.bin": 2}
_left: list[int] = []


def _hook(event: str, args: tuple[object, ...]) -> None:
    if _left and event in EVENTS:
        _left[0] -= 1
        if _left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def build(folder: Path, setting: str) -> None:
    """Two steps: a file and a folder from the setting, then a file from both."""

    def first(scratch: Path) -> None:
        for name, size in FILES.items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_bytes(setting.encode() * size)
        (scratch / "a.txt").write_text(setting)

    def second(scratch: Path) -> None:
        (scratch / "b.txt").write_bytes((folder / "a.txt").read_bytes() + (folder / "tree/0.bin").read_bytes())

    run_step(Step("first", lambda: setting, (), ("a.txt", "tree"), first), folder)
    run_step(Step("second", lambda: 0, ("a.txt", "tree"), ("b.txt",), second), folder)


def visible_is_whole(folder: Path) -> bool:
    """Every visible file is that of the old or of the new build, and no visible folder is half-filled."""
    size = FILES | {"a.txt": 1}
    for name, repeats in size.items():
        path = folder / name
        if path.is_file() and path.read_bytes() not in (b"old" * repeats, b"new" * repeats):
            return False
    tree = folder / "tree"
    present = {(folder / name).is_file() for name in FILES}
    if tree.exists() and present != {True}:
        return False
    b = folder / "b.txt"
    return not b.exists() or b.read_bytes() in (b"old" * 4, b"new" * 4)


def main(base: Path) -> None:
    tool_sha256()
    sys.addaudithook(_hook)
    build(base / "whole", "new")
    points = killed = 0
    while True:
        folder = base / "resumed"
        shutil.rmtree(folder, ignore_errors=True)
        build(folder, "old")
        child = os.fork()
        if child == 0:
            _left.append(points + 1)
            build(folder, "new")
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            break
        points += 1
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and visible_is_whole(folder)
        build(folder, "new")
        if any((folder / name).read_bytes() != (base / "whole" / name).read_bytes() for name in (*FILES, "b.txt")):
            sys.exit(f"point {points}: the resumed build differs")
    sys.stdout.write(f"{points} {killed}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
