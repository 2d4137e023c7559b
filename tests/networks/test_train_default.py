"""The training script: a run that was stopped and resumed ends with the bits of one that was not."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from srq_hw.evaluate.images import write_png
from srq_hw.networks.loading import load_network

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_default.py"
CPU = torch.device("cpu")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip(f"the training script is not there (installed package): {SCRIPT}")
    spec = importlib.util.spec_from_file_location("train_default_under_test", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Smooth random pictures in the three folders; one training picture is too small for a patch."""
    rng = np.random.default_rng(5)
    for folder, sizes in {"T91": [(60, 52), (20, 90)], "General100": [(48, 70)], "Set5": [(40, 40)]}.items():
        (tmp_path / "data" / folder).mkdir(parents=True)
        for index, (height, width) in enumerate(sizes):
            coarse = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
            write_png(tmp_path / "data" / folder / f"{index}.png", coarse.repeat(4, axis=0).repeat(4, axis=1))
    return tmp_path / "data"


def recipe_of(script: ModuleType, iterations: int = 6) -> object:
    return script.Recipe(iterations=iterations, batch=2, patch=16, warmup=2, check_every=2, bf16_share=0.5)


def test_resumed_run_equals_uninterrupted_run(
    script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script.train(recipe_of(script), data, tmp_path / "whole", CPU)

    real_save = script.save

    def save_and_stop(folder: Path, iteration: int, *modules: object) -> None:
        real_save(folder, iteration, *modules)
        if iteration == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(script, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        script.train(recipe_of(script), data, tmp_path / "parts", CPU)
    monkeypatch.setattr(script, "save", real_save)
    script.train(recipe_of(script), data, tmp_path / "parts", CPU)
    assert "from iteration 4" in capsys.readouterr().out

    whole, parts = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "parts"))
    assert whole["iteration"] == parts["iteration"] == 6
    for group in ("net", "ema"):
        for key, value in whole[group].items():
            assert torch.equal(value, parts[group][key]), (group, key)
    assert not torch.equal(whole["net"]["head.weight"], whole["ema"]["head.weight"])


def test_small_pictures_are_left_out_and_crops_fit_their_target(script: ModuleType, data: Path) -> None:
    pairs = script.read_training_pairs(data, 16)
    assert sorted(pair.hr.shape for pair in pairs) == [(48, 68, 3), (60, 52, 3)]
    low, high = script.draw_batch(pairs, recipe_of(script), 3)
    assert low.shape == (2, 3, 16, 16)
    assert high.shape == (2, 3, 32, 32)
    # A crop and its target show the same place in the same orientation: the averaged target is close to the crop.
    averaged = torch.nn.functional.avg_pool2d(high, 2)
    assert float((averaged - low).abs().mean()) < 0.3 * float((averaged - low.flip(3)).abs().mean())
    again, _ = script.draw_batch(pairs, recipe_of(script), 3)
    assert torch.equal(low, again)
    other, _ = script.draw_batch(pairs, recipe_of(script), 4)
    assert not torch.equal(low, other)


def test_learning_rate_rises_and_falls(script: ModuleType) -> None:
    recipe = script.Recipe(iterations=100, warmup=10, peak_rate=1e-3, final_rate=1e-6)
    rates = [script.learning_rate(recipe, i) for i in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == rates[9] == rates[10] == 1e-3
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] < 2e-6


def test_export_writes_weights_that_load(
    script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.train(recipe_of(script, iterations=2), data, tmp_path / "run", CPU)
    root = tmp_path / "repository"
    (root / "srq_hw" / "networks" / "weights").mkdir(parents=True)
    monkeypatch.setattr(script, "WEIGHTS", root / "srq_hw" / "networks" / "weights")
    monkeypatch.setattr(script, "DOCS", root / "docs" / "default-network")
    script.export(tmp_path / "run")
    path = root / "srq_hw" / "networks" / "weights" / "srq_edsr4_24_x2.safetensors"
    net = load_network("srq_edsr4_24_x2", path)
    ema = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["ema"]
    assert all(torch.equal(value, ema[key]) for key, value in net.module.state_dict().items())
    first = path.read_bytes()
    script.export(tmp_path / "run")
    assert path.read_bytes() == first
    log = (root / "docs" / "default-network" / "train.csv").read_text().splitlines()
    assert log[0] == "iteration,learning_rate,loss,set5_psnr_y,seconds"
    assert log[1].startswith("2,")


def test_table_goes_between_the_marks(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{script.TABLE_BEGIN}\nold\n{script.TABLE_END}\nbelow\n")
    script.write_table(page, "| new |")
    once = page.read_text()
    assert once == f"above\n{script.TABLE_BEGIN}\n\n| new |\n\n{script.TABLE_END}\nbelow\n"
    script.write_table(page, "| new |")
    assert page.read_text() == once
    assert capsys.readouterr().out == "| new |\n| new |\n"
    page.write_text("no marks")
    with pytest.raises(SystemExit, match=r"page\.md: the marks"):
        script.write_table(page, "| new |")


def test_curve_has_the_same_bytes_every_time(script: ModuleType, tmp_path: Path) -> None:
    rows = [[str(i), "1e-3", str(1 / i), str(30 + i), "1"] for i in range(1, 6)]
    script.write_csv(tmp_path / "train.csv", rows)
    script.draw_curve(tmp_path)
    first = (tmp_path / "curve.svg").read_bytes()
    script.draw_curve(tmp_path)
    assert (tmp_path / "curve.svg").read_bytes() == first
    assert b"Set5 Y-PSNR" in first
