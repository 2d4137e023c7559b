"""What the program prints and where: JSON alone on standard output, bars on a terminal only, help that reads well."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import SMALL, Done

Srq = Callable[..., Done]
COMMANDS = ("build", "targets", "networks", "check", "simulate", "evaluate", "doctor")


@pytest.mark.parametrize("command", COMMANDS)
def test_help(srq: Srq, command: str):
    done = srq(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"srq-hw {command}" in done.out and done.out == srq(command, "-h").out


def test_without_arguments_it_shows_the_commands(srq: Srq):
    shown = srq()
    everything = shown.out + shown.err
    assert all(command in everything for command in COMMANDS)
    assert srq("--help").code == 0 and shown.code == 2
    assert re.fullmatch(r"srq-hw \d+\.\d+\.\d+\n", srq("--version").out)


@pytest.mark.parametrize(
    "arguments", [("targets",), ("networks",), ("doctor",), ("targets", "--schema"), ("targets", "kv260")]
)
def test_lists_as_json(srq: Srq, arguments: tuple[str, ...]):
    done = srq(*arguments) if len(arguments) > 1 else srq(*arguments, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)


def test_doctor_says_what_to_install(srq: Srq, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SRQ_VERILATOR", "/no/such/verilator")
    text = " ".join(srq("doctor").out.split())
    assert "SRQ_VERILATOR='/no/such/verilator' is not a program" in text
    assert "pip install '.[rtl]'" in text  # square brackets are not markup


def test_results_as_json(srq: Srq, here: Path, finished: Path):
    copy = here / "copy"
    subprocess.run(["cp", "-r", str(finished), str(copy)], check=True)
    done = srq(*SMALL, "--out", copy, "--json")
    data = json.loads(done.out)
    assert (done.code, done.err, data["ok"], data["parity"]["mismatches"]) == (0, "", True, 0)
    done = srq("check", finished, "--json")
    assert (done.code, done.err, json.loads(done.out)["legal"]) == (0, "", True)
    text = srq("check", finished).out
    assert "legal" in text and ".." in text


def test_evaluate_as_json(srq: Srq, here: Path):
    import numpy as np
    from PIL import Image

    (here / "data").mkdir()
    Image.fromarray(np.full((40, 40, 3), 77, np.uint8)).save(here / "data/flat.png")
    random = np.random.default_rng(1).integers(0, 256, (33, 41, 3), dtype=np.uint8)
    Image.fromarray(random).save(here / "data/noise.png")
    done = srq("evaluate", "ownnets.small:net", "--calib", "tiny.yaml", "--data", "data", "--json")
    assert (done.code, done.err) == (0, "")
    data = json.loads(done.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    rows = {row["name"]: row for row in data["images"]}
    assert rows["flat"]["psnr_bicubic"] is None  # equal to the original: infinite
    assert data["mean"]["psnr_bicubic"] == rows["noise"]["psnr_bicubic"]
    assert 0 < rows["noise"]["psnr_integer"] < 60
    assert "equal / 1.0000" in srq("evaluate", "--float", "--data", "data").out


def test_bars_on_a_terminal_and_none_in_a_pipe(start: Callable[..., subprocess.Popen[str]]):
    command = (*SMALL, "--stop-after", "check")
    quiet = start(*command, "--out", "a")
    assert quiet.communicate(timeout=120) == ("", "") and quiet.returncode == 0
    master, slave = pty.openpty()
    shown = start(*command, "--out", "b", stderr=slave)
    os.close(slave)
    seen = b""
    while True:
        try:
            block = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        seen += block
    out, _ = shown.communicate(timeout=120)
    os.close(master)
    assert shown.returncode == 0 and out == ""
    assert b"\x1b[" in seen
    for step in (b"calibrate", b"export", b"lower", b"check"):
        assert step in seen


def test_a_reader_that_leaves_and_a_full_or_closed_output(start: Callable[..., subprocess.Popen[str]], here: Path):
    process = start("targets", "--schema")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=60)
    process.stderr.close()
    with open("/dev/full", "w") as full:
        process = start("targets", "--schema", stdout=full)
        _, err = process.communicate(timeout=60)
    Done(process.returncode, "", err).refused("standard output: No space left on device", code=1)
    process = start("targets", stdout=None, preexec_fn=lambda: os.close(1))
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
