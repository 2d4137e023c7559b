"""The FINN steps of a build, run inside the worker: FINN's own, in FINN's order, between them the exact types of ours."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srq_hw.backends.finn.codegen import generate_sources
from srq_hw.backends.finn.estimate import Device, Estimate, estimate
from srq_hw.backends.finn.figures import figures

Progress = Callable[[str, float | None], None]
#: an integer requantization that looks uniform to within 1 % would be turned into a float one from this width on
NEVER_REQUANT = 1 << 16
#: weight bits per cycle and PE that FINN's folding may use: its default first, more where a rate needs it
WEIGHT_STREAM_BITS = (36, 288)


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
        _settle_names(model, set(types))
    return model


def _exact_types(model: Any, types: dict[str, Any]) -> None:
    """FINN's inference writes INT32 for sums; put the proven types back, in the tensors and in the nodes."""
    from qonnx.custom_op.registry import getCustomOp

    for node in model.graph.node:
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


def _settle_names(model: Any, known: set[str]) -> None:
    """FINN gives new tensors random names; call them after their node, so that the same input gives the same bytes."""
    for node in model.graph.node:
        for index, name in enumerate(list(node.output)):
            if name not in known:
                model.rename_tensor(name, f"{node.name}_out{index}")


def _remember_shuffle_cycles() -> None:
    """FINN simulates an outer shuffle element by element each time it is asked for its cycles: keep the answers."""
    from finn.custom_op.fpgadataflow.outer_shuffle import OuterShuffle

    slow = OuterShuffle.get_exp_cycles
    known: dict[tuple[Any, ...], int] = {}

    def cycles(self: Any) -> int:
        key = (
            tuple(self.get_nodeattr("transpose_in_shape")),
            tuple(self.get_nodeattr("perm")),
            self.get_nodeattr("SIMD"),
        )
        if key not in known:
            known[key] = slow(self)
        return known[key]

    OuterShuffle.get_exp_cycles = cycles


# --- folding ------------------------------------------------------------------------------------------------------


def fold(flow: Flow, model: Any, fps: float, period_ns: float) -> Any:
    """A folded copy of the specialised graph for the wanted frames per second, shuffles decomposed.

    FINN folds what is specialised already; a Shuffle is not at that point, so its SIMD is chosen here by FINN's rule:
    the smallest divisor of the innermost length that meets the cycles.
    """
    flow.config.target_fps = fps
    model = deepcopy(model)
    model = flow.finn("target_fps_parallelization", model)
    with flow.step("fold_shuffles", model):
        _fold_shuffles(model, int(1e9 / (period_ns * fps)))
    known = set(model.get_all_tensor_names())
    model = flow.finn("transpose_decomposition", model)
    _settle_names(model, known)
    return model


def _fold_shuffles(model: Any, cycles: int) -> None:
    from qonnx.custom_op.registry import getCustomOp

    for node in model.get_nodes_by_op_type("Shuffle"):
        op = getCustomOp(node)
        shape, permutation = op.get_nodeattr("transpose_in_shape"), list(op.get_nodeattr("perm"))
        lanes = 1  # an inner shuffle moves single elements
        if permutation[-1] == len(permutation) - 1:
            lanes = math.gcd(
                int(shape[-1]), int(op.get_nodeattr("in_shape")[-1]), int(op.get_nodeattr("out_shape")[-1])
            )
        for simd in (value for value in range(1, lanes + 1) if lanes % value == 0):
            op.set_nodeattr("SIMD", simd)
            if op.get_exp_cycles() <= cycles:
                break


@dataclass(frozen=True)
class Folding:
    """A folded model, its estimate, the rate it was folded for, and the rates tried: (fps, met within the device)."""

    model: Any
    estimate: Estimate
    fps: float
    tried: tuple[tuple[float, bool], ...]


