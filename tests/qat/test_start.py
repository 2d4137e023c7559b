"""`srq-hw qat --start`: training goes on from exactly the network that a folder holds."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from srq_hw.cli import run
from srq_hw.networks.loading import load_network
from srq_hw.normalform.trace import normalize
from srq_hw.qat.data import draw_batch
from srq_hw.qat.rules import RULES
from srq_hw.qat.student import StepRates, Student
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.quantize.store import FILES, load_quantized, save_quantized
from srq_hw.target import Target, load_target
from tests.qat.conftest import Command
from tests.qat.tiny import aim, smooth, start, teacher, training
from tests.quantize.chain import graph_hash
from tests.quantize.nets import pow2_target, recipe

WIDTHS = ("--weight-bits", "4", "--act-bits", "5", "--edges", "6", "--sums", "8")
#: the original images are far from what the random network makes: a few steps to them beat the start
FAST = ("--distill", "0", "--average", "0", "--iterations", "6", "--rate", "0.05")
ROOT = Path(__file__).parents[2]


def stored(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def hash_of(folder: Path) -> str:
    """Of the integers that a folder's network comes to, and that a student of it begins with."""
    target = load_target("int-generic")
    quantized = load_quantized(folder, normalize(load_network("ownnets.small:net")), target)
    begun = Student(quantized, target, "lsq").result()
    found = graph_hash(quantized.plan, quantized.calibration, target)
    assert graph_hash(begun.plan, begun.calibration, target) == found
    return found


@pytest.fixture
def done(command: Command, folder: Path) -> dict[str, Any]:
    """A result in done/ that training has moved from its start; its findings."""
    code, out, err = command("--init", "tiny.yaml", "--out", "done", *WIDTHS, *FAST, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    assert found["best"]["epoch"] == 1 and hash_of(folder / "done") != hash_of(folder / "done/start")
    assert (found["init"], found["start_from"]) == ("tiny", None)
    return found


def test_training_goes_on_from_a_result(command: Command, folder: Path, done: dict[str, Any]) -> None:
    """Epoch 0 is the result: its score, its files, its integers. The same command gives the same bytes."""
    for name in ("more", "again"):
        code, out, err = command("--start", "done", "--out", name, *FAST, "--json")
        assert code == 0, err
    found = json.loads(out)
    assert found["start"] == {key: done["best"][key] for key in ("psnr", "ssim")} and found["init"] is None
    assert (found["weight_bits"], found["act_bits"]) == (4, 5)
    assert found["start_from"]["folder"] == "done" and len(found["start_from"]["sha256"]) == 64
    assert stored(folder / "more/start") == stored(folder / "done")
    assert hash_of(folder / "more/start") == hash_of(folder / "done") != hash_of(folder / "more")
    assert stored(folder / "more") == stored(folder / "again")
    assert not (folder / "more/start/qat.json").exists()


def test_where_nothing_gets_better_the_result_is_the_start(
    command: Command, folder: Path, done: dict[str, Any]
) -> None:
    """The best epoch is 0: what is written is what was read, byte for byte. Widths that agree may be said."""
    code, out, err = command("--start", "done", "--out", "worse", *WIDTHS, "--rate", "1", "--average", "0")
    assert code == 0 and "start (done)" in out and "epoch 0" in out, (out, err)
    assert stored(folder / "worse") == stored(folder / "done")


def test_another_start_is_another_run(command: Command, folder: Path, done: dict[str, Any]) -> None:
    """Resumed, with the widths said or not; refused where the folder, its content or the kind of start is another."""
    assert command("--start", "done/start", "--out", "more")[0] == 0
    before = stored(folder / "more/start")
    code, _, err = command("--start", "done/start", "--out", "more", "--bits", "4", "--act-bits", "5")
    assert code == 0, err
    others = (("--start", "done"), "--start '"), (("--init", "tiny.yaml", *WIDTHS), "--init None there, '")
    for other, words in others:
        code, _, err = command(*other, "--out", "more")
        message = " ".join(err.split())
        assert code == 2 and "belongs to another run" in message and words in message, err
    for name, content in stored(folder / "done").items():
        (folder / "done/start" / name).write_bytes(content)
    assert command("--start", "done/start", "--out", "more")[0] == 2
    assert stored(folder / "more/start") == before
    code, _, err = command("--start", "done/start", "--out", "more", "--no-resume")
    assert code == 0 and stored(folder / "more/start") == stored(folder / "done"), err


def test_a_build_is_a_start(command: Command, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--calib", "tiny.yaml", "--bits", "5", "--out", "built", "--target", "int-generic"]
    assert run(["build", "ownnets.small:net", *options, "--stop-after", "calibrate"]) == 0
    capfd.readouterr()
    code, out, err = command("--start", "built", "--out", "more", "--json")
    assert code == 0 and json.loads(out)["act_bits"] == 5, err
    assert hash_of(folder / "more/start") == hash_of(folder / "built")


@pytest.fixture
def narrow(folder: Path) -> Path:
    """narrow/: 4 bits, sums 8; without a training run."""
    net, target = normalize(load_network("ownnets.small:net")), load_target("int-generic")
    wanted = recipe().model_copy(update={"policy": recipe().policy.model_copy(update={"edges": 6, "sums": 8})})
    save_quantized(quantize(net, target, wanted, [smooth(0)], 4, 4), folder / "narrow")
    return folder


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--init", "srq"), "--start narrow: is quantized already, so --init srq does not go with it"),
        (("--bits", "6"), "(--weight-bits (or --bits) 4 there, 6 here; --act-bits (or --bits) 4 there, 6 here); leave"),
        (("--weight-bits", "5"), "--start narrow: has other widths (--weight-bits (or --bits) 4 there, 5 here); leave"),
        (("--act-bits", "8"), "(--act-bits (or --bits) 4 there, 8 here)"),
        (("--edges", "8", "--sums", "16"), "(--edges 6 there, 8 here; --sums 8 there, 16 here)"),
        (("--tail", "8"), "(--tail none there, 8 here)"),
        (("--fqsr",), "(--fqsr not there (edges 6, sums 8), but here)"),
        (("--fqsr", "--edges", "8"), "--fqsr: every layer and skip has --bits"),
        (("--out", "narrow"), "--start narrow: is where --out narrow writes"),
        (("--start", "narrow/start", "--out", "narrow"), "--start narrow/start: is where --out narrow writes"),
        (("--start", "narrow/start/sub", "--out", "narrow"), "--start narrow/start/sub: is where --out narrow writes"),
        (("--start", "nowhere"), "nowhere/calibration.json: cannot be read"),
        (("--start", "tiny.yaml"), "tiny.yaml/calibration.json: cannot be read"),
        (("--target", "dpu-pow2"), "4: target dpu-pow2 allows 8 to 8"),
    ],
)
def test_mistakes(command: Command, narrow: Path, more: tuple[str, ...], words: str) -> None:
    """Refused before anything is written."""
    before = sorted(narrow.rglob("*.*"))
    code, out, err = command("--start", "narrow", "--out", "out", *more)
    assert (code, out) == (2, "") and words in " ".join(err.split()) and "Traceback" not in err, err
    assert not (narrow / "out").exists() and [path for path in before if not path.exists()] == []


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(command: Command, narrow: Path, name: str) -> None:
    path = narrow / "narrow" / name
    path.write_bytes(path.read_bytes()[:-9])
    code, _, err = command("--start", "narrow", "--out", "out")
    assert code == 2 and f"narrow/{name}: cannot be read" in " ".join(err.split()), err


