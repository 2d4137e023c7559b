"""report.html: self-contained, the same bytes every time, honest about what failed or did not run, safe to open."""

from __future__ import annotations

import base64
import copy
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srq_hw.errors import RunError
from srq_hw.report.html import equality_chain, render, write_html
from srq_hw.report.pictures import BYTES_MAX, CROP_SIDE, OVERVIEW_SIDE, crop_window, pictures
from tests.report.sample_report import sample_report, write_images

Report = dict[str, Any]
VOID = {"meta", "img", "br", "link", "input", "hr", "line", "rect", "polyline", "path", "wbr"}
SECTIONS = ("gates", "equality", "images", "quality", "clipping", "histograms", "accumulators", "hardware", "verilog",
            "steps", "files", "provenance")  # fmt: skip


class Page(HTMLParser):
    """Tags in order with their attributes, text of the page, and a check that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, tag: str, key: str) -> list[str]:
        return [attrs[key] for name, attrs in self.tags if name == tag and key in attrs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Report:
    return sample_report(folder)


@pytest.fixture
def report(whole: Report) -> Report:
    return copy.deepcopy(whole)


def test_the_page_holds_what_it_must(report: Report, folder: Path):
    page = Page(render(report, folder))
    text = page.text
    assert "✓ PASSED" in text and "4 of 5 gates passed, 1 not run" in text
    assert "0 differ" in text and "2 176 000" in text.replace("\u202f", " ")
    assert "33.52 dB, SSIM 0.9312" in text and "37.08 dB, SSIM 0.9574" in text
    assert "|float − integer| × 64" in text and "largest 1, mean" in text
    assert "bottleneck" in text and "MVAU_rtl_10" in text and text.count("estimate") > 3
    assert "Both libraries" in text and "this design" in text and text.count("Rate against resources") == 2
    assert "4 nodes: 1 FINN's, 1 patched copy of FINN's, 1 stand-in of ours, 1 ours" in text
    assert "another add_multi.sv" in text
    assert "589 830 cycles per frame" in text.replace("\u202f", " ") and "×1.0000" in text
    assert "packs two products into a slice" in text and "DMA and AXI interconnect" in text
    for row in report["quantization"]["layers"] + report["quantization"]["weights"] + report["estimate"]["nodes"]:
        assert row["name"] in text
    for path, digest in report["files"].items():
        assert path in text and digest in text
    for step in report["steps"]:
        assert step["name"] in text and step["inputs_sha256"][:16] in text
    assert "cached" in text and "43.0 s in the steps that ran" in text
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert ids == list(SECTIONS)
    assert page.values("a", "href") == [f"#{name}" for name in SECTIONS]
    assert len(page.values("img", "alt")) == 2 * 2 * 5 and all(page.values("img", "alt"))
    histograms = len(report["quantization"]["layers"]) + len(report["quantization"]["weights"])
    assert sum(tag == "svg" for tag, _ in page.tags) == 3 + histograms  # clipping, two trade-offs


def test_the_page_refers_to_nothing_outside(report: Report, folder: Path):
    text = render(report, folder)
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|javascript:", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    for source in page.values("img", "src"):
        kind, data = source.split(";base64,")
        assert kind in ("data:image/jpeg", "data:image/png")
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            assert max(image.size) <= OVERVIEW_SIDE
            image.load()
    for _, attrs in page.tags:
        assert not any(key.startswith("on") for key in attrs)
        assert attrs.get("href", "#").startswith("#")


def test_the_same_report_gives_the_same_bytes(report: Report, folder: Path, tmp_path: Path):
    shutil.copytree(folder / "images", tmp_path / "images")
    first = write_html(report, tmp_path)
    assert first == tmp_path / "report.html"
    bytes_ = first.read_bytes()
    assert write_html(copy.deepcopy(report), tmp_path).read_bytes() == bytes_
    assert bytes_.decode() == render(report, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "report.html"]
    assert len(bytes_) < 6_000_000


HOSTILE = '<script>alert("x")</script><img src=http://e.vil/ onerror=x>\'"&'


def plant(value: Any) -> Any:
    """The hostile text behind every free text of the report; paths, hashes, versions and choices stay."""
    if isinstance(value, dict):
        keep = {"library", "origin", "status", "files", "tool", "inputs_sha256", "target_sha256", "weights_sha256",
                "recipe_sha256", "content_sha256_lowered", "content_sha256_in_memory", "fullest"}  # fmt: skip
        return {key: item if key in keep else plant(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plant(item) for item in value]
    return value + HOSTILE if isinstance(value, str) else value


def test_hostile_names_stay_text(report: Report, folder: Path):
    clean = Page(render(report, folder))
    hostile = plant(report)
    hostile["graph"]["diagnostics"] = [HOSTILE]
    hostile["tool"]["srq_hw"] = HOSTILE
    hostile["files"] = {HOSTILE: "0" * 64, **report["files"]}
    text = render(hostile, folder)
    page = Page(text)
    assert "<script" not in text and "onerror=x>" not in text
    shapes = ("script", "img", "svg", "a", "iframe")
    assert [tag for tag, _ in page.tags if tag in shapes] == [tag for tag, _ in clean.tags if tag in shapes]
    assert page.text.count('alert("x")') > 60
    assert all(source.startswith("data:") for source in page.values("img", "src"))
    assert all("onerror" not in attrs for _, attrs in page.tags)


def test_failures_are_seen(report: Report, folder: Path):
    report["ok"] = False
    report["gates"][2] = {"name": "parity", "status": "failed", "detail": "3 of 2176000 elements differ"}
    report["parity"] |= {"equal": False, "mismatches": 3}
    report["parity"]["first_mismatch"] = {"tensor": "body.0.add", "index": [0, 4, 5, 6], "left": 12, "right": 13}
    report["graph"]["proofs"][0] |= {"bits": 40, "limit_bits": 32, "holds": False}
    report["graph"]["diagnostics"] = ["conv1: accumulator: 40 bits; allowed: 32."]
    report["estimate"] |= {"fits": False, "short_of": {"dsp": 4321}, "fps_met": False}
    report["estimate"]["utilization"]["dsp"] = 3.5
    text = render(report, folder)
    page = Page(text)
    assert "✗ FAILED" in page.text and "✓ PASSED" not in page.text
    assert "3 of 5 gates passed, 1 failed, 1 not run" in page.text
    assert "first at body.0.add, image 0, row 4, column 5, channel 6: 12 against 13" in page.text
    assert "conv1: accumulator: 40 bits" in page.text
    assert "Does not fit" in page.text and "short of 4 321 DSP" in page.text.replace("\u202f", " ")
    assert "not met" in page.text
    bad_rows = [attrs for tag, attrs in page.tags if tag == "tr" and attrs.get("class") == "bad"]
    assert len(bad_rows) == 4  # the gate, the link, the proof, the resource
    assert all(float(width) <= 100 for width in re.findall(r"width:([\d.]+)%", text))


def test_a_build_in_which_no_gate_ran_has_not_passed(report: Report, folder: Path):
    for gate in report["gates"]:
        gate["status"] = "not run"
    text = Page(render(report, folder)).text
    assert "○ NOT RUN 0 of 5 gates passed, 5 not run" in text and "PASSED" not in text


def test_the_chain_tells_not_run_from_passed(report: Report, folder: Path):
    report["graph"] |= {"content_sha256_in_memory": None, "equal": None}
    report["parity"] = report["simulators"] = None
    report["oracles"][3] |= {"elements": 0, "mismatches": 0, "ties": 0}
    chain = equality_chain(report)
    assert [link.status for link in chain] == ["not run", "not run", "not run", "passed", "passed", "passed", "not run"]
    for link in chain:
        assert (link.compared is None) == (link.status == "not run")
    page = Page(render(report, folder))
    classes = page.values("span", "class")
    assert classes.count("status not-run") == 4 + 1 and page.text.count("○ not run") == 4 + 1


def test_a_report_with_little_in_it(report: Report, folder: Path, tmp_path: Path):
    report |= {
        "estimate": None,
        "finn_simulation": None,
        "rtl": None,
        "parity": None,
        "simulators": None,
        "images": [],
        "quality": [],
    }
    report |= {"oracles": [], "steps": [], "files": {}}
    report["graph"]["proofs"] = []
    report["quantization"] |= {"layers": [], "weights": [], "calibration_images": [], "seed": None}
    page = Page(render(report, tmp_path))
    words = ("No estimate", "No image was upscaled", "No image set", "no accumulators", "No step was recorded")
    for text in (*words, "no Verilog design"):
        assert text in page.text
    assert not page.values("img", "src")


def test_an_estimate_without_figures(report: Report, folder: Path):
    report["estimate"] |= {"nodes": [], "corrections": [], "fps_requested": None, "fps_met": None, "lut": None}
    del report["estimate"]["utilization_max"], report["estimate"]["not_counted"]
    text = Page(render(report, folder)).text
    assert "no figure" in text and "bottleneck" not in text


def test_degenerate_layers_are_drawn(report: Report, folder: Path):
    """Constant data, an empty range, one bin, thousands of bins, ranges of very different size, many layers."""
    first = report["quantization"]["layers"][1]
    dead = {**first, "name": "dead", "lower": 0.0, "upper": 0.0, "data_min": 0.0, "data_max": 0.0, "histogram": [9]}
    huge = {**first, "name": "huge", "lower": -4e5, "upper": 4e5, "data_min": -6e5, "data_max": 7e5}
    fine = {**first, "name": "fine", "histogram": [1] * 2049}
    empty = {**first, "name": "empty", "histogram": [], "data_min": None, "data_max": None}
    zeros = {**first, "name": "zeros", "histogram": [0, 0]}
    report["quantization"]["layers"] += [dead, huge, fine, empty, zeros]
    text = render(report, folder)
    assert "log scale" in Page(text).text and not re.search(r"\b(nan|inf)\b", text)
    report["quantization"]["layers"] = [{**first, "name": f"layer{i}"} for i in range(70)]
    page = Page(render(report, folder))
    assert "layer number" in page.text
    report["quantization"]["layers"] = [dead]
    Page(render(report, folder))


def test_without_a_float_network_there_is_no_difference(report: Report, folder: Path):
    for row in report["images"]:
        del row["files"]["float"]
        row |= {"psnr_float": None, "ssim_float": None}
    page = Page(render(report, folder))
    assert "|float" not in page.text and "Integer pipeline" in page.text
    assert len(page.values("img", "src")) == 2 * 2 * 3


def test_a_lone_wrong_pixel_stays_visible(tmp_path: Path, report: Report):
    report["images"] = write_images(tmp_path, 3, side=1500, count=1)
    files = report["images"][0]["files"]
    with Image.open(tmp_path / files["float"]) as image:
        wrong = np.array(image)
    wrong[701, 903] ^= 128
    Image.fromarray(wrong).save(tmp_path / files["integer"])
    shown, left_out = pictures(report, tmp_path)
    assert left_out == [] and shown[0].largest == 128
    data = shown[0].views[-1].overview.split("base64,")[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert np.asarray(image).max() > 200 and max(image.size) <= OVERVIEW_SIDE


def test_equal_images_are_told_to_be_equal(tmp_path: Path, report: Report):
    report["images"] = write_images(tmp_path, 3, count=1)
    files = report["images"][0]["files"]
    shutil.copy(tmp_path / files["float"], tmp_path / files["integer"])
    assert "largest 0, mean 0 grey levels" in Page(render(report, tmp_path)).text


def test_many_images_do_not_blow_the_page_up(tmp_path: Path, report: Report):
    rng = np.random.default_rng(5)
    noise = Image.fromarray(rng.integers(0, 256, (400, 400, 3), dtype=np.uint8))
    noise.save(tmp_path / "noise.png")
    row = report["images"][0] | {"files": dict.fromkeys(("input", "float", "integer", "bicubic"), "noise.png")}
    report["images"] = [row | {"name": f"noise{number}"} for number in range(20)]
    shown, left_out = pictures(report, tmp_path)
    assert 0 < len(shown) < 20 and len(shown) + len(left_out) == 20
    assert sum(picture.bytes for picture in shown) <= BYTES_MAX
    text = render(report, tmp_path)
    assert len(text) < 6_000_000 and ", ".join(left_out) in Page(text).text


def test_the_crop_goes_where_the_detail_is():
    image = np.full((300, 400, 3), 90, np.uint8)
    image[200:240, 300:340:2] = 255
    top, left, height, width = crop_window(image)
    assert (height, width) == (CROP_SIDE, CROP_SIDE)
    assert top <= 200 and top + height >= 240 and left <= 300 and left + width >= 338
    assert crop_window(np.zeros((10, 12, 3), np.uint8)) == (0, 0, 10, 12)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "images/synthetic0_integer.png").unlink(), "does not exist"),
        (lambda folder: (folder / "images/synthetic0_float.png").write_text("no"), "synthetic0_float.png"),
        (lambda folder: Image.new("RGB", (50, 40)).save(folder / "images/synthetic0_float.png"), "is 50x40"),
    ],
)
def test_a_bad_image_file_is_a_clear_failure(report: Report, folder: Path, tmp_path: Path, spoil: Any, words: str):
    shutil.copytree(folder / "images", tmp_path / "images")
    spoil(tmp_path)
    with pytest.raises(RunError, match=r"image synthetic0") as caught:
        write_html(report, tmp_path)
    assert words in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_path_that_leaves_the_folder_is_refused(report: Report, folder: Path):
    report["images"][0]["files"]["hr"] = "../secret.png"
    with pytest.raises(RunError, match="outside"):
        render(report, folder)


def test_a_broken_report_makes_no_page(report: Report, tmp_path: Path):
    report["parity"]["mismatches"] = 5
    with pytest.raises(RunError, match=r"parity\.mismatches"):
        write_html(report, tmp_path)
    assert list(tmp_path.iterdir()) == []
