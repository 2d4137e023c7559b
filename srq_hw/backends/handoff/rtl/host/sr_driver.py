"""Runs images through the design on a board, in the style of PYNQ. Needs numpy; pynq only where a board is used.

    driver = SrDriver.open("sr.bit")              # beside it: sr.hwh; both from scripts/block_design.tcl
    driver.load_weights()                         # only where interface.json has "weights"; again after a reset
    big = driver.run(image)                       # (H, W, C) integers -> (H * scale, W * scale, C) integers

An image is packed as interface.json says: row by row, pixel by pixel; a beat holds `lanes` channels, the lowest in the
least significant bits; a beat takes `dma_word_bytes` of the buffer, little-endian, its upper bits 0.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BUNDLE = Path(__file__).resolve().parent.parent
INTERFACE = BUNDLE / "interface.json"
WEIGHTS = BUNDLE / "weights.bin"
DMA_LIMIT = (1 << 26) - 1  # bytes of one transfer
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """One stream of interface.json."""

    name: str
    height: int
    width: int
    channels: int
    lanes: int
    bits: int
    signed: bool
    word_bytes: int

    @property
    def beats(self) -> int:
        """Beats per frame."""
        return self.height * self.width * self.channels // self.lanes

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame in a DMA buffer."""
        return self.beats * self.word_bytes

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and greatest value."""
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of an unpacked image."""
        width = next(width for width in (8, 16, 32, 64) if self.bits <= width)
        return np.dtype(f"{'' if self.signed else 'u'}int{width}")


def _layout(streams: dict[str, Any], side: str) -> Layout:
    keys = ("height", "width", "channels", "lanes", "element_bits", "signed", "dma_word_bytes")
    return Layout(side, *(streams[side][key] for key in keys))


def read_layouts(interface: Path = INTERFACE) -> tuple[Layout, Layout]:
    """Input and output stream of interface.json."""
    streams = json.loads(interface.read_text())["streams"]
    return _layout(streams, "input"), _layout(streams, "output")


def read_weights_layout(interface: Path = INTERFACE) -> Layout | None:
    """The stream of weights of interface.json, a word per beat; None where none are written at run time."""
    streams = json.loads(interface.read_text())["streams"]
    return _layout(streams, "weights") if "weights" in streams else None


def pack(image: npt.NDArray[Any], layout: Layout) -> Bytes:
    """An image (H, W, C) as the bytes of a DMA buffer, uint8 (frame_bytes,).

    TypeError for anything but integers, ValueError for another size or values that do not fit.
    """
    image = np.asarray(image)
    wanted = (layout.height, layout.width, layout.channels)
    if not np.issubdtype(image.dtype, np.integer):
        raise TypeError(f"{layout.name} image of type {image.dtype}; wanted integers, for instance {layout.dtype}")
    if image.shape != wanted:
        raise ValueError(f"{layout.name} image of shape {image.shape}; wanted {wanted} (height, width, channels)")
    lo, hi = layout.range
    if int(image.min()) < lo or int(image.max()) > hi:
        raise ValueError(f"{layout.name} image has values {image.min()} to {image.max()}; wanted {lo} to {hi}")
    words = np.zeros((layout.beats, layout.word_bytes), np.uint8)
    if layout.bits == 8:
        words[:, : layout.lanes] = image.astype(layout.dtype).view(np.uint8).reshape(-1, layout.lanes)
        return words.reshape(-1)
    values = image.astype(np.int64).reshape(-1, layout.lanes, 1)
    bits = (values >> np.arange(layout.bits) & 1).astype(np.uint8).reshape(layout.beats, -1)
    packed = np.packbits(bits, axis=1, bitorder="little")
    words[:, : packed.shape[1]] = packed
    return words.reshape(-1)


