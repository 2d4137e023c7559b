"""Cutting an image into tiles that overlap by the receptive field, so that the bits do not depend on the cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from srq_hw.errors import InputError
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.ops import OPS
from srq_hw.simulate.plan import Plan

Tile = int | Literal["auto"] | None

#: Memory for feature maps that ``tile="auto"`` keeps to.
AUTO_BYTES = 256 << 20


@dataclass(frozen=True)
class Span:
    """One side of a tile in input pixels: [first, last) is its own, [before, behind) what it reads."""

    first: int
    last: int
    before: int
    behind: int

    @property
    def outer(self) -> slice:
        """What it reads, in the input image."""
        return slice(self.before, self.behind)

    def image(self, scale: int) -> slice:
        """Its own part, in the output image."""
        return slice(self.first * scale, self.last * scale)

    def inside(self, scale: int) -> slice:
        """Its own part, in the output of the tile."""
        return slice((self.first - self.before) * scale, (self.last - self.before) * scale)


def halo(graph: IntGraph) -> int:
    """How many pixels around its own area an output pixel can depend on, in pixels of the input: the receptive field.

    Backwards through the graph: a neighbourhood adds its radius, an upscaling divides what is behind it, rounded up.
    """
    need = dict.fromkeys(graph.tensors, 0)
    for node in reversed(graph.nodes):
        factor = graph.tensors[node.output].upscale // graph.tensors[node.inputs[0]].upscale
        for name in node.inputs:
            need[name] = max(need[name], -(-need[node.output] // factor) + OPS[node.op].halo(node))
    return need[graph.input]


def spans(length: int, side: int, margin: int) -> list[Span]:
    """As many equal parts of at most ``side`` pixels as cover the length; the margin is clipped to the image."""
    count = -(-length // side)
    cuts = [length * i // count for i in range(count + 1)]
    return [Span(a, b, max(0, a - margin), min(length, b + margin)) for a, b in pairwise(cuts)]


def tiles(height: int, width: int, side: int, margin: int) -> Iterator[tuple[Span, Span]]:
    """(rows, columns) of every tile; tiles of one size follow one another, so that they can use the same buffers."""
    found = [(rows, columns) for rows in spans(height, side, margin) for columns in spans(width, side, margin)]
    return iter(sorted(found, key=lambda t: (t[0].behind - t[0].before, t[1].behind - t[1].before)))


def tile_side(tile: Tile, height: int, width: int, plan: Plan) -> int:
    """The side that a wish means for this image: see `fast.FastProgram.run`. InputError where it is no wish."""
    if tile is None:
        return max(height, width)
    if tile == "auto":
        pixels = AUTO_BYTES // plan.bytes_per_pixel
        if height * width <= pixels:
            return max(height, width)
        margin = halo(plan.graph)
        # Where the halo alone fills the memory, tiles as wide as the halo: four ninths of the work is lost, not all.
        return max(int(pixels**0.5) - 2 * margin, margin, 16)
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 1:
        raise InputError(f'tile {tile!r}; wanted "auto", none, or a side of at least 1 pixel')
    return tile
