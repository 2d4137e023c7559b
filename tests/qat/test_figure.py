"""The convergence plot from the logs of runs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from scripts import plot_convergence
from srq_hw.errors import InputError
from srq_hw.qat.figure import Run, convergence_plot, read_run

SVG = "{http://www.w3.org/2000/svg}"


def write_log(folder: Path, psnr: list[float], done: bool) -> Path:
    folder.mkdir()
    rows = [{"epoch": index, "psnr": value, "ssim": value / 40} for index, value in enumerate(psnr)]
    (folder / "log.json").write_text(json.dumps({"settings": {}, "epochs": rows}))
    if done:
        (folder / "qat.json").write_text(json.dumps({"float": {"psnr": 38.0, "ssim": 0.96}}))
    return folder


def test_every_epoch_is_drawn(tmp_path: Path) -> None:
    """Two runs of unlike length, PSNR and SSIM; higher scores stand higher; a hostile title stays text."""
    first = read_run("<min&max>", write_log(tmp_path / "a", [30.0, 34.0, 36.0], True))
    second = read_run("pac", write_log(tmp_path / "b", [33.0, 36.5], False))
    assert (first.float_psnr, second.float_psnr) == (38.0, None)
    text = convergence_plot([first, second])
    root = ElementTree.fromstring(text)
    lines = root.findall(f".//{SVG}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [3, 2, 3, 2]
    heights = [float(pair.split(",")[1]) for pair in lines[0].attrib["points"].split()]
    assert heights[0] > heights[1] > heights[2]
    texts = [item.text for item in root.iter(f"{SVG}text")]
    assert {"<min&max>", "pac", "float network", "PSNR on Y, dB", "SSIM on Y"} <= set(texts)
    assert len(root.findall(f".//{SVG}line[@class='float']")) == 3  # two panels and the legend
    assert text == convergence_plot([first, second])


def test_no_more_runs_than_can_be_told_apart() -> None:
    one = Run("a", (30.0, 31.0), (0.9, 0.91))
    for runs in ([], [one] * 5):
        with pytest.raises(InputError, match=r"the plot shows 1 to 4"):
            convergence_plot(runs)


def test_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_log(tmp_path / "a", [30.0, 34.0], True)

    def script(run: str) -> None:
        monkeypatch.setattr("sys.argv", ["plot_convergence.py", "--out", str(tmp_path / "x.svg"), run])
        plot_convergence.main()

    script(f"one={folder}")
    assert (tmp_path / "x.svg").stat().st_size > 1000 and capsys.readouterr().out.strip() == str(tmp_path / "x.svg")
    for wrong, words in ((f"one={tmp_path}", "no log of srq-hw qat"), ("one", "wanted TITLE=FOLDER")):
        with pytest.raises(SystemExit) as stop:
            script(wrong)
        assert stop.value.code == 2 and words in capsys.readouterr().err
