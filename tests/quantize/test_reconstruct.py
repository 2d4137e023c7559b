"""Reconstruction on the embedded network at 4 bits: better than its start, repeatable, and it says when it fails."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from srq_hw import parity
from srq_hw.errors import RunError
from srq_hw.exchange.direct import to_intgraph
from srq_hw.networks.loading import load_network
from srq_hw.normalform.normal import evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.crops import attention, draw_crops, draw_pool, stretch
from srq_hw.quantize.freeze import freeze, load_frozen, quant_net, run_frozen
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.quantize.recipe import Patches, Phase, Rates, Recipe, Reconstruct, by_width, load_recipe
from srq_hw.quantize.reconstruct import LONGEST, cosine, feature_points, longer, reconstruct, work_of
from srq_hw.quantize.tuning import KINDS
from srq_hw.simulate import reference
from srq_hw.target import load_target
from tests.quantize import nets, test_tuning
from tests.quantize.chain import assert_chain, graph_hash
from tests.quantize.nets import Forward, conv, image, network, recipe
from tests.quantize.quality import calibration_images, decibels

GENERIC = load_target("int-generic")


def cut(name: str, iterations: int, **changes: object) -> Recipe:
    """A packaged recipe with fewer steps and smaller crops on 8 patches."""
    whole = load_recipe(name)
    assert whole.reconstruct is not None
    phases = tuple(phase.model_copy(update={"iterations": iterations}) for phase in whole.reconstruct.phases)
    short = whole.reconstruct.model_copy(
        update={"phases": phases, "batch": 2, "crop": 48, "pool": 64, "work": None} | changes
    )
    return whole.model_copy(update={"reconstruct": short, "patches": Patches(count=8, size=32)})


@cache
def quality(name: str, iterations: int = 0, features: float = 5.0, detach: bool = False) -> float:
    """dB of the integer output against the float network's, embedded network, 4 bits throughout."""
    if iterations:
        chosen = cut(name, iterations, features=features, detach=detach)
    else:
        chosen = load_recipe(name).model_copy(update={"reconstruct": None, "patches": Patches(count=8, size=32)})
    made = quantize(normalize(load_network()), GENERIC, chosen, calibration_images(), 4, 4)
    return decibels(made.plan, made.calibration, GENERIC)


def test_srq_beats_its_start() -> None:
    assert quality("srq", 50, features=0.0) > quality("srq") + 1.0


def test_pac_beats_dbdc_with_and_without_the_features_gradient() -> None:
    """Two different descents, both better than the plain clipping they start from."""
    plain, flowing, detached = quality("dbdc"), quality("pac", 25), quality("pac", 25, detach=True)
    assert quality("pac") == plain, "PaC starts from DBDC"
    assert flowing > plain + 0.5 and detached > plain + 0.5
    assert flowing != detached
    assert detached == quality("pac", 25, features=0.0), "a detached loss moves nothing"


def options(iterations: int = 4, **changes: object) -> Reconstruct:
    rates = Rates(activations=0.05, weight_steps=0.05, biases=1e-3, weights=0.2, channels=0.05)
    fields = {"phases": (Phase(iterations=iterations, rates=rates),), "batch": 2, "crop": 16, "pool": 4}
    return Reconstruct.model_validate(fields | changes)


def rebuilt(name: str = "residual", aim: str = "channel", **changes: object) -> Quantized:
    plan, calibration, target = test_tuning.start(name, aim)
    return Quantized(*reconstruct(plan, calibration, target, [image(1, 20, 24), image(2, 9, 30)], options(**changes)))


def sha(made: Quantized, aim: str = "channel") -> str:
    return graph_hash(made.plan, made.calibration, test_tuning.TARGETS[aim])


@pytest.mark.parametrize("aim", ["channel", "pow2"])
def test_same_seed_same_network(aim: str) -> None:
    one, two, other = (rebuilt("everything", aim, seed=seed, iterations=6) for seed in (1, 1, 2))
    assert sha(one, aim) == sha(two, aim)
    assert one.calibration.scales == two.calibration.scales
    for a, b in zip(one.plan.layers, two.plan.layers, strict=True):
        assert a.weight is None or torch.equal(a.weight, b.weight)
    assert sha(one, aim) != sha(other, aim)


