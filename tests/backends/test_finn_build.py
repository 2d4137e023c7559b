"""FINN itself, in its worker: builds, equality with the reference, folding, bundle, and how failures are told."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from finn_nets import misfits, tied_pow2, zoo
from onnx import helper, numpy_helper

from srq_hw.backends.finn import build as build_module
from srq_hw.backends.finn.build import FinnResult, build_finn, load_result
from srq_hw.backends.finn.choose import FPS_MOST, Wish, choose
from srq_hw.backends.finn.oracle import finn_oracle
from srq_hw.backends.finn.prepare import prepare
from srq_hw.backends.finn.run import run_worker
from srq_hw.backends.handoff import verify_manifest, write_handoff
from srq_hw.backends.rtl.arrange import arrange
from srq_hw.backends.rtl.folding import Goal, fold
from srq_hw.backends.rtl.generate import generate
from srq_hw.errors import InputError, RunError
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.simulate.reference import run
from srq_hw.target import load_target
from srq_hw.tools import find_tool

SIZE = (9, 7)
REPO = Path(__file__).resolve().parents[2]
needs_finn = pytest.mark.skipif(not find_tool("finn").usable, reason="FINN+ is not installed")
pytestmark = [pytest.mark.finn, needs_finn]


def picture(size: tuple[int, int] = SIZE, seed: int = 5) -> np.ndarray:
    """A random image with both ends of the range in it."""
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3))
    image[0, 0], image[-1, -1] = 0, 255
    return image


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> FinnResult:
    """The zoo, built once with sources."""
    return build_finn(zoo(), load_target("zcu104"), SIZE, None, tmp_path_factory.mktemp("zoo") / "finn")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_finn_computes_what_the_reference_computes(built: FinnResult) -> None:
    found = finn_oracle(built, zoo(), picture(), nodewise=True)
    assert (found.mismatches, found.first_node) == (0, "")
    assert found.tensors == len(zoo().nodes)
    assert finn_oracle(built, zoo(), picture(seed=6)).elements == run(zoo(), picture()).size


def test_nothing_was_turned_into_floats(built: FinnResult) -> None:
    ops = {node["op"].rsplit("_", 1)[0] for node in built.nodes}
    assert ops == {"MVAU", "Thresholding", "FMPadding", "ConvolutionInputGenerator", "SrqDuplicate", "SrqOffset",
                   "SrqAdd", "SrqConcat", "SrqPixelShuffle"}  # fmt: skip
    assert built.hls_nodes == () and all(node["op"].endswith("_rtl") for node in built.nodes)
    assert all(node["ours"]["LUT"] > 0 for node in built.nodes), "no unit is free"


@pytest.mark.parametrize("library", ["finn", "srq"])
def test_what_finn_has_no_rtl_for(library: str, tmp_path: Path) -> None:
    """Two libraries, the same integers, no HLS, and a rate that both are folded for."""
    graph = misfits()
    result = build_finn(graph, load_target("zcu104"), SIZE, 500.0, tmp_path / "finn", library=library)
    assert result.library == library and load_result(result.folder).places == result.places
    assert result.hls_nodes == () and result.estimate is not None and result.estimate.fps >= 500
    shares = {place.library for place in result.places}
    assert shares == ({"finn", "srq"} if library == "finn" else {"srq"})
    assert any("ours (" in note and "none is left to the host" in note for note in result.notes)
    for seed in (5, 6):
        found = finn_oracle(result, graph, picture(seed=seed), nodewise=True)
        assert (found.mismatches, found.first_node) == (0, "")
        assert found.tensors == len(result.places)
    for row in result.nodes:
        assert any((result.folder / "sources" / row["name"]).glob("*.v")), row["name"]


@pytest.mark.parametrize("library", ["finn", "srq"])
def test_one_folding_drives_finn_and_our_verilog(library: str, tmp_path: Path) -> None:
    """Lanes that somebody chose, node by node; FINN's default cap of 36 weight bits per PE is none."""
    graph = edsr_graph(16, 1)
    goal = Goal((8, 8), 9 * 8 * 8 * 2)
    target = load_target("zcu104")
    lanes = fold(arrange(graph), goal)
    design = generate(graph, goal.size, goal.cycles, folding=lanes)
    result = build_finn(graph, target, goal.size, None, tmp_path / "f", False, library=library, folding=lanes)
    made = {node.name: node.output[0] for node in onnx.load(result.folder / "dataflow.onnx").graph.node}
    rows = {made[row["name"]]: row for row in result.nodes}
    assert result.estimate is not None  # the wanted cycles are beyond what a convolution of 3 x 3 can do
    assert result.fps_folded_for == pytest.approx(200e6 / result.estimate.cycles_per_frame)
    if library == "srq":
        assert result.estimate.cycles_per_frame == design.cycles == lanes.cycles
    for node in arrange(graph).nodes:
        row, own = rows[node.output], design.folding.nodes[node.name]
        if node.op == "Conv":
            assert (row["pe"], row["simd"]) == own.core == lanes.nodes[node.name].core
            (unit,) = (item for item in design.map["nodes"][node.name] if item["module"] == "srq_conv")
            assert (unit["parameters"]["PE"], unit["parameters"]["SIMD"]) == own.core
        else:
            assert row["pe"] == own.output, node.name
    for row in result.nodes:  # in front of a matrix unit, as wide as it
        if row["op"].startswith(("FMPadding", "ConvolutionInputGenerator")):
            conv = made[row["name"]].split("__")[0]
            assert row["simd"] == lanes.nodes[conv].core[1]
    assert max(row["simd"] * 8 for row in rows.values()) > 36


