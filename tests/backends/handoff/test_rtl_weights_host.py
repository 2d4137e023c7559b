"""The host driver of a design whose weights are written at run time, against the model of DMA and design."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.handoff.rtl.host.dma_model import Bytes, DmaModel, GpioModel, WeightsModel
from srq_hw.backends.handoff.rtl.host.sr_driver import (
    DMA_LIMIT,
    Layout,
    SrDriver,
    WeightsPort,
    pack,
    read_layouts,
    read_weights_layout,
    unpack,
)
from srq_hw.graph.ir import IntGraph
from srq_hw.simulate.reference import run
from tests.backends.rtl.test_load import loaded


class Board:
    """The models of a bundle's board around the reference simulator, which computes with the weights that were sent."""

    def __init__(self, made, size: int | None = None) -> None:
        self.made = made
        self.interface = made.folder / "interface.json"
        self.layouts = read_layouts(self.interface)
        layout = read_weights_layout(self.interface)
        assert layout is not None
        self.layout = layout
        self.networks: dict[bytes, IntGraph] = {(made.folder / "weights.bin").read_bytes(): made.graph}
        self.weights = WeightsModel(layout.frame_bytes if size is None else size)
        self.dma = DmaModel(self.core, weights=self.weights)
        self.gpio = GpioModel(self.weights)
        port = WeightsPort(layout, self.weights, self.weights)
        self.driver = SrDriver(self.dma, self.layouts, control=self.gpio, weights=port)

    def core(self, frame: Bytes) -> Bytes:
        assert self.weights.held is not None
        graph = self.networks[self.weights.held.tobytes()]
        return pack(run(graph, unpack(frame, self.layouts[0]))[0], self.layouts[1])

    def load(self) -> None:
        self.driver.load_weights(self.made.folder / "weights.bin")


@pytest.fixture
def board(made_loaded) -> Board:
    return Board(made_loaded)


def test_no_image_without_weights(board: Board, made_loaded):
    wanted = run(made_loaded.graph, made_loaded.images)
    with pytest.raises(
        RuntimeError, match=r"has no weights: call load_weights\(\) before the first run and after every"
    ):
        board.driver.run(made_loaded.images[0])
    assert board.dma.sendchannel.buffer is None and board.dma.recvchannel.buffer is None  # nothing was begun
    board.load()
    assert np.array_equal(np.stack(board.driver.run_many(made_loaded.images)), wanted)
    board.driver.reset()
    with pytest.raises(RuntimeError, match="has no weights"):
        board.driver.run(made_loaded.images[0])
    board.load()
    assert np.array_equal(board.driver.run(made_loaded.images[1]), wanted[1])
    assert (board.weights.sets, board.gpio.resets, board.dma.frames) == (2, 1, 4)


def test_another_set_between_two_images(board: Board, made_loaded):
    """The words of a network with the kernels of both convolutions mirrored, as an array."""
    nodes = [
        replace(node, params={**node.params, "weight": node.params["weight"][..., ::-1].copy()})
        if node.op == "Conv"
        else node
        for node in made_loaded.graph.nodes
    ]
    other = made_loaded.graph.with_nodes(tuple(nodes), dict(made_loaded.graph.tensors))
    words = loaded(other, 200, (5, 6)).loads
    board.networks[words.astype("<u4").tobytes()] = other
    board.load()
    first = board.driver.run(made_loaded.images[0])
    board.driver.load_weights(words)
    second = board.driver.run(made_loaded.images[0])
    assert np.array_equal(first, run(made_loaded.graph, made_loaded.images)[0])
    assert np.array_equal(second, run(other, made_loaded.images)[0]) and not np.array_equal(first, second)


def test_wrong_sets_are_refused(board: Board, made, made_loaded, tmp_path: Path):
    words = made_loaded.design.loads
    count = len(words)
    for wrong in (words[:-1], np.append(words, 0), words.reshape(1, -1)):
        with pytest.raises(ValueError, match=rf"this design takes \({count},\) words"):
            board.driver.load_weights(wrong)
    with pytest.raises(ValueError, match="values -1 to"):
        board.driver.load_weights(words * 0 - 1)
    with pytest.raises(TypeError, match="wanted integers"):
        board.driver.load_weights(words.astype(float))
    short = tmp_path / "short.bin"
    short.write_bytes((made_loaded.folder / "weights.bin").read_bytes()[:-2])
    with pytest.raises(ValueError, match=f"short.bin has {4 * count - 2} bytes; this design takes {4 * count}"):
        board.driver.load_weights(str(short))
    assert board.weights.sets == 0
    with pytest.raises(RuntimeError, match="has no weights"):
        board.driver.run(made_loaded.images[0])
    plain = SrDriver(DmaModel(lambda frame: frame), read_layouts(made.folder / "interface.json"))
    assert not plain.weights_error()
    with pytest.raises(RuntimeError, match="weights of this design are part of it"):
        plain.load_weights(words)
    big = Layout("weights", 1, 1 << 24, 1, 1, 32, False, 4)
    with pytest.raises(ValueError, match=f"a set of 67108864 bytes; one transfer has {DMA_LIMIT}"):
        SrDriver(None, board.layouts, lambda *_: None, weights=WeightsPort(big, None))


