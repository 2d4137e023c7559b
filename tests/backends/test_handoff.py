"""Stream packing and the manifest of a hand-off bundle (the bundle itself: test_finn_build.py)."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

import srq_hw
from srq_hw.backends.finn.build import FinnResult
from srq_hw.backends.finn.placement import Place
from srq_hw.backends.handoff import continue_build, verify_manifest, write_handoff
from srq_hw.backends.handoff.manifest import write_manifest
from srq_hw.backends.handoff.vectors import Stream, from_hex, stream_of, to_hex
from srq_hw.backends.handoff.verification import NODES, PYTHON, SETTINGS, STITCHED, verify_steps
from srq_hw.backends.rtl.verilate import LIBRARY
from srq_hw.errors import InputError
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph
from srq_hw.target import load_target


def side(channels: int, lanes: int, dtype: str, bits: int) -> Stream:
    """A stream of 2 x 3 pixels."""
    return stream_of(
        {
            "node": "n",
            "shape": [1, 2, 3, channels],
            "folded_shape": [1, 2, 3, channels // lanes, lanes],
            "dtype": dtype,
            "bits": bits * lanes,
        }
    )


def test_a_beat_holds_its_lanes_from_the_low_end() -> None:
    stream = side(4, 2, "INT9", 9)
    assert (stream.beats_per_pixel, stream.data_bits, stream.tdata_bits, stream.beats_per_frame) == (2, 18, 24, 12)
    values = np.zeros((2, 3, 4), np.int64)
    values[0, 0] = [-1, 3, -256, 255]
    text = to_hex(values, stream).splitlines()
    assert text[:2] == [f"{3 << 9 | 0x1FF:06x}", f"{0xFF << 9 | 0x100:06x}"]
    assert len(text) == 12


@pytest.mark.parametrize(
    ("dtype", "bits", "lo", "hi"), [("UINT8", 8, 0, 255), ("INT9", 9, -256, 255), ("INT4", 4, -8, 7)]
)
@pytest.mark.parametrize("lanes", [1, 3])
def test_hex_and_back(dtype: str, bits: int, lo: int, hi: int, lanes: int) -> None:
    stream = side(3, lanes, dtype, bits)
    values = np.random.default_rng(0).integers(lo, hi + 1, (2, 3, 3))
    assert np.array_equal(np.array(from_hex(to_hex(values, stream), stream)).reshape(values.shape), values)


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="outside UINT8"):
        to_hex(np.full((2, 3, 3), 256), side(3, 1, "UINT8", 8))
    with pytest.raises(ValueError, match="the stream carries"):
        to_hex(np.zeros((3, 2, 3), np.int64), side(3, 1, "UINT8", 8))


def test_manifest_finds_what_changed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a", "b", "sub/c"):
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path)
    assert verify_manifest(tmp_path) == []
    (tmp_path / "a").write_text("other")
    (tmp_path / "b").unlink()
    (tmp_path / "sub/new").write_text("")
    assert verify_manifest(tmp_path) == ["a was changed", "b is missing", "sub/new is not listed"]
    (tmp_path / "MANIFEST.sha256").unlink()
    assert verify_manifest(tmp_path) == ["MANIFEST.sha256 is missing"]


def test_no_bundle_without_a_build(tmp_path: Path) -> None:
    result = FinnResult("not run", "finn is not installed")
    with pytest.raises(InputError, match="finn is not installed"):
        write_handoff(result, edsr_graph(4, 1), load_target("zcu104"), np.zeros((4, 4, 3), int), tmp_path / "handoff")
    assert not (tmp_path / "handoff").exists()


# --- what FINN verifies in a continued build -----------------------------------------------------------------------


def placed(graph: IntGraph, size: tuple[int, int] = (8, 8), library: str = "finn") -> FinnResult:
    """A result that says who computes the nodes; nothing was built."""
    places = tuple(Place(node.name, node.op, library) for node in graph.nodes)  # type: ignore[arg-type]
    return FinnResult("built", size=size, places=places)


def test_tolerances_are_zero() -> None:
    assert {key: value for key, value in SETTINGS.items() if key.startswith("verification_")} == {
        f"verification_{mean}{kind}": 0.0 for mean in ("", "mean_") for kind in ("atol", "rtol")
    }


def test_small_designs_are_verified_in_python() -> None:
    graph = edsr_graph(16, 2)
    assert verify_steps(placed(graph), graph) == ((PYTHON, STITCHED), "")
    steps, why = verify_steps(placed(graph, (1080, 1920)), graph)
    assert steps == (STITCHED,) and "1080 x 1920" in why


@pytest.mark.parametrize(("weight", "exact"), [(127, True), (128, False)])
def test_sums_that_float32_rounds_are_left_to_the_design(weight: int, exact: bool) -> None:
    """1,032 products of 8 bits: 1032 * 127 * 128 is below 2**24, with 128 above it. Ours execute on integers."""
    build = GraphBuilder(1032, 8, True)
    build.conv("image", np.full((1, 1032, 1, 1), -weight), np.zeros(1, int), "sum")
    graph = build.finish("sum", "g")
    steps, why = verify_steps(placed(graph), graph)
    assert (PYTHON in steps, "sum" in why) == (exact, not exact)
    assert verify_steps(placed(graph, library="srq"), graph)[0] == (PYTHON, STITCHED)


def test_what_finn_verified_is_read_from_its_files(tmp_path: Path) -> None:
    """FINN notes a difference in a file's name and goes on."""
    folder = tmp_path / "verification_output"
    folder.mkdir()
    problems = continue_build.verification_problems
    assert problems(tmp_path, []) == []
    assert problems(tmp_path, [NODES]) == [f"{NODES}: did not run"]
    (folder / f"verify_{NODES}_0_nodewise.txt").write_text("")
    assert problems(tmp_path, [NODES]) == [f"{NODES}: did not run"]
    (folder / f"verify_{NODES}_0_SUCCESS.npy").write_text("")
    (folder / f"verify_{STITCHED}_0_FAIL.npy").write_text("")
    (wrong,) = problems(tmp_path, [NODES, STITCHED])
    assert wrong.startswith(f"{STITCHED}: the output is not golden/output.npy")
    (folder / f"verify_{NODES}_1_FAIL.npy").write_text("")
    assert len(problems(tmp_path, [NODES, STITCHED])) == 2