@pytest.mark.parametrize("features", [0.0, 5.0])
@pytest.mark.parametrize("aim", test_tuning.TARGETS)
@pytest.mark.parametrize("name", ["everything", "joined", "image everywhere", "bicubic x2"])
def test_the_chain_stays_equal(name: str, aim: str, features: float) -> None:
    made = rebuilt(name, aim, features=features)
    start = test_tuning.start(name, aim)
    assert sha(made, aim) != graph_hash(*start), "something was learned"
    assert_chain(made.plan, made.calibration, test_tuning.TARGETS[aim], [image(3)])


def test_the_loss_goes_down_on_a_shift_only_target() -> None:
    """One scale per tensor, powers of two: learned rounding and biases still bring the output nearer."""
    target = nets.target(
        "dpu-pow2", **{k: {"min": 2, "max": 8, "default": 8} for k in ("weights.bits", "activations.bits")}
    )
    net = normalize(load_network())
    base = load_recipe("srq").model_copy(
        update={"policy": recipe().policy, "patches": Patches(count=8, size=32), "reconstruct": None}
    )
    tuned = base.model_copy(update={"reconstruct": cut("srq", 60).reconstruct})
    before, after = (quantize(net, target, chosen, calibration_images(), 4, 4) for chosen in (base, tuned))
    gain = decibels(after.plan, after.calibration, target) - decibels(before.plan, before.calibration, target)
    assert gain > 1.0, gain


def test_images_smaller_than_a_crop_are_mirrored() -> None:
    small = image(5, 3, 5)
    crops = draw_crops([small], 3, 16, np.random.default_rng(0))
    assert crops.shape == (3, 3, 16, 16) and crops.dtype == torch.float32
    wanted = np.pad(small, ((0, 13), (0, 11), (0, 0)), mode="symmetric").transpose(2, 0, 1)
    assert torch.equal(crops[0], torch.from_numpy(wanted.astype(np.float32)))
    plan, calibration, target = test_tuning.start("residual", "channel")
    made = Quantized(*reconstruct(plan, calibration, target, [small, image(1, 1, 1)], options()))
    assert_chain(made.plan, made.calibration, target, [image(3)])


def test_crops_come_from_every_place_of_every_image() -> None:
    ramp = np.arange(20 * 17 * 3, dtype=np.int64).reshape(20, 17, 3) % 251
    first = ramp.astype(np.uint8)
    crops = draw_crops([first, 255 - first], 300, 16, np.random.default_rng(3))
    both = [np.lib.stride_tricks.sliding_window_view(item, (16, 16), (0, 1)) for item in (first, 255 - first)]
    known = {window.tobytes() for views in both for row in views for window in row}
    found = {crop.numpy().astype(np.uint8).tobytes() for crop in crops}
    assert found == known and len(known) == 2 * 5 * 2


def test_a_luma_network() -> None:
    module = Forward(
        lambda m, x: nn.functional.pixel_shuffle(m.c(torch.relu(m.b(torch.relu(m.a(x))))), 2),
        a=conv(1, 4), b=conv(4, 4), c=conv(4, 4),
    )  # fmt: skip
    plan = make_plan(normalize(network(module, scale=2, channels=1, input_max=1.0)), GENERIC, 4, 4)
    pictures = [image(seed, 20, 20, 1) for seed in (1, 2)]
    calibration = calibrate(plan, GENERIC, recipe(), pictures)
    after = reconstruct(plan, calibration, GENERIC, pictures, options())
    assert graph_hash(*after, GENERIC) != graph_hash(plan, calibration, GENERIC)
    assert_chain(*after, GENERIC, [image(3, channels=1)])