@pytest.mark.parametrize("more", [-4, 4])
def test_weights_error_is_told(made_loaded, more: int):
    """A bitstream of another design: its set is longer or shorter than the bundle's."""
    board = Board(made_loaded, (made_loaded.folder / "weights.bin").stat().st_size + more)
    with pytest.raises(RuntimeError, match="weights_error"):
        board.load()
    with pytest.raises(RuntimeError, match="has no weights"):
        board.driver.run(made_loaded.images[0])
    assert board.driver.weights_error()
    board.driver.reset()
    assert not board.driver.weights_error() and board.weights.held is None


def test_the_model_waits_as_the_design_does(board: Board, made_loaded):
    """Frames wait for weights and then go; a set that meets a frame is an error of the host."""
    source, result = board.layouts
    wanted = run(made_loaded.graph, made_loaded.images)
    words = np.fromfile(made_loaded.folder / "weights.bin", np.uint8)
    received = np.zeros(result.frame_bytes, np.uint8)
    board.dma.recvchannel.transfer(received)
    board.dma.sendchannel.transfer(pack(made_loaded.images[0], source))
    for channel in (board.dma.sendchannel, board.dma.recvchannel):
        with pytest.raises(RuntimeError, match="waits for ever, the design has no weights"):
            channel.wait()
    board.weights.sendchannel.transfer(words)
    board.weights.sendchannel.wait()
    board.dma.sendchannel.wait()
    board.dma.recvchannel.wait()
    assert np.array_equal(unpack(received, result), wanted[0])
    board.dma.sendchannel.transfer(pack(made_loaded.images[1], source))
    with pytest.raises(RuntimeError, match="while a frame is inside"):
        board.weights.sendchannel.transfer(words)


@pytest.mark.parametrize("change", [-8, 8])
def test_the_model_fills_and_cuts(board: Board, made_loaded, change: int):
    words = np.fromfile(made_loaded.folder / "weights.bin", np.uint8)
    sent = np.resize(words, len(words) + change)
    board.weights.sendchannel.transfer(sent)
    assert board.weights.error == 1 and board.weights.held is not None
    kept = min(len(sent), len(words))
    assert np.array_equal(board.weights.held[:kept], words[:kept]) and not board.weights.held[kept:].any()


def test_open_uses_pynq(board: Board, made_loaded, monkeypatch: pytest.MonkeyPatch):
    """The overlay's cells are those of scripts/block_design.tcl."""
    script = (made_loaded.folder / "scripts/block_design.tcl").read_text()
    assert "xilinx.com:ip:axi_dma weights_dma]" in script and "xilinx.com:ip:axi_gpio weights_control]" in script

    class Pynq:
        allocated: list[int] = []  # noqa: RUF012

        class Overlay:
            def __init__(self, bitfile: str) -> None:
                self.axi_dma, self.control = board.dma, board.gpio
                self.weights_dma = self.weights_control = board.weights

        @classmethod
        def allocate(cls, shape: tuple[int], dtype: type) -> np.ndarray:
            cls.allocated.append(shape[0])
            return np.zeros(shape, dtype)

    monkeypatch.setitem(sys.modules, "pynq", Pynq)
    driver = SrDriver.open("sr.bit", board.interface)
    driver.load_weights(made_loaded.folder / "weights.bin")
    assert np.array_equal(driver.run(made_loaded.images[2]), run(made_loaded.graph, made_loaded.images)[2])
    assert Pynq.allocated == [layout.frame_bytes for layout in (*board.layouts, board.layout)]


def in_bundle(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_in_the_bundle(made_loaded, tmp_path: Path):
    """The driver finds weights.bin itself and wants to know the DMA; the self-test can fail."""
    folder = shutil.copytree(made_loaded.folder, tmp_path / "bundle")
    done = in_bundle(folder, "-c", "from host.sr_driver import SrDriver; SrDriver(None)")
    assert done.returncode == 1 and "ValueError: the weights of this design are written at run time" in done.stderr
    done = in_bundle(folder, "-m", "host.selftest")
    assert done.returncode == 0 and f"{len(made_loaded.design.loads)} weights before them" in done.stdout, done.stderr
    words = bytearray((folder / "weights.bin").read_bytes())
    words[5] ^= 1
    (folder / "weights.bin").write_bytes(words)
    done = in_bundle(folder, "-m", "host.selftest")
    assert done.returncode == 1 and "weights.bin has other words than golden/weights.hex" in done.stderr
