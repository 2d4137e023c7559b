"""Every registered network: its size, its shape, that torch.fx traces it; and what each family computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from srq_hw.networks.abpn import Abpn
from srq_hw.networks.bicubic import BicubicUpsample
from srq_hw.networks.carn import Carn
from srq_hw.networks.espcn import Espcn
from srq_hw.networks.fsrcnn import Fsrcnn
from srq_hw.networks.idn import Idn, TorchBicubic
from srq_hw.networks.msrresnet import MsrResNet
from srq_hw.networks.registry import NETWORKS
from srq_hw.networks.rnet import RNet
from srq_hw.networks.srresnet import SrResNet, SrResNetShared
from srq_hw.networks.xlsr import Xlsr

# Published counts where there are any; 24 more where a network has its two mean shifts as 1x1 convolutions.
PARAMETERS = {
    "srq_edsr4_24_x2": 50_148,
    "edsr_mlperf_f32b5_x2": 106_092,
    "edsr8_64_x2": 779_011,
    "rnet9_64_x2": 962_459 - 147_712,  # one stage to 256 channels less
    "rnet9_64_x3": 962_459 - 2 * 147_712 + 332_352,
    "rnet9_64_x4": 962_459,
    "srresnet8_bn_x2": 957_251 - 147_712 - 64,
    "srresnet8_bn_x3": 957_251 - 2 * 147_712 - 64 + 332_352,
    "srresnet8_bn_x4": 957_251,
    "edsr_baseline_x2": 1_369_859 + 24,
    "edsr_baseline_x3": 1_554_499 + 24,
    "edsr_baseline_x4": 1_517_571 + 24,
    "edsr_x2": 40_729_603 + 24,
    "edsr_x3": 43_680_003 + 24,
    "edsr_x4": 43_089_923 + 24,
    "msrresnet_x2": 1_369_859,
    "msrresnet_x3": 1_554_499,
    "msrresnet_x4": 1_517_571,
    "srresnet_x2": 1_399_298,
    "srresnet_x3": 1_399_298 - 147_456 + 331_776,
    "srresnet_x4": 1_546_755,
    "carn_x2": 964_163 + 24,
    "carn_x3": 1_148_803 + 24,
    "carn_x4": 1_111_875 + 24,
    "carn_m_x2": 414_787 - 83_520 - 74_240 + 24,
    "carn_m_x3": 414_787 - 37_120 - 74_240 + 24,
    "carn_m_x4": 414_787 - 37_120 - 83_520 + 24,
    **{f"idn_y_x{s}": 552_769 + 64 * (2 * 17 * (s - 1) + (s - 1) ** 2) for s in (2, 3, 4)},
    **{f"idn_rgb_x{s}": 590_915 + 192 * (2 * 17 * (s - 1) + (s - 1) ** 2) for s in (2, 3, 4)},
    **{f"fsrcnn_x{s}": 12_809 + 56 * (2 * 9 * (s - 1) + (s - 1) ** 2) for s in (2, 3, 4)},
    "espcn_x2": 21_284,
    "espcn_x3": 22_729,
    "espcn_x4": 24_752,
    "abpn_x2": 33_464,
    "abpn_x3": 42_539,
    "abpn_x4": 62_048,
    "xlsr_x2": 17_612,
    "xlsr_x3": 21_947,
    "xlsr_x4": 28_016,
}

LEAVES = {
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.PixelShuffle,
    BicubicUpsample,
}


class Tracer(fx.Tracer):
    """torch.fx with the bicubic layer left whole, as the quantizer wants it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, BicubicUpsample) or super().is_leaf_module(m, module_qualified_name)


