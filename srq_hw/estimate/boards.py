"""One network, several boards: what each carries, and what would help where one does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from srq_hw.backends.finn.placement import Library as FinnLibrary
from srq_hw.backends.finn.placement import check_library
from srq_hw.backends.rtl.arrange import arrange
from srq_hw.backends.search.finn_library import finn_library
from srq_hw.backends.search.library import Library, Units, srq_library
from srq_hw.backends.search.search import BOARD, MEGAHERTZ, Point, Search, board_has
from srq_hw.backends.search.skips import delays
from srq_hw.errors import InputError
from srq_hw.estimate.sources import Source
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.legality import legality
from srq_hw.target import Resources, Target, list_targets, load_target

#: widths that are tried where a network does not fit, widest first
WIDTHS = (8, 6, 4)
Size = tuple[int, int]
#: whether a device carries a graph
_Carried = Callable[[IntGraph, Resources], bool]


@dataclass(frozen=True)
class Row:
    """One board.

    library: whose units are counted, "finn" or "srq". problem: why there is no figure at all. rules: rules of the
    target that the graph breaks. point: the design at the wanted rate, or the fastest that fits; best: the fastest
    that fits, None where nothing does. latency_ms: from the first value of a frame in to its last one out, by rule.
    bits: of weights, as the graph has them. bits_to_fit: widest uniform width that carries the network, None where none
    does or it cannot be chosen. larger: smallest other board that does.
    """

    target: str
    part: str
    clock_mhz: float
    has: Mapping[str, int]
    library: str
    problem: str = ""
    rules: tuple[str, ...] = ()
    bits: int | None = None
    point: Point | None = None
    best: Point | None = None
    wanted: float | None = None
    latency_ms: float | None = None
    bits_to_fit: int | None = None
    larger: str | None = None

    @property
    def fits(self) -> bool:
        """The board carries the network at the wanted rate, and its rules allow it."""
        return not self.rules and carries(self.point, self.wanted)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        row = {key: value for key, value in asdict(self).items() if key not in ("point", "best")}
        return {**row, "fits": self.fits, "design": _plain(self.point), "fastest": _plain(self.best)}


def carries(point: Point | None, wanted: float | None) -> bool:
    """A design that fits and keeps the rate."""
    return point is not None and point.fits and (wanted is None or point.fps >= wanted)


def boards(names: Sequence[str]) -> list[Target]:
    """Targets by name or file. InputError for one without resources."""
    found = [load_target(name) for name in names]
    for target in found:
        if target.resources is None:
            known = [name for name in list_targets() if load_target(name).resources is not None]
            raise InputError(
                f"--targets {target.name}: describes no device (it has no resources); allowed: {', '.join(known)}, "
                "or a .yaml file with resources"
            )
    return found


def every_board() -> list[str]:
    """Packaged targets that describe a device, one for each device, smallest first."""
    found: dict[str, Target] = {}
    for name in list_targets():
        target = load_target(name)
        if target.resources is not None:
            found.setdefault(target.resources.part, target)
    return [target.name for target in sorted(found.values(), key=_capacity)]


def estimate(
    source: Source,
    targets: Sequence[Target],
    size: Size,
    fps: float | None,
    bits: int | None,
    advance: Callable[[int, int], None] = lambda done, total: None,
    library: str | None = None,
) -> list[Row]:
    """A row per target, for frames of size (H, W).

    fps None: the highest that fits. bits: of weights and activations alike, None: the target's default.
    library: "finn" or "srq", whose units are counted; None: FINN's for targets of which FINN designs are made.
    """
    rows = []
    asked = None if library is None else check_library(library)
    units = _Libraries(asked, srq_library())
    for index, target in enumerate(targets):
        rows.append(_row(source, target, size, fps, bits, units))
        advance(index + 1, len(targets))
    return rows


@dataclass(frozen=True)
class _Libraries:
    """asked: the same for every target; own: our units, whose prices are worked out once."""

    asked: FinnLibrary | None
    own: Units

    def name(self, resources: Resources) -> FinnLibrary:
        return self.asked or ("finn" if resources.has_flow("finn") else "srq")

    def search(self, graph: IntGraph, size: Size, resources: Resources, name: FinnLibrary) -> Search:
        found: Library = self.own if name == "srq" else finn_library(resources, self.own)
        return Search.of(graph, size, resources, found)


def _row(source: Source, target: Target, size: Size, fps: float | None, bits: int | None, units: _Libraries) -> Row:
    r = target.resources
    assert r is not None
    library = units.name(r)
    row = Row(target.name, r.part, r.clock_mhz, board_has(r), library, wanted=fps)
    try:
        graph = source.graph(target, bits)
        search = units.search(graph, size, r, library)
    except InputError as error:
        return replace(row, problem=str(error))
    best = search.highest()
    point = best if fps is None else search.at(fps)
    row = replace(
        row,
        rules=tuple(str(item) for item in legality(graph, target)),
        bits=weight_width(graph),
        point=point,
        best=best if best.fits else None,
        latency_ms=latency_ms(graph, size, point),
    )
    if carries(point, fps):
        return row

    def carried(other: IntGraph, resources: Resources) -> bool:
        own = units.search(other, size, resources, library)
        return carries(own.highest() if fps is None else own.at(fps), fps)

    return replace(
        row,
        bits_to_fit=_bits_to_fit(source, target, weight_width(graph), carried),
        larger=_larger(graph, target, carried),
    )


def weight_width(graph: IntGraph) -> int:
    """Bits of most convolutions' inputs: the width that a network was quantized to."""
    widths = [graph.tensors[node.inputs[0]].bits for node in graph.nodes if node.op == "Conv"]
    return max(set(widths), key=lambda bits: (widths.count(bits), bits)) if widths else 0