def choose_folding(flow: Flow, model: Any, device: Device, ladder: list[float], fallback: float) -> Folding:
    """The highest rate of the ladder (ascending) that a folding meets within the device.

    Where no rate is met, the fastest folding that fits; where none fits, the one for the fallback rate.
    """
    period = 1000.0 / device.clock_mhz
    made: list[Folding] = []
    tried: dict[float, bool] = {}

    def attempt(fps: float) -> bool:
        if fps not in tried:
            tried[fps] = False
            for width in WEIGHT_STREAM_BITS:
                flow.config.mvau_wwidth_max = width
                folded = fold(flow, model, fps, period)
                with flow.step("estimate", folded):
                    made.append(Folding(folded, estimate(figures(folded, device.part), device), fps, ()))
                tried[fps] = made[-1].estimate.fits and made[-1].estimate.fps >= fps
                if made[-1].estimate.fps >= fps:
                    break  # more weights per cycle only cost more
        return tried[fps]

    if not attempt(ladder[-1]) and attempt(ladder[0]):
        low, high = 0, len(ladder) - 1  # ladder[low] is met, ladder[high] is not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if attempt(ladder[middle]) else (low, middle)
    fitting = [item for item in made if item.estimate.fits]
    if not fitting:
        attempt(fallback)
        fitting = [next(item for item in made if item.fps == fallback)]
    met = [item for item in fitting if item.estimate.fps >= item.fps]
    best = max(met, key=lambda item: item.fps) if met else max(fitting, key=lambda item: item.estimate.fps)
    return replace(best, tried=tuple(sorted(tried.items())))


def folding_file(model: Any, path: Path) -> None:
    """FINN's folding configuration of the model, as `folding_config_file` takes it."""
    from qonnx.custom_op.registry import getCustomOp

    names = ("PE", "SIMD", "parallel_window", "ram_style", "mem_mode", "resType", "runtime_writeable_weights")
    names = (*names, "depth_trigger_uram", "depth_trigger_bram", "inFIFODepths", "outFIFODepths")
    config: dict[str, Any] = {"Defaults": {}}
    for node in model.graph.node:
        op = getCustomOp(node)
        allowed = op.get_nodeattr_types()
        config[node.name] = {key: _plain(op.get_nodeattr(key)) for key in names if key in allowed}
    write_json(path, config)


def _plain(value: Any) -> Any:
    return [int(item) for item in value] if hasattr(value, "__len__") and not isinstance(value, str) else value


def write_json(path: Path, data: Any) -> None:
    """Write sorted JSON beside the path, then rename."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    os.replace(beside, path)


def run_build(job: dict[str, Any], folder: Path, progress: Progress) -> dict[str, Any]:
    """The whole build of one job; returns what result.json holds."""
    from finn.util.settings import get_settings
    from qonnx.core.modelwrapper import ModelWrapper

    device = Device(**job["device"])
    start = time.monotonic()
    config = configuration(folder, job["board"], device.part, device.clock_mhz, max(1, int(job["fps_fallback"])))
    _remember_shuffle_cycles()
    flow = Flow(config, folder, progress, {"start_finn": time.monotonic() - start + job.get("import_seconds", 0.0)})
    model = ModelWrapper(str(folder / job["model"]))
    model = to_hardware(flow, model)
    folding = choose_folding(flow, model, device, job["fps_ladder"], job["fps_fallback"])
    model = folding.model
    with flow.step("save_dataflow", model):
        folding_file(model, folder / "folding.json")
        model.save(str(folder / "dataflow.onnx"))
    model = flow.finn("generate_estimate_reports", model)
    if job["codegen"]:
        with flow.step("hw_codegen", model):
            generate_sources(model, folder / "sources", device.part, 1000.0 / device.clock_mhz, job["workers"])
            model.save(str(folder / "generated.onnx"))
    return {
        "estimate": folding.estimate.as_dict(),
        "fps_folded_for": folding.fps,
        "fps_tried": [list(item) for item in folding.tried],
        "seconds": {name: round(value, 3) for name, value in flow.seconds.items()},
        "streams": streams(model),
        "finn_deps": str(get_settings().finn_deps),
    }


def streams(model: Any) -> dict[str, Any]:
    """Shape, folding and width of the first input and the last output stream, from FINN's nodes."""
    from qonnx.custom_op.registry import getCustomOp

    first, last = model.graph.node[0], model.graph.node[-1]
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
