"""Files that are there whole or not at all: written beside their final name, then renamed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil


@contextmanager
def beside(path: Path, suffix: str = "") -> Iterator[Path]:
    """A path in the folder of ``path`` to write to; renamed to ``path`` at the end, removed where the body raises.

    It is this process's own, so several may write the same file at once. What a killed process left of the file is
    removed by the next one that writes it. suffix: what the path ends in, for code that goes by it.
    """
    place = path.with_name(f".{path.name}.{os.getpid()}.part{suffix}")
    _remove_leftovers(path)
    try:
        yield place
        os.replace(place, path)
    except BaseException:
        place.unlink(missing_ok=True)
        raise


def _remove_leftovers(path: Path) -> None:
    own = re.compile(rf"\.{re.escape(path.name)}\.(\d{{1,9}})\.part(\.\w+)?")
    for left in path.parent.glob(".*.part*"):
        found = own.fullmatch(left.name)
        if found and not psutil.pid_exists(int(found[1])):
            left.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as place:
        place.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    """`write_text` of plain data, keys sorted."""
    write_text(path, json.dumps(data, sort_keys=True, indent=1) + "\n")
