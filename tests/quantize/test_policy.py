"""Bits by layer: what every layer asks for it gets, nothing wider reaches a convolution, and the chain stays equal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srq_hw.errors import InputError
from srq_hw.exchange.direct import to_intgraph
from srq_hw.graph.legality import legality
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.freeze import freeze
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.quantize.policy import LayerPolicy, choose_bits
from srq_hw.simulate import reference
from srq_hw.target import Target, load_target
from tests.quantize import nets
from tests.quantize.chain import assert_chain, operand_bits, reads_image
from tests.quantize.nets import Forward, conv, image, network, recipe

GENERIC = load_target("int-generic")


def moved() -> nn.Module:
    """Shuffles, slices, resizes and a concat between sums and convolutions."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.head(x)
        s = h + m.a(torch.relu(h))
        u = F.pixel_shuffle(s, 2)
        v = F.interpolate(m.c(s[:, :4] + s[:, 4:]), scale_factor=2, mode="nearest")
        return m.last(torch.cat([m.b(u), v, u], 1))

    return Forward(forward, head=conv(3, 8), a=conv(8, 8), b=conv(2, 3), c=conv(4, 3), last=conv(8, 3))


def image_everywhere() -> nn.Module:
    """The image in a convolution, in sums inside and at the end, and in front of a convolution behind a resize."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        a = m.a(x)
        y = m.c(torch.relu(a)) + m.d(a + x) + m.e(a) + x
        return m.g(F.interpolate(x, scale_factor=2, mode="nearest")) + F.interpolate(y, scale_factor=2, mode="nearest")

    return Forward(forward, **{name: conv(3, 3) for name in "acdeg"})


def concats() -> nn.Module:
    """Sums of sums that meet in concats, one of them read by a sum and by a convolution."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.h(x)
        s = h + m.a(h)
        t = s + m.b(s)
        y = m.c(torch.cat([h, s, t], 1))
        z = torch.cat([s, torch.relu(y)], 1)
        return m.last(z) + m.e(z + z)

    return Forward(forward, h=conv(3, 4), a=conv(4, 4), b=conv(4, 4), c=conv(12, 4), last=conv(8, 3), e=conv(8, 3))


NETS: dict[str, Callable[[], nn.Module]] = {
    **nets.NETS,
    "moved": moved,
    "image everywhere": image_everywhere,
    "concats": concats,
}
#: weights, activations, the policy
WIDTHS: dict[str, tuple[int, int, LayerPolicy]] = {
    "all 4": (4, 4, LayerPolicy()),
    "all 8": (8, 8, LayerPolicy()),
    "edges 8": (4, 4, LayerPolicy(edges=8)),
    "sums 16": (4, 4, LayerPolicy(sums=16)),
    "edges 8, sums 12": (3, 5, LayerPolicy(edges=8, sums=12)),
    "sums 2": (6, 6, LayerPolicy(sums=2)),
    "edges 2, sums 9": (8, 8, LayerPolicy(edges=2, sums=9)),
}


def plan_of(module: nn.Module, widths: str, aim: Target = GENERIC) -> QuantPlan:
    weights, activations, policy = WIDTHS[widths]
    return make_plan(normalize(network(module)), aim, weights, activations, policy)


def only_the_image_is_wider(plan: QuantPlan, operands: dict[str, int]) -> None:
    """The bits of a convolution's operand are at most the bits asked for; the image has 8 whatever is asked."""
    assert operands.keys() == plan.bits.activations.keys()
    for name, bits in operands.items():
        assert bits <= 9 if reads_image(plan, name) else bits <= plan.bits.activations[name], name


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("name", NETS)
def test_the_chain_is_equal_and_no_operand_is_too_wide(name: str, widths: str) -> None:
    plan = plan_of(NETS[name](), widths)
    calibration = calibrate(plan, GENERIC, recipe(), [image(1), image(2)])
    graph = assert_chain(plan, calibration, GENERIC, [image(3), image(4)])
    assert legality(graph, GENERIC) == []
    only_the_image_is_wider(plan, operand_bits(graph))
    for node in graph.nodes:
        if node.op == "Conv":
            limit = 1 << (plan.bits.weights[node.name] - 1)
            assert np.abs(node.params["weight"]).max() < limit, "narrow weights of the width asked for"


