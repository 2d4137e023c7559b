"""The FINN steps of a build, run inside the worker: FINN's own where it has one, on a graph that needs few of them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from srq_hw.backends.finn.codegen import generate_sources
from srq_hw.backends.finn.estimate import Device, estimate
from srq_hw.backends.finn.figures import figures
from srq_hw.backends.finn.folding import folding_config, lanes_from_job
from srq_hw.backends.finn.lanes import set_lanes
from srq_hw.files import write_json
from srq_hw.graph.ir import IntGraph

Progress = Callable[[str, float | None], None]


class StepError(Exception):
    """A step of FINN failed: which, FINN's words, and the model as it was before the step."""

    def __init__(self, step: str, message: str, model: str) -> None:
        super().__init__(message)
        self.step, self.message, self.model = step, message, model


@dataclass
class Flow:
    """State of one run: where to write, how long each step took."""

    folder: Path
    progress: Progress
    seconds: dict[str, float]

    @contextlib.contextmanager
    def step(self, name: str, model: Any) -> Iterator[None]:
        """Time a step, report it, and turn what FINN raises into a StepError beside a saved model."""
        self.progress(name, None)
        start = time.monotonic()
        try:
            yield
        except Exception as error:
            saved = self.folder / f"failed_before_{name}.onnx"
            with contextlib.suppress(Exception):
                model.save(str(saved))
            raise StepError(name, f"{type(error).__name__}: {error}", str(saved)) from error
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
        self.progress(name, self.seconds[name])


def to_hardware(flow: Flow, model: Any, part: str) -> Any:
    """Emitted graph -> the same of FINN's RTL nodes, called after their operation and place, every type as emitted."""
    from finn.transformation.fpgadataflow.specialize_layers import SpecializeLayers

    from srq_hw.backends.finn.ops.nodes import DOMAIN

    with flow.step("map", model):
        unmapped = [node.name for node in model.graph.node if not node.domain.startswith(DOMAIN)]
        if unmapped:
            raise ValueError(f"no FINN unit for {', '.join(unmapped)}")
    with flow.step("specialize_layers", model):
        return model.transform(SpecializeLayers(part))


def run_build(job: dict[str, Any], folder: Path, progress: Progress) -> dict[str, Any]:
    """The whole build of one job; returns what result.json holds."""
    from finn.util.settings import get_settings
    from qonnx.core.modelwrapper import ModelWrapper

    device = Device(**job["device"])
    flow = Flow(folder, progress, {"start_finn": job.get("import_seconds", 0.0)})
    model = ModelWrapper(str(folder / job["model"]))
    graph = IntGraph.load(folder / job["graph"])
    model = to_hardware(flow, model, device.part)
    with flow.step("fold", model):
        set_lanes(model, lanes_from_job(json.loads((folder / job["lanes"]).read_text())), graph)
    with flow.step("estimate", model):
        found = estimate(figures(model, device), device)
    with flow.step("save_dataflow", model):
        write_json(folder / "folding.json", folding_config(model))
        model.save(str(folder / "dataflow.onnx"))
    with flow.step("generate_estimate_reports", model):
        model = write_reports(model, folder / "report", device.part, 1000.0 / device.clock_mhz)
    if job["codegen"]:
        with flow.step("hw_codegen", model):
            generate_sources(model, folder / "sources", device.part, 1000.0 / device.clock_mhz, job["workers"])
            model.save(str(folder / "generated.onnx"))
    return {
        "estimate": found.as_dict(),
        "seconds": {name: round(value, 3) for name, value in flow.seconds.items()},
        "streams": streams(model),
        "finn_deps": str(get_settings().finn_deps),
    }


def write_reports(model: Any, folder: Path, part: str, period_ns: float) -> Any:
    """FINN's own analyses of a folded model as FINN's step names their files; returns the model with its cycles noted.

    These are FINN's figures as they are; ours, with its errors corrected, stand in the estimate of the result.
    """
    from finn.analysis.fpgadataflow.dataflow_performance import dataflow_performance
    from finn.analysis.fpgadataflow.exp_cycles_per_layer import exp_cycles_per_layer
    from finn.analysis.fpgadataflow.op_and_param_counts import aggregate_dict_keys, op_and_param_counts
    from finn.analysis.fpgadataflow.res_estimation import res_estimation
    from finn.transformation.fpgadataflow.annotate_cycles import AnnotateCycles

    folder.mkdir(exist_ok=True)
    resources = model.analysis(partial(res_estimation, fpgapart=part))
    model = model.transform(AnnotateCycles())
    performance = dict(model.analysis(dataflow_performance))
    performance |= {
        "estimated_throughput_fps": 1e9 / period_ns / performance["max_cycles"],
        "estimated_latency_ns": performance["critical_path_cycles"] * period_ns,
    }
    reports = {
        "op_and_param_counts": model.analysis(op_and_param_counts),
        "estimate_layer_cycles": model.analysis(exp_cycles_per_layer),
        "estimate_layer_resources": resources | {"total": aggregate_dict_keys(resources)},
        "estimate_network_performance": performance,
    }
    for name, content in reports.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2, default=float))
    return model


def streams(model: Any) -> dict[str, Any]:
    """Shape, folding and width of the stream into the design and the one out of it, from FINN's nodes."""
    from qonnx.custom_op.registry import getCustomOp

    first = model.find_consumer(model.graph.input[0].name)
    last = model.find_producer(model.graph.output[0].name)
    source, sink = getCustomOp(first), getCustomOp(last)
    sides = {
        "input": (
            first.name,
            model.graph.input[0].name,
            source.get_normal_input_shape(),
            source.get_folded_input_shape(),
            source.get_input_datatype(0),
            source.get_instream_width(0),
        ),
        "output": (
            last.name,
            model.graph.output[0].name,
            sink.get_normal_output_shape(),
            sink.get_folded_output_shape(),
            sink.get_output_datatype(0),
            sink.get_outstream_width(0),
        ),
    }
    return {
        side: {
            "node": node,
            "tensor": tensor,
            "shape": [int(size) for size in shape],
            "folded_shape": [int(size) for size in folded],
            "dtype": dtype.name,
            "bits": int(width),
        }
        for side, (node, tensor, shape, folded, dtype, width) in sides.items()
    }
