"""A hand-off bundle of FINN's units and ours, continued in a FINN process as far as it goes without Vivado."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from finn_nets import misfits

from srq_hw.backends.finn.build import build_finn
from srq_hw.backends.handoff import verify_manifest, write_handoff
from srq_hw.backends.rtl.verilate import LIBRARY
from srq_hw.simulate.reference import run
from srq_hw.target import load_target
from srq_hw.tools import find_tool

SIZE = (6, 5)
REPO = Path(__file__).resolve().parents[2]
needs_finn = pytest.mark.skipif(not find_tool("finn").usable, reason="FINN+ is not installed")
pytestmark = [pytest.mark.finn, needs_finn]

#: what `finn build` does before and with the first three steps, and what follows when a golden value is another
SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from srq_hw.backends.finn.boot import boot
work = Path(sys.argv[1])
boot(Path(sys.argv[2]))
from finn.builder.build_dataflow import create_model_wrapper, resolve_build_steps
from finn.builder.build_dataflow_config import DataflowBuildConfig
from qonnx.custom_op.registry import getCustomOp
cfg = DataflowBuildConfig.construct_from(work / "build.yaml")
model = create_model_wrapper(work / "dataflow.onnx", cfg)
before = any(name.startswith("srq_hw.backends.finn.ops") for name in sys.modules)
steps = resolve_build_steps(cfg)
ops = {node.name: type(getCustomOp(node)).__name__ for node in model.graph.node}

def sources():
    return {path.relative_to(work).as_posix(): path.read_bytes() for path in (work / "sources").rglob("*.*")}

found = [sources()]
for step in steps[:3]:
    model = step(model, cfg)
    found.append(sources())
files = [line.split()[-1] for node in model.graph.node for line in getCustomOp(node).code_generation_ipi()
         if line.startswith("add_files")]
golden = np.load(cfg.verify_expected_output_npy)
golden[0, 0, 0, 0] += 1
np.save(cfg.verify_expected_output_npy, golden)
refused = []

def refuse(change):
    model = create_model_wrapper(work / "dataflow.onnx", cfg)
    change(next(node for node in model.graph.node if node.op_type == "SrqConv_rtl"))
    try:
        steps[0](model, cfg)
    except Exception as error:
        refused.append(f"{type(error).__name__}: {error}")

def unknown(node):
    node.op_type = "SrqNothing_rtl"

def without_sources(node):
    next(item for item in node.attribute if item.name == "code_gen_dir_ipgen").s = b"/nowhere"

for change in (lambda node: None, unknown, without_sources):
    refuse(change)
print("RESULT" + json.dumps({
    "steps": [step.__name__ for step in steps], "before": before, "ops": ops, "files": files, "refused": refused,
    "verify": [step.value for step in cfg.verify_steps],
    "mean": [cfg.verification_mean_atol, cfg.verification_mean_rtol],
    "changed": [sorted(name for name in b if a.get(name) != b[name]) for a, b in zip(found, found[1:])],
}))
"""


def picture() -> np.ndarray:
    """A random image."""
    return np.random.default_rng(8).integers(0, 256, (*SIZE, 3))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both libraries in one design: grouped convolutions, filters and falling slopes beside FINN's units."""
    target, folder = load_target("zcu104"), tmp_path_factory.mktemp("continue")
    result = build_finn(misfits(), target, SIZE, 500.0, folder / "finn")
    assert {place.library for place in result.places} == {"finn", "srq"}
    return write_handoff(result, misfits(), target, picture(), folder / "handoff")


