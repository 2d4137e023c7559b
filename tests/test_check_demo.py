"""scripts/check_demo.py, which ends `.ci/run`: a good report passes, every kind of bad one fails."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest

_SPEC = importlib.util.spec_from_file_location("check_demo", Path(__file__).parents[1] / "scripts" / "check_demo.py")
assert _SPEC is not None and _SPEC.loader is not None
check_demo = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(check_demo)

GOOD: dict[str, Any] = {
    "schema": 1,
    "target": "zcu104",
    "ok": True,
    "gates": [{"name": name, "status": "passed", "detail": ""} for name in check_demo.GATES],
    "graph": {
        "content_sha256_lowered": "ab",
        "content_sha256_in_memory": "ab",
        "equal": True,
        "diagnostics": [],
        "proofs": [{"node": "head", "bits": 20, "limit_bits": 32, "holds": True}],
    },
    "parity": {"equal": True, "elements": 12, "mismatches": 0},
    "simulators": {"equal": True, "elements": 12, "mismatches": 0},
    "oracles": [
        {"name": "qonnx", "status": "passed", "elements": 12, "mismatches": 0},
        {"name": "finn", "status": "passed", "elements": 12, "mismatches": 0},
        {"name": "rtl", "status": "passed", "elements": 12, "mismatches": 0},
        {"name": "litert", "status": "not run"},
    ],
    "estimate": {"fits": True, "fps": 30.0},
}


def test_a_good_report_has_no_faults():
    assert check_demo.faults(GOOD) == []
    for status, found in (("not run", 0), ("passed", 0), ("failed", 1)):
        gates = [*GOOD["gates"], {"name": "finn_rtl = reference", "status": status, "detail": ""}]
        assert len(check_demo.faults(GOOD | {"gates": gates})) == found
    assert "finn: passed, 12 elements, 0 differ" in check_demo.summary(GOOD)


BAD: list[tuple[tuple[Any, ...], Any, str]] = [
    (("parity", "equal"), False, "parity: equal is False"),
    (("parity", "equal"), 1, "parity: equal is 1"),
    (("parity", "mismatches"), 1, "mismatches 1"),
    (("parity", "mismatches"), False, "mismatches False"),
    (("parity", "elements"), 0, "nothing was compared"),
    (("parity", "elements"), True, "nothing was compared"),
    (("parity",), {}, "parity: equal is None"),
    (("oracles",), [], "oracle finn: not in the report"),
    (("oracles", 0, "status"), "not run", "oracle qonnx: status is 'not run'"),
    (("oracles", 1, "status"), "failed", "oracle finn: status is 'failed'"),
    (("oracles", 1, "mismatches"), 2, "oracle finn: mismatches is 2"),
    (("oracles", 1, "elements"), 0, "oracle finn: elements is 0"),
    (("oracles", 1, "name"), "litert", "oracle finn: not in the report"),
    (("oracles", 2, "status"), "not run", "oracle rtl: status is 'not run'"),
    (("ok",), False, "ok is False"),
    (("ok",), None, "ok is None"),
    (("gates",), [], "gate legal on the target: 0 times in the report"),
    (("gates", 0, "name"), "other", "gate lowered file = graph in memory: 0 times"),
    (("gates", 0, "name"), "legal on the target", "gate legal on the target: 2 times"),
    (("gates", 4, "status"), "failed", "gate fast simulator = reference: status is 'failed'"),
    (("gates", 6, "status"), "not run", "gate finn = reference: status is 'not run'"),
    (("graph", "equal"), False, "graph: equal is False"),
    (("graph", "equal"), None, "graph: equal is None"),
    (("graph", "content_sha256_in_memory"), "cd", "in memory 'cd'"),
    (("graph", "diagnostics"), ["head: too wide"], "diagnostics are ['head: too wide']"),
    (("graph", "proofs"), [], "no accumulator was proven"),
    (("graph", "proofs", 0, "holds"), False, "accumulator of head needs 20 of 32 bits"),
    (("graph", "proofs", 0, "bits"), 33, "accumulator of head needs 33 of 32 bits"),
    (("graph",), {}, "no accumulator was proven"),
    (("simulators", "equal"), False, "simulators: equal is False"),
    (("simulators", "elements"), 0, "simulators: elements is 0; nothing was compared"),
    (("simulators", "mismatches"), 3, "mismatches 3"),
    (("simulators",), {}, "simulators: equal is None"),
    (("estimate", "fits"), False, "estimate: fits is False"),
    (("estimate",), {}, "estimate: fits is None"),
]


@pytest.mark.parametrize(("place", "value", "fault"), BAD)
def test_a_bad_report_is_named(place: tuple[Any, ...], value: Any, fault: str):
    report = copy.deepcopy(GOOD)
    holder: Any = report
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    assert any(fault in line for line in check_demo.faults(report))


@pytest.mark.parametrize("gate", range(len(check_demo.GATES)))
def test_a_gate_that_is_gone_is_named(gate: int):
    report = copy.deepcopy(GOOD)
    name = report["gates"].pop(gate)["name"]
    assert check_demo.faults(report) == [f"gate {name}: 0 times in the report"]


def test_the_names_of_the_gates_are_those_of_a_build(monkeypatch: pytest.MonkeyPatch):
    """A gate that is renamed in the pipeline must be renamed here: nothing else knows both lists."""
    from srq_hw.pipeline.assemble import _gates

    report = {"graph": {"equal": None, "content_sha256_lowered": "", "nodes": 1}, "parity": None, "simulators": None}
    names = (*check_demo.ORACLES, "finn_rtl")
    rows = _gates(report | {"oracles": [{"name": name, "status": "not run", "detail": ""} for name in names]})
    assert tuple(row["name"] for row in rows) == check_demo.GATES + check_demo.ON_REQUEST


def test_a_missing_or_broken_report_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert check_demo.main([str(tmp_path / "absent.json")]) == 1
    broken = tmp_path / "report.json"
    broken.write_text("{")
    assert check_demo.main([str(broken)]) == 1
    assert "every gate ran and held" not in capsys.readouterr().out


def test_schema_faults_name_the_place():
    schema = {"properties": {"parity": {"required": ["equal"]}}}
    assert check_demo.schema_faults({"parity": {}}, schema) == ["schema: $.parity: 'equal' is a required property"]
