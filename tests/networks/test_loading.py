"""load_network and run_float, with embedded, listed and user-made networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from srq_hw.errors import InputError
from srq_hw.evaluate.datasets import iter_pairs
from srq_hw.evaluate.metrics import psnr_y
from srq_hw.networks.checkpoint import sha256_of
from srq_hw.networks.loading import FloatNetwork, load_network, run_float
from srq_hw.networks.registry import DEFAULT_NETWORK, NETWORKS

USER_MODULE = """
import torch
from torch import nn


class Repeat(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.up = nn.Upsample(scale_factor=scale, mode="nearest")
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.up(x * self.gain)


def triple():
    return Repeat(3)


def wide_range():
    net = Repeat(2)
    net.srq_input_max = 255.0
    return net


def bad_range():
    net = Repeat(2)
    net.srq_input_max = "white"
    return net


def fails():
    raise RuntimeError("no such mood\\nsecond line")


def no_module():
    return 3


def shrinks():
    return nn.AvgPool2d(2)


def one_channel():
    return nn.Conv2d(3, 1, 3, padding=1)


def wants_grey():
    return nn.Conv2d(1, 1, 3)


number = 7
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"user_net_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(USER_MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def small_image() -> np.ndarray:
    return np.random.default_rng(8).integers(0, 256, (9, 12, 3), dtype=np.uint8)


def test_default_network() -> None:
    net = load_network()
    assert (net.name, net.scale, net.input_max) == (DEFAULT_NETWORK, 2, 1.0)
    assert not net.module.training
    assert not any(p.requires_grad for p in net.module.parameters())
    assert sum(p.numel() for p in net.module.parameters()) <= 60_000
    assert net.weights_sha256 is not None
    assert len(net.weights_sha256) == 64
    assert load_network(DEFAULT_NETWORK).weights_sha256 == net.weights_sha256
    out = run_float(net, small_image())
    assert out.shape == (18, 24, 3)
    assert out.dtype == np.uint8


def test_embedded_network_takes_other_weights(tmp_path: Path) -> None:
    state = NETWORKS[DEFAULT_NETWORK].factory().state_dict()
    torch.save({key: torch.full_like(value, 0.01) for key, value in state.items()}, tmp_path / "mine.pth")
    net = load_network(DEFAULT_NETWORK, tmp_path / "mine.pth")
    assert net.source == str(tmp_path / "mine.pth")
    assert net.weights_sha256 == sha256_of(tmp_path / "mine.pth")
    assert all(bool((p == 0.01).all()) for p in net.module.parameters())


def test_listed_network_needs_weights() -> None:
    with pytest.raises(InputError, match=r"edsr8_64_x2: no weights given; .*krasserm"):
        load_network("edsr8_64_x2")


def test_unknown_name() -> None:
    with pytest.raises(
        InputError, match=r"'edsr': unknown.*; allowed are srq_edsr4_24_x2, .*pkg\.module:factory, .*\.qonnx"
    ):
        load_network("edsr")


def test_user_network(user_module: str) -> None:
    net = load_network(f"{user_module}:triple")
    assert (net.scale, net.input_max, net.weights_sha256) == (3, 1.0, None)
    image = small_image()
    assert np.array_equal(run_float(net, image), image.repeat(3, axis=0).repeat(3, axis=1))


def test_user_network_with_weights_and_range(user_module: str, tmp_path: Path) -> None:
    torch.save({"gain": torch.tensor([0.5])}, tmp_path / "w.pt")
    net = load_network(f"{user_module}:wide_range", tmp_path / "w.pt")
    assert net.input_max == 255.0
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    # Halves tie: numpy's rint rounds ties to even as well.
    expected = np.rint(image * 0.5).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(run_float(net, image), expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_package_here:make", "importing no_such_package_here failed .ModuleNotFoundError"),
        ("{}:absent", "has no callable 'absent'"),
        ("{}:number", "has no callable 'number'"),
        (":make", "not of the form"),
        ("{}:", "not of the form"),
        ("{}:fails", r"the factory failed \(RuntimeError: no such mood\)"),
        ("{}:no_module", "returned a int"),
        ("{}:bad_range", "srq_input_max is 'white'"),
        ("{}:shrinks", r"gave \(1, 3, 8, 8\); allowed is"),
        ("{}:one_channel", r"gave \(1, 1, 16, 16\)"),
        ("{}:wants_grey", r"running it on a \(1, 3, 16, 16\) input failed \(RuntimeError"),
    ],
)
def test_wrong_user_network(user_module: str, spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_network(spec.format(user_module))


class Constant(nn.Module):
    """Gives the same value everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


def constant_network(value: float, input_max: float = 255.0) -> FloatNetwork:
    return FloatNetwork("constant", Constant(value), 1, input_max, "test", None)


@pytest.mark.parametrize(
    ("value", "level"), [(0.5, 0), (1.5, 2), (2.5, 2), (254.5, 254), (255.6, 255), (300.0, 255), (-0.6, 0), (-40.0, 0)]
)
def test_output_is_rounded_half_to_even_and_clipped(value: float, level: int) -> None:
    assert np.all(run_float(constant_network(value), small_image()) == level)


@pytest.mark.parametrize("input_max", [1.0, 255.0])
def test_every_grey_level_survives_the_scaling(input_max: float) -> None:
    image = np.arange(768, dtype=np.int64).reshape(16, 16, 3) % 256
    net = FloatNetwork("identity", nn.Identity(), 1, input_max, "test", None)
    assert np.array_equal(run_float(net, image.astype(np.uint8)), image)


def test_output_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="constant: the output holds NaN or Inf"):
        run_float(constant_network(float("nan")), small_image())


def test_run_float_refuses_other_arrays() -> None:
    with pytest.raises(ValueError, match="run_float wants"):
        run_float(constant_network(1.0), small_image()[..., 0])
    with pytest.raises(ValueError, match="run_float wants"):
        run_float(constant_network(1.0), small_image() / 255.0)


def mean_psnr(net: FloatNetwork, folder: Path) -> float:
    return float(np.mean([psnr_y(run_float(net, p.lr), p.hr, net.scale) for p in iter_pairs(folder, net.scale)]))


@pytest.mark.data
@pytest.mark.parametrize(("name", "psnr"), [("edsr8_64_x2", 37.801), ("edsr_mlperf_f32b5_x2", 37.377)])
def test_published_weights_reach_their_figure(shared_data: Path, name: str, psnr: float) -> None:
    net = load_network(name, shared_data / "weights" / f"{name}.pth")
    assert mean_psnr(net, shared_data / "Set5") == pytest.approx(psnr, abs=0.002)


@pytest.mark.data
def test_default_network_is_good_on_set5(shared_data: Path) -> None:
    assert mean_psnr(load_network(), shared_data / "Set5") >= 36.6
