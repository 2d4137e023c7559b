"""What is made once and kept: a folder of models and syntheses, bounded, for several processes at a time.

An entry is a folder named by the hash of all that goes into it. When one is added, those not used for the longest time
are removed until the whole is below LIMIT_BYTES. Locks are files beside the entries.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LIMIT_BYTES = 4 << 30
#: an entry used so recently stays: another process may be about to start what it found there
GRACE_SECONDS = 3600.0
#: what a killed process left half made or half removed
STALE_SECONDS = 86400.0


def kept(target: Path, proof: str, make: Callable[[Path], None]) -> Path:
    """The entry `target`, made by ``make(scratch folder)`` where it is not there yet; marked as used.

    proof: a file of the entry, by which it is known to be whole. Another process that wants the same entry waits.
    """
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    with locked(target):
        made = not (target / proof).exists()
        if made:
            work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=folder))
            try:
                make(work)
                shutil.rmtree(target, ignore_errors=True)
                work.replace(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        mark(target)
    if made:
        shrink(folder)
    return target


def mark(target: Path) -> None:
    """Note that the entry is used now: the time of its folder."""
    os.utime(target)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """One process at a time for this path; another waits."""
    while True:
        with _lock_file(target).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is(lock.fileno(), _lock_file(target)):
                continue  # removed with its entry while we waited
            yield
            return


def shrink(folder: Path, limit: int | None = None, grace: float | None = None) -> list[str]:
    """Remove the entries used least recently until `limit` bytes (LIMIT_BYTES) are left; names of those removed.

    Entries used in the last `grace` seconds (GRACE_SECONDS), and those that a process holds the lock of, stay, even
    beyond the limit.
    """
    limit = LIMIT_BYTES if limit is None else limit
    grace = GRACE_SECONDS if grace is None else grace
    now = time.time()
    entries: list[tuple[float, Path, int]] = []
    for path in folder.iterdir():
        if path.name.startswith("."):
            if path.is_dir() and now - _used(path) > STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir():
            entries.append((_used(path), path, _size(path)))
    total = sum(size for _, _, size in entries)
    removed = []
    for used, path, size in sorted(entries):
        if total <= limit or now - used < grace:
            break
        if _remove(path, used):
            removed.append(path.name)
            total -= size
    return removed


def _remove(path: Path, used: float) -> bool:
    """Whether it could be removed: nobody holds its lock, nobody has used it meanwhile. Never seen half empty."""
    with _lock_file(path).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        if not _is(lock.fileno(), _lock_file(path)) or _used(path) != used:
            return False
        gone = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        path.replace(gone)
        _lock_file(path).unlink()
        shutil.rmtree(gone, ignore_errors=True)
    return True


def _lock_file(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _is(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _used(path: Path) -> float:
    """When it was used last; 0 for what another process has just removed."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    """Bytes of the files below; less where another process is removing them."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
