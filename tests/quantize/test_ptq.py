"""Post-training quantization from end to end: every packaged recipe ends in an equal chain."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from srq_hw.errors import InputError
from srq_hw.normalform.normal import NormalNet, evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.accumulator import input_ranges, worst_case
from srq_hw.quantize.freeze import freeze
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.quantize.recipe import Policy, Recipe, load_recipe
from srq_hw.resources import data_names
from srq_hw.simulate import reference
from srq_hw.target import Target, load_target
from tests.quantize import nets
from tests.quantize.chain import assert_chain, graph_hash
from tests.quantize.nets import image, network

RECIPES = sorted(data_names("calib"))
GENERIC = load_target("int-generic")
PICTURES = [image(seed, 20, 24) for seed in (1, 2)]


def small(name: str, **sections: object) -> Recipe:
    """A packaged recipe on two patches, with a few steps of everything that takes long."""
    data = load_recipe(name).model_dump(by_alias=True, exclude_none=True) | {
        "patches": {"count": 2, "size": 16, "seed": 0}
    }
    if "reconstruct" in data:
        phases = [phase | {"iterations": 3} for phase in data["reconstruct"]["phases"]]
        data["reconstruct"] |= {"phases": phases, "batch": 1, "crop": 16, "pool": 2, "work": None}
    if "search" in data:
        data["search"] |= {"sweeps": 1, "factors": [0.9, 1.1], "patches": 1}
    return Recipe.model_validate(data | sections)


@cache
def net() -> NormalNet:
    return normalize(network(nets.everything()))


def made(chosen: Recipe, aim: Target = GENERIC, bits: int = 4) -> Quantized:
    return quantize(net(), aim, chosen, PICTURES, bits, bits)


def test_there_are_recipes() -> None:
    assert {"srq", "pac", "dbdc", "minmax", "mse", "psnr"} <= set(RECIPES)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_ends_in_an_equal_chain(name: str, bits: int) -> None:
    quantized = made(small(name), bits=bits)
    graph = assert_chain(quantized.plan, quantized.calibration, GENERIC, [image(3), image(4)])
    assert len(np.unique(reference.run(graph, image(3)))) > 10


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_on_a_shift_only_target(name: str) -> None:
    """Sums as wide as the target has them: a recipe may ask for more."""
    aim = load_target("dpu-pow2")
    quantized = made(small(name), aim, 8)
    assert_chain(quantized.plan, quantized.calibration, aim, [image(3)])
    assert all(np.frexp(step)[0] == 0.5 for step in quantized.calibration.scales.values())


def test_searched_powers_of_two_are_held() -> None:
    """They end where the search has put them, whatever rates the recipe has; weights are learned around them."""
    search, target = {"patches": 2, "sweeps": 1}, load_target("dpu-pow2")
    phases = [{"iterations": 6, "rates": {"activations": 0.7, "weights": 0.01, "biases": 0.01, "last": 1.0}}]
    learned = {"phases": phases, "batch": 1, "crop": 16, "pool": 2, "reach": None}
    found = made(small("minmax", search=search), target, 8)
    held = made(small("minmax", search=search | {"hold": True}, reconstruct=learned), target, 8)
    free = made(small("minmax", search=search, reconstruct=learned), target, 8)
    assert held.calibration.scales == found.calibration.scales
    assert free.calibration.scales != found.calibration.scales
    weights = [next(layer.weight for layer in item.plan.layers if layer.op == "conv") for item in (held, found)]
    assert not np.array_equal(*weights)


def test_a_search_for_shifts_leaves_multipliers_alone() -> None:
    """Neither searched nor held there: the same integers as without the section."""
    section = {"search": {"targets": "shifts", "hold": True}}
    for name in ("minmax", "srq"):
        with_it, without = (made(small(name, **part)) for part in (section, {"search": None}))
        graphs = [graph_hash(item.plan, item.calibration, GENERIC) for item in (with_it, without)]
        assert graphs[0] == graphs[1]
    target = load_target("dpu-pow2")
    found, plain = (made(small("minmax", **part), target, 8).calibration.scales for part in (section, {}))
    assert found != plain


def test_a_phase_that_could_learn_nothing_is_refused() -> None:
    phases = [{"iterations": 1, "rates": {"activations": 0.1, "last": 0.5}}]
    with pytest.raises(ValueError, match="phase 1 of reconstruct nothing to learn"):
        small("minmax", search={"hold": True}, reconstruct={"phases": phases})


EXTRAS: dict[str, dict[str, object]] = {
    "equalize": {"equalize": {"statistic": "max", "strength": 1.0}},
    "bias correction": {"bias_correction": True},
    "accumulator": {"accumulator_bits": 14},
    "policy": {"policy": {"edges": 8, "sums": 10}},
}
ALL = {key: value for part in EXTRAS.values() for key, value in part.items()}


@pytest.mark.parametrize("extra", [*EXTRAS, "all of them"])
@pytest.mark.parametrize("name", ["mse", "srq", "pac"])
def test_every_option_of_a_recipe(name: str, extra: str) -> None:
    plain = made(small(name))
    quantized = made(small(name, **EXTRAS.get(extra, ALL)))
    assert_chain(quantized.plan, quantized.calibration, GENERIC, [image(3)])
    assert graph_hash(quantized.plan, quantized.calibration, GENERIC) != graph_hash(
        plain.plan, plain.calibration, GENERIC
    )
    if extra in ("accumulator", "all of them"):
        frozen = freeze(quantized.plan, quantized.calibration, GENERIC)
        for conv, found in frozen.convs.items():
            low, high = worst_case(found.weight, found.bias, input_ranges(quantized.plan, conv))
            assert low.min() >= -(1 << 13) and high.max() < 1 << 13, conv


@pytest.mark.parametrize("name", ["mse", "srq"])
def test_the_float_network_beside_the_result_is_the_one_given(name: str) -> None:
    """Equalised, with learned factors: the same function, for it is what the integers are compared with."""
    quantized = made(small(name, equalize={"strength": 1.0}, bias_correction=True))
    x = torch.from_numpy(image(4)).permute(2, 0, 1)[None].double()
    wanted, found = (evaluate(item, x, dtype=torch.float64) for item in (net(), quantized.plan.net))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def error(quantized: Quantized) -> float:
    graph = assert_chain(quantized.plan, quantized.calibration, GENERIC, [image(6, 12, 14)])
    x = torch.from_numpy(image(6, 12, 14)).permute(2, 0, 1)[None].double()
    wanted = evaluate(net(), x, dtype=torch.float64)[0].permute(1, 2, 0).numpy().clip(0, 255)
    return float(np.square(reference.run(graph, image(6, 12, 14))[0] - wanted).mean())


def test_bias_correction_behind_learned_channel_factors() -> None:
    """It corrects means, it must not undo the factors: the output stays as near as without it."""
    phases = [{"iterations": 40, "rates": {"channels": 0.2, "last": 1.0}}]
    learned = {"phases": phases, "batch": 1, "crop": 16, "pool": 4}
    plain, corrected = (
        error(made(small("mse", reconstruct=learned, bias_correction=correct), bits=8)) for correct in (False, True)
    )
    assert corrected < 2 * plain + 1, (plain, corrected)


def test_same_recipe_same_network() -> None:
    one, two = made(small("srq", **ALL)), made(small("srq", **ALL))
    assert graph_hash(one.plan, one.calibration, GENERIC) == graph_hash(two.plan, two.calibration, GENERIC)


def test_default_widths_are_the_targets() -> None:
    quantized = quantize(net(), GENERIC, small("minmax"), PICTURES)
    assert (quantized.plan.weight_bits, quantized.plan.act_bits) == (8, 8)


def test_what_a_target_cannot_have() -> None:
    with pytest.raises(InputError, match=r"16 bits for the sums .*zcu104 allows 2 to 8"):
        made(small("mse", policy={"sums": 16}), load_target("zcu104"))
    with pytest.raises(InputError, match="has no convolution 'nose'"):
        made(small("mse", policy=Policy(weights={"nose": 4}).model_dump()))
    with pytest.raises(InputError, match="calibration: no images"):
        quantize(net(), GENERIC, small("minmax"), [], 4, 4)
    with pytest.raises(InputError, match="calibration: no images"):
        quantize(net(), GENERIC, small("srq"), [], 4, 4)


def test_images_smaller_than_a_patch_and_a_black_one() -> None:
    tiny = [image(1, 3, 4), np.zeros((2, 2, 3), np.uint8)]
    for name in ("srq", "pac", "psnr"):
        quantized = quantize(net(), GENERIC, small(name), tiny, 4, 4)
        assert_chain(quantized.plan, quantized.calibration, GENERIC, [image(3)])


def test_nan_weights_are_named() -> None:
    layers = net().layers
    conv = next(index for index, layer in enumerate(layers) if layer.name == "c2")
    weight = layers[conv].weight.clone()
    weight[0, 0, 0, 0] = float("nan")
    broken = replace(net(), layers=(*layers[:conv], replace(layers[conv], weight=weight), *layers[conv + 1 :]))
    for name in ("minmax", "srq"):
        with pytest.raises(InputError, match=r"layer \w+: NaN or Inf"):
            quantize(broken, GENERIC, small(name), PICTURES, 4, 4)
