"""Hashed steps: skipped when nothing they read has changed, redone when it has, never half-written.

A step works in a scratch folder; only when it is done are its results renamed to their final names and a record
written, in that order. A build killed at any point finds either a complete record or none.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from srq_hw.errors import RunError
from srq_hw.files import write_text

#: folder of records and scratch files inside the build folder
STATE = ".srq"
SCRATCH = "scratch"
#: where a step's findings for the report go
RESULTS = f"{STATE}/results"
#: packages whose arithmetic or file writers decide what a step makes
PACKAGES = ("brevitas", "numba", "numpy", "onnx", "onnxruntime", "qonnx", "torch")


@dataclass(frozen=True)
class Step:
    """One step. material: JSON-able, everything that decides the result besides the files in ``needs``.

    needs, makes: paths below the build folder (files or folders). run(scratch) writes every path of ``makes`` below
    the scratch folder; False: what it found may be otherwise next time (a program was too slow), so it runs again then.
    """

    name: str
    material: Callable[[], Any]
    needs: tuple[str, ...]
    makes: tuple[str, ...]
    run: Callable[[Path], bool | None]


@dataclass(frozen=True)
class StepRecord:
    """What the report says of a step."""

    name: str
    seconds: float
    cached: bool
    inputs_sha256: str


def sha256_file(path: Path) -> str:
    """Digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_path(path: Path) -> str | None:
    """Digest of a file, or of a folder's names and contents without its logs; None where nothing is there."""
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        return None
    digest = hashlib.sha256()
    for item in sorted(path.rglob("*")):
        if item.is_file() and item.suffix != ".log":
            digest.update(f"{item.relative_to(path).as_posix()}\0{sha256_file(item)}\n".encode())
    return digest.hexdigest()


def sha256_json(data: Any) -> str:
    """Digest of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@cache
def tool_sha256() -> str:
    """Digest of srq-hw's own code, templates and schemas, and of the versions it computes with: another version of
    either never reuses a step."""
    package = Path(__file__).resolve().parents[1]
    own = {
        path.relative_to(package).as_posix(): sha256_file(path)
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sha256_json({"own": own, "packages": {name: importlib.metadata.version(name) for name in PACKAGES}})


def run_step(step: Step, folder: Path, before: Callable[[], None] = lambda: None) -> StepRecord:
    """Run the step, or skip it when its record matches. Errors of the step pass through; of its results nothing
    is left then, only its scratch folder, where a tool's log may lie.

    before: called where the step is not skipped, before anything changes.
    """
    key = sha256_json(
        {
            "step": step.name,
            "tool": tool_sha256(),
            "material": step.material(),
            "needs": {name: sha256_path(folder / name) for name in step.needs},
        }
    )
    record_path = folder / STATE / "steps" / f"{step.name}.json"
    seconds = _recorded(record_path, key, step, folder)
    if seconds is not None:
        return StepRecord(step.name, seconds, True, key)
    before()
    record_path.unlink(missing_ok=True)
    scratch = _scratch(folder, step.name)
    started = time.monotonic()
    lasting = step.run(scratch) is not False
    seconds = round(time.monotonic() - started, 3)
    for name in step.makes:
        _move(scratch, folder, name, step.name)
    shutil.rmtree(scratch.parent, ignore_errors=True)
    if lasting:
        record = {"key": key, "seconds": seconds, "makes": {name: sha256_path(folder / name) for name in step.makes}}
        write_text(record_path, json.dumps(record, sort_keys=True, indent=1))
    return StepRecord(step.name, seconds, False, key)


def _recorded(path: Path, key: str, step: Step, folder: Path) -> float | None:
    """Seconds of the recorded run if it is still valid: same key, and every file as it was left."""
    try:
        record = json.loads(path.read_text())
        if record["key"] != key:
            return None
        whole = all(sha256_path(folder / name) == record["makes"][name] is not None for name in step.makes)
        return float(record["seconds"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no record, or a damaged one: the step runs again


def _scratch(folder: Path, step: str) -> Path:
    """An empty folder with a name of its own: a worker that outlives a killed build may write into the old one."""
    parent = folder / STATE / SCRATCH / step
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent))


def final_places(text: str, folder: Path) -> str:
    """A message with the paths of scratch folders replaced by where the files would have lain in the build folder."""
    for base in (folder.absolute(), folder):
        text = re.sub(re.escape(str(base / STATE / SCRATCH)) + "/[^/]+/[^/]+", str(folder), text)
    return text


def _move(scratch: Path, folder: Path, name: str, step: str) -> None:
    """Rename a result to its final name; what was there is renamed away whole, never emptied in place."""
    source, target = scratch / name, folder / name
    if not source.exists():
        raise RunError(f"step {step}: did not make {name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() or (target.exists() and source.is_dir()):
        old = scratch / ".replaced" / name
        old.parent.mkdir(parents=True, exist_ok=True)
        target.replace(old)
    source.replace(target)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One build at a time per folder; RunError where another one runs. The lock ends with the process."""
    (folder / STATE).mkdir(parents=True, exist_ok=True)
    with (folder / STATE / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"{folder}: another srq-hw build is working here; wait for it or choose another --out"
            ) from error
        yield
