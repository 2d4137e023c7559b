"""`srq-hw qat` as a user has it, and what a build makes of its result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from srq_hw.cli import run
from srq_hw.evaluate.images import write_png
from srq_hw.networks.loading import load_network
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.accumulator import accumulator_bits
from srq_hw.quantize.freeze import freeze
from srq_hw.quantize.store import load_quantized
from srq_hw.target import load_target
from tests.qat.conftest import Command
from tests.qat.tiny import smooth


@pytest.fixture
def qat(command: Command) -> Command:
    """Run it with four bits from the user's recipe, into done/."""
    return lambda *more: command("--bits", "4", "--init", "tiny.yaml", "--out", "done", *more)


def test_a_run_and_what_it_leaves(qat: Command, folder: Path) -> None:
    """The JSON on standard output is qat.json; the result loads as a quantized network of the same widths."""
    code, out, err = qat("--json", "--sums", "8")
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads((folder / "done" / "qat.json").read_text())
    assert found["parity"]["equal"] and found["parity"]["elements"] > 1000 and found["parity"]["mismatches"] == 0
    assert (found["images"], found["epochs"], found["left_out"]) == (2, 1, 0)
    assert found["best"]["psnr"] >= found["start"]["psnr"]
    assert {path.name for path in (folder / "done").iterdir()} >= {
        "calibration.json", "weights.safetensors", "qat.json", "log.json", "checkpoint.pt", "start"
    }  # fmt: skip
    net, target = normalize(load_network("ownnets.small:net")), load_target("int-generic")
    result, start = (load_quantized(folder / name, net, target) for name in ("done", "done/start"))
    assert (result.plan.weight_bits, result.plan.act_bits, result.plan.bits.sums) == (4, 4, 8)
    assert result.plan.points == start.plan.points
    code, out, err = qat("--sums", "8")  # done already: read again, nothing trained
    assert code == 0 and "parity: 0 of" in out and "every 16th image" in out, err
    assert np.isclose(found["best"]["psnr"], json.loads((folder / "done" / "qat.json").read_text())["best"]["psnr"])


def test_test_images_are_not_trained_on(qat: Command, folder: Path) -> None:
    (folder / "test").mkdir()
    write_png(folder / "test" / "other-name.png", smooth(3, 48))
    code, out, err = qat("--val", "test", "--quantizer", "pams", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["left_out"], found["images"], found["scored_on"]) == (1, 1, "test")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--quantizer", "lqs"), "--quantizer 'lqs' (did you mean 'lsq'?): allowed are lsq, pact, pams, linq"),
        (("--distill", "1.5"), "--distill 1.5: allowed is 0 to 1"),
        (("--rate", "0"), "--rate 0: allowed is above 0"),
        (("--patch", "64"), "--data: none of 18 images has 128x128 pixels or more, what --patch 64 needs"),
        (("--fqsr", "--edges", "8"), "--fqsr: every layer and skip has --bits"),
        (("--data", "nowhere"), "--data nowhere: not a folder"),
        (("--data", "none"), "--data none: holds no image"),
        (("--val", "none"), "--val none: holds no image"),
        (("--val", "train"), "--data: all 20 images are scored on as well"),
        (("--val", "train/one", "--data", "train/one"), "--data: none of 19 images (2 more are scored on"),
        (("--device", "gpu"), "--device 'gpu'"),
        (("--bits", "1"), "--bits) 1: target int-generic allows 2 to"),
    ],
)
def test_mistakes(qat: Command, folder: Path, more: tuple[str, ...], words: str) -> None:
    (folder / "none").mkdir()
    (folder / "train" / "one").mkdir()
    write_png(folder / "train" / "one" / "same.png", smooth(3, 48))
    if more[-1] == "train/one":
        more = (*more, "--patch", "64")
    code, out, err = qat(*more)
    message = " ".join(err.split())
    assert (code, out) == (2, "") and words in message and "Traceback" not in err, err


