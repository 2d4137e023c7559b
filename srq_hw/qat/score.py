"""What counts of a quantized network: PSNR and SSIM of the integer simulator's output, and that its integers agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srq_hw.errors import RunError
from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.datasets import Pair
from srq_hw.evaluate.metrics import psnr_y, ssim_y
from srq_hw.exchange.direct import to_intgraph
from srq_hw.networks.loading import FloatNetwork, run_float
from srq_hw.parity import Comparison, compare
from srq_hw.proof import frozen_against_reference
from srq_hw.quantize.freeze import freeze, load_frozen, quant_net
from srq_hw.quantize.ptq import Quantized
from srq_hw.simulate import reference
from srq_hw.simulate.fast import compile_graph
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Score:
    """Means over a set: PSNR on Y in dB, SSIM on Y."""

    psnr: float
    ssim: float


def integer_score(quantized: Quantized, target: Target, pairs: Sequence[Pair]) -> Score:
    """Frozen and run by the fast simulator, whole images."""
    program = compile_graph(to_intgraph(freeze(quantized.plan, quantized.calibration, target)))
    channels = quantized.plan.net.channels
    outputs = [program.run(network_view(pair.lr, channels))[0].astype(np.uint8) for pair in pairs]
    return _mean(outputs, pairs)


def float_score(network: FloatNetwork, pairs: Sequence[Pair]) -> Score:
    """Of the float network on the same 8-bit images."""
    return _mean([run_float(network, network_view(pair.lr, network.channels)) for pair in pairs], pairs)


def _mean(outputs: Sequence[Image], pairs: Sequence[Pair]) -> Score:
    scales = [pair.hr.shape[0] // pair.lr.shape[0] for pair in pairs]
    views = [network_view(pair.hr, out.shape[2]) for out, pair in zip(outputs, pairs, strict=True)]
    both = list(zip(outputs, views, scales, strict=True))
    psnr = float(np.mean([psnr_y(out, hr, scale) for out, hr, scale in both]))
    return Score(psnr, float(np.mean([ssim_y(out, hr, scale) for out, hr, scale in both])))


def require_parity(quantized: Quantized, target: Target, crop: Image) -> tuple[Comparison, Comparison]:
    """Frozen Brevitas model (float64) and fast simulator against the reference, every tensor both name.

    crop: uint8 (h, w, C) as the network sees it. RunError where an integer differs.
    """
    frozen = freeze(quantized.plan, quantized.calibration, target)
    graph = to_intgraph(frozen)
    right = reference.trace(graph, crop)
    model = load_frozen(quant_net(quantized.plan, quantized.calibration, target), frozen)
    program = compile_graph(graph)
    fast = program.trace(crop) | {graph.output: program.run(crop)}
    found = (
        frozen_against_reference(model, frozen, graph, crop, right),
        compare({name: fast[name] for name in right if name in fast}, right),
    )
    for who, comparison in zip(("frozen Brevitas model", "fast simulator"), found, strict=True):
        if not comparison.equal:
            raise RunError(
                f"parity: {comparison.mismatches} of {comparison.elements} integers of the {who} differ from the "
                f"reference simulator's, first {comparison.first}"
            )
    return found
