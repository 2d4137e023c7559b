"""Published key names: each naming there and back, and what it implies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srq_hw.errors import InputError
from srq_hw.networks.checkpoint import build_network
from srq_hw.networks.converters import renamed, widen
from srq_hw.networks.edsr import EdsrOfficial
from srq_hw.networks.msrresnet import MsrResNet
from srq_hw.networks.registry import NETWORKS
from srq_hw.networks.srresnet import SrResNet, SrResNetShared

State = dict[str, Tensor]


def noise(net: nn.Module, seed: int = 1) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(v.shape, generator=generator) * 0.05 for k, v in net.state_dict().items()}


def spelt(state: State, *pairs: tuple[str, str]) -> State:
    """Keys with the first pair that matches applied."""
    found = {}
    for key, value in state.items():
        for old, new in pairs:
            if re.match(old, key):
                key = re.sub(old, new, key)
                break
        found[key] = value
    return found


def load(name: str, state: State, folder: Path, options: dict[str, object] | None = None) -> nn.Module:
    torch.save(state, folder / "a.pth")
    return build_network(NETWORKS[name], options or {}, folder / "a.pth")


def assert_holds(net: nn.Module, state: State) -> None:
    found = net.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize(("scale", "blocks", "features"), [(2, 3, 8), (3, 1, 6), (4, 2, 4)])
def test_edsr_in_both_namings_at_any_size(tmp_path: Path, scale: int, blocks: int, features: int) -> None:
    state = noise(EdsrOfficial(features, blocks, scale))
    net = load(f"edsr_baseline_x{scale}", state, tmp_path)
    assert isinstance(net, EdsrOfficial)
    assert_holds(net, state)
    theirs = spelt(
        {key: value for key, value in state.items() if "mean" not in key},
        (r"head\.0\.", "conv_first."),
        (r"body\.(\d+)\.body\.0\.", r"body.\1.conv1."),
        (r"body\.(\d+)\.body\.2\.", r"body.\1.conv2."),
        (rf"body\.{blocks}\.", "conv_after_body."),
        (r"tail\.0\.(\d)\.", r"upsample.\1."),
        (r"tail\.1\.", "conv_last."),
    )
    assert not theirs.keys() & state.keys()
    fresh = EdsrOfficial(features, blocks, scale).state_dict()
    means = {key: value for key, value in fresh.items() if "mean" in key}
    assert_holds(load(f"edsr_baseline_x{scale}", theirs, tmp_path), {**state, **means})
    assert_holds(
        load(f"edsr_baseline_x{scale}", {"mean": torch.zeros(1, 3, 1, 1), **theirs}, tmp_path), {**state, **means}
    )


def test_residual_scale_is_the_names_and_the_users(tmp_path: Path) -> None:
    state = noise(EdsrOfficial(8, 2, 2))
    scales = [load(name, state, tmp_path).body[0].res_scale for name in ("edsr_baseline_x2", "edsr_x2")]  # type: ignore[index, union-attr]
    assert scales == [1.0, 0.1]
    assert load("edsr_x2", state, tmp_path, {"res_scale": 0.3}).body[0].res_scale == 0.3  # type: ignore[index, union-attr]


def test_published_sizes_are_not_taken_for_one_another(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the weights of edsr_x2: the file fits network edsr_baseline_x2"):
        load("edsr_x2", NETWORKS["edsr_baseline_x2"].factory().state_dict(), tmp_path)


def test_another_scale_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not the weights of edsr_baseline_x2: .*network edsr_baseline_x4"):
        load("edsr_baseline_x2", NETWORKS["edsr_baseline_x4"].factory().state_dict(), tmp_path)


def test_msrresnet_of_mmsr(tmp_path: Path) -> None:
    state = noise(MsrResNet(4, 2, 4))
    assert_holds(load("msrresnet_x4", state, tmp_path), state)
    theirs = spelt(state, (r"body\.(\d+)\.", r"recon_trunk.\1."), ("conv_hr", "HRconv"))
    assert_holds(load("msrresnet_x4", theirs, tmp_path), state)


def mmediting(state: State, *pairs: tuple[str, str]) -> State:
    """Keys of a restorer's checkpoint: the network is its generator."""
    return {f"generator.{key}": value for key, value in spelt(state, *pairs).items()}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_msrresnet_of_mmediting_has_no_activation_behind_a_shuffle(tmp_path: Path, scale: int) -> None:
    state = noise(MsrResNet(4, 2, scale))
    theirs = mmediting(
        state,
        (r"body\.(\d+)\.", r"trunk_net.\1."),
        (r"upconv(\d)\.", r"upsample\1.upsample_conv."),
    )
    torch.save({"meta": {"epoch": 1}, "state_dict": theirs}, tmp_path / "a.pth")
    net = build_network(NETWORKS[f"msrresnet_x{scale}"], {}, tmp_path / "a.pth").double()
    assert_holds(net.float(), state)
    s = {key: value.double() for key, value in state.items()}
    x = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def conv(y: Tensor, key: str) -> Tensor:
        return F.conv2d(y, s[f"{key}.weight"], s[f"{key}.bias"], padding=1)

    y = F.leaky_relu(conv(x, "conv_first"), 0.1)
    for block in range(2):
        y = y + conv(F.relu(conv(y, f"body.{block}.conv1")), f"body.{block}.conv2")
    for key in ("upconv1", "upconv2")[: 2 if scale == 4 else 1]:
        y = F.pixel_shuffle(conv(y, key), 3 if scale == 3 else 2)
    y = conv(F.leaky_relu(conv(y, "conv_hr"), 0.1), "conv_last")
    y = y + F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    torch.testing.assert_close(net.double()(x), y, rtol=1e-12, atol=1e-12)
    asked = build_network(NETWORKS[f"msrresnet_x{scale}"], {"act_after_up": True}, tmp_path / "a.pth")
    assert not torch.allclose(asked.double()(x), y)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edsr_of_mmediting_works_on_0_to_1(tmp_path: Path, scale: int) -> None:
    # multiples of 1/1024 under 1: times 255 they still fit into float32, so that nothing is rounded
    state = {k: (v * 1024).round() / 1024 for k, v in noise(EdsrOfficial(4, 2, scale)).items() if "mean" not in k}
    theirs = mmediting(
        state,
        (r"head\.0\.", "conv_first."),
        (r"body\.(\d+)\.body\.0\.", r"body.\1.conv1."),
        (r"body\.(\d+)\.body\.2\.", r"body.\1.conv2."),
        (r"body\.2\.", "conv_after_body."),
        (r"tail\.0\.0\.", "upsample.0.upsample_conv."),
        (r"tail\.0\.2\.", "upsample.1.upsample_conv."),
        (r"tail\.1\.", "conv_last."),
    )
    net = load(f"edsr_baseline_x{scale}", {"state_dict": theirs}, tmp_path).double()  # type: ignore[dict-item]
    s = {key: value.double() for key, value in state.items()}
    x = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    mean = -net.get_submodule("sub_mean").bias.detach().reshape(1, 3, 1, 1) / 255  # type: ignore[operator, union-attr]
    torch.testing.assert_close(mean.flatten(), torch.tensor([0.4488, 0.4371, 0.4040]).double(), rtol=1e-6, atol=0)

    def conv(y: Tensor, key: str) -> Tensor:
        return F.conv2d(y, s[f"{key}.weight"], s[f"{key}.bias"], padding=1)

    h = conv(x - mean, "head.0")
    y = h
    for block in range(2):
        y = y + conv(F.relu(conv(y, f"body.{block}.body.0")), f"body.{block}.body.2")
    y = conv(y, "body.2") + h
    for at in (0, 2)[: 2 if scale == 4 else 1]:
        y = F.pixel_shuffle(conv(y, f"tail.0.{at}"), 3 if scale == 3 else 2)
    y = conv(y, "tail.1") + mean
    torch.testing.assert_close(net(x * 255) / 255, y, rtol=1e-12, atol=1e-12)


