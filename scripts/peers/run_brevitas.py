"""Brevitas' post-training quantization as its own example program configures it, layer by layer.

Symmetric activations at every convolution's input (static, per tensor), symmetric weights per output channel, float
scales. Percentile: activations cut at 99.999 percent, weights at their maximum. MSE: both by least squared error.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.graph.calibrate import calibration_mode
from brevitas.graph.quantize import layerwise_quantize
from brevitas_examples.imagenet_classification.ptq.ptq_common import (  # type: ignore[import-untyped,unused-ignore]
    create_quant_maps,
)
from torch import nn

from scripts.peers.exchange import Job, Quantized, Run, Tensor, main
from scripts.peers.onnx_to_torch import load

PERCENTILE = 99.999
_BATCH = 8
_KEPT_BITS = 8
_METHODS = {"percentile 99.999": "stats", "MSE": "mse"}


def quantize(job: Job) -> Quantized:
    """Replace every convolution (those of job.keep with 8 bits), then calibrate on the patches in batches."""
    torch.set_num_threads(job.threads)
    network, weights = load(job.model)
    kept = [name for name, weight in weights.items() if weight in job.keep]
    missing = set(job.keep) - set(weights.values())
    if missing:
        raise RuntimeError(f"weights {sorted(missing)} to keep at {_KEPT_BITS} bits are not in the network")
    rest = [name for name in weights if name not in kept]
    network = layerwise_quantize(network, _layers(job, job.bits), name_blacklist=kept)
    network = layerwise_quantize(network, _layers(job, _KEPT_BITS), name_blacklist=rest)
    network.eval()
    with torch.no_grad(), calibration_mode(network):
        for batch in _batches(job.patches):
            network(batch)
    return Quantized(_runner(network), _runner(load(job.model)[0]), _census(network), _bits(network))


def _layers(job: Job, bits: int) -> dict[Any, Any]:
    """Brevitas' map from a layer class to its quantized class and quantizers."""
    method = _METHODS[job.variant]
    maps = create_quant_maps(
        dtype=torch.float32,
        bias_bit_width=None,
        weight_bit_width=bits,
        weight_param_method=method,
        weight_scale_type="float_scale",
        weight_quant_type="sym",
        weight_quant_granularity="per_channel",
        weight_narrow_range=False,
        weight_quant_format="int",
        act_quant_format="int",
        act_bit_width=bits,
        act_scale_type="float_scale",
        act_scale_computation_type="static",
        act_param_method=method,
        act_quant_type="sym",
        act_quant_granularity="per_tensor",
        act_quant_percentile=PERCENTILE,
    )
    layers: dict[Any, Any] = maps[1]
    return layers


def _batches(patches: tuple[Tensor, ...]) -> list[torch.Tensor]:
    """Batches of patches of equal shape."""
    found = []
    for _, same in groupby(sorted(patches, key=lambda patch: patch.shape), key=lambda patch: patch.shape):
        stacked = torch.cat([torch.from_numpy(patch) for patch in same])
        found += list(stacked.split(_BATCH))
    return found


def _runner(network: nn.Module) -> Run:
    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = network(torch.from_numpy(x)).numpy()
        return found

    return run


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.ConvTranspose2d)


def _census(network: nn.Module) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for module in network.modules():
        if _is_convolution(module):
            name = "Conv" if isinstance(module, nn.Conv2d) else "ConvTranspose"
            done, total = found.get(name, (0, 0))
            found[name] = (done + isinstance(module, qnn.QuantConv2d | qnn.QuantConvTranspose2d), total + 1)
    return found


def _bits(network: nn.Module) -> str:
    """Weight and input bits of the layers as Brevitas built them."""
    counts: dict[tuple[int, int], int] = defaultdict(int)
    for module in network.modules():
        if isinstance(module, qnn.QuantConv2d | qnn.QuantConvTranspose2d):
            weight, source = module.weight_quant.bit_width(), module.input_quant.bit_width()
            counts[int(weight), int(source)] += 1
    return "; ".join(f"{number} layers W{weight}A{source}" for (weight, source), number in sorted(counts.items()))


if __name__ == "__main__":
    main(quantize, ("brevitas", "torch", "numpy"))