def test_lanes_that_no_unit_has_are_refused(tmp_path: Path) -> None:
    graph = edsr_graph(8, 1)
    lanes = fold(arrange(graph), Goal((8, 8), 5000))
    odd = replace(lanes, nodes={**lanes.nodes, "head": replace(lanes.nodes["head"], output=5, core=(5, 1))})
    with pytest.raises(InputError, match="folding: head"):
        build_finn(graph, load_target("zcu104"), (8, 8), None, tmp_path / "f", folding=odd)
    assert list(tmp_path.iterdir()) == []


def test_a_build_is_the_search_s_point_and_says_what_else_there_is(built: FinnResult) -> None:
    target = load_target("zcu104")
    assert target.resources is not None and built.estimate is not None
    chosen = choose(Wish(zoo(), SIZE, target.resources, None), prepare(zoo()), "finn")
    assert built.bottleneck == chosen.point.bottleneck
    assert built.estimate.cycles_per_frame == chosen.point.folding.cycles
    assert built.estimate.fits and built.fps_met and built.fps_folded_for == pytest.approx(FPS_MOST, rel=1e-4)
    rates = [row["fps"] for row in built.tradeoff]
    assert rates == sorted(rates) and len(rates) > 3 and any(row["fits"] for row in built.tradeoff)
    finn, srq = built.libraries
    assert (finn["library"], finn["made"], srq["library"], srq["made"]) == ("finn", True, "srq", False)
    assert finn["fps"] == chosen.point.fps and srq["fps"] >= finn["fps"] and finn["lut"] != srq["lut"]


def test_memories_that_were_chosen_are_those_of_sources_and_folding_file(tmp_path: Path) -> None:
    graph = edsr_graph(16, 1, mean_shift=True)
    small = load_target("zcu104")
    assert small.resources is not None
    resources = small.resources.model_copy(update={"lut": 24_000, "bram36": 40})
    small = small.model_copy(update={"resources": resources})
    result = build_finn(graph, small, (8, 8), 2000.0, tmp_path / "finn")
    assert result.estimate is not None and result.estimate.fits
    chosen = json.loads((result.folder / "folding.json").read_text())
    styles = set()
    for row in result.nodes:
        sources, settings = result.folder / "sources" / row["name"], chosen[row["name"]]
        text = "".join(path.read_text() for path in sorted(sources.glob("*v")))
        if row["op"] == "MVAU_rtl":
            styles.add(settings["ram_style"])
            assert f'RAM_STYLE = "{settings["ram_style"]}"' in text
            assert f"parameter\tSIMD = {row['simd']}," in text and f"parameter\tPE = {row['pe']}," in text
        elif row["op"] == "Thresholding_rtl":
            for name in ("bram", "uram"):
                assert settings[f"depth_trigger_{name}"] > 0
                assert f"DEPTH_TRIGGER_{name.upper()} = {settings[f'depth_trigger_{name}']}," in text
        elif row["op"].startswith("ConvolutionInputGenerator"):
            assert f'RAM_STYLE("{settings["ram_style"]}")' in text
    assert styles and styles <= {"block", "distributed"}
    assert any("Memories were chosen" in note for note in result.notes)
    assert finn_oracle(result, graph, picture((8, 8)), nodewise=True).mismatches == 0


