"""Which folding a FINN design gets, and what both libraries would take at its rate. Needs no FINN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from srq_hw.backends.finn.placement import LIBRARIES, Library
from srq_hw.backends.finn.prepare import Prepared, prepare
from srq_hw.backends.rtl.costs import Cost
from srq_hw.backends.rtl.folding import Folding
from srq_hw.backends.search.finn_library import finn_library
from srq_hw.backends.search.search import MEGAHERTZ, Point, Search, cycles_at
from srq_hw.errors import InputError
from srq_hw.graph.ir import IntGraph
from srq_hw.target import Resources

#: frames per second where the user names none and the device has room
FPS_MOST = 240.0
#: rate of the folding that is kept where nothing fits and the user named none
FPS_FALLBACK = 30.0


@dataclass(frozen=True)
class Wish:
    """A graph, frames of size (H, W), the device, the rate that the user named."""

    graph: IntGraph
    size: tuple[int, int]
    resources: Resources
    fps: float | None


def search_of(wish: Wish, library: Library, prepared: Prepared | None = None) -> Search:
    """The search with a library's units. prepared: the graph as FINN gets it, where it is at hand.

    A FINN design has no stream through which weights could be written at run time, whose units it may be made of.
    """
    if library == "srq":
        return Search.of(wish.graph, wish.size, wish.resources, loads=False)
    ready = prepared or prepare(wish.graph, library, wish.resources.dsp.kind)
    return Search.ready(ready.graph, wish.size, wish.resources, finn_library(wish.resources))


@dataclass(frozen=True)
class Chosen:
    """A folding and the search that it comes from."""

    search: Search
    point: Point

    def folded_for(self, fps: float | None) -> float:
        """The rate that the lanes were chosen for: the user's, or that of the cycles that were searched for."""
        wanted, clock = self.point.folding.wanted, self.point.clock_mhz
        return fps if fps is not None and cycles_at(fps, clock) == wanted else clock * MEGAHERTZ / wanted

    def corrected(self, found: Cost, wish: Wish) -> Chosen:
        """Chosen again where a design was found to take something else than the search said."""
        search = self.search.corrected(self.point.cost, found)
        return Chosen(search, _point(search, wish.fps))


def choose(wish: Wish, prepared: Prepared, library: Library, folding: Folding | None = None) -> Chosen:
    """The wanted rate, or the highest below it that fits; without a wish the highest that fits, FPS_MOST at most.

    Where nothing fits, the folding for the wanted rate, which says what is short. folding: lanes that somebody chose,
    whose open memories are chosen; InputError for lanes that no unit has.
    """
    search = search_of(wish, library, prepared)
    if folding is None:
        return Chosen(search, _point(search, wish.fps))
    try:
        return Chosen(search, search.with_lanes(folding))
    except (KeyError, ValueError) as error:
        raise InputError(f"folding: {error}; wanted lanes for every node of {wish.graph.name}") from error


def _point(search: Search, fps: float | None) -> Point:
    point = search.highest(fps or FPS_MOST)
    return point if point.fits else search.at(fps or FPS_FALLBACK)


def both_libraries(wish: Wish, made: Library, point: Point) -> list[dict[str, Any]]:
    """What the design takes with FINN's units and with ours at the rate of the one that is made: estimates, a row each.

    point: the design that is made.
    """
    rows = []
    for library in LIBRARIES:
        own = point if library == made else search_of(wish, library).at(point.fps)
        row = {"library": library, "fps": own.fps, "fits": own.fits, "bottleneck": own.bottleneck, **own.used}
        rows.append(row | {"made": library == made})
    return rows