def test_versions_are_those_of_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = {"finn_plus": "1.6.1", "srq_hw": srq_hw.__version__}
    build["srq_rtl_sha256"] = continue_build.library_digest(LIBRARY)
    monkeypatch.setattr(continue_build, "version", lambda name: "1.6.1")
    assert continue_build.version_problems(build) == []
    assert "needs 1.7.0" in continue_build.version_problems(build | {"finn_plus": "1.7.0"})[0]
    assert "this bundle needs 9.9" in continue_build.version_problems(build | {"srq_hw": "9.9"})[0]
    (changed,) = continue_build.version_problems(build | {"srq_rtl_sha256": "0" * 64})
    assert "Verilog of the installed srq-hw is not that" in changed
    monkeypatch.setattr(continue_build, "find_spec", lambda name: None)
    assert "srq-hw is not installed" in continue_build.version_problems(build)[0]

    def missing(name: str) -> str:
        raise continue_build.PackageNotFoundError(name)

    monkeypatch.setattr(continue_build, "version", missing)
    assert "finn-plus 1.6.1" in continue_build.version_problems(build)[0]


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.v").write_text("x")
    first = continue_build.library_digest(tmp_path)
    (tmp_path / "a.v").rename(tmp_path / "b.v")
    second = continue_build.library_digest(tmp_path)
    (tmp_path / "b.v").write_text("y")
    assert len({first, second, continue_build.library_digest(tmp_path)}) == 3


def test_verifications_are_asked_for_by_name() -> None:
    assert continue_build._verifications("none") == []
    assert continue_build._verifications("nodes,stitched") == [NODES, STITCHED]
    with pytest.raises(argparse.ArgumentTypeError, match="'cppsim'; allowed: none, or of python, nodes, stitched"):
        continue_build._verifications("python,cppsim")
