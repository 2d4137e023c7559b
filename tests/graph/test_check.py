"""Legality per target: every rule fires, names the node and says what to do; the accumulator proof is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from srq_hw.errors import InputError
from srq_hw.graph import check, legality
from srq_hw.graph.ir import IntGraph, Node, Tensor
from srq_hw.graph.synthetic import GraphBuilder, edsr_graph
from srq_hw.simulate import reference
from srq_hw.target import list_targets, load_target
from tests.quantize.nets import plain_target, pow2_target, target
from tests.support.graph_strategies import graphs, random_image


@pytest.fixture(scope="module")
def graph() -> IntGraph:
    return edsr_graph(4, 1, mean_shift=True)


@pytest.mark.parametrize("name", [n for n in list_targets() if load_target(n).integer.requant.kind == "dyadic"])
def test_an_ordinary_network_is_legal_everywhere(name: str) -> None:
    aim = load_target(name)
    plain = edsr_graph(4, 1, rounding=aim.integer.requant.rounding)
    assert legality.legality(plain, aim) == []
    assert all(proof.holds for proof in check.prove_accumulators(plain, aim))


def changed(graph: IntGraph, name: str, params: dict | None = None, **attrs: object) -> IntGraph:
    def change(node: Node) -> Node:
        return replace(node, attrs={**node.attrs, **attrs}, params={**node.params, **(params or {})})

    return replace(graph, nodes=tuple(change(node) if node.name == name else node for node in graph.nodes))


def node_of(graph: IntGraph, name: str) -> Node:
    return next(node for node in graph.nodes if node.name == name)


def retyped(graph: IntGraph, name: str, **fields: object) -> IntGraph:
    return replace(graph, tensors={**graph.tensors, name: replace(graph.tensors[name], **fields)})


def grown(graph: IntGraph, name: str, key: str, value: int) -> IntGraph:
    values = node_of(graph, name).params[key].copy()
    values.ravel()[0] = value
    return changed(graph, name, {key: values})


def slope(graph: IntGraph, value: int) -> IntGraph:
    node = node_of(graph, "block0_conv1_q")
    return changed(graph, node.name, {"negative_multiplier": np.full_like(node.params["multiplier"], value)})


def shuffled(block: int, mode: str) -> IntGraph:
    build = GraphBuilder(block**2)
    return build.finish(build.depth_to_space("image", block, "shuffle_it", mode), "g")


def resized() -> IntGraph:
    build = GraphBuilder(1)
    build.nodes.append(Node("ResizeNearest", "enlarge", ("image",), "enlarge", {"factor": 3}))
    build.tensors["enlarge"] = Tensor("enlarge", 1, 8, False, 3)
    return build.finish("enlarge", "g")


def grouped() -> IntGraph:
    build = GraphBuilder(4)
    return build.finish(build.conv("image", np.ones((4, 1, 3, 3)), np.zeros(4), "depthwise", groups=4), "g")


Z = target()
RULES: dict[str, tuple[Callable[[IntGraph], IntGraph], object, str, str]] = {
    "resize": (lambda g: resized(), plain_target(), "enlarge", "integer.ops"),
    "weight too wide": (lambda g: grown(g, "tail", "weight", 128), Z, "tail", "integer.weights.bits"),
    "weight not narrow": (lambda g: grown(g, "tail", "weight", -128), Z, "tail", "integer.weights.bits"),
    "bias": (lambda g: grown(g, "tail", "bias", 1 << 20), target(**{"bias.bits": 16}), "tail", "integer.bias.bits"),
    "kernel": (lambda g: g, target(**{"ops.Conv.kernel_max": 1}), "head", "integer.ops.Conv.kernel_max"),
    "groups": (lambda g: grouped(), plain_target(), "depthwise", "integer.ops.Conv.groups"),
    "rounding": (lambda g: changed(g, "tail_q", rounding="half_up"), Z, "tail_q", "integer.requant.rounding"),
    "multiplier": (lambda g: grown(g, "tail_q", "multiplier", 1 << 16), Z, "tail_q", "integer.requant (dyadic)"),
    "slope multiplier": (lambda g: slope(g, 1 << 16), Z, "block0_conv1_q", "integer.requant (dyadic)"),
    "multiplier on a shifter": (lambda g: g, pow2_target(), "head_q", "integer.requant (pow2)"),
    "shift": (lambda g: grown(g, "tail_q", "shift", 48), Z, "tail_q", "integer.requant.shift_max"),
    "64-bit product": (lambda g: grown(g, "tail_q", "shift", -30), Z, "tail_q", "64-bit product"),
    "activation": (
        lambda g: g,
        target(**{"activations.bits": {"min": 2, "max": 4, "default": 4}}),
        "tail_q",
        "integer.activations.bits",
    ),
    "zero point": (
        lambda g: retyped(changed(g, "last_q", zero_point=3), "last_q", zero_point=3),
        Z,
        "last_q",
        "integer.activations.zero_points",
    ),
    "prelu": (
        lambda g: slope(g, 1),
        target(**{"ops.Requant.activations": ["none", "relu"]}),
        "block0_conv1_q",
        "integer.ops.Requant.activations",
    ),
    "slope that falls": (lambda g: slope(g, -1), Z, "block0_conv1_q", "integer.ops.Requant.slope_min"),
    "slope on a shifter": (
        lambda g: slope(g, 1),
        target("dpu-pow2", **{"requant.rounding": "half_even"}),
        "block0_conv1_q",
        "integer.ops.Requant.slope_bits",
    ),
    "resize factor": (
        lambda g: resized(),
        target("int-generic", **{"ops.ResizeNearest": {"factor_max": 2}}),
        "enlarge",
        "integer.ops.ResizeNearest.factor_max",
    ),
    "equal scales": (lambda g: changed(g, "skip", multipliers=(1, 2)), Z, "skip", "integer.add.equal_scales"),
    "image": (lambda g: g, target(**{"image.bits_max": 8}), "image", "integer.image.bits_max"),
    "shuffle block": (lambda g: shuffled(5, "CRD"), Z, "shuffle_it", "integer.ops.DepthToSpace.block_max"),
    "shuffle order": (
        lambda g: shuffled(2, "DCR"),
        target(**{"ops.DepthToSpace.modes": ["CRD"]}),
        "shuffle_it",
        "integer.ops.DepthToSpace.modes",
    ),
    "accumulator": (
        lambda g: g,
        target(**{"accumulator.bits": 17, "bias.bits": 17}),
        "tail",
        "integer.accumulator.bits",
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_rule_fires(graph: IntGraph, name: str) -> None:
    damage, aim, node, rule = RULES[name]
    found = legality.legality(damage(graph), aim)
    mine = [item for item in found if (item.node, item.rule) == (node, rule)]
    assert len(mine) == 1, found
    assert mine[0].found and mine[0].allowed and mine[0].remedy.endswith(".")
    assert str(mine[0]).startswith(f"{node}: {rule}: ")


def test_every_rule_function_has_a_case() -> None:
    """A rule added to the table without a case here fails."""
    prefixes = {rule for _, _, _, rule in RULES.values()}
    assert len(legality.RULES) == 8, "a new rule: add its case to RULES"
    assert {
        "integer.ops",
        "integer.weights.bits",
        "integer.add.equal_scales",
        "integer.ops.DepthToSpace.modes",
    } <= prefixes


def test_the_image_that_leaves_may_be_wider_than_the_layers() -> None:
    aim = target(
        **{"activations.bits": {"min": 2, "max": 4, "default": 4}, "weights.bits": {"min": 2, "max": 4, "default": 4}}
    )
    assert legality.legality(edsr_graph(4, 1, weight_bits=4, act_bits=4), aim) == []


@pytest.mark.parametrize("spare", [0, 1])
def test_accumulator_proof_is_exact(spare: int) -> None:
    """Sum |w| max |x| + bias exactly at the limit holds; one more does not; the worst image reaches the proof."""
    build = GraphBuilder(2)
    weight = np.array([[[[100]], [[-28]]]])
    top = 100 * 255
    build.conv("image", weight, np.array([(1 << 17) - 1 - top + 1 - spare]), "acc")
    graph = build.finish("acc", "g")
    (proof,) = check.prove_accumulators(graph, target(**{"accumulator.bits": 18, "bias.bits": 18}))
    assert (proof.node, proof.op, proof.limit_bits) == ("acc", "Conv", 18)
    assert proof.hi == (1 << 17) - spare and proof.lo == proof.hi - 128 * 255
    assert (proof.bits, proof.holds) == ((18, True) if spare else (19, False))
    worst = np.array([[[255, 0]]])
    assert reference.run(graph, worst).item() == proof.hi
    assert reference.run(graph, worst[..., ::-1]).item() == proof.lo


@settings(max_examples=60)
@given(graph=graphs())
def test_bounds_hold_for_every_tensor(graph: IntGraph) -> None:
    reach = check.bounds(graph)
    for seed in range(3):
        for name, values in reference.trace(graph, random_image(graph, 4, 5, seed)).items():
            assert (values >= reach[name].lo).all() and (values <= reach[name].hi).all(), name


def test_verify_names_what_is_wrong_with_the_graph(graph: IntGraph) -> None:
    first = graph.nodes[0]
    tensors = dict(graph.tensors)
    broken = {
        "no tensor entry": replace(graph, input="nowhere"),
        "exists already": replace(graph, nodes=(*graph.nodes, replace(graph.nodes[-1], output="again"))),
        "written twice": replace(graph, nodes=(*graph.nodes, replace(first, name="again"))),
        "before anything makes it": replace(graph, nodes=graph.nodes[1:]),
        "no node makes the output": replace(graph, output="nowhere"),
        "tensor head": replace(graph, tensors={**tensors, "head": replace(tensors["head"], name="tail")}),
        "tensor tail": replace(graph, tensors={**tensors, "tail": replace(tensors["tail"], bits=63)}),
        "tensor skip": replace(graph, tensors={**tensors, "skip": replace(tensors["skip"], channels=0)}),
        "is declared INT5": retyped(graph, "head", bits=5),
        "is declared UINT32": retyped(graph, "head", signed=False),
        "is declared INT7": retyped(graph, "tail_q", bits=7),
        "is declared with zero point 3": retyped(graph, "tail_q", zero_point=3),
        "passes": retyped(graph, "shuffle", bits=9),
    }
    for complaint, wrong in broken.items():
        with pytest.raises(InputError, match=complaint):
            check.verify(wrong)
    check.verify(graph)
