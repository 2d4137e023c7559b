"""EMULATION of a Vitis-AI style quantizer with onnxruntime: int8, symmetric, per tensor, scales powers of two.

Every scale is the power of two with the least squared error (weights: over the tensor; activations: over samples of
all patches), searched downwards from the one that cuts nothing. No cross-layer equalisation, none of AMD's limits on
shifts. It stands in where AMD Quark does not install, and is not Quark.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from scripts.peers.exchange import Job, Quantized, main
from scripts.peers.onnx_files import COUNTED, Reader, census, input_name, session

_CANDIDATES = 6  # scales tried: the one that cuts nothing, its half, ...
_SAMPLES = 20000  # values of a tensor kept from each patch
_LOWEST, _HIGHEST = -128, 127
_ZERO = np.array(0, np.int8)


def quantize(job: Job) -> Quantized:
    """Scales by search, then onnxruntime places the QuantizeLinear nodes with those scales."""
    prepared, quantized = job.scratch / "prepared.onnx", job.scratch / "quantized.onnx"
    quant_pre_process(str(job.model), str(prepared))
    values = _weights(prepared) | _activations(prepared, job)
    overrides = {
        name: [{"quant_type": QuantType.QInt8, "scale": np.array(_scale(seen), np.float32), "zero_point": _ZERO}]
        for name, seen in values.items()
    }
    quantize_static(
        str(prepared),
        str(quantized),
        Reader(input_name(prepared), job.patches[:1]),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"TensorQuantOverrides": overrides, "ActivationSymmetric": True},
    )
    note = f"EMULATION; {len(overrides)} scales searched"
    return Quantized(session(quantized, job.threads), session(job.model, job.threads), census(quantized), note)


def _scale(values: NDArray[np.float32]) -> float:
    largest = float(np.abs(values).max())
    if largest == 0.0:
        return 1.0
    start = int(np.ceil(np.log2(largest / _HIGHEST)))
    scales = [2.0 ** (start - step) for step in range(_CANDIDATES)]
    return min(scales, key=lambda scale: _squared_error(values, scale))


def _squared_error(values: NDArray[np.float32], scale: float) -> float:
    snapped = np.clip(np.rint(values / scale), _LOWEST, _HIGHEST) * scale
    return float(np.square(values - snapped, dtype=np.float64).mean())


def _weights(model: Path) -> dict[str, NDArray[np.float32]]:
    graph = onnx.load(model).graph
    wanted = {node.input[1] for node in graph.node if node.op_type in ("Conv", "ConvTranspose")}
    return {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer if item.name in wanted}


def _activations(model: Path, job: Job) -> dict[str, NDArray[np.float32]]:
    """Samples of every tensor that a counted operator reads or writes, over all patches."""
    proto = onnx.load(model)
    constants = {item.name for item in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.op_type in (*COUNTED, "Relu", "DepthToSpace")]
    names = sorted({name for node in nodes for name in (*node.input, *node.output) if name} - constants)
    source = input_name(model)
    present = {item.name for item in proto.graph.output}
    for name in names:
        if name not in present and name != source:
            proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = ort.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.log_severity_level = 3
    found = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = [name for name in names if name != source]
    random = np.random.default_rng(0)
    seen: Mapping[str, list[Any]] = defaultdict(list)
    for patch in job.patches:
        results = dict(zip(wanted, found.run(wanted, {source: patch}), strict=True)) | {source: patch}
        for name, value in results.items():
            flat = value.ravel()
            extremes = np.array([flat.min(), flat.max()], np.float32)
            seen[name] += [random.choice(flat, min(_SAMPLES, flat.size), replace=False), extremes]
    return {name: np.concatenate(parts) for name, parts in seen.items()}


if __name__ == "__main__":
    main(quantize, ("onnxruntime", "onnx", "numpy"))