def unpack(buffer: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
    """The image (H, W, C) of a DMA buffer, uint8 (frame_bytes,): the inverse of `pack`. The upper bits are not read."""
    buffer = np.asarray(buffer)
    if buffer.dtype != np.uint8 or buffer.shape != (layout.frame_bytes,):
        raise ValueError(
            f"{layout.name} buffer of {buffer.dtype} {buffer.shape}; wanted uint8 ({layout.frame_bytes},), one frame"
        )
    shape = (layout.height, layout.width, layout.channels)
    words = buffer.reshape(layout.beats, layout.word_bytes)
    if layout.bits == 8:
        return np.ascontiguousarray(words[:, : layout.lanes]).view(layout.dtype).reshape(shape)
    bits = np.unpackbits(words, axis=1, count=layout.lanes * layout.bits, bitorder="little")
    values = bits.reshape(-1, layout.bits).astype(np.int64) @ (np.int64(1) << np.arange(layout.bits))
    if layout.signed:
        values -= (values >> layout.bits - 1) << layout.bits
    return values.astype(layout.dtype).reshape(shape)


@dataclass(frozen=True)
class WeightsPort:
    """Where weights are written at run time: their stream, a DMA with a ``sendchannel`` for them.

    control: the GPIO that reads weights_error (``channel1[0].read()``), None: there is none.
    """

    layout: Layout
    dma: Any
    control: Any = None

    def error(self) -> bool:
        """Whether a set ended early or late since the last reset."""
        return self.control is not None and bool(self.control.channel1[0].read())


class SrDriver:
    """Frames through a DMA with PYNQ's interface: ``dma.sendchannel`` and ``dma.recvchannel``, each with
    ``transfer(buffer)`` and ``wait()``.

    allocate(shape, dtype): makes a buffer that the DMA can reach (pynq.allocate on a board).
    control: the GPIO of the block design (``channel1[0].read()``, ``channel2[0].write(value)``), None: there is none.
    weights: of a design whose weights are written at run time; `load_weights` comes before `run` then.
    """

    def __init__(
        self,
        dma: Any,
        layouts: tuple[Layout, Layout] | None = None,
        allocate: Callable[..., Any] = np.zeros,
        control: Any = None,
        weights: WeightsPort | None = None,
    ) -> None:
        if layouts is None and weights is None and read_weights_layout() is not None:
            raise ValueError("the weights of this design are written at run time: SrDriver needs their DMA (weights)")
        self.source, self.result = read_layouts() if layouts is None else layouts
        if weights is not None and weights.layout.frame_bytes > DMA_LIMIT:
            raise ValueError(f"weights: a set of {weights.layout.frame_bytes} bytes; one transfer has {DMA_LIMIT}")
        for layout in (self.source, self.result):
            if layout.frame_bytes > DMA_LIMIT:
                raise ValueError(f"{layout.name}: a frame of {layout.frame_bytes} bytes; one transfer has {DMA_LIMIT}")
        self.dma = dma
        self.control = control
        self._sent = allocate((self.source.frame_bytes,), np.uint8)
        self._received = allocate((self.result.frame_bytes,), np.uint8)
        self.weights = weights
        self._loaded = weights is None
        self._set: Any = None if weights is None else allocate((weights.layout.frame_bytes,), np.uint8)

    @classmethod
    def open(cls, bitfile: str | Path, interface: Path = INTERFACE) -> SrDriver:
        """Load the bitstream of scripts/block_design.tcl on the board this runs on. Needs pynq."""
        try:
            pynq = importlib.import_module("pynq")
        except ImportError as error:
            raise RuntimeError("pynq is not installed: SrDriver.open runs on a board with PYNQ only") from error
        overlay = pynq.Overlay(str(bitfile))
        layout = read_weights_layout(interface)
        weights = None if layout is None else WeightsPort(layout, overlay.weights_dma, overlay.weights_control)
        return cls(overlay.axi_dma, read_layouts(interface), pynq.allocate, overlay.control, weights)

    def load_weights(self, weights: str | Path | npt.NDArray[Any] = WEIGHTS) -> None:
        """Send a set of weights: before the first `run`, again after `reset`; another set between any two runs.

        weights: a file like weights.bin, or its 32-bit words as integers (words,).
        ValueError for a set of another length than the design takes; RuntimeError where the weights are part of the
        design, or where it reports weights_error.
        """
        if self.weights is None:
            raise RuntimeError("the weights of this design are part of it: there is nothing to load")
        layout = self.weights.layout
        if isinstance(weights, (str, Path)):
            data = np.frombuffer(Path(weights).read_bytes(), np.uint8)
            if data.size != layout.frame_bytes:
                raise ValueError(f"{weights} has {data.size} bytes; this design takes {layout.frame_bytes}")
        else:
            words = np.asarray(weights)
            if words.shape != (layout.beats,):
                raise ValueError(f"weights of shape {words.shape}; this design takes ({layout.beats},) words")
            data = pack(words.reshape(layout.height, layout.width, layout.channels), layout)
        self._loaded = False
        self._set[:] = data
        self.weights.dma.sendchannel.transfer(self._set)
        self.weights.dma.sendchannel.wait()
        if self.weights_error():
            raise RuntimeError(
                "the design reports weights_error: a set had another length; call reset(), then load_weights()"
            )
        self._loaded = True

    def run(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """One image through the design: (H, W, C) integers in, (H * scale, W * scale, C) out, a new array.

        RuntimeError where the design saw a misplaced end of frame (`reset` clears that), or has no weights yet.
        """
        if not self._loaded:
            raise RuntimeError(
                "the design has no weights: call load_weights() before the first run and after every reset()"
            )
        self._sent[:] = pack(image, self.source)
        self.dma.recvchannel.transfer(self._received)  # first the receiver, so that no beat waits for it
        self.dma.sendchannel.transfer(self._sent)
        self.dma.sendchannel.wait()
        self.dma.recvchannel.wait()
        if self.frame_error():
            raise RuntimeError("the design reports frame_error: a frame had another length; call reset()")
        return unpack(np.array(self._received), self.result)

    def run_many(self, images: Iterable[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """`run` for one image after the other."""
        return [self.run(image) for image in images]

    def frame_error(self) -> bool:
        """Whether a frame ended early or late since the last reset; False where the block design has no GPIO."""
        return self.control is not None and bool(self.control.channel1[0].read())

    def weights_error(self) -> bool:
        """Whether a set of weights ended early or late since the last reset; False where none are written."""
        return self.weights is not None and self.weights.error()

    def reset(self) -> None:
        """Reset the design, not the DMA. Only while no frame is under way. Weights that were written are gone then."""
        if self.control is None:
            raise RuntimeError("this block design has no GPIO to reset the design with")
        self._loaded = self.weights is None
        self.control.channel2[0].write(1)
        self.control.channel2[0].write(0)
