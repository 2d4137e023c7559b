"""`srq-hw qat` as a user has it, and what a build makes of its result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

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
        (("--data", "nowhere"), "nowhere: not a folder"),
        (("--device", "gpu"), "--device 'gpu'"),
        (("--bits", "1"), "--bits) 1: target int-generic allows 2 to"),
    ],
)
def test_mistakes(qat: Command, more: tuple[str, ...], words: str) -> None:
    code, out, err = qat(*more)
    message = " ".join(err.split())
    assert (code, out) == (2, "") and words in message and "Traceback" not in err, err


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