@pytest.mark.parametrize("rounding", ["half_even", "half_away", "floor", "trunc"])
def test_every_rounding_behind_a_wide_sum(rounding: str) -> None:
    """Narrowing is a requantization like any other: ties go where the target's rule says."""
    aim = nets.target("int-generic", **{"requant.rounding": rounding})
    plan = plan_of(moved(), "sums 16", aim)
    assert_chain(plan, calibrate(plan, aim, recipe(), [image(1)]), aim, [image(3)])


def test_a_skip_keeps_its_bits_and_the_convolution_behind_it_reads_fewer() -> None:
    points = plan_of(nets.residual(), "sums 16").points
    bits = {name: point.bits for name, point in points.items()}
    assert bits == {
        "image_quant": 8, "head_quant": 16, "head_quant4": 4, "relu_quant": 4, "c2_quant": 16, "add_quant": 4,
        "tail_quant": 16, "add_1_quant": 4, "up_quant": 8,
    }  # fmt: skip
    narrow = points["head_quant4"]
    assert (narrow.source, narrow.producer, narrow.tensor) == ("head_quant", "head_quant", "head")
    assert narrow.group != points["head_quant"].group and narrow.signed


def test_two_convolutions_of_one_width_share_the_narrower_quantizer() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.h(x)
        return m.o(h + m.a(h) + m.b(h))

    module = Forward(forward, h=conv(3, 4), a=conv(4, 4), b=conv(4, 4), o=conv(4, 3))
    net = normalize(network(module))
    names = [name for name in make_plan(net, GENERIC, 4, 4, LayerPolicy(sums=10)).points if name.startswith("h_")]
    assert names == ["h_quant", "h_quant4"]
    policy = LayerPolicy(sums=10, activations={"b": 6})
    plan = make_plan(net, GENERIC, 4, 4, policy)
    assert {name: plan.points[name].bits for name in plan.points if name.startswith("h_")} == {
        "h_quant": 10, "h_quant4": 4, "h_quant6": 6,
    }  # fmt: skip
    assert plan.point_of(plan.layer("b").inputs[0]).bits == 6
    assert_chain(plan, calibrate(plan, GENERIC, recipe(), [image(1)]), GENERIC, [image(3)])


def test_a_narrower_quantizer_behind_a_shuffle_and_a_slice() -> None:
    plan = plan_of(moved(), "sums 16")
    bits = {conv_: plan.point_of(plan.layer(conv_).inputs[0]).bits for conv_ in ("a", "b", "c", "last")}
    assert bits == {"a": 4, "b": 4, "c": 4, "last": 4}
    shuffled = plan.layer(plan.layer("b").inputs[0])
    assert plan.layer(shuffled.inputs[0]).op == "shuffle", "narrowed behind the shuffle: one tensor, many readers"


def test_the_image_is_never_narrowed() -> None:
    """A resized or sliced image has 256 grey levels like the image itself: 4 bits would throw 240 of them away."""
    plan = plan_of(image_everywhere(), "all 4")
    assert plan.point_of(plan.layer("g").inputs[0]).name == "image_quant"
    many = Forward(
        lambda m, x: m.b(torch.relu(m.a(x))) + torch.cat([x[:, 1:], x[:, :1]], 1), a=conv(3, 4), b=conv(4, 3)
    )
    skip = make_plan(normalize(network(many)), GENERIC, 4, 4)
    assert [point.name for point in skip.points.values() if "image" in point.name] == ["image_quant"]
    assert skip.points["b_quant"].fixed and skip.points["b_quant"].bits == 9
    assert skip.point_of(skip.layer("add").inputs[1]).name == "image_quant"


def test_what_is_added_to_the_image_is_narrowed_for_convolutions() -> None:
    """Its step is one grey level and it has 9 bits for the sum; a convolution that asked for 4 reads 4."""
    plan = plan_of(image_everywhere(), "all 4")
    assert (plan.points["a_quant"].bits, plan.points["a_quant"].fixed) == (9, True)
    assert plan.point_of(plan.layer("e").inputs[0]).bits == 4
    assert not plan.point_of(plan.layer("e").inputs[0]).fixed


