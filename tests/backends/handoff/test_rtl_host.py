"""The host driver: packing against the golden beats, and frames through the software model of the DMA."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.handoff.rtl.host.dma_model import DmaModel, GpioModel
from srq_hw.backends.handoff.rtl.host.sr_driver import Layout, SrDriver, pack, read_layouts, unpack
from srq_hw.backends.handoff.rtl.layout import describe, frames_hex, layout_of
from srq_hw.backends.rtl.netlist import Stream
from srq_hw.simulate.reference import run


def hex_bytes(text: str, word_bytes: int) -> np.ndarray:
    """Hex beats as they lie in memory."""
    return np.frombuffer(b"".join(int(line, 16).to_bytes(word_bytes, "little") for line in text.split()), np.uint8)


def layouts_of(made) -> tuple[Layout, Layout]:
    return read_layouts(made.folder / "interface.json")


def reference_core(made):
    """The design as the bytes of a frame to the bytes of its result."""
    source, result = layouts_of(made)
    return lambda frame: pack(run(made.graph, unpack(frame, source))[0], result)


def test_golden_beats(made):
    source, result = layouts_of(made)
    wanted = run(made.graph, made.images)
    sent = hex_bytes((made.folder / "golden/input.hex").read_text(), source.word_bytes).reshape(3, -1)
    received = hex_bytes((made.folder / "golden/output.hex").read_text(), result.word_bytes).reshape(3, -1)
    for index in range(3):
        assert np.array_equal(pack(made.images[index], source), sent[index])
        assert np.array_equal(pack(made.images[index].astype(np.uint8), source), sent[index])
        assert np.array_equal(unpack(received[index], result), wanted[index])
        assert np.array_equal(unpack(sent[index], source), made.images[index])
    assert unpack(received[0], result).dtype == np.int8 and source.dtype == np.uint8


SHAPES = [(1, 8), (3, 8), (6, 8), (2, 9), (3, 5), (6, 2), (2, 16), (3, 33), (6, 12)]


@pytest.mark.parametrize(
    ("lanes", "bits", "signed"), [(*shape, signed) for shape in SHAPES for signed in (False, True)] + [(6, 1, False)]
)
def test_packing_agrees_with_the_vectors_of_the_test_bench(lanes: int, bits: int, signed: bool):
    """Two programs, one layout: `to_hex` works on Python integers, the driver on arrays of bits."""
    stream = layout_of(Stream("s", 3, 4, 6, lanes, bits, signed))
    told = describe(stream, "s_axis")
    layout = Layout("input", 3, 4, 6, lanes, bits, signed, told["dma_word_bytes"])
    lo, hi = layout.range
    frames = np.random.default_rng(bits).integers(lo, hi, (1, 3, 4, 6), np.int64, endpoint=True)
    frames[0, 0, 0, :2] = lo, hi
    packed = pack(frames[0], layout)
    assert packed.shape == (told["dma_bytes_per_frame"],)
    assert np.array_equal(packed, hex_bytes(frames_hex(frames, stream), layout.word_bytes))
    again = unpack(packed, layout)
    assert np.array_equal(again, frames[0]) and again.dtype == layout.dtype
    dirty = packed.reshape(-1, layout.word_bytes).copy()
    used = lanes * bits
    if used % 8:
        dirty[:, used // 8] |= 0xFF << used % 8 & 0xFF
    dirty[:, -(-used // 8) :] = 0xFF
    assert np.array_equal(unpack(dirty.reshape(-1), layout), frames[0])  # bits above the data are not read


def test_wrong_images_are_refused(made):
    source, result = layouts_of(made)
    image = made.images[0]
    with pytest.raises(ValueError, match=r"shape \(5, 5, 3\); wanted \(5, 6, 3\)"):
        pack(image[:, :5], source)
    with pytest.raises(ValueError, match=r"shape \(5, 6\)"):
        pack(image[..., 0], source)
    with pytest.raises(TypeError, match="type float64; wanted integers, for instance uint8"):
        pack(image / 255, source)
    with pytest.raises(ValueError, match="values 256 to 345; wanted 0 to 255"):
        pack(np.resize(np.arange(256, 346), image.shape), source)
    with pytest.raises(ValueError, match="values -1 to"):
        pack(image.astype(np.int16) * 0 - 1, source)
    with pytest.raises(ValueError, match="one frame"):
        unpack(np.zeros(result.frame_bytes - 1, np.uint8), result)
    with pytest.raises(ValueError, match="int64"):
        unpack(np.zeros(result.frame_bytes, np.int64), result)


def test_frames_through_the_dma(made):
    dma = DmaModel(reference_core(made))
    driver = SrDriver(dma, layouts_of(made))
    results = driver.run_many(made.images)
    assert dma.frames == 3
    assert np.array_equal(np.stack(results), run(made.graph, made.images))  # each its own array
    with pytest.raises(TypeError):
        driver.run(made.images[0].astype(float))
    assert np.array_equal(driver.run(made.images[1]), results[1])  # a refused image leaves the channels idle


def test_the_model_has_the_rules_of_the_dma(made):
    core = reference_core(made)
    source, result = layouts_of(made)
    sent, received = np.zeros(source.frame_bytes, np.uint8), np.zeros(result.frame_bytes, np.uint8)
    dma = DmaModel(core)
    with pytest.raises(RuntimeError, match="not started"):
        dma.recvchannel.wait()
    dma.sendchannel.transfer(sent)
    with pytest.raises(RuntimeError, match="waits for ever"):
        dma.sendchannel.wait()
    with pytest.raises(RuntimeError, match="not idle"):
        dma.sendchannel.transfer(sent)
    with pytest.raises(RuntimeError, match="DMAIntErr"):
        dma.recvchannel.transfer(received[:-1])
    with pytest.raises(ValueError, match="allowed: 1 to 100"):
        DmaModel(core, limit=100).sendchannel.transfer(sent)


def test_frame_error_and_reset(made):
    gpio = GpioModel()
    driver = SrDriver(DmaModel(reference_core(made)), layouts_of(made), control=gpio)
    gpio.error = 1
    with pytest.raises(RuntimeError, match="frame_error"):
        driver.run(made.images[0])
    driver.reset()
    assert gpio.resets == 1 and not driver.frame_error()
    assert driver.run(made.images[0]).shape == (10, 12, 3)
    without = SrDriver(DmaModel(reference_core(made)), layouts_of(made))
    assert not without.frame_error()
    with pytest.raises(RuntimeError, match="no GPIO"):
        without.reset()


def test_a_frame_beyond_one_transfer_is_refused():
    big = Layout("input", 4096, 4096, 4, 1, 8, False, 1)
    with pytest.raises(ValueError, match="frame of 67108864 bytes; one transfer has 67108863"):
        SrDriver(None, (big, big), allocate=lambda *_: None)


def test_open_uses_pynq(made, monkeypatch: pytest.MonkeyPatch):
    """The overlay's cells are those of scripts/block_design.tcl."""
    script = (made.folder / "scripts/block_design.tcl").read_text()
    assert "xilinx.com:ip:axi_dma axi_dma]" in script and "xilinx.com:ip:axi_gpio control]" in script
    monkeypatch.setitem(sys.modules, "pynq", None)
    with pytest.raises(RuntimeError, match="on a board with PYNQ only"):
        SrDriver.open("sr.bit", made.folder / "interface.json")

    class Pynq:
        allocated: list[int] = []  # noqa: RUF012

        class Overlay:
            def __init__(self, bitfile: str) -> None:
                assert bitfile == "sr.bit"
                self.axi_dma, self.control = DmaModel(reference_core(made)), GpioModel()

        @classmethod
        def allocate(cls, shape: tuple[int], dtype: type) -> np.ndarray:
            cls.allocated.append(shape[0])
            return np.zeros(shape, dtype)

    monkeypatch.setitem(sys.modules, "pynq", Pynq)
    driver = SrDriver.open("sr.bit", made.folder / "interface.json")
    assert np.array_equal(driver.run(made.images[2]), run(made.graph, made.images)[2])
    assert Pynq.allocated == [layout.frame_bytes for layout in layouts_of(made)]


