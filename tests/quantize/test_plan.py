"""Where quantizers stand, which type each makes, and which share a scale."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from srq_hw import parity
from srq_hw.errors import InputError
from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import lower
from srq_hw.exchange.qonnx_export import export_qonnx
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.freeze import run_frozen
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.simulate import reference
from tests.quantize.nets import HEIGHT, NETS, WIDTH, Forward, conv, image, network, target
from tests.quantize.test_freeze import frozen_net


def plan_of(module: nn.Module, bits: int = 4, **changes: object) -> QuantPlan:
    return make_plan(normalize(network(module)), target(**changes), bits, bits)


def test_residual_block() -> None:
    plan = plan_of(NETS["residual"]())
    types = {name: (point.bits, point.signed, point.fixed) for name, point in plan.points.items()}
    output = (8, False, True)
    signed = (4, True, False)
    assert types == {
        "image_quant": output, "head_quant": signed, "relu_quant": (4, False, False), "c2_quant": signed,
        "add_quant": signed, "tail_quant": signed, "add_1_quant": signed, "up_quant": output,
    }  # fmt: skip
    points = plan.points
    assert points["relu_quant"].producer == "c1" and points["relu_quant"].source == "relu"
    assert points["head_quant"].group == points["c2_quant"].group == points["tail_quant"].group
    assert len({points[n].group for n in ("head_quant", "add_quant", "add_1_quant", "relu_quant")}) == 4
    assert plan.point_of(plan.layers[-1].name).name == "up_quant"


def test_a_sum_of_two_unsigned_is_unsigned_and_a_sum_may_be_the_output() -> None:
    plan = plan_of(NETS["sums"]())
    points = plan.points
    assert not points["add_quant"].signed
    last = points[f"{plan.layers[-2].name}_quant" if plan.layers[-1].op != "quant" else plan.layers[-1].name]
    assert (last.bits, last.signed, last.fixed) == (8, False, True)


def test_an_activation_whose_input_is_read_elsewhere_has_its_own_quantizer() -> None:
    plan = plan_of(
        Forward(lambda m, x: (lambda y: m.b(torch.relu(y)) + m.c(y))(m.a(x)), a=conv(3, 4), b=conv(4, 3), c=conv(4, 3))
    )
    assert plan.points["a_quant"].producer == "a"
    assert (plan.points["relu_quant"].producer, plan.points["relu_quant"].signed) == ("relu", False)


def test_concat_shares_one_scale_and_one_type() -> None:
    """Dense blocks mix signed and ReLU tensors: all become signed, and the ReLU still clamps at 0."""
    module = Forward(
        lambda m, x: m.c(torch.cat([m.a(x), torch.relu(m.b(x))], 1)), a=conv(3, 2), b=conv(3, 2), c=conv(4, 3)
    )
    points = plan_of(module).points
    assert points["a_quant"].signed and points["relu_quant"].signed
    assert points["a_quant"].group == points["relu_quant"].group
    frozen, model = frozen_net(module, target())
    graph = to_intgraph(frozen)
    assert next(node for node in graph.nodes if node.name == "relu_quant").attrs["lo"] == 0
    assert parity.compare(run_frozen(model, frozen, image(3)), reference.trace(graph, image(3))).equal
    exported = export_qonnx(frozen, target(), (HEIGHT, WIDTH))
    assert lower(exported, target()).content_sha256 == graph.content_sha256


def test_a_tensor_in_two_concats_carries_its_sign() -> None:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a, b, c = torch.relu(m.a(x)), torch.relu(m.b(x)), m.c(x)
        return m.d(torch.cat([a, b], 1)) + m.e(torch.cat([b, c], 1))

    module = Forward(forward, a=conv(3, 2), b=conv(3, 2), c=conv(3, 2), d=conv(4, 3), e=conv(4, 3))
    points = plan_of(module).points
    assert all(points[name].signed for name in ("relu_quant", "relu_1_quant", "c_quant"))


def test_the_image_in_a_concat() -> None:
    signed = Forward(lambda m, x: m.b(torch.cat([x, m.a(x)], 1)), a=conv(3, 3), b=conv(6, 3))
    with pytest.raises(InputError, match="layer image: the image is concatenated with a signed tensor"):
        plan_of(signed, 8)
    relu = Forward(lambda m, x: m.b(torch.cat([x, torch.relu(m.a(x))], 1)), a=conv(3, 3), b=conv(6, 3))
    with pytest.raises(InputError, match=r"layer cat: concatenates tensors of \[4, 8\] bits"):
        plan_of(relu, 4)
    points = plan_of(relu, 8).points
    assert points["relu_quant"].fixed and points["relu_quant"].group == points["image_quant"].group


@pytest.mark.parametrize(
    ("option", "weights", "acts"), [("--weight-bits (or --bits) 9", 9, 4), ("--act-bits (or --bits) 1", 4, 1)]
)
def test_widths_outside_the_target(option: str, weights: int, acts: int) -> None:
    with pytest.raises(InputError, match=re.escape(f"{option}: target zcu104 allows 2 to 8")):
        make_plan(normalize(network(NETS["residual"]())), target(), weights, acts)


def test_default_widths_come_from_the_target() -> None:
    changes = {
        "weights.bits": {"min": 2, "max": 8, "default": 5},
        "activations.bits": {"min": 2, "max": 8, "default": 6},
    }
    plan = make_plan(normalize(network(NETS["residual"]())), target(**changes))
    assert (plan.weight_bits, plan.act_bits, plan.points["head_quant"].bits) == (5, 6, 6)


def test_an_output_that_nothing_quantizes_alone() -> None:
    with pytest.raises(InputError, match="the output must come from a convolution or a sum of its own"):
        plan_of(Forward(lambda m, x: torch.cat([m.a(x), m.b(x)], 1), a=conv(3, 2), b=conv(3, 1)))
    with pytest.raises(InputError, match="the output must come from a convolution or a sum of its own"):
        plan_of(Forward(lambda m, x: nn.functional.interpolate(x, scale_factor=2), a=conv(3, 2)))
