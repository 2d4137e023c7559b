"""IntGraph + target + image size -> FINN dataflow design: folding, estimates, generated sources. Parent side."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from srq_hw.backends.finn.choose import FPS_MOST, Chosen, Wish, both_libraries, choose
from srq_hw.backends.finn.estimate import Device, Estimate
from srq_hw.backends.finn.folding import lanes_to_job
from srq_hw.backends.finn.placement import Library, Place, check_library
from srq_hw.backends.finn.prepare import prepare
from srq_hw.backends.finn.relocate import DEPS, SOURCES, neutral_file, neutral_model, neutral_tree
from srq_hw.backends.finn.run import Progress, run_worker
from srq_hw.backends.rtl.costs import Cost
from srq_hw.backends.rtl.folding import Folding
from srq_hw.backends.search.search import Point, cycles_at
from srq_hw.errors import InputError
from srq_hw.files import write_json
from srq_hw.graph.ir import IntGraph
from srq_hw.target import Resources, Target
from srq_hw.tools import find_tool

#: worker runs where a design takes more than the search said, or leaves room for a higher rate
TRIES = 3
#: what a build leaves in its folder, beside sources/ and report/
MODEL, DATAFLOW, FOLDING, SUMMARY = "model.onnx", "dataflow.onnx", "folding.json", "finn.json"
#: the prepared graph and its lanes, in the work folder only
GRAPH, LANES = "prepared.json", "lanes.json"
LOG = "finn.log"


@dataclass(frozen=True)
class FinnResult:
    """A FINN build. status: "built", or "not run" with the reason (then everything else is empty).

    size: (H, W) of the input image. fps_requested: None where the user gave no rate. fps_met: the estimate reaches the
    wanted rate (of the user, or the one folded for). bottleneck: the slowest node of the network. tradeoff: cheapest
    foldings for other rates (`Point.row`), slowest first. libraries: what FINN's units and ours take at this design's
    rate, by the search's formulas (`choose.both_libraries`). notes: what a reader of the estimate must know. files:
    name -> path below `folder`. seconds: per step. streams: shape, folding and width of the two streams. library: what
    was asked for. places: which library computes each node of the network, and why where it is not FINN's. All nodes
    are in the accelerator, from the integer input image to the integer output image: there is no host part.
    """

    status: str
    reason: str = ""
    size: tuple[int, int] = (0, 0)
    folder: Path = Path()
    part: str = ""
    board: str | None = None
    clock_mhz: float = 0.0
    estimate: Estimate | None = None
    fps_requested: float | None = None
    fps_folded_for: float = 0.0
    fps_met: bool = False
    bottleneck: str = ""
    tradeoff: tuple[dict[str, Any], ...] = ()
    libraries: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    streams: dict[str, Any] = field(default_factory=dict)
    library: Library = "finn"
    places: tuple[Place, ...] = ()

    @property
    def nodes(self) -> tuple[dict[str, Any], ...]:
        """Per node: name, op, cycles, PE, SIMD, FINN's figures and ours."""
        return self.estimate.nodes if self.estimate else ()

    @property
    def hls_nodes(self) -> tuple[str, ...]:
        """Nodes that need Vitis HLS; none for any network of ours."""
        return tuple(row["name"] for row in self.nodes if row["op"].endswith("_hls"))

    @property
    def built(self) -> bool:
        """True where FINN ran."""
        return self.status == "built"


def resources_of(target: Target) -> Resources:
    """The target's device; InputError where it names none."""
    if target.resources is None:
        raise InputError(
            f"target {target.name} names no device (resources); FINN builds for an FPGA. Use one of the boards."
        )
    return target.resources


def device_of(target: Target) -> Device:
    """The resources an estimate is held against."""
    r = resources_of(target)
    return Device(r.part, r.clock_mhz, r.dsp.kind, r.lut, r.dsp.count, r.bram36, r.uram, r.utilization_max, r.ff)