@pytest.mark.parametrize("kind", ["activations", "weight_steps"])
@pytest.mark.parametrize("iterations", [1, 3])
def test_a_rate_that_explodes_is_said(kind: str, iterations: int) -> None:
    """Rates a recipe cannot have: the loss leaves the numbers, or the last update did and no loss saw it."""
    rates = Rates().model_copy(update={kind: 1e5})
    chosen = options().model_copy(update={"phases": (Phase(iterations=iterations, rates=Rates()),)})
    chosen = chosen.model_copy(update={"phases": (chosen.phases[0].model_copy(update={"rates": rates}),)})
    plan, calibration, target = test_tuning.start("residual", "channel")
    with pytest.raises(RunError, match=r"reconstruction of tiny: .* is no number at step [12]; lower the rates"):
        reconstruct(plan, calibration, target, [image(1, 20, 20)], chosen)


def test_the_steepest_rates_a_recipe_can_have_still_give_integers() -> None:
    steep = dict.fromkeys(KINDS, 1.0) | {"weights": 10.0, "last": 1.0}
    for reach in (1.0, None):
        made = rebuilt(phases=[{"iterations": 40, "rates": steep}], reach=reach)
        frozen = freeze(made.plan, made.calibration, GENERIC)
        model = load_frozen(quant_net(made.plan, made.calibration, GENERIC), frozen)
        found = parity.compare(run_frozen(model, frozen, image(3)), reference.trace(to_intgraph(frozen), image(3)))
        assert found.equal, found.first


def test_nothing_to_learn_changes_nothing() -> None:
    """A phase without rates: the network comes back as it was."""
    plan, calibration, target = test_tuning.start("steep", "channel")
    held = Reconstruct.model_validate({"phases": [{"iterations": 1, "rates": {"biases": 1e-30}}], "crop": 16})
    after = reconstruct(plan, calibration, target, [image(1, 20, 20)], held)
    assert graph_hash(*after, target) == graph_hash(plan, calibration, target)


def test_progress_counts_all_phases() -> None:
    seen: list[tuple[int, int]] = []
    plan, calibration, target = test_tuning.start("residual", "channel")
    phases = [{"iterations": n, "rates": {"biases": 1e-4}} for n in (2, 3)]
    chosen = options(phases=phases)
    reconstruct(plan, calibration, target, [image(1, 20, 20)], chosen, lambda *a: seen.append(a))
    assert seen == [(n, 5) for n in range(1, 6)]


def test_features_are_the_sums_inside() -> None:
    plan, _, _ = test_tuning.start("residual", "channel")
    assert feature_points(plan) == {"add": "add_quant", "add_1": "add_1_quant"}
    plan, _, _ = test_tuning.start("sums", "channel")
    points = feature_points(plan)
    assert plan.net.output not in points and len(points) >= 2
    for name, point in points.items():
        assert plan.points[point].tensor == name and not plan.points[point].fixed


def test_the_pool_is_the_float_networks_answers() -> None:
    plan, _, _ = test_tuning.start("residual", "channel")
    pool = draw_pool(plan.net, [image(1, 20, 24)], 19, 16, np.random.default_rng(0), ("add",))
    assert pool.crops.shape == (19, 3, 16, 16) and pool.outputs.shape == (19, 3, 32, 32)
    taps: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        wanted = evaluate(plan.net, pool.crops[17:18], taps.__setitem__).clamp(0, 255)
    torch.testing.assert_close(pool.outputs[17:18], wanted, rtol=1e-5, atol=1e-3)
    energy = taps["add"].square().mean(1).flatten()
    torch.testing.assert_close(pool.maps["add"][17], energy / energy.norm(), rtol=1e-4, atol=1e-6)
    assert attention(torch.zeros(2, 3, 4, 4)).abs().sum() == 0


def test_cosine_falls_from_one_to_the_last() -> None:
    assert cosine(0.0, 0.25) == 1.0 and cosine(1.0, 0.25) == pytest.approx(0.25)
    assert cosine(0.5, 0.0) == pytest.approx(0.5)


