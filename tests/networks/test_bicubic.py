"""The bicubic layer: exact taps, agreement with MATLAB's resize, differentiable."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from srq_hw.evaluate.resize import upscale
from srq_hw.networks.bicubic import BicubicUpsample, bicubic_taps


@pytest.mark.parametrize(("factor", "denominator"), [(2, 128), (3, 54), (4, 1024)])
def test_taps_are_exact_fractions(factor: int, denominator: int) -> None:
    taps = bicubic_taps(factor)
    assert len(taps) == factor
    for row, mirrored in zip(taps, reversed(taps), strict=True):
        assert sum(row) == 1
        assert row == mirrored[::-1]
        assert all((tap * denominator).denominator == 1 for tap in row)
    # Keys 1981, a = -1/2, at distance 1/4 (factor 2): (3/2) / 64 - (5/2) / 16 + 1
    if factor == 2:
        assert taps[0] == (Fraction(-3, 128), Fraction(29, 128), Fraction(111, 128), Fraction(-9, 128), Fraction(0))


def test_factor_one_is_refused() -> None:
    with pytest.raises(ValueError, match="enlargement by 1"):
        BicubicUpsample(1)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_inside_it_is_matlabs_resize(factor: int, channels: int) -> None:
    image = np.random.default_rng(factor).integers(60, 190, (11, 13, channels), dtype=np.uint8)
    wanted = upscale(image, factor).astype(int)  # rounds after each pass
    x = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]
    found = BicubicUpsample(factor).double()(x)[0].permute(1, 2, 0).numpy()
    assert found.shape == wanted.shape
    inside = slice(factor, -factor)
    # the first pass rounds by at most 1/2, which the second one's taps (sum of absolute values < 1.3) pass on
    assert np.abs(found - wanted)[inside, inside].max() <= 0.5 + 0.5 * 1.3


def test_edge_pixels_are_repeated() -> None:
    x = torch.arange(12, dtype=torch.float64).reshape(1, 1, 3, 4)
    padded = torch.nn.functional.pad(x, (5, 5, 5, 5), mode="replicate")
    layer = BicubicUpsample(2).double()
    assert torch.equal(layer(x), layer(padded)[..., 10:-10, 10:-10])


def test_a_constant_stays_and_the_gradient_flows() -> None:
    for factor in (2, 3, 4):
        x = torch.full((1, 3, 4, 4), 0.25, dtype=torch.float64, requires_grad=True)
        out = BicubicUpsample(factor).double()(x)
        assert float((out.detach() - 0.25).abs().max()) < 1e-15
        out.sum().backward()
        assert x.grad is not None
        assert float(x.grad.sum()) == pytest.approx(3 * (4 * factor) ** 2)


def test_state_dict_is_empty() -> None:
    assert not BicubicUpsample(4).state_dict()
