"""scripts/bench_quality.py with peers made for the test: scoring, resuming, failures as rows. Nothing is downloaded."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from srq_hw.errors import InputError, RunError
from srq_hw.evaluate.datasets import iter_pairs
from srq_hw.evaluate.demo import demo_images
from srq_hw.evaluate.images import read_rgb, write_png
from srq_hw.evaluate.metrics import psnr_y
from srq_hw.networks.bicubic import BicubicUpsample
from srq_hw.networks.loading import load_network, run_float

REPO = Path(__file__).parents[1]
NETWORK = "srq_edsr4_24_x2"
SCALE = 2

# A peer of this test. It appends to a log how often it ran; the rest of what it does is its variant.
WORKER = """
import os
import numpy as np
import onnxruntime
from pathlib import Path
from scripts.peers.exchange import Quantized, main

def quantize(job):
    with (Path(__file__).parent / "log.txt").open("a") as log:
        log.write(job.variant + "\\n")
    found = onnxruntime.InferenceSession(str(job.model))
    name = found.get_inputs()[0].name
    def whole(x):
        return found.run(None, {name: x})[0]
    def nearest(x):
        return x.repeat(2, axis=2).repeat(2, axis=3)
    if job.variant == "crash":
        raise ValueError("no such luck\\nsecond line")
    if job.variant == "dead":
        os._exit(7)
    if job.variant == "strange float":
        return Quantized(whole, lambda x: whole(x) + 1.0, {})
    chosen = {
        "float": whole,
        "nearest": nearest,
        "nan": lambda x: whole(x) * np.nan,
        "small": lambda x: whole(x)[:, :, 2:],
    }
    note = f"{len(job.patches)} patches {sorted({patch.shape for patch in job.patches})}, keep {list(job.keep)}"
    return Quantized(chosen[job.variant], whole, {"Conv": (3, 4)}, note)

main(quantize, ("numpy",))
"""


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPO / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


bench_quality = _script("bench_quality")
from scripts.peers import catalogue, cells, environments, export, material, onnx_to_torch, run_pow2  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: a set of two small images, one of which repeats, and a folder to calibrate on."""
    folder: Path = tmp_path_factory.mktemp("data")
    picture = demo_images()[0].rgb
    for name, top, count in (("Tiny", 40, 2), ("More", 200, 2)):
        (folder / name).mkdir()
        for index in range(count):
            cut = picture[top : top + 49, 100 + 60 * index : 160 + 60 * index]
            write_png(folder / name / f"{index}.png", np.ascontiguousarray(cut))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as ONNX; torch's exporter takes seconds."""
    path: Path = tmp_path_factory.mktemp("exported") / "float.onnx"
    export.export_onnx(NETWORK, load_network(NETWORK).module, 3, path)
    return path