def test_an_operand_as_wide_as_what_is_read_gets_no_second_quantizer() -> None:
    for widths in ("all 4", "all 8"):
        points = plan_of(nets.residual(), widths).points
        assert all(point.source == point.tensor for point in points.values())


def test_one_convolution_by_name() -> None:
    net = normalize(network(nets.residual()))
    policy = LayerPolicy(edges=8, weights={"c1": 2, "up": 6}, activations={"tail": 3, "up": 5})
    plan = make_plan(net, GENERIC, 4, 4, policy)
    assert plan.bits.weights == {"head": 8, "c1": 2, "c2": 4, "tail": 4, "up": 6}
    assert plan.bits.activations == {"head": 8, "c1": 4, "c2": 4, "tail": 3, "up": 5}
    calibration = calibrate(plan, GENERIC, recipe(), [image(1)])
    graph = assert_chain(plan, calibration, GENERIC, [image(3)])
    operands = operand_bits(graph)
    assert (operands["c1"], operands["tail"], operands["up"]) == (4, 3, 5)
    ranges = {node.name: int(np.abs(node.params["weight"]).max()) for node in graph.nodes if node.op == "Conv"}
    assert ranges == {"head": 127, "c1": 1, "c2": 7, "tail": 7, "up": 31}


def test_edges_are_all_first_and_all_last_convolutions() -> None:
    """In `sums` two convolutions read the image, and two are terms of the sum that makes the output."""
    net = normalize(network(nets.sums()))
    bits = choose_bits(net, GENERIC, 4, 5, LayerPolicy(edges=8))
    assert bits.weights == {"a": 8, "b": 8, "c": 4, "d": 4, "f": 4, "e": 8, "g": 8}
    assert bits.activations == {"a": 8, "b": 8, "c": 5, "d": 5, "f": 5, "e": 8, "g": 8}
    assert bits.sums == 5
    last = choose_bits(normalize(network(nets.residual())), GENERIC, 4, 4, LayerPolicy(edges=8)).weights
    assert last == {"head": 8, "c1": 4, "c2": 4, "tail": 4, "up": 8}, "a shuffle stands behind the last one"


def test_the_tail_is_what_follows_the_last_convolution_of_the_images_size() -> None:
    """A fork into two upsamplers and a convolution behind them; the body ends before them."""

    def forward(m: Forward, x: torch.Tensor) -> torch.Tensor:
        y = m.body(torch.relu(m.head(x)))
        return m.last(F.pixel_shuffle(m.up(y), 2) + F.pixel_shuffle(m.other(y), 2))

    net = normalize(
        network(Forward(forward, head=conv(3, 4), body=conv(4, 4), up=conv(4, 16), other=conv(4, 16), last=conv(4, 3)))
    )
    bits = choose_bits(net, GENERIC, 4, 5, LayerPolicy(tail=8))
    assert bits.weights == {"head": 4, "body": 4, "up": 8, "other": 8, "last": 8}
    assert bits.activations == {"head": 5, "body": 5, "up": 8, "other": 8, "last": 8}
    both = choose_bits(net, GENERIC, 4, 4, LayerPolicy(edges=6, tail=8, weights={"up": 2})).weights
    assert both == {"head": 6, "body": 4, "up": 2, "other": 8, "last": 8}, "the wider one, a layer's own before all"
    enlarged = Forward(lambda m, x: m.b(torch.relu(m.a(F.interpolate(x, scale_factor=2)))), a=conv(3, 4), b=conv(4, 3))
    bits = choose_bits(normalize(network(enlarged)), GENERIC, 4, 4, LayerPolicy(tail=8))
    assert set(bits.weights.values()) == {4}, "nothing works at the image's own size, so nothing is behind it"


