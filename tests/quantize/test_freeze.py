"""The first link of the equality chain: frozen Brevitas model in float64 == reference simulator, every rule."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from srq_hw import parity
from srq_hw.errors import InputError
from srq_hw.exchange.direct import to_intgraph
from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.graph.check import verify
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.legality import legality
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.freeze import Frozen, freeze, load_frozen, quant_net, run_frozen
from srq_hw.quantize.plan import make_plan
from srq_hw.simulate import reference
from srq_hw.target import Target
from tests.quantize.nets import NETS, Forward, conv, image, network, pow2_target, recipe, target

ROUNDING = sorted(ROUNDINGS)


def frozen_net(module: nn.Module, aim: Target, bits: int = 8, weights: int | None = None, **options):
    """(frozen, Brevitas model with the frozen scales) of a tiny network."""
    net = normalize(network(module, **options))
    plan = make_plan(net, aim, weights or bits, bits)
    calibration = calibrate(plan, aim, recipe(), [image(seed) for seed in (1, 2)])
    frozen = freeze(plan, calibration, aim)
    return frozen, load_frozen(quant_net(plan, calibration, aim), frozen)


def assert_equal(frozen: Frozen, model: nn.Module, graph: IntGraph, seeds: tuple[int, ...] = (1, 5)) -> int:
    """Every quantized tensor the graph keeps, every element; returns how many."""
    total = 0
    for seed in seeds:
        left = run_frozen(model, frozen, image(seed))
        right = reference.trace(graph, image(seed))
        found = parity.compare(left, right)
        assert found.equal, found.first
        requants = [node.output for node in graph.nodes if node.op == "Requant"]
        assert set(requants) <= left.keys(), "a Requant that Brevitas knows nothing of"
        assert found.tensors == len({*requants, graph.output})
        varied = [name for name in requants if np.ptp(right[name]) > 0]
        assert frozen.plan.act_bits == 2 or (varied and np.ptp(right[graph.output]) > 0), "a constant proves little"
        total += found.elements
    return total


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("bits", "granularity"), [(2, "channel"), (4, "tensor"), (8, "channel")])
def test_dyadic(name: str, rounding: str, bits: int, granularity: str) -> None:
    aim = target(**{"requant.rounding": rounding, "weights.granularity": granularity})
    frozen, model = frozen_net(NETS[name](), aim, bits, max(bits, 4))
    assert_equal(frozen, model, to_intgraph(frozen))


@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize("name", ["residual", "sums"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_pow2_where_every_second_value_is_a_tie(name: str, rounding: str, bits: int) -> None:
    frozen, model = frozen_net(NETS[name](), pow2_target(rounding), bits, max(bits, 4))
    graph = to_intgraph(frozen)
    assert all(set(node.params["multiplier"].tolist()) == {1} for node in graph.nodes if node.op == "Requant")
    assert_equal(frozen, model, graph)


@pytest.mark.parametrize(("weights", "acts"), [(3, 7), (5, 6), (7, 3), (8, 2), (2, 8), (6, 5)])
@pytest.mark.parametrize("multiplier_bits", [2, 8, 20])
def test_mixed_widths_and_multipliers(weights: int, acts: int, multiplier_bits: int) -> None:
    aim = target(**{"requant.multiplier_bits": multiplier_bits, "accumulator.bits": 32})
    frozen, model = frozen_net(NETS["everything"](), aim, acts, weights, seed=weights)
    assert_equal(frozen, model, to_intgraph(frozen))


@pytest.mark.parametrize("input_max", [1.0, 255.0])
def test_output_is_the_float_network_but_for_quantization(input_max: float) -> None:
    """Eight bits are near the float network: a unit or sign error anywhere would be grey levels off."""
    module = NETS["residual"]()
    frozen, _ = frozen_net(module, target(), input_max=input_max)
    graph = to_intgraph(frozen)
    for seed in (1, 2):
        x = torch.from_numpy(image(seed)).permute(2, 0, 1)[None].float() * input_max / 255
        wanted = module(x)[0].permute(1, 2, 0).detach().numpy() * 255 / input_max
        found = reference.run(graph, image(seed))[0]
        assert np.abs(found - np.clip(wanted, 0, 255)).mean() < 4


def test_ties_are_really_met() -> None:
    """The pow2 nets meet exact ties, so the five rules must give five (at least three) different images."""
    found = {}
    for rounding in ROUNDING:
        frozen, _ = frozen_net(NETS["residual"](), pow2_target(rounding), 4)
        found[rounding] = reference.run(to_intgraph(frozen), image(1)).tobytes()
    assert len(set(found.values())) == len(ROUNDING)


def ratio_is_dyadic(frozen: Frozen, slack: Fraction = Fraction(1, 2**50)) -> None:
    for name, conv_ in frozen.convs.items():
        quant = next(q for q in frozen.quants.values() if q.point.producer == name)
        for c, weight_scale in enumerate(conv_.weight_scale):
            index = c if len(quant.multiplier) > 1 else 0
            wanted = Fraction(int(quant.multiplier[index])) / Fraction(2) ** int(quant.shift[index])
            found = Fraction(conv_.input_scale) * Fraction(float(weight_scale)) / Fraction(quant.scale)
            assert abs(found / wanted - 1) < slack


@pytest.mark.parametrize("name", NETS)
def test_every_ratio_of_scales_is_the_dyadic_number(name: str) -> None:
    ratio_is_dyadic(frozen_net(NETS[name](), target())[0])


def test_weights_and_biases_are_where_the_floats_were() -> None:
    """An integer weight times its frozen step is within half a step (and 2**-k) of the float; a bias within a step."""
    frozen, _ = frozen_net(NETS["residual"](), target())
    for name, found in frozen.convs.items():
        layer = frozen.plan.layer(name)
        steps = found.weight_scale[:, None, None, None]
        error = np.abs(found.weight * steps - layer.weight.numpy())
        assert (error <= steps * (0.5 + 127 * 2.0**-15)).all()
        lsb = found.input_scale * found.weight_scale
        assert (
            np.abs(found.bias * lsb - layer.bias.numpy()) <= lsb * np.maximum(0.51, np.abs(found.bias) * 2.0**-20)
        ).all()
        assert np.abs(found.weight).max() == 127


def test_a_channel_of_almost_no_weights_keeps_its_bias() -> None:
    """Trained networks have channels of weights near 1e-9 with a real bias; its step must hold the bias."""
    module = Forward(lambda m, x: m.b(torch.relu(m.a(x))), a=conv(3, 4), b=conv(4, 3))
    net = network(module)
    with torch.no_grad():
        module.a.weight[1] *= 1e-12
        module.a.bias[1] = 100.0
    for aim in (target(), pow2_target(), target(**{"weights.granularity": "tensor"}), target(**{"bias.bits": 16})):
        plan = make_plan(normalize(net), aim)
        calibration = calibrate(plan, aim, recipe(), [image(1)])
        frozen = freeze(plan, calibration, aim)
        real = frozen.convs["a"].bias * frozen.convs["a"].input_scale * frozen.convs["a"].weight_scale
        assert abs(real[1] - 100.0) < 0.1
        graph = to_intgraph(frozen)
        assert legality(graph, aim) == []
        assert_equal(frozen, load_frozen(quant_net(plan, calibration, aim), frozen), graph)


def test_dead_channels_and_dead_tensors() -> None:
    """Zero weights and a tensor that is zero throughout: any step will do, none may be 0 or NaN."""
    module = Forward(
        lambda m, x: m.c(torch.relu(m.a(x)) + torch.relu(m.b(x))), a=conv(3, 4), b=conv(3, 4), c=conv(4, 3)
    )
    net = network(module)
    with torch.no_grad():
        module.a.weight[2] = 0
        module.b.weight.zero_()
        module.b.bias.fill_(-1.0)
    for aim in (target(), pow2_target()):
        plan = make_plan(normalize(net), aim)
        calibration = calibrate(plan, aim, recipe(), [image(1)])
        frozen = freeze(plan, calibration, aim)
        graph = to_intgraph(frozen)
        assert legality(graph, aim) == []
        assert_equal(frozen, load_frozen(quant_net(plan, calibration, aim), frozen), graph)


def test_integers_survive_another_image_size_and_a_batch() -> None:
    frozen, model = frozen_net(NETS["everything"](), target())
    graph = to_intgraph(frozen)
    batch = np.stack([image(7, 5, 9), image(8, 5, 9)])
    assert parity.compare(run_frozen(model, frozen, batch), reference.trace(graph, batch)).equal


@pytest.mark.parametrize(
    ("aim", "complaint"),
    [
        (pow2_target(), r"layer p1: a PReLU needs a multiplier.*use ReLU"),
        (target(**{"ops.Requant.activations": ["none", "relu"]}), r"layer p1: target zcu104 has no PReLU"),
        (target(**{"ops.Requant.slope_max": 0.01}), r"layer p1: slopes .*allows 0\.\.0\.01"),
    ],
)
def test_prelu_that_the_target_cannot_run(aim: Target, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        frozen_net(NETS["everything"](), aim)


def test_a_wrong_integer_is_seen() -> None:
    """The gate itself: one wrong weight, bias, multiplier or shift breaks the equality, and the place is named."""
    frozen, model = frozen_net(NETS["residual"](), target())
    graph = to_intgraph(frozen)
    verify(graph)
    left = run_frozen(model, frozen, image(1))
    for index, node in enumerate(graph.nodes):
        for key in node.params:
            changed = node.params[key].copy()
            steps = {"weight": 64, "bias": 1 << 14, "shift": 1, "multiplier": 1 + int(changed.ravel()[0]) // 16}
            changed.ravel()[0] += steps[key]
            damaged = replace(node, params={**node.params, key: changed})
            wrong = replace(graph, nodes=(*graph.nodes[:index], damaged, *graph.nodes[index + 1 :]))
            found = parity.compare(left, reference.trace(wrong, image(1)))
            assert found.mismatches > 0, (node.name, key)
            first = node if node.op == "Requant" else graph.consumers(node.output)[0]
            assert found.first is not None and found.first.tensor == first.output