def test_bias_correction_behind_learned_factors_stays_small() -> None:
    """The float network beside the result has the learned factors too: channel means are of like channels."""
    plan, calibration, target = test_tuning.start("joined", "channel")
    only = {"phases": [{"iterations": 30, "rates": {"channels": 0.3, "last": 1.0}}]}
    after, _ = reconstruct(plan, calibration, target, [image(1, 20, 24)], options(**only))
    x = torch.from_numpy(image(4)).permute(2, 0, 1)[None].double()
    old, new = {}, {}
    evaluate(plan.net, x, old.__setitem__, torch.float64)
    evaluate(after.net, x, new.__setitem__, torch.float64)
    torch.testing.assert_close(new[after.net.output], old[plan.net.output], rtol=0, atol=1e-6)
    changed = 0
    for layer in after.layers:
        if layer.op == "conv":
            beside = after.net_layer(layer.name)
            torch.testing.assert_close(layer.weight, beside.weight, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(layer.bias, beside.bias, rtol=1e-5, atol=1e-4)
            changed += not torch.equal(new[layer.name], old[layer.name])
    assert changed >= 4


def test_stretched_crops_reach_black_and_white_and_the_others_stay() -> None:
    crops = draw_crops(
        [np.full((16, 16, 3), 90, np.uint8), image(1, 20, 24) // 4 + 90], 200, 16, np.random.default_rng(1)
    )
    rng = np.random.default_rng(2)
    assert torch.equal(stretch(crops, 0.0, rng), crops)
    some = stretch(crops, 0.25, rng)
    changed = (some != crops).flatten(1).any(1)
    assert 30 <= int(changed.sum()) <= 70
    assert torch.equal(some, some.round()) and float(some.min()) == 0.0 and float(some.max()) == 255.0
    everything = stretch(crops, 1.0, rng)
    flat, busy = (crops.flatten(1).std(1) == 0), crops.flatten(1).std(1) > 0
    assert float(everything[flat].flatten(1).std(1).max()) == 0.0, "no contrast, nothing to grow"
    assert float(everything[busy].flatten(1).std(1).mean()) > 2 * float(crops[busy].flatten(1).std(1).mean())


def test_by_width_takes_the_next_wider_value() -> None:
    table = {8: 1.0, 5: 2.0}
    assert [by_width(table, bits) for bits in (2, 5, 6, 8, 12)] == [2.0, 2.0, 1.0, 1.0, 1.0]
    assert by_width(None, 4) is None


def test_rates_for_all_widths_or_by_width() -> None:
    rates = Rates.model_validate({"biases": 0.5, "weights": {8: 0.1, 4: 0.4}})
    assert [rates.of("weights", bits) for bits in (3, 4, 5, 8, 9)] == [0.4, 0.4, 0.1, 0.1, 0.1]
    assert rates.of("biases", 4) == 0.5 and rates.of("channels", 4) is None
    for wrong in ({"weights": {}}, {"biases": 2.0}, {"channels": {4: 2.0}}, {"weights": {4: 11.0}}, {"weights": 0.0}):
        with pytest.raises(ValidationError):
            Rates.model_validate(wrong)


def test_the_work_stretches_the_phases() -> None:
    net = normalize(load_network())
    weights = [layer.weight for layer in net.layers if layer.weight is not None]
    work = work_of(net, 24)
    # all convolutions of the embedded network run at the image's own resolution
    assert work == sum(weight.numel() + 300 * weight.shape[0] for weight in weights) * 24 * 24
    stated = options(iterations=3, batch=2)
    assert longer(net, stated, 4, 24) == 1
    worked = stated.model_copy(update={"work": {8: work * 6e-12, 4: work * 24.1e-12, 2: 1e6}})
    assert [longer(net, worked, bits, 24) for bits in (8, 6, 4, 3, 2)] == [1, 1, 4, 4, LONGEST]
    seen: list[tuple[int, int]] = []
    plan, calibration, target = test_tuning.start("residual", "channel")
    twice = options(work={8: 2 * 4 * 2 * work_of(plan.net, 16) * 1e-12})
    reconstruct(plan, calibration, target, [image(1, 20, 24)], twice, lambda *step: seen.append(step))
    assert seen[-1] == (8, 8)
