"""The AXI4-Streams of a design as the bundle describes them: bit layout, padding, DMA words, golden vectors."""

from __future__ import annotations

from typing import Any

from srq_hw.backends.handoff.vectors import Stream, to_hex
from srq_hw.backends.rtl import netlist
from srq_hw.errors import InputError
from srq_hw.graph.ir import Int

TDATA_LIMIT = 4096  # widest stream of Vivado's AXI4-Stream blocks: 512 bytes (PG085)
DMA_WORD_BITS = 1024  # widest stream of AXI DMA (PG021)
DMA_LENGTH_BITS = 26  # of its length register: bytes of one transfer


def layout_of(stream: netlist.Stream) -> Stream:
    """The stream padded to whole bytes. InputError where its beat is wider than an AXI4-Stream block takes."""
    layout = Stream(
        node=stream.name,
        height=stream.height,
        width=stream.width,
        channels=stream.channels,
        element_type=f"{'INT' if stream.signed else 'UINT'}{stream.bits}",
        element_bits=stream.bits,
        signed=stream.signed,
        lanes=stream.lanes,
        beats_per_pixel=stream.folds,
        data_bits=stream.tdata_bits,
        tdata_bits=-(-stream.tdata_bits // 8) * 8,
        beats_per_frame=stream.beats,
    )
    if layout.tdata_bits > TDATA_LIMIT:
        raise InputError(
            f"hand-off bundle: stream {stream.name} has {layout.tdata_bits} bits of tdata ({stream.lanes} lanes of "
            f"{stream.bits}); allowed: at most {TDATA_LIMIT}. Fold for more cycles per frame"
        )
    return layout


def dma_word_bytes(layout: Stream) -> int:
    """Bytes of a beat in a DMA buffer: the next power of two, which is what a DMA has as stream width."""
    return 1 << (layout.tdata_bits // 8 - 1).bit_length()


def dma_problem(layout: Stream, unit: str = "a frame") -> str:
    """Why an AXI DMA cannot carry the stream; "" where it can. unit: what one transfer is."""
    word = dma_word_bytes(layout)
    if 8 * word > DMA_WORD_BITS:
        return f"a beat of {layout.tdata_bits} bits is wider than the {DMA_WORD_BITS} bits of AXI DMA"
    if word * layout.beats_per_frame >= 1 << DMA_LENGTH_BITS:
        return (
            f"{unit} of {word * layout.beats_per_frame} bytes exceeds one DMA transfer (2^{DMA_LENGTH_BITS} - 1 bytes)"
        )
    return ""


def describe(layout: Stream, port: str) -> dict[str, Any]:
    """One stream of interface.json."""
    told = layout.as_dict() | {"port": port, "dma_word_bytes": dma_word_bytes(layout)}
    del told["node"]
    return told | {"dma_bytes_per_frame": told["dma_word_bytes"] * layout.beats_per_frame}


def frames_hex(frames: Int, layout: Stream) -> str:
    """Frames (N, H, W, C) one after the other, a beat per line."""
    return "".join(to_hex(frame, layout) for frame in frames)


def checksum(text: str) -> int:
    """What sim/testbench.v computes of a golden file: sum = rotate left(sum) xor every 32-bit part, beat after beat."""
    total = 0
    for line in text.split():
        word = int(line, 16)
        total = (total << 1 | total >> 31) & 0xFFFFFFFF
        while word:
            total ^= word & 0xFFFFFFFF
            word >>= 32
    return total