def build_finn(
    graph: IntGraph,
    target: Target,
    size: tuple[int, int],
    fps: float | None,
    out_dir: Path,
    codegen: bool = True,
    progress: Progress | None = None,
    workers: int = 2,
    library: str = "finn",
    folding: Folding | None = None,
) -> FinnResult:
    """Build the FINN design of a graph for images of size (H, W) and write it to out_dir (replaced if it exists).

    fps: wanted frames per second; where no folding for it fits the board, the highest rate below that does. None: the
    highest that fits, `choose.FPS_MOST` at most. codegen: write the RTL sources as well. library "finn": FINN's units
    wherever they compute a node exactly and in RTL, ours for the rest; "srq": ours for all.
    folding: lanes per node of the network (`prepare`d or `arrange`d); taken as they are, for the cycles they were
    chosen for, instead of those of the folding search. Memories that they do not name are chosen.
    Result status "not run" where FINN+ is not installed. InputError for what neither library can do and for lanes that
    no unit has, RunError where one of FINN's steps fails.
    """
    asked = check_library(library)
    if fps is not None and not 0 < fps < float("inf"):
        raise InputError(f"fps: {fps!r}; allowed: a number above 0")
    if target.resources is None:
        return FinnResult("not run", f"target {target.name} has no FPGA resources: no FINN design, no estimate")
    if not target.resources.has_flow("finn"):
        return FinnResult("not run", f"target {target.name} leaves FINN out (resources.flows)")
    tool = find_tool("finn")
    if not tool.usable:
        return FinnResult("not run", f"{tool.problem}: no {tool.lost}. To get it: {tool.get}")
    prepared = prepare(graph, asked, target.resources.dsp.kind)
    wish = Wish(graph, size, target.resources, fps)
    device = device_of(target)
    out_dir = out_dir.resolve()
    beside = out_dir.with_name(f"{out_dir.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    work = beside / "work"
    work.mkdir(parents=True)
    job = {
        "kind": "build",
        "model": MODEL,
        "graph": GRAPH,
        "lanes": LANES,
        "device": vars(device),
        "codegen": codegen,
        "workers": workers,
    }
    chosen: Chosen | None = None
    about: Future[dict[str, Any]]

    def written() -> None:
        """While FINN starts: model, graph, lanes."""
        from srq_hw.backends.finn.emit import emit

        nonlocal chosen, about
        if progress:
            progress("emit", None)
        (work / MODEL).write_bytes(emit(prepared, size).model.SerializeToString(deterministic=True))
        prepared.graph.save(work / GRAPH)
        if progress:
            progress("search", None)
        chosen = chosen or choose(wish, prepared, asked, folding)
        write_json(work / LANES, lanes_to_job(chosen.point.folding))
        about = pool.submit(_around, chosen, wish, asked)

    try:
        with ThreadPoolExecutor(1) as pool:  # for what FINN need not wait for
            for tries_left in reversed(range(TRIES)):
                result = run_worker(job, work, progress, written)
                assert chosen is not None  # `written` ran
                estimate = Estimate.from_dict(result["estimate"])
                if folding is not None or not tries_left:
                    break
                other = chosen.corrected(cost_of(estimate), wish)
                slow = chosen.point.fps < (fps or FPS_MOST)
                if not other.point.fits or (estimate.fits and not (slow and other.point.fps > chosen.point.fps)):
                    break
                chosen = other
    except InputError:
        shutil.rmtree(beside)
        raise
    _collect(work, beside, codegen, {str(work / "sources"): SOURCES, result["finn_deps"]: DEPS})
    assert chosen is not None
    point, folded = chosen.point, chosen.folded_for(fps)
    aim = folded if fps is None else fps
    summary = {
        "size": list(size),
        "part": device.part,
        "board": resources_of(target).finn_board,
        "clock_mhz": device.clock_mhz,
        "estimate": result["estimate"],
        "fps_requested": fps,
        "fps_folded_for": folded,
        "fps_met": estimate.cycles_per_frame <= cycles_at(aim, device.clock_mhz),
        "bottleneck": point.bottleneck,
        **about.result(),
        "notes": [
            *_notes(estimate, fps, folded, point, target),
            *_memories(point.folding),
            *_shared(prepared.places),
        ],
        "streams": result["streams"],
        "library": asked,
        "places": [vars(item) for item in prepared.places.values()],
    }
    (beside / SUMMARY).write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(out_dir, ignore_errors=True)
    os.replace(beside, out_dir)
    return replace(load_result(out_dir), seconds=result["seconds"])


def load_result(folder: Path) -> FinnResult:
    """The result of a build from the folder it left (`seconds` are not kept there). InputError for another folder."""
    path = folder.resolve() / SUMMARY
    try:
        data = json.loads(path.read_text())
        data["estimate"] = Estimate.from_dict(data["estimate"])
        data["size"], data["notes"] = tuple(data["size"]), tuple(data["notes"])
        data["places"] = tuple(Place(**item) for item in data["places"])
        data["tradeoff"], data["libraries"] = tuple(data["tradeoff"]), tuple(data["libraries"])
        found = sorted(item for item in path.parent.rglob("*") if item.is_file())
        files = {item.relative_to(path.parent).as_posix(): item for item in found if item.name != LOG}
        return FinnResult("built", folder=path.parent, files=files, **data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a FINN build of srq-hw ({type(error).__name__}: {error}). Build again."
        ) from error


def _around(chosen: Chosen, wish: Wish, library: Library) -> dict[str, Any]:
    """The design beside others: at other rates, with the other library."""
    rows = [item.row() for item in chosen.search.curve()]
    return {"tradeoff": rows, "libraries": both_libraries(wish, library, chosen.point)}


def cost_of(estimate: Estimate) -> Cost:
    """The sum of an estimate as the search counts."""
    blocks = sum(int(row["ours"]["BRAM_18K"]) for row in estimate.nodes)
    return Cost(estimate.lut, estimate.ff, estimate.dsp, blocks, estimate.uram)


def _collect(work: Path, out: Path, codegen: bool, places: dict[str, str]) -> None:
    """Move what is worth keeping out of the work folder, with no path of this machine in it."""
    (out / DATAFLOW).write_bytes(neutral_model(work / ("generated.onnx" if codegen else DATAFLOW), places))
    (work / MODEL).replace(out / MODEL)
    neutral_file(work / FOLDING, out / FOLDING, places)
    if codegen:
        neutral_tree(work / "sources", out / "sources", places)
    neutral_tree(work / "report", out / "report", places)
    (work / LOG).replace(out / LOG)
    shutil.rmtree(work)


def _notes(estimate: Estimate, fps: float | None, folded: float, point: Point, target: Target) -> list[str]:
    """What a reader of the figures has to know, as sentences."""
    notes = ["All figures are estimates (formulas fitted to open synthesis, FINN's models), not synthesis results."]
    share = f"{resources_of(target).utilization_max:.0%} of {target.name}"
    slowest = f"{point.bottleneck} is the slowest node" + (", at its fastest" if point.roof else "")
    if not estimate.fits:
        missing = ", ".join(f"{amount} {name} too many" for name, amount in estimate.short.items())
        notes.append(f"No folding fits {share}: {missing}. Use fewer bits, a smaller network or a larger board.")
    elif fps is not None and folded < fps:
        notes.append(f"No folding meets {fps:g} fps within {share}; folded for {folded:.4g} fps instead.")
    return [*notes, f"{slowest}: {estimate.cycles_per_frame} cycles per frame."]


def _shared(places: Mapping[str, Place]) -> list[str]:
    """Whose the nodes are, as a sentence."""
    ours = Counter(item.op for item in places.values() if item.library == "srq")
    kinds = ", ".join(f"{count} {op}" for op, count in sorted(ours.items()))
    count = ours.total()
    theirs = f"{len(places) - count} of the network's {len(places)} nodes are FINN's own units"
    return [f"{theirs}, {count} are ours ({kinds}). None needs HLS, none is left to the host."]


def _memories(folding: Folding) -> list[str]:
    """Where FINN's units keep what they hold, as a sentence; none where all units are ours."""
    chosen = Counter(setting for lanes in folding.nodes.values() for setting in lanes.memories)
    styles = {
        "MVAU": "weights of {} matrix units in {}",
        "ConvolutionInputGenerator": "{} windows in {}",
    }
    names = {"distributed": "LUTs", "block": "block RAM", "ultra": "UltraRAM"}
    parts = [
        styles[unit].format(count, names[str(value)])
        for (unit, attribute, value), count in sorted(chosen.items(), key=str)
        if attribute == "ram_style"
    ]
    if not parts:
        return []
    return [
        f"Memories were chosen with the lanes: {', '.join(parts)}; large search stages of thresholds in block RAM "
        "where that is cheaper. The settings are in folding.json and in the generated sources."
    ]
