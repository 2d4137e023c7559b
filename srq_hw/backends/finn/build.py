"""IntGraph + target + image size -> FINN dataflow design: folding, estimates, generated sources. Parent side."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srq_hw.backends.finn.estimate import Device, Estimate
from srq_hw.backends.finn.relocate import DEPS, SOURCES, neutral_file, neutral_model, neutral_tree
from srq_hw.backends.finn.run import Progress, run_worker
from srq_hw.errors import InputError
from srq_hw.graph.ir import IntGraph
from srq_hw.target import Target
from srq_hw.tools import find_tool

#: rates tried when the user asks for none; the highest that fits is taken, FPS_FALLBACK where none does
FPS_LADDER = (5.0, 10.0, 15.0, 24.0, 30.0, 60.0, 120.0, 240.0)
FPS_FALLBACK = 30.0
#: a rate that does not fit is lowered in steps of this factor
FPS_STEP = 0.8
FPS_STEPS = 24
#: what a build leaves in its folder, beside sources/ and report/
MODEL, DATAFLOW, FOLDING, LOG = "model.onnx", "dataflow.onnx", "folding.json", "finn.log"


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


def device_of(target: Target) -> Device:
    """The resources an estimate is held against."""
    r = target.resources
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
    shutil.rmtree(out_dir, ignore_errors=True)
    work = out_dir / "work"
    work.mkdir(parents=True)
    (work / MODEL).write_bytes(model.model.SerializeToString(deterministic=True))
    ladder = list(FPS_LADDER) if fps is None else sorted(fps * FPS_STEP**step for step in range(FPS_STEPS))
    job = {
        "kind": "build",
        "model": MODEL,
        "board": target.resources.finn_board,
        "device": vars(device),
        "fps_ladder": ladder,
        "fps_fallback": FPS_FALLBACK if fps is None else fps,
        "codegen": codegen,
        "workers": workers,
    }
    result = run_worker(job, work, progress)
    files = _collect(work, out_dir, codegen, {str(work / "sources"): SOURCES, result["finn_deps"]: DEPS})
    estimate = Estimate.from_dict(result["estimate"])
    folded = float(result["fps_folded_for"])
    return FinnResult(
        status="built",
        size=size,
        folder=out_dir,
        part=device.part,
        board=target.resources.finn_board,
        clock_mhz=device.clock_mhz,
        estimate=estimate,
        fps_requested=fps,
        fps_folded_for=folded,
        fps_met=estimate.fps >= (folded if fps is None else fps),
        fps_tried=tuple((float(rate), bool(fits)) for rate, fits in result["fps_tried"]),
        notes=_notes(estimate, fps, folded, target),
        files=files,
        seconds=result["seconds"],
        streams=result["streams"],
    )


def _collect(work: Path, out: Path, codegen: bool, places: dict[str, str]) -> dict[str, Path]:
    """Move what is worth keeping out of the work folder, with no path of this machine in it."""
    names = {MODEL: MODEL, DATAFLOW: DATAFLOW, FOLDING: FOLDING}
    (out / DATAFLOW).write_bytes(neutral_model(work / ("generated.onnx" if codegen else DATAFLOW), places))
    (work / MODEL).replace(out / MODEL)
    neutral_file(work / FOLDING, out / FOLDING, places)
    if codegen:
        neutral_tree(work / "sources", out / "sources", places)
    neutral_tree(work / "report", out / "report", places)
    (work / LOG).replace(out / LOG)
    shutil.rmtree(work)
    files = {name: out / name for name in names}
    for part in ("report", "sources"):
        files |= {path.relative_to(out).as_posix(): path for path in sorted((out / part).rglob("*")) if path.is_file()}
    return files


def _notes(estimate: Estimate, fps: float | None, folded: float, target: Target) -> tuple[str, ...]:
    """What a reader of the figures has to know, as sentences."""
    notes = ["All figures are estimates (FINN's analytical models, corrected as listed), not synthesis results."]
    share = f"{target.resources.utilization_max:.0%} of {target.name}"
    if not estimate.fits:
        missing = ", ".join(f"{amount} {name} too many" for name, amount in estimate.short.items())
        notes.append(f"No folding tried fits {share}: {missing}. Use fewer bits, a smaller network or a larger board.")
    elif fps is not None and folded < fps:
        notes.append(f"The folding for {fps:g} fps does not fit {share}; folded for {folded:.4g} fps instead.")
    if estimate.fps < folded:
        notes.append(
            f"FINN's folding reaches {estimate.fps:g} of the {folded:g} fps folded for; slowest is {estimate.slowest_node}."
        )
    return tuple(notes)
