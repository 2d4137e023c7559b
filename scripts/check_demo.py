"""Check the demo's report.json: against its JSON schema, then that every gate ran and held. Exit status 1 if not.

.venv/bin/python scripts/check_demo.py build/demo/report.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema

SCHEMA = Path(__file__).resolve().parents[1] / "srq_hw" / "report" / "report.schema.json"
ORACLES = ("qonnx", "finn", "rtl")
#: gates that run where they are asked for; the demo does not ask for them
ON_REQUEST = ("finn_rtl = reference",)
#: every gate of a build from a float network, by its name in the report
GATES = (
    "lowered file = graph in memory",
    "legal on the target",
    "accumulators proven",
    "frozen Brevitas (float64) = reference",
    "fast simulator = reference",
    *(f"{name} = reference" for name in ORACLES),
)


def is_count(value: object) -> bool:
    """True for a whole number above 0 (and not for true)."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_zero(value: object) -> bool:
    """True for the whole number 0 (and not for false)."""
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def faults(report: dict[str, Any]) -> list[str]:
    """Return what is wrong with a demo's report, one line each; empty when every gate ran and held."""
    found = gate_faults(report) + graph_faults(report.get("graph") or {})
    for name in ("parity", "simulators"):
        row = report.get(name) or {}
        if row.get("equal") is not True or not is_zero(row.get("mismatches")):
            found.append(f"{name}: equal is {row.get('equal')!r}, mismatches {row.get('mismatches')!r}")
        if not is_count(row.get("elements")):
            found.append(f"{name}: elements is {row.get('elements')!r}; nothing was compared")
    for name in ORACLES:
        rows = [row for row in (report.get("oracles") or []) if row.get("name") == name]
        if not rows:
            found.append(f"oracle {name}: not in the report")
        for row in rows:
            if row.get("status") != "passed":
                found.append(f"oracle {name}: status is {row.get('status')!r}")
            if not is_zero(row.get("mismatches")):
                found.append(f"oracle {name}: mismatches is {row.get('mismatches')!r}")
            if not is_count(row.get("elements")):
                found.append(f"oracle {name}: elements is {row.get('elements')!r}; nothing was compared")
    fits = (report.get("estimate") or {}).get("fits")
    if fits is not True:
        found.append(f"estimate: fits is {fits!r}")
    return found


def gate_faults(report: dict[str, Any]) -> list[str]:
    """Return which of the build's own verdicts are missing or anything but "passed"; on request alone: or not run."""
    found = [] if report.get("ok") is True else [f"ok is {report.get('ok')!r}"]
    gates = report.get("gates") or []
    names = [gate.get("name") for gate in gates]
    found += [f"gate {name}: {names.count(name)} times in the report" for name in GATES if names.count(name) != 1]
    return found + [
        f"gate {gate.get('name')}: status is {gate.get('status')!r}"
        for gate in gates
        if gate.get("status") != "passed" and not (gate.get("status") == "not run" and gate.get("name") in ON_REQUEST)
    ]


def graph_faults(graph: dict[str, Any]) -> list[str]:
    """Return what the graph's own findings say against it, whatever the gates made of them."""
    found = []
    lowered, memory = graph.get("content_sha256_lowered"), graph.get("content_sha256_in_memory")
    if graph.get("equal") is not True or not lowered or lowered != memory:
        found.append(f"graph: equal is {graph.get('equal')!r}, lowered {lowered!r}, in memory {memory!r}")
    if graph.get("diagnostics") != []:
        found.append(f"graph: diagnostics are {graph.get('diagnostics')!r}")
    proofs = graph.get("proofs") or []
    if not proofs:
        found.append("graph: no accumulator was proven")
    for proof in proofs:
        bits, limit = proof.get("bits"), proof.get("limit_bits")
        if proof.get("holds") is not True or not is_count(bits) or not is_count(limit) or bits > limit:
            found.append(f"graph: accumulator of {proof.get('node')} needs {bits!r} of {limit!r} bits")
    return found


def schema_faults(report: object, schema: dict[str, Any]) -> list[str]:
    """Return every place where the report breaks its JSON schema."""
    errors = jsonschema.Draft202012Validator(schema).iter_errors(report)
    return [f"schema: {error.json_path}: {error.message}" for error in sorted(errors, key=lambda e: e.json_path)]


def summary(report: dict[str, Any]) -> str:
    """Return what the report says, for the log."""
    parity, estimate = report.get("parity") or {}, report.get("estimate") or {}
    lines = [
        f"target   {report.get('target')}",
        f"parity   equal {parity.get('equal')}, {parity.get('elements')} elements, {parity.get('mismatches')} differ",
    ]
    for row in report.get("oracles") or []:
        lines.append(
            f"oracle   {row.get('name')}: {row.get('status')}, {row.get('elements')} elements, "
            f"{row.get('mismatches')} differ"
        )
    lines.append(f"estimate fits {estimate.get('fits')}, {estimate.get('fps')} frames/s")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    path = Path(arguments[0] if arguments else "build/demo/report.json")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"check_demo: {error}", file=sys.stderr)
        return 1
    found = schema_faults(report, schema)
    if isinstance(report, dict):
        print(summary(report))
        found += faults(report)
    for line in found:
        print(f"check_demo: {line}", file=sys.stderr)
    print(f"check_demo: {path}: {'every gate ran and held' if not found else f'{len(found)} faults'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
