"""Read a user's YAML file into a pydantic model, or say file, line, key, value and what is allowed.

Only plain data is read: mappings with text keys, lists, numbers, booleans, text. Duplicate keys, anchors, tags and
dates are refused, because each of them lets a file mean something its reader does not see.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from srq_hw.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[str | int, ...]

MAX_BYTES = 1 << 20
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str"))


class Part(BaseModel):
    """A part of a description file, taken literally: nothing is converted, no key is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)


def refuse(problems: list[str]) -> None:
    """Report every broken cross-field rule at once, from a validator; `load_model` gives each its line."""
    if problems:
        raise ValueError("\n".join(problems))


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'zcu104'?)"`` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file of at most 1 MiB; InputError names the file and the reason otherwise."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path}: is larger than {MAX_BYTES} bytes; a description file is a few kilobytes of text")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8 text; allowed: a YAML text file") from error


def read_yaml(path: Path) -> tuple[Any, dict[Place, int]]:
    """Return (data, lines): plain Python data, and for every key path the line (from 1) where it stands.

    Raises InputError with file and line for syntax errors, duplicate keys, anchors, tags and keys that are not text.
    """
    text = read_text(path)
    lines: dict[Place, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            data = None if node is None else _plain(loader, node, (), lines, set(), path)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        reason = "; ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"{where}: not valid YAML: {reason}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply to be a description file") from error
    except ValueError as error:  # the constructors' own errors, such as an integer of ten thousand digits
        raise InputError(f"{path}: not valid YAML: {error}") from error
    return data, lines


def _plain(
    loader: yaml.SafeLoader, node: yaml.Node, place: Place, lines: dict[Place, int], seen: set[int], path: Path
) -> Any:
    """Turn a YAML node into plain data, noting the line of every key path."""
    line = node.start_mark.line + 1
    lines.setdefault(place, line)
    if id(node) in seen:
        raise InputError(f"{path}:{line}: anchors and aliases (&, *) are not allowed; write the value out")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
                raise InputError(f"{path}:{line}: a key must be a single word")
            if key in found:
                first = lines[(*place, key)]
                raise InputError(f"{path}:{line}: {dotted((*place, key))}: key given twice (first on line {first})")
            lines[(*place, key)] = line
            found[key] = _plain(loader, value_node, (*place, key), lines, seen, path)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*place, i), lines, seen, path) for i, item in enumerate(node.value)]
    if node.tag == "tag:yaml.org,2002:timestamp":  # a date is text here: no field holds a date
        return node.value
    if node.tag not in _PLAIN_TAGS:
        raise InputError(f"{path}:{line}: {dotted(place)}: tag {node.tag} is not allowed; write plain text or a number")
    return loader.construct_object(node)


def dotted(place: Sequence[str | int]) -> str:
    """Return a key path as text: ``integer.ops.Requant.activations[1]``."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(whole file)"


def load_model(model: type[Model], path: Path) -> Model:
    """Read `path` as YAML and validate it as `model`.

    Raises InputError holding every mistake, one line each: ``file:line: key.path: value ...; allowed: ...``.
    """
    data, lines = read_yaml(path)
    if not isinstance(data, dict):
        seen = "is empty" if data is None else f"holds a {type(data).__name__}"
        keys = ", ".join(_properties(model.model_json_schema()))
        raise InputError(f"{path}: {seen}; allowed: a mapping with the keys {keys}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        schema = model.model_json_schema()
        details = error.errors(include_url=False)
        rows = [(line, text) for item in details for line, text in _explain(item, schema, lines)]
        text = "\n".join(f"{path}:{line}: {text}" for line, text in sorted(rows, key=lambda row: row[0]))
        raise InputError(text) from None


def _explain(item: ErrorDetails, schema: Mapping[str, Any], lines: Mapping[Place, int]) -> list[tuple[int, str]]:
    """Turn one pydantic error into (line, text) pairs; a cross-field check may report several lines of text."""
    place = tuple(item["loc"])
    line = next((lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in lines), 1)
    key, kind = dotted(place), item["type"]
    if kind == "value_error":
        reasons = str(item["ctx"]["error"]).splitlines()
        return [(line, f"{key}: {reason}") for reason in reasons]
    if kind == "extra_forbidden":
        known = _properties(_schema_at(schema, place[:-1]))
        return [(line, f"{key}: unknown key{did_you_mean(place[-1], known)}; allowed: {', '.join(known)}")]
    field = _schema_at(schema, place)
    about = f" ({field['description']})" if field.get("description") else ""
    if kind == "missing":
        return [(line, f"{key}: missing; expected: {allowed_text(schema, field)}{about}")]
    value = item["input"]
    shown = _shown(value)
    hint = did_you_mean(value, (str(x) for x in field.get("enum", ())))
    return [(line, f"{key}: {shown} is not allowed{hint}; allowed: {allowed_text(schema, field)}{about}")]


def _shown(value: object) -> str:
    """Return a value as the user wrote it in YAML, shortened to one line."""
    words = {True: "true", False: "false", None: "an empty value"}
    text = words[value] if isinstance(value, bool) or value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def resolve(schema: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a field of a JSON schema with $ref followed and the null branch of an optional field dropped.

    What stands beside the reference (the field's own description) wins.
    """
    part = dict(part)
    while "$ref" in part or "anyOf" in part:
        if "$ref" in part:
            target = schema["$defs"][part.pop("$ref").rsplit("/", 1)[-1]]
        else:
            target = next(branch for branch in part.pop("anyOf") if branch.get("type") != "null")
        part = {**target, **part}
    return part


def _schema_at(schema: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return the JSON schema of the field at a key path, or an empty one where the path leaves the schema."""
    part = resolve(schema, schema)
    for key in place:
        step = part.get("items") if isinstance(key, int) else part.get("properties", {}).get(key)
        if step is None:
            return {}
        part = resolve(schema, step)
    return part


def _properties(schema: Mapping[str, Any]) -> list[str]:
    return list(schema.get("properties", {}))


def allowed_text(schema: Mapping[str, Any], field: Mapping[str, Any]) -> str:
    """Say in words what one field of a JSON schema allows: "a whole number from 2 to 16"."""
    if "enum" in field:
        return "one of " + ", ".join(_shown_plain(x) for x in field["enum"])
    if "const" in field:
        return _shown_plain(field["const"])
    kind = field.get("type")
    if kind in ("integer", "number"):
        word = "a whole number" if kind == "integer" else "a number"
        low = field.get("minimum", field.get("exclusiveMinimum"))
        high = field.get("maximum", field.get("exclusiveMaximum"))
        above = " (exclusive)" if "exclusiveMinimum" in field else ""
        return word if low is None or high is None else f"{word} from {low}{above} to {high}"
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        return f"a list of {allowed_text(schema, resolve(schema, field.get('items', {})))}"
    if kind == "object":
        return "a mapping with the keys " + ", ".join(_properties(field)) if _properties(field) else "{}"
    if kind == "string":
        return f"text matching {field['pattern']}" if "pattern" in field else "text"
    return "another value"


def _shown_plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
