"""Target files: the packaged ones are right, a wrong one is answered with file, line, key and what is allowed."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pydantic
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srq_hw.errors import InputError
from srq_hw.graph.ops import OPS
from srq_hw.resources import data_folder, data_names, data_path
from srq_hw.target import FINN_PARTS, Target, json_schema, list_targets, load_target
from srq_hw.yamlfile import read_yaml, resolve

ZCU104 = data_path("targets", "zcu104").read_text(encoding="utf-8")

# LUT, FF, DSP, BRAM36, URAM of the devices, from the makers' product tables.
DEVICES = {
    "zcu104": (230400, 460800, "DSP48E2", 1728, 312, 96),
    "zcu104-rtl": (230400, 460800, "DSP48E2", 1728, 312, 96),
    "zcu102": (274080, 548160, "DSP48E2", 2520, 912, 0),
    "ultra96-v2": (70560, 141120, "DSP48E2", 360, 216, 0),
    "kv260": (117120, 234240, "DSP48E2", 1248, 144, 64),
    "pynq-z2": (53200, 106400, "DSP48E1", 220, 140, 0),
    "alveo-u250": (1728000, 3456000, "DSP48E2", 12288, 2688, 1280),
}


FINN = sorted(set(DEVICES) - {"zcu104-rtl"})
# Accelerators that are no FPGA design: integer rules only.
NO_DEVICE = ("dpu-pow2", "int-generic")


@pytest.fixture
def write(tmp_path: Path):
    """Return a function that writes text to a file of the test's own and returns its path."""

    def _write(text: str | bytes, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return _write


def changed(old: str, new: str) -> str:
    assert ZCU104.count(old) >= 1, f"{old!r} is not in zcu104.yaml"
    return ZCU104.replace(old, new, 1)


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_target(path)
    return str(caught.value)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_packaged_targets_are_the_promised_ones():
    assert list_targets() == sorted([*DEVICES, *NO_DEVICE])


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_packaged_target_is_valid_and_has_the_device_figures(name: str):
    target = load_target(name)
    r = target.resources
    assert target.name == name
    assert (r.lut, r.ff, r.dsp.kind, r.dsp.count, r.bram36, r.uram) == DEVICES[name]
    assert r.has_flow("verilog") and r.has_flow("finn") == (name in FINN)
    assert (r.finn_board is not None) == (name in FINN)
    assert r.finn_board is None or FINN_PARTS[r.finn_board] == r.part
    jsonschema.validate(yaml.safe_load(data_path("targets", name).read_text()), json_schema())


@pytest.mark.parametrize("name", FINN)
def test_fpga_targets_share_the_integer_rules(name: str):
    """All of them run the same FINN dataflow arithmetic, so a graph that is legal on one is legal on all."""
    assert load_target(name).integer == load_target("zcu104").integer


@pytest.mark.parametrize("name", NO_DEVICE)
def test_a_target_without_a_device_has_every_operation(name: str):
    target = load_target(name)
    assert target.name == name and target.resources is None
    assert set(target.integer.ops.names()) == set(OPS) - {"Offset"}
    jsonschema.validate(yaml.safe_load(data_path("targets", name).read_text()), json_schema())


def test_slopes_of_a_shifter_are_only_for_a_shifter(write):
    told = message(write(changed("slope_max: 2.0", "slope_max: 2.0, slope_bits: 8")))
    assert "slope_bits 8 with requant.kind dyadic; allowed: no slope_bits" in told


@pytest.mark.finn
def test_board_table_is_finns_own(tmp_path: Path):
    if importlib.util.find_spec("finn") is None:
        pytest.skip("FINN+ is not installed (requirements/finn.txt)")
    code = (
        "import json, finn.util.settings as s; s.initialize_dummy_settings();"
        "from finn.util.basic import part_map; print('PARTS ' + json.dumps(part_map))"
    )
    environ = {**os.environ, "FINN_BUILD_DIR": str(tmp_path), "FINN_SETTINGS": str(tmp_path / "settings.yaml")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("PARTS "))
    assert json.loads(line.removeprefix("PARTS ")) == FINN_PARTS


def test_values_arrive():
    integer = load_target("zcu104").integer
    assert (integer.weights.bits.min, integer.weights.bits.max, integer.weights.bits.default) == (2, 8, 8)
    assert integer.requant.multiplier_bits == 16
    assert integer.ops.Requant.activations == ("none", "relu", "prelu")
    assert integer.ops.names()[:5] == ("Conv", "Requant", "Add", "Concat", "DepthToSpace")
    assert integer.ops.limits("Conv").groups is True
    assert integer.ops.limits("DepthToSpace").block_max == 4
    assert integer.ops.limits("Softmax") is None
    assert integer.ops.limits("names") is None


def test_an_absent_op_is_not_allowed(write):
    target = load_target(write(changed("    Add: {}\n", "")))
    assert "Add" not in target.integer.ops.names()
    assert target.integer.ops.limits("Add") is None


def test_pow2_needs_no_multiplier(write):
    text = changed("kind: dyadic, multiplier_bits: 16, shift_max: 47", "kind: pow2, shift_max: 16")
    assert load_target(write(text)).integer.requant.multiplier_bits is None


def test_a_board_finn_does_not_know(write):
    text = changed("  finn_board: ZCU104\n", "").replace("xczu7ev-ffvc1156-2-e", "xczu19eg-ffvc1760-2-e")
    assert load_target(write(text)).resources.finn_board is None


def test_a_target_cannot_be_changed():
    target = load_target("zcu104")
    with pytest.raises(pydantic.ValidationError):
        target.resources.lut = 1  # type: ignore[misc]


def test_hash_is_of_the_content_only(write):
    data = yaml.safe_load(ZCU104)
    reordered = yaml.safe_dump(dict(reversed(list(data.items()))))
    original = load_target("zcu104").sha256
    assert load_target(write(reordered)).sha256 == original
    assert len(original) == 64
    assert load_target(write(changed("clock_mhz: 200", "clock_mhz: 201"))).sha256 != original
    assert len({load_target(name).sha256 for name in list_targets()}) == len(list_targets())


# (what to replace in zcu104.yaml, by what, the key path, the rest of the message)
WRONG = [
    ("schema: 1", "schema: 2", "schema", "2 is not allowed; allowed: 1"),
    ("name: zcu104", "name: ZCU 104", "name", "'ZCU 104' is not allowed; allowed: text matching"),
    (
        "default: 8}, signed",
        "default: 9}, signed",
        "integer.weights.bits",
        "default 9 is outside min..max; allowed: 2 to 8",
    ),
    ("min: 2, max: 8", "min: 9, max: 8", "integer.weights.bits", "min 9 is above max 8"),
    (
        "min: 2, max: 8",
        "min: 1, max: 8",
        "integer.weights.bits.min",
        "1 is not allowed; allowed: a whole number from 2 to 16",
    ),
    (
        "min: 2, max: 8",
        'min: "2", max: 8',
        "integer.weights.bits.min",
        "'2' is not allowed; allowed: a whole number from 2 to 16",
    ),
    ("min: 2, max: 8", "min: true, max: 8", "integer.weights.bits.min", "true is not allowed; allowed: a whole number"),
    (
        "min: 2, max: 8",
        "min: 2.0, max: 8",
        "integer.weights.bits.min",
        "2.0 is not allowed; allowed: a whole number",
    ),
    ("signed: true", "signed: false", "integer.weights.signed", "false is not allowed; allowed: true"),
    ("narrow_range: true", "narrow_range: 1", "integer.weights.narrow_range", "allowed: true or false"),
    (
        "granularity: channel",
        "granularity: chanel",
        "integer.weights.granularity",
        "'chanel' is not allowed (did you mean 'channel'?); allowed: one of channel, tensor",
    ),
    (
        "multiplier_bits: 16",
        "multiplier_bits: 21",
        "integer.requant.multiplier_bits",
        "21 is not allowed; allowed: a whole number from 2 to 20 (Unsigned width of M, bits, for dyadic only; at most "
        "20: QONNX keeps scales in float32",
    ),
    (
        "kind: dyadic, multiplier_bits: 16",
        "kind: dyadic",
        "integer.requant",
        "multiplier_bits is missing; allowed: a whole number from 2 to 20",
    ),
    (
        "kind: dyadic",
        "kind: pow2",
        "integer.requant",
        "multiplier_bits 16 with kind pow2; allowed: no multiplier_bits",
    ),
    ("shift_max: 47", "shift_max: 15", "integer.requant", "shift_max 15 is below multiplier_bits; allowed: 16 to 62"),
    (
        "rounding: half_even",
        "rounding: half_evn",
        "integer.requant.rounding",
        "'half_evn' is not allowed (did you mean 'half_even'?); allowed: one of half_even, half_up, half_away, floor, "
        "trunc",
    ),
    ("bias: {bits: 32}", "bias: {bits: 33}", "integer", "bias.bits 33 exceeds accumulator.bits; allowed: at most 32"),
    (
        "accumulator: {bits: 32}",
        "accumulator: {bits: 39}",
        "integer",
        "accumulator.bits 39 times the multiplier exceeds 2^53; allowed: at most 38",
    ),
    (
        "    Conv: {kernel_max: 17, groups: true}\n",
        "",
        "integer.ops.Conv",
        "missing; expected: a mapping with the keys kernel_max, groups",
    ),
    (
        "kernel_max: 17",
        "kernel_max: 17, dilation: 2",
        "integer.ops.Conv.dilation",
        "unknown key; allowed: kernel_max, groups",
    ),
    ("    Add: {}", "    Add:", "integer.ops.Add", "empty; allowed: a mapping of limits, {} to allow the op"),
    (
        "    Add: {}",
        "    Add: true",
        "integer.ops.Add",
        "true is not allowed; allowed: a mapping with the keys",
    ),
    (
        "    Add: {}",
        "    Softmax: {}",
        "integer.ops.Softmax",
        "unknown key; allowed: Conv, Requant, Add, Concat, DepthToSpace",
    ),
    (
        "[none, relu, prelu]",
        "[none, gelu]",
        "integer.ops.Requant.activations[1]",
        "'gelu' is not allowed (did you mean 'relu'?); allowed: one of none, relu, prelu",
    ),
    ("[none, relu, prelu]", "[]", "integer.ops.Requant.activations", "allowed: a list of one of none, relu, prelu"),
    (
        "[none, relu, prelu]",
        "[relu, relu]",
        "integer.ops.Requant",
        "activations ['relu', 'relu'] names one twice; allowed: each once",
    ),
    (
        "slope_min: 0.0, slope_max: 2.0",
        "slope_min: 0.5, slope_max: 0.1",
        "integer.ops.Requant",
        "slope_min 0.5 is above slope_max 0.1",
    ),
    (
        "slope_max: 2.0",
        "slope_max: .nan",
        "integer.ops.Requant.slope_max",
        "nan is not allowed; allowed: a number from 0 to 2",
    ),
    ("modes: [CRD, DCR]", "modes: [CRD, CRD]", "integer.ops.DepthToSpace.modes", "names one twice"),
    (
        "part: xczu7ev-ffvc1156-2-e",
        "part: 7",
        "resources.part",
        "7 is not allowed; allowed: text matching ^xc",
    ),
    (
        "part: xczu7ev-ffvc1156-2-e",
        "part: xczu9eg-ffvb1156-2-e",
        "resources",
        "part 'xczu9eg-ffvb1156-2-e' with finn_board ZCU104; allowed: 'xczu7ev-ffvc1156-2-e', or no finn_board",
    ),
    ("finn_board: ZCU104", "finn_board: KV260", "resources.finn_board", "(did you mean 'KV260_SOM'?)"),
    ("clock_mhz: 200", "clock_mhz: 0", "resources.clock_mhz", "0 is not allowed; allowed: a number from 1 to 1000"),
    ("lut: 230400", "lut: -1", "resources.lut", "-1 is not allowed; allowed: a whole number from 1"),
    ("uram: 96", "urams: 96", "resources.urams", "unknown key (did you mean 'uram'?); allowed: part, finn_board"),
    ("uram: 96", "uram: 2026-01-01", "resources.uram", "'2026-01-01' is not allowed; allowed: a whole number"),
    ("kind: DSP48E2", "kind: DSP48", "resources.dsp.kind", "allowed: one of DSP48E1, DSP48E2, DSP58"),
    (
        "utilization_max: 0.8",
        "utilization_max: 80",
        "resources.utilization_max",
        "80 is not allowed; allowed: a number",
    ),
]


@pytest.mark.parametrize(("old", "new", "key", "rest"), WRONG, ids=[f"{key}-{new}" for _, new, key, _ in WRONG])
def test_a_wrong_value_names_file_line_key_value_and_what_is_allowed(write, old: str, new: str, key: str, rest: str):
    text = changed(old, new)
    path = write(text)
    (told,) = [line for line in message(path).splitlines() if f": {key}: " in line]
    place, _, found = told.partition(f": {key}: ")
    assert rest in found
    file, _, line = place.rpartition(":")
    assert file == str(path)
    # the line named holds the change, or opens the mapping that a cross-field rule or a missing key belongs to
    shown = text.splitlines()[int(line) - 1]
    leaf = key.rsplit(".", 1)[-1].partition("[")[0]
    assert leaf in shown or "missing" in found


def test_all_mistakes_are_reported_at_once(write):
    text = (
        ZCU104.replace("uram: 96", "urams: 96")
        .replace("half_even", "half_odd")
        .replace("dsp: {kind: DSP48E2", "dsp: {kind: 7")
    )
    lines = message(write(text)).splitlines()
    keys = [line.split(": ")[1] for line in lines]
    assert keys == ["integer.requant.rounding", "resources.uram", "resources.dsp.kind", "resources.urams"]


def test_every_cross_field_rule_of_one_place_has_its_line(write):
    text = ZCU104.replace("accumulator: {bits: 32}", "accumulator: {bits: 12}")
    lines = message(write(text)).splitlines()
    assert len(lines) == 2
    assert "bias.bits 32 exceeds" in lines[0]
    assert "cannot hold one weight" in lines[1]


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("", "is empty; allowed: a mapping with the keys schema, name, title, integer, resources"),
        ("- 1\n- 2\n", "holds a list; allowed: a mapping"),
        ("zcu104\n", "holds a str; allowed: a mapping"),
        ("name: [1, 2\nx: 3\n", "not valid YAML"),
        ("schema: 1\n\tname: x\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("name: !!python/object/apply:os.system [true]\n", "not allowed"),
        ("name: !mine x\n", "tag !mine is not allowed"),
        ("name: &a x\ntitle: *a\n", "anchors and aliases"),
        ("? [a, b]\n: 1\n", "a key must be a single word"),
        ("a: \x01\n", "not valid YAML"),
        ("a: " + "[" * 20000, "nested too deeply"),
        ("a: 0x" + "f" * 9000 + "\n", "unknown key"),
        ("a: " + "9" * 9000 + "\n", "not valid YAML"),
        ("# " + "x" * (1 << 20) + "\n", "is larger than"),
        (b"name: \xff\xfe\xfa", "is not UTF-8 text"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_file_that_is_no_description(write, text: str | bytes, rest: str):
    path = write(text)
    assert message(path).startswith(str(path))
    assert rest in message(path)


def test_a_syntax_error_has_its_line(write):
    path = write(ZCU104 + "  broken: [1, 2\n")
    assert message(path).startswith(f"{path}:{ZCU104.count(chr(10)) + 2}:1: not valid YAML")


def test_a_duplicate_key_is_refused_with_both_lines(write):
    path = write(ZCU104 + "  lut: 5\n")
    first = next(n for n, line in enumerate(ZCU104.splitlines(), 1) if line.strip().startswith("lut:"))
    last = ZCU104.count("\n") + 1
    assert message(path) == f"{path}:{last}: resources.lut: key given twice (first on line {first})"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'zcu105': no such target \(did you mean 'zcu104'\?\); known: alveo"):
        load_target("zcu105")


@pytest.mark.parametrize("name", ["", "ZCU104", "../zcu104", "nothing.yaml", ".", "a\0b"])
def test_names_that_are_no_target(name: str):
    with pytest.raises(InputError, match="zcu104"):
        load_target(name)


def test_a_folder_and_a_missing_file(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder"):
        load_target(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        load_target(tmp_path / "absent.yaml")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file(write):
    path = write(ZCU104)
    path.chmod(0)
    assert "cannot be read" in message(path)


def test_a_users_file_is_found_by_a_relative_path(write, monkeypatch: pytest.MonkeyPatch):
    path = write(ZCU104.replace("name: zcu104", "name: mine"))
    monkeypatch.chdir(path.parent)
    assert load_target("mine.yaml").name == "mine"
    assert load_target("./mine.yaml") == load_target(path)


def test_a_packaged_name_beats_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "zcu104").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_target("zcu104").name == "zcu104"


def test_unknown_kind_of_data_is_our_mistake():
    with pytest.raises(ValueError, match="known: targets, calib"):
        data_folder("boards")


def leaves(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in leaves(item, (*place, key))] or [place]
    return [place]


PLAIN = yaml.safe_load(ZCU104)
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 70),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(leaves(PLAIN)), value=ANYTHING)
def test_any_value_anywhere_is_accepted_or_named(write, place: tuple[Any, ...], value: Any):
    """No value leads to a traceback, and what is accepted arrives unchanged."""
    data = copy.deepcopy(PLAIN)
    holder = data
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    path = write(yaml.safe_dump(data, allow_unicode=True))
    try:
        target = load_target(path)
    except InputError as error:
        assert str(error).startswith(str(path))
        return
    dumped: Any = target.model_dump(mode="json", by_alias=True, exclude_none=True)
    for key in place:
        dumped = dumped.get(key) if isinstance(dumped, dict) else dumped[key]
    assert dumped == value


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.sampled_from("ab:-[]{}&*!#|>'\" \n\t0.,?%@~"), max_size=40))
def test_any_text_is_read_or_refused(write, text: str):
    path = write(text)
    try:
        read_yaml(path)
    except InputError as error:
        assert str(error).startswith(str(path))


