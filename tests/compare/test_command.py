"""`srq-hw compare` as the user meets it: output, exit status, interruption, a kill at any time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from srq_hw.cli import run

from .conftest import RGB, write_recipe

ROOT = Path(__file__).resolve().parents[2]


def arguments(images: Path, out: Path, *more: str) -> list[str]:
    base = ["compare", "--networks", RGB, "--data", str(images), "--sets", "A", "--bits", "4", "--out", str(out)]
    return [*base, "--methods", "minmax,mse", *more]


def test_output(images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(arguments(images, out, "--jobs", "1")) == 0
    shown = capfd.readouterr()
    notes = [line.removeprefix("srq-hw: note: ") for line in shown.err.splitlines()]
    assert len(notes) == 2 and notes[0].startswith("calibration: General100 holds 3 images, from which 32 patches")
    assert notes[1].startswith("calibration: General100 holds images smaller than a patch of 48x48")
    assert "W4A4" in shown.out and "minmax" in shown.out and "compare.md" in shown.out
    assert run(arguments(images, out, "--jobs", "1", "--json")) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed == json.loads((out / "compare.json").read_text())
    assert printed["ok"] is True


def test_a_failed_cell_is_exit_status_1(images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """zcu104 has no sums of 12 bits, which the recipe asks for: its cell says so, the float figures stand."""
    recipe = tmp_path / "wide.yaml"
    write_recipe(recipe, "{method: minmax}")
    recipe.write_text(recipe.read_text() + "policy: {sums: 12}\n")
    more = ("--jobs", "1", "--target", "zcu104", "--methods", str(recipe))
    assert run(arguments(images, tmp_path / "out", *more)) == 1
    shown = capfd.readouterr()
    assert shown.out.split().count("failed") == 2 and "12 bits for the sums" in shown.out
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert result["ok"] is False and result["networks"][0]["sets"]["A"]["psnr_float"] > 15


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--bits", "1"], "allowed are 2 to 16"),
        (["--methods", "dbcd"], "did you mean 'dbdc'"),
        (["--networks", "edsr8_64"], "did you mean 'edsr8_64_x2'"),
        (["--networks", "edsr8_64_x2"], "weights missing"),
        (["--sets", "B,C"], "--sets C: no such folder"),
        (["--edges", "wide"], "--edges 'wide': allowed are 2 to 16, none"),
        (["--target", "dpu-pow2"], "target dpu-pow2 allows 8 to 8"),
        (["--target", "dpu-pow2", "--bits", "8", "--sums", "16"], "--sums 16: target dpu-pow2 allows 8 to 8"),
        (["--target", "zcu104", "--edges", "12"], "--edges 12: 12 bits for weights; target zcu104 allows 2 to 8"),
        (["--networks", "nothing.qonnx"], "nothing.qonnx: no such file"),
    ],
)
def test_refused(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], change: list[str], words: str
) -> None:
    assert run(arguments(images, tmp_path / "out", *change)) == 2
    shown = capfd.readouterr()
    assert shown.out == "" and "Traceback" not in shown.err
    assert words in " ".join(shown.err.split())
    assert not (tmp_path / "out").exists()


def without_seconds(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / "compare.json").read_text())
    for cell in result["cells"]:
        del cell["calibration_seconds"]
    return result


@pytest.mark.slow
def test_killed_interrupted_and_resumed(images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """SIGKILL, then SIGINT while it works, then to its end with two workers: the same as in one go."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert run(arguments(images, whole, "--jobs", "1")) == 0
    command = [sys.executable, "-m", "tests.compare.kill_compare", str(out), *arguments(images, out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    killed, interrupted, last = done.stdout.split()
    assert (killed, interrupted, last) == (str(-signal.SIGKILL), "1", "0"), done.stderr
    assert "interrupted; the same command resumes where it stopped" in done.stderr and "Traceback" not in done.stderr
    assert without_seconds(out) == without_seconds(whole)
    pictures = [path for path in (whole / "figures").iterdir() if path.suffix in (".svg", ".png")]
    assert len(pictures) == 3
    for path in pictures:
        assert (out / "figures" / path.name).read_bytes() == path.read_bytes()
