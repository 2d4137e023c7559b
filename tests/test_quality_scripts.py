"""scripts/score_daq.py keeps what it measured; scripts/ablate.py changes what a case says and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import score_daq
from scripts.ablate import CASES, Case, changed
from srq_hw.errors import InputError
from srq_hw.quantize.recipe import load_recipe


def test_daq_scores_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[int], str]] = []

    def score(network: str, widths: list[int], images: Path, data: Path) -> list[dict[str, Any]]:
        asked.append((network, widths, images.name))
        if network == "b":
            raise InputError("b: no weights")
        return [{"network": network, "bits": bits, "images": images.name, "drop_psnr": 0.5} for bits in widths]

    monkeypatch.setattr(score_daq, "score", score)
    common = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--sets", "Set5"]
    assert score_daq.main([*common, "--networks", "a", "--bits", "8"]) == 0
    assert score_daq.main([*common, "--networks", "a,b", "--bits", "8,4"]) == 1
    assert asked == [("a", [8], "Set5"), ("a", [4], "Set5"), ("b", [8, 4], "Set5")]
    rows = json.loads((tmp_path / "out" / "daq.json").read_text())
    assert [(row["network"], row["bits"]) for row in rows] == [("a", 8), ("a", 4)]


def test_a_case_changes_what_it_says() -> None:
    mse = load_recipe("mse")
    case = Case("a", 4, 4, 8, {"activations.zero_points": True, "equalize": {"statistic": "rms", "strength": 0.5}})
    recipe = changed(mse, case)
    assert not mse.activations.zero_points and mse.equalize is None
    assert recipe.activations.zero_points and recipe.equalize is not None and recipe.equalize.strength == 0.5
    assert (recipe.policy.edges, recipe.policy.tail, recipe.policy.sums) == (8, None, 8)
    assert changed(mse, Case("a", 8, 8)).policy.edges is None
    assert recipe.weights == mse.weights and recipe.patches == mse.patches


def test_every_case_is_a_recipe() -> None:
    mse = load_recipe("mse")
    assert len({(case.network, case.title) for case in CASES}) == len(CASES)
    for case in CASES:
        changed(mse, case)
