"""What units have in common in LUTs and registers: adder trees, constant memories, memories as Yosys maps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from srq_hw.backends.rtl.demand import RAMB18
from srq_hw.backends.rtl.netlist import Instance

#: the term of a unit's count of beats, which makes tlast; in a design nobody reads it, and synthesis drops it
FRAME = "frame"
#: (words, bits) of block RAMs of 18 and 36 Kbit
BLOCKS = (*RAMB18, (32768, 1), (16384, 2), (8192, 4), (4096, 9), (2048, 18), (1024, 36), (512, 72))
#: what an 18 Kbit block RAM costs Yosys, and eight LUTs as memory (lutrams_xcu.txt, brams_xc4v.txt of synth_xilinx)
BLOCK_PRICE, LUT_PRICE = 129, 16


@dataclass(frozen=True)
class Terms:
    """Name -> amount, of the LUTs and of the flip-flops of an instance."""

    lut: Mapping[str, float]
    ff: Mapping[str, float]


def counter_bits(count: int) -> int:
    """Of a counter 0 .. count - 1, as the library declares it: at least 1."""
    return max(1, (count - 1).bit_length())


def tree(numbers: int, width: int) -> tuple[int, int]:
    """Adder bits and register bits of srq_adder_tree."""
    adders = registers = 0
    while numbers > 1:
        width += 1
        adders += numbers // 2 * width
        numbers = -(-numbers // 2)
        registers += numbers * width
    return adders, registers


@dataclass(frozen=True)
class Rom:
    """Bits of up to 16, 32 and 64 words (more words: as often as there are 64 of them); registers."""

    bits16: int
    bits32: int
    bits64: int
    registers: int

    def terms(self) -> dict[str, float]:
        """As terms of LUTs: the logic of a bit grows with its address, which is found to be more than one LUT."""
        return {"rom16": self.bits16, "rom32": self.bits32, "rom64": self.bits64}


NO_ROM = Rom(0, 0, 0, 0)


def rom_sum(made: Iterable[Rom]) -> Rom:
    """Several together."""
    fields = ("bits16", "bits32", "bits64", "registers")
    kept = list(made)
    return Rom(*(sum(getattr(one, field) for one in kept) for field in fields))


def in_block(words: int, bits: int) -> bool:
    """Yosys takes block RAM for a constant memory whose bits, 64 to a LUT, cost more than the blocks."""
    return words * bits / 64 > block(words, bits).price


def rom(text: str | None, words: int, bits: int, chosen: bool = False) -> Rom:
    """A constant memory in LUTs with a registered reader.

    Bits that are equal in all words share both, and a bit that is 0 in all of them needs neither. text: None where the
    contents are not known: all bits differ then, as far as so few words let them. Nothing where it is in block RAM.
    chosen: the source says LUTs, whatever Yosys would take.
    """
    if not chosen and in_block(words, bits):
        return NO_ROM
    if text is None:
        different = min(bits, (1 << min(words, 40)) - 1)
    else:
        # Columns as numbers: bit w of number b is bit b of word w.
        lines = text.split()
        digits = len(lines[0])
        raw = np.frombuffer(bytes.fromhex("".join(line.zfill(digits + digits % 2) for line in lines)), np.uint8)
        columns = np.packbits(np.unpackbits(raw.reshape(len(lines), -1), axis=1), axis=0)
        columns = columns[:, columns.any(0)]
        different = np.unique(columns, axis=1).shape[1] if columns.size else 0
    if words <= 2:
        return Rom(0, 0, 0, different)  # a bit of the address, or its inverse
    if words <= 16:
        return Rom(different, 0, 0, different)
    if words <= 32:
        return Rom(0, different, 0, different)
    return Rom(0, 0, different * -(-words // 64), different)


@dataclass(frozen=True)
class Memory:
    """A memory with one reader: LUTs that hold it, multiplexer bits behind it, output registers, Yosys' price."""

    luts: float
    mux: float
    registers: int
    price: float


NO_MEMORY = Memory(0, 0, 0, 0)


def block(words: int, bits: int) -> Memory:
    """In block RAMs, several behind a multiplexer where that takes fewer."""
    found = []
    for depth, width in BLOCKS:
        deep = -(-words // depth)
        blocks = -(-bits // width) * deep * (2 if depth * width > 18432 else 1)
        found.append(Memory(0, bits * -(-(deep - 1) // 3), 0, BLOCK_PRICE * blocks + bits * (deep - 1) / 2))
    return min(found, key=lambda memory: memory.price)


def lut_ram(words: int, bits: int) -> Memory:
    """In LUTs, eight of which hold 32 x 14 or 64 x 7 bits."""
    found = []
    for depth, width in ((32, 14), (64, 7)):
        deep = -(-words // depth)
        price = bits * (LUT_PRICE * deep / width + (deep - 1) / 2)
        found.append(Memory(8 * deep * -(-bits // width), bits * -(-(deep - 1) // 3), bits, price))
    return min(found, key=lambda memory: memory.price)


def ram(words: int, bits: int) -> Memory:
    """A memory with one reader and one writer, where Yosys puts it. It compares its own costs.

    They are BLOCK_PRICE, LUT_PRICE by the share of the bits that is used, and 0.5 for each bit of a multiplexer.
    """
    return min(block(words, bits), lut_ram(words, bits), key=lambda memory: memory.price)


def buffer(instance: Instance, words: int, bits: int) -> Memory:
    """Of rows or a queue, in UltraRAM where that is asked for."""
    return NO_MEMORY if instance.parameters.get("RAM_STYLE") == "ultra" else ram(words, bits)


def alone(numbers: int) -> int:
    """Levels of srq_adder_tree that its last number passes without a partner."""
    levels = 0
    while numbers > 1 and numbers % 2:
        levels, numbers = levels + 1, numbers // 2 + 1
    return levels
