"""The EDSR networks: their parameter counts, their formula, and that torch.fx can trace them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from srq_hw.networks.edsr import Edsr, EdsrMeanShift
from srq_hw.networks.registry import DEFAULT_NETWORK, NETWORKS

PARAMETERS = {"srq_edsr4_24_x2": 50_148, "edsr_mlperf_f32b5_x2": 106_092, "edsr8_64_x2": 779_011}


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


@pytest.mark.parametrize("name", NETWORKS)
def test_parameter_count(name: str) -> None:
    assert sum(p.numel() for p in NETWORKS[name].factory().parameters()) == PARAMETERS[name]


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


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_trace_to_standard_operations(name: str) -> None:
    net = randomised(NETWORKS[name].factory(), 5)
    traced = fx.symbolic_trace(net)
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    assert torch.equal(traced(x), net(x))
    modules = dict(traced.named_modules())
    called = {type(modules[str(n.target)]) for n in traced.graph.nodes if n.op == "call_module"}
    assert called == {nn.Conv2d, nn.ReLU, nn.PixelShuffle}
    functions = {n.target.__name__ for n in traced.graph.nodes if n.op == "call_function"}
    assert functions <= {"add", "mul"}
    assert not [n for n in traced.graph.nodes if n.op == "call_method"]


def test_table_is_consistent() -> None:
    assert NETWORKS[DEFAULT_NETWORK].embedded
    for name, info in NETWORKS.items():
        assert info.name == name
        assert info.factory()(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 8 * info.scale, 8 * info.scale)
