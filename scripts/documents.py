"""Tables that a script puts into a page of docs/, between two marks."""

from __future__ import annotations

from pathlib import Path

from srq_hw.files import write_text


def put(document: Path, begin: str, end: str, new: str) -> None:
    """Write the page with ``new`` between the marks. ValueError where one of them does not stand there once."""
    before, rest = document.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    write_text(document, f"{before}{begin}\n\n{new}\n\n{end}{after}")
