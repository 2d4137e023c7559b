"""load_network and run_float, with embedded, listed and user-made networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from srq_hw.errors import InputError
from srq_hw.evaluate.colour import unrounded_luma
from srq_hw.evaluate.datasets import iter_pairs
from srq_hw.evaluate.metrics import psnr_y
from srq_hw.networks.checkpoint import sha256_of
from srq_hw.networks.loading import FloatNetwork, load_network, run_float, run_levels
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


def luma_only():
    net = nn.Upsample(scale_factor=2, mode="nearest")
    net.srq_channels = 1
    return net


def four_channels():
    net = Repeat(2)
    net.srq_channels = 4
    return net


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
        ("{}:four_channels", "srq_channels is 4; allowed are 3 .RGB. and 1 .Y."),
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


def test_a_user_network_may_see_luma_only(user_module: str) -> None:
    net = load_network(f"{user_module}:luma_only")
    assert (net.scale, net.channels) == (2, 1)
    image = small_image()[..., :1]
    assert np.array_equal(run_float(net, image), image.repeat(2, axis=0).repeat(2, axis=1))
    with pytest.raises(ValueError, match=r"wants a uint8 image \(H, W, 1\)"):
        run_float(net, small_image())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("edsr_x2+res_scal=1", r"edsr_x2, option 'res_scal=1': unknown .did you mean 'res_scale'.*input_max="),
        ("edsr_x2+res_scale", "option 'res_scale': unknown"),
        ("edsr_x2+res_scale=fast", "option res_scale: 'fast'; allowed is a number above 0"),
        ("edsr_x2+res_scale=0", "allowed is a number above 0"),
        ("edsr_x2+res_scale=1+res_scale=2", "option res_scale: given twice"),
        ("idn_rgb_x2+slice_first=maybe", "option slice_first: 'maybe'; allowed are true and false"),
        ("espcn_x2+act=gelu", "option act: 'gelu'; allowed are relu, tanh"),
    ],
)
def test_wrong_option(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_network(spec)


def test_options_change_the_network(tmp_path: Path) -> None:
    torch.save(NETWORKS["idn_rgb_x2"].factory().state_dict(), tmp_path / "a.pth")
    plain = load_network("idn_rgb_x2", tmp_path / "a.pth")
    other = load_network("idn_rgb_x2+slice_first=true+act_after_1x1=yes+input_max=255", tmp_path / "a.pth")
    assert [block.slice_first for block in plain.module.blocks] == [False] * 4  # type: ignore[union-attr]
    assert [block.slice_first for block in other.module.blocks] == [True] * 4  # type: ignore[union-attr]
    assert (plain.input_max, other.input_max) == (1.0, 255.0)
    assert other.name == "idn_rgb_x2+slice_first=true+act_after_1x1=yes+input_max=255"


#: PSNR-Y of bird.png and woman.png; over the whole of Set5 the same code gives the published figure (docs/networks.md)
FIGURES = {
    "edsr8_64_x2": (43.0048, 36.3102),
    "edsr_mlperf_f32b5_x2": (42.3196, 35.954),
    "rnet9_64_x4": (34.33, 30.5582),
    "srresnet8_bn_x4": (34.616, 30.384),
    "carn_x2": (43.167, 36.3384),
    "carn_m_x2": (42.8921, 36.1666),
    "carn_m_x3": (37.5304, 32.5508),
    "carn_m_x4": (34.4239, 30.4276),
    "idn_y_x2": (42.96, 36.3465),
    "idn_y_x4": (34.1142, 30.7002),
}
TWO = ("bird", "woman")


def two_image_psnr(net: FloatNetwork, folder: Path) -> list[float]:
    found = []
    for p in iter_pairs(folder, net.scale):
        if p.name in TWO:
            seen = p.lr if net.channels == 3 else unrounded_luma(p.hr, net.scale)
            found.append(psnr_y(run_levels(net, seen), p.hr, net.scale))
    return found


@pytest.mark.data
@pytest.mark.parametrize("name", FIGURES)
def test_published_weights_reach_their_figures(shared_data: Path, name: str) -> None:
    file = "carn_m_x2x3x4" if name.startswith("carn_m") else name
    net = load_network(name, shared_data / "weights" / f"{file}.pth")
    assert two_image_psnr(net, shared_data / "Set5") == pytest.approx(FIGURES[name], abs=0.002)


@pytest.mark.data
def test_the_smallest_network_reaches_its_published_mean(shared_data: Path) -> None:
    net = load_network("edsr_mlperf_f32b5_x2", shared_data / "weights" / "edsr_mlperf_f32b5_x2.pth")
    found = [psnr_y(run_float(net, p.lr), p.hr, 2) for p in iter_pairs(shared_data / "Set5", 2)]
    assert float(np.mean(found)) == pytest.approx(37.377, abs=0.002)


@pytest.mark.data
def test_default_network_is_good_on_set5(shared_data: Path) -> None:
    found = [psnr_y(run_float(load_network(), p.lr), p.hr, 2) for p in iter_pairs(shared_data / "Set5", 2)]
    assert float(np.mean(found)) >= 36.6
