"""The equality gates of the integer program in one place: every command that proves something proves it here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from srq_hw.errors import RunError
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.parity import Comparison, compare
from srq_hw.quantize.brevitas_layers import QuantNet
from srq_hw.quantize.freeze import Frozen, run_frozen

Image = npt.NDArray[np.uint8]


def frozen_against_reference(
    model: QuantNet, frozen: Frozen, graph: IntGraph, image: Image, reference: dict[str, Int]
) -> Comparison:
    """The frozen Brevitas model in float64 against the reference simulator: every Requant, the image, the output.

    reference: every tensor of the graph for the image (`simulate.reference.trace`). RunError where the model does not
    make a tensor that the graph requantizes: the rest could be equal without it.
    """
    left = run_frozen(model, frozen, image)
    right = dict(reference)
    if "image_quant" in frozen.plan.points:
        right["image_quant"] = right[graph.input]
    missing = {node.output for node in graph.nodes if node.op == "Requant"} | {graph.output}
    missing -= left.keys()
    if missing:
        raise RunError(f"parity: the Brevitas model makes no {', '.join(sorted(missing))} to compare with")
    return compare(left, right)
