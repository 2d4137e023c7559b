"""Every method against min-max at 4 bits: integer output against the float network's, the same setting on both sides.

One row per method. It runs on the embedded network, whose weights are trained, with W4A4 and head and tail at 8 bits. A
method that does not win everywhere says why, and is tested where its idea applies. ``python -m
tests.quantize.test_beats_minmax`` prints every row's gain in every setting.

DAQ has no integers to compare (`srq_hw.qat.daq`; tests/qat/test_daq.py). The search for widths is not a rival of
min-max, but of uniform widths (tests/mixed/test_bit_search.py); narrow accumulators cost quality, and gain none.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from srq_hw.evaluate.datasets import make_pair
from srq_hw.evaluate.demo import demo_calibration_images
from srq_hw.networks.loading import load_network
from srq_hw.normalform.normal import NormalNet
from srq_hw.normalform.trace import normalize
from srq_hw.qat.data import Training, training_of
from srq_hw.qat.options import FQSR
from srq_hw.qat.rules import RULES
from srq_hw.qat.score import Score
from srq_hw.qat.student import StepRates, Student
from srq_hw.qat.train import Schedule, train
from srq_hw.qat.workers import Workers
from srq_hw.quantize.clipping import METHODS
from srq_hw.quantize.equalize import channel_classes, scale_channels
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.quantize.recipe import WEIGHT_OPTIONS, Policy, Recipe, load_recipe
from srq_hw.quantize.tuning import KINDS
from srq_hw.resources import data_names
from srq_hw.target import Target, load_target
from tests.quantize.nets import pow2_target
from tests.quantize.quality import calibration_images, decibels, outputs_of

#: layer policies. `narrow`: skips at 4 bits like all else; `wide`: what sums read and make has 8; `all`: every layer at
#: 4 bits, head, tail and skips included (FQSR's setting)
POLICIES: dict[str, dict[str, int]] = {"narrow": {"edges": 8}, "wide": {"edges": 8, "sums": 8}, "all": {}}
TARGETS: dict[str, Callable[[], Target]] = {"multiplier": lambda: load_target("int-generic"), "shifts": pow2_target}


@dataclass(frozen=True)
class Setting:
    """What min-max and its challenger have in common."""

    policy: str = "narrow"
    target: str = "multiplier"
    net: str = "embedded"


@dataclass(frozen=True)
class Row:
    """A method. recipe: a packaged one; sections: what is changed of it; qat: the rule it is trained with afterwards.

    gain: dB over min-max that it must reach, about half of what it has; over: a row, of the same setting, that it must
    beat too.
    """

    recipe: str
    gain: float
    where: Setting = field(default_factory=Setting)
    sections: Mapping[str, Any] = field(default_factory=dict)
    qat: str | None = None
    over: str | None = None


def descent(iterations: int, reach: float | None = None, **rates: float) -> dict[str, Any]:
    """A short `reconstruct` section of one phase."""
    short = {"batch": 2, "crop": 48, "pool": 64, "reach": reach, "features": 0.0}
    return {"reconstruct": short | {"phases": [{"iterations": iterations, "rates": rates}]}}


def shortened(name: str, iterations: int, **changes: Any) -> dict[str, Any]:
    """A packaged recipe's own `reconstruct`, its phases cut to so many steps, on smaller crops."""
    whole = load_recipe(name).reconstruct
    assert whole is not None
    data = whole.model_dump(exclude_none=True)
    phases = [phase | {"iterations": iterations} for phase in data["phases"]]
    return data | {"phases": phases, "batch": 2, "crop": 48, "pool": 64, "work": None, "reach": whole.reach} | changes


WIDE, ALL, SHIFTS = Setting("wide"), Setting("all"), Setting(target="shifts")
SEARCH = {"search": {"sweeps": 1, "patches": 4}}
TURNED = {"probes": 1, "tries": 2, "patches": 4, "seed": 0}
SPREAD = Setting(net="spread")
ZERO_POINTS = {"activations": {"zero_points": True}}

