"""FINN's own SetFolding on an emitted FINN graph, and what it takes; runs in a process of its own (see `designs`).

Of every folding: cycles per frame, and the cost of every node in each memory that the search looks at, so that both
sides of a comparison have their memories chosen by the same search.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srq_hw.backends.finn.build import device_of
from srq_hw.backends.finn.emit import emit
from srq_hw.backends.finn.folding import lanes_from_job, lanes_to_job
from srq_hw.backends.finn.prepare import Prepared
from srq_hw.backends.rtl.folding import Folding
from srq_hw.errors import RunError
from srq_hw.files import write_json
from srq_hw.target import Target

RESOURCES = ("LUT", "FF", "DSP", "BRAM_18K", "URAM")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Design:
    """cycles per frame; nodes: per node the cost (RESOURCES) in each of its memories."""

    cycles: int
    nodes: tuple[tuple[tuple[int, ...], ...], ...]


def designs(
    prepared: Prepared, size: tuple[int, int], target: Target, goals: Sequence[int], ours: Sequence[Folding]
) -> list[Design]:
    """FINN's folding for each number of cycles.

    ours: for each, lanes of our units, which SetFolding leaves as they are. RunError with FINN's words where it fails.
    """
    with tempfile.TemporaryDirectory(prefix="srq-set-folding-") as scratch:
        work = Path(scratch)
        prepared.graph.save(work / "prepared.json")
        (work / "model.onnx").write_bytes(emit(prepared, size).model.SerializeToString(deterministic=True))
        lanes = [lanes_to_job(folding) for folding in ours]
        write_json(work / "job.json", {"device": vars(device_of(target)), "goals": list(goals), "ours": lanes})
        command = [sys.executable, str(Path(__file__)), str(work)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            raise RunError(f"SetFolding failed: {done.stderr.strip()[-800:]}")
        rows = json.loads((work / "found.json").read_text())
    return [Design(row["cycles"], tuple(tuple(map(tuple, node)) for node in row["nodes"])) for row in rows]


def main(work: Path) -> None:
    """The process: job.json -> found.json."""
    from srq_hw.backends.finn.boot import boot

    boot(work)
    from srq_hw.backends.finn.ops import register

    register()
    from finn.transformation.fpgadataflow.set_folding import SetFolding
    from qonnx.core.modelwrapper import ModelWrapper

    from srq_hw.backends.finn.estimate import Device
    from srq_hw.backends.finn.flow import Flow, to_hardware
    from srq_hw.backends.finn.lanes import set_lanes
    from srq_hw.graph.ir import IntGraph

    job = json.loads((work / "job.json").read_text())
    device, graph = Device(**job["device"]), IntGraph.load(work / "prepared.json")
    flow = Flow(work, lambda step, seconds: None, {})
    model = to_hardware(flow, ModelWrapper(str(work / "model.onnx")), device.part)
    found: list[dict[str, Any]] = []
    known: dict[Any, tuple[int, ...]] = {}
    for goal, lanes in zip(job["goals"], job["ours"], strict=True):
        set_lanes(model, lanes_from_job(lanes), graph)
        model = model.transform(SetFolding(goal))
        found.append(_costs(model, device, known))
    write_json(work / "found.json", found)


def _costs(model: Any, device: Any, known: dict[Any, Any]) -> dict[str, Any]:
    from qonnx.custom_op.registry import getCustomOp

    from srq_hw.backends.finn.estimate import estimate
    from srq_hw.backends.finn.figures import node_figures

    rows, cycles = [], 0
    for node in model.graph.node:
        cycles = max(cycles, int(getCustomOp(node).get_exp_cycles()))
        seen: dict[tuple[int, ...], None] = {}
        for settings in _memories(node, device):
            op = getCustomOp(node)
            for key, value in settings.items():
                op.set_nodeattr(key, value)
            kind = (node.name, node.SerializeToString(deterministic=True), _readers(model, node))
            if kind not in known:
                cost = estimate([node_figures(model, node, device, {})], device).nodes[0]["ours"]
                known[kind] = tuple(cost[name] for name in RESOURCES)
            seen[known[kind]] = None
        rows.append(list(seen))
    return {"cycles": cycles, "nodes": rows}


def _readers(model: Any, node: Any) -> tuple[int, ...]:
    """Widths at which a node's streams are read: what its converters depend on."""
    from qonnx.custom_op.registry import getCustomOp

    return tuple(
        int(getCustomOp(reader).get_instream_width(list(reader.input).index(name)))
        for name in node.output
        for reader in model.find_consumers(name) or []
    )


def _memories(node: Any, device: Any) -> list[dict[str, Any]]:
    """The same as `search.finn_library` looks at."""
    from qonnx.custom_op.registry import getCustomOp

    from srq_hw.backends.finn.memory import threshold_rows

    op = getCustomOp(node)
    if node.op_type == "MVAU_rtl":
        return [{"ram_style": style} for style in ("block", "distributed")]
    if node.op_type == "ConvolutionInputGenerator_rtl":
        styles = ("distributed", "block", *(["ultra"] if device.uram else []))
        return [{"ram_style": style} for style in styles]
    if node.op_type == "Thresholding_rtl":
        folds = int(op.get_nodeattr("NumChannels")) // int(op.get_nodeattr("PE"))
        rows = threshold_rows(folds, op.get_output_datatype().bitwidth())
        never = rows[-1] + 1
        return [{"depth_trigger_bram": start, "depth_trigger_uram": never} for start in (*rows, never)]
    return [{}]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(Path(sys.argv[1]))
