"""report.json's schema: it takes a whole report and names the place of everything that is wrong with another."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from srq_hw.errors import RunError
from srq_hw.report.schema import SCHEMA_FILE, SCHEMA_VERSION, faults, report_schema, validate
from srq_hw.yamlfile import resolve
from tests.report.sample_report import sample_report

Report = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return sample_report(tmp_path_factory.mktemp("report"))


def test_the_sample_is_valid_also_to_a_plain_validator(whole: Report):
    validate(whole)
    validate(json.loads(json.dumps(whole, allow_nan=False)))
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(whole)
    assert whole["schema"] == SCHEMA_VERSION


def test_tuples_count_as_lists(whole: Report):
    changed = copy.deepcopy(whole)
    changed["network"]["input_size"] = (64, 64)
    changed["graph"]["diagnostics"] = ()
    validate(changed)


def objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema, *(part for part in schema["$defs"].values() if "properties" in part)]


def test_the_schema_is_sound_and_describes_every_field():
    schema = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in objects(schema):
        assert part["description"]
        assert set(part["required"]) <= set(part["properties"])
        for key, field in part["properties"].items():
            assert resolve(schema, field).get("description", "").endswith("."), f"{key} has no description"
    assert schema["additionalProperties"] is False
    open_objects = [name for name, part in schema["$defs"].items() if part.get("additionalProperties") is True]
    assert open_objects == ["estimate_node"]


def test_a_changed_copy_of_the_schema_changes_nothing():
    report_schema()["properties"].clear()
    assert report_schema()["properties"]


def set_at(report: Report, place: tuple[Any, ...], value: Any) -> Report:
    changed = copy.deepcopy(report)
    holder: Any = changed
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return changed


BROKEN: list[tuple[tuple[Any, ...], Any, str]] = [
    (("schema",), 2, "$.schema"),
    (("surprise",), 1, "surprise"),
    (("target_sha256",), "abc", "$.target_sha256"),
    (("network", "scale"), 0, "$.network.scale"),
    (("network", "input_size"), [64], "$.network.input_size"),
    (("network", "input_size"), [0, 64], "$.network.input_size[0]"),
    (("network", "input_size"), [64, 64, 3], "$.network.input_size"),
    (("quantization", "layers", 1, "signed"), 1, "$.quantization.layers[1].signed"),
    (("quantization", "layers", 1, "scale"), 0, "$.quantization.layers[1].scale"),
    (("quantization", "layers", 1, "scale"), math.nan, "$.quantization.layers[1].scale: nan is not a finite number"),
    (("quantization", "layers", 1, "lower"), 1e9, "$.quantization.layers[1]: lower"),
    (("quantization", "layers", 1, "data_min"), None, "$.quantization.layers[1]: a histogram without"),
    (("quantization", "layers", 1, "histogram", 0), -1, "$.quantization.layers[1].histogram[0]"),
    (("quantization", "weights", 0, "shape"), [16, 3, 3], "$.quantization.weights[0].shape"),
    (("steps", 0, "cached"), None, "$.steps[0].cached"),
    (("steps", 0, "seconds"), -0.1, "$.steps[0].seconds"),
    (("graph", "equal"), False, "$.graph.equal: False although"),
    (("graph", "equal"), None, "$.graph.equal: None although"),
    (("graph", "content_sha256_in_memory"), "0" * 64, "$.graph.equal: True although"),
    (("graph", "proofs", 0, "bits"), 33, "$.graph.proofs[0]: holds"),
    (("parity", "mismatches"), 1, "$.parity.mismatches"),
    (("parity", "elements"), 0, "$.parity.elements"),
    (("parity", "equal"), False, "$.parity.mismatches"),
    (("parity", "equal"), 1, "$.parity.equal"),
    (("parity", "first_mismatch"), {"tensor": "x", "index": [0], "left": 1, "right": 2}, "$.parity.first_mismatch"),
    (("simulators", "mismatches"), 3, "$.simulators.mismatches"),
    (("quality", 0, "psnr_float"), math.inf, "$.quality[0].psnr_float: inf is not a finite number"),
    (("quality", 0, "ssim_integer"), 1.1, "$.quality[0].ssim_integer"),
    (("oracles", 0, "status"), "skipped", "$.oracles[0].status"),
    (("oracles", 0, "mismatches"), 1, "$.oracles[0].mismatches"),
    (("oracles", 0, "mismatches"), None, "$.oracles[0].mismatches"),
    (("oracles", 0, "elements"), 0, "$.oracles[0].elements"),
    (("oracles", 3, "status"), "passed", "$.oracles[3].elements"),
    (("finn_simulation", "frames"), 1, "$.finn_simulation.frames"),
    (("finn_simulation", "nodes", 1, "origin"), "theirs", "$.finn_simulation.nodes[1].origin"),
    (
        ("finn_simulation", "converters", "FMPadding_rtl_0__out0"),
        [1],
        "$.finn_simulation.converters.FMPadding_rtl_0__out0",
    ),
    (("estimate", "fits"), False, "$.estimate.fits: False although short_of"),
    (("estimate", "short_of"), {"dsp": 4}, "$.estimate.fits: True although short_of"),
    (("estimate", "nodes", 0, "cycles"), 1.5, "$.estimate.nodes[0].cycles"),
    (("images", 0, "files"), {"input": "images/a.png"}, "$.images[0].files"),
    (("files", "model.qonnx"), "none", "$.files"),
    (("gates",), [], "$.gates"),
    (("gates", 0, "status"), "failed", "$.gates[0].status"),
    (("ok",), False, "no gate failed although ok is false"),
    (("ok",), "yes", "$.ok"),
]


@pytest.mark.parametrize(("place", "value", "where"), BROKEN, ids=lambda item: str(item)[:60])
def test_a_broken_report_is_refused_with_the_place(whole: Report, place: tuple[Any, ...], value: Any, where: str):
    with pytest.raises(RunError) as caught:
        validate(set_at(whole, place, value))
    assert where in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("key", sorted(report_schema()["required"]))
def test_every_top_level_key_is_needed(whole: Report, key: str):
    changed = {name: value for name, value in whole.items() if name != key}
    assert any(key in fault for fault in faults(changed))


def test_all_faults_are_told_at_once(whole: Report):
    changed = set_at(set_at(whole, ("network", "scale"), "two"), ("target",), "")
    assert len(faults(changed)) == 2


def test_a_failed_gate_goes_with_ok_false(whole: Report):
    changed = set_at(set_at(whole, ("gates", 2, "status"), "failed"), ("ok",), False)
    validate(changed)


ABSENT: list[Callable[[Report], None]] = [
    lambda report: report.update(
        estimate=None, finn_simulation=None, simulators=None, parity=None, images=[], quality=[], oracles=[]
    ),
    lambda report: report["graph"].update(content_sha256_in_memory=None, equal=None),
    lambda report: report["quantization"].update(layers=[], weights=[], seed=None, recipe_sha256=None),
    lambda report: report["images"][0]["files"].pop("float"),
    lambda report: report["estimate"]["nodes"][0].update(anything={"of": "the flow"}),
    lambda report: report["estimate"].pop("utilization_max"),
]


@pytest.mark.parametrize("change", ABSENT)
def test_what_may_be_absent(whole: Report, change: Callable[[Report], None]):
    changed = copy.deepcopy(whole)
    change(changed)
    validate(changed)


def docs_script(repo_root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_report_docs", repo_root / "scripts" / "make_report_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_fresh_and_names_every_key(repo_root: Path):
    module = docs_script(repo_root)
    for path, text in module.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is stale; run scripts/make_report_docs.py"
    text = module.markdown()
    for key in ("`estimate.nodes[].cycles`", "`parity.first_mismatch.index`", "`quantization.layers[].scale`", "`ok`"):
        assert key in text
    for line in ("| 0 | every gate that ran held |", "| 1 | a gate or the run failed", "| 2 | the input is wrong"):
        assert line in text


def test_a_stale_reference_is_found_and_left_alone(repo_root: Path, tmp_path: Path):
    from srq_hw.schema_docs import refresh

    fresh, stale, absent = tmp_path / "fresh.md", tmp_path / "stale.md", tmp_path / "absent.md"
    fresh.write_text("a")
    stale.write_text("b")
    texts = {fresh: "a", stale: "a", absent: "a"}
    assert refresh(texts, check=True) == [stale, absent]
    assert stale.read_text() == "b" and not absent.exists()
    assert refresh(texts, check=False) == [stale, absent]
    assert refresh(texts, check=True) == []
