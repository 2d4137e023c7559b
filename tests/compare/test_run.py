"""Whole comparisons: figures against independent ones, what is measured again after which change, what fails alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from srq_hw.compare import run as module
from srq_hw.compare.options import CompareOptions, Widths
from srq_hw.compare.run import run_compare
from srq_hw.compare.workers import Task
from srq_hw.errors import InputError
from srq_hw.evaluate.images import read_rgb
from srq_hw.evaluate.metrics import ssim_y
from srq_hw.evaluate.resize import downscale, downscale_exact, upscale
from srq_hw.exchange.direct import to_intgraph
from srq_hw.networks.loading import load_network
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.freeze import freeze
from srq_hw.quantize.ptq import quantize
from srq_hw.quantize.recipe import load_recipe
from srq_hw.simulate import reference
from srq_hw.target import load_target

from .conftest import LUMA, RGB, write_recipe

Tasks = list[tuple[str, str]]


def go(options: CompareOptions, warned: list[str] | None = None) -> dict[str, Any]:
    return run_compare(options, lambda done, total: None, (warned if warned is not None else []).append)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    """Every task that is really run: (function, what it is about)."""
    seen: Tasks = []
    inner = module.run_tasks

    def watched(first: Any, jobs: int, ended: Callable[..., Any]) -> None:
        def note(found: list[Task]) -> list[Task]:
            for task in found:
                about = task.arguments[0]
                seen.append((task.function.__name__, getattr(about, "method", "") or about.spec))
            return found

        inner(note(list(first)), jobs, lambda outcome: note(list(ended(outcome))))

    monkeypatch.setattr(module, "run_tasks", watched)
    return seen


def require_schema(result: dict[str, Any]) -> None:
    """compare.json is what its schema says, no key more or less."""
    schema = json.loads((Path(module.__file__).parent / "compare.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(result)))


def y_of(rgb: np.ndarray) -> np.ndarray:
    """BT.601 studio swing, written once more."""
    return 16 + rgb.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255)


def psnr(a: np.ndarray, b: np.ndarray, border: int = 2) -> float:
    inside = (slice(border, -border), slice(border, -border))
    return float(10 * np.log10(255**2 / np.mean((a[inside] - b[inside]) ** 2)))


def float_picture(spec: str, low: np.ndarray) -> np.ndarray:
    """The float network by itself: grey levels (h, w, c) in, rounded and clipped grey levels out."""
    import torch

    with torch.inference_mode():
        x = torch.from_numpy(low.astype(np.float32)).permute(2, 0, 1)[None] / 255
        out = load_network(spec).module(x)[0].permute(1, 2, 0).numpy() * 255
    return np.clip(np.rint(out), 0, 255)


def test_figures_are_those_of_the_networks(options: CompareOptions) -> None:
    """Against the chain put together here, the int64 reference simulator and a PSNR of its own."""
    options = replace(options, networks=(RGB, LUMA), methods=options.methods[1:], widths=(Widths(6, 5),))
    result = go(options)
    require_schema(result)
    assert result["ok"] and result["warnings"] == result["notes"] == []
    target, recipe = load_target("int-generic"), load_recipe(options.methods[0])
    recipe = recipe.model_copy(update={"policy": recipe.policy.model_copy(update={"edges": 8})})
    hr = [
        read_rgb(path)[: 40 + index // 2 * 2, :52]
        for index, path in enumerate(sorted((options.data / "A").iterdir()), 1)
    ]
    low = [downscale(image, 2) for image in hr]
    calibration = [read_rgb(path) for path in sorted((options.data / "General100").iterdir())]
    calibration = [downscale(image[: image.shape[0] // 2 * 2], 2) for image in calibration]
    for spec, row, cell in zip((RGB, LUMA), result["networks"], result["cells"], strict=True):
        grey = spec == LUMA
        see: Callable[[np.ndarray], np.ndarray] = (
            (lambda rgb: np.rint(y_of(rgb))[..., None].astype(np.uint8)) if grey else (lambda rgb: rgb)
        )
        luma: Callable[[np.ndarray], np.ndarray] = (lambda image: image[..., 0]) if grey else y_of
        quantized = quantize(normalize(load_network(spec)), target, recipe, [see(item) for item in calibration], 6, 5)
        graph = to_intgraph(freeze(quantized.plan, quantized.calibration, target))
        outputs = [reference.run(graph, see(image))[0] for image in low]
        wanted = [psnr(luma(out), y_of(image)) for out, image in zip(outputs, hr, strict=True)]
        floats = [psnr(luma(float_picture(spec, see(a))), y_of(b)) for a, b in zip(low, hr, strict=True)]
        published = floats
        if grey:
            exact = [downscale_exact(np.rint(y_of(image)), 2)[..., None] for image in hr]
            published = [psnr(luma(float_picture(spec, a)), y_of(b)) for a, b in zip(exact, hr, strict=True)]
            assert published != floats
        ssims = [ssim_y(out.astype(np.uint8), image, 2) for out, image in zip(outputs, hr, strict=True)]
        figures, base = cell["sets"]["A"], row["sets"]["A"]
        assert figures["psnr"] == pytest.approx(np.mean(wanted), abs=5.1e-5)
        assert figures["ssim"] == pytest.approx(np.mean(ssims), abs=5.1e-6)
        assert base["psnr_float"] == pytest.approx(np.mean(published), abs=5.1e-5)
        assert base["psnr_float_8bit"] == pytest.approx(np.mean(floats), abs=5.1e-5)
        assert base["psnr_bicubic"] == pytest.approx(
            np.mean([psnr(y_of(upscale(a, 2)), y_of(b)) for a, b in zip(low, hr, strict=True)]), abs=5.1e-5
        )
        assert figures["drop_psnr"] == pytest.approx(np.mean(floats) - np.mean(wanted), abs=1.1e-4)
        assert figures["images"] == base["images"] == 2


def test_files_agree(options: CompareOptions) -> None:
    """compare.csv, compare.md and the cells' files say what compare.json says."""
    go(options)
    out = options.out
    result = json.loads((out / "compare.json").read_text())
    rows = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    text = (out / "compare.md").read_text()
    assert [row["method"] for row in rows] == ["all", "cut"] == [cell["method"] for cell in result["cells"]]
    for row, cell in zip(rows, result["cells"], strict=True):
        figures = cell["sets"]["A"]
        assert float(row["psnr"]) == figures["psnr"] and float(row["drop_psnr"]) == figures["drop_psnr"]
        assert (row["weight_bits"], row["act_bits"], row["set"], row["parity"]) == ("4", "4", "A", "equal")
        assert float(row["psnr_float"]) == result["networks"][0]["sets"]["A"]["psnr_float"]
        line = (
            f"| {cell['method']} | W4A4 | {figures['psnr']:.3f} / {figures['ssim']:.4f} | {figures['drop_psnr']:.3f} |"
        )
        assert line in text
        whole = json.loads((out / cell["file"]).read_text())
        assert {key: whole[key] for key in cell} == cell
        assert np.mean([image["psnr"] for image in whole["images"]["A"]]) == pytest.approx(figures["psnr"], abs=5.1e-5)
        assert len(whole["ranges"]) > 0 and whole["recipe"]["policy"]["edges"] == 8
        assert (out / whole["graph"]).is_file()
    for place in result["networks"][0]["figures"].values():
        assert (out / place).is_file() and f"({place})" in text