def shared_srresnet() -> State:
    state = noise(SrResNetShared(4, 2, 2))
    for key in state:
        if key == "head.1.weight" or key.endswith(".act.weight"):
            state[key] = torch.tensor([0.2])
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
    return state


def test_srresnet_of_cadyq_drops_its_unused_mean_shifts(tmp_path: Path) -> None:
    state = shared_srresnet()
    extra = {f"{kind}_mean.{part}": torch.zeros(3) for kind in ("sub", "add") for part in ("weight", "bias")}
    assert_holds(load("srresnet_x2", {**extra, **state}, tmp_path), state)


def test_batch_counters_may_be_absent(tmp_path: Path) -> None:
    state = {key: value for key, value in shared_srresnet().items() if not key.endswith("num_batches_tracked")}
    net = load("srresnet_x2", state, tmp_path)
    assert torch.equal(net.state_dict()["body.0.bn1.running_var"], state["body.0.bn1.running_var"])


def test_slopes_that_differ_are_one_per_layer(tmp_path: Path) -> None:
    state = shared_srresnet()
    shared = load("srresnet_x2", state, tmp_path)
    state["body.1.act.weight"] = torch.tensor([0.3])
    net = load("srresnet_x2", state, tmp_path)
    assert_holds(net, state)
    assert len({id(m) for m in shared.modules() if isinstance(m, nn.PReLU)}) == 2  # and one behind the shuffle
    assert len({id(m) for m in net.modules() if isinstance(m, nn.PReLU)}) == 4


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("per_layer", [True, False])
def test_the_slopes_of_an_srresnet_are_the_files(tmp_path: Path, scale: int, per_layer: bool) -> None:
    theirs = SrResNet(6, 3, scale, per_layer)
    state = {k: torch.tensor(3) if k.endswith("tracked") else v for k, v in noise(theirs).items()}
    state = {k: v.abs() + 0.5 if k.endswith("running_var") else v for k, v in state.items()}
    assert state["body.2.a.weight"].shape == (1 if per_layer else 6,)
    net = load(f"srresnet8_bn_x{scale}", state, tmp_path)
    assert_holds(net, state)
    theirs.load_state_dict(state)
    x = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(9))
    assert torch.equal(net.eval()(x), theirs.eval()(x))