def test_generated_docs_are_fresh():
    module = script("make_target_docs")
    for path, text in module.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is stale; run: make docs"


def test_schema_of_the_docs_names_every_field_with_a_description():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in (schema, *schema["$defs"].values()):
        assert part["additionalProperties"] is False
        for key, field in part.get("properties", {}).items():
            assert resolve(schema, field).get("description"), f"{key} has no description"
            assert "null" not in json.dumps(field), f"{key}: an editor would offer null, which is refused"


def test_the_wheel_holds_every_data_file(tmp_path: Path, repo_root: Path):
    """What `pip install .` leaves behind: the package, the targets, the calibration recipes, the weights."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(repo_root / name, source)
    for name in ("srq_hw", "targets", "calib"):
        shutil.copytree(repo_root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    for kind in ("targets", "calib"):
        assert {f"srq_hw/_data/{kind}/{name}.yaml" for name in data_names(kind)} <= held
    files = [path for path in (source / "srq_hw").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    missing = {path.relative_to(source).as_posix() for path in files} - held
    assert not missing, f"not packaged: {sorted(missing)}; see package-data in pyproject.toml"


def test_target_is_made_of_frozen_parts_only():
    """A part that could be changed would make the content hash of a running build wrong."""
    target = load_target("zcu104")
    parts: list[pydantic.BaseModel] = [target]
    for part in parts:
        assert part.model_config["frozen"] and part.model_config["extra"] == "forbid"
        values = [getattr(part, key) for key in type(part).model_fields]
        assert not any(isinstance(value, list | dict | set) for value in values)
        parts += [value for value in values if isinstance(value, pydantic.BaseModel)]
    assert len(parts) > 15
    assert isinstance(target, Target)
