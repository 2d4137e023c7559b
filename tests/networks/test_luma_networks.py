"""A network that sees Y, from calibration to the picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from srq_hw.cli import run
from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.demo import demo_images
from srq_hw.evaluate.images import read_rgb, write_png
from srq_hw.networks.registry import NETWORKS
from srq_hw.pipeline.options import BuildOptions
from srq_hw.pipeline.session import Session

RECIPE = """schema: 1
name: tiny
title: Two patches
patches: {count: 2, size: 16, seed: 1}
activations: {method: minmax, bins: 256}
weights: {method: minmax}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ESPCN that repeats each pixel, a calibration folder, a test folder, a recipe."""
    place = tmp_path_factory.mktemp("luma")
    net = NETWORKS["espcn_x2"].factory()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.conv1.weight[0, 0, 2, 2] = 1.0  # type: ignore[index, operator]
        net.conv2.weight[0, 0, 1, 1] = 1.0  # type: ignore[index, operator]
        net.conv3.weight[:, 0, 1, 1] = 1.0  # type: ignore[index, operator]
    torch.save(net.state_dict(), place / "w.pth")
    (place / "tiny.yaml").write_text(RECIPE)
    picture = demo_images()[0].rgb[100:164, 200:256]
    for name in ("calib", "test"):
        (place / name).mkdir()
        write_png(place / name / "a.png", picture)
    return place


def arguments(folder: Path) -> list[str]:
    parts = {"--weights": "w.pth", "--calib": "tiny.yaml", "--calib-images": "calib"}
    return ["espcn_x2", *(str(word) for key, value in parts.items() for word in (key, folder / value))]


def test_calibration_sees_luma(folder: Path) -> None:
    options = BuildOptions("zcu104", folder / "out", "espcn_x2", folder / "w.pth", calib_images=folder / "calib")
    images = Session(options).calibration_images
    assert [image.shape for image in images] == [(64, 56, 1)]
    assert np.array_equal(images[0], network_view(read_rgb(folder / "calib" / "a.png"), 1))


def test_evaluate_and_simulate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", *arguments(folder), "--data", str(folder / "test"), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["mean"]
    # Two calibration patches cut a little off the range; the unrounded input is worth something too.
    assert row["psnr_integer"] == pytest.approx(row["psnr_float_8bit"], abs=0.2)
    assert 0 < abs(row["psnr_float"] - row["psnr_float_8bit"]) < 0.2
    assert 15 < row["psnr_float"] < row["psnr_bicubic"]

    assert run(["build", *arguments(folder), "--out", str(folder / "out"), "--stop-after", "parity"]) == 0
    assert json.loads((folder / "out" / ".srq/results/parity.json").read_text())["equal"]
    capsys.readouterr()
    image = folder / "test" / "a.png"
    assert run(["simulate", str(folder / "out"), str(image), "--out", str(folder / "o.png")]) == 0
    found, seen = read_rgb(folder / "o.png"), read_rgb(image)
    assert found.shape == (128, 112, 3)
    wanted = network_view(seen, 1).repeat(2, axis=0).repeat(2, axis=1)
    assert np.abs(network_view(found, 1).astype(int) - wanted).mean() < 2  # clipped colours move luma
    assert np.abs(found.astype(int) - seen.repeat(2, axis=0).repeat(2, axis=1)).mean() < 8