def test_the_driver_in_the_bundle_stands_alone(made):
    """numpy and the standard library only, run from the bundle; its self-test can fail."""
    code = (
        f"import sys; sys.path.insert(0, {str(made.folder)!r}); import host.selftest as test; status = test.main();"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'srq_hw', 'pynq'})); sys.exit(status)"
    )
    command = [sys.executable, "-B", "-I", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stdout.splitlines() == [
        "host driver: 3 frames packed and unpacked as in golden/", "[]",
    ], done.stderr  # fmt: skip


def test_the_self_test_finds_a_wrong_image(made, tmp_path: Path):
    for name in ("host", "golden"):
        (tmp_path / name).mkdir()
        for path in (made.folder / name).iterdir():
            if path.is_file():
                (tmp_path / name / path.name).write_bytes(path.read_bytes())
    facts = json.loads((made.folder / "interface.json").read_text())
    (tmp_path / "interface.json").write_text(json.dumps(facts))

    def selftest() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-B", "-m", "host.selftest"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert selftest().returncode == 0
    images = np.load(tmp_path / "golden/input.npy")
    images[2, 4, 5, 2] ^= 1
    np.save(tmp_path / "golden/input.npy", images)
    done = selftest()
    assert done.returncode == 1 and "frame 2 packs into other beats" in done.stderr
