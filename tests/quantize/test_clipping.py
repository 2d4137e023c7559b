"""Clipping searches on distributions whose right answer is known, and against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srq_hw.errors import InputError
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.calibrate import calibrate, sample_patches
from srq_hw.quantize.clipping import (
    METHODS,
    clip_bounds,
    dbdc,
    dbdc_released,
    entropy,
    entropy_bins,
    minmax,
    moving_average,
    mse,
    percentile,
)
from srq_hw.quantize.histogram import Histogram, magnitudes, merge
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.recipe import load_recipe
from srq_hw.resources import data_names
from tests.quantize.nets import NETS, Forward, conv, image, network, recipe, target

OPTIONS: dict[str, dict[str, float]] = {
    "minmax": {},
    "moving_average": {"decay": 0.9},
    "percentile": {"percent": 99.0},
    "mse": {"steps": 100},
    "entropy": {},
    "dbdc": {"p": 1e-3},
}
COUNTS = st.lists(st.integers(0, 50), min_size=2, max_size=40).filter(any)


def normal(size: int = 200_000) -> np.ndarray:
    return np.random.default_rng(0).normal(size=size)


def of_counts(counts: list[int], lower: float = -2.0, upper: float = 3.0) -> Histogram:
    return Histogram(np.array(counts, np.float64), lower, upper)


def kept(values: np.ndarray, bounds: tuple[float, float]) -> float:
    return float(((values >= bounds[0]) & (values <= bounds[1])).mean())


def error(values: np.ndarray, threshold: float, bits: int) -> float:
    top = 2 ** (bits - 1) - 1
    step = threshold / top
    return float(((values - np.clip(np.rint(values / step), -top - 1, top) * step) ** 2).mean())


# --- histograms -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60), st.integers(1, 50))
def test_a_histogram_counts_every_value_in_its_bin(values: list[float], bins: int) -> None:
    histogram = Histogram.of(np.array(values, np.float32), bins)
    assert histogram.counts.sum() == len(values)
    edges = np.linspace(histogram.lower, histogram.upper, bins + 1)
    slack = 1e-9 * (abs(histogram.lower) + abs(histogram.upper))
    below = np.cumsum(histogram.counts)
    for k in range(bins - 1):  # values within float noise of an edge may lie on either side
        strict = sum(value < edges[k + 1] - slack for value in values)
        loose = sum(value <= edges[k + 1] + slack for value in values)
        assert strict <= below[k] <= loose or histogram.lower == histogram.upper


def test_a_range_of_one_float32_step_still_has_its_bins() -> None:
    low = np.float32(1.0)
    values = np.array([low, np.nextafter(low, np.float32(2))] * 3, np.float32)
    histogram = Histogram.of(values, 2048)
    assert histogram.counts[0] == histogram.counts[-1] == 3


@given(st.lists(st.tuples(COUNTS, st.floats(-5, 5), st.floats(0, 5)), min_size=1, max_size=4))
def test_merging_keeps_mass_and_reach(parts: list[tuple[list[int], float, float]]) -> None:
    bins = min(len(counts) for counts, _, _ in parts)
    seen = [of_counts(counts[:bins], lower, lower + width) for counts, lower, width in parts]
    merged = merge(seen)
    assert merged.counts.sum() == sum(histogram.counts.sum() for histogram in seen)
    assert merged.lower == min(h.lower for h in seen) and merged.upper == max(h.upper for h in seen)
    for histogram in seen:
        for centre in histogram.centres[histogram.counts > 0]:
            near = np.abs(merged.centres - centre) <= merged.width * 0.5000001
            assert merged.counts[near].sum() > 0 or merged.width == 0


@given(COUNTS, st.booleans(), st.floats(-3, 3), st.floats(0.1, 3))
def test_magnitudes(counts: list[int], signed: bool, lower: float, width: float) -> None:
    histogram = of_counts(counts, lower, lower + width)
    folded = magnitudes(histogram, signed)
    assert folded.counts.sum() == histogram.counts.sum() and folded.lower == 0.0
    assert folded.upper == (max(abs(lower), abs(lower + width)) if signed else max(lower + width, 0.0))
    mean = (np.abs(histogram.centres) if signed else np.maximum(histogram.centres, 0)) @ histogram.counts
    assert abs(folded.centres @ folded.counts - mean) <= folded.width / 2 * histogram.counts.sum() + 1e-9


# --- DBDC -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1e-2, 1e-3, 1e-4])
def test_dbdc_removes_about_p_from_both_tails(p: float) -> None:
    values = normal()
    bounds = dbdc(Histogram.of(values, 2048), p)
    removed = 1 - kept(values, bounds)
    assert 0.5 * p <= removed <= p
    if p > 1e-4:  # below that, single values in the outermost bins decide
        assert -bounds[0] == pytest.approx(bounds[1], rel=0.15)


def test_dbdc_takes_the_empty_tail_only() -> None:
    """Dense on the left end, a thin tail on the right: all that is removed comes from the tail."""
    values = np.concatenate([np.random.default_rng(0).uniform(0, 1, 100_000), np.linspace(1, 50, 60)])
    histogram = Histogram.of(values, 1000)
    lower, upper = dbdc(histogram, 1e-3)
    assert lower == histogram.lower
    assert upper < 2
    assert dbdc(histogram, 0.0) == minmax(histogram)


@given(COUNTS, st.floats(0, 0.5))
def test_dbdc_against_a_recount_after_every_bin(counts: list[int], p: float) -> None:
    """Both rules, each bound recomputed from the bins that are left."""
    left = list(enumerate(counts))

    def end(part: list[tuple[int, int]]) -> int:
        return 0 if part[0][1] < part[-1][1] else -1

    def mass(part: list[tuple[int, int]]) -> int:
        return sum(count for _, count in part)

    keep = (1 - p) * float(sum(counts))
    within = left.copy()
    while len(within) > 1 and mass(within) - within[end(within)][1] >= keep:
        within.pop(end(within))
    released = left.copy()
    while len(released) > 1 and mass(released) > keep:
        released.pop(end(released))
    histogram = of_counts(counts)
    width = 5.0 / len(counts)
    assert dbdc(histogram, p) == pytest.approx((-2 + width * within[0][0], -2 + width * (within[-1][0] + 1)))
    assert dbdc_released(histogram, p) == pytest.approx(
        (-2 + width * (released[0][0] + 1), -2 + width * (released[-1][0] + 1))
    )


def test_the_released_code_moves_the_lower_bound_in() -> None:
    histogram = of_counts([5, 5, 5, 5], 0.0, 4.0)
    assert dbdc_released(histogram, 0.0) == (1.0, 4.0) and dbdc(histogram, 0.0) == (0.0, 4.0)
    assert dbdc_released(histogram, 1e-9) == (1.0, 3.0), "it always drops a bin"
    bounds = clip_bounds([histogram], "dbdc", 8, False, {"p": 0.0, "released": True})
    assert bounds == (0.0, 4.0), "behind a ReLU the lower bound is 0 all the same"


def test_dbdc_averages_the_patches_unless_told_to_merge() -> None:
    seen = [Histogram.of(normal(10_000) * scale, 512) for scale in (1.0, 3.0)]
    each = [dbdc(histogram, 1e-3) for histogram in seen]
    mean = tuple(np.mean(each, axis=0))
    assert clip_bounds(seen, "dbdc", 8, True, {"p": 1e-3}) == pytest.approx(mean)
    assert clip_bounds(seen, "dbdc", 8, True, {"p": 1e-3}, "average") == pytest.approx(mean)
    merged = clip_bounds(seen, "dbdc", 8, True, {"p": 1e-3}, "merged")
    assert merged == pytest.approx(dbdc(merge(seen), 1e-3)) and merged[1] > mean[1] * 1.1
    assert clip_bounds(seen, "mse", 8, True, {"steps": 50}) == mse(merge(seen), 8, True, 50)


# --- the other searches -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(-9, 0), st.floats(0, 9)), min_size=1, max_size=12), st.floats(0, 0.99))
def test_moving_average_against_its_closed_form(ends: list[tuple[float, float]], decay: float) -> None:
    seen = [of_counts([1, 1], low, high) for low, high in ends]
    weights = np.array([decay ** (len(ends) - 1)] + [(1 - decay) * decay**k for k in range(len(ends) - 2, -1, -1)])
    assert weights.sum() == pytest.approx(1)
    assert moving_average(seen, decay) == pytest.approx(tuple(weights @ np.array(ends)), abs=1e-9)


def test_percentile_keeps_the_middle() -> None:
    values = normal()
    bounds = percentile(Histogram.of(values, 8192), 99.0)
    assert kept(values, bounds) == pytest.approx(0.99, abs=1e-3)
    assert bounds == pytest.approx((-2.5758, 2.5758), abs=0.05)
    assert percentile(Histogram.of(values, 512), 100.0) == pytest.approx((values.min(), values.max()))


@given(COUNTS, st.floats(51, 100))
def test_percentile_cuts_no_more_than_its_share_and_no_less_than_a_bin(counts: list[int], percent: float) -> None:
    histogram = of_counts(counts)
    lower, upper = percentile(histogram, percent)
    first, last = round((lower + 2) / histogram.width), round((upper + 2) / histogram.width)
    share = sum(counts) * (1 - percent / 100) / 2
    slack = 1e-9 * sum(counts)
    assert sum(counts[:first]) <= share + slack and sum(counts[last:]) <= share + slack
    assert sum(counts[: first + 1]) > share - slack and sum(counts[last - 1 :]) > share - slack


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_mse_beats_minmax_on_heavy_tails(bits: int) -> None:
    values = np.random.default_rng(1).standard_t(3, 200_000)
    histogram = Histogram.of(values, 8192)
    lower, upper = mse(histogram, bits, True, 200)
    assert lower == -upper
    assert error(values, upper, bits) < 0.5 * error(values, max(-histogram.lower, histogram.upper), bits)
    steps = np.linspace(0.005, 1, 200) * max(-histogram.lower, histogram.upper)
    best = min(error(values, float(step), bits) for step in steps)
    assert error(values, upper, bits) <= best * 1.02


def test_mse_of_a_gaussian_at_four_bits() -> None:
    """The optimal uniform 4-bit quantizer of a unit normal clips near 2.5 sigma."""
    _, upper = mse(Histogram.of(normal(), 8192), 4, True, 500)
    assert 2.2 < upper < 2.9


def test_mse_unsigned_ignores_what_is_negative() -> None:
    lower, upper = mse(Histogram.of(np.abs(normal()) - 0.01, 4096), 8, False, 100)
    assert lower == 0.0 and 2 < upper < 5


def divergence(counts: np.ndarray, keep: int, levels: int) -> float:
    """KL(P || Q) of one candidate, term by term."""
    p = counts[:keep].copy()
    p[-1] += counts[keep:].sum()
    q = np.zeros(keep)
    for level in range(levels):
        inside = slice(keep * level // levels, keep * (level + 1) // levels)
        occupied = counts[inside] > 0
        if occupied.any():
            q[inside] = np.where(occupied, counts[inside].sum() / occupied.sum(), 0.0)
    p, q = p / p.sum(), q / q.sum()
    if (q[p > 0] == 0).any():
        return np.inf
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@given(COUNTS, st.integers(1, 12))
@settings(max_examples=200)
def test_entropy_against_the_divergence_itself(counts: list[int], levels: int) -> None:
    array = np.array(counts, np.float64)
    found = entropy_bins(array, levels)
    assert array.tolist() == counts, "the histogram itself is changed"
    array[0] = array[1]
    if len(counts) <= levels or array.sum() == 0:
        assert found == len(counts)
        return
    all_of_them = {keep: divergence(array, keep, levels) for keep in range(levels, len(counts) + 1)}
    least = min(all_of_them.values())
    if np.isfinite(least):
        assert all_of_them[found] <= least + 1e-9
        ties = [keep for keep, value in all_of_them.items() if value <= least + 1e-13]
        assert found >= min(ties)


def test_entropy_cuts_a_thin_tail_and_ignores_how_many_zeros_there_are() -> None:
    values = np.concatenate([np.abs(normal()), np.linspace(4, 40, 50)])
    _, upper = entropy(Histogram.of(values, 2048), 8, False)
    assert 3 < upper < 12
    zeros = np.concatenate([values, np.zeros(10_000_000)])
    assert entropy(Histogram.of(zeros, 2048), 8, False) == entropy(Histogram.of(values, 2048), 8, False)
    lower, upper = entropy(Histogram.of(values * np.random.default_rng(0).choice([-1, 1], len(values)), 2048), 8, True)
    assert lower == -upper and 3 < upper < 12


# --- edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("value", [0.0, 3.5, 1e-30, -2.0])
def test_constants(method: str, signed: bool, value: float) -> None:
    histogram = Histogram.of(np.full(100, value), 64)
    assert histogram.counts.sum() == 100
    for seen in ([histogram], [histogram, histogram]):
        lower, upper = clip_bounds(seen, method, 4, signed, OPTIONS[method])
        assert np.isfinite([lower, upper]).all() and lower <= upper
        if signed or value >= 0:
            assert min(lower, 0) <= value <= max(upper, 0) or method == "mse"


@pytest.mark.parametrize("method", METHODS)
def test_bounds_stay_inside_the_data(method: str) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        values = rng.normal(rng.normal() * 5, rng.uniform(0.1, 9), 500)
        histogram = Histogram.of(values, 256)
        lower, upper = clip_bounds([histogram], method, 8, True, OPTIONS[method])
        reach = np.abs(values).max() * (1 + 1e-12)
        assert -reach <= lower <= upper <= reach


def dead() -> Forward:
    """A layer whose ReLU never opens, one with a dead channel, and a constant one."""

    def forward(m, x):
        closed = m.closed(x).relu()
        return m.tail(m.head(x) + closed) + m.flat(closed)

    return Forward(forward, closed=conv(3, 4), head=conv(3, 4), tail=conv(4, 3), flat=conv(4, 3))


@pytest.mark.parametrize("method", METHODS)
def test_dead_layers_channels_and_constant_tensors(method: str) -> None:
    module = network(dead())
    with np.errstate(all="raise"):
        parts = dict(module.module.named_modules())
        for name, channel in (("closed", slice(None)), ("head", 1), ("flat", slice(None))):
            parts[name].weight.data[channel] = 0
        parts["closed"].bias.data[:] = -1
        aim = target()
        plan = make_plan(normalize(module), aim, 4, 4)
        options = {"p": {"4": 1e-3}} if method == "dbdc" else OPTIONS[method]
        found = calibrate(plan, aim, recipe(method, **options), [image(1)])
    assert all(np.isfinite(step) and step > 0 for step in found.scales.values())
    assert (found.weights["head"] > 0).all() and found.weights["head"][1] == found.weights["head"].max()
    np.testing.assert_array_equal(found.weights["flat"], 1.0)


def test_one_small_image_is_enough() -> None:
    """An image smaller than a patch gives itself; one image gives all patches."""
    tiny = image(3, 5, 4)
    patches = sample_patches([tiny], recipe())
    assert len(patches) == 2 and all(np.array_equal(patch, tiny) for patch in patches)
    aim = target()
    plan = make_plan(normalize(network(NETS["residual"]())), aim, 8, 8)
    assert calibrate(plan, aim, recipe(), [tiny]).scales
    with pytest.raises(InputError, match="no images"):
        sample_patches([], recipe())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["weight", "bias", "activation"])
def test_numbers_that_are_none(bad: float, place: str) -> None:
    module = network(NETS["residual"]())
    aim = target()
    plan = make_plan(normalize(module), aim, 8, 8)
    layer = plan.layer("c1")
    if place == "activation":
        layer.bias[0] = 3e38 * (10.0 if np.isinf(bad) else 1.0)
        plan.layer("c2").weight[:] *= 1e3
    else:
        getattr(layer, place).reshape(-1)[0] = bad
    with pytest.raises(InputError, match="NaN or Inf; check the weights"):
        calibrate(plan, aim, recipe(), [image(1)])


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", data_names("calib"))
def test_packaged_recipes(name: str) -> None:
    found = load_recipe(name)
    assert found.name == name
    for bits in (2, 4, 5, 8, 16):
        options = found.activations.options(bits)
        lower, upper = clip_bounds([Histogram.of(normal(1000), 256)], found.activations.method, bits, True, options)
        assert lower < 0 < upper


def test_p_of_the_paper_and_of_its_code() -> None:
    paper, code = load_recipe("dbdc").activations, load_recipe("dbdc-released").activations
    assert [paper.options(bits)["p"] for bits in (4, 6, 8)] == [5e-4, 1e-4, 1e-5]
    assert [code.options(bits)["p"] for bits in (2, 4, 6, 7, 8, 9, 16)] == [1e-4] * 4 + [1e-5] + [1e-4] * 2
    assert code.released and not paper.released


@pytest.mark.parametrize(
    ("activations", "weights", "message"),
    [
        ("{method: moving_average}", "{method: minmax}", "moving_average needs decay"),
        ("{method: percentile, percent: 99, decay: 0.5}", "{method: minmax}", "has no decay; it takes percent, over"),
        ("{method: minmax, over: merged}", "{method: minmax}", "minmax has no over; it takes no options"),
        ("{method: mse, steps: 9, released: true}", "{method: minmax}", "mse has no released"),
        ("{method: moving_average, decay: 1.0}", "{method: minmax}", "decay"),
        ("{method: dbdc, p: {}}", "{method: minmax}", "activations.p"),
        ("{method: entropie}", "{method: minmax}", "entropy"),
        ("{method: minmax}", "{method: percentile}", "percentile needs percent"),
        ("{method: minmax}", "{method: mse, activation_steps: 4}", "mse has no activation_steps"),
        ("{method: minmax}", "{method: minmax, steps: 4}", "minmax has no steps"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, activations: str, weights: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "schema: 1\nname: own\ntitle: t\npatches: {count: 1, size: 8}\n"
        f"activations: {activations}\nweights: {weights}\n"
    )
    with pytest.raises(InputError, match=message):
        load_recipe(str(path))
