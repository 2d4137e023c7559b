"""report.json: its JSON schema, and the check that a report keeps it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from srq_hw.errors import RunError

SCHEMA_FILE = Path(__file__).resolve().parent / "report.schema.json"
SCHEMA_VERSION = 1

# A tuple becomes a JSON list when it is written, so it is one here.
_TYPES = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("array", lambda _, item: isinstance(item, list | tuple))
_VALIDATOR = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=_TYPES)


@cache
def _schema_text() -> str:
    return SCHEMA_FILE.read_text(encoding="utf-8")


def report_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of report.json; a fresh copy each time."""
    schema: dict[str, Any] = json.loads(_schema_text())
    return schema


def faults(report: object) -> list[str]:
    """Every place where a report breaks the layout, as ``$.path: problem``; empty when it keeps it.

    Besides the schema: numbers must be finite (JSON has no NaN), proofs must agree with their own figures, and the
    graph's two hashes with its verdict.
    """
    found = list(_not_finite(report, "$"))
    errors = [leaf for error in _VALIDATOR(report_schema()).iter_errors(report) for leaf in _leaves(error)]
    found += [f"{error.json_path}: {_problem(error)}" for error in sorted(errors, key=lambda e: e.json_path)]
    if not found and isinstance(report, dict):
        found = list(_contradictions(report))
    return found


def validate(report: dict[str, Any]) -> None:
    """Raise RunError with every path and problem where `report` is not what report.schema.json promises."""
    found = faults(report)
    if found:
        raise RunError("report.json: the report breaks its own layout (report.schema.json)\n" + "\n".join(found))


def _leaves(error: jsonschema.ValidationError) -> Iterator[jsonschema.ValidationError]:
    """The faults inside an object that may also be null (anyOf), instead of "not valid under any of the schemas"."""
    if error.validator == "anyOf" and isinstance(error.instance, dict):
        for inner in error.context:
            if inner.relative_schema_path[0] == 0:  # the first branch is the object, the second null
                yield from _leaves(inner)
    else:
        yield error


def _problem(error: jsonschema.ValidationError) -> str:
    if error.validator == "contains":
        return "no gate failed although ok is false"
    place = list(error.absolute_schema_path)
    text: str = error.message if len(error.message) <= 300 else error.message[:297] + "..."
    if "then" in place and "gates" in place:
        return f"{text} because ok is true"
    if "then" in place or "else" in place:
        return f"{text} (contradicts equal or status beside it)"
    about = error.schema.get("description") if isinstance(error.schema, dict) else None
    return f"{text} ({about})" if about else text


def _not_finite(value: object, path: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{path}: {value} is not a finite number; null is how a missing figure is written"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{path}[{index}]")


def _contradictions(report: dict[str, Any]) -> Iterator[str]:
    """What a JSON schema cannot say: fields that must agree with one another."""
    graph = report["graph"]
    lowered, memory = graph["content_sha256_lowered"], graph["content_sha256_in_memory"]
    equal = None if lowered is None or memory is None else lowered == memory
    if graph["equal"] is not equal:
        yield f"$.graph.equal: {graph['equal']} although the hashes say {equal}"
    for index, proof in enumerate(graph["proofs"]):
        if proof["holds"] is not (proof["bits"] <= proof["limit_bits"]) or proof["lo"] > proof["hi"]:
            yield f"$.graph.proofs[{index}]: holds, bits, lo and hi of {proof['node']} do not agree"
    for key in ("layers", "weights"):
        for index, row in enumerate(report["quantization"][key]):
            if row["lower"] > row["upper"]:
                yield f"$.quantization.{key}[{index}]: lower {row['lower']} is above upper {row['upper']}"
            if row["histogram"] and (row["data_min"] is None or row["data_max"] is None):
                yield f"$.quantization.{key}[{index}]: a histogram without data_min and data_max"
    estimate = report["estimate"]
    if estimate is not None and estimate["fits"] is bool(estimate["short_of"]):
        yield f"$.estimate.fits: {estimate['fits']} although short_of is {estimate['short_of']}"