ROWS: dict[str, Row] = {
    # Clipping of activations. Bounds that are means over patches (moving average, DBDC) cut what a busy patch needs: a
    # gain on a skip of 4 bits, a loss on one of 8 (`wide`: -6 and -3 dB). One histogram of all patches gains on both.
    "moving-average": Row("moving-average", 1.5),
    "percentile": Row("percentile", 1.0),
    "mse": Row("mse", 1.7),
    "mse, wide skips": Row("mse", 2.0, WIDE),
    "mse, shifts only": Row("mse", 3.0, SHIFTS),
    "dbdc": Row("dbdc", 1.7),
    "dbdc-released": Row("dbdc-released", 1.7),
    "dbdc, merged": Row("dbdc", 1.2, WIDE, {"activations": {"over": "merged"}}),
    # Entropy counts how much mass is clipped, not how far it lies: of the operands of the long skip it keeps 0.52 of
    # the range at 4 bits (mse: 0.64), which alone costs 1.9 dB (`narrow`: -1.7). It wins where the skip has more bits,
    # and where steps are rounded up to powers of two.
    "entropy": Row("entropy", 1.7, WIDE),
    "entropy, shifts only": Row("entropy", 2.0, SHIFTS),
    # Zero points, where ReLUs have become LeakyReLUs: without, nearly all negative integers are idle. With slope 0.05
    # and min-max they lose all the same (-4.5 dB; with mse bounds +0.3): the first activation's error falls by a third,
    # but the mean error grows from block to block, which the coarser symmetric grid happens to keep at 0.
    "zero points": Row("minmax", 1.5, Setting("wide", net="leaky 0.02"), ZERO_POINTS),
    "zero points, slope 0.1": Row("minmax", 1.0, Setting("wide", net="leaky 0.1"), ZERO_POINTS),
    "zero points, mse": Row("mse", 1.7, Setting("wide", net="leaky 0.05"), ZERO_POINTS, over="mse"),
    # Weights.
    "weights percentile": Row("minmax", 0.3, sections={"weights": {"method": "percentile", "percent": 99.0}}),
    "weights mse": Row("minmax", 0.5, WIDE, {"weights": {"method": "mse"}}),
    "weights mse, by activation": Row(
        "minmax", 0.9, WIDE, {"weights": {"method": "mse", "activation_weighted": True}}, over="weights mse"
    ),
    "weights joint": Row("minmax", 2.0, WIDE, {"weights": {"method": "joint"}}),
    # Search over the output image.
    "psnr": Row("psnr", 2.2, sections=SEARCH, over="weights joint"),
    "search, min-max weights": Row("minmax", 1.7, sections=SEARCH),
    "search, shifts only": Row(
        "mse", 3.0, SHIFTS, {"search": {"sweeps": 1, "patches": 4, "weights": True}}, over="mse"
    ),
    # Before anything is quantized. The embedded network has like channels; `spread` is the same function with unlike
    # ones, up to 16 to 1, as networks without BatchNorm have them.
    "equalize max": Row("minmax", 6.0, SPREAD, {"equalize": {"statistic": "max", "strength": 1.0}}),
    "equalize rms": Row("minmax", 3.5, SPREAD, {"equalize": {"statistic": "rms", "strength": 0.5}}),
    # Without a search min-max rates a turned basis by its one largest value, so mse ranges go with it.
    "rotate": Row("mse", 4.0, sections={"rotate": TURNED}, over="mse"),
    # A guide's sums carry what it takes out and puts back: they must be wide.
    "guide": Row("mse", 2.5, WIDE, {"guide": {}}, over="mse, wide skips"),
    # Behind a head of 8 bits there is little to correct (`wide`: +0.1 dB, `narrow`: -0.4); behind one of 4 there is.
    "bias correction": Row("minmax", 0.25, ALL, {"bias_correction": True}),
    # Learned on the image: each kind alone, then together.
    "learned activations": Row("minmax", 2.0, sections=descent(40, activations=0.05)),
    "learned weight_steps": Row("minmax", 0.6, WIDE, descent(40, weight_steps=0.01)),
    "learned biases": Row("minmax", 0.4, WIDE, descent(40, biases=1e-3)),
    "learned weights": Row("minmax", 1.1, WIDE, descent(40, weights=0.01)),
    "learned channels": Row("minmax", 0.6, sections=descent(40, channels=0.01)),
    "learned rounding": Row("minmax", 1.1, WIDE, descent(40, reach=1.0, weights=0.02)),
    "pac": Row("pac", 1.9, sections={"reconstruct": shortened("pac", 15)}, over="dbdc"),
    "pac, detached": Row("pac", 1.9, sections={"reconstruct": shortened("pac", 15, detach=True)}, over="dbdc"),
    "srq": Row("srq", 4.0, sections={"rotate": TURNED, "reconstruct": shortened("srq", 40)}, over="learned weights"),
    # Trained further from min-max, on the original images and the float network's output.
    "qat lsq": Row("minmax", 1.8, qat="lsq"),
    "qat pact": Row("minmax", 0.8, qat="pact"),
    "qat pams": Row("minmax", 0.9, qat="pams"),
    "qat linq": Row("minmax", 1.8, qat="linq"),
    "qat fqsr": Row("minmax", 1.8, ALL, qat="lsq"),
}


