"""Clipping searches on distributions whose right answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from srq_hw.quantize.clipping import METHODS, Histogram, clip_bounds, dbdc, minmax, mse, percentile, weight_scales

OPTIONS = {"minmax": {}, "percentile": {"percent": 99.0}, "mse": {"steps": 100}, "dbdc": {"p": 1e-3}}


def normal(size: int = 200_000) -> np.ndarray:
    return np.random.default_rng(0).normal(size=size)


def kept(values: np.ndarray, bounds: tuple[float, float]) -> float:
    return float(((values >= bounds[0]) & (values <= bounds[1])).mean())


def error(values: np.ndarray, threshold: float, bits: int) -> float:
    top = 2 ** (bits - 1) - 1
    step = threshold / top
    return float(((values - np.clip(np.rint(values / step), -top - 1, top) * step) ** 2).mean())


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


def test_percentile_keeps_the_middle() -> None:
    values = normal()
    bounds = percentile(Histogram.of(values, 8192), 99.0)
    assert kept(values, bounds) == pytest.approx(0.99, abs=1e-3)
    assert bounds == pytest.approx((-2.5758, 2.5758), abs=0.05)
    assert percentile(Histogram.of(values, 512), 100.0) == pytest.approx((values.min(), values.max()))


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


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("value", [0.0, 3.5, 1e-30, -2.0])
def test_constants(method: str, signed: bool, value: float) -> None:
    histogram = Histogram.of(np.full(100, value), 64)
    assert histogram.counts.sum() == 100
    lower, upper = clip_bounds(histogram, method, 4, signed, OPTIONS[method])
    assert np.isfinite([lower, upper]).all() and lower <= upper
    if signed or value >= 0:
        assert min(lower, 0) <= value <= max(upper, 0) or method == "mse"


@pytest.mark.parametrize("method", METHODS)
def test_bounds_stay_inside_the_data(method: str) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        values = rng.normal(rng.normal() * 5, rng.uniform(0.1, 9), 500)
        histogram = Histogram.of(values, 256)
        lower, upper = clip_bounds(histogram, method, 8, True, OPTIONS[method])
        reach = np.abs(values).max() * (1 + 1e-12)
        assert -reach <= lower <= upper <= reach


@pytest.mark.parametrize("method", ["minmax", "mse"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_weight_scales(method: str, per_channel: bool) -> None:
    weight = np.random.default_rng(2).standard_t(3, (6, 4, 3, 3))
    weight[2] = 0
    found = weight_scales(weight, 4, method, per_channel, 60)
    assert found.shape == (6,) and (found > 0).all()
    if not per_channel:
        assert len(set(found.tolist())) == 1
    largest = np.abs(weight).max((1, 2, 3)) if per_channel else np.full(6, np.abs(weight).max())
    alive = largest > 0
    assert (found[alive] <= largest[alive] / 7 * (1 + 1e-12)).all()
    if method == "minmax":
        np.testing.assert_allclose(found[alive], largest[alive] / 7)
    if per_channel:
        assert found[2] == found[alive].max()


def test_mse_weight_scales_have_less_error() -> None:
    weight = np.random.default_rng(3).standard_t(3, (8, 16, 3, 3))
    plain, best = (weight_scales(weight, 3, method, True, 60) for method in ("minmax", "mse"))

    def squared(scale: np.ndarray) -> np.ndarray:
        s = scale[:, None, None, None]
        return ((weight - np.clip(np.rint(weight / s), -3, 3) * s) ** 2).sum((1, 2, 3))

    assert (squared(best) <= squared(plain)).all() and squared(best).sum() < 0.9 * squared(plain).sum()


def test_weights_of_zeros() -> None:
    np.testing.assert_array_equal(weight_scales(np.zeros((3, 2, 1, 1)), 8, "mse", True, 10), [1, 1, 1])