def test_a_sum_that_zcu104_cannot_hold() -> None:
    net = normalize(network(nets.residual()))
    with pytest.raises(InputError, match=r"policy: 16 bits for the sums .*target zcu104 allows 2 to 8"):
        make_plan(net, load_target("zcu104"), 4, 4, LayerPolicy(sums=16))
    plan = make_plan(net, load_target("zcu104"), 4, 4, LayerPolicy(sums=8))
    calibration = calibrate(plan, load_target("zcu104"), recipe(), [image(1)])
    graph = assert_chain(plan, calibration, load_target("zcu104"), [image(3)])
    assert legality(graph, load_target("zcu104")) == []
    only_the_image_is_wider(plan, operand_bits(graph))


def test_legality_allows_wide_sums_only_where_the_target_has_them() -> None:
    """The same integers with sums of 16 bits: legal on int-generic, refused without Add.bits_max."""
    plan = plan_of(nets.residual(), "sums 16")
    graph = to_intgraph(freeze(plan, calibrate(plan, GENERIC, recipe(), [image(1)]), GENERIC))
    narrow = nets.target("int-generic", **{"ops.Add": {}, "activations.bits": {"min": 2, "max": 8, "default": 8}})
    found = {item.node: item.rule for item in legality(graph, narrow)}
    assert found == dict.fromkeys(["head_quant", "c2_quant", "tail_quant"], "integer.activations.bits")
    wide = nets.target("int-generic", **{"activations.bits": {"min": 2, "max": 8, "default": 8}})
    assert legality(graph, wide) == [], "Add.bits_max 16 holds the sums, 8 bits the operands"


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        (LayerPolicy(weights={"c3": 4}), r"network tiny has no convolution 'c3'.*it has head, c1, c2, tail, up"),
        (LayerPolicy(activations={"relu": 4}), "has no convolution 'relu'"),
        (LayerPolicy(activations={"add": 4}), "has no convolution 'add'"),
        (LayerPolicy(weights={"Head": 4}), "has no convolution 'Head'.*head"),
        (LayerPolicy(weights={"c1": 9}), r"policy: 9 bits for the weights of c1; target int-generic allows 2 to 8"),
        (LayerPolicy(weights={"c1": 1}), r"policy: 1 bits for the weights of c1"),
        (LayerPolicy(activations={"up": 17}), r"17 bits for the activations of up; target int-generic allows 2 to 16"),
        (LayerPolicy(edges=9), r"9 bits for the weights of head"),
        (LayerPolicy(sums=17), r"17 bits for the sums .* allows 2 to 16"),
        (LayerPolicy(sums=1), r"1 bits for the sums"),
    ],
)
def test_names_and_widths_that_do_not_exist(policy: LayerPolicy, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make_plan(normalize(network(nets.residual())), GENERIC, 4, 4, policy)


def test_a_shift_only_target_with_wide_sums() -> None:
    aim = nets.target(
        "dpu-pow2",
        **{
            "weights.bits": {"min": 2, "max": 8, "default": 8},
            "activations.bits": {"min": 2, "max": 8, "default": 8},
            "ops.Add": {"bits_max": 12},
        },
    )
    for name in ("residual", "concats"):
        plan = make_plan(normalize(network(NETS[name]())), aim, 4, 4, LayerPolicy(sums=12))
        graph = assert_chain(plan, calibrate(plan, aim, recipe(), [image(1)]), aim, [image(3)])
        assert legality(graph, aim) == []
        only_the_image_is_wider(plan, operand_bits(graph))


def test_wide_sums_bring_four_bits_nearer_to_the_float_network() -> None:
    """What the policy is for: the skip carries the whole signal."""
    errors = {}
    net = network(nets.residual())
    x = torch.from_numpy(image(4)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        wanted = net.module(x)[0].permute(1, 2, 0).numpy().clip(0, 255)
    for sums in (4, 16):
        plan = make_plan(normalize(net), GENERIC, 8, 4, LayerPolicy(sums=sums))
        calibration = calibrate(plan, GENERIC, recipe(), [image(1), image(2)])
        graph = assert_chain(plan, calibration, GENERIC, [image(4)])
        errors[sums] = float(np.square(reference.run(graph, image(4))[0] - wanted).mean())
    assert errors[16] < 0.9 * errors[4], errors