def latency_ms(graph: IntGraph, size: Size, point: Point) -> float:
    """A frame, and the rows that the last convolution lies behind the image."""
    ready = arrange(graph)
    rows = delays(ready, size[1])[ready.output]
    return float(point.folding.cycles * (1 + rows / size[0]) / point.clock_mhz / 1e3)


def _bits_to_fit(source: Source, target: Target, now: int, carried: _Carried) -> int | None:
    """Quantize narrower until it fits. Widths that the target does not have are left out."""
    if not source.free or target.resources is None:
        return None
    for bits in WIDTHS:
        own = target.integer
        if bits >= now or not (
            own.weights.bits.min <= bits <= own.weights.bits.max
            and own.activations.bits.min <= bits <= own.activations.bits.max
        ):
            continue
        if carried(source.graph(target, bits), target.resources):
            return bits
    return None


def _larger(graph: IntGraph, target: Target, carried: _Carried) -> str | None:
    """The smallest packaged board with more of something that carries the same graph; its rules are another matter."""
    assert target.resources is not None
    has = board_has(target.resources)
    for name in every_board():
        other = load_target(name)
        assert other.resources is not None
        more = board_has(other.resources)
        if other.resources.part == target.resources.part or all(more[key] <= has[key] for key in BOARD):
            continue
        if carried(graph, other.resources):
            return name
    return None


def _capacity(target: Target) -> tuple[int, int, str]:
    assert target.resources is not None
    return target.resources.lut, target.resources.dsp.count, target.name


def _plain(point: Point | None) -> dict[str, Any] | None:
    if point is None:
        return None
    return {
        "fps": point.fps,
        "cycles_per_frame": round(point.clock_mhz * MEGAHERTZ / point.fps),
        "used": dict(point.used),
        "shares": dict(point.shares),
        "short_of": dict(point.short),
        "fullest": point.fullest,
        "bottleneck": point.bottleneck,
        "bottleneck_is_at_its_fastest": point.roof,
        "weight_bits_per_cycle": point.weight_bits,
        "weights_written_at_run_time": list(point.loaded),
    }
