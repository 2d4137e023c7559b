"""The normal form computes what the module computes, in float64; what it cannot express is named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from srq_hw.errors import InputError
from srq_hw.networks.bicubic import BicubicUpsample
from srq_hw.normalform.normal import NormalNet, evaluate
from srq_hw.normalform.trace import normalize
from tests.quantize.nets import NETS, Forward, conv, image, network

SIDE = 11


def mean_conv(sign: float, scale: tuple[float, ...] = (1.0, 1.0, 1.0), groups: int = 1) -> nn.Conv2d:
    """The MeanShift of EDSR: a diagonal 1x1 convolution."""
    layer = nn.Conv2d(3, 3, 1, groups=groups)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor(scale))[:, :, None, None])
        layer.bias.copy_(sign * torch.tensor([114.4, 111.5, 103.0]))
    layer.keep = True
    return layer


class Means(nn.Module):
    def __init__(self, value: tuple[float, ...] = (114.4, 111.5, 103.0), sign: float = -1.0) -> None:
        super().__init__()
        self.register_buffer("value", sign * torch.tensor(value).reshape(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.value


def module_output(module: nn.Module, pixels: np.ndarray, input_max: float) -> torch.Tensor:
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].double() * (input_max / 255)
    with torch.inference_mode():
        return module.double()(x) * (255 / input_max)


def normal_output(net: NormalNet, pixels: np.ndarray) -> torch.Tensor:
    assert net.input_max == 255.0
    return evaluate(net, torch.from_numpy(pixels).permute(2, 0, 1)[None].double(), dtype=torch.float64)


def assert_same(module: nn.Module, input_max: float = 255.0, border: int = 0, clip: bool = False) -> NormalNet:
    found = network(module, input_max)
    net = normalize(found)
    assert {layer.op for layer in net.layers} <= {
        "image",
        "conv",
        "relu",
        "prelu",
        "add",
        "concat",
        "shuffle",
        "resize",
        "slice",
        "filter",
    }
    for seed in (0, 1):
        pixels = image(seed, SIDE, SIDE)
        left, right = normal_output(net, pixels), module_output(found.module, pixels, input_max)
        if clip:
            left = left.clamp(0, 255)
        assert left.shape == right.shape
        factor = right.shape[-1] // SIDE
        inside = slice(border * factor, (SIDE - border) * factor)
        left, right = left[..., inside, inside], right[..., inside, inside]
        assert left.numel() > 0 and float(right.std()) > 0
        assert float((left - right).abs().max()) < 1e-9 * float(right.abs().max() + 255)
    return net


def two(function: Callable[[nn.Module, torch.Tensor], torch.Tensor], **parts: nn.Module) -> nn.Module:
    """A function between two convolutions."""
    return Forward(lambda m, x: m.last(function(m, m.first(x))), first=conv(3, 4), last=conv(4, 3), **parts)


EXACT: dict[str, Callable[[], nn.Module]] = {
    "residual": NETS["residual"],
    "sums": NETS["sums"],
    "batch norm": lambda: two(lambda m, x: torch.relu(m.bn(x)), bn=nn.BatchNorm2d(4)),
    "batch norm without affine": lambda: two(lambda m, x: m.bn(x), bn=nn.BatchNorm2d(4, affine=False)),
    "two batch norms": lambda: two(lambda m, x: m.b(m.a(x)), a=nn.BatchNorm2d(4), b=nn.BatchNorm2d(4)),
    "batch norm behind a shuffle": lambda: Forward(
        lambda m, x: m.last(torch.relu(m.bn(F.pixel_shuffle(m.first(x), 2)))),
        first=conv(3, 12),
        bn=nn.BatchNorm2d(3),
        last=conv(3, 3),
    ),
    "res_scale": lambda: two(lambda m, x: x + m.c(torch.relu(x)).mul(0.1), c=conv(4, 4)),
    "res_scale in front": lambda: two(lambda m, x: 0.1 * m.c(x) + x, c=conv(4, 4)),
    "division": lambda: two(lambda m, x: m.c(x) / 4.0 - 3.0, c=conv(4, 4)),
    "reversed subtraction": lambda: two(lambda m, x: 5.0 - m.c(x), c=conv(4, 4)),
    "per channel constants": lambda: two(
        lambda m, x: (
            m.c(x) * torch.tensor([1.0, -2.0, 0.5, 3.0]).reshape(1, 4, 1, 1) + torch.arange(4.0).reshape(4, 1, 1)
        ),
        c=conv(4, 4),
    ),
    "per channel subtraction and division": lambda: two(
        lambda m, x: (
            m.c(x) / torch.tensor([1.0, -2.0, 0.5, 3.0]).reshape(1, 4, 1, 1) - torch.arange(4.0).reshape(4, 1, 1)
        ),
        c=conv(4, 4),
    ),
    "output affine behind a shuffle": lambda: Forward(
        lambda m, x: F.pixel_shuffle(m.a(x), 2) * torch.tensor([0.5, 2.0, -1.0]).reshape(1, 3, 1, 1) + 100.0,
        a=conv(3, 12),
    ),
    "output affine behind two shuffles": lambda: Forward(
        lambda m, x: m.s(m.s(m.a(x))) * torch.tensor([0.5, 2.0, -1.0]).reshape(1, 3, 1, 1) + 100.0,
        a=conv(3, 48),
        s=nn.PixelShuffle(2),
    ),
    "prelu behind a shuffle": lambda: Forward(
        lambda m, x: m.b(m.p(m.s(m.a(x)))), a=conv(3, 16), s=nn.PixelShuffle(2), p=nn.PReLU(4), b=conv(4, 3)
    ),
    "relu behind two shuffles": lambda: Forward(
        lambda m, x: m.b(torch.relu(m.s(m.s(m.a(x))))), a=conv(3, 32), s=nn.PixelShuffle(2), b=conv(2, 3)
    ),
    "leaky relu module": lambda: two(lambda m, x: m.l(x), l=nn.LeakyReLU(0.1)),
    "functional forms": lambda: two(
        lambda m, x: torch.add(F.relu(x), F.leaky_relu(m.c(x), negative_slope=0.2)), c=conv(4, 4)
    ),
    "arguments by name": lambda: Forward(
        lambda m, x: m.b(input=torch.cat(tensors=[F.relu(input=m.a(input=x)), m.a(x)], dim=1)),
        a=conv(3, 2),
        b=conv(4, 3),
    ),
    "functional prelu": lambda: two(lambda m, x: F.prelu(x, m.p.weight), p=nn.PReLU(4)),
    "methods": lambda: two(lambda m, x: x.relu().add(m.c(x)).contiguous(), c=conv(4, 4)),
    "clipped relu": lambda: two(lambda m, x: m.r(x) + F.relu6(m.c(x)) + x.clamp(0, 30), r=nn.ReLU6(), c=conv(4, 4)),
    "hardtanh from 0": lambda: two(lambda m, x: m.h(x) + F.hardtanh(x, 0, 9), h=nn.Hardtanh(0, 20)),
    "clipped relu behind a shuffle": lambda: Forward(
        lambda m, x: m.b(m.s(m.a(x)).clamp(0, 50)), a=conv(3, 8), s=nn.PixelShuffle(2), b=conv(2, 3)
    ),
    "slices": lambda: two(
        lambda m, x: torch.cat([x[:, 3:], m.c(x[:, :2]), x[:, -3:-1, ...], x[..., 1:3, :, :][:, 1:]], 1)[:, 1:5, :, :],
        c=conv(2, 2),
    ),
    "split, chunk and narrow": lambda: two(
        lambda m, x: torch.cat(
            [torch.split(x, [1, 3], dim=1)[1], x.split(3, 1)[1], torch.chunk(x, 3, 1)[0], x.narrow(1, 1, 2)], 1
        )[:, 2:6],
    ),
    "transposed 2x2": lambda: two(lambda m, x: m.t(x), t=nn.ConvTranspose2d(4, 4, 2, stride=2)),
    "transposed 9x9": lambda: two(lambda m, x: m.t(x), t=nn.ConvTranspose2d(4, 4, 9, 3, 4, output_padding=2)),
    "transposed 18x18 then relu": lambda: two(lambda m, x: torch.relu(m.t(x)), t=nn.ConvTranspose2d(4, 4, 18, 2, 8)),
    "transposed 20x20 without bias": lambda: two(
        lambda m, x: m.t(x) * 0.5 + 3.0, t=nn.ConvTranspose2d(4, 4, 20, 4, 8, bias=False)
    ),
    "transposed stride 1": lambda: two(lambda m, x: m.t(x), t=nn.ConvTranspose2d(4, 4, 3, padding=1)),
    "bilinear": lambda: two(lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)),
    "bicubic": lambda: two(lambda m, x: m.u(x), u=nn.Upsample(scale_factor=4, mode="bicubic")),
    "bicubic skip": lambda: Forward(
        lambda m, x: F.pixel_shuffle(m.b(torch.relu(m.a(x))), 2) + m.u(x),
        a=conv(3, 4),
        b=conv(4, 12),
        u=BicubicUpsample(2),
    ),
    "clamp as relu": lambda: two(lambda m, x: torch.clamp(x, min=0)),
    "identity and dropout": lambda: two(lambda m, x: m.i(m.d(x)), i=nn.Identity(), d=nn.Dropout(0.5)),
    "resize": lambda: two(lambda m, x: F.interpolate(x, scale_factor=3, mode="nearest")),
    "upsample module": lambda: two(lambda m, x: m.u(x), u=nn.Upsample(scale_factor=2)),
    "concat": lambda: Forward(
        lambda m, x: m.b(torch.cat([m.a(x), m.c(x)], dim=1)), a=conv(3, 3), b=conv(5, 3), c=conv(3, 2)
    ),
    "grouped": lambda: two(lambda m, x: m.g(x), g=conv(4, 4, groups=2)),
    "kernel 5 and no bias": lambda: two(lambda m, x: m.k(x), k=conv(4, 4, 5, bias=False)),
    "padding same": lambda: two(lambda m, x: m.k(x), k=nn.Conv2d(4, 4, 3, padding="same")),
    "layer used twice": lambda: two(lambda m, x: m.c(torch.relu(m.c(x))), c=conv(4, 4)),
    "dead branch": lambda: two(lambda m, x: (m.c(x), torch.relu(x))[1], c=conv(4, 4)),
    "in-place relu at the end of its input's life": lambda: two(
        lambda m, x: m.r(m.c(x)) + x, r=nn.ReLU(True), c=conv(4, 4)
    ),
    "in-place sum": lambda: two(lambda m, x: m.c(x).add_(x), c=conv(4, 4)),
    "identity affine at the end": lambda: Forward(lambda m, x: m.a(x) * 1.0 + 0.0, a=conv(3, 3)),
    "global skip of the resized image": lambda: Forward(
        lambda m, x: F.pixel_shuffle(m.a(x), 2) + F.interpolate(x, scale_factor=2), a=conv(3, 12)
    ),
}


def test_the_image_in_a_concat() -> None:
    """Possible where the image is grey levels already; another unit has no place to go and is refused."""
    module = Forward(lambda m, x: m.b(torch.cat([m.a(x), x], dim=1)), a=conv(3, 3), b=conv(6, 3))
    assert_same(module)
    with pytest.raises(InputError, match="layer cat: the image or the output is also used in the middle"):
        normalize(network(module, 1.0))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("input_max", [1.0, 255.0])
def test_same_values_everywhere(name: str, input_max: float) -> None:
    assert_same(EXACT[name](), input_max)


def double(function: Callable[[nn.Module, torch.Tensor], torch.Tensor], **parts: nn.Module) -> nn.Module:
    return Forward(
        lambda m, x: m.b(torch.relu(m.a(function(m, x)))) + 100.0 * m.unit, a=conv(3, 4), b=conv(4, 3), **parts
    )


SHIFTS: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "number": (lambda: double(lambda m, x: x - 114.25), 255.0),
    "number, unit image": (lambda: double(lambda m, x: (x - 0.4488) * 2.0), 1.0),
    "buffer": (lambda: double(lambda m, x: m.mean(x), mean=Means()), 255.0),
    "diagonal 1x1 convolution": (lambda: double(lambda m, x: m.sub(x), sub=mean_conv(-1.0)), 255.0),
    "diagonal with scale": (lambda: double(lambda m, x: m.sub(x), sub=mean_conv(-1.0, (0.5, 2.0, 1.0))), 255.0),
    "batch norm on the image": (lambda: double(lambda m, x: m.bn(x), bn=nn.BatchNorm2d(3)), 255.0),
    "negated image": (lambda: double(lambda m, x: 255.0 - x), 255.0),
    "range scaled": (lambda: double(lambda m, x: x / 127.5 - 1.0), 255.0),
    "shift undone at the end": (
        lambda: Forward(lambda m, x: m.add(m.b(m.sub(x))), sub=mean_conv(-1.0), b=conv(3, 3), add=mean_conv(1.0)),
        255.0,
    ),
    "undone behind a shuffle": (
        lambda: Forward(
            lambda m, x: m.add(F.pixel_shuffle(m.b(m.sub(x)), 2)),
            sub=mean_conv(-1.0),
            b=conv(3, 12),
            add=mean_conv(1.0),
        ),
        255.0,
    ),
    "two readers": (
        lambda: Forward(lambda m, x: (lambda y: m.a(y) + m.b(y))(x - 99.7), a=conv(3, 3), b=conv(3, 3, 1)),
        255.0,
    ),
}


@pytest.mark.parametrize("name", SHIFTS)
def test_mean_shift_in_every_spelling(name: str) -> None:
    """Equal but for the padded border, where the recentred zero is the nearest grey level (at most half off)."""
    build, input_max = SHIFTS[name]
    net = assert_same(build(), input_max, border=2)
    assert net.layers[0].offset is not None or "batch norm" in name


def test_whole_grey_level_shift_is_exact_at_the_border_too() -> None:
    net = assert_same(double(lambda m, x: x - 114.0))
    assert net.layers[0].offset == (-114, -114, -114)
    net = assert_same(double(lambda m, x: 255.0 - x))
    assert net.layers[0].offset == (-255, -255, -255)


def test_output_clamp_is_the_quantizers_business() -> None:
    for limits, input_max in (((0.0, 1.0), 1.0), ((0, 255), 255.0)):
        module = Forward(lambda m, x, limits=limits: torch.clamp(m.a(x), *limits), a=conv(3, 3))
        assert_same(module, input_max, clip=True)
        module = Forward(lambda m, x, limits=limits: F.pixel_shuffle(m.a(x).clamp(*limits), 2), a=conv(3, 12))
        assert_same(module, input_max, clip=True)


def plus_equals(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    skip = x
    x += m.c(x)
    return x + skip


USER_ERRORS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "stride": (lambda: Forward(lambda m, x: m.a(x), a=conv(3, 3, stride=2)), r"layer a: .*stride \(2, 2\)"),
    "dilation": (lambda: Forward(lambda m, x: m.a(x), a=conv(3, 3, dilation=2)), r"layer a: .*dilation"),
    "even kernel": (lambda: Forward(lambda m, x: m.a(x), a=nn.Conv2d(3, 3, 2)), r"layer a: .*even kernel"),
    "valid padding": (lambda: Forward(lambda m, x: m.a(x), a=nn.Conv2d(3, 3, 3)), r"layer a: .*padding"),
    "padding by name": (
        lambda: Forward(lambda m, x: m.a(x), a=nn.Conv2d(3, 3, 3, padding="valid")),
        r"layer a: .*padding",
    ),
    "reflect": (lambda: Forward(lambda m, x: m.a(x), a=conv(3, 3, padding_mode="reflect")), r"layer a: .*reflect"),
    "sigmoid module": (lambda: two(lambda m, x: m.s(x), s=nn.Sigmoid()), r"layer s: module Sigmoid .*supported are"),
    "tanh": (lambda: two(lambda m, x: torch.tanh(x)), r"layer tanh: function tanh"),
    "product of maps": (lambda: two(lambda m, x: x * x), r"layer mul: a product of two feature maps"),
    "difference of maps": (lambda: two(lambda m, x: x - torch.relu(x)), r"layer sub: subtraction"),
    "division by a map": (lambda: two(lambda m, x: 1.0 / x), r"layer truediv: division by"),
    "floor division": (lambda: two(lambda m, x: torch.div(x, 2, rounding_mode="floor")), r"layer div: .*rounding_mode"),
    "add with alpha": (
        lambda: two(lambda m, x: torch.add(x, m.c(x), alpha=2), c=conv(4, 4)),
        r"layer add: add with alpha",
    ),
    "constant with alpha": (lambda: two(lambda m, x: torch.add(x, 1.0, alpha=2)), r"layer add: add with alpha"),
    "sub with alpha": (lambda: two(lambda m, x: torch.sub(x, 1.0, alpha=2)), r"layer sub: sub with alpha"),
    "clamp inside": (lambda: two(lambda m, x: x.clamp(-1, 6)), r"layer clamp: clamp to \(-1\.0, 6\.0\)"),
    "clamp below 0": (lambda: two(lambda m, x: x.clamp(0, -1)), r"layer clamp: clamp to"),
    "bilinear with aligned corners": (
        lambda: two(lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)),
        r"layer interpolate: resize",
    ),
    "antialias": (
        lambda: two(lambda m, x: F.interpolate(x, scale_factor=2, mode="bicubic", antialias=True)),
        r"layer interpolate: resize with antialias",
    ),
    "area": (lambda: two(lambda m, x: F.interpolate(x, scale_factor=2, mode="area")), r"layer interpolate: resize"),
    "slice of rows": (lambda: two(lambda m, x: x[:, :, :8]), r"layer getitem: indexing by"),
    "every second channel": (lambda: two(lambda m, x: torch.cat([x[:, ::2], x], 1)[:, :4]), r"layer getitem: indexing"),
    "one channel taken out": (lambda: two(lambda m, x: x + x[:, 0]), r"layer getitem: indexing by"),
    "split of rows": (lambda: two(lambda m, x: torch.split(x, 8, 2)[0]), r"layer split: a split into"),
    "split used whole": (lambda: two(lambda m, x: torch.cat(torch.split(x, 2, 1), 1)), r"layer (cat|split)"),
    "narrow of rows": (lambda: two(lambda m, x: x.narrow(2, 0, 16)), r"layer narrow: narrow along dimension 2"),
    "transposed convolution of another size": (
        lambda: two(lambda m, x: m.t(x), t=nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1)),
        r"layer t: a transposed convolution with .*not exactly 2 times the input",
    ),
    "transposed convolution in groups": (
        lambda: two(lambda m, x: m.t(x), t=nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2)),
        r"layer t: a transposed convolution with groups 2",
    ),
    "transposed convolution, dilated": (
        lambda: two(lambda m, x: m.t(x), t=nn.ConvTranspose2d(4, 4, 3, padding=2, dilation=2)),
        r"layer t: a transposed convolution with dilation",
    ),
    "transposed convolution, two strides": (
        lambda: two(lambda m, x: m.t(x), t=nn.ConvTranspose2d(4, 4, (2, 3), stride=(2, 3))),
        r"layer t: a transposed convolution with stride",
    ),
    "half": (lambda: two(lambda m, x: F.interpolate(x, scale_factor=0.5)), r"layer interpolate: resize"),
    "size": (lambda: two(lambda m, x: F.interpolate(x, size=(8, 8))), r"layer interpolate: resize"),
    "wrong concat": (lambda: two(lambda m, x: torch.cat([x, x], 2)), r"layer cat: concatenation along dimension 2"),
    "spatial constant": (lambda: two(lambda m, x: x + torch.ones(1, 1, 16, 16)), r"layer add: a constant of shape"),
    "factor behind a relu": (lambda: two(lambda m, x: torch.relu(x) * 0.5), r"layer mul: a constant factor or shift"),
    "batch norm in front": (lambda: two(lambda m, x: m.b(torch.relu(x)), b=nn.BatchNorm2d(4)), r"layer b: a constant"),
    "no statistics": (
        lambda: two(lambda m, x: m.b(x), b=nn.BatchNorm2d(4, track_running_stats=False)),
        r"layer b: .*running statistics",
    ),
    "shifted and not": (lambda: Forward(lambda m, x: m.a(x - 5.0) + m.b(x), a=conv(3, 3), b=conv(3, 3)), r"mean shift"),
    "shift into a sum": (
        lambda: Forward(lambda m, x: m.a(x - 5.0) + (x - 5.0), a=conv(3, 3)),
        r"mean.shift",
    ),
    "colour times 0": (lambda: double(lambda m, x: m.s(x), s=mean_conv(1.0, (1.0, 0.0, 1.0))), r"by 0"),
    "two outputs": (
        lambda: Forward(lambda m, x: (m.a(x), x), a=conv(3, 3)),
        r"layer output: the output must be one image",
    ),
    "constant output": (
        lambda: Forward(lambda m, x: m.a.weight, a=conv(3, 3)),
        r"layer output: the output must be one",
    ),
    "fixed size": (lambda: two(lambda m, x: x + torch.ones(1, 4, 7, 7)), r"forward fails on an image of 16 x 16"),
    "branch on data": (
        lambda: Forward(lambda m, x: m.a(x) if x.sum() > 0 else x, a=conv(3, 3)),
        r"torch\.fx cannot trace",
    ),
    "in-place relu whose input lives on": (
        lambda: two(lambda m, x: m.c(m.r(x)) + x, r=nn.ReLU(inplace=True), c=conv(4, 4)),
        r"layer r: an in-place .*add",
    ),
    "in-place functional": (
        lambda: two(lambda m, x: m.c(F.relu(x, inplace=True)) + x, c=conv(4, 4)),
        r"layer relu: an in-place",
    ),
    "in-place method": (lambda: two(lambda m, x: m.c(x.add_(1.0)) + x, c=conv(4, 4)), r"layer add_: an in-place"),
    "in-place on an alias": (
        lambda: two(lambda m, x: m.c(m.r(m.i(x))) + x, c=conv(4, 4), i=nn.Identity(), r=nn.ReLU(True)),
        r"layer r: an in-place",
    ),
    "in-place operator, which fx traces as a plain sum": (
        lambda: two(plus_equals, c=conv(4, 4)),
        r"computes something else than the module.*\+=",
    ),
}


@pytest.mark.parametrize("name", USER_ERRORS)
def test_user_errors_name_the_layer(name: str) -> None:
    build, complaint = USER_ERRORS[name]
    with pytest.raises(InputError, match=complaint) as caught:
        normalize(network(build()))
    assert "network tiny" in str(caught.value)
