"""Costs of a convolution by hand, and budgets as a user writes them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from srq_hw.errors import InputError
from srq_hw.mixed.costs import Frame, bram_model, conv_shapes, cost_model, dsp_model, multipliers
from srq_hw.mixed.run import parse_widths
from srq_hw.mixed.solve import Budget, parse_budget, solve
from srq_hw.networks.loading import load_network
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.sensitivity import Damage
from srq_hw.target import load_target
from tests.quantize.nets import NETS, network

SHAPES = conv_shapes(normalize(network(NETS["residual"](), scale=2)))
FREE = set(SHAPES) - {"head"}


def uniform(weights: int, inputs: int) -> dict[str, tuple[int, int]]:
    return {name: (weights, inputs if name in FREE else 8) for name in SHAPES}


def test_shapes_count_what_is_there() -> None:
    head, up = SHAPES["head"], SHAPES["up"]
    assert (head.weights, head.macs, head.reads, head.channels, head.kernel) == (108, 108, 3, 3, 3)
    assert (up.weights, up.macs, up.columns) == (432, 432, 1)
    everything = conv_shapes(normalize(network(NETS["everything"]())))
    assert (everything["last"].columns, everything["last"].macs) == (4, 54 * 16)  # behind a resize and a shuffle


def test_mean_bits() -> None:
    model = cost_model("bits", SHAPES, FREE, 2, load_target("zcu104"), Frame(64, 64, 60))
    assert model.spent(SHAPES, uniform(4, 5)) == {"weights": 4.0, "activations": 5.0}  # the image does not count
    widths = uniform(4, 4) | {"head": (8, 8)}
    stored = sum(shape.weights for shape in SHAPES.values())
    assert model.spent(SHAPES, widths)["weights"] == float(Fraction(4 * stored + 4 * 108, stored))


def test_bitops_of_a_published_network() -> None:
    """EDSR-baseline x4 at W8A8 without head, upsampling and tail: 8.49 G (CADyQ's protocol)."""
    from srq_hw.mixed.costs import Shape, bitops_model

    layer = Shape("c", 64 * 64 * 9, 64 * 64 * 9, 64, 64, 3, 1)
    shapes = {f"c{i}": layer for i in range(32)}
    model = bitops_model(shapes, 4)
    assert model.spent(shapes, dict.fromkeys(shapes, (8, 8)))["bitops"] == pytest.approx(8.4935, abs=1e-4)
    assert model.spent(shapes, dict.fromkeys(shapes, (32, 32)))["bitops"] == pytest.approx(135.90, abs=5e-3)


def test_dsp_slices_by_hand() -> None:
    """DSP48E2, narrow weights: 1 + (27 - w) // (w + a - 1) products: 2 at 8x8, 4 at 4x4."""
    target, frame = load_target("zcu104"), Frame(64, 64, 60.0)
    clock = target.resources.clock_mhz  # type: ignore[union-attr]
    shape = conv_shapes(normalize(load_network()))["up"]
    parallel = multipliers(shape, frame, clock)
    assert parallel == -(-shape.macs * 64 * 64 * 60 // int(clock * 1e6))
    model = dsp_model(target, frame)
    assert model.axes[0].cost(shape, 8, 8) == -(-parallel // 2)
    assert model.axes[0].cost(shape, 4, 4) == -(-parallel // 4)


def test_block_ram_falls_with_both_widths() -> None:
    model = bram_model(load_target("zcu104"), Frame(256, 256, 1.0))
    shape = conv_shapes(normalize(load_network()))["up"]
    costs = [model.axes[0].cost(shape, bits, bits) for bits in (2, 4, 8)]
    assert costs == sorted(costs) and costs[0] < costs[-1]
    assert model.axes[0].cost(shape, 8, 4) < costs[-1] and model.axes[0].cost(shape, 4, 8) < costs[-1]


@pytest.mark.parametrize("kind", ["dsp", "bram"])
def test_hardware_budgets_need_a_device(kind: str) -> None:
    with pytest.raises(InputError, match=f"--budget {kind}: target int-generic names no device"):
        cost_model(kind, SHAPES, FREE, 2, load_target("int-generic"), Frame(64, 64, 60))


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("bits=4.5", Budget("bits", 4.5)),
        (" dsp = 500 ", Budget("dsp", 500.0)),
        ("bitops=W4A8", Budget("bitops", (4, 8))),
        ("bram=w6a6", Budget("bram", (6, 6))),
    ],
)
def test_budgets_are_read(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert parse_budget(budget.text) == budget


@pytest.mark.parametrize("text", ["", "bits", "bits=", "bits=-1", "bits=nan", "bits=inf", "bit=4", "lut=7", "dsp=W4"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--budget"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["", "4", "8-2", "4-4", "1-8", "2-17", "2-8-9", "a-b"])
def test_other_widths_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--widths"):
        parse_widths(text)


def test_a_budget_below_the_narrowest_names_what_is_needed() -> None:
    target, frame = load_target("zcu104"), Frame(64, 64, 60)
    damages = {name: Damage({2: 9.0, 8: 0.0}, {2: 9.0, 8: 0.0}) for name in SHAPES}
    choices = dict.fromkeys(SHAPES, ((2, 8), (2, 8)))
    model = cost_model("bits", SHAPES, FREE, 2, target, frame)
    with pytest.raises(InputError, match=r"bits=1.5: .* need 2 bits of weights; raise the budget"):
        solve(model, SHAPES, choices, damages, {"weights": 1.5, "activations": 1.5})
    assert set(solve(model, SHAPES, choices, damages, {"weights": 2, "activations": 8}).values()) == {(2, 8)}
