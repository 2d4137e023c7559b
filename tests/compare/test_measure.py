"""One cell: the program is proven, the figures are those of the reference simulator, the text says what was done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srq_hw import proof
from srq_hw.compare.measure import as_image, graph_path, make_program, read_program, read_scores, score_program
from srq_hw.compare.options import CompareOptions, Widths
from srq_hw.compare.run import make_grid
from srq_hw.compare.sets import calibration_views
from srq_hw.compare.store import read_record, record_path, write_record
from srq_hw.errors import RunError
from srq_hw.evaluate.resize import downscale
from srq_hw.graph.ir import IntGraph
from srq_hw.simulate.fast import FastProgram

from .conftest import LUMA


def test_record_of_a_program(options: CompareOptions) -> None:
    grid = make_grid(options)
    make_program(grid.cells[1], grid.options.out)
    record = read_program(options.out, grid.cells[1])
    assert record is not None
    assert record["quantized"] == "2 of 4 conv W4A4, 2 W8A8; sums 4; image and output 8"
    assert [(row["weights"], row["input"]) for row in record["layers"]] == [(8, 8), (4, 4), (4, 4), (8, 8)]
    assert record["parity"]["equal"] and record["parity"]["elements"] > 0
    assert record["calibration_seconds"] >= 0 and not record["equalized"]
    assert IntGraph.load(graph_path(options.out, grid.cells[1].program_key)).content_sha256 == record["graph_sha256"]
    assert all(row["lower"] <= 0 < row["upper"] for row in record["ranges"])
    assert any(row["upper"] < row["data_max"] for row in record["ranges"])  # the recipe cuts a tenth off


def test_policy_is_in_the_program(options: CompareOptions) -> None:
    grid = make_grid(replace(options, edges="none", sums=10, widths=(Widths(3, 5),)))
    make_program(grid.cells[0], options.out)
    record = read_program(options.out, grid.cells[0])
    assert record is not None
    assert record["quantized"] == "4 of 4 conv W3A5; sums 10; image and output 8"
    assert [row["weights"] for row in record["layers"]] == [3, 3, 3, 3]
    assert record["layers"][0]["input"] == 8  # the image keeps its grey levels


def test_a_wrong_fast_simulator_is_found(options: CompareOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_one(program: FastProgram, image: Any, tile: Any = "auto") -> Any:
        found = right(program, image, tile).copy()
        found[0, 3, 4, 1] += 1 if found[0, 3, 4, 1] < 255 else -1
        return found

    right = FastProgram.run
    monkeypatch.setattr(FastProgram, "run", off_by_one)
    cell = make_grid(options).cells[0]
    with pytest.raises(RunError, match=r"fast and the reference simulator differ: .* at \(0, 3, 4, 1\)"):
        make_program(cell, options.out)
    assert read_program(options.out, cell) is None


def test_a_wrong_model_is_found(options: CompareOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def moved(*arguments: Any) -> dict[str, Any]:
        found = right(*arguments)
        found["first_quant" if "first_quant" in found else next(reversed(found))][0, 0, 0, 0] += 1
        return found

    right = proof.run_frozen
    monkeypatch.setattr(proof, "run_frozen", moved)
    with pytest.raises(RunError, match="Brevitas model and the reference simulator differ"):
        make_program(make_grid(options).cells[0], options.out)


def test_an_illegal_program_is_refused(options: CompareOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make_grid(options).cells[0]
    small = cell.target.integer.accumulator.model_copy(update={"bits": 12})
    integer = cell.target.integer.model_copy(update={"accumulator": small})
    narrow = replace(cell, target=cell.target.model_copy(update={"integer": integer}))
    with pytest.raises(RunError, match="not legal on int-generic"):
        make_program(narrow, options.out)


def test_scores_belong_to_their_program(options: CompareOptions) -> None:
    """Scores of a program that was made anew and came out otherwise do not count."""
    grid = make_grid(options)
    cell, images = grid.cells[0], grid.sets[0]
    make_program(cell, options.out)
    assert read_scores(options.out, cell, images) is None
    score_program(cell, images, options.out)
    rows = read_scores(options.out, cell, images)
    assert rows is not None and [row["name"] for row in rows] == ["p1", "p2"]
    record = read_record(options.out, "programs", cell.program_key)
    write_record(options.out, "programs", cell.program_key, {**(record or {}), "graph_sha256": "another"})
    assert read_scores(options.out, cell, images) is None


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    write_record(tmp_path, "float", "abc", {"images": []})
    assert read_record(tmp_path, "float", "abc") == {"key": "abc", "images": []}
    path = record_path(tmp_path, "float", "abc")
    text = path.read_text()
    for bad in (text[:-5], "[]", "", text.replace("abc", "abd")):
        path.write_text(bad)
        assert read_record(tmp_path, "float", "abc") is None


def test_calibration_images_are_seen_as_the_network_sees(options: CompareOptions) -> None:
    grid = make_grid(replace(options, networks=(LUMA,)))
    views = calibration_views(grid.calibration, 2, 1)
    assert [view.shape for view in views] == [(25, 26, 1), (26, 26, 1), (26, 26, 1)]
    from srq_hw.evaluate.images import read_rgb
    from srq_hw.evaluate.metrics import rgb_to_y

    low = downscale(read_rgb(grid.calibration.images.files[1]), 2)
    assert np.array_equal(views[1][..., 0], np.rint(rgb_to_y(low)))


def test_output_out_of_range() -> None:
    assert as_image(np.array([[[0, 255]]], np.int16)).dtype == np.uint8
    with pytest.raises(RunError, match=r"an image is 0\.\.255"):
        as_image(np.array([[[0, 256]]], np.int16))
