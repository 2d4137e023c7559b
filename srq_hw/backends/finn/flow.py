"""The FINN steps of a build, run inside the worker: FINN's own, in FINN's order, and our exact types between them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srq_hw.backends.finn.codegen import generate_sources
from srq_hw.backends.finn.estimate import Device
from srq_hw.backends.finn.folding import choose_folding, folding_config, remember_shuffle_cycles, settle_names
from srq_hw.files import write_json

Progress = Callable[[str, float | None], None]
#: an integer requantization that looks uniform to within 1 % would be turned into a float one from this width on
NEVER_REQUANT = 1 << 16


class StepError(Exception):
    """A step of FINN failed: which, FINN's words, and the model as it was before the step."""

    def __init__(self, step: str, message: str, model: str) -> None:
        super().__init__(message)
        self.step, self.message, self.model = step, message, model


@dataclass
class Flow:
    """State of one run: FINN's configuration, where to write, how long each step took."""

    config: Any
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

    def finn(self, name: str, model: Any) -> Any:
        """Run one of FINN's registered steps."""
        from finn.builder.build_dataflow_steps import build_dataflow_step_lookup

        with self.step(name, model):
            return build_dataflow_step_lookup[f"step_{name}"](model, self.config)


def configuration(folder: Path, board: str | None, part: str, clock_mhz: float, fps: int) -> Any:
    """FINN's DataflowBuildConfig. `requant_bitwidth_threshold` keeps FINN from replacing exact thresholds by floats."""
    from finn.builder.build_dataflow_config import DataflowBuildConfig, DataflowOutputType

    return DataflowBuildConfig(
        output_dir=str(folder),
        board=board,
        fpga_part=part,
        target_fps=fps,
        synth_clk_period_ns=1000.0 / clock_mhz,
        standalone_thresholds=True,
        requant_bitwidth_threshold=NEVER_REQUANT,
        save_intermediate_models=False,
        minimize_bit_width=False,
        generate_outputs=[DataflowOutputType.ESTIMATE_REPORTS],
        steps=[],
    )


def to_hardware(flow: Flow, model: Any) -> Any:
    """Emitted graph -> specialised dataflow graph, every type as emitted, every name deterministic."""
    types = {name: model.get_tensor_datatype(name) for name in model.get_all_tensor_names()}
    model = flow.finn("convert_to_hw", model)
    with flow.step("exact_types", model):
        _exact_types(model, types)
    model = flow.finn("create_dataflow_partition", model)
    model = flow.finn("specialize_layers", model)
    with flow.step("exact_types", model):
        _exact_types(model, types)
        settle_names(model, set(types))
    return model


def _exact_types(model: Any, types: dict[str, Any]) -> None:
    """FINN's inference writes INT32 for sums; put the proven types back, in the tensors and in the nodes."""
    from qonnx.custom_op.registry import getCustomOp

    for node in model.graph.node:
        if not node.domain.startswith("finn."):
            continue  # FINN could not map it; its next step says so
        op = getCustomOp(node)
        known = {name: types[name] for name in [*node.input, *node.output] if name in types}
        for name, dtype in known.items():
            model.set_tensor_datatype(name, dtype)
        if node.op_type.startswith("Elementwise") and node.output[0] in known:
            op.set_nodeattr("out_dtype", known[node.output[0]].name)
        if node.op_type.startswith("MVAU") and node.output[0] in known:
            op.set_nodeattr("accDataType", known[node.output[0]].name)
            op.set_nodeattr("outputDataType", known[node.output[0]].name)
        if node.op_type.startswith("Thresholding") and node.input[0] in known:
            op.set_nodeattr("inputDataType", known[node.input[0]].name)


def run_build(job: dict[str, Any], folder: Path, progress: Progress) -> dict[str, Any]:
    """The whole build of one job; returns what result.json holds."""
    from finn.util.settings import get_settings
    from qonnx.core.modelwrapper import ModelWrapper

    device = Device(**job["device"])
    start = time.monotonic()
    config = configuration(folder, job["board"], device.part, device.clock_mhz, max(1, int(job["fps_fallback"])))
    remember_shuffle_cycles()
    flow = Flow(config, folder, progress, {"start_finn": time.monotonic() - start + job.get("import_seconds", 0.0)})
    model = ModelWrapper(str(folder / job["model"]))
    model = to_hardware(flow, model)
    folding = choose_folding(flow, model, device, job["fps_ladder"], job["fps_fallback"])
    model = folding.model
    with flow.step("save_dataflow", model):
        write_json(folder / "folding.json", folding_config(model))
        model.save(str(folder / "dataflow.onnx"))
        (folder / "report" / "auto_folding_config.json").unlink()  # SetFolding's of the last try, not what is built
    model = flow.finn("generate_estimate_reports", model)
    if job["codegen"]:
        with flow.step("hw_codegen", model):
            generate_sources(model, folder / "sources", device.part, 1000.0 / device.clock_mhz, job["workers"])
            model.save(str(folder / "generated.onnx"))
    return {
        "estimate": folding.estimate.as_dict(),
        "fps_folded_for": folding.fps,
        "refined": folding.refined,
        "fps_tried": [list(item) for item in folding.tried],
        "seconds": {name: round(value, 3) for name, value in flow.seconds.items()},
        "streams": streams(model),
        "finn_deps": str(get_settings().finn_deps),
    }


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
