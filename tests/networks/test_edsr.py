"""The EDSR networks: their formulas, and that torch.fx traces what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from srq_hw.networks.edsr import Edsr, EdsrMeanShift, EdsrOfficial
from srq_hw.networks.registry import DEFAULT_NETWORK, NETWORKS


def randomised(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    state = {key: torch.randn(value.shape, generator=generator) * 0.1 for key, value in module.state_dict().items()}
    module.load_state_dict(state)
    return module.eval()


def conv(x: Tensor, state: dict[str, Tensor], key: str) -> Tensor:
    return F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], padding=1)


def body_and_tail(h: Tensor, state: dict[str, Tensor], blocks: int) -> Tensor:
    x = h
    for i in range(blocks):
        x = x + conv(conv(x, state, f"body.{i}.c1").clamp(min=0), state, f"body.{i}.c2")
    return conv(x, state, "tail") + h


@pytest.mark.parametrize("scale", [2, 3])
def test_edsr_computes_its_formula(scale: int) -> None:
    net = randomised(Edsr(features=6, blocks=2, scale=scale), 1)
    x = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    state = net.state_dict()
    expected = F.pixel_shuffle(conv(body_and_tail(conv(x, state, "head"), state, 2), state, "up"), scale)
    assert expected.shape == (2, 3, 5 * scale, 7 * scale)
    assert torch.equal(net(x), expected)


def test_mean_shift_edsr_computes_its_formula() -> None:
    net = randomised(EdsrMeanShift(features=4, blocks=1), 3)
    x = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(4))
    state = net.state_dict()
    h = conv((x + state["mean_in"]) * 2, state, "head")
    wide = F.pixel_shuffle(conv(body_and_tail(h, state, 1), state, "up"), 2)
    assert torch.equal(net(x), conv(wide, state, "last") * 0.5 + state["mean_out"])


@pytest.mark.parametrize(("scale", "res_scale"), [(2, 1.0), (3, 0.1), (4, 0.1)])
def test_official_edsr_computes_its_formula(scale: int, res_scale: float) -> None:
    net = randomised(EdsrOfficial(features=4, blocks=2, scale=scale, res_scale=res_scale), 7)
    x = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(8)) * 255
    state = net.state_dict()
    h = conv(F.conv2d(x, state["sub_mean.weight"], state["sub_mean.bias"]), state, "head.0")
    y = h
    for i in range(2):
        y = y + conv(conv(y, state, f"body.{i}.body.0").clamp(min=0), state, f"body.{i}.body.2") * res_scale
    y = conv(y, state, "body.2") + h
    for at, factor in {2: [(0, 2)], 3: [(0, 3)], 4: [(0, 2), (2, 2)]}[scale]:
        y = F.pixel_shuffle(conv(y, state, f"tail.0.{at}"), factor)
    expected = F.conv2d(conv(y, state, "tail.1"), state["add_mean.weight"], state["add_mean.bias"])
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-4)


def test_mean_shift_of_a_fresh_official_edsr() -> None:
    net = EdsrOfficial(features=4, blocks=1, scale=2)
    grey = torch.full((1, 3, 2, 2), 128.0)
    shifted = net.sub_mean(grey)
    assert torch.allclose(shifted[0, :, 0, 0], 128 - 255 * torch.tensor([0.4488, 0.4371, 0.4040]))
    assert torch.allclose(net.add_mean(shifted), grey)


@pytest.mark.parametrize("name", ["srq_edsr4_24_x2", "edsr_mlperf_f32b5_x2", "edsr8_64_x2"])
def test_traced_network_computes_the_same(name: str) -> None:
    net = randomised(NETWORKS[name].factory(), 5)
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    assert torch.equal(fx.symbolic_trace(net)(x), net(x))


def test_the_default_is_embedded() -> None:
    assert NETWORKS[DEFAULT_NETWORK].embedded