def test_slopes_of_two_kinds_are_refused(tmp_path: Path) -> None:
    state = {**SrResNet(6, 3, 4, per_layer=True).state_dict(), "body.1.a.weight": torch.zeros(6)}
    with pytest.raises(InputError, match=r"1 wrong shapes \(body\.1\.a\.weight \(6,\) instead of \(1,\)"):
        load("srresnet8_bn_x4", state, tmp_path)


@pytest.mark.parametrize("kind", ["carn", "carn_m"])
def test_carn_of_several_scales_and_of_one(tmp_path: Path, kind: str) -> None:
    together: State = {}
    for scale in (2, 3, 4):
        together |= noise(NETWORKS[f"{kind}_x{scale}"].factory(), scale)
    for scale in (2, 3, 4):
        part = {
            k: v for k, v in together.items() if not k.startswith("upsample.") or k.startswith(f"upsample.up{scale}.")
        }
        assert_holds(load(f"{kind}_x{scale}", together, tmp_path), part)
        single = spelt(part, (rf"upsample\.up{scale}\.", "upsample.up."))
        assert_holds(load(f"{kind}_x{scale}", single, tmp_path), part)


def test_a_scale_the_file_lacks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not the weights of carn_x3: keys 2 missing .*the file fits network carn_x2"):
        load("carn_x3", noise(NETWORKS["carn_x2"].factory()), tmp_path)


# --- IDN and FSRCNN: transposed convolutions --------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_kernel_with_zeros_behind_is_an_output_padding(scale: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 3, 5, 6, generator=generator, dtype=torch.float64)
    kernel = torch.randn(3, 2, 9, 9, generator=generator, dtype=torch.float64)
    wanted = F.conv_transpose2d(x, kernel, stride=scale, padding=4, output_padding=scale - 1)
    found = F.conv_transpose2d(x, widen(kernel, 8 + scale, front=False), stride=scale, padding=4)
    assert found.shape[-2:] == (5 * scale, 6 * scale)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_kernel_with_zeros_in_front_moves_the_output(scale: int) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 3, 5, 6, generator=generator, dtype=torch.float64)
    kernel = torch.randn(3, 1, 17, 17, generator=generator, dtype=torch.float64)
    wanted = F.conv_transpose2d(x, kernel, stride=scale, padding=8)
    found = F.conv_transpose2d(x, widen(kernel, 16 + scale, front=True), stride=scale, padding=8)
    assert found.shape[-2:] == (5 * scale, 6 * scale)
    torch.testing.assert_close(found[..., scale - 1 :, scale - 1 :], wanted, rtol=1e-12, atol=1e-12)


