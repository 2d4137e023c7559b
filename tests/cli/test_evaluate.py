"""`srq-hw evaluate`: the table that compare makes, warnings about calibration images, fallbacks, files."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from srq_hw.compare.table import COLUMNS
from srq_hw.evaluate.datasets import make_pair
from srq_hw.evaluate.images import read_rgb, write_png
from tests.compare.conftest import picture

from .conftest import SMALL, Done

Srq = Callable[..., Done]
NET = ("ownnets.small:net", "--calib", "tiny.yaml")


@pytest.fixture
def folders(here: Path) -> Path:
    """Test (two pictures), Low (three of 24 x 24), One."""
    for name, seeds, side in (("Test", (1, 2), 40), ("Low", (11, 12, 13), 24), ("One", (21,), 24)):
        (here / name).mkdir()
        for seed in seeds:
            write_png(here / name / f"p{seed}.png", picture(seed, side, side))
    return here


def notes(done: Done) -> list[str]:
    """What was said on standard error, a sentence each."""
    lines = done.err.splitlines()
    assert all(line.startswith("srq-hw: note: ") for line in lines), done.err
    return [line.removeprefix("srq-hw: note: ") for line in lines]


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_same_row_as_compare(srq: Srq, folders: Path) -> None:
    """The same columns and, calibrated on the same images, the same figures to the last digit."""
    target = ("--target", "int-generic", "--bits", "6")
    done = srq("evaluate", *NET, *target, "--data", "Test", "--calib-images", "Low", "--out", "e", "--json")
    assert done.code == 0 and done.err == "", done.err
    grid = ("--networks", NET[0], "--methods", "tiny.yaml", "--sets", "Test", "--edges", "none", "--jobs", "1")
    assert srq("compare", *grid, *target, "--calib-images", "Low", "--calib-low", "--out", "c").code == 0
    (mine,), (theirs,) = rows_of(folders / "e/evaluate.csv"), rows_of(folders / "c/compare.csv")
    assert tuple(mine) == tuple(theirs) == COLUMNS
    assert float(mine.pop("calibration_seconds")) >= 0 and float(theirs.pop("calibration_seconds")) >= 0
    assert mine == theirs
    found = json.loads(done.out)
    assert found == json.loads((folders / "e/evaluate.json").read_text())
    (row,) = found["rows"]
    assert {key: "" if row[key] is None else str(row[key]) for key in mine} == mine
    assert found["mean"]["drop_psnr"] == row["drop_psnr"] and found["quantized"] == row["quantized"]
    assert [(layer["weights"], layer["input"]) for layer in found["layers"]] == [(6, 8), (6, 6), (6, 6), (6, 6)]
    assert found["parity"]["equal"] and found["parity"]["elements"] > 1000
    text = (folders / "e/evaluate.md").read_text()
    assert text.startswith("# srq-hw evaluate") and "Calibration: Low, 3 images, low resolution as they are" in text
    assert f"| tiny | W6A6 | {row['psnr']:.3f} / {row['ssim']:.4f} | {row['drop_psnr']:.3f} |" in text


def test_a_network_of_luma_drops_from_its_8_bit_input(srq: Srq, folders: Path) -> None:
    shutil.copy(Path(__file__).parents[1] / "compare" / "nets.py", folders / "evalnets.py")
    done = srq("evaluate", "evalnets:luma", "--calib", "tiny.yaml", "--data", "Test", "--json", "--bits", "4")
    found = json.loads(done.out)
    drops = [row["psnr_float_8bit"] - row["psnr_integer"] for row in found["images"]]
    assert found["mean"]["drop_psnr"] == pytest.approx(np.mean(drops), abs=1.1e-4)
    row = found["rows"][0]
    for key in ("psnr_float", "psnr_float_8bit", "psnr_bicubic", "ssim_float", "drop_psnr", "drop_ssim"):
        assert found["mean"][key] == row[key], key
    assert row["psnr_float"] != row["psnr_float_8bit"]


def test_the_terminal_says_it_too(srq: Srq, folders: Path) -> None:
    done = srq("evaluate", *NET, "--data", "Test", "--out", "e")
    for words in (
        "drop ",
        " dB, SSIM ",
        "calibration ",
        "W8A8 by tiny: 4 of 4 conv W8A8",
        "parity equal on",
        "e/evaluate",
    ):
        assert words in done.out, words


def test_float_alone_and_a_file(srq: Srq, folders: Path) -> None:
    """What has no integers has a row without them, and a file has one without float figures."""
    assert srq("evaluate", NET[0], "--float", "--data", "Test", "--out", "f").code == 0
    (row,) = rows_of(folders / "f/evaluate.csv")
    assert (row["method"], row["psnr"], row["parity"]) == ("float", "", "") and float(row["psnr_float"]) > 0
    text = (folders / "f/evaluate.md").read_text()
    assert "Loss" not in text and "| float | float32 |" in text and "integer program" not in text
    done = srq("evaluate", "foreign.onnx", "--data", "Test", "--out", "q", "--json")
    found = json.loads(done.out)
    assert (done.code, done.err, found["method"], found["calibration_seconds"]) == (0, "", "file", None)
    (row,) = rows_of(folders / "q/evaluate.csv")
    assert (row["weight_bits"], row["act_bits"], row["parity"], row["drop_psnr"]) == ("4", "8", "equal", "")
    assert float(row["psnr"]) == found["rows"][0]["psnr"]
    assert "no drop: a file brings no float network" in srq("evaluate", "foreign.onnx", "--data", "Test").out
    done = srq("evaluate", "foreign.onnx", "--data", "Test", "--target", "int-generic")
    assert done.code == 0 and "not legal on target int-generic" in notes(done)[0]


def test_a_stored_network(srq: Srq, folders: Path, finished: Path) -> None:
    done = srq("evaluate", SMALL[1], "--quantized", finished, "--data", "Test", "--json")
    found = json.loads(done.out)
    assert (done.err, found["method"], found["calibration_seconds"]) == ("", "finished", None)
    assert found["rows"][0]["drop_psnr"] is not None and found["parity"]["equal"]


@pytest.mark.parametrize("command", ["evaluate", "build"])
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--calib", "mse"), "--calib mse: --quantized"),
        (
            ("--bits", "3"),
            "--weight-bits (or --bits) {weight_bits} there, 3 here; --act-bits (or --bits) {act_bits} there",
        ),
        (("--edges", "5"), "--edges none there, 5 here"),
    ],
)
def test_a_stored_network_has_its_own_widths(
    srq: Srq, folders: Path, finished: Path, command: str, flags: tuple[str, str], named: str
) -> None:
    """An option that would be without effect is refused."""
    stored = json.loads((finished / "calibration.json").read_text())
    out = ("--out", "never") if command == "build" else ()
    srq(command, SMALL[1], "--quantized", finished, *flags, *out).refused(named.format(**stored))
    assert not (folders / "never").exists()


def test_widths_that_a_stored_network_has_may_be_named(srq: Srq, folders: Path, finished: Path) -> None:
    stored = json.loads((finished / "calibration.json").read_text())
    bits = ("--weight-bits", stored["weight_bits"], "--act-bits", stored["act_bits"])
    done = srq("build", SMALL[1], "--quantized", finished, *bits, "--stop-after", "calibrate", "--out", "again")
    assert (done.code, done.err) == (0, ""), done.err


@pytest.mark.parametrize("low", [False, True])
def test_calibration_images_that_are_scored_on(srq: Srq, folders: Path, low: bool) -> None:
    """The same pixels under another name, or the test image made smaller as the network gets it."""
    image = read_rgb(folders / "Test/p2.png")
    write_png(folders / "Low/other.png", make_pair("", image, 2).lr if low else image)
    done = srq("evaluate", *NET, "--data", "Test", "--calib-images", "Low", "--out", "e", "--json")
    found = json.loads(done.out)
    assert done.code == 0 and notes(done) == found["warnings"] and found["notes"] == []
    (warning,) = found["warnings"]
    assert warning.startswith("1 test image is also a calibration image (p2): figures on them say nothing")
    assert f"- {warning}" in (folders / "e/evaluate.md").read_text()
    assert srq("evaluate", NET[0], "--float", "--data", "Test").err == ""


def test_built_in_images_as_a_test_set(srq: Srq, folders: Path) -> None:
    """The images that calibrate where nothing else is named are known too."""
    from srq_hw.evaluate.demo import demo_calibration_images

    item = demo_calibration_images()[3]
    write_png(folders / "Test/mine.png", item.rgb)
    assert notes(srq("evaluate", *NET, "--data", "Test"))[0].startswith(
        "1 test image is also a calibration image (mine)"
    )


@pytest.mark.parametrize("command", ["evaluate", "build", "search-bits"])
def test_one_calibration_image(srq: Srq, folders: Path, command: str) -> None:
    more = {"build": ("--stop-after", "check", "--out", "b"), "evaluate": ("--data", "Test")}.get(
        command,
        ("--budget", "bits=6", "--widths", "4-8", "--rounds", "0", "--patches", "1", "--no-front", "--out", "s"),
    )
    done = srq(command, *NET, "--calib-images", "One", *more)
    assert done.code == 0, done.err
    (note,) = notes(done)
    assert (
        note.startswith("calibration: One holds one image; all 2 patches are cut from it") and "use 32 or more" in note
    )


@pytest.mark.parametrize("command", ["evaluate", "build"])
def test_zero_points_that_a_target_has_not(srq: Srq, folders: Path, command: str) -> None:
    recipe = (folders / "tiny.yaml").read_text().replace("bins: 256", "bins: 256, zero_points: true")
    (folders / "moved.yaml").write_text(recipe.replace("name: tiny", "name: moved"))
    more = ("--data", "Test", "--json") if command == "evaluate" else ("--stop-after", "check", "--out", "b")
    done = srq(command, NET[0], "--calib", "moved.yaml", *more)
    assert done.code == 0
    (note,) = notes(done)
    assert note.startswith("recipe moved: zero points are asked for") and "target zcu104 has none" in note
    if command == "evaluate":
        found = json.loads(done.out)
        assert found["notes"] == [note]
        assert found["quantized"].endswith("no zero points (integer.activations.zero_points: false)")
        other = srq(command, NET[0], "--calib", "moved.yaml", *more, "--target", "int-generic")
        assert other.err == "" and "zero points" not in json.loads(other.out)["quantized"]


def test_empty_folders(srq: Srq, folders: Path) -> None:
    """The option is named, and what to do; nothing is written."""
    (folders / "none").mkdir()
    wanted = ("none: holds no image", "put images there or give another folder")
    srq("evaluate", *NET, "--data", "none", "--out", "e").refused("--data none", *wanted)
    srq("evaluate", "foreign.onnx", "--data", "none", "--out", "e").refused("--data none", *wanted)
    srq("evaluate", *NET, "--calib-images", "none", "--out", "e").refused("--calib-images none", *wanted)
    srq("build", *NET, "--calib-images", "none", "--out", "e").refused("--calib-images none", *wanted)
    base = ("compare", "--networks", NET[0], "--methods", "tiny.yaml", "--out", "e")
    srq(*base, "--sets", "none", "--calib-images", "Low").refused("--sets none", *wanted)
    srq(*base, "--sets", "Test", "--calib-images", "none").refused("--calib-images none", *wanted)
    assert not (folders / "e").exists()
    srq("evaluate", *NET, "--data", "Test", "--out", "tiny.yaml").refused("--out tiny.yaml: is a file")
