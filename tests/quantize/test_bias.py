"""Bias correction: the means of every pre-activation come back. What it gains: test_beats_minmax.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srq_hw.normalform.normal import evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.bias import correct_bias, with_biases
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.freeze import quant_net
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.target import Target
from tests.quantize.nets import NETS, image, network, recipe, target


def mean_errors(plan: QuantPlan, calibration, aim: Target, patches: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Per convolution: mean of the float minus mean of the quantized pre-activation, per channel; whole runs."""
    net = quant_net(plan, calibration, aim)
    found: dict[str, list[np.ndarray]] = {}
    names = [layer.name for layer in plan.layers if layer.op == "conv"]
    for patch in patches:
        x = torch.from_numpy(patch.astype(np.float32)).permute(2, 0, 1)[None]
        floats: dict[str, torch.Tensor] = {}
        evaluate(plan.net, x * plan.net.grey_level, floats.__setitem__)
        outputs: dict[str, torch.Tensor] = {}
        hooks = [
            net.conv(name).register_forward_hook(lambda m, i, o, name=name, to=outputs: to.__setitem__(name, o))
            for name in names
        ]
        with torch.no_grad():
            net(x)
        for hook in hooks:
            hook.remove()
        for name in names:
            found.setdefault(name, []).append((floats[name] - outputs[name])[0].flatten(1).double().numpy())
    return {name: np.concatenate(parts, 1).mean(1) for name, parts in found.items()}


@pytest.mark.parametrize("name", NETS)
def test_every_mean_comes_back(name: str) -> None:
    """On patches of two sizes, where a pixel counts the same in each."""
    aim = target()
    plan = make_plan(normalize(network(NETS[name]())), aim, 3, 4)
    patches = [image(1), image(2), image(3, 9, 5)]
    calibration = calibrate(plan, aim, recipe(), patches)
    before = mean_errors(plan, calibration, aim, patches)
    corrected = with_biases(plan, correct_bias(plan, calibration, aim, patches))
    after = mean_errors(corrected, calibration, aim, patches)
    assert max(np.abs(error).max() for error in before.values()) > 0.5
    for conv, error in after.items():
        assert np.abs(error).max() < 1e-3, conv


def test_the_float_network_and_all_else_stay() -> None:
    aim = target()
    plan = make_plan(normalize(network(NETS["residual"]())), aim, 4, 4)
    calibration = calibrate(plan, aim, recipe(), [image(1)])
    biases = correct_bias(plan, calibration, aim, [image(1)])
    corrected = with_biases(plan, biases)
    assert corrected.net is plan.net and corrected.points is plan.points
    for old, new in zip(plan.layers, corrected.layers, strict=True):
        assert old.weight is new.weight and old.inputs == new.inputs
        if old.op == "conv":
            assert torch.equal(new.bias, biases[old.name]) and not torch.equal(new.bias, old.bias)
            assert new.bias.dtype == torch.float64


def test_a_bias_that_would_not_fit_stays() -> None:
    """c1 gets a step so fine that its register has no room; the others are corrected."""
    aim = target(**{"bias.bits": 12})
    plan = make_plan(normalize(network(NETS["residual"]())), aim, 4, 4)
    calibration = calibrate(plan, aim, recipe(), [image(1)])
    calibration.weights["c1"][:] = 1e-6
    biases = correct_bias(plan, calibration, aim, [image(1)])
    assert torch.equal(biases["c1"], plan.layer("c1").bias)
    assert not torch.equal(biases["head"], plan.layer("head").bias)
