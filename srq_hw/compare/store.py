"""Records by hash below the output folder, and the digest of the code that made them."""

from __future__ import annotations

import importlib.metadata
import json
from functools import cache
from pathlib import Path
from typing import Any

from srq_hw.errors import RunError
from srq_hw.files import write_json
from srq_hw.pipeline.engine import PACKAGES, sha256_file, sha256_json

#: what a figure depends on: another version of any of it never reuses a record
SOURCES = (
    *("networks", "normalform", "quantize", "exchange", "graph", "simulate", "evaluate"),
    *(
        "fixedpoint.py",
        "parity.py",
        "proof.py",
        "target.py",
        "target_ops.py",
        "compare/files.py",
        "compare/sets.py",
        "compare/floats.py",
        "compare/measure.py",
    ),
)


@cache
def source_sha256() -> str:
    """Digest of the modules that compute a cell and of the versions of the packages they compute with."""
    package = Path(__file__).resolve().parents[1]
    files = []
    for name in SOURCES:
        place = package / name
        if not place.exists():
            raise RunError(f"{place}: missing from the installed srq-hw; install it again")
        files += [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    own = {path.relative_to(package).as_posix(): sha256_file(path) for path in files if "__pycache__" not in path.parts}
    return sha256_json({"own": own, "packages": {name: importlib.metadata.version(name) for name in PACKAGES}})


def record_path(out: Path, kind: str, key: str) -> Path:
    """Where a record stands."""
    return out / kind / f"{key}.json"


def read_record(out: Path, kind: str, key: str) -> dict[str, Any] | None:
    """The record, or None where there is none or what stands there is damaged or was made of something else."""
    try:
        found = json.loads(record_path(out, kind, key).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("key") == key else None


def write_record(out: Path, kind: str, key: str, data: dict[str, Any]) -> None:
    """Write beside, then rename: an interrupted run leaves the whole record or none."""
    write_json(record_path(out, kind, key), {"key": key, **data})
