"""srq_store against numpy: shares of a chain, sets after sets, an endless stream of words; UltraRAM as it counts it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl.memories import hex_words, load_beats
from srq_hw.backends.rtl.synth import synthesise
from srq_hw.backends.rtl.verilate import BoolArray
from srq_hw.tools import find_tool
from tests.backends.rtl.bench import Bench, Design, IntArray, Port, check, flowing, library, random_beats

LOAD = 32
SOURCES = (*library("store", "skid"), Path(__file__).with_name("asked_store.v"))
#: (bits of a word, words, style): one to 72 words to a row, rows of one beat and of many, whole and not whole
SHAPES = [
    (1, 7, "ultra"),
    (1, 200, "ultra"),
    (5, 64, "ultra"),
    (9, 64, "ultra"),
    (9, 7, "block"),
    (16, 1, "ultra"),
    (24, 7, "ultra"),
    (36, 1, "ultra"),
    (36, 2, "ultra"),
    (36, 7, "ultra"),
    (37, 64, "ultra"),
    (64, 1, "ultra"),
    (72, 7, "distributed"),
    (100, 2, "ultra"),
    (512, 7, "ultra"),
]


@dataclass(frozen=True)
class Shape:
    """A store as the module's header describes it."""

    width: int
    depth: int
    style: str

    @property
    def m(self) -> Port:
        lanes = next(lanes for lanes in range(1, 99) if self.width % lanes == 0 and self.width // lanes <= 48)
        return Port("m", lanes, self.width // lanes)

    @property
    def pack(self) -> int:
        """Words to a row."""
        return min(72 // self.width, self.depth) if self.style == "ultra" and self.width <= 36 else 1

    @property
    def beats(self) -> int:
        """Beats of the store's share."""
        return ceil(self.depth / self.pack) * ceil(self.pack * self.width / LOAD)

    def share(self, words: IntArray, seed: int) -> IntArray:
        """Words (depth, lanes) as beats (beats, 1). Bits of a row that are no word's are drawn: nobody reads them."""
        bits = (words[:, :, None] >> np.arange(self.m.bits) & 1).reshape(self.depth, self.width)
        rows, row = ceil(self.depth / self.pack), self.pack * self.width
        padded = np.random.default_rng(seed).integers(0, 2, (rows, ceil(row / LOAD) * LOAD))
        inner = np.random.default_rng(seed).integers(0, 2, (rows * self.pack, self.width))
        inner[: self.depth] = bits
        padded[:, :row] = inner.reshape(rows, row)
        return (padded.reshape(-1, LOAD) << np.arange(LOAD)).sum(1, keepdims=True)

    def design(self) -> Design:
        parameters: dict[str, int | str] = {"WIDTH": self.width, "DEPTH": self.depth, "LOAD": LOAD, "STYLE": self.style}
        inputs = Port("load", 1, LOAD), Port("ask", 3, 16)
        return Design("asked_store", SOURCES, parameters, inputs, (Port("next", 1, LOAD), self.m))

    def words(self, seed: int) -> IntArray:
        return random_beats(self.m, self.depth, seed)

    def rounds(self, words: IntArray) -> IntArray:
        """Two and a half rounds."""
        return np.tile(words, (3, 1))[: ceil(2.5 * self.depth)]


shapes = pytest.mark.parametrize(("width", "depth", "style"), SHAPES)


def ends(*sizes: int) -> BoolArray:
    """tlast of sets of these many beats."""
    last = np.zeros(sum(sizes), np.bool_)
    last[np.cumsum(sizes) - 1] = True
    return last


@shapes
def test_words_are_played_again_and_again(bench: Bench, width: int, depth: int, style: str):
    """A set for this store alone, its last beat with tlast."""
    shape = Shape(width, depth, style)
    words = shape.words(1)
    expected = {"m": shape.rounds(words), "next": np.zeros((0, 1), np.int64)}
    load, ask = shape.share(words, 2), np.array([[len(expected["m"]), 0, 0]])
    assert len(load) == shape.beats
    run = check(shape.design(), bench, {"load": load, "ask": ask}, expected, lasts={"load": ends(len(load))})
    assert run.last["load"] == run.first["load"] + shape.beats - 1
    assert flowing(run, "m") and run.first["m"] - run.last["load"] == (3 if shape.pack == 1 else 4)


@shapes
def test_sets_one_after_the_other(bench: Bench, width: int, depth: int, style: str):
    """Each set's rest goes on with its tlast; a set that nobody asks for is replaced by the next."""
    shape = Shape(width, depth, style)
    sets = [(shape.words(seed), random_beats(Port("next", 1, LOAD), rest, 9)) for seed, rest in enumerate((3, 0, 2, 1))]
    shares = [np.vstack([shape.share(words, 7), rest]) for words, rest in sets]
    played = [shape.rounds(sets[0][0]), np.vstack([sets[2][0], sets[2][0][:1]]), sets[3][0][:1]]
    asks = [(len(played[0]), 1, 0), (0, 0, 0), (len(played[1]), 2, 0), (len(played[2]), 3, 0)]
    expected = {
        "m": np.vstack(played),
        "next": np.vstack([rest for _, rest in sets]),
    }
    run = check(
        shape.design(),
        bench,
        {"load": np.vstack(shares), "ask": np.array(asks)},
        expected,
        lasts={"load": ends(*map(len, shares))},
        lasts_out={"m": np.zeros(len(expected["m"]), np.bool_), "next": ends(3, 2, 1)},
    )
    assert run.first["next"] == run.first["load"] + shape.beats + 1


@pytest.mark.parametrize(("width", "depth", "style"), [shape for shape in SHAPES if Shape(*shape).beats > 1])
def test_a_set_cut_short_plays_nothing(bench: Bench, width: int, depth: int, style: str):
    """Neither while its last beat is missing nor when it ends without, after a whole set as after none; the next one is
    taken from its first beat on."""
    shape = Shape(width, depth, style)
    first, second = (shape.words(seed) for seed in (3, 5))
    parts = [shape.share(first, 4)[1:], shape.share(first, 4), shape.share(second, 4)[:-1], shape.share(second, 6)]
    whole, nothing = len(shape.rounds(first)), np.zeros((0, 1), np.int64)
    run = bench.build(shape.design()).run({"load": parts[2], "ask": np.array([[whole, 0, 0]])}, {"m": 0, "next": 0})
    assert len(run.outputs["m"]) == 0  # nor a beat in the cycles that are watched behind the last
    check(
        shape.design(),
        bench,
        {"load": np.vstack(parts), "ask": np.array([(0, 0, 0), (whole, 0, 0), (0, 0, 0), (whole, 0, 3)])},
        {"m": np.vstack([shape.rounds(first), shape.rounds(second)]), "next": nothing},
        lasts={"load": ends(*map(len, parts))},
    )


@pytest.mark.parametrize(("width", "depth", "style"), [shape for shape in SHAPES if shape[2] == "ultra"])
def test_a_memory_file_as_beats(width: int, depth: int, style: str):
    """`load_beats` writes a share as this test does, its unused bits zero."""
    shape = Shape(width, depth, style)
    words = shape.words(5)
    found = load_beats(hex_words(words, shape.m.bits), width, LOAD)
    shares = [shape.share(words, seed)[:, 0] for seed in range(40)]
    assert list(found) == np.bitwise_and.reduce(shares).tolist()


@pytest.mark.parametrize(("width", "depth", "blocks"), [(16, 1000, 1), (144, 40, 2)])
def test_rows_lie_in_ultraram(tmp_path: Path, width: int, depth: int, blocks: int):
    status = find_tool("yosys")
    if not status.usable:
        pytest.skip(f"yosys: {status.problem}; {status.get}")
    parameters: dict[str, int | str] = {"WIDTH": width, "DEPTH": depth, "LOAD": LOAD, "STYLE": "ultra"}
    figures = synthesise("srq_store", library("store", "skid"), parameters, {}, tmp_path)
    assert (figures.uram, figures.bram36, figures.bram18, figures.lut_memory) == (blocks, 0, 0, 0)