def test_nothing_is_measured_twice(options: CompareOptions, tasks: Tasks) -> None:
    first = go(options)
    wanted = [("score_float", RGB), ("make_program", "all"), ("make_program", "cut")]
    assert tasks == [*wanted, ("score_program", "all"), ("score_program", "cut"), ("draw", RGB)]
    before = {path: path.read_bytes() for path in options.out.rglob("*") if path.is_file()}
    tasks.clear()
    assert go(options) == first
    assert tasks == []
    assert {path: path.read_bytes() for path in options.out.rglob("*") if path.is_file()} == before


def test_a_changed_recipe_measures_its_cells_again(options: CompareOptions, tasks: Tasks) -> None:
    first = go(options)
    tasks.clear()
    path = Path(options.methods[1])
    path.write_text(path.read_text().replace("percent: 90.0", "percent: 99.0"))
    second = go(options)
    assert tasks == [("make_program", "cut"), ("score_program", "cut"), ("draw", RGB)]
    assert second["cells"][0] == first["cells"][0]
    assert second["cells"][1]["sets"]["A"]["psnr"] != first["cells"][1]["sets"]["A"]["psnr"]


def test_another_set_does_not_calibrate_again(options: CompareOptions, tasks: Tasks) -> None:
    go(options)
    tasks.clear()
    result = go(replace(options, sets=("A", "B")))
    wanted = [("score_float", RGB), ("score_program", "all"), ("score_program", "cut"), ("draw", RGB)]
    assert tasks == wanted
    assert list(result["cells"][0]["sets"]) == ["A", "B"]


