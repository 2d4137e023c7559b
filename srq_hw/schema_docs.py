"""From a JSON schema to the rows of a reference table, and generated files that are written or found stale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srq_hw.yamlfile import resolve


@dataclass(frozen=True)
class Field:
    """One key of a schema. path: dotted, ``[]`` behind a list; schema: its own, references followed."""

    path: str
    schema: dict[str, Any]
    required: bool
    nullable: bool

    @property
    def about(self) -> str:
        """The description, on one line, fit for a table cell."""
        return table_cell(self.schema.get("description", ""))


def fields(schema: Mapping[str, Any], part: Mapping[str, Any], prefix: str = "") -> Iterator[Field]:
    """Yield every key of the object `part` of `schema`, depth first, in file order; objects in lists too."""
    required = part.get("required", [])
    for key, value in part.get("properties", {}).items():
        field = resolve(schema, value)
        path = prefix + key
        yield Field(path, field, key in required, _nullable(value) or _nullable(field))
        inner, mark = field, "."
        if "array" in _kinds(field):
            inner, mark = resolve(schema, field.get("items", {})), "[]."
        if inner.get("properties"):
            yield from fields(schema, inner, path + mark)


def _kinds(field: Mapping[str, Any]) -> list[str]:
    kind = field.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind)


def _nullable(field: Mapping[str, Any]) -> bool:
    return "null" in _kinds(field) or any(branch.get("type") == "null" for branch in field.get("anyOf", ()))


def table_cell(text: str) -> str:
    """Text on one line, with the bars that would end a Markdown table cell escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def refresh(files: Mapping[Path, str], *, check: bool) -> list[Path]:
    """Write the files whose text on disk differs (with `check`: leave them), and return their paths."""
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if not check:
        for path in stale:
            path.write_text(files[path], encoding="utf-8")
    return stale
