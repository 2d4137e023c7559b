"""Golden vectors of a hand-off bundle against a plain-Python model, FINN's execution and the command line, same tile.

Two tiny networks through the whole chain into FINN: half_up with multipliers and a PReLU, half_up on shifts only.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from srq_hw import cli
from srq_hw.backends.finn.build import FinnResult, build_finn
from srq_hw.backends.finn.oracle import finn_oracle
from srq_hw.backends.handoff import verify_manifest, write_handoff
from srq_hw.evaluate.images import read_rgb, write_png
from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import lower
from srq_hw.exchange.qonnx_export import export_qonnx
from srq_hw.graph.ir import IntGraph
from srq_hw.oracles.qonnx import qonnx_oracle
from srq_hw.simulate import reference
from srq_hw.target import Target
from srq_hw.tools import find_tool
from tests.quantize.nets import Forward, conv, image, pow2_target, target
from tests.quantize.test_freeze import assert_equal, frozen_net
from tests.support import plain_model

SIZE = (8, 9)
RULES = ["dyadic", "pow2"]


def module(with_slope: bool) -> nn.Module:
    """Mean shift, concat, residual sum, an inner and a last shuffle."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        h = m.head(x - torch.tensor([114.0, 111.0, 103.0]).reshape(1, 3, 1, 1))
        y = m.act(m.c1(h))
        z = m.c2(torch.cat([h, y], 1)) + h
        s = F.pixel_shuffle(m.up(z), 2)
        return F.pixel_shuffle(m.last(torch.relu(s)) + 110.0, 2)

    parts = {"c1": conv(4, 4), "c2": conv(8, 4, 1), "up": conv(4, 8), "last": conv(2, 12)}
    return Forward(forward, head=conv(3, 4), act=nn.PReLU(4) if with_slope else nn.ReLU(), **parts)


@dataclass(frozen=True)
class Case:
    """One network on one target, its file and its integer graph."""

    aim: Target
    graph: IntGraph
    pixels: np.ndarray


def case(rule: str) -> Case:
    """The chain up to the graph, every link checked on the way."""
    aim = pow2_target("half_up") if rule == "pow2" else target(**{"requant.rounding": "half_up"})
    frozen, model = frozen_net(module(rule == "dyadic"), aim, 4, 3)
    file = export_qonnx(frozen, aim, SIZE)
    graph = lower(file, aim)
    assert graph.content_sha256 == to_intgraph(frozen).content_sha256
    assert assert_equal(frozen, model, graph) > 0
    pixels = image(8, *SIZE)
    found = qonnx_oracle(file, graph, pixels)
    assert found.mismatches == 0 and found.elements > 0
    return Case(aim, graph, pixels)


@pytest.mark.parametrize("rule", RULES)
def test_the_reference_is_the_plain_model(rule: str) -> None:
    found = case(rule)
    data = json.loads(found.graph.to_json())
    wanted = plain_model.run(data, found.pixels.tolist())
    assert np.array_equal(np.array(wanted), reference.run(found.graph, found.pixels)[0])
    assert {"Conv", "Requant", "Offset", "Add", "Concat", "DepthToSpace"} == {node["op"] for node in data["nodes"]}


@dataclass(frozen=True)
class Bundle:
    """A case built by FINN and its hand-off folder."""

    case: Case
    result: FinnResult
    folder: Path


@pytest.fixture(scope="module", params=RULES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    if not find_tool("finn").usable:
        pytest.skip("FINN+ is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    found = case(request.param)
    result = build_finn(found.graph, found.aim, SIZE, None, folder / "finn", codegen=False)
    return Bundle(found, result, write_handoff(result, found.graph, found.aim, found.pixels, folder / "handoff"))


@pytest.mark.finn
def test_golden_vectors_are_what_plain_python_makes_of_the_bundle(bundle: Bundle) -> None:
    graph = json.loads((bundle.folder / "graph.json").read_text())
    streams = json.loads((bundle.folder / "streams.json").read_text())
    arrays = {side: np.load(bundle.folder / f"golden/{side}.npy", allow_pickle=False) for side in streams}
    images = {
        side: plain_model.beats_to_image((bundle.folder / f"golden/{side}.hex").read_text(), streams[side])
        for side in streams
    }
    assert images["input"] == arrays["input"].tolist() == bundle.case.pixels.tolist()
    assert images["output"] == arrays["output"].tolist() == plain_model.run(graph, images["input"])
    assert arrays["output"].shape == (SIZE[0] * 4, SIZE[1] * 4, 3) and np.ptp(arrays["output"]) > 0
    build = json.loads((bundle.folder / "build.json").read_text())
    assert build["graph_sha256"] == graph["content_sha256"] == bundle.case.graph.content_sha256


@pytest.mark.finn
def test_finn_agrees_node_by_node_on_the_same_tile(bundle: Bundle) -> None:
    found = finn_oracle(bundle.result, bundle.case.graph, bundle.case.pixels, nodewise=True)
    assert (found.mismatches, found.first_node) == (0, "")
    assert found.tensors == len(bundle.case.graph.nodes)


@pytest.mark.finn
@pytest.mark.parametrize("options", [(), ("--reference",), ("--tile", "3")])
def test_the_command_line_makes_the_golden_image(bundle: Bundle, options: tuple[str, ...], tmp_path: Path) -> None:
    golden = {side: np.load(bundle.folder / f"golden/{side}.npy", allow_pickle=False) for side in ("input", "output")}
    write_png(tmp_path / "in.png", golden["input"])
    arguments = ["simulate", str(bundle.folder), str(tmp_path / "in.png"), "--out", str(tmp_path / "out.png"), *options]
    assert cli.run(arguments) == 0
    assert np.array_equal(read_rgb(tmp_path / "out.png"), golden["output"])


@pytest.mark.finn
def test_one_flipped_bit_anywhere_is_named(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.folder, copy)
    assert verify_manifest(copy) == []
    files = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.name != "MANIFEST.sha256"]
    assert len(files) > 8
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert verify_manifest(copy) == [f"{path.relative_to(copy).as_posix()} was changed"]
        path.write_bytes(data)
    manifest = copy / "MANIFEST.sha256"
    text = manifest.read_text()
    manifest.write_text(text.replace(text[:8], "00000000", 1))
    assert len(verify_manifest(copy)) == 1


@pytest.mark.finn
def test_the_same_bytes_twice_and_no_path_of_this_machine(bundle: Bundle, tmp_path: Path) -> None:
    again = write_handoff(bundle.result, bundle.case.graph, bundle.case.aim, bundle.case.pixels, tmp_path / "again")
    first, second = (
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (bundle.folder, again)
    )
    assert first == second
    here = (str(bundle.folder.parent), sys.prefix, "site-packages", str(Path.home()) + "/", "/tmp/")
    assert [(name, word) for name, data in first.items() for word in here if word.encode() in data] == []