def test_lost_pieces_are_made_again(options: CompareOptions, tasks: Tasks) -> None:
    first = go(options)
    tasks.clear()
    next((options.out / "programs").glob("*.graph.json")).unlink()
    next((options.out / "figures").glob("*.png")).unlink()
    second = go(options)
    assert [name for name, _ in tasks] == ["make_program", "score_program", "draw"]
    for cell in (*first["cells"], *second["cells"]):
        del cell["calibration_seconds"]
    assert second == first


def test_methods_of_one_content_are_measured_once(options: CompareOptions, tasks: Tasks, tmp_path: Path) -> None:
    twin = write_recipe(tmp_path / "twin.yaml", "{method: minmax, bins: 256}", "The same under another name")
    result = go(replace(options, methods=(options.methods[0], twin)))
    assert [name for name, _ in tasks].count("make_program") == 1
    assert result["cells"][0]["sets"] == result["cells"][1]["sets"]
    assert [cell["method"] for cell in result["cells"]] == ["all", "twin"]


def test_a_failing_cell_is_a_row(options: CompareOptions, tmp_path: Path) -> None:
    """Of a method that does not fit, of a network that cannot be quantized: the others go on."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(Path(options.methods[0]).read_text() + "policy: {weights: {heads: 8}}\n")
    nets = (RGB, "tests.compare.nets:tanh")
    result = go(replace(options, networks=nets, methods=(options.methods[0], str(wrong))))
    require_schema(result)
    errors = [cell["error"] for cell in result["cells"]]
    assert not result["ok"] and errors[0] is None
    assert "no convolution 'heads' (did you mean 'head'?)" in errors[1]
    assert "tanh" in errors[2].lower() and errors[2] == errors[3]
    networks = result["networks"]
    assert networks[0]["error"] is None and networks[0]["figures"]
    assert networks[1]["sets"]["A"]["psnr_float"] > 0 and networks[1]["figures"] == {}
    rows = list(csv.DictReader((options.out / "compare.csv").read_text().splitlines()))
    assert [bool(row["error"]) for row in rows] == [False, True, True, True]
    text = (options.out / "compare.md").read_text()
    assert "| wrong | W4A4 | failed | – | – | policy: " in text
    assert go(replace(options, networks=nets[:1]))["ok"]


def test_an_unforeseen_error_keeps_its_trace(options: CompareOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError("what a bug does")

    monkeypatch.setattr(module, "make_program", broken)
    result = go(options)
    assert not result["ok"]
    assert result["cells"][0]["error"] == "unexpected ZeroDivisionError: what a bug does"
    assert all("in broken" in path.read_text() for path in (options.out / "errors").iterdir())


def test_the_same_images_twice_are_named(options: CompareOptions) -> None:
    warned: list[str] = []
    result = go(replace(options, calib_images=options.data / "A", sets=("B", "A"), limit=1), warned)
    assert result["warnings"] == warned == result["warnings"][:1]
    assert "1 test image is also a calibration image (A/p1)" in warned[0]
    assert warned[0] in (options.out / "compare.md").read_text()


def test_one_calibration_image_is_noted(options: CompareOptions) -> None:
    warned: list[str] = []
    result = go(replace(options, calib_images=options.data / "B"), warned)
    assert result["notes"] == warned and "B holds one image" in warned[0]
    assert result["calibration"] == result["calibration"] | {"folder": "B", "images": 1, "low": False}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit": 0}, "--limit 0"),
        ({"jobs": 0}, "--jobs 0"),
        ({"methods": ("minmx",)}, "did you mean 'minmax'"),
        ({"target": "int-generik"}, "did you mean 'int-generic'"),
        ({"networks": ("edsr8_64_x3",)}, "did you mean 'edsr8_64_x2'"),
        ({"networks": ("tests.compare.nets:poisoned",)}, "first.weight holds NaN or Inf"),
        ({"widths": (Widths(16, 16),)}, "target int-generic allows 2 to 8"),
        ({"calib_images": Path("nowhere")}, "nowhere: not a folder"),
        ({"data": Path("nowhere")}, "--data nowhere holds no folder"),
    ],
)
def test_refused(options: CompareOptions, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        go(replace(options, **change))
    assert words in str(error.value)
    assert not options.out.exists()
