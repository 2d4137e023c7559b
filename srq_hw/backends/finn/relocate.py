"""Takes this machine's paths out of FINN's files, and puts another machine's in: one placeholder per place.

FINN writes absolute paths into wrappers, scripts and node attributes. A file that leaves a build holds placeholders;
`continue_build.py` of the hand-off bundle replaces them where Vivado is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import onnx

SOURCES = "@SRQ_SOURCES@"  # folder with one folder of generated sources per node
FINN = "@SRQ_FINN@"  # the installed finn package
DEPS = "@SRQ_FINN_DEPS@"  # the folder FINN keeps its HLS libraries in


def finn_package() -> str:
    """Folder of the installed finn package, without importing it; "" where there is none."""
    spec = find_spec("finn")
    return str(Path(spec.origin).parent) if spec and spec.origin else ""


def _rules(places: Mapping[str, str]) -> list[tuple[str, str]]:
    """Longest path first, so that a folder inside another is found before it."""
    rules = dict(places)
    if finn_package():
        rules[finn_package()] = FINN
    return sorted(rules.items(), key=lambda item: -len(item[0]))


def neutral_text(text: str, places: Mapping[str, str]) -> str:
    """The text with every known path replaced by its placeholder."""
    for path, placeholder in _rules(places):
        text = text.replace(path, placeholder)
    return text


def neutral_file(source: Path, target: Path, places: Mapping[str, str]) -> None:
    """Copy a file; text gets placeholders, anything else is copied as it is."""
    data = source.read_bytes()
    with contextlib.suppress(UnicodeDecodeError):
        data = neutral_text(data.decode(), places).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def neutral_tree(source: Path, target: Path, places: Mapping[str, str]) -> None:
    """Copy a folder file by file."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            neutral_file(path, target / path.relative_to(source), places)


def neutral_model(source: Path, places: Mapping[str, str]) -> bytes:
    """A saved FINN model as deterministic bytes, with placeholders in attributes and metadata."""
    model = onnx.load(source)
    rules = _rules(places)

    def swap(text: str) -> str:
        for path, placeholder in rules:
            text = text.replace(path, placeholder)
        return text

    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.STRING:
                attribute.s = swap(attribute.s.decode()).encode()
        kept = sorted(node.attribute, key=lambda item: item.name)
        del node.attribute[:]
        node.attribute.extend(kept)
    for entry in [*model.metadata_props, *model.graph.metadata_props]:
        entry.value = swap(entry.value)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