def command(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """continue_build.py of the bundle."""
    call = [sys.executable, str(bundle / "continue_build.py"), *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def work(bundle: Path) -> Path:
    """The bundle, prepared."""
    folder = bundle.parent / "work"
    done = command(bundle, "--prepare-only", "--work", str(folder))
    assert done.returncode == 0, done.stderr
    assert "finn build" in done.stdout
    return folder


@pytest.fixture(scope="module")
def continued(work: Path) -> dict[str, Any]:
    """What FINN makes of the prepared bundle in a process that knows nothing of srq-hw beforehand."""
    boot = work.parent / "boot"
    boot.mkdir()
    call = [sys.executable, "-c", SCRIPT, str(work), str(boot)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=REPO)
    assert "RESULT" in done.stdout, done.stderr[-3000:]
    made: dict[str, Any] = json.loads(done.stdout.split("RESULT")[1])
    return made


def test_no_path_of_this_machine_leaves(bundle: Path) -> None:
    words = [str(bundle.parent), str(REPO), str(LIBRARY), sys.prefix, "site-packages", str(Path.home()) + "/"]
    assert verify_manifest(bundle) == []
    for path in bundle.rglob("*"):
        for word in words if path.is_file() else []:
            assert word.encode() not in path.read_bytes(), (path, word)


def test_memories_of_our_units_are_where_the_wrappers_say(bundle: Path, work: Path) -> None:
    """Placeholders in the bundle, paths of the work folder in what was prepared."""
    named = re.compile(r'"([^"]*\.(?:hex|mem|dat))"')
    wrappers = [path for path in bundle.glob("sources/Srq*/*.v") if named.search(path.read_text())]
    assert len(wrappers) >= 5
    for wrapper in wrappers:
        assert all(name.startswith("@SRQ_SOURCES@/") for name in named.findall(wrapper.read_text()))
        for name in named.findall((work / wrapper.relative_to(bundle)).read_text()):
            assert Path(name).is_file() and Path(name).is_relative_to(work / "sources")
    for path in work.rglob("*"):
        assert not path.is_file() or b"@SRQ_" not in path.read_bytes(), path


def test_finn_learns_our_operations_from_the_steps(continued: dict[str, Any], bundle: Path) -> None:
    assert not continued["before"]
    assert continued["steps"][:3] == ["step_srq_resume", "step_hw_codegen", "step_hw_ipgen"]
    nodes = {node.name: node.op_type for node in onnx.load(bundle / "dataflow.onnx").graph.node}
    assert continued["ops"] == nodes
    assert {op for op in nodes.values() if op.startswith("Srq")} > {"SrqConv_rtl", "SrqFilter_rtl", "SrqRequant_rtl"}
    assert {"MVAU_rtl", "Thresholding_rtl"} < set(nodes.values())


def test_generated_sources_are_kept(continued: dict[str, Any]) -> None:
    """FINN's step_hw_ipgen makes paths in its own wrappers absolute; nothing else is written again."""
    resumed, codegen, ipgen = continued["changed"]
    assert resumed == codegen == []
    assert ipgen and all(name.startswith("sources/Thresholding_rtl") for name in ipgen)


def test_all_sources_that_vivado_is_given_are_there(continued: dict[str, Any], work: Path) -> None:
    files = [Path(name) for name in continued["files"]]
    assert all(path.is_file() for path in files)
    assert {path.name for path in files if path.parent == LIBRARY} >= {"srq_conv.v", "srq_requant.v"}
    assert any(path.is_relative_to(work / "sources") for path in files)


def test_finn_verifies_the_golden_vectors_without_tolerance(continued: dict[str, Any], work: Path) -> None:
    """FINN's own verification, the folded graph executed in Python."""
    assert continued["verify"] == ["folded_hls_cppsim", "stitched_ip_rtlsim"] and continued["mean"] == [0.0, 0.0]
    made = np.load(work / "output" / "verification_output" / "verify_folded_hls_cppsim_0_SUCCESS.npy")
    np.testing.assert_array_equal(made, run(misfits(), picture()))


def test_a_golden_value_that_is_another_is_found(continued: dict[str, Any], work: Path) -> None:
    assert continued["refused"][0].startswith("RunError: FINN's execution of the folded graph is not")
    assert (work / "output" / "verification_output" / "verify_folded_hls_cppsim_0_FAIL.npy").is_file()


def test_a_node_that_cannot_be_built_is_named(continued: dict[str, Any]) -> None:
    _, unknown, gone = continued["refused"]
    assert re.match(r"InputError: FINN node SrqConv_rtl_\d+: operation SrqNothing_rtl is not known here", unknown)
    assert re.match(r"InputError: FINN node SrqConv_rtl_\d+ \(SrqConv_rtl\): no file /nowhere/", gone)


def test_the_readme_says_what_is_verified_and_counted(bundle: Path) -> None:
    text = (bundle / "README.md").read_text()
    rows = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in text.splitlines() if "rtlsim |" in line}
    assert rows == {"`nodes`": "no", "`stitched`": "yes"}
    assert "| `python` | folded_hls_cppsim |" in text and "Not in Python" not in text
    figures = json.loads((bundle / "estimates.json").read_text())
    assert f"| FF | {figures['ff']} |" in text and figures["ff"] > 4000
    assert {item["resource"] for item in figures["corrections"]} >= {"LUT", "FF"}


def test_verifications_can_be_chosen(bundle: Path, tmp_path: Path) -> None:
    for asked, steps in (("none", []), ("nodes,stitched", ["node_by_node_rtlsim", "stitched_ip_rtlsim"])):
        work = tmp_path / "work"
        assert command(bundle, "--prepare-only", "--work", str(work), "--verify", asked).returncode == 0
        assert json.loads((work / "build.yaml").read_text())["verify_steps"] == steps
    refused = command(bundle, "--prepare-only", "--work", str(tmp_path / "x"), "--verify", "all")
    assert refused.returncode == 2 and "'all'; allowed: none" in refused.stderr


def test_another_srq_hw_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "bundle"
    subprocess.run(["cp", "-r", str(bundle), str(other)], check=True)
    build = json.loads((other / "build.json").read_text())
    (other / "build.json").write_text(json.dumps(build | {"srq_hw": "0.0.1"}))
    lines = (other / "MANIFEST.sha256").read_text().splitlines(keepends=True)
    (other / "MANIFEST.sha256").write_text("".join(line for line in lines if not line.endswith("  build.json\n")))
    assert "build.json is not listed" in command(other, "--prepare-only", "--work", str(tmp_path / "w")).stderr
    from srq_hw.backends.handoff.manifest import write_manifest

    write_manifest(other)
    done = command(other, "--prepare-only", "--work", str(tmp_path / "w"))
    assert done.returncode == 1 and "this bundle needs 0.0.1" in done.stderr
    assert not (tmp_path / "w").exists()
