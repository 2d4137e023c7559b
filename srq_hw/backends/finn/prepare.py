"""IntGraph -> the IntGraph FINN takes: what it cannot run is refused, a pixel shuffle becomes one plain move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from srq_hw.errors import InputError
from srq_hw.graph.check import verify
from srq_hw.graph.ir import Int, IntGraph, Node
from srq_hw.graph.passes import run_passes
from srq_hw.graph.resampling import depth_to_space_order


@dataclass(frozen=True)
class Prepared:
    """A graph ready for emission, and how its channels lie.

    order[t]: int64 (C,), channel of the original tensor t at each position of the prepared one; tensors whose channels
    keep their order are absent.
    """

    graph: IntGraph
    order: dict[str, Int]


def prepare(graph: IntGraph) -> Prepared:
    """Passes, refusal of what FINN cannot take (InputError: node, reason, remedy), CRD shuffles turned into DCR."""
    verify(graph)
    graph = run_passes(graph)
    _refuse(graph)
    order: dict[str, Int] = {}
    for node in graph.nodes:
        if node.op == "DepthToSpace" and node.str_attr("mode") == "CRD":
            chain = _permutable_chain(graph, node.inputs[0])
            if chain:
                graph = _to_dcr(graph, node, chain, order)
    verify(graph)
    return Prepared(graph, order)


# --- what FINN cannot take ----------------------------------------------------------------------------------------


def _refuse(graph: IntGraph) -> None:
    for name, tensor in graph.tensors.items():
        if tensor.zero_point:
            raise InputError(
                f"FINN: tensor {name}: zero point {tensor.zero_point}; FINN pads and multiplies with 0 only. "
                "Allowed: 0. Quantize symmetrically (integer.activations.zero_points: false)."
            )
    for node in graph.nodes:
        for rule in _RULES.get(node.op, ()):
            complaint = rule(graph, node)
            if complaint:
                raise InputError(f"FINN: node {node.name} ({node.op}): {complaint}")


def _groups(graph: IntGraph, node: Node) -> str:
    groups = node.int_attr("groups")
    if groups == 1:
        return ""
    return f"{groups} groups; FINN's matrix unit is dense. Allowed: 1. Expand the weights to a dense kernel with zeros."


def _conv_readers(graph: IntGraph, node: Node) -> str:
    others = [reader.name for reader in graph.consumers(node.output) if reader.op != "Requant"]
    if node.output == graph.output:
        others.append("the graph output")
    if not others:
        return ""
    return (
        f"its accumulator goes to {', '.join(others)} without a Requant; the bias lives in the thresholds behind the "
        "matrix unit. Allowed: Requant. Put a quantizer behind every convolution."
    )


def _plain_add(graph: IntGraph, node: Node) -> str:
    factors = node.ints_attr("multipliers")
    if factors != (1, 1):
        return (
            f"multipliers {factors}; FINN adds streams as they are. Allowed: (1, 1). "
            "Share one quantizer between both inputs (add.equal_scales: true)."
        )
    if node.inputs[0] == node.inputs[1]:
        return f"adds {node.inputs[0]} to itself. Allowed: two different tensors. Double the scale instead."
    return ""


def _no_resize(graph: IntGraph, node: Node) -> str:
    return "nearest-neighbour upsampling does not reach FINN's upsampler from here. Use PixelShuffle (DepthToSpace)."


def _ends_quantized(graph: IntGraph, node: Node) -> str:
    if node.output != graph.output:
        return ""
    return "its exact result is the graph output. Allowed: a quantized output. Put a quantizer behind it."


def _no_filter(graph: IntGraph, node: Node) -> str:
    return (
        f"upsampling by a filter (factor {node.attrs['factor']}) has no FINN layer. Allowed: DepthToSpace. Upscale the "
        "image on the host and add it there, or use a network without that skip."
    )


def _rises(graph: IntGraph, node: Node) -> str:
    slopes = node.params.get("negative_multiplier")
    if slopes is None or int(slopes.min()) >= 0:
        return ""
    return (
        "a negative slope; FINN counts thresholds, and a function that falls has none. Allowed: slopes from 0 on. Use "
        "ReLU, or put the PReLU between two convolutions (srq-hw then splits it)."
    )


def _no_slice(graph: IntGraph, node: Node) -> str:
    return (
        f"taking channels {node.attrs['start']} to {node.attrs['stop']} has no FINN layer here. Allowed: Concat, Conv. "
        "Use a network that does not split its channels (a 1x1 convolution with 0 and 1 as weights picks channels)."
    )


_RULES: dict[str, tuple[Callable[[IntGraph, Node], str], ...]] = {
    "Conv": (_groups, _conv_readers),
    "Add": (_plain_add, _ends_quantized),
    "ResizeNearest": (_no_resize,),
    "ResizeFilter": (_no_filter,),
    "Slice": (_no_slice,),
    "Requant": (_rises,),
}


# --- CRD -> DCR ---------------------------------------------------------------------------------------------------


def _permutable_chain(graph: IntGraph, tensor: str) -> list[Node]:
    """Requant, Conv that make the tensor and serve nothing else: their channels may be put in any order. [] if not."""
    chain: list[Node] = []
    while len(graph.consumers(tensor)) == 1 and tensor != graph.output:
        node = graph.producer(tensor)
        if node is None or node.op not in ("Requant", "Conv"):
            return []
        chain.append(node)
        if node.op == "Conv":
            return chain
        tensor = node.inputs[0]
    return []


def _to_dcr(graph: IntGraph, shuffle: Node, chain: list[Node], order: dict[str, Int]) -> IntGraph:
    """DCR is one swap of two outer axes with r*C channels inside; CRD would need inner shuffles and their buffers."""
    permutation = depth_to_space_order(
        graph.tensors[shuffle.inputs[0]].channels, shuffle.int_attr("block"), str(shuffle.attrs["mode"])
    )
    new = {shuffle.name: replace(shuffle, attrs={**shuffle.attrs, "mode": "DCR"})}
    for node in chain:
        params = {key: _reorder(value, permutation) for key, value in node.params.items()}
        new[node.name] = replace(node, params=params)
        order[node.output] = permutation
    return graph.with_nodes(tuple(new.get(node.name, node) for node in graph.nodes), graph.tensors)


def _reorder(values: Int, permutation: Int) -> Int:
    return values if values.shape[0] == 1 and len(permutation) != 1 else np.ascontiguousarray(values[permutation])
