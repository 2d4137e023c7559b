"""FINN's generated sources in Verilator against the reference, whole networks, and that a wrong weight is found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from finn_nets import Net
from onnx import numpy_helper

from srq_hw.backends.finn import stitched_sources
from srq_hw.backends.finn.build import FinnResult, build_finn
from srq_hw.backends.finn.choose import Wish, search_of
from srq_hw.backends.finn.prepare import prepare
from srq_hw.backends.finn.relocate import finn_package
from srq_hw.backends.finn.stitched import simulate_stitched, stitch
from srq_hw.backends.finn.stitched_sources import LIBRARIES, PATCHES, RTLLIB
from srq_hw.backends.finn.stitched_units import matrix_of, read_units
from srq_hw.backends.rtl.arrange import arrange
from srq_hw.backends.rtl.folding import Goal, fold
from srq_hw.backends.rtl.toolchain import find_verilator
from srq_hw.errors import InputError, RunError
from srq_hw.graph.ir import IntGraph
from srq_hw.target import load_target
from srq_hw.tools import find_tool

SIZE = (5, 6)
#: several lanes in the matrix units, with converters between
CYCLES = 6500
CASES = [("finn", 8), ("finn", 4), ("srq", 8), ("srq", 4)]
needs_finn = pytest.mark.skipif(not find_tool("finn").usable, reason="FINN+ is not installed")
pytestmark = [pytest.mark.finn, needs_finn]


def net(bits: int) -> IntGraph:
    """Convolutions with PReLU and ReLU, a residual, a 1x1 and a pixel shuffle, all of so many bits but the image."""
    made = Net(4)
    b = made.build
    head = made.quantized("image", 8, "head", bits=bits, weight_bits=bits)
    y = made.quantized(head, 8, "prelu", bits=bits, weight_bits=bits, slope=3)
    y = made.halved_add(made.quantized(y, 8, "body", bits=bits, weight_bits=bits), head, "skip", bits=bits)
    y = made.quantized(y, 8, "relu", kernel=(1, 1), bits=bits, weight_bits=bits, signed=False)
    y = made.quantized(y, 12, "last", weight_bits=bits, signed=False)
    return b.finish(b.depth_to_space(y, 2, "shuffle"), "tiny")


def images(count: int = 3) -> np.ndarray:
    """Random frames with both ends of the range."""
    found = np.random.default_rng(7).integers(0, 256, (count, *SIZE, 3))
    found[:, 0, 0], found[:, -1, -1] = 0, 255
    return found


@pytest.fixture(scope="module")
def models() -> Path:
    """Folder of compiled models, kept between runs."""
    for name in ("verilator", "g++"):
        status = find_tool(name)
        if not status.usable:
            pytest.skip(f"{name}: {status.problem}; {status.get}")
    return Path(os.environ["SRQ_CACHE"]) / "srq-hw" / "rtl"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], FinnResult]:
    """A build of the network in a library at a width, each made once."""
    made: dict[tuple[str, int], FinnResult] = {}

    def build(library: str, bits: int) -> FinnResult:
        if (library, bits) not in made:
            folder = tmp_path_factory.mktemp("stitched") / "finn"
            lanes = fold(arrange(net(8)), Goal(SIZE, CYCLES))  # 4 bits would choose PE alone
            board = load_target("zcu104")
            made[library, bits] = build_finn(net(bits), board, SIZE, None, folder, library=library, folding=lanes)
        return made[library, bits]

    return build


def copied(result: FinnResult, folder: Path) -> FinnResult:
    """The same build in a folder whose files may be changed."""
    shutil.copytree(result.folder, folder)
    return replace(result, folder=folder)


def change(path: Path, line: int) -> None:
    """Flip the sign of the first 8-bit value of a word in a memory file."""
    lines = path.read_text().split()
    lines[line] = f"{int(lines[line], 16) ^ 0x80:0{len(lines[line])}x}"
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("library", "bits"), CASES)
def test_generated_sources_compute_the_network(
    built: Callable[[str, int], FinnResult], models: Path, library: str, bits: int
) -> None:
    result = built(library, bits)
    found = simulate_stitched(result, net(bits), images(), models)
    assert (found.mismatches, found.first, found.passed) == (0, None, True)
    assert found.elements == (3 + 2 + 2) * 4 * SIZE[0] * SIZE[1] * 3 and len(found.runs) == 3
    assert [node.name for node in found.nodes] == [row["name"] for row in result.nodes]
    assert result.estimate is not None and found.ideal == result.estimate.cycles_per_frame
    assert found.ideal <= found.cycles_per_frame <= 1.02 * found.ideal
    for node in found.nodes:
        wanted = "srq" if node.op.startswith("Srq") else "patched" if node.op == "MVAU_rtl" else "finn"
        assert node.origin == wanted and bool(node.reason) == (wanted == "patched"), node
    assert found.origins.keys() == ({"srq"} if library == "srq" else {"finn", "patched", "srq"})
    assert any(depth > 2 * SIZE[1] for depth in found.fifos.values()), "the skip waits for two rows"
    assert found.converters


@pytest.mark.parametrize(
    ("library", "matrix", "pattern"),
    [
        ("finn", "finn", "MVAU_rtl_1/memblock.dat"),
        ("finn", "srq", "MVAU_rtl_1/memblock.dat"),
        ("finn", "srq", "Thresholding_rtl_2/*_threshs_0_0.dat"),
        ("srq", "finn", "SrqConv_rtl_1/*.weights.hex"),
    ],
)
def test_one_changed_word_is_found(
    built: Callable[[str, int], FinnResult],
    models: Path,
    tmp_path: Path,
    library: str,
    matrix: Literal["finn", "srq"],
    pattern: str,
) -> None:
    """The compiled model is that of the unchanged sources: memories are read when a run starts."""
    broken = copied(built(library, 8), tmp_path / "finn")
    (path,) = (broken.folder / "sources").glob(pattern)
    if "threshs" in pattern:
        path.write_text("".join(f"{0:0{len(line)}x}\n" for line in path.read_text().split()))
    else:
        change(path, 5)
    found = simulate_stitched(broken, net(8), images(2), models, matrix=matrix)
    assert found.mismatches > 0 and not found.passed
    assert found.first is not None and found.first.startswith("free: frame 0, y ")


def test_our_matrix_units_stand_in(built: Callable[[str, int], FinnResult], models: Path) -> None:
    found = simulate_stitched(built("finn", 8), net(8), images(), models, matrix="srq")
    assert found.passed and found.cycles_per_frame <= 1.02 * found.ideal
    assert found.origins["stand-in"] == 5 and "patched" not in found.origins
    assert {node.reason for node in found.nodes if node.origin == "stand-in"} == {"our matrix unit was asked for"}


def test_matrix_units_across_taps(models: Path, tmp_path: Path) -> None:
    """SIMD of several taps behind a window of fewer lanes, which it is a multiple of, and of lanes that it is not."""
    made = Net(6, channels=4)
    graph = made.build.finish(made.quantized(made.quantized("image", 6, "first"), 2, "second"), "taps")
    board = load_target("zcu104")
    assert board.resources is not None
    problem = search_of(Wish(graph, SIZE, board.resources, None), "finn", prepare(graph)).problem
    picks = problem.ruled(1000)
    for index, variable in enumerate(problem.variables):
        cores = {"first": (4, (1, 12)), "second": (6, (1, 9))}.get(variable.name)
        if cores:
            picks[index] = next(i for i, o in enumerate(variable.options) if (o.inputs[0], o.core) == cores)
    folding = problem.folding(picks, 1000)
    result = build_finn(graph, board, SIZE, None, tmp_path / "finn", library="finn", folding=folding)
    units = {row["name"]: (row["pe"], row["simd"]) for row in result.nodes}
    assert units["ConvolutionInputGenerator_rtl_0"] == (1, 4) and units["MVAU_rtl_0"] == (1, 12)
    assert units["ConvolutionInputGenerator_rtl_1"] == (1, 6) and units["MVAU_rtl_1"] == (1, 9)
    assert result.estimate is not None and result.estimate.cycles_per_frame == folding.cycles
    found = simulate_stitched(result, graph, np.random.default_rng(7).integers(0, 256, (3, *SIZE, 4)), models)
    assert (found.mismatches, found.first, found.passed) == (0, None, True)
    assert found.ideal <= found.cycles_per_frame <= 1.02 * found.ideal


@pytest.mark.parametrize("bits", [8, 4])
def test_weight_files_hold_the_graphs_matrices(built: Callable[[str, int], FinnResult], bits: int) -> None:
    result = built("finn", bits)
    model = onnx.load(result.folder / "dataflow.onnx")
    held = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    units = [unit for unit in read_units(result.folder / "dataflow.onnx").units if unit.kind == "MVAU"]
    assert len(units) == 5 and any(unit.inputs[0].lanes > 1 for unit in units)
    for unit in units:
        words = (result.folder / "sources" / unit.name / "memblock.dat").read_text()
        np.testing.assert_array_equal(matrix_of(unit, words), held[nodes[unit.name].input[1]].T)
        with pytest.raises(RunError, match=f"{unit.name}: .* words"):
            matrix_of(unit, words.split("\n", 1)[1])


def test_verilator_needs_every_patch(tmp_path: Path, models: Path) -> None:
    """A patch that is needed no longer has to go; and what it makes is accepted."""
    root = Path(finn_package()) / RTLLIB
    top = "module t; reg [7:0] a [4]; wire [9:0] s; add_multi #(.N(4), .DEPTH(2), .ARG_WIDTH(8)) u "
    (tmp_path / "t.sv").write_text(top + "(.clk(1'b0), .rst(1'b0), .en(1'b1), .arg(a), .sum(s)); endmodule\n")
    for patch in PATCHES:
        assert any(patch.file in files for files in LIBRARIES.values())
        (tmp_path / "patched.sv").write_text(str(patch.apply((root / patch.file).read_text())))
        rest: list[str | Path] = [
            "--lint-only",
            "-Wno-fatal",
            "--top-module",
            "t",
            root / "mvu/mvu_pkg.sv",
            tmp_path / "t.sv",
        ]
        assert find_verilator().run([*rest, root / patch.file], tmp_path).returncode != 0
        assert find_verilator().run([*rest, tmp_path / "patched.sv"], tmp_path).returncode == 0
        assert patch.apply("module add_multi; endmodule") is None


def test_another_library_gets_stand_ins(
    built: Callable[[str, int], FinnResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    misfit = replace(PATCHES[0], apply=lambda text: None)
    monkeypatch.setattr(stitched_sources, "PATCHES", (misfit,))
    units = stitch(built("finn", 8)).sources.units
    stands = [unit for unit in units if unit.origin == "stand-in"]
    assert stands and all("mvu/add_multi.sv is not the file" in unit.reason for unit in stands)
    assert all(unit.origin == "finn" for unit in units if unit.kind == "MVAU" and unit not in stands)


def test_bad_input(built: Callable[[str, int], FinnResult], models: Path, tmp_path: Path) -> None:
    result = built("finn", 8)
    with pytest.raises(InputError, match=r"images of shape \(3, 5, 5, 3\)"):
        simulate_stitched(result, net(8), images()[:, :, :5], models)
    with pytest.raises(InputError, match="2 or more"):
        simulate_stitched(result, net(8), images(1), models)
    with pytest.raises(InputError, match="the build was not run"):
        stitch(FinnResult("not run", "no FINN"))
    broken = copied(result, tmp_path / "finn")
    (broken.folder / "sources" / "MVAU_rtl_2" / "memblock.dat").unlink()
    for stitched in (stitch, lambda result: stitch(result, "srq")):
        with pytest.raises(RunError, match=r"MVAU_rtl_2.*memblock\.dat: missing"):
            stitched(broken)
    shutil.rmtree(broken.folder / "sources" / "FMPadding_rtl_0")
    with pytest.raises(RunError, match="FMPadding_rtl_0: no generated sources"):
        stitch(broken)
    shutil.rmtree(broken.folder / "sources")
    with pytest.raises(InputError, match="code generation"):
        stitch(broken)
    model = onnx.load(broken.folder / "dataflow.onnx")
    model.graph.node[0].op_type = "FMPadding_hls"
    onnx.save(model, broken.folder / "dataflow.onnx")
    with pytest.raises(RunError, match="a FMPadding_hls cannot be stitched"):
        stitch(broken)
