"""The publisher's own quantization-aware build of a network, a uint8 TFLite file, run by the LiteRT interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found,import-untyped,unused-ignore]

from scripts.peers.exchange import Job, Quantized, Tensor, main


def quantize(job: Job) -> Quantized:
    """Nothing is quantized here: the artefact takes and gives uint8 images (1, H, W, 3)."""
    assert job.artefact is not None
    interpreter: Any = Interpreter(str(job.artefact), num_threads=job.threads)
    source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if source["dtype"] is not np.uint8 or sink["dtype"] is not np.uint8:
        raise RuntimeError(f"the artefact takes {source['dtype']} and gives {sink['dtype']}; uint8 is expected")

    def run(x: Tensor) -> Tensor:
        image = np.clip(np.rint(x / job.grey_level), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        interpreter.resize_tensor_input(source["index"], image.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], image)
        interpreter.invoke()
        found = interpreter.get_tensor(sink["index"])
        return np.ascontiguousarray(found.transpose(0, 3, 1, 2)).astype(np.float32) * np.float32(job.grey_level)

    scales = f"input {source['quantization']}, output {sink['quantization']} (scale, zero point)"
    return Quantized(run, None, {}, scales)


if __name__ == "__main__":
    main(quantize, ("ai-edge-litert", "numpy"))
