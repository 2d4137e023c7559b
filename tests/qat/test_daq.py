"""DAQ, the run-time reference, against its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from srq_hw.errors import InputError
from srq_hw.networks.loading import run_float
from srq_hw.normalform.trace import normalize
from srq_hw.qat.daq import GAUSSIAN_STEPS, inner_convs, quantize_channels, quantize_weight, run_daq
from tests.qat.tiny import smooth, teacher


def gaussian(count: int = 200_000) -> torch.Tensor:
    return torch.randn(1, 1, 1, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_the_table_holds_the_best_steps(bits: int) -> None:
    """Of a Gaussian the tabled step has less squared error than steps 5 % away (Max, 1960)."""
    x = gaussian()

    def error(step: float) -> float:
        half = 2 ** (bits - 1)
        return float((x - (torch.floor(x / step).clamp(-half, half - 1) + 0.5) * step).square().mean())

    best = GAUSSIAN_STEPS[bits]
    assert error(best) < min(error(best * 0.95), error(best * 1.05))
    found = quantize_channels(x, bits)
    assert len(found.unique()) <= 2**bits
    assert float((found - x).square().mean()) == pytest.approx(error(best), rel=0.01)


def test_each_channel_of_each_image_has_its_own_grid() -> None:
    """Scaling and moving a channel scales and moves its result: the grid follows mean and deviation."""
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gain = torch.tensor([[1.0, 30.0], [0.01, 5.0]], dtype=torch.float64)[:, :, None, None]
    moved = quantize_channels(x * gain - 7.0, 4)
    torch.testing.assert_close(moved, quantize_channels(x, 4) * gain - 7.0)


def test_zeros_behind_a_relu_stay_zeros() -> None:
    """The statistics are those of the positive values alone."""
    x = torch.relu(gaussian(4000)) * 3
    found = quantize_channels(x, 3)
    assert bool((found[x == 0] == 0).all())
    torch.testing.assert_close(found[x > 0], quantize_channels(x[x > 0].reshape(1, 1, 1, -1), 3).flatten())
    constant = torch.full((1, 1, 4, 4), 2.5)
    assert torch.equal(quantize_channels(constant, 4), constant)


def test_weights_share_one_grid() -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    assert len(quantize_weight(weight, 2).unique()) <= 4
    assert torch.equal(quantize_weight(torch.zeros(2, 1, 1, 1), 4), torch.zeros(2, 1, 1, 1))


def test_a_network_at_many_and_few_bits() -> None:
    """More bits come nearer to the float network; first and last convolutions stay as they are."""
    net, image = normalize(teacher()), smooth(0)
    assert inner_convs(net) == {"c1", "c2", "tail"}
    wanted = run_float(teacher(), image).astype(float)
    errors = [float(np.square(run_daq(net, image, bits, bits) - wanted).mean()) for bits in (2, 4, 8)]
    assert errors[0] > errors[1] > errors[2] and not math.isclose(errors[2], 0.0)
    with pytest.raises(InputError, match=r"DAQ: 9 bits; allowed are 1 to 8"):
        run_daq(net, image, 9, 4)
