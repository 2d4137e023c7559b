"""IntGraph -> the IntGraph that is emitted: passes, pixel shuffles as plain moves, and a library for every node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from srq_hw.backends.finn.placement import Library, Place, place
from srq_hw.backends.rtl.limits import refuse
from srq_hw.graph.check import verify
from srq_hw.graph.ir import Int, IntGraph, Node
from srq_hw.graph.passes import run_passes
from srq_hw.graph.resampling import depth_to_space_order
from srq_hw.target import DspKind


@dataclass(frozen=True)
class Prepared:
    """A graph ready for emission, how its channels lie, and who computes each node.

    order[t]: int64 (C,), channel of the original tensor t at each position of the prepared one; tensors whose channels
    keep their order are absent. places: by node name.
    """

    graph: IntGraph
    order: dict[str, Int]
    places: Mapping[str, Place]


def prepare(graph: IntGraph, library: Library = "finn", dsp: DspKind = "DSP48E2") -> Prepared:
    """Passes, CRD shuffles turned into DCR, a library for every node on devices of that DSP block.

    InputError (node, reason, remedy) for what neither library can do.
    """
    verify(graph)
    graph = run_passes(graph)
    refuse(graph)
    order: dict[str, Int] = {}
    for node in graph.nodes:
        if node.op == "DepthToSpace" and node.str_attr("mode") == "CRD":
            chain = _permutable_chain(graph, node.inputs[0])
            if chain:
                graph = _to_dcr(graph, node, chain, order)
    verify(graph)
    return Prepared(graph, order, place(graph, library, dsp))


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
            return chain if node.int_attr("groups") == 1 else []
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
