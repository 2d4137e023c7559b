"""DSP slices, block and UltraRAM of a design by rule, before any synthesis. LUTs and flip-flops: `costs`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from srq_hw.backends.rtl.folding import ConvShape
from srq_hw.backends.rtl.memories import URAM_BITS, row_words
from srq_hw.backends.rtl.netlist import CONVS, FABRIC, Instance, Netlist

#: (words, bits) shapes of an 18 Kbit block RAM with one reader and one writer (AMD UG573)
RAMB18 = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))
#: words and bits of an UltraRAM
URAM = (4096, URAM_BITS)
#: a memory of fewer bits than this stays in LUTs
LUT_MEMORY_BITS = 2048
#: bits of the multiplier that one DSP takes in srq_wide_multiply, the sign apart
MULT_PART = 17


@dataclass(frozen=True)
class Demand:
    """DSP slices, 18 Kbit block RAMs, UltraRAMs."""

    dsp: int
    bram18: int
    uram: int

    @property
    def bram36(self) -> float:
        """In blocks of 36 Kbit; a half is an 18 Kbit one."""
        return self.bram18 / 2


def demand(netlist: Netlist) -> Demand:
    """Sum over the instances."""
    found = [blocks(instance) for instance in netlist.instances]
    return Demand(
        sum(dsps(instance) for instance in netlist.instances),
        sum(block for block, _ in found),
        sum(ultra for _, ultra in found),
    )


def blocks(instance: Instance) -> tuple[int, int]:
    """18 Kbit block RAMs and UltraRAMs of an instance."""
    found = list(memories(instance))
    return (
        sum(bram18(words, bits) for words, bits, ultra in found if not ultra),
        sum(uram(words, bits) for words, bits, ultra in found if ultra),
    )


def bram18(words: int, bits: int) -> int:
    """18 Kbit blocks for a memory; 0 where it stays in LUTs."""
    if words * bits < LUT_MEMORY_BITS:
        return 0
    return min(-(-words // depth) * -(-bits // width) for depth, width in RAMB18)


def uram(words: int, bits: int) -> int:
    """UltraRAMs for a memory."""
    return -(-words // URAM[0]) * -(-bits // URAM[1])


def packed(beats: int, bits: int) -> tuple[int, int]:
    """Words and bits of a memory of beats in UltraRAM as srq_window has it: each in 9-bit bytes of its own."""
    parts = next((n for n in (8, 4, 2) if n * bits <= URAM[1]), 1)
    return (-(-beats // parts), URAM[1]) if parts > 1 else (beats, bits)


def _conv_dsps(instance: Instance) -> int:
    p = _numbers(instance)
    depthwise = bool(p.get("DEPTHWISE", 0))
    channels = p["CHANNELS_OUT"]
    shape = ConvShape(
        pixels=1, inside=p["CHANNELS_IN"], out=channels, taps=1, groups=channels if depthwise else 1,
        weight_bits=p["W_BITS"], act_bits=p["A_BITS"], narrow=bool(p["W_NARROW"]),
        port=p.get("PORT", FABRIC.port),
    )  # fmt: skip
    return shape.dsps(p["PE"], p["SIMD"])


def _requant_dsps(instance: Instance) -> int:
    p = _numbers(instance)
    if not p["MULTIPLY"]:
        return 0
    return p["LANES"] * _parts(p["ACC_BITS"], p.get("PORT", FABRIC.port) - 1) * _parts(p["MULT_BITS"], MULT_PART)


def _parts(bits: int, part: int) -> int:
    return (bits - 2) // part + 1 if bits > part + 1 else 1


def dsps(instance: Instance) -> int:
    """DSP slices of an instance: its multiplications."""
    rule = _DSPS.get(instance.module)
    return rule(instance) if rule else 0


def _add_dsps(instance: Instance) -> int:
    """A power of two is a shift."""
    p = _numbers(instance)
    factors = [(p[f"{side}_FACTOR"], p[f"{side}_BITS"] + 2) for side in "AB"]
    real = [bits for factor, bits in factors if factor & (factor - 1)]
    return p["LANES"] * sum(_parts(bits, FABRIC.port - 1) * _parts(p["FACTOR_BITS"], MULT_PART) for bits in real)


_DSPS: dict[str, Callable[[Instance], int]] = {
    **dict.fromkeys(CONVS, _conv_dsps),
    "srq_requant": _requant_dsps,
    "srq_add": _add_dsps,
}


def memories(instance: Instance) -> Iterator[tuple[int, int, bool]]:
    """(words, bits, whether in UltraRAM) of each memory of an instance, in UltraRAM with its beats or words packed."""
    p, ultra = _numbers(instance), instance.parameters.get("RAM_STYLE") == "ultra"
    if instance.module in CONVS:
        source = instance.ports["s"]
        rows, columns = p["KH"], p["KW"]
        if rows * columns > 1:
            buffer = rows * source.width * source.folds + columns * source.folds, source.tdata_bits
            yield *(packed(*buffer) if ultra else buffer), ultra
        if instance.parameters["WEIGHT_STYLE"] == "ultra":
            yield *stored(*weight_words(p)), True
        elif instance.parameters["WEIGHT_STYLE"] == "block":
            yield *weight_words(p), False
    elif instance.module == "srq_fifo":
        yield p["DEPTH"], p["BITS"] + 1, ultra
    elif instance.module in ("srq_shuffle", "srq_repeat"):
        source = instance.ports["s"]
        lanes = source.channels if p.get("CRD") or p.get("IN_LANES") != p.get("OUT_LANES") else source.lanes
        yield 2 * source.width * source.channels // lanes, lanes * source.bits, ultra
    elif instance.module == "srq_store":
        yield *stored(p["DEPTH"], p["WIDTH"]), True


def weight_words(p: Mapping[str, int]) -> tuple[int, int]:
    """Words of a convolution's weights, and bits of each: what it multiplies in a cycle. p: its parameters."""
    simd, inside = p["SIMD"], p["CHANNELS_IN"] // p.get("GROUPS", 1)
    if p.get("DEPTHWISE"):
        simd = inside = 1
    return p["CHANNELS_OUT"] // p["PE"] * p["KH"] * p["KW"] * inside // simd, p["PE"] * simd * p["W_BITS"]


def stored(words: int, bits: int) -> tuple[int, int]:
    """Rows and bits of a memory of words in UltraRAM as srq_store has it: as many words to a row as go into one."""
    pack = row_words(words, bits)
    return -(-words // pack), pack * bits


def _numbers(instance: Instance) -> dict[str, int]:
    return {key: value for key, value in instance.parameters.items() if isinstance(value, int)}
