"""Zero points: where they may be, that the real 0 stays on the grid, and that the chain stays equal with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srq_hw import parity
from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import lower
from srq_hw.exchange.qonnx_export import export_qonnx
from srq_hw.graph.legality import legality
from srq_hw.normalform.trace import normalize
from srq_hw.oracles.qonnx import qonnx_oracle
from srq_hw.quantize.asymmetric import nudged
from srq_hw.quantize.freeze import freeze, load_frozen, quant_net, run_frozen
from srq_hw.quantize.plan import zero_point_groups
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.quantize.recipe import Recipe, load_recipe
from srq_hw.simulate import reference
from srq_hw.simulate.fast import compile_graph
from srq_hw.target import Target, load_target
from tests.quantize.nets import HEIGHT, NETS, WIDTH, Forward, conv, image, network


def generic(rounding: str = "half_up") -> Target:
    data = load_target("int-generic").model_dump(by_alias=True, exclude_none=True)
    data["integer"]["requant"]["rounding"] = rounding
    return Target.model_validate(data)


def asymmetric(method: str = "minmax") -> Recipe:
    data = load_recipe(method).model_dump(by_alias=True)
    data["activations"]["zero_points"] = True
    data["patches"] = {"count": 2, "size": 8, "seed": 0}
    return Recipe.model_validate(data)


def leaky(m: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = torch.nn.functional.leaky_relu(m.a(x), 0.05)
    return m.c(torch.nn.functional.leaky_relu(m.b(y), 0.05))


def leaky_net() -> torch.nn.Module:
    return Forward(leaky, a=conv(3, 4), b=conv(4, 4), c=conv(4, 3))


def quantized(module: torch.nn.Module, aim: Target, bits: int = 4, method: str = "minmax") -> Quantized:
    return quantize(normalize(network(module)), aim, asymmetric(method), [image(1, 12, 12)], bits, bits)


@pytest.mark.parametrize("rounding", ["half_up", "half_even", "floor"])
@pytest.mark.parametrize("name", ["leaky", *NETS])
def test_the_chain_is_equal_with_zero_points(name: str, rounding: str) -> None:
    aim = generic(rounding)
    found = quantized(leaky_net() if name == "leaky" else NETS[name](), aim)
    frozen = freeze(found.plan, found.calibration, aim)
    graph = to_intgraph(frozen)
    picture = image(3)
    right = reference.trace(graph, picture)
    left = run_frozen(load_frozen(quant_net(found.plan, found.calibration, aim), frozen), frozen, picture)
    assert parity.compare(left, {**right, "image_quant": right[graph.input]}).equal
    assert np.array_equal(compile_graph(graph).run(picture), right[graph.output])
    model = export_qonnx(frozen, aim, (HEIGHT, WIDTH))
    assert lower(model, aim).content_sha256 == graph.content_sha256
    assert qonnx_oracle(model, graph, picture).mismatches == 0
    assert not legality(graph, aim)
    if name == "leaky":
        assert any(tensor.zero_point for tensor in graph.tensors.values())


def test_rounding_away_from_zero_has_no_zero_points() -> None:
    """half_away does not commute with adding an integer: Brevitas would round a tie elsewhere than the hardware."""
    assert quantized(leaky_net(), generic("half_away")).calibration.zero_points == {}


def test_a_target_without_zero_points_gets_none() -> None:
    assert quantized(leaky_net(), load_target("zcu104")).calibration.zero_points == {}


def test_only_what_convolutions_alone_read_may_have_one() -> None:
    plan = quantized(NETS["residual"](), generic()).plan
    added = {plan.points[name].group for name in ("head_quant", "c2_quant", "tail_quant")}
    assert not added & zero_point_groups(plan)
    assert not {point.group for point in plan.points.values() if point.fixed} & zero_point_groups(plan)


@pytest.mark.parametrize("method", ["minmax", "mse", "percentile"])
def test_a_leaky_tensor_gets_most_integers_above_zero(method: str) -> None:
    """Slope 0.05: symmetric integers would leave all but one of the negative ones idle."""
    found = quantized(leaky_net(), generic(), 4, method)
    assert found.calibration.zero_points and all(value <= -5 for value in found.calibration.zero_points.values())


@given(st.floats(-1e3, 0), st.floats(0, 1e3), st.integers(2, 9), st.sampled_from([1, 2]))
def test_nudged_bounds_hold_the_values_and_zero(lower: float, upper: float, bits: int, multiple: int) -> None:
    if upper - lower < 1e-6:
        return
    lo, hi = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    step, zero_point = nudged((lower, upper), (lo, hi), multiple)
    assert lo <= zero_point <= hi and zero_point % multiple == 0
    assert (lo - zero_point) * step <= lower * (1 - 1e-9) + 1e-9
    assert (hi - zero_point) * step >= upper * (1 - 1e-9) - 1e-9
