"""Weights whose shapes do not tell their scale, under the right name and under the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from srq_hw.errors import InputError
from srq_hw.evaluate.resize import downscale_exact
from srq_hw.networks.checkpoint import build_network, read_state_dict
from srq_hw.networks.loading import load_network
from srq_hw.networks.registry import NETWORKS
from srq_hw.networks.scalecheck import better_scale, gain, hard_edges

State = dict[str, Tensor]


def test_the_picture_and_the_measure() -> None:
    picture = hard_edges()
    assert picture.shape == (96, 96) and 0.05 <= picture.min() < picture.max() <= 0.9
    # An untrained IDN with a zero kernel is its bicubic skip.
    for scale in (2, 3, 4):
        info = NETWORKS[f"idn_rgb_x{scale}"]
        net = info.factory(torch_bicubic=False).eval()
        with torch.no_grad():
            net.get_parameter("upsample.weight").zero_()
            net.get_parameter("upsample.bias").zero_()
            assert gain(net, info) == pytest.approx(0, abs=1e-4)
            net.get_parameter("upsample.bias").fill_(0.1)
            assert gain(net, info) < -1


@pytest.fixture(scope="module")
def fsrcnn_x4() -> State:
    """A few seconds of training on the picture itself; the published form, with a 9x9 kernel."""
    torch.manual_seed(0)
    net = NETWORKS["fsrcnn_x4"].factory()
    wanted = torch.from_numpy(hard_edges()).float()[None, None]
    small = torch.from_numpy(downscale_exact(hard_edges(), 4)).float()[None, None]
    kernel = net.get_parameter("last_part.weight")
    mask = torch.zeros_like(kernel)
    mask[..., :9, :9] = 1
    with torch.no_grad():
        kernel.mul_(mask)
    kernel.register_hook(lambda gradient: gradient * mask)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=400, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = (net(small) - wanted).square().mean()
        error.backward()
        return error

    optimizer.step(loss)
    return {**net.state_dict(), "last_part.weight": kernel.detach()[..., :9, :9].clone()}


def test_fsrcnn_under_another_scale_is_refused(fsrcnn_x4: State, tmp_path: Path) -> None:
    torch.save(fsrcnn_x4, tmp_path / "a.pth")
    load_network("fsrcnn_x4", tmp_path / "a.pth")
    for scale in (2, 3):
        message = rf"a\.pth: not the weights of fsrcnn_x{scale}: .* enlarge by 4, not by {scale}; name fsrcnn_x4"
        with pytest.raises(InputError, match=message):
            load_network(f"fsrcnn_x{scale}", tmp_path / "a.pth")


def test_weights_that_enlarge_at_no_scale_are_loaded(fsrcnn_x4: State, tmp_path: Path) -> None:
    dull = {key: value * 0.1 for key, value in fsrcnn_x4.items()}
    torch.save(dull, tmp_path / "a.pth")
    for scale in (2, 3, 4):
        build_network(NETWORKS[f"fsrcnn_x{scale}"], {}, tmp_path / "a.pth")


def test_a_kernel_that_we_saved_has_the_shape_of_its_scale(fsrcnn_x4: State, tmp_path: Path) -> None:
    torch.save(fsrcnn_x4, tmp_path / "a.pth")
    wide = load_network("fsrcnn_x4", tmp_path / "a.pth").module.state_dict()
    assert better_scale(NETWORKS["fsrcnn_x4"], wide, {}) is None
    torch.save(wide, tmp_path / "b.pth")
    with pytest.raises(InputError, match=r"1 wrong shapes .*the file fits network fsrcnn_x4"):
        load_network("fsrcnn_x2", tmp_path / "b.pth")


@pytest.mark.data
@pytest.mark.parametrize("own", [2, 4])
def test_published_idn_under_another_scale_is_refused(own: int, shared_data: Path) -> None:
    path = shared_data / "weights" / f"idn_y_x{own}.pth"
    load_network(f"idn_y_x{own}", path)
    for scale in {2, 3, 4} - {own}:
        with pytest.raises(InputError, match=rf"not the weights of idn_y_x{scale}: .*; name idn_y_x{own}$"):
            load_network(f"idn_y_x{scale}", path)


@pytest.mark.data
@pytest.mark.parametrize("own", [2, 4])
def test_idn_with_noise_in_its_weights_stays_loadable(own: int, shared_data: Path) -> None:
    state = read_state_dict(shared_data / "weights" / f"idn_y_x{own}.pth")
    generator = torch.Generator().manual_seed(1)
    for share in (0.05, 0.2, 1.0):
        noisy = {
            key: value + share * value.std(correction=0) * torch.randn(value.shape, generator=generator)
            for key, value in state.items()
        }
        assert better_scale(NETWORKS[f"idn_y_x{own}"], noisy, {}) is None
