"""MANIFEST.sha256: one line per file of a bundle, in the form of the sha256sum program."""

from __future__ import annotations

import hashlib
from pathlib import Path

from srq_hw.backends.handoff.continue_build import MANIFEST, manifest_problems
from srq_hw.files import write_text


def write_manifest(folder: Path) -> None:
    """List every file of the folder, sorted by name."""
    lines = []
    for path in sorted(folder.rglob("*"), key=lambda item: item.relative_to(folder).as_posix()):
        if path.is_file() and path.name != MANIFEST:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    write_text(folder / MANIFEST, "".join(lines))


def verify_manifest(folder: Path) -> list[str]:
    """What is wrong with a bundle: changed, missing and unlisted files, one sentence each; [] for a whole bundle."""
    return manifest_problems(folder)
