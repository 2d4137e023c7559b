"""Whole designs that the cost model is held against: the embedded network and random ones of a few shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from srq_hw.backends.rtl.generate import RtlDesign, generate
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph, random_requant

#: of `make demo`
DEMO = Path(__file__).resolve().parents[2] / "build" / "demo" / "graph.json"


@dataclass(frozen=True)
class Whole:
    """A design: its graph, frame (H, W) and cycles for a pixel."""

    name: str
    graph: Callable[[], IntGraph]
    size: tuple[int, int]
    cycles: int

    def made(self) -> RtlDesign:
        """As `srq-hw build` would generate it."""
        return generate(self.graph(), self.size, self.size[0] * self.size[1] * self.cycles)


def fsrcnn(weight_bits: int, act_bits: int) -> IntGraph:
    """FSRCNN(56, 12, 4) x4 with random integers; every layer but the last has a slope of its own below 0."""
    random = np.random.default_rng(4)
    build = GraphBuilder(1)

    def conv(source: str, out: int, k: int, name: str, last: bool = False) -> str:
        inside = build.tensors[source].channels
        most = (1 << weight_bits - 1) - 1
        weight = np.clip(np.rint(random.normal(0, most / 3, (out, inside, k, k))), -most, most)
        lo, hi = build.tensors[source].range
        spread = float(np.sqrt(inside * k * k * np.mean(np.square(weight)) * (hi - lo) ** 2 / 12))
        acc = build.conv(source, weight, random.integers(-int(spread), int(spread) + 1, out), name)
        bits = 8 if last else act_bits
        multiplier, shift = random_requant(random, 2.5 * spread, bits, out)
        slope = None if last else random.integers(1, int(multiplier.min()), out)
        return build.requant(acc, multiplier, shift, bits, not last, f"{name}_q", negative_multiplier=slope)

    x = conv(conv("image", 56, 5, "first"), 12, 1, "shrink")
    for index in range(4):
        x = conv(x, 12, 3, f"map{index}")
    x = conv(conv(x, 56, 1, "expand"), 16, 3, "last", last=True)
    return build.finish(build.depth_to_space(x, 4, "shuffle"), "fsrcnn_x4")


def designs() -> list[Whole]:
    """All of them; the embedded network where `make demo` has been run."""
    small = (24, 32)
    made = [
        Whole("FSRCNN x4, 8 bits, slow", lambda: fsrcnn(8, 8), small, 600),
        Whole("EDSR 8 features, 4 bits", lambda: edsr_graph(8, 1, weight_bits=4, act_bits=4), small, 72),
        Whole("FSRCNN x4, 4 bits, faster", lambda: fsrcnn(4, 4), small, 200),
        Whole("EDSR 16 features, 8 bits", lambda: edsr_graph(16, 1), small, 288),
    ]
    if DEMO.is_file():
        made.insert(1, Whole("embedded network, 8 bits, slow", lambda: IntGraph.load(DEMO), small, 648))
        made.append(Whole("embedded network, 8 bits, faster", lambda: IntGraph.load(DEMO), small, 216))
    return made
