"""onnxruntime's static post-training quantization: QDQ, int8, per channel; MinMax, Percentile or Entropy."""

from __future__ import annotations

from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from scripts.peers.exchange import Job, Quantized, main
from scripts.peers.onnx_files import Reader, census, input_name, session


def quantize(job: Job) -> Quantized:
    """Everything at its default but per_channel, int8 activations and the calibration method of the variant."""
    prepared, quantized = job.scratch / "prepared.onnx", job.scratch / "quantized.onnx"
    quant_pre_process(str(job.model), str(prepared))
    quantize_static(
        str(prepared),
        str(quantized),
        Reader(input_name(prepared), job.patches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[job.variant],
    )
    return Quantized(session(quantized, job.threads), session(job.model, job.threads), census(quantized))


if __name__ == "__main__":
    main(quantize, ("onnxruntime", "onnx", "numpy"))
