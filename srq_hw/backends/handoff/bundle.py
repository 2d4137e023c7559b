"""Writes the hand-off bundle of a FINN build. The same build gives the same bytes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from srq_hw import __version__
from srq_hw.backends.finn.build import DATAFLOW, FOLDING, FinnResult
from srq_hw.backends.handoff.continue_build import library_digest
from srq_hw.backends.handoff.manifest import write_manifest
from srq_hw.backends.handoff.vectors import Stream, stream_of, to_hex
from srq_hw.backends.handoff.verification import SETTINGS, verify_steps
from srq_hw.backends.rtl.verilate import LIBRARY
from srq_hw.errors import InputError
from srq_hw.graph.ir import IntGraph
from srq_hw.simulate.reference import as_batch, run
from srq_hw.target import Target
from srq_hw.tools import tool

HERE = Path(__file__).resolve().parent
STEPS = (
    "srq_hw.backends.finn.ops.step_srq_resume",  # makes our operations known; FINN's verification in Python
    "step_hw_codegen",  # fills in what is missing; generated sources of the bundle are kept
    "step_hw_ipgen",
    "step_set_fifo_depths",
    "step_create_stitched_ip",
    "step_out_of_context_synthesis",
)
OUTPUTS = ("estimate_reports", "stitched_ip", "out_of_context_synth")


def write_handoff(
    result: FinnResult, graph: IntGraph, target: Target, image: npt.NDArray[np.integer], out_dir: Path
) -> Path:
    """Write the bundle of a build to out_dir (replaced if it exists) and return its path.

    image: integers (H, W, C) of the build's size; golden vectors are what the reference simulator makes of it.
    InputError where the build was not run or the image has another size.
    """
    if not result.built or result.estimate is None:
        raise InputError(f"hand-off bundle: the FINN build was not run ({result.reason})")
    batch = as_batch(graph, image)
    if batch.shape[:3] != (1, *result.size):
        raise InputError(f"hand-off bundle: image of shape {image.shape}; the design was built for {result.size}")
    beside = out_dir.with_name(out_dir.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    shutil.copyfile(result.folder / DATAFLOW, beside / "dataflow.onnx")
    shutil.copyfile(result.folder / FOLDING, beside / "folding.json")
    shutil.copyfile(HERE / "continue_build.py", beside / "continue_build.py")
    if (result.folder / "sources").is_dir():
        shutil.copytree(result.folder / "sources", beside / "sources")
    streams = {side: stream_of(result.streams[side]) for side in ("input", "output")}
    _golden(beside / "golden", streams, batch[0], run(graph, image)[0])
    build = _build_settings(result, graph, target)
    _json(beside / "build.json", build)
    _json(beside / "graph.json", json.loads(graph.to_json()))
    _json(beside / "streams.json", {side: stream.as_dict() for side, stream in streams.items()})
    _json(beside / "estimates.json", {"kind": "estimate, not a synthesis result"} | result.estimate.as_dict())
    template = jinja2.Template((HERE / "README.md.jinja").read_text(), undefined=jinja2.StrictUndefined)
    text = template.render(
        build=build, streams=streams, estimate=result.estimate, notes=result.notes, target=target, version=__version__
    )
    (beside / "README.md").write_text(text + "\n")
    write_manifest(beside)
    shutil.rmtree(out_dir, ignore_errors=True)
    os.replace(beside, out_dir)
    return out_dir


def _golden(folder: Path, streams: dict[str, Stream], source: Any, wanted: Any) -> None:
    folder.mkdir()
    for side, values in (("input", source), ("output", wanted)):
        stream = streams[side]
        width = 8 if stream.element_bits <= 8 else 16 if stream.element_bits <= 16 else 32
        np.save(folder / f"{side}.npy", values.astype(f"{'' if stream.signed else 'u'}int{width}"))
        (folder / f"{side}.hex").write_text(to_hex(values, stream))


def _build_settings(result: FinnResult, graph: IntGraph, target: Target) -> dict[str, Any]:
    steps, without = verify_steps(result, graph)
    config: dict[str, Any] = {
        "synth_clk_period_ns": 1000.0 / result.clock_mhz,
        "standalone_thresholds": True,
        "requant_bitwidth_threshold": 1 << 16,
        "minimize_bit_width": False,
        "steps": list(STEPS),
        "generate_outputs": list(OUTPUTS),
        "auto_fifo_depths": True,
        "stitched_ip_gen_dcp": False,
        "verify_steps": list(steps),
        **SETTINGS,
    }
    config["board" if result.board else "fpga_part"] = result.board or result.part
    return {
        "finn_plus": tool("finn").needed.lstrip("="),
        "srq_hw": __version__,
        "srq_rtl_sha256": library_digest(LIBRARY),
        "library": result.library,
        "not_verified_in_python": without,
        "part": result.part,
        "board": result.board,
        "clock_mhz": result.clock_mhz,
        "image_size": list(result.size),
        "network": graph.name,
        "graph_sha256": graph.content_sha256,
        "target": target.name,
        "target_sha256": target.sha256,
        "fps_folded_for": result.fps_folded_for,
        "finn_config": config,
    }


def _json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
