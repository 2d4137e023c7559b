"""What a careless, hostile or unlucky user hands in: one message with place and remedy, the right status, no litter."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from srq_hw.errors import RunError
from srq_hw.networks.registry import DEFAULT_NETWORK, NETWORKS
from tests.support.tiny_nets import foreign_qonnx

from .conftest import SMALL, Done

Srq = Callable[..., Done]


@pytest.fixture
def weights(here: Path) -> Path:
    folder = here / "w"
    folder.mkdir()
    (folder / "corrupt.pth").write_bytes(b"junk")
    (folder / "empty.pth").write_bytes(b"")
    (folder / "corrupt.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    (folder / "notes.txt").write_text("weights")
    torch.save(NETWORKS["edsr8_64_x2"].factory().state_dict(), folder / "other.pth")
    state = NETWORKS[DEFAULT_NETWORK].factory().state_dict()
    next(iter(state.values()))[0] = float("nan")
    torch.save(state, folder / "nan.pth")
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.pth", ("does not exist", ".safetensors")),
        ("corrupt.pth", ("damaged",)),
        ("empty.pth", ("damaged",)),
        ("corrupt.safetensors", ("damaged or not a checkpoint", "fetch or save it again")),
        ("notes.txt", ("suffix .txt", "allowed are .pth, .pt and .safetensors")),
        ("other.pth", (f"not the weights of {DEFAULT_NETWORK}", "fits network edsr8_64_x2")),
        ("nan.pth", ("NaN", "use another checkpoint")),
    ],
)
def test_weights(srq: Srq, here: Path, weights: Path, name: str, words: tuple[str, ...]):
    path = weights / name
    srq("build", DEFAULT_NETWORK, "--weights", path, "--out", "out").refused(str(path), *words)
    assert not (here / "out").exists()


OPTIONS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("nonet",), ("network 'nonet': unknown", DEFAULT_NETWORK, "pkg.module:factory")),
    (("edsr8_64_x2",), ("edsr8_64_x2", "no weights given; add --weights FILE")),
    (("mine.pth",), ("'mine.pth'", "--weights mine.pth", "pkg.module:factory")),
    (("edsr8_64",), ("unknown (did you mean 'edsr8_64_x2'?)", ".qonnx")),
    ((":",), ("not of the form pkg.module:factory",)),
    (("nomodule:net",), ("importing nomodule failed", "PYTHONPATH")),
    (("ownnets.small:nothing",), ("no callable 'nothing'",)),
    (("ownnets.small:breaks",), ("the factory failed (RuntimeError: the factory itself is wrong)",)),
    (("ownnets.small:with_tanh",), ("ownnets.small:with_tanh, layer tanh", "supported are")),
    (("missing.onnx",), ("missing.onnx: no such file",)),
    (("tanh.onnx", "--stop-after", "lower"), ("tanh.onnx, node act (Tanh)", "Supported are")),
    (("plain.onnx", "--stop-after", "lower"), ("plain.onnx, node only (Conv)", "Put a Quant node in front of it")),
    (("--target", "zcu1O4"), ("zcu1O4", "did you mean 'zcu104'", ".yaml")),
    (("--calib", "percentil"), ("percentil", "did you mean 'percentile'", "minmax")),
    (("--stop-after", "synth"), ("--stop-after 'synth'", "calibrate, export, lower")),
    (("--bits", "0"), ("--weight-bits (or --bits) 0: target zcu104 allows 2 to 8",)),
    (("--bits", "1"), ("1: target zcu104 allows 2 to 8",)),
    (("--bits", "17"), ("17: target zcu104 allows 2 to 8",)),
    (("--act-bits", "-3"), ("-3: target zcu104 allows 2 to 8",)),
    *[
        (("--input-size", size), (f"--input-size '{size}'", "HxW", "8 to 4096", "64x64"))
        for size in ("0x0", "abc", "1x1", "99999x99999", "64", "64x", "64x64x64", "", "-8x8", "1e3x8")
    ],
    *[(("--fps", fps), (f"--fps {fps}", "above 0")) for fps in ("-1", "0", "nan", "inf")],
    (("--calib-images", "nofolder"), ("nofolder: not a folder",)),
    (("--calib-images", "tiny.yaml"), ("tiny.yaml: not a folder",)),
    (("foreign.onnx", "--weights", "x.pth"), ("--weights x.pth", "foreign.onnx is quantized already")),
    (("foreign.onnx", "--bits", "3"), ("--bits", "foreign.onnx is quantized already", "leave it out")),
    (("foreign.onnx", "--calib", "mse"), ("--calib mse", "foreign.onnx is quantized already")),
    (("foreign.onnx", "--input-size", "32x32"), ("--input-size 32x32", "foreign.onnx is made for 16x16")),
]


@pytest.mark.parametrize(("arguments", "words"), OPTIONS, ids=[" ".join(item[0]) for item in OPTIONS])
def test_options(srq: Srq, here: Path, arguments: tuple[str, ...], words: tuple[str, ...]):
    srq("build", *arguments, "--out", "out").refused(*words)
    assert not (here / "out").exists()


@pytest.mark.parametrize("arguments", [("--bits", "3"), ("--weights", "x.pth"), ("--calib", "mse"), ("--float",)])
def test_options_that_a_file_decides(srq: Srq, here: Path, arguments: tuple[str, ...]):
    srq("evaluate", "foreign.onnx", *arguments).refused(
        arguments[0], "foreign.onnx is quantized already", "leave it out"
    )


@pytest.mark.parametrize("arguments", [("--bits", "abc"), ("--fps", "x"), ("--no-such-option",), ("a", "b")])
def test_usage(srq: Srq, here: Path, arguments: tuple[str, ...]):
    done = srq("build", *arguments, "--out", "out")
    assert (done.code, done.out) == (2, "")
    assert "Try 'srq-hw build -h' for help." in done.err and "Traceback" not in done.err
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  weights:", "  wieghts:", ("wieghts",)),
        ("clock_mhz: 200", "clock_mhz: fast", ("clock_mhz", "fast")),
        ("schema: 1", "schema: [", ("mine.yaml:4:6", "not valid YAML")),
    ],
)
def test_a_wrong_target_file(srq: Srq, here: Path, repo_root: Path, old: str, new: str, words: tuple[str, ...]):
    text = (repo_root / "targets" / "zcu104.yaml").read_text()
    assert old in text
    (here / "mine.yaml").write_text(text.replace(old, new, 1))
    srq("build", "--target", "mine.yaml", "--out", "out").refused("mine.yaml", *words)
    assert not (here / "out").exists()


def test_onnx_files(srq: Srq, here: Path):
    (here / "junk.onnx").write_bytes(b"junk")
    (here / "empty.onnx").write_bytes(b"")
    onnx.save(foreign_qonnx(channels=2), here / "two.onnx")
    onnx.save(foreign_qonnx(size=(4, 4)), here / "small.onnx")
    srq("build", "junk.onnx", "--out", "out").refused("junk.onnx: not a readable ONNX file")
    srq("build", "empty.onnx", "--out", "out").refused("empty.onnx: not a readable ONNX file", "the graph is empty")
    srq("build", "small.onnx", "--out", "out").refused("small.onnx: made for 4x4 images", "8 to 4096")
    srq("build", "two.onnx", "--out", "out").refused("two.onnx: 2 channels in tensor image", "RGB", "Y in and out")
    assert not (here / "out").exists()


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 31, 3), dtype=np.uint8)


@pytest.fixture
def bad_images(here: Path, rgb: np.ndarray) -> dict[str, Path]:
    """One folder per kind, a single image x.png in each."""
    made = {
        "one pixel": save(here / "one/x.png", rgb[:1, :1]),
        "16 bits": save(here / "deep/x.png", rgb[..., 0].astype(np.uint16) * 257),
        "transparent": save(here / "alpha/x.png", np.dstack([rgb, np.full(rgb.shape[:2], 100, np.uint8)])),
        "huge": here / "huge/x.png",
        "cut short": save(here / "cut/x.png", rgb),
        "text": here / "text/x.png",
        "empty": here / "empty/x.png",
    }
    for kind in ("huge", "text", "empty"):
        made[kind].parent.mkdir()
    Image.new("RGB", (12000, 9000)).save(made["huge"])
    made["cut short"].write_bytes(made["cut short"].read_bytes()[:900])
    made["text"].write_text("hello")
    made["empty"].write_bytes(b"")
    return made


REASONS = {
    "one pixel": ("1x1 pixels", "at least 8x8"),
    "16 bits": ("16 bits per channel", "convert it to 8-bit RGB"),
    "transparent": ("transparent pixels", "flatten it"),
    "huge": ("12000x9000 pixels", "cut the image into tiles"),
    "cut short": ("damaged or cut short",),
    "text": ("not an image",),
    "empty": ("not an image",),
}


def test_bad_images_everywhere(srq: Srq, here: Path, finished: Path, bad_images: dict[str, Path]):
    assert set(REASONS) == set(bad_images)
    for kind, path in bad_images.items():
        wanted = (f"{path.parent.name}/x.png", *REASONS[kind])
        srq("simulate", finished, path.relative_to(here), "--out", "s.png").refused(*wanted)
        srq(*SMALL, "--calib-images", path.parent.name, "--out", "out").refused(*wanted)
        srq("evaluate", "--float", "--data", path.parent.name).refused(*wanted)
    assert not (here / "s.png").exists() and not (here / "out").exists()


def test_too_small_to_score(srq: Srq, here: Path, rgb: np.ndarray):
    for side, code in ((16, 0), (15, 2), (14, 2), (9, 2)):
        save(here / "data/x.png", rgb[:side, :31])
        done = srq("evaluate", "--float", "--data", "data", "--json")
        assert done.code == code
        if code:
            done.refused(f"data/x.png: 31x{side} pixels", "at least 16x16", "use a larger image")


def test_grey_and_opaque_alpha_are_images(srq: Srq, here: Path, finished: Path, rgb: np.ndarray):
    plain = srq("simulate", finished, save(here / "i/rgb.png", rgb), "--out", "a.png", "--json")
    opaque = save(here / "i/a.png", np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]))
    assert srq("simulate", finished, opaque, "--out", "b.png", "--json").code == plain.code == 0
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()
    assert srq("simulate", finished, save(here / "i/g.png", rgb[..., 0]), "--out", "c.png").code == 0


def test_simulate_is_the_same_by_every_road(srq: Srq, here: Path, finished: Path, rgb: np.ndarray):
    image = save(here / "i/rgb.png", rgb)
    roads = ([], ["--reference"], ["--tile", "1"], ["--tile", "7"])
    models = (finished, finished / "graph.json", finished / "model.qonnx")
    for number, (model, extra) in enumerate([*((finished, r) for r in roads), *((m, []) for m in models)]):
        assert srq("simulate", model, image, "--out", f"{number}.png", *extra).code == 0
        assert (here / f"{number}.png").read_bytes() == (here / "0.png").read_bytes()


def test_simulate_places(srq: Srq, here: Path, finished: Path, rgb: np.ndarray):
    image = save(here / "i/rgb.png", rgb)
    shutil.copy(finished / "graph.json", here / "graph.json")
    srq("simulate", finished, image, "--out", "no/such/s.png").refused("the folder no/such does not exist")
    srq("simulate", finished, image, "--out", "graph.json").refused("--out graph.json", "ends in .png")
    srq("simulate", finished, image, "--out", "i").refused("--out i", "ends in .png")
    srq("simulate", finished, "i", "--out", "s.png").refused("i: is a folder")
    srq("simulate", finished, "none.png", "--out", "s.png").refused("none.png: does not exist")
    srq("simulate", "i", image, "--out", "s.png").refused("i: holds no graph.json")
    srq("simulate", "nothing", image, "--out", "s.png").refused("nothing: neither a build folder nor")
    assert (here / "graph.json").read_bytes() == (finished / "graph.json").read_bytes()


DAMAGE: dict[str, Callable[[str], str]] = {
    "cut short": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "another op": lambda text: text.replace('"Conv"', '"Convolve"'),
    "another version": lambda text: text.replace('"version":1}', '"version":99}'),
    "one weight": lambda text: text.replace('"weight":', '"weigth":', 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_graph(srq: Srq, here: Path, finished: Path, damage: str):
    text = (finished / "graph.json").read_text()
    changed = DAMAGE[damage](text)
    assert changed != text
    (here / "graph.json").write_text(changed)
    words = ("99",) if damage == "another version" else ()
    srq("check", "graph.json").refused("graph.json: ", *words)


def test_places_that_cannot_be_written(srq: Srq, here: Path):
    srq(*SMALL, "--out", "tiny.yaml").refused("--out tiny.yaml: is a file; give a folder")
    srq(*SMALL, "--out", "tiny.yaml/x").refused("--out tiny.yaml/x: cannot be written", "choose another folder")
    srq(*SMALL, "--out", "/proc/srq").refused("--out /proc/srq: cannot be written", "choose another folder")


def test_a_file_too_large_for_the_disk(start: Callable[..., subprocess.Popen[str]], here: Path):
    """A limit on the size of a file stands in for a full disk: the pictures do not fit, the rest does."""
    limit = 60_000
    process = start(
        *SMALL, "--no-rtl-sim", "--out", "full",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert process.returncode in (1, 2)
    Done(process.returncode, out, err).refused("File too large", "choose another", code=process.returncode)
    assert "full/images/" in err and "scratch" not in err
    assert {path.name for path in (here / "full").iterdir()} <= {
        *(".srq", "calibration.json", "graph.json", "log.txt", "model.qonnx", "weights.safetensors")
    }


def test_a_full_disk_is_named_whatever_failed(srq: Srq, here: Path, monkeypatch: pytest.MonkeyPatch):
    import collections

    import srq_hw.pipeline.run as run_module

    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(run_module.shutil, "disk_usage", lambda path: usage(10, 10, 0))

    def broken(*_: object) -> None:
        raise RunError("a worker ended and left no result")

    monkeypatch.setattr(run_module, "run_step", broken)
    done = srq(*SMALL, "--out", "out")
    done.refused("out: the disk is full (0 bytes left)", "free some space", "a worker ended", code=1)
    monkeypatch.setattr(run_module.shutil, "disk_usage", lambda path: usage(1 << 30, 0, 1 << 30))
    srq(*SMALL, "--out", "out").refused("a worker ended and left no result", code=1)
