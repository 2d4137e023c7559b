"""Sensitivities: what one narrowed layer does to the output, measured as the quantized network would have it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srq_hw.errors import InputError
from srq_hw.normalform.normal import evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.calibrate import calibrate, sample_patches
from srq_hw.quantize.freeze import quant_net
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.policy import LayerPolicy
from srq_hw.quantize.sensitivity import Damage, Probe, falling, plain
from srq_hw.target import Target
from tests.quantize.nets import NETS, image, network, recipe, target

PATCHES = [image(seed, 12, 12) for seed in (1, 2, 3)]


def probe(name: str, aim: Target | None = None, widths: tuple[int, int] = (3, 8)) -> Probe:
    return Probe(normalize(network(NETS[name]())), aim or target(), recipe("mse", steps=20), PATCHES, widths, 8, 8)


def quantized_error(name: str, weights: dict[str, int], inputs: dict[str, int]) -> float:
    """Mean squared error of the Brevitas network with these widths, before the output is rounded."""
    aim, rule = target(), recipe("mse", steps=20)
    plan = make_plan(
        normalize(network(NETS[name]())), aim, 8, 8, LayerPolicy(sums=8, weights=weights, activations=inputs)
    )
    net = quant_net(plan, calibrate(plan, aim, rule, PATCHES), aim)
    output = plan.point_of(plan.layers[-1].name)
    errors = []
    for patch in sample_patches(PATCHES, rule):
        x = torch.from_numpy(patch.astype(np.float32)).permute(2, 0, 1)[None]
        floats: dict[str, torch.Tensor] = {}
        evaluate(plan.net, x * plan.net.grey_level, floats.__setitem__)
        seen: dict[str, torch.Tensor] = {}
        quantizer = net.quants[f"{output.name}_"]
        handle = quantizer.register_forward_hook(lambda m, i, o, to=seen: to.__setitem__("in", i[0]))
        with torch.no_grad():
            net(x)
        handle.remove()
        errors.append((seen["in"].clamp(0, 255) - floats[output.tensor].clamp(0, 255)).double().square().mean())
    return float(torch.stack(errors).mean())


@pytest.mark.parametrize("name", NETS)
def test_narrow_weights_are_those_of_the_quantized_network(name: str) -> None:
    """A convolution with 3-bit weights in the probe makes the error that the plan with that policy makes."""
    found = probe(name)
    for conv in (found.convs[0], found.convs[-1]):
        widths = found.widest | {conv: (3, found.widest[conv][1])}
        assert found.error(widths) == pytest.approx(quantized_error(name, {conv: 3}, {}), rel=1e-3)


def test_a_narrow_input_is_a_second_quantizer_behind_a_wide_one() -> None:
    """`up` reads what nothing else reads, so the plan narrows the quantizer itself: nearly the same error."""
    found = probe("residual")
    widths = found.widest | {"c2": (8, 4)}
    assert found.error(widths) == pytest.approx(quantized_error("residual", {}, {"c2": 4}), rel=0.25)


@pytest.mark.parametrize("name", NETS)
def test_damages_are_differences_of_whole_runs(name: str) -> None:
    found = probe(name)
    start = {conv: (6, min(6, pair[1]) if pair[1] in found.input_bits[conv] and len(found.input_bits[conv]) > 1
                    else pair[1]) for conv, pair in found.widest.items()}  # fmt: skip
    damages, base = found.damages(start), found.error(start)
    conv = found.convs[-2]
    for bits in (3, 8):
        whole = found.error(start | {conv: (bits, start[conv][1])})
        assert damages[conv].weights[bits] == pytest.approx(whole - base, rel=1e-3, abs=1e-3)
        if len(found.input_bits[conv]) > 1:
            whole = found.error(start | {conv: (start[conv][0], bits)})
            assert damages[conv].activations[bits] == pytest.approx(whole - base, rel=1e-3, abs=1e-3)
    assert damages[conv].weights[6] == 0.0


def test_the_image_keeps_its_width() -> None:
    found = probe("residual")
    assert found.input_bits["head"] == (8,)
    assert found.input_bits["c1"] == found.weight_bits["c1"] == (3, 4, 5, 6, 7, 8)


def test_few_bits_hurt_more() -> None:
    found = probe("residual")
    damages = found.damages(found.widest)
    for damage in damages.values():
        assert damage.weights[3] > damage.weights[6] >= -1e-3
    calls: list[tuple[int, int]] = []
    again = found.damages(found.widest, lambda done, total: calls.append((done, total)))
    assert again == damages
    assert calls[-1] == (len(found.convs), len(found.convs))


def test_noise_is_made_to_fall() -> None:
    noisy = {"a": Damage({2: 5.0, 3: 6.0, 4: -0.5, 5: 0.1}, {8: 0.0})}
    assert falling(noisy)["a"].weights == {2: 6.0, 3: 6.0, 4: 0.1, 5: 0.1}


def test_widths_the_target_lacks_are_refused() -> None:
    with pytest.raises(InputError, match=r"--widths 9-12: target zcu104 allows 2 to 8"):
        probe("residual", widths=(9, 12))


def test_plain_leaves_out_what_takes_minutes() -> None:
    from srq_hw.quantize.recipe import load_recipe

    for name in ("psnr", "srq", "pac"):
        quick = plain(load_recipe(name))
        assert quick.search is None and quick.reconstruct is None and quick.weights.method != "joint"
        assert quick.activations == load_recipe(name).activations