def recipe_of(row: Row, where: Setting) -> Recipe:
    """The row's recipe on 16 patches under a setting's policy; a section that a row changes keeps what is not named."""
    data = load_recipe(row.recipe).model_dump(by_alias=True, exclude_none=True)
    for name, section in row.sections.items():
        data[name] = data.get(name, {}) | section if name in ("activations", "weights") else section
    data |= {"patches": {"count": 16, "size": 48, "seed": 0}, "policy": POLICIES[where.policy]}
    return Recipe.model_validate(data)


@cache
def net_of(name: str) -> NormalNet:
    """embedded; leaky SLOPE: with LeakyReLUs; spread: the same function, channels scaled by 1/4 to 4."""
    network = load_network()
    if name.startswith("leaky"):
        for block in network.module.modules():
            for child, part in block.named_children():
                if isinstance(part, nn.ReLU):
                    setattr(block, child, nn.LeakyReLU(float(name.split()[1])))
    net = normalize(network)
    if name == "spread":
        classes, bound = channel_classes(net)
        free = sorted({int(index) for found in classes.values() for index in found} - bound)
        factors = 2.0 ** np.random.default_rng(0).uniform(-2, 2, len(free))
        net = scale_channels(net, classes, dict(zip(free, map(float, factors), strict=True)))
    return net


@cache
def wanted_of(name: str) -> tuple[np.ndarray, ...]:
    return outputs_of(net_of(name))


@cache
def aim_of(name: str) -> Target:
    return TARGETS[name]()


@cache
def training() -> Training:
    pairs = [make_pair(item.name, item.rgb, 2) for item in demo_calibration_images()]
    return training_of(pairs, 2, 3, 24)


def trained(start: Quantized, target: Target, rule: str) -> Quantized:
    """After two short epochs of QAT; the last state, whatever its score."""
    rates = StepRates(0.005, 0.005, 0.01, 0.005)
    schedule = Schedule(2, 25, 4, 24, rates, 0.9, 0.0, 0, None)
    student = Student(start, target, rule)
    alone = Workers(0, 1, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        state = train(student, training(), schedule, alone, lambda _: Score(0.0, 0.0), Path(folder), {})
    return student.result(state.learned)


@cache
def quality(name: str, where: Setting) -> float:
    """dB of a row's integer output against the float network's, in a setting."""
    row = ROWS[name] if name != "minmax" else Row("minmax", 0.0)
    target = aim_of(where.target)
    made = quantize(net_of(where.net), target, recipe_of(row, where), calibration_images(), 4, 4)
    if row.qat:
        made = trained(made, target, row.qat)
    return decibels(made.plan, made.calibration, target, wanted_of(where.net))


@pytest.mark.parametrize("name", ROWS)
def test_beats_minmax_at_four_bits(name: str) -> None:
    row = ROWS[name]
    found, plain = quality(name, row.where), quality("minmax", row.where)
    assert row.gain > 0 and found > plain + row.gain, (found, plain)
    if row.over:
        assert found > quality(row.over, row.where)


def test_no_method_is_forgotten() -> None:
    """Every packaged recipe, every value of a recipe's method options, everything that can be learned, every rule."""
    recipes = [recipe_of(row, row.where) for row in ROWS.values()]
    assert {row.recipe for row in ROWS.values()} == set(data_names("calib"))
    assert {recipe.activations.method for recipe in recipes} == set(METHODS)
    assert {recipe.weights.method for recipe in recipes} == set(WEIGHT_OPTIONS)
    assert {row.qat for row in ROWS.values()} == {None, *RULES}
    assert ROWS["qat fqsr"].where == ALL and Policy.model_validate(POLICIES["all"]) == FQSR
    phases = [recipe.reconstruct.phases for recipe in recipes if recipe.reconstruct]
    alone = {tuple(kind for kind in KINDS if item[0].rates.of(kind, 4)) for item in phases if len(item) == 1}
    assert {(kind,) for kind in KINDS} <= alone
    for name in ("search", "rotate", "equalize", "bias_correction", "reconstruct"):
        assert any(getattr(recipe, name) for recipe in recipes), name


def main() -> None:
    """A row per method: dB over min-max in every setting of the embedded network, then in the row's own."""
    places = [Setting(policy) for policy in POLICIES] + [Setting(policy, "shifts") for policy in POLICIES]
    for name, row in ROWS.items():
        each = " ".join(f"{quality(name, place) - quality('minmax', place):+7.2f}" for place in places)
        own = quality(name, row.where) - quality("minmax", row.where)
        sys.stdout.write(f"{name:28}{each}  here {own:+.2f}, wanted {row.gain}\n")
        sys.stdout.flush()
    steep = Setting("wide", net="leaky 0.05")
    sys.stdout.write(f"zero points, slope 0.05: {quality('zero points', steep) - quality('minmax', steep):+.2f}\n")


if __name__ == "__main__":
    main()