def test_one_image_is_noted(qat: Command, command: Command, folder: Path) -> None:
    """The same sentence as for every other command, once; a stored start calibrates nothing."""
    for path in sorted((folder / "train").iterdir())[1:]:
        path.unlink()
    (folder / "test").mkdir()
    write_png(folder / "test" / "x.png", smooth(77, 48))
    code, _, err = qat("--val", "test")
    assert code == 0 and err.count("srq-hw: note: ") == 1
    note = "calibration: train holds one image; all 2 patches are cut from it"
    assert note in " ".join(err.split())
    (said,) = json.loads((folder / "done" / "qat.json").read_text())["notes"]
    assert said.startswith(note)
    (folder / "done").rename(folder / "before")
    code, _, err = command("--val", "test", "--start", "before", "--out", "done")
    assert (code, err) == (0, "")
    assert json.loads((folder / "done" / "qat.json").read_text())["notes"] == []


def test_a_quantized_or_float_onnx_file(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Why it does not train, and what works."""
    for name, words in (
        ("foreign.onnx", ("is quantized already", "`srq-hw evaluate foreign.onnx`", "`srq-hw build foreign.onnx`")),
        ("plain.onnx", ("a float ONNX file (no Quant node in it)", "pkg.module:factory")),
        ("missing.qonnx", ("missing.qonnx: no such file",)),
    ):
        assert run(["qat", name, "--data", "train"]) == 2
        message = " ".join(capfd.readouterr().err.split())
        assert all(word in message for word in words) and "allowed are" not in message, message


def test_another_run_in_the_folder(qat: Command) -> None:
    """Other settings are refused by name; --no-resume begins anew."""
    assert qat()[0] == 0
    code, _, err = qat("--rate", "0.01")
    assert code == 2 and "--rate 0.005 there, 0.01 here" in " ".join(err.split()), err
    code, _, err = qat("--rate", "0.01", "--no-resume")
    assert code == 0, err


def test_a_recipe_with_narrow_accumulators_holds_to_the_end(qat: Command, folder: Path) -> None:
    """What is saved fits the recipe's accumulators, and so do the integers that were scored."""
    recipe = folder / "tiny.yaml"
    recipe.write_text(recipe.read_text() + "accumulator_bits: 11\n")
    code, _, err = qat("--rate", "0.5")
    assert code == 0, err
    net, target = normalize(load_network("ownnets.small:net")), load_target("int-generic")
    result = load_quantized(folder / "done", net, target)
    assert max(accumulator_bits(freeze(result.plan, result.calibration, target)).values()) <= 11


def test_a_guided_network_trains_on(command: Command, folder: Path) -> None:
    """Guides of the start are there in the result, learned; another run starts from it, and a build takes it."""
    tiny = (folder / "tiny.yaml").read_text()
    (folder / "guided.yaml").write_text(tiny + "\nguide: {channels: 3, least: 0.0, work: 10.0}\n")
    widths = ("--bits", "4", "--edges", "8", "--sums", "16")
    code, out, err = command(*widths, "--init", "guided.yaml", "--out", "done", "--json")
    assert code == 0 and json.loads(out)["parity"]["equal"], err
    net, target = normalize(load_network("ownnets.small:net")), load_target("int-generic")
    start, result = (load_quantized(folder / name, net, target) for name in ("done/start", "done"))
    assert start.plan.net.guide is not None and result.plan.net.guide == start.plan.net.guide
    if json.loads(out)["best"]["epoch"]:
        names = [layer.name for layer in start.plan.layers if layer.name.endswith("_guided")]
        assert names and all(not start.plan.layer(name).weight.equal(result.plan.layer(name).weight) for name in names)
    code, out, err = command("--start", "done", "--out", "more", "--json")
    assert code == 0 and json.loads(out)["parity"]["equal"], err
    built = ["build", "ownnets.small:net", "--quantized", "more", "--target", "int-generic", "--input-size", "16x16"]
    assert run([*built, "--out", "built"]) == 0