def test_another_network(narrow: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = run(["qat", "--data", "train", "--start", "narrow", "--out", "out"])
    message = " ".join(capfd.readouterr().err.split())
    assert code == 2 and "narrow: made for another network than srq_edsr4_24_x2: its layer" in message, message


def test_widths_that_are_there_anyway_are_no_contradiction(command: Command, folder: Path) -> None:
    """What --edges and --fqsr ask for of a network that has 5 bits throughout."""
    net, target = normalize(load_network("ownnets.small:net")), load_target("int-generic")
    save_quantized(quantize(net, target, recipe(), [smooth(0)], 5, 5), folder / "even")
    for agreeing in (("--edges", "5", "--tail", "5", "--sums", "5"), ("--fqsr", "--bits", "5")):
        code, _, err = command("--start", "even", "--out", "out", *agreeing)
        assert code == 0, err


def trained(rule: str, target: Target, name: str) -> Quantized:
    """A network whose weights, biases, steps and channel factors have moved."""
    begun = start(name) if target == aim() else quantize(normalize(teacher(name)), target, recipe(), [smooth(0)], 4, 4)
    one = Student(begun, target, rule)
    adam = one.optimizer(StepRates(0.03, 0.02, 0.05, 0.02))
    one.begin_epoch(1)
    for step in range(2):
        adam.zero_grad()
        (one.net(draw_batch(training(), 4, 12, 0, step)[0]) - 128.0).abs().mean().backward()
        adam.step()
        if one.observing:
            one.follow(4)
    one.net.eval()
    return one.result()


@pytest.mark.parametrize(
    ("rule", "target", "name"),
    [
        *((rule, aim(), "residual") for rule in RULES),
        ("lsq", aim(), "everything"),
        ("lsq", aim(), "sums"),
        ("lsq", pow2_target(), "residual"),
    ],
)
def test_a_student_begins_with_what_it_was_given(rule: str, target: Target, name: str, tmp_path: Path) -> None:
    """To the last bit of float64, weights, biases, steps: no integer can be another one."""
    before = trained(rule, target, name)
    begun = Student(before, target, rule)
    save_quantized(before, tmp_path / "before")
    save_quantized(begun.result(begun.tensors()), tmp_path / "after")
    assert stored(tmp_path / "before") == stored(tmp_path / "after")


def test_the_script_starts_where_there_is_a_folder(tmp_path: Path) -> None:
    """START of scripts/run_qat.sh: --start for a network that has a folder there, --init for the others."""
    says = tmp_path / "says.sh"
    says.write_text('#!/bin/sh\nprintf "%s|" "$@"\necho\n')
    says.chmod(0o755)
    (tmp_path / "with space" / "carn_x2").mkdir(parents=True)
    environment = os.environ | {"PYTHON": str(says), "START": str(tmp_path / "with space"), "QAT": "--epochs 3"}
    script = [str(ROOT / "scripts/run_qat.sh"), "carn_x2", "idn_y_x4"]
    lines = subprocess.run(script, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == 2 and all(line.endswith("|--json|--epochs|3|") for line in lines)
    assert "qat|carn_x2|" in lines[0] and f"|--start|{tmp_path}/with space/carn_x2|" in lines[0]
    assert "--init" not in lines[0] and "--start" not in lines[1]
    assert "qat|idn_y_x4|" in lines[1] and "|--init|srq|" in lines[1]