def test_a_wrong_threshold_is_found_and_named(built: FinnResult, tmp_path: Path) -> None:
    broken = replace(built, folder=tmp_path)
    model = onnx.load(built.folder / "dataflow.onnx")
    steps = next(item for item in model.graph.initializer if item.name == "tied_q_thresholds")
    values = numpy_helper.to_array(steps).copy()
    values[:, values.shape[1] // 2] = values[:, values.shape[1] // 2 + 1]  # one level is skipped
    steps.CopyFrom(numpy_helper.from_array(values, steps.name))
    onnx.save(model, tmp_path / "dataflow.onnx")
    found = finn_oracle(broken, zoo(), picture(), nodewise=True)
    assert found.mismatches > 0
    assert found.first_node == "tied_q"


def test_the_same_build_gives_the_same_bytes(built: FinnResult, tmp_path: Path) -> None:
    again = build_finn(zoo(), load_target("zcu104"), SIZE, None, tmp_path / "finn", workers=1)
    first, second = tree(built.folder), tree(again.folder)
    del first["finn.log"], second["finn.log"]
    assert first == second
    target = load_target("zcu104")
    bundles = [
        write_handoff(item, zoo(), target, picture(), tmp_path / f"h{i}") for i, item in enumerate((built, again))
    ]
    assert tree(bundles[0]) == tree(bundles[1])


def test_a_build_is_read_back_from_its_folder(built: FinnResult, tmp_path: Path) -> None:
    assert load_result(built.folder) == replace(built, seconds={})
    assert {"model.onnx", "dataflow.onnx", "folding.json"} <= built.files.keys()
    assert all(path.is_file() for path in built.files.values())
    assert not built.folder.with_name("finn.part").exists()
    with pytest.raises(InputError, match="not a FINN build"):
        load_result(tmp_path)


def test_no_path_of_this_machine_leaves(built: FinnResult, tmp_path: Path) -> None:
    bundle = write_handoff(built, zoo(), load_target("zcu104"), picture(), tmp_path / "handoff")
    words = [
        str(built.folder),
        str(built.folder.parent),
        str(REPO),
        sys.prefix,
        "site-packages",
        str(Path.home()) + "/",
    ]
    for name, data in tree(bundle).items():
        for word in words:
            assert word.encode() not in data, (name, word)


def test_sources_are_what_finns_own_step_writes(built: FinnResult, tmp_path: Path) -> None:
    """Our faster hex packing and our folders against PrepareIP, byte by byte."""
    script = f"""
import json, sys
from pathlib import Path
from srq_hw.backends.finn.boot import boot
work = Path({str(tmp_path)!r})
boot(work)
import finn.builder.build_dataflow_steps
import srq_hw.backends.finn.ops
from finn.transformation.fpgadataflow.prepare_ip import PrepareIP
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp
model = ModelWrapper({str(built.folder / "dataflow.onnx")!r})
for node in model.graph.node:
    for name in ("code_gen_dir_ipgen", "ipgen_path", "ip_path"):
        getCustomOp(node).set_nodeattr(name, "")
model = model.transform(PrepareIP({built.part!r}, 5.0))
places = {{node.name: getCustomOp(node).get_nodeattr("code_gen_dir_ipgen") for node in model.graph.node}}
(work / "places.json").write_text(json.dumps(places))
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=REPO)
    places = json.loads((tmp_path / "places.json").read_text())
    assert len(places) == len(built.nodes)
    for node, folder in places.items():
        theirs = {}
        for name, data in tree(Path(folder)).items():
            theirs[name] = data.replace(folder.encode(), f"@SRQ_SOURCES@/{node}".encode())
        ours = tree(built.folder / "sources" / node)
        assert ours.keys() == theirs.keys()
        for name, data in ours.items():
            if b"@SRQ_FINN" not in data:  # FINN's own folder, elsewhere checked
                assert data == theirs[name], (node, name)


def test_bundle_is_whole_and_continues(built: FinnResult, tmp_path: Path) -> None:
    target = load_target("zcu104")
    bundle = write_handoff(built, zoo(), target, picture(), tmp_path / "handoff")
    assert verify_manifest(bundle) == []
    golden = np.load(bundle / "golden" / "output.npy", allow_pickle=False)
    np.testing.assert_array_equal(golden, run(zoo(), picture())[0])
    streams = json.loads((bundle / "streams.json").read_text())
    lines = (bundle / "golden" / "output.hex").read_text().split()
    assert len(lines) == streams["output"]["beats_per_frame"]
    if streams["output"]["lanes"] == 1:
        assert [int(line, 16) for line in lines[:6]] == golden.reshape(-1)[:6].tolist()
    work = tmp_path / "elsewhere"
    command = [sys.executable, str(bundle / "continue_build.py"), "--prepare-only", "--work", str(work)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "finn build" in done.stdout
    assert verify_manifest(bundle) == [], "the bundle itself stays as it is"
    for name, data in tree(work).items():
        assert b"@SRQ_" not in data, name
    model = onnx.load(work / "dataflow.onnx")
    for node in model.graph.node:
        folder = next(item.s.decode() for item in node.attribute if item.name == "code_gen_dir_ipgen")
        assert Path(folder).is_dir() and Path(folder).is_relative_to(work)
    check = (
        "from pathlib import Path; from srq_hw.backends.finn.boot import boot\n"
        f"boot(Path({str(tmp_path)!r}))\n"
        "from finn.builder.build_dataflow import resolve_build_steps\n"
        "from finn.builder.build_dataflow_config import DataflowBuildConfig\n"
        f"c = DataflowBuildConfig.construct_from(Path({str(work / 'build.yaml')!r}))\n"
        "print([s.__name__ for s in resolve_build_steps(c)], c.board, c.synth_clk_period_ns)"
    )
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True, cwd=REPO)
    assert "'step_hw_ipgen', 'step_set_fifo_depths', 'step_create_stitched_ip'" in done.stdout
    assert "ZCU104 5.0" in done.stdout
    (bundle / "golden" / "input.npy").write_bytes(b"")
    command[-1] = str(tmp_path / "third")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "golden/input.npy was changed" in done.stderr


def test_a_rate_that_does_not_fit_is_lowered_and_said(tmp_path: Path) -> None:
    """KV260_SOM is FINN's name of the board; a small part of it makes the design too big at the wanted rate."""
    target = load_target("kv260")
    small = target.model_copy(update={"resources": target.resources.model_copy(update={"lut": 22_000})})
    result = build_finn(edsr_graph(8, 1), small, (32, 32), 20_000.0, tmp_path / "finn", codegen=False)
    assert result.board == "KV260_SOM" and result.estimate is not None
    assert result.estimate.fits and result.fps_folded_for < 20_000 and not result.fps_met
    assert any("20000 fps" in note for note in result.notes)
    assert result.estimate.fps == pytest.approx(result.fps_folded_for)
    assert not (tmp_path / "finn" / "sources").exists()


def test_power_of_two_ties_on_the_smallest_dsp(tmp_path: Path) -> None:
    graph = tied_pow2()
    result = build_finn(graph, load_target("pynq-z2"), (8, 6), 100.0, tmp_path / "finn", codegen=False)
    assert result.fps_met and result.estimate is not None and result.estimate.fits
    found = finn_oracle(result, graph, picture((8, 6)), nodewise=True)
    assert (found.mismatches, found.tensors) == (0, 4)
    with pytest.raises(InputError, match=r"built for \(8, 6\)"):
        finn_oracle(result, graph, picture((6, 8)))


def test_a_failing_step_is_named_with_finns_words(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2, 2, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Hardmax", ["x"], ["y"], name="odd")], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "model.onnx")
    tied_pow2().save(tmp_path / "prepared.json")
    job = {
        "kind": "build",
        "model": "model.onnx",
        "graph": "prepared.json",
        "lanes": "lanes.json",
        "device": vars(build_module.device_of(load_target("zcu104"))),
        "codegen": False,
        "workers": 1,
    }
    with pytest.raises(RunError) as caught:
        run_worker(job, tmp_path)
    text = str(caught.value)
    assert "no FINN unit for odd" in text and "step map failed" in text and "finn.log" in text
    saved = text.split("Model before the step: ")[1].split(".onnx")[0] + ".onnx"
    assert Path(saved).is_file()


def test_without_finn_the_result_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = replace(find_tool("finn"), found=False, problem="not found")
    monkeypatch.setattr(build_module, "find_tool", lambda name: missing)
    result = build_finn(tied_pow2(), load_target("zcu104"), SIZE, None, tmp_path / "finn")
    assert result.status == "not run" and not result.built
    assert "pip install --no-deps finn-plus" in result.reason
    assert not (tmp_path / "finn").exists()
    with pytest.raises(InputError, match="not run"):
        finn_oracle(result, tied_pow2(), picture())


def test_a_senseless_rate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fps: 0"):
        build_finn(tied_pow2(), load_target("zcu104"), SIZE, 0.0, tmp_path)


def test_what_goes_wrong_while_finn_starts_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="input size 0x4"):
        build_finn(tied_pow2(), load_target("zcu104"), (0, 4), None, tmp_path / "finn")
    with pytest.raises(InputError, match="--library 'hls': wanted finn or srq"):
        build_finn(tied_pow2(), load_target("zcu104"), SIZE, None, tmp_path / "finn", library="hls")
    assert list(tmp_path.iterdir()) == []