IDN_TORCH = (
    (r"feature\.", "fblock.module."),
    (r"blocks\.(\d)\.first\.", r"dblocks.\1.enhancement_top."),
    (r"blocks\.(\d)\.second\.", r"dblocks.\1.enhancement_bottom."),
    (r"blocks\.(\d)\.compress\.", r"dblocks.\1.compression."),
    (r"upsample\.", "deconv."),
)


def idn_state(name: str) -> tuple[State, State]:
    """Our tensors with a published 17x17 kernel inside, and the published form of them (our names)."""
    state = noise(NETWORKS[name].factory())
    kernel = torch.randn(64, state["upsample.bias"].numel(), 17, 17, generator=torch.Generator().manual_seed(5))
    return state, {**state, "upsample.weight": kernel}


def test_idn_of_pytorch(tmp_path: Path) -> None:
    state, published = idn_state("idn_rgb_x4")
    net = load("idn_rgb_x4", spelt(published, *IDN_TORCH), tmp_path)
    state["upsample.weight"] = F.pad(published["upsample.weight"], (0, 3, 0, 3))
    assert_holds(net, state)
    # The naming decides the variant, also under the name whose own naming is the other one's.
    other = load("idn_y_x4", spelt(idn_state("idn_y_x4")[1], *IDN_TORCH), tmp_path)
    assert not other.blocks[0].slice_first and other.blocks[0].act is None  # type: ignore[index, union-attr]
    asked = load("idn_y_x4", spelt(idn_state("idn_y_x4")[1], *IDN_TORCH), tmp_path, {"slice_first": True})
    assert asked.blocks[0].slice_first  # type: ignore[index, union-attr]


def test_idn_of_caffe(tmp_path: Path) -> None:
    state, published = idn_state("idn_y_x3")
    pairs = [(r"feature\.0\.", "conv1."), (r"feature\.2\.", "conv2.")]
    for b in range(4):
        pairs += [(rf"blocks\.{b}\.first\.{2 * i}\.", f"conv{b + 3}_{i + 1}.") for i in range(3)]
        pairs += [(rf"blocks\.{b}\.second\.{2 * i}\.", f"conv{b + 3}_{i + 4}.") for i in range(3)]
        pairs += [(rf"blocks\.{b}\.compress\.", f"down{b + 1}.")]
    theirs = spelt(published, *pairs)
    assert {"conv1.weight", "conv6_6.bias", "down4.weight", "upsample.bias"} <= theirs.keys()
    state["upsample.weight"] = F.pad(published["upsample.weight"], (2, 0, 2, 0))
    assert_holds(load("idn_y_x3", theirs, tmp_path), state)


def test_fsrcnn_and_espcn_of_pytorch(tmp_path: Path) -> None:
    state = noise(NETWORKS["fsrcnn_x3"].factory())
    kernel = torch.randn(56, 1, 9, 9, generator=torch.Generator().manual_seed(6))
    net = load("fsrcnn_x3", {**state, "last_part.weight": kernel}, tmp_path)
    assert_holds(net, {**state, "last_part.weight": F.pad(kernel, (0, 2, 0, 2))})
    assert_holds(load("fsrcnn_x3", state, tmp_path), state)  # saved by us: wide already

    state = noise(NETWORKS["espcn_x2"].factory())
    theirs = spelt(state, ("conv1", "first_part.0"), ("conv2", "first_part.2"), ("conv3", "last_part.0"))
    net = load("espcn_x2", theirs, tmp_path)
    assert_holds(net, state)
    assert isinstance(net.act1, nn.Tanh)
    assert isinstance(load("espcn_x2", theirs, tmp_path, {"act": "relu"}).act1, nn.ReLU)


SMALL = ("rnet9", "srresnet8", "abpn", "xlsr", "idn_y", "carn_m")


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith(SMALL)])
def test_what_we_save_we_read(tmp_path: Path, name: str) -> None:
    state = noise(NETWORKS[name].factory())
    if name.startswith("srresnet"):
        state = {k: torch.tensor(1) if k.endswith("num_batches_tracked") else v for k, v in state.items()}
    assert_holds(load(name, state, tmp_path), state)


def test_renaming_leaves_unknown_keys() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert renamed({"a.3.weight": one, "b": two}, {"a.*": "c.*.d"}) == {"c.3.d.weight": one, "b": two}
