"""The estimate command: its table, its JSON, its exit status, its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from srq_hw.graph.synthetic import edsr_graph

from .conftest import Done

Srq = Callable[..., Done]


@pytest.fixture
def graph(here: Path) -> Path:
    path = here / "graph.json"
    edsr_graph(16, 1).save(path)
    return path


def test_boards_stand_side_by_side(srq: Srq, graph: Path):
    done = srq("estimate", "graph.json", "--targets", "kv260,zcu104", "--size", "90x160", "--fps", "60")
    assert done.code == 0 and "Traceback" not in done.err
    text = " ".join(done.out.split())
    for words in ("kv260 zcu104", "fits fits", "60 frames/s wanted", "frames of 90x160", "bottleneck", "LUT", "URAM",
                  "weight bits/cycle"):  # fmt: skip
        assert words in text


def test_a_board_too_small_is_exit_1_and_says_by_how_much(srq: Srq, graph: Path):
    done = srq("estimate", "graph.json", "--targets", "pynq-z2", "--size", "180x320", "--fps", "60")
    assert done.code == 1
    assert "short of" in done.out and "DSP" in done.out and "board that fits" in done.out
    assert "name its float network" in " ".join(done.out.split())


def test_json_has_the_same(srq: Srq, graph: Path):
    done = srq("estimate", "graph.json", "--targets", "pynq-z2,zcu104", "--size", "180x320", "--fps", "60", "--json")
    data = json.loads(done.out)
    assert done.code == 1 and data["ok"] is False and data["size"] == [180, 320]
    small, large = data["boards"]
    assert small["target"] == "pynq-z2" and not small["fits"] and small["design"]["short_of"]
    assert large["fits"] and large["design"]["fps"] >= 60 and large["design"]["short_of"] == {}
    assert set(large["design"]["shares"]) == {"lut", "ff", "dsp", "bram36", "uram"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("graph.json", "--targets", "int-generic"), ("--targets int-generic", "no resources", "zcu104")),
        (("graph.json", "--targets", "zcu1004"), ("zcu1004",)),
        (("graph.json", "--targets", ","), ("--targets", "names nothing")),
        (("graph.json", "--size", "64"), ("--size '64'", "HxW")),
        (("graph.json", "--fps", "0"), ("--fps 0",)),
        (("graph.json", "--bits", "4"), ("--bits 4", "quantized already")),
        (("absent.json",), ("absent.json", "no such file")),
        (("absent.qonnx",), ("absent.qonnx",)),
    ],
)
def test_mistakes_are_refused(srq: Srq, graph: Path, line: tuple[str, ...], words: tuple[str, ...]):
    srq("estimate", *line).refused(*words)
