"""A software model of AXI DMA in simple mode, as PYNQ shows it, around a model of the design: tests without a board.

It has the rules that a driver can break: one transfer at a time per channel, a limited length, wait() only behind a
transfer, a result that must fit the buffer that waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Core = Callable[[Bytes], Bytes]  # the bytes of one frame in, those of its result out


class Channel:
    """One direction. `transfer` starts, `wait` ends when the data has moved."""

    def __init__(self, name: str, limit: int, started: Callable[[], None]) -> None:
        self.name = name
        self.limit = limit
        self.buffer: Any = None
        self.done = False
        self._started = started

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
            raise RuntimeError(f"{self.name}: waits for ever, the other channel has no transfer")
        self.buffer = None


class DmaModel:
    """sendchannel (memory to stream) and recvchannel (stream to memory) around a core."""

    def __init__(self, core: Core, limit: int = (1 << 26) - 1) -> None:
        self.core = core
        self.frames = 0
        self.sendchannel = Channel("sendchannel", limit, self._move)
        self.recvchannel = Channel("recvchannel", limit, self._move)

    def _move(self) -> None:
        """With both ends there, the frame goes through: the core's back-pressure holds it up to then."""
        send, receive = self.sendchannel, self.recvchannel
        if send.buffer is None or receive.buffer is None:
            return
        result = self.core(np.array(send.buffer, np.uint8).reshape(-1))
        if result.nbytes > receive.buffer.nbytes:
            raise RuntimeError(f"recvchannel: DMAIntErr, {result.nbytes} bytes came for {receive.buffer.nbytes}")
        receive.buffer[: result.nbytes] = result
        self.frames += 1
        send.done = receive.done = True


class GpioModel:
    """The GPIO of the block design: channel1[0] reads frame_error, channel2[0] resets the design."""

    class _Pin:
        def __init__(self, read: Callable[[], int], write: Callable[[int], None]) -> None:
            self.read, self.write = read, write

    def __init__(self) -> None:
        self.error = 0
        self.resets = 0
        self.channel1 = [self._Pin(lambda: self.error, self._refuse)]
        self.channel2 = [self._Pin(lambda: 0, self._reset)]

    def _refuse(self, value: int) -> None:
        raise RuntimeError(f"channel 1 is an input; {value} was written")

    def _reset(self, value: int) -> None:
        if value:
            self.error = 0
            self.resets += 1
