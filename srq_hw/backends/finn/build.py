"""IntGraph + target + image size -> FINN dataflow design: folding, estimates, generated sources. Parent side."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from srq_hw.backends.finn.estimate import Device, Estimate
from srq_hw.backends.finn.relocate import DEPS, SOURCES, neutral_file, neutral_model, neutral_tree
from srq_hw.backends.finn.run import Progress, run_worker
from srq_hw.errors import InputError
from srq_hw.graph.ir import IntGraph
from srq_hw.target import Resources, Target
from srq_hw.tools import find_tool

#: rates tried when the user asks for none; the highest that fits is taken, FPS_FALLBACK where none does
FPS_LADDER = (1.0, 2.0, 5.0, 10.0, 15.0, 24.0, 30.0, 45.0, 60.0, 90.0, 120.0, 240.0)
FPS_FALLBACK = 30.0
#: a rate that does not fit is lowered in steps of this factor
FPS_STEP = 0.8
FPS_STEPS = 24
#: what a build leaves in its folder, beside sources/ and report/
MODEL, DATAFLOW, FOLDING, SUMMARY = "model.onnx", "dataflow.onnx", "folding.json", "finn.json"
LOG = "finn.log"


@dataclass(frozen=True)
class FinnResult:
    """A FINN build. status: "built", or "not run" with the reason (then everything else is empty).

    size: (H, W) of the input image. fps_requested: None where the user gave no rate. fps_met: the estimate reaches the
    wanted rate (of the user, or the one folded for). notes: what a reader of the estimate must know. files: name ->
    path below `folder`. seconds: per step. streams: shape, folding and width of the two streams.
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
    fps_tried: tuple[tuple[float, bool], ...] = ()
    notes: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    streams: dict[str, Any] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[dict[str, Any], ...]:
        """Per node: name, op, cycles, PE, SIMD, FINN's figures and ours."""
        return self.estimate.nodes if self.estimate else ()

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
    return Device(r.part, r.clock_mhz, r.dsp.kind, r.lut, r.dsp.count, r.bram36, r.uram, r.utilization_max)


def build_finn(
    graph: IntGraph,
    target: Target,
    size: tuple[int, int],
    fps: float | None,
    out_dir: Path,
    codegen: bool = True,
    progress: Progress | None = None,
    workers: int = 2,
) -> FinnResult:
    """Build the FINN design of a graph for images of size (H, W) and write it to out_dir (replaced if it exists).

    fps: wanted frames per second; where FINN's folding for it does not fit the board, the rate is lowered until it
    does. None: the highest rate of FPS_LADDER that fits. codegen: write FINN's RTL and HLS sources as well.
    Result status "not run" where FINN+ is not installed. InputError for what FINN cannot take, RunError where one of
    its steps fails.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise InputError(f"fps: {fps!r}; allowed: a number above 0")
    if target.resources is None:
        return FinnResult("not run", f"target {target.name} has no FPGA resources: no FINN design, no estimate")
    if not target.resources.has_flow("finn"):
        return FinnResult("not run", f"target {target.name} leaves FINN out (resources.flows)")
    tool = find_tool("finn")
    if not tool.usable:
        return FinnResult("not run", f"{tool.problem}: no {tool.lost}. To get it: {tool.get}")
    from srq_hw.backends.finn.emit import emit
    from srq_hw.backends.finn.prepare import prepare

    if progress:
        progress("emit", None)
    model = emit(prepare(graph), size)
    device = device_of(target)
    out_dir = out_dir.resolve()
    beside = out_dir.with_name(f"{out_dir.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    work = beside / "work"
    work.mkdir(parents=True)
    (work / MODEL).write_bytes(model.model.SerializeToString(deterministic=True))
    ladder = list(FPS_LADDER) if fps is None else sorted(fps * FPS_STEP**step for step in range(FPS_STEPS))
    job = {
        "kind": "build",
        "model": MODEL,
        "board": resources_of(target).finn_board,
        "device": vars(device),
        "fps_ladder": ladder,
        "fps_fallback": FPS_FALLBACK if fps is None else fps,
        "codegen": codegen,
        "workers": workers,
    }
    result = run_worker(job, work, progress)
    _collect(work, beside, codegen, {str(work / "sources"): SOURCES, result["finn_deps"]: DEPS})
    estimate = Estimate.from_dict(result["estimate"])
    folded = float(result["fps_folded_for"])
    summary = {
        "size": list(size),
        "part": device.part,
        "board": resources_of(target).finn_board,
        "clock_mhz": device.clock_mhz,
        "estimate": result["estimate"],
        "fps_requested": fps,
        "fps_folded_for": folded,
        "fps_met": estimate.fps >= (folded if fps is None else fps),
        "fps_tried": result["fps_tried"],
        "notes": [*_notes(estimate, fps, folded, target), _refined(result["refined"])],
        "streams": result["streams"],
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
        data["fps_tried"] = tuple((float(rate), bool(met)) for rate, met in data["fps_tried"])
        found = sorted(item for item in path.parent.rglob("*") if item.is_file())
        files = {item.relative_to(path.parent).as_posix(): item for item in found if item.name != LOG}
        return FinnResult("built", folder=path.parent, files=files, **data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a FINN build of srq-hw ({type(error).__name__}: {error}). Build again."
        ) from error


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


def _notes(estimate: Estimate, fps: float | None, folded: float, target: Target) -> list[str]:
    """What a reader of the figures has to know, as sentences."""
    notes = ["All figures are estimates (FINN's analytical models, corrected as listed), not synthesis results."]
    share = f"{resources_of(target).utilization_max:.0%} of {target.name}"
    if not estimate.fits:
        missing = ", ".join(f"{amount} {name} too many" for name, amount in estimate.short.items())
        notes.append(f"No folding tried fits {share}: {missing}. Use fewer bits, a smaller network or a larger board.")
    elif fps is not None and folded < fps:
        notes.append(f"No folding of FINN meets {fps:g} fps within {share}; folded for {folded:.4g} fps instead.")
    if estimate.fps < folded:
        reached = f"FINN's folding reaches {estimate.fps:g} of the {folded:g} fps folded for"
        notes.append(f"{reached}; slowest is {estimate.slowest_node}.")
    return notes


def _refined(counts: dict[str, int]) -> str:
    """What was changed in FINN's folding, as a sentence."""
    done = (
        (counts["refolded"], f"of {counts['matrix']} matrix units have another PE x SIMD"),
        (counts["rom"], f"of {counts['matrix']} keep their weights in LUTs, not in block RAM"),
        (counts["blocks"], f"of {counts['thresholds']} threshold layers keep large search stages in block RAM"),
        (counts["block"], f"of {counts['windows']} window buffers are in block RAM"),
        (counts["ultra"], f"of {counts['windows']} window buffers are in UltraRAM"),
    )
    parts = "; ".join(f"{count} {text}" for count, text in done if count)
    return (
        f"FINN's folding was refined for this device's memories: {parts or 'nothing changed'}. "
        "The settings are in folding.json and in the generated sources."
    )