@pytest.fixture
def peer(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes a peer of the test's worker; its environment is the one that runs the tests."""
    worker = tmp_path / "worker" / "run_test.py"
    worker.parent.mkdir()
    worker.write_text(WORKER)
    requirements = tmp_path / "worker" / "requirements.txt"
    requirements.write_text("numpy==0\n")
    monkeypatch.setattr(cells, "ensure", lambda name, requirements, root: Path(sys.executable))
    monkeypatch.setattr(material, "export_onnx", lambda name, module, channels, path: shutil.copy(exported, path))
    monkeypatch.setattr(catalogue.Peer, "requirements", requirements)

    def make(*variants: str, settings: tuple[Any, ...] = (catalogue.W8A8,), **changes: Any) -> Any:
        return catalogue.Peer("test", "a peer", worker, "test", variants, settings, "nothing", **changes)

    make.log = worker.parent / "log.txt"  # type: ignore[attr-defined]
    return make


def _run(
    data: Path, out: Path, peers: list[Any], bits: tuple[int, ...] = (8,), limit: int | None = None, **changes: Any
) -> Any:
    bench = cells.Bench(out, out / "environments", data / "weights", 1, 60.0, False)
    calibration = bench_quality.Calibration((data / "More",), 3, 16, 5)
    settings = dataclasses.replace(bench, **changes)
    return bench_quality.run([NETWORK], peers, bits, data, ["Tiny"], calibration, settings, limit)


def test_scores_are_those_of_the_project(
    data: Path, tmp_path: Path, peer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a worker runs in a folder of its own: relative paths must hold, too
    out = Path("out")
    found = _run(data, out, [peer("float", "nearest")])
    net, pairs = load_network(NETWORK), list(iter_pairs(data / "Tiny", SCALE))
    floats = fmean(psnr_y(run_float(net, pair.lr), pair.hr, SCALE) for pair in pairs)
    nearest = fmean(psnr_y(pair.lr.repeat(2, axis=0).repeat(2, axis=1), pair.hr, SCALE) for pair in pairs)
    assert found.baselines[0].float_psnr == floats
    whole, blocks = found.rows()
    assert abs(whole["loss"]) < 0.01  # onnxruntime's float sums in another order: a pixel may round otherwise
    assert blocks["psnr"] == nearest
    assert blocks["loss"] == floats - nearest > 1.0
    assert blocks["layers"] == {"Conv": [3, 4]} and set(blocks["versions"]) == {"numpy"}
    assert whole["float_difference"] < 0.01
    assert blocks["note"] == "3 patches [(1, 3, 16, 16)], keep []"

    table = json.loads((out / "quality.json").read_text())
    assert [row["psnr"] for row in table["cells"]] == [whole["psnr"], nearest]
    rows = list(csv.DictReader((out / "quality.csv").read_text().splitlines()))
    assert [row["variant"] for row in rows] == ["float", "nearest"] and rows[1]["layers"] == "Conv=3/4"
    assert f"{floats - nearest:.3f}" in (out / "quality.md").read_text()
    # the patches lie there for srq-hw, too
    with np.load(out / "networks" / NETWORK / "calibration.npz") as arrays:
        patch = np.rint(arrays["patch0001"][0].transpose(1, 2, 0) * 255)
    assert np.array_equal(patch, read_rgb(out / "networks" / NETWORK / "patches" / "0001.png"))


def test_finished_cells_are_not_run_again(data: Path, tmp_path: Path, peer: Callable[..., Any]) -> None:
    out, peers = tmp_path / "out", [peer("nearest", "crash")]
    first = _run(data, out, peers)
    assert peer.log.read_text().split() == ["nearest", "crash"]  # type: ignore[attr-defined]
    assert _run(data, out, peers).cells == first.cells
    assert peer.log.read_text().split() == ["nearest", "crash"]  # type: ignore[attr-defined]
    _run(data, out, peers, retry=True)
    assert peer.log.read_text().split()[2:] == ["crash"]  # type: ignore[attr-defined]
    other = _run(data, out, [peer("nearest")], limit=1)
    assert peer.log.read_text().split()[3:] == ["nearest"]  # type: ignore[attr-defined]
    assert other.cells[0].psnr == first.cells[0].per_image["0"] != first.cells[0].psnr
    peers[0].requirements.write_text("numpy==1\n")
    _run(data, out, [peer("nearest")])
    assert peer.log.read_text().split()[4:] == ["nearest"]  # type: ignore[attr-defined]


FAILURES = {
    "crash": "ValueError: no such luck",
    "dead": "exit status 7: no message",
    "nan": "Tiny/0: the peer's output holds NaN or Inf",
    "small": "Tiny/0: the peer's output is (1, 3, 46, 60), (1, 3, 48, 60) is wanted",
    "strange float": "differs by 255 grey levels from srq-hw's before quantization",
}


def test_every_failure_is_a_row_with_its_sentence(data: Path, tmp_path: Path, peer: Callable[..., Any]) -> None:
    found = _run(data, tmp_path / "out", [peer(*FAILURES, "nearest")])
    rows = {row["variant"]: row for row in found.rows()}
    assert rows["nearest"]["error"] is None and rows["nearest"]["loss"] > 1.0
    text = (tmp_path / "out" / "quality.md").read_text()
    for variant, sentence in FAILURES.items():
        assert sentence in rows[variant]["error"], variant
        assert rows[variant]["psnr"] is None and rows[variant]["loss"] is None
        assert re.search(rf"\| test \| {variant} \|.*\| FAILED: {re.escape(rows[variant]['error'])} \|", text)
    assert "| W8A8 | test | crash | failed |" in text


def test_a_worker_that_takes_too_long(data: Path, tmp_path: Path, peer: Callable[..., Any]) -> None:
    found = _run(data, tmp_path / "out", [peer("nearest")], timeout=0.01)
    assert found.cells[0].error == "stopped after 0 s (--timeout)"


def test_head_and_tail_are_kept_below_eight_bits(data: Path, tmp_path: Path, peer: Callable[..., Any]) -> None:
    chosen = peer("nearest", settings=(catalogue.W8A8, catalogue.W4A4))
    found = _run(data, tmp_path / "out", [chosen], bits=(4,))
    assert [cell.setting for cell in found.cells] == ["W4A4 ht8"]
    assert found.cells[0].note.endswith("keep ['head.weight', 'up.weight']")


def test_a_stand_in_runs_where_the_environment_fails(
    data: Path, tmp_path: Path, peer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ensure(name: str, requirements: Path, root: Path) -> Path:
        if name == "broken":
            raise RunError("environment broken: exit status 1: ERROR: no such package")
        return Path(sys.executable)

    monkeypatch.setattr(cells, "ensure", ensure)
    other = dataclasses.replace(peer("nearest"), name="emulation")
    monkeypatch.setitem(catalogue.PEERS, "emulation", other)
    chosen = dataclasses.replace(peer("float", stand_in="emulation"), environment="broken")
    found = _run(data, tmp_path / "out", [chosen])
    assert [(cell.peer, cell.error is None) for cell in found.cells] == [
        ("test", False),
        ("emulation", True),
    ]


def test_a_missing_artefact_is_a_row(data: Path, tmp_path: Path, peer: Callable[..., Any]) -> None:
    found = _run(data, tmp_path / "out", [peer("float", artefact="none.tflite")])
    assert found.cells[0].error == f"{data / 'weights' / 'none.tflite'}: peer test runs this file; it is not there"


def test_an_environment_is_made_once_and_says_what_failed(tmp_path: Path) -> None:
    requirements = tmp_path / "some.txt"
    requirements.write_text("a==1\n")
    python = tmp_path / "venvs" / "some" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho "ERROR: nothing fits a==1" >&2\nexit 1\n')
    python.chmod(0o755)
    with pytest.raises(RunError, match=r"pip install -r some\.txt: exit status 1: ERROR: nothing fits"):
        environments.ensure("some", requirements, tmp_path / "venvs")
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    for _ in range(2):
        assert environments.ensure("some", requirements, tmp_path / "venvs") == python
    assert len((tmp_path / "calls").read_text().splitlines()) == 2
    requirements.write_text("a==2\n")
    environments.ensure("some", requirements, tmp_path / "venvs")
    assert len((tmp_path / "calls").read_text().splitlines()) == 3


def test_every_peer_has_its_worker_and_pinned_packages() -> None:
    for item in catalogue.PEERS.values():
        assert item.worker.is_file()
        lines = item.requirements.read_text().split()
        assert lines and all(re.fullmatch(r"[\w.\-]+==[\w.]+", line) for line in lines), item.name
        assert item.stand_in is None or item.stand_in in catalogue.PEERS
    assert all("emulation" not in name for name in catalogue.DEFAULT_PEERS)


def test_mistakes_of_the_user(data: Path, tmp_path: Path, peer: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"--peers quarck: unknown.*quark"):
        catalogue.choose(["nncf", "quarck"])
    with pytest.raises(InputError, match="--bits 8,5: allowed are 8, 6, 4"):
        bench_quality._bits("8,5")
    bench = cells.Bench(tmp_path, tmp_path, data, 1, 1.0, False)
    calibration = bench_quality.Calibration((data / "More",), 3, 16, 5)
    with pytest.raises(InputError, match="--sets Set6"):
        bench_quality.run([NETWORK], [], [8], data, ["Set6"], calibration, bench)
    with pytest.raises(InputError, match=r"--networks carn_x2: its weights .*carn_x2\.pth do not exist"):
        bench_quality.run(["carn_x2"], [], [8], data, ["Tiny"], calibration, bench)


def test_workers_of_onnxruntime_on_the_embedded_network(data: Path, tmp_path: Path, peer: Callable[..., Any]) -> None:
    """The project's own packages suffice for these two; their pinned environments are not made here."""
    peers = [
        dataclasses.replace(catalogue.PEERS["onnxruntime"], variants=("Percentile",)),
        catalogue.PEERS["pow2-emulation"],
    ]
    rows = _run(data, tmp_path / "out", peers).rows()
    assert [row["error"] for row in rows] == [None, None]
    for row in rows:
        assert row["layers"] == {"Conv": [11, 11], "Add": [5, 5]}
        assert row["float_difference"] < 0.01
    assert 0.0 < rows[0]["loss"] < rows[1]["loss"] < 3.0  # powers of two per tensor lose more
    assert rows[1]["note"].startswith("EMULATION")


def test_the_emulation_picks_the_power_of_two_of_least_error() -> None:
    values = np.random.default_rng(1).laplace(size=4000).astype(np.float32)
    scale = run_pow2._scale(values)
    assert scale == 2.0 ** round(np.log2(scale))

    def error(step: float) -> float:
        return float(np.mean((values - np.clip(np.rint(values / step), -128, 127) * step) ** 2))

    assert error(scale) <= min(error(scale * 2), error(scale / 2))
    assert np.abs(values).max() > 127 * scale  # it cuts the tail of this distribution
    assert run_pow2._scale(np.zeros(3, np.float32)) == 1.0


class Mixed(nn.Module):
    """Every kind of layer that the exported networks hold, one shared, and a bicubic skip."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Conv2d(3, 3, 1)
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.prelu = nn.PReLU(8)
        self.shared = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.leaky = nn.LeakyReLU(0.05)
        self.fuse = nn.Conv2d(12, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.up = nn.Conv2d(8, 32, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.big = nn.ConvTranspose2d(8, 8, 18, stride=2, padding=8)
        self.last = nn.Conv2d(8, 3, 3, padding=1)
        self.unshift = nn.Conv2d(3, 3, 1)
        self.unshift.weight.data.copy_(self.shift.weight)  # equal weights, another bias
        self.bicubic = BicubicUpsample(2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.prelu(self.head(self.shift(x * 2.0 - 0.5)))
        t = self.leaky(self.shared(self.shared(h)))
        t = self.relu(self.norm(self.fuse(torch.cat([h, t[:, 4:]], dim=1))))
        y = self.shuffle(self.up(t)) + self.big(h)
        out: Tensor = self.unshift(self.last(y)) + self.bicubic(x)
        return out


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, nn.Module, nn.Module, Path]:
    """The network, its core, its skip and the core as ONNX."""
    torch.manual_seed(3)
    whole = Mixed().eval()
    whole.norm.running_var.uniform_(0.5, 2.0)
    whole.norm.running_mean.uniform_(-0.5, 0.5)
    core, skip = export.split_bicubic(whole)
    assert skip is whole.bicubic
    path = tmp_path_factory.mktemp("mixed") / "mixed.onnx"
    export.export_onnx("mixed", core, 3, path)
    return whole, core, skip, path


def test_the_bicubic_skip_is_taken_out_and_nothing_else(mixed: tuple[nn.Module, nn.Module, nn.Module, Path]) -> None:
    whole, core, skip, _ = mixed
    x = torch.rand(1, 3, 11, 14)
    with torch.inference_mode():
        assert torch.equal(core(x) + skip(x), whole(x))
        assert not torch.equal(core(x), whole(x))
    plain = nn.Sequential(nn.Conv2d(3, 3, 3))
    assert export.split_bicubic(plain) == (plain, None)


def test_head_and_tail_of_the_exported_network(mixed: tuple[nn.Module, nn.Module, nn.Module, Path]) -> None:
    found = export.head_and_tail(onnx.load(mixed[3]))
    assert set(found) == {
        "shift.weight",
        "head.weight",
        "last.weight",
    }  # the exporter merged unshift.weight into shift's


def test_onnx_to_torch_computes_the_same(mixed: tuple[nn.Module, nn.Module, nn.Module, Path]) -> None:
    _, core, _, path = mixed
    built, weights = onnx_to_torch.load(path)
    convolutions = {name for name, part in built.named_modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)}
    assert convolutions == set(weights) and len(convolutions) == 8  # the shared one once, the two mean shifts apart
    for size in ((24, 32), (9, 13)):
        x = torch.rand(2 if size == (24, 32) else 1, 3, *size)[:1]
        with torch.inference_mode():
            torch.testing.assert_close(built(x), core(x), rtol=1e-4, atol=1e-5)


def test_the_exported_file_names_no_machine_and_is_the_same_again(
    mixed: tuple[nn.Module, nn.Module, nn.Module, Path], tmp_path: Path
) -> None:
    _, core, _, path = mixed
    export.export_onnx("mixed", core, 3, tmp_path / "again.onnx")
    content = path.read_bytes()
    assert content == (tmp_path / "again.onnx").read_bytes()
    assert b".py" not in content and str(REPO).encode() not in content


def test_luma_networks_are_scored_on_luma(data: Path, tmp_path: Path) -> None:
    class Nearest(nn.Module):
        srq_channels = 1

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.interpolate(x, scale_factor=2, mode="nearest")

    base = load_network(NETWORK)
    net = dataclasses.replace(base, module=Nearest(), channels=1)
    images = material.test_set(data / "Tiny", SCALE, None)
    path = tmp_path / "inputs.npz"
    material.write_inputs(net, images, path)
    with np.load(path) as arrays:
        outputs = {name: arrays[name].repeat(2, axis=2).repeat(2, axis=3) for name in arrays.files}
    assert all(value.shape[1] == 1 for value in outputs.values())
    whole = material.Material(net, None, path, path, (), "")
    assert material.score(whole, images, outputs) == material.score_float(net, images)