def on_paper(name: str) -> nn.Module:
    with torch.device("meta"):
        return NETWORKS[name].factory().eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_parameter_count(name: str) -> None:
    assert sum(p.numel() for p in on_paper(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_shape_and_trace(name: str) -> None:
    info, net = NETWORKS[name], on_paper(name)
    x = torch.zeros(1, info.channels, 8, 9, device="meta")
    assert net(x).shape == (1, info.channels, 8 * info.scale, 9 * info.scale)
    graph = Tracer().trace(net)
    modules = dict(net.named_modules())
    called = {type(modules[str(n.target)]) for n in graph.nodes if n.op == "call_module"}
    assert called <= LEAVES
    functions = {n.target.__name__ for n in graph.nodes if n.op == "call_function"}
    assert functions <= {"add", "mul", "cat", "getitem", "clamp", "interpolate"}
    assert not [n for n in graph.nodes if n.op == "call_method"]


def test_names_and_info_agree() -> None:
    for name, info in NETWORKS.items():
        assert info.name == name
        assert name.endswith(f"x{info.scale}")
        assert info.channels == (1 if name.startswith(("idn_y", "fsrcnn", "espcn")) else 3)


# --- formulas, written out once more with torch functions on the state dict ---------------------------------------


def randomised(net: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in net.state_dict(keep_vars=True).items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator)
                value.copy_(0.5 + noise if key.endswith("running_var") else (noise - 0.5) * 0.4)
    return net.eval()


class Calculator:
    """Layers by key, as functions."""

    def __init__(self, net: nn.Module) -> None:
        self.s = net.state_dict()

    def conv(self, x: Tensor, key: str, groups: int = 1) -> Tensor:
        weight = self.s[f"{key}.weight"]
        return F.conv2d(x, weight, self.s.get(f"{key}.bias"), padding=weight.shape[-1] // 2, groups=groups)

    def norm(self, x: Tensor, key: str) -> Tensor:
        parts = [
            self.s[f"{key}.{part}"].reshape(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        ]
        return (x - parts[0]) / (parts[1] + 1e-5).sqrt() * parts[2] + parts[3]

    def prelu(self, x: Tensor, key: str) -> Tensor:
        return x.clamp(min=0) + self.s[f"{key}.weight"].reshape(-1, 1, 1) * x.clamp(max=0)


def leaky(x: Tensor, slope: float) -> Tensor:
    return torch.maximum(x, slope * x)


def check(
    net: nn.Module, formula: Callable[[Calculator, Tensor], Tensor], channels: int = 3, white: float = 1.0
) -> None:
    net = randomised(net.double(), 3)
    x = torch.rand(2, channels, 7, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * white
    expected = formula(Calculator(net), x)
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(net(x), expected, rtol=1e-10, atol=1e-10 * white)


@pytest.mark.parametrize("act_after_up", [True, False])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_msrresnet(scale: int, act_after_up: bool) -> None:
    def formula(c: Calculator, x: Tensor) -> Tensor:
        y = leaky(c.conv(x, "conv_first"), 0.1)
        for i in range(2):
            y = y + c.conv(c.conv(y, f"body.{i}.conv1").clamp(min=0), f"body.{i}.conv2")
        for key in ("upconv1", "upconv2")[: 2 if scale == 4 else 1]:
            y = F.pixel_shuffle(c.conv(y, key), 3 if scale == 3 else 2)
            y = leaky(y, 0.1) if act_after_up else y
        y = c.conv(leaky(c.conv(y, "conv_hr"), 0.1), "conv_last")
        return y + F.interpolate(x, size=(7 * scale, 6 * scale), mode="bilinear", align_corners=False)

    check(MsrResNet(4, 2, scale, act_after_up), formula)


@pytest.mark.parametrize(("scale", "per_layer"), [(2, False), (3, True), (4, False), (4, True)])
def test_shared_srresnet(scale: int, per_layer: bool) -> None:
    def formula(c: Calculator, x: Tensor) -> Tensor:
        h = c.prelu(c.conv(x, "head.0"), "head.1")
        y = h
        for i in range(2):
            slope = f"body.{i}.act" if per_layer else "head.1"
            z = c.prelu(c.norm(c.conv(y, f"body.{i}.conv1"), f"body.{i}.bn1"), slope)
            y = y + c.norm(c.conv(z, f"body.{i}.conv2"), f"body.{i}.bn2")
        y = c.norm(c.conv(y, "body.2"), "body.3") + h
        for at in range(0, 6 if scale == 4 else 3, 3):
            y = c.prelu(F.pixel_shuffle(c.conv(y, f"tail.0.{at}"), 3 if scale == 3 else 2), f"tail.0.{at + 2}")
        return c.conv(y, "tail.1")

    net = SrResNetShared(4, 2, scale, per_layer)
    check(net, formula)
    slopes = {float(net.state_dict()[key]) for key in ("head.1.weight", "body.0.act.weight", "body.1.act.weight")}
    assert len(slopes) == (3 if per_layer else 1)


@pytest.mark.parametrize(("scale", "per_layer"), [(2, True), (3, False), (4, False), (4, True)])
def test_srresnet_with_slopes_at_every_place(scale: int, per_layer: bool) -> None:
    def formula(c: Calculator, x: Tensor) -> Tensor:
        h = c.prelu(c.conv(x, "head"), "ha")
        z = c.prelu(c.norm(c.conv(h, "body.0.c1"), "body.0.b1"), "body.0.a")
        y = h + c.norm(c.conv(z, "body.0.c2"), "body.0.b2")
        y = c.norm(c.conv(y, "tail"), "tb") + h
        for i in ("1", "2")[: 2 if scale == 4 else 1]:
            y = c.prelu(F.pixel_shuffle(c.conv(y, f"up{i}"), 3 if scale == 3 else 2), f"a{i}")
        return c.conv(y, "last") * 0.5 + 0.5

    net = SrResNet(4, 1, scale, per_layer)
    assert net.state_dict()["body.0.a.weight"].shape == (1 if per_layer else 4,)
    check(net, formula)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_rnet(scale: int) -> None:
    def formula(c: Calculator, x: Tensor) -> Tensor:
        h = c.conv(c.conv(x, "sub_mean.shifter"), "entry")
        y = h
        for i in range(2):
            y = (y + c.conv(c.conv(y, f"blocks.{i}.body.0").clamp(min=0), f"blocks.{i}.body.2")).clamp(min=0)
        y = y + h
        for at in (0, 3)[: 2 if scale == 4 else 1]:
            y = F.pixel_shuffle(c.conv(y, f"upsamplex{scale}.body.{at}").clamp(min=0), 3 if scale == 3 else 2)
        return c.conv(c.conv(y, "exit"), "add_mean.shifter")

    check(RNet(4, 2, scale), formula)


@pytest.mark.parametrize(("scale", "groups"), [(2, 1), (3, 1), (4, 1), (4, 2)])
def test_carn(scale: int, groups: int) -> None:
    def block(c: Calculator, x: Tensor, b: str, i: int) -> Tensor:
        if groups == 1:
            return (x + c.conv(c.conv(x, f"{b}.b{i}.body.0").clamp(min=0), f"{b}.b{i}.body.2")).clamp(min=0)
        y = c.conv(c.conv(x, f"{b}.b1.body.0", groups).clamp(min=0), f"{b}.b1.body.2", groups).clamp(min=0)
        return (x + c.conv(y, f"{b}.b1.body.4")).clamp(min=0)

    def inner(c: Calculator, x: Tensor, b: str) -> Tensor:
        o1 = c.conv(torch.cat([x, block(c, x, b, 1)], 1), f"{b}.c1.body.0").clamp(min=0)
        o2 = c.conv(torch.cat([x, block(c, x, b, 1), block(c, o1, b, 2)], 1), f"{b}.c2.body.0").clamp(min=0)
        parts = [x, block(c, x, b, 1), block(c, o1, b, 2), block(c, o2, b, 3)]
        return c.conv(torch.cat(parts, 1), f"{b}.c3.body.0").clamp(min=0)

    def formula(c: Calculator, x: Tensor) -> Tensor:
        h = c.conv(c.conv(x, "sub_mean.shifter"), "entry")
        b1 = inner(c, h, "b1")
        b2 = inner(c, c.conv(torch.cat([h, b1], 1), "c1.body.0").clamp(min=0), "b2")
        b3 = inner(c, c.conv(torch.cat([h, b1, b2], 1), "c2.body.0").clamp(min=0), "b3")
        y = c.conv(torch.cat([h, b1, b2, b3], 1), "c3.body.0").clamp(min=0)
        for at, factor in {2: [(0, 2)], 3: [(0, 3)], 4: [(0, 2), (3, 2)]}[scale]:
            y = F.pixel_shuffle(c.conv(y, f"upsample.up{scale}.body.{at}", groups).clamp(min=0), factor)
        return c.conv(c.conv(y, "exit"), "add_mean.shifter")

    check(Carn(scale, groups, features=4), formula)


@pytest.mark.parametrize(("scale", "channels", "variant"), [(2, 1, True), (3, 1, True), (4, 3, False)])
def test_idn(scale: int, channels: int, variant: bool) -> None:
    def chain(c: Calculator, x: Tensor, key: str) -> Tensor:
        for at, groups in ((0, 1), (2, 4), (4, 1)):
            x = leaky(c.conv(x, f"{key}.{at}", groups), 0.05)
        return x

    def formula(c: Calculator, x: Tensor) -> Tensor:
        y = leaky(c.conv(leaky(c.conv(x, "feature.0"), 0.05), "feature.2"), 0.05)
        for i in range(4):
            t = chain(c, y, f"blocks.{i}.first")
            kept, sent = (t[:, :16], t[:, 16:]) if variant else (t[:, 48:], t[:, :48])
            y = c.conv(torch.cat([y, kept], 1) + chain(c, sent, f"blocks.{i}.second"), f"blocks.{i}.compress")
            y = leaky(y, 0.05) if variant else y
        up = F.conv_transpose2d(y, c.s["upsample.weight"], c.s["upsample.bias"], stride=scale, padding=8)
        skip: nn.Module = BicubicUpsample(scale) if variant else TorchBicubic(scale)
        return up + skip.double()(x)

    check(Idn(scale, channels, variant, variant, not variant), formula, channels)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_fsrcnn(scale: int) -> None:
    def formula(c: Calculator, x: Tensor) -> Tensor:
        y = c.prelu(c.conv(x, "first_part.0"), "first_part.1")
        for at in range(0, 12, 2):
            y = c.prelu(c.conv(y, f"mid_part.{at}"), f"mid_part.{at + 1}")
        return F.conv_transpose2d(y, c.s["last_part.weight"], c.s["last_part.bias"], stride=scale, padding=4)

    check(Fsrcnn(scale), formula, channels=1)


@pytest.mark.parametrize("act", ["relu", "tanh"])
def test_espcn(act: str) -> None:
    f = {"relu": torch.relu, "tanh": torch.tanh}[act]

    def formula(c: Calculator, x: Tensor) -> Tensor:
        return F.pixel_shuffle(c.conv(f(c.conv(f(c.conv(x, "conv1")), "conv2")), "conv3"), 3)

    check(Espcn(3, act), formula, channels=1)
    with pytest.raises(ValueError, match="act 'gelu'; allowed are relu, tanh"):
        Espcn(3, "gelu")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_abpn_adds_the_repeated_image(scale: int) -> None:
    def formula(c: Calculator, x: Tensor) -> Tensor:
        y = x
        for at in range(0, 12, 2):
            y = c.conv(y, f"body.{at}").clamp(min=0)
        y = F.pixel_shuffle(c.conv(y, "body.12"), scale)
        return (y + F.interpolate(x, scale_factor=scale, mode="nearest")).clamp(0, 255)

    check(Abpn(scale), formula, white=255.0)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_xlsr_is_clipped(scale: int) -> None:
    def formula(c: Calculator, x: Tensor) -> Tensor:
        y = c.conv(c.conv(x, "head.0").clamp(min=0), "head.2")
        for i in range(3):
            y = c.conv(c.conv(y, f"body.{i}.spatial", 4).clamp(min=0), f"body.{i}.mix")
        y = c.conv(torch.cat([y, c.conv(x, "residual")], 1), "fuse").clamp(min=0)
        return F.pixel_shuffle(c.conv(y, "last"), scale).clamp(0, 1)

    check(Xlsr(scale), formula)
