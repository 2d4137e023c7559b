"""QONNX files in a comparison: quantized already, so a row of their own widths, with nothing to calibrate."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from srq_hw.compare.options import NARROWEST, Widths
from srq_hw.errors import InputError, RunError
from srq_hw.exchange.lower import load_qonnx
from srq_hw.exchange.names import QONNX_SUFFIXES, QUANT_NODES
from srq_hw.fixedpoint import bits_for
from srq_hw.graph.check import prove_accumulators
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.legality import legality
from srq_hw.pipeline.engine import sha256_file
from srq_hw.pipeline.session import image_channels, lower_image_network
from srq_hw.target import Target


@dataclass(frozen=True, eq=False)
class QuantizedFile:
    """A QONNX file as the target runs it; layers and widths as `read_layers` finds them."""

    graph: IntGraph
    layers: tuple[dict[str, Any], ...]
    widths: Widths
    sha256: str

    @property
    def channels(self) -> int:
        """Of the image: 3 (RGB) or 1 (Y)."""
        return image_channels(self.graph)


def is_file(spec: str) -> bool:
    """Whether a network is named by a QONNX file."""
    return Path(spec).suffix.lower() in QONNX_SUFFIXES


def read_quantized_file(spec: str, target: Target, sha256: str | None = None) -> QuantizedFile:
    """Read and lower it. InputError as for a build of it, and where it is not legal on the target; RunError where its
    digest is not ``sha256``."""
    model = load_qonnx(Path(spec))
    graph = lower_image_network(model, target, spec)
    problem = first_problem(graph, target)
    if problem is not None:
        made = graph.metadata.get("target", target.name)
        remedy = f"; it was exported for target {made}: use --target {made}" if made != target.name else ""
        raise InputError(f"{spec}: not legal on {target.name}: {problem}{remedy}")
    digest = sha256_file(Path(spec))
    if sha256 is not None and digest != sha256:
        raise RunError(f"{spec}: changed while the comparison ran; run the same command again")
    return QuantizedFile(graph, *read_layers(graph, model), digest)


def first_problem(graph: IntGraph, target: Target) -> str | None:
    """What keeps a graph from running on a target: the first rule it breaks and how many more; None where none is."""
    problems = [str(item) for item in legality(graph, target)]
    problems += [
        f"{proof.node} needs an accumulator of {proof.bits} bits, the target has {proof.limit_bits}"
        for proof in prove_accumulators(graph, target)
        if not proof.holds
    ]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}" if problems else None


def read_layers(graph: IntGraph, model: onnx.ModelProto) -> tuple[tuple[dict[str, Any], ...], Widths]:
    """Every convolution, bits of its weights and of what it reads; and the widths that most of them have, of equals the
    wider. graph: the file, lowered."""
    written = _written_bits(model)
    rows: list[dict[str, Any]] = []
    for node in graph.nodes:
        if node.op != "Conv":
            continue
        weight = node.params["weight"]
        needed = max(bits_for(int(weight.min()), int(weight.max()), signed=True), NARROWEST)
        rows.append(
            {
                "name": node.name,
                "weights": max(written.get(node.name, needed), needed),
                "input": graph.tensors[node.inputs[0]].bits,
            }
        )
    counts: Counter[tuple[int, int]] = Counter((row["weights"], row["input"]) for row in rows)
    return tuple(rows), Widths(*max(counts, key=lambda row: (counts[row], row)))


def _written_bits(model: onnx.ModelProto) -> dict[str, int]:
    """Convolution -> the width that the file's Quant node gives its weights, where it stands directly in front."""
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {item.name: item for item in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        quant = makers.get(node.input[1]) if node.op_type == "Conv" else None
        if quant is not None and quant.op_type in QUANT_NODES and quant.input[3] in constants:
            bits = np.asarray(numpy_helper.to_array(constants[quant.input[3]]), np.float64).reshape(-1)
            found[node.name] = int(bits[0])
    return found
