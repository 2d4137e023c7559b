"""A software model of AXI DMA in simple mode, as PYNQ shows it, around a model of the design: tests without a board.

It has the rules that a driver can break: one transfer at a time per channel, a limited length, wait() only behind a
transfer, a result that must fit the buffer that waits for it. A design whose weights are written at run time takes no
frame before it has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Core = Callable[[Bytes], Bytes]  # the bytes of one frame in, those of its result out


class _Pin:
    def __init__(self, read: Callable[[], int], write: Callable[[int], None]) -> None:
        self.read, self.write = read, write


def _refuse(value: int) -> None:
    raise RuntimeError(f"channel 1 is an input; {value} was written")


class Channel:
    """One direction. `transfer` starts, `wait` ends when the data has moved."""

    def __init__(
        self, name: str, limit: int, started: Callable[[], None], missing: Callable[[], str] = lambda: "nobody takes it"
    ) -> None:
        """started: what a transfer sets off. missing: what a transfer that does not end waits for."""
        self.name = name
        self.limit = limit
        self.buffer: Any = None
        self.done = False
        self._started = started
        self._missing = missing

    def transfer(self, buffer: Any) -> None:
        """Begin a transfer of the whole buffer."""
        if self.buffer is not None:
            raise RuntimeError(f"{self.name}: DMA channel not idle")
        if not 0 < buffer.nbytes <= self.limit:
            raise ValueError(f"{self.name}: transfer of {buffer.nbytes} bytes; allowed: 1 to {self.limit}")
        self.buffer, self.done = buffer, False
        self._started()

    def wait(self) -> None:
        """Wait for the end of the transfer; RuntimeError where it would wait for ever."""
        if self.buffer is None:
            raise RuntimeError(f"{self.name}: DMA channel not started")
        if not self.done:
            raise RuntimeError(f"{self.name}: waits for ever, {self._missing()}")
        self.buffer = None


class WeightsModel:
    """The memories of a design whose weights are written at run time: its DMA, what it holds, and weights_error."""

    def __init__(self, size: int, limit: int = (1 << 26) - 1) -> None:
        """size: bytes of a set."""
        self.size = size
        self.held: Bytes | None = None
        self.sets = 0
        self.error = 0
        self.sendchannel = Channel("weights sendchannel", limit, self._take)
        self.channel1 = [_Pin(lambda: self.error, _refuse)]
        #: set by the model of the DMA of the frames
        self.frame_inside: Callable[[], bool] = lambda: False
        self.arrived: Callable[[], None] = lambda: None

    def _take(self) -> None:
        """A set is always taken: cut to the length of the design's, or filled with zeros."""
        if self.held is not None and self.frame_inside():
            raise RuntimeError("weights: another set while a frame is inside the design, which spoils the frame")
        sent = np.array(self.sendchannel.buffer, np.uint8).reshape(-1)
        if sent.size != self.size:
            self.error = 1
        self.held = np.zeros(self.size, np.uint8)
        self.held[: sent.size] = sent[: self.size]
        self.sets += 1
        self.sendchannel.done = True
        self.arrived()

    def forget(self) -> None:
        """What a reset of the design does."""
        self.held = None
        self.error = 0


class DmaModel:
    """sendchannel (memory to stream) and recvchannel (stream to memory) around a core.

    weights: of a design that waits for them.
    """

    def __init__(self, core: Core, limit: int = (1 << 26) - 1, weights: WeightsModel | None = None) -> None:
        self.core = core
        self.weights = weights
        if weights is not None:
            weights.arrived = self._move
            weights.frame_inside = lambda: self.sendchannel.buffer is not None and not self.sendchannel.done
        self.frames = 0
        self.sendchannel = Channel("sendchannel", limit, self._move, self._missing)
        self.recvchannel = Channel("recvchannel", limit, self._move, self._missing)

    def _missing(self) -> str:
        if self.weights is not None and self.weights.held is None:
            return "the design has no weights"
        return "the other channel has no transfer"

    def _move(self) -> None:
        """With both ends there, the frame goes through: the core's back-pressure holds it up to then."""
        send, receive = self.sendchannel, self.recvchannel
        if send.buffer is None or receive.buffer is None or (self.weights is not None and self.weights.held is None):
            return
        result = self.core(np.array(send.buffer, np.uint8).reshape(-1))
        if result.nbytes > receive.buffer.nbytes:
            raise RuntimeError(f"recvchannel: DMAIntErr, {result.nbytes} bytes came for {receive.buffer.nbytes}")
        receive.buffer[: result.nbytes] = result
        self.frames += 1
        send.done = receive.done = True


class GpioModel:
    """The GPIO of the block design: channel1[0] reads frame_error, channel2[0] resets the design, weights and all."""

    def __init__(self, weights: WeightsModel | None = None) -> None:
        self.error = 0
        self.resets = 0
        self.weights = weights
        self.channel1 = [_Pin(lambda: self.error, _refuse)]
        self.channel2 = [_Pin(lambda: 0, self._reset)]

    def _reset(self, value: int) -> None:
        if value:
            self.error = 0
            self.resets += 1
            if self.weights is not None:
                self.weights.forget()
