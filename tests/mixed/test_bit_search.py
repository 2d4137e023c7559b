"""The search: it beats uniform widths of the same cost in integers, and its recipe makes what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from srq_hw.errors import InputError
from srq_hw.exchange.direct import to_intgraph
from srq_hw.mixed.output import FILES, write_result
from srq_hw.mixed.search import Result, SearchOptions, decibels, search_bits
from srq_hw.mixed.solve import parse_budget
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.freeze import freeze
from srq_hw.quantize.ptq import quantize
from srq_hw.quantize.recipe import Recipe, load_recipe
from srq_hw.simulate.fast import compile_graph
from srq_hw.target import Target
from tests.quantize.nets import NETS, image, network, recipe, target
from tests.quantize.quality import calibration_images, embedded, float_outputs, pictures, small

PATCHES = [image(seed, 12, 12) for seed in (1, 2, 3)]
TESTS = [image(seed, 14, 12) for seed in (7, 8)]


def search(name: str, budget: str, rule: Recipe | None = None, aim: Target | None = None, **options: object) -> Result:
    rule = rule or recipe("mse", steps=20)
    options = {"widths": (2, 8), "front": False, "rounds": 1, **options}
    net = normalize(network(NETS[name]()))
    return search_bits(net, aim or target(), rule, PATCHES, TESTS, SearchOptions(parse_budget(budget), **options))


def test_it_beats_uniform_widths_of_the_same_cost_on_the_embedded_network() -> None:
    """All layers searched, against all layers at W4A4; both scored in integers on images not calibrated on."""
    plan, aim = embedded()
    rule = small("mse").model_copy(update={"patches": small("mse").patches.model_copy(update={"count": 8})})
    options = SearchOptions(parse_budget("bitops=W4A4"), (2, 8), patches=3, rounds=0, front=False)
    found = search_bits(plan.net, aim, rule, calibration_images(), [item[:64, :64] for item in pictures()], options)
    assert found.uniform is not None and found.uniform.name == "W4A4"
    assert found.chosen.cost["bitops"] <= found.uniform.cost["bitops"]
    assert found.chosen.measured > found.uniform.measured + 4.0
    assert found.repaired is None
    assert len(set(found.chosen.widths.values())) > 2

    # the recipe that it writes is what it measured
    again = quantize(plan.net, aim, found.recipe, calibration_images())
    program = compile_graph(to_intgraph(freeze(again.plan, again.calibration, aim)))
    errors = [
        np.square(program.run(item[:64, :64])[0].astype(float) - wanted[:128, :128]).mean()
        for item, wanted in zip(pictures(), float_outputs(), strict=True)
    ]
    assert np.mean([decibels(error) for error in errors]) == pytest.approx(found.chosen.measured, abs=0.5)


@pytest.mark.parametrize("budget", ["bits=3.5", "bitops=W4A4", "dsp=W5A5", "bram=W6A6"])
@pytest.mark.parametrize("name", NETS)
def test_the_plan_has_the_chosen_widths_and_the_budget_holds(name: str, budget: str) -> None:
    found = search(name, budget, rounds=0)
    for label, limit in found.limits.items():
        assert found.chosen.cost[label] <= limit * (1 + 1e-9)
    plan = quantize(normalize(network(NETS[name]())), target(), found.recipe, PATCHES).plan
    real = {
        layer.name: (plan.weight_bits_of(layer.name), plan.point_of(layer.inputs[0]).bits)
        for layer in plan.layers
        if layer.op == "conv"
    }
    assert real == found.chosen.widths
    assert found.uniform is None or found.chosen.measured >= found.uniform.measured


def test_files_front_and_repeatability(tmp_path: Path) -> None:
    seen: list[str] = []
    net, rule = normalize(network(NETS["residual"]())), recipe("mse", steps=20)
    options = SearchOptions(parse_budget("bits=4"), (3, 6), rounds=2)
    found = search_bits(net, target(), rule, PATCHES, TESTS, options, lambda what, done, total: seen.append(what))
    assert {"sensitivities", "front"} <= set(seen)
    data = write_result(found, tmp_path, {"network": "residual", "target": "zcu104", "budget": "bits=4"})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert json.loads((tmp_path / "search.json").read_text()) == data
    assert [row["name"] for row in data["uniforms"]] == ["W3A3", "W4A4", "W5A5", "W6A6"]
    figures = [point.figure for point in found.front]
    assert figures == sorted(figures) and len(figures) >= 4
    predicted = [point.predicted for point in found.front]
    assert predicted == sorted(predicted), "more budget never promises less"
    drawing = ElementTree.fromstring((tmp_path / "front.svg").read_text())
    assert len(drawing.findall(".//{*}circle")) == len(found.front) + len(found.uniforms) + 1 + 1 + 3
    again = load_recipe(str(tmp_path / "recipe.yaml"))
    assert again == found.recipe
    second = search_bits(net, target(), rule, PATCHES, TESTS, options)
    assert (second.chosen, second.front, second.uniforms) == (found.chosen, found.front, found.uniforms)


def test_layers_named_in_the_policy_keep_their_widths() -> None:
    data = recipe("mse", steps=20).model_dump(by_alias=True, exclude_none=True)
    policy = {"sums": 7, "weights": {"c1": 7}, "activations": {"c2": 6}}
    found = search("residual", "bits=4", Recipe.model_validate(data | {"policy": policy}))
    assert found.chosen.widths["c1"][0] == 7 and found.chosen.widths["c2"][1] == 6
    assert found.recipe.policy.sums == 7


def test_a_pin_outside_of_the_widths_is_refused() -> None:
    data = recipe("mse", steps=20).model_dump(by_alias=True, exclude_none=True)
    rule = Recipe.model_validate(data | {"policy": {"weights": {"c1": 8}}})
    with pytest.raises(InputError, match=r"policy.weights: c1: 8 bits are not among the widths"):
        search("residual", "bits=4", rule, widths=(2, 6))


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("bits=1.9", "need 2 bits of weights"),
        ("bitops=1e-9", "at their narrowest need"),
        ("bits=W9A9", "no such uniform network among the widths that are searched"),
    ],
)
def test_impossible_budgets_say_what_is_possible(budget: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        search("residual", budget)


def test_a_budget_that_all_layers_fit_at_their_widest_takes_the_widest() -> None:
    found = search("residual", "bits=8")
    assert set(found.chosen.widths.values()) == {(8, 8)}
