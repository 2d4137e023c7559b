"""NNCF's post-training quantization on its OpenVINO backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nncf  # type: ignore[import-not-found,unused-ignore]
import numpy as np
import openvino as ov  # type: ignore[import-not-found,unused-ignore]
from nncf.quantization.advanced_parameters import (  # type: ignore[import-not-found,unused-ignore]
    AdvancedQuantizationParameters,
)
from nncf.quantization.range_estimator import (  # type: ignore[import-not-found,unused-ignore]
    RangeEstimatorParametersSet,
)

from scripts.peers.exchange import Job, Quantized, Run, Tensor, main

_COUNTED = {
    "Convolution": "Conv",
    "GroupConvolution": "Conv",
    "ConvolutionBackpropData": "ConvTranspose",
    "Add": "Add",
    "Concat": "Concat",
}
_MOVES = ("DepthToSpace", "Concat", "StridedSlice", "Slice", "Relu", "Reshape", "Convert")


def quantize(job: Job) -> Quantized:
    """default: nothing changed (each activation's range is the mean of the patches' ranges). minmax: the true range."""
    core = ov.Core()
    plain = core.read_model(job.model)
    chosen: Mapping[str, Any] = {}
    if job.variant == "minmax":
        ranges = RangeEstimatorParametersSet.MINMAX
        chosen = {"advanced_parameters": AdvancedQuantizationParameters(activations_range_estimator_params=ranges)}
    data = nncf.Dataset(list(job.patches))
    made = nncf.quantize(plain.clone(), data, subset_size=len(job.patches), **chosen)
    return Quantized(_runner(core, made, job.threads), _runner(core, plain, job.threads), _census(made))


def _runner(core: Any, model: Any, threads: int) -> Run:
    # Without the hint OpenVINO may compute in bfloat16, which would be charged to the quantizer.
    hints = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", hints).create_infer_request()

    def run(x: Tensor) -> Tensor:
        return np.array(request.infer({0: x})[0], np.float32)

    return run


def _census(model: Any) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for node in model.get_ops():
        name = _COUNTED.get(node.get_type_name())
        sources = [port.get_source_output().get_node() for port in node.inputs()]
        if name is None or node.get_output_element_type(0) != ov.Type.f32:
            continue  # shapes are joined by Concat too
        if name == "Add" and any(_is_constant(source) for source in sources):
            continue  # a bias
        done, total = found.get(name, (0, 0))
        found[name] = (done + all(_is_quantized(source) for source in sources), total + 1)
    return found


def _is_constant(node: Any) -> bool:
    kind = node.get_type_name()
    if kind in ("Convert", "Reshape"):
        return _is_constant(node.input(0).get_source_output().get_node())
    return bool(kind == "Constant")


def _is_int8(node: Any) -> bool:
    if node.get_type_name() in ("Convert", "Subtract"):
        return _is_int8(node.input(0).get_source_output().get_node())
    return bool(node.get_type_name() == "Constant" and node.get_output_element_type(0) == ov.Type.i8)


def _is_quantized(node: Any) -> bool:
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        return True
    if kind == "Multiply":  # int8 weights times their scale
        return any(_is_int8(port.get_source_output().get_node()) for port in node.inputs())
    if kind in _MOVES:
        count = len(node.inputs()) if kind == "Concat" else 1
        return all(_is_quantized(node.input(index).get_source_output().get_node()) for index in range(count))
    return False


if __name__ == "__main__":
    main(quantize, ("nncf", "openvino", "numpy"))
