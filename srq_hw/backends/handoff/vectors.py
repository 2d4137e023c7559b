"""Feature maps as the beats of an AXI stream, the way FINN's nodes read and write them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from srq_hw.fixedpoint import int_range
from srq_hw.graph.ir import Int


@dataclass(frozen=True)
class Stream:
    """One AXI stream of the design.

    A frame is sent row by row, pixel by pixel. Beat b of a pixel carries channels b*lanes .. b*lanes + lanes - 1, the
    lowest in the least significant bits, each `element_bits` wide (two's complement where signed). tdata_bits is the
    width rounded up to whole bytes; the bits above data_bits are 0 in the vectors and without meaning.
    """

    node: str
    height: int
    width: int
    channels: int
    element_type: str
    element_bits: int
    signed: bool
    lanes: int
    beats_per_pixel: int
    data_bits: int
    tdata_bits: int
    beats_per_frame: int
    order: str = "row, column, beat; lane 0 in the least significant bits"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def stream_of(side: dict[str, Any]) -> Stream:
    """The stream described by one side of `FinnResult.streams`."""
    _, height, width, channels = side["shape"]
    lanes = int(side["folded_shape"][-1])
    bits = int(side["bits"]) // lanes
    return Stream(
        node=side["node"],
        height=height,
        width=width,
        channels=channels,
        element_type=side["dtype"],
        element_bits=bits,
        signed=not side["dtype"].startswith("U"),
        lanes=lanes,
        beats_per_pixel=channels // lanes,
        data_bits=bits * lanes,
        tdata_bits=-(-bits * lanes // 8) * 8,
        beats_per_frame=height * width * (channels // lanes),
    )


def to_hex(values: Int, stream: Stream) -> str:
    """One line of hex digits per beat (tdata_bits / 4 digits), ending in a newline.

    values: int64 (H, W, C) of the stream's shape. ValueError where shape or range does not fit the stream.
    """
    if values.shape != (stream.height, stream.width, stream.channels):
        raise ValueError(f"values {values.shape}; the stream carries {stream.height, stream.width, stream.channels}")
    lo, hi = int_range(stream.element_bits, stream.signed)
    if int(values.min()) < lo or int(values.max()) > hi:
        raise ValueError(f"values {values.min()}..{values.max()} outside {stream.element_type}")
    mask, digits = (1 << stream.element_bits) - 1, stream.tdata_bits // 4
    lines = []
    for beat in values.reshape(-1, stream.lanes).tolist():
        word = 0
        for value in reversed(beat):
            word = word << stream.element_bits | value & mask
        lines.append(f"{word:0{digits}x}\n")
    return "".join(lines)


def from_hex(text: str, stream: Stream) -> list[list[int]]:
    """The lanes of every beat, as integers: the inverse of `to_hex`."""
    mask, sign = (1 << stream.element_bits) - 1, 1 << (stream.element_bits - 1)
    beats = []
    for line in text.split():
        word = int(line, 16)
        lanes = [word >> (stream.element_bits * lane) & mask for lane in range(stream.lanes)]
        beats.append(
            [value - (1 << stream.element_bits) if stream.signed and value & sign else value for value in lanes]
        )
    return beats
