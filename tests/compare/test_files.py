"""A QONNX file in a comparison: its figures, its widths, what is refused, and what a float ONNX file is told."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from srq_hw.compare.files import read_quantized_file
from srq_hw.compare.measure import make_program
from srq_hw.compare.options import CompareOptions, Widths
from srq_hw.compare.run import make_grid, run_compare
from srq_hw.errors import InputError, RunError
from srq_hw.evaluate.images import read_rgb
from srq_hw.evaluate.metrics import psnr_y
from srq_hw.evaluate.resize import downscale
from srq_hw.exchange.lower import load_qonnx, lower
from srq_hw.exchange.qonnx_export import export_qonnx, save_model
from srq_hw.networks.loading import load_network
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.freeze import freeze
from srq_hw.quantize.ptq import quantize
from srq_hw.quantize.recipe import load_recipe
from srq_hw.simulate import reference
from srq_hw.target import load_target
from tests.support.tiny_nets import foreign_qonnx, plain_onnx

from .conftest import RGB
from .test_run import Tasks, require_schema, tasks

__all__ = ["tasks"]


@pytest.fixture
def foreign(tmp_path: Path) -> str:
    """Somebody else's file; ties go to even there, as on zcu104."""
    onnx.save(foreign_qonnx(), tmp_path / "foreign.onnx")
    return str(tmp_path / "foreign.onnx")


@pytest.fixture
def beside(options: CompareOptions, foreign: str) -> CompareOptions:
    return replace(options, networks=(foreign,), target="zcu104")


def go(options: CompareOptions, warned: list[str] | None = None) -> dict[str, Any]:
    return run_compare(options, lambda done, total: None, (warned if warned is not None else []).append)


def test_a_row_of_its_own_widths(beside: CompareOptions, foreign: str) -> None:
    """Figures are those of the reference simulator; methods and --bits leave the row as it is; nothing calibrates."""
    warned: list[str] = []
    options = replace(beside, widths=(Widths(8, 8), Widths(16, 16)), sums=24, calib_images=Path("nowhere"))
    result = go(options, warned)
    require_schema(result)
    assert result["ok"] and result["calibration"] is None
    (cell,), (network,) = result["cells"], result["networks"]
    assert (cell["method"], cell["weight_bits"], cell["act_bits"]) == ("file", 4, 8)
    assert cell["quantized"] == "1 of 2 conv W4A8, 1 W4A6; image and output 8" and cell["calibration_seconds"] is None
    assert len(warned) == 1 and "is quantized already" in warned[0] and result["notes"] == warned
    graph = lower(load_qonnx(Path(foreign)), load_target("zcu104"))
    wanted, bicubic = [], network["sets"]["A"]["psnr_bicubic"]
    for path in sorted((options.data / "A").iterdir()):
        image = read_rgb(path)
        image = image[: image.shape[0] // 2 * 2]
        wanted.append(psnr_y(reference.run(graph, downscale(image, 2))[0].astype(np.uint8), image, 2))
    assert cell["sets"]["A"]["psnr"] == pytest.approx(np.mean(wanted), abs=5.1e-5)
    assert cell["sets"]["A"]["drop_psnr"] is None and network["sets"]["A"]["psnr_float"] is None
    assert bicubic > 15 and list(network["figures"]) == ["crops"]
    assert (options.out / network["figures"]["crops"]).is_file()
    (row,) = csv.DictReader((options.out / "compare.csv").read_text().splitlines())
    assert (row["method"], row["parity"], row["drop_psnr"], row["psnr_float"]) == ("file", "equal", "", "")
    text = (options.out / "compare.md").read_text()
    assert f"| file | W4A8 | {cell['sets']['A']['psnr']:.3f}" in text and "Calibration: none." in text
    assert "| float |" not in text and "proven equal in both simulators" in text


def test_beside_a_float_network(beside: CompareOptions, foreign: str, tasks: Tasks) -> None:
    """One row of the file, all methods of the other; the same command again measures nothing."""
    options = replace(beside, networks=(RGB, foreign), jobs=1)
    result = go(options)
    assert [cell["method"] for cell in result["cells"]] == ["all", "cut", "file"] and result["ok"]
    assert result["calibration"]["images"] == 3
    tasks.clear()
    assert go(options) == result and tasks == []


def test_widths_are_those_that_were_quantized(tmp_path: Path) -> None:
    """Of a file of our own: every convolution as the plan has it, also where its weights need fewer bits."""
    target, net = load_target("int-generic"), normalize(load_network(RGB))
    recipe = load_recipe("minmax")
    recipe = recipe.model_copy(update={"policy": recipe.policy.model_copy(update={"weights": {"first": 7}})})
    images = [np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)]
    made = quantize(net, target, recipe, images, 5, 6)
    wide = {name: steps * 3 for name, steps in made.calibration.weights.items()}  # weights keep to the middle
    frozen = freeze(made.plan, replace(made.calibration, weights=wide), target)
    save_model(export_qonnx(frozen, target, (16, 16)), tmp_path / "m.qonnx")
    found = read_quantized_file(str(tmp_path / "m.qonnx"), target)
    plan = made.plan
    wanted = [
        (layer.name, plan.weight_bits_of(layer.name), plan.point_of(layer.inputs[0]).bits)
        for layer in plan.layers
        if layer.op == "conv"
    ]
    assert [(row["name"], row["weights"], row["input"]) for row in found.layers] == wanted
    assert [row[1] for row in wanted] == [5, 7, 5, 5] and found.widths == Widths(5, 6)


def test_another_target_is_named(options: CompareOptions, tmp_path: Path) -> None:
    """Before any work, with the target that the file was exported for."""
    target, net = load_target("zcu104"), normalize(load_network(RGB))
    images = [np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)]
    made = quantize(net, target, load_recipe("minmax"), images)
    path = tmp_path / "m.qonnx"
    save_model(export_qonnx(freeze(made.plan, made.calibration, target), target, (16, 16)), path)
    with pytest.raises(InputError, match=r"m.qonnx: not legal on int-generic: .*half_even.*use --target zcu104"):
        make_grid(replace(options, networks=(str(path),)))
    assert make_grid(replace(options, networks=(str(path),), target="zcu104")).cells[0].widths == Widths(8, 8)


def test_a_float_file_is_refused(options: CompareOptions, tmp_path: Path) -> None:
    onnx.save(plain_onnx(), tmp_path / "plain.onnx")
    with pytest.raises(InputError, match=r"plain.onnx, node only \(Conv\).*Put a Quant node in front of it"):
        make_grid(replace(options, networks=(str(tmp_path / "plain.onnx"),)))


def test_a_file_that_changes_is_noticed(beside: CompareOptions, foreign: str) -> None:
    cell = make_grid(beside).cells[0]
    model = onnx.load(foreign)
    model.doc_string = "touched"
    onnx.save(model, foreign)
    with pytest.raises(RunError, match="changed while the comparison ran"):
        make_program(cell, beside.out)
