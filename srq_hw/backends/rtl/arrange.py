"""IntGraph -> IntGraph before it becomes streams: the same output, in a form that needs less memory."""

from __future__ import annotations

from dataclasses import replace

from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.passes import minimize_accumulators, remove_dead_nodes
from srq_hw.graph.resampling import depth_to_space_order


def arrange(graph: IntGraph) -> IntGraph:
    """Drop dead nodes, give accumulators the width they need, order channels for the pixel shuffles."""
    return order_shuffles(minimize_accumulators(remove_dead_nodes(graph)))


def order_shuffles(graph: IntGraph) -> IntGraph:
    """Make a CRD DepthToSpace a DCR one by permuting the output channels of the convolution in front of it.

    In DCR order the channels of an output pixel lie side by side, so a row buffer of beats is enough; CRD needs one of
    whole pixels. Left alone where anything but Requant and Offset stands between the two, or somebody else reads them.
    """
    nodes = {node.name: node for node in graph.nodes}
    for shuffle in graph.nodes:
        if shuffle.op != "DepthToSpace" or shuffle.str_attr("mode") != "CRD":
            continue
        chain = _chain(graph, shuffle)
        if chain is None:
            continue
        order = depth_to_space_order(graph.tensors[shuffle.inputs[0]].channels, shuffle.int_attr("block"), "CRD")
        for node in chain:
            params = {
                key: value if value.shape[0] == 1 < len(order) else value[order] for key, value in node.params.items()
            }
            nodes[node.name] = replace(node, params=params)
        nodes[shuffle.name] = replace(shuffle, attrs={**shuffle.attrs, "mode": "DCR"})
    return graph.with_nodes(tuple(nodes[node.name] for node in graph.nodes), graph.tensors)


def _chain(graph: IntGraph, shuffle: Node) -> list[Node] | None:
    """The nodes from a convolution to the shuffle whose channels may be permuted; None where there are none."""
    chain: list[Node] = []
    name = shuffle.inputs[0]
    while len(graph.consumers(name)) == 1 and name != graph.output:
        node = graph.producer(name)
        if node is None:
            return None
        if node.op == "Conv":
            return [*chain, node] if node.int_attr("groups") == 1 else None
        if node.op not in ("Requant", "Offset"):
            return None
        chain.append(node)
        name = node.inputs[0]
    return None
