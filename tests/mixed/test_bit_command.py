"""`srq-hw search-bits` as a user runs it: files, table, errors; `srq-hw build` takes the recipe it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from srq_hw.cli import run
from srq_hw.graph.ir import IntGraph
from tests.support.tiny_nets import write_user_files

SEARCH = ["search-bits", "ownnets.small:net", "--calib", "tiny.yaml", "--widths", "3-6", "--no-front", "--rounds", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_user_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_search_then_build(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SEARCH, "--budget", "bits=4", "--out", "found", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads((folder / "found" / "search.json").read_text())
    assert data["budget"] == "bits=4" and data["front"] == []
    widths = data["chosen"]["widths"]
    assert data["chosen"]["cost"]["weights"] <= 4 and data["chosen"]["cost"]["activations"] <= 4
    build = ["build", "ownnets.small:net", "--calib", "found/recipe.yaml", "--out", "built", "--stop-after", "lower"]
    assert run([*build, "--input-size", "16x16"]) == 0
    graph = IntGraph.load(folder / "built" / "graph.json")
    convs = {node.name: node for node in graph.nodes if node.op == "Conv"}
    assert convs.keys() == widths.keys()
    for name, node in convs.items():
        limit = 2 ** (widths[name][0] - 1) - 1
        assert abs(node.params["weight"]).max() <= limit
        if graph.tensors[node.inputs[0]].name != graph.input:
            assert graph.tensors[node.inputs[0]].bits <= widths[name][1]


def test_the_terminal_shows_widths_points_and_where_the_recipe_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*SEARCH, "--budget", "bitops=W4A4", "--out", "found"]) == 0
    out = capsys.readouterr().out
    for word in ("budget bitops=W4A4", "chosen, whole recipe", "W4A4, whole recipe", "integer dB", "found/recipe.yaml"):
        assert word in out, word


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "bits=1"], "at their narrowest need 3 bits of weights"),
        (["--budget", "lut=5"], "unknown kind; allowed: bits, bitops, dsp, bram"),
        (["--budget", "bits=4", "--widths", "9-12"], "target zcu104 allows 2 to 8"),
        (["--budget", "dsp=9", "--target", "int-generic"], "names no device"),
        (["--budget", "bits=4", "--input-size", "5"], "--input-size"),
        (["--budget", "bits=4", "--test-images", "ownnets"], "--test-images ownnets: holds no image"),
    ],
)
def test_mistakes_are_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run([*SEARCH, *arguments, "--out", "found"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and words in " ".join(shown.err.split())
    assert not (folder / "found").exists()


def test_a_quantized_file_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search-bits", "foreign.onnx", "--budget", "bits=4"]) == 2
    assert "is quantized already" in capsys.readouterr().err
