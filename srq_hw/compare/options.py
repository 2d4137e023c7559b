"""What the user of `srq-hw compare` wrote, taken apart and checked before any work starts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from srq_hw.errors import InputError

#: widths that any target may have
NARROWEST, WIDEST = 2, 16
#: bits of the first and last convolutions where the others have fewer than these
EDGE_BITS = 8
EDGES_MOST, SUMS_MOST = 16, 24
#: folder below --data that calibrates where --calib-images names none
CALIBRATION_SET = "General100"
#: what asks for the recipe's own width
KEEP = "recipe"


@dataclass(frozen=True)
class Widths:
    """Bits of weights and of activations."""

    weights: int
    activations: int

    def __str__(self) -> str:
        return f"W{self.weights}A{self.activations}"


@dataclass(frozen=True)
class CompareOptions:
    """Options of one comparison; see `srq-hw compare --help`.

    edges, tail, sums: bits, "none", or None (KEEP): as the recipe says (edges: else EDGE_BITS below that width).
    calib_low: the calibration images are low resolution already. jobs None: one worker per core.
    """

    networks: tuple[str, ...]
    methods: tuple[str, ...]
    widths: tuple[Widths, ...]
    sets: tuple[str, ...]
    data: Path
    out: Path
    weights_dir: Path | None = None
    target: str = "int-generic"
    edges: int | str | None = None
    tail: int | str | None = None
    sums: int | str | None = None
    calib_images: Path | None = None
    calib_low: bool = False
    jobs: int | None = None
    limit: int | None = None


def parse_list(text: str, option: str) -> tuple[str, ...]:
    """ "a,b,b" to ("a", "b"); InputError where nothing is left."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise InputError(f"{option} {text!r}: names nothing; give names divided by commas")
    return found


def parse_widths(text: str, option: str = "--bits") -> tuple[Widths, ...]:
    """ "8,w4a8" to W8A8 and W4A8."""
    found = []
    for part in parse_list(text, option):
        match = re.fullmatch(r"(?:[wW]?(\d{1,3})[aA](\d{1,3})|(\d{1,3}))", part)
        if match is None:
            raise InputError(f"{option} {part!r}: not a width; allowed are 8 (weights and activations alike) or w4a8")
        both = match.group(3)
        widths = Widths(int(both or match.group(1)), int(both or match.group(2)))
        for bits in (widths.weights, widths.activations):
            if not NARROWEST <= bits <= WIDEST:
                raise InputError(f"{option} {part}: {bits} bits; allowed are {NARROWEST} to {WIDEST}")
        found.append(widths)
    return tuple(dict.fromkeys(found))


def parse_policy(text: str | None, option: str, most: int) -> int | str | None:
    """A number of bits, "none" (no width of their own), or None for what the recipe says."""
    if text is None or text == KEEP:
        return None
    if text == "none":
        return text
    if not re.fullmatch(r"\d{1,3}", text) or not NARROWEST <= int(text) <= most:
        raise InputError(f"{option} {text!r}: allowed are {NARROWEST} to {most}, none, or {KEEP}")
    return int(text)
