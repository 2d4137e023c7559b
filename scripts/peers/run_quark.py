"""AMD Quark XINT8 for ONNX: power-of-two scales, per tensor, symmetric int8; the successor of Vitis-AI."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from quark.onnx import ModelQuantizer, get_library_path  # type: ignore[import-not-found,unused-ignore]
from quark.onnx.quantization.config import (  # type: ignore[import-not-found,unused-ignore]
    Config,
    get_default_config,
)

from scripts.peers.exchange import Job, Quantized, main
from scripts.peers.onnx_files import Reader, census, input_name, session


def quantize(job: Job) -> Quantized:
    """The XINT8 preset as it comes; the variant says whether its cross-layer equalisation (default: on) is kept."""
    preset = copy.deepcopy(get_default_config("XINT8"))
    preset.include_cle = {"XINT8, equalisation on": True, "XINT8, equalisation off": False}[job.variant]
    quantized = job.scratch / "quantized.onnx"
    reader = Reader(input_name(job.model), job.patches)
    ModelQuantizer(Config(global_quant_config=preset)).quantize_model(str(job.model), str(quantized), reader)
    graph = onnx.load(quantized).graph
    custom = any(node.domain not in ("", "ai.onnx") for node in graph.node)
    run = session(quantized, job.threads, get_library_path("cpu") if custom else None)
    return Quantized(run, session(job.model, job.threads), census(quantized), _scales(graph))


def _scales(graph: onnx.GraphProto) -> str:
    """Whether the scales are what the row says they are."""
    values = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    scales = [values[n.input[1]] for n in graph.node if "QuantizeLinear" in n.op_type and n.input[1] in values]
    exponents = np.log2(np.concatenate([scale.ravel() for scale in scales]).astype(np.float64))
    pow2 = "all" if np.array_equal(exponents, np.round(exponents)) else "NOT ALL"
    per_tensor = "all" if all(scale.size == 1 for scale in scales) else "NOT ALL"
    return f"{pow2} scales are powers of two, {per_tensor} per tensor"


if __name__ == "__main__":
    main(quantize, ("amd-quark", "onnxruntime", "onnx", "torch", "numpy"))
