"""Slices, transposed convolutions, filters, clipped ReLUs, groups and image residuals through the integer chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srq_hw import parity
from srq_hw.errors import InputError
from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import lower
from srq_hw.exchange.qonnx_export import export_qonnx
from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.legality import legality
from srq_hw.graph.taps import KERNELS, filter_taps, taps_are_exact
from srq_hw.networks.bicubic import BicubicUpsample, bicubic_taps
from srq_hw.normalform.groups import dense_groups
from srq_hw.normalform.normal import evaluate
from srq_hw.normalform.slopes import split_negative_slopes
from srq_hw.normalform.trace import normalize
from srq_hw.oracles.qonnx import qonnx_oracle
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.freeze import Frozen, freeze, load_frozen, quant_net, run_frozen
from srq_hw.quantize.plan import make_plan
from srq_hw.simulate import fast, reference
from srq_hw.target import Target
from tests.quantize.nets import (
    COMPARED,
    HEIGHT,
    WIDTH,
    Forward,
    conv,
    image,
    network,
    plain_target,
    prelu,
    recipe,
    target,
)
from tests.quantize.test_freeze import assert_equal, frozen_net


def slices() -> nn.Module:
    """Like IDN: a part goes on, the rest is joined to what came in; a second slice meets both in a sum."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = F.leaky_relu(m.head(x), 0.05)
        y = m.c1(h)
        left, right = torch.split(y, [2, 4], 1)
        z = torch.cat([h, left], 1) + m.c2(right)
        return m.last(torch.cat([z[:, 6:], z[:, :3]], 1)) + 100.0 * m.unit

    return Forward(forward, head=conv(3, 6), c1=conv(6, 6), c2=conv(4, 8), last=conv(5, 3))


def transposed(kernel: int, stride: int, padding: int, more: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(kernel)
        up = nn.ConvTranspose2d(4, 3, kernel, stride, padding, more)
        return Forward(lambda m, x: m.up(torch.relu(m.head(x))) + 60.0 * m.unit, head=conv(3, 4), up=up)

    return build


def skip(up: Callable[[], nn.Module], factor: int) -> Callable[[], nn.Module]:
    """The enlarged image added to what the network makes."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return F.pixel_shuffle(m.b(torch.relu(m.a(x))), factor) * 0.3 + m.up(x)

    return lambda: Forward(forward, a=conv(3, 4), b=conv(4, 3 * factor**2), up=up())


def filtered_features() -> nn.Module:
    """A filter in the middle of the network: quantized behind it like any layer, and read twice."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = torch.relu(m.a(x))
        u = F.interpolate(h, scale_factor=2, mode="bicubic")
        v = F.interpolate(m.c(h), scale_factor=2, mode="bilinear")
        return m.b(u + v) + m.d(F.interpolate(x, scale_factor=2, mode="bilinear"))

    return Forward(forward, a=conv(3, 4), c=conv(4, 4), b=conv(4, 3), d=conv(3, 3))


def clipped() -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.a(x).clamp(0, 90.0 * m.unit)
        y = F.hardtanh(m.b(h) + h, 0, 70.5 * float(m.unit))
        return m.c(torch.cat([y, (m.d(h) * 0.5).clamp(0, 40 * m.unit)], 1))

    return Forward(forward, a=conv(3, 4), b=conv(4, 4), c=conv(7, 3), d=conv(4, 3))


def grouped() -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = torch.relu(m.a(x))
        y = torch.relu(m.c(torch.relu(m.b(h))) + h)
        return F.pixel_shuffle(m.up(y), 2)

    parts = {"b": conv(8, 8, groups=4), "c": conv(8, 8, groups=8), "up": conv(8, 12, groups=4)}
    return Forward(forward, a=conv(3, 8), **parts)


def image_residual(repeat: bool) -> Callable[[], nn.Module]:
    """ABPN: the image repeated over the sub-pixels, added in image space, then shuffled and clipped."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        many = torch.cat([x[:, c : c + 1] for c in range(3) for _ in range(9)], 1)
        base = many if repeat else torch.cat([x] * 9, 1)
        y = m.b(torch.relu(m.a(x))) * 0.4 + base
        return F.pixel_shuffle(y.clamp(0, 255.0 * float(m.unit)), 3)

    return lambda: Forward(forward, a=conv(3, 4), b=conv(4, 27))


def branches() -> nn.Module:
    """XLSR: several convolutions of slices side by side, clipped ReLU at the end."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = torch.relu(m.a(x))
        left, right = torch.chunk(h, 2, 1)
        y = torch.cat([m.b(left), m.b(right), m.c(h)], 1)
        return m.d(torch.relu(m.e(y))).clamp(0, 255.0 * float(m.unit))

    return Forward(forward, a=conv(3, 8), b=conv(4, 3), c=conv(8, 2, 1), e=conv(8, 4, 1), d=conv(4, 3))


def steep() -> nn.Module:
    """Slopes above 1 and below 0, on a convolution, in front of a shuffle and on a sum."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.p(m.a(x))
        y = m.q(F.pixel_shuffle(m.b(h), 2))
        return m.c(m.r(y + m.d(y)))

    parts = {"p": prelu(1.03, -0.4, 0.2, 1.9), "q": prelu(-0.7, 1.2), "r": prelu(0.3, 1.5)}
    return Forward(forward, a=conv(3, 4), b=conv(4, 8), d=conv(2, 2), c=conv(2, 3), **parts)


NETS: dict[str, Callable[[], nn.Module]] = {
    "slices": slices,
    "transposed 18, stride 2": transposed(18, 2, 8, 0),
    "transposed 9, stride 3": transposed(9, 3, 4, 2),
    "transposed 20, stride 4": transposed(20, 4, 8, 0),
    "bicubic x2": skip(lambda: BicubicUpsample(2), 2),
    "bicubic x3": skip(lambda: BicubicUpsample(3), 3),
    "bicubic x4": skip(lambda: BicubicUpsample(4), 4),
    "bilinear x4": skip(lambda: nn.Upsample(scale_factor=4, mode="bilinear"), 4),
    "bilinear x3": skip(lambda: nn.Upsample(scale_factor=3, mode="bilinear"), 3),
    "torch bicubic x2": skip(lambda: nn.Upsample(scale_factor=2, mode="bicubic"), 2),
    "nearest x2": skip(lambda: nn.Upsample(scale_factor=2), 2),
    "filtered features": filtered_features,
    "clipped": clipped,
    "grouped": grouped,
    "image residual": image_residual(True),
    "image residual, colours in turn": image_residual(False),
    "branches": branches,
    "steep": steep,
}


def generic(rounding: str = "half_up", **changes: object) -> Target:
    return target("int-generic", **{"requant.rounding": rounding, **changes})


def built(name: str, aim: Target, bits: int = 8, **options) -> tuple[Frozen, nn.Module, IntGraph]:
    frozen, model = frozen_net(NETS[name](), aim, bits, min(8, max(bits, 4)), **options)
    return frozen, model, to_intgraph(frozen)


def assert_chain(name: str, aim: Target, bits: int = 8, **options) -> IntGraph:
    """Parity, hash of the file, qonnx, fast simulator with and without tiles, the target's rules."""
    frozen, model, graph = built(name, aim, bits, **options)
    assert_equal(frozen, model, graph)
    file = export_qonnx(frozen, aim, (HEIGHT, WIDTH))
    again = lower(file, aim)
    assert again.content_sha256 == graph.content_sha256
    found = qonnx_oracle(file, again, image(4))
    assert found.mismatches == 0 and found.ties <= found.elements // 50
    assert found.tensors == sum(node.op in COMPARED for node in graph.nodes)
    program = fast.compile_graph(graph, threads=2)
    big = image(3, 23, 31)
    wanted = reference.run(graph, big)
    for tile in (None, 7, "auto"):
        np.testing.assert_array_equal(program.run(big, tile=tile), wanted)
    traced, all_of = program.trace(big), reference.trace(graph, big)
    assert all((traced[key] == all_of[key]).all() for key in traced)
    assert legality(graph, aim) == []
    return graph


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("bits", "rounding", "input_max"), [(8, "half_up", 1.0), (4, "half_even", 255.0)])
def test_the_whole_chain(name: str, bits: int, rounding: str, input_max: float) -> None:
    assert_chain(name, generic(rounding), bits, input_max=input_max)


@pytest.mark.parametrize("name", NETS)
def test_powers_of_two_per_tensor(name: str) -> None:
    graph = assert_chain(name, target("dpu-pow2"))
    assert all(set(node.params["multiplier"].tolist()) <= {1, 256} for node in graph.nodes if node.op == "Requant")


@pytest.mark.parametrize("rounding", sorted(ROUNDINGS))
@pytest.mark.parametrize("name", ["clipped", "bicubic x2", "image residual"])
def test_every_rounding_rule(name: str, rounding: str) -> None:
    assert_chain(name, generic(rounding), 5)


@pytest.mark.parametrize("name", NETS)
def test_eight_bits_are_near_the_float_network(name: str) -> None:
    module = NETS[name]()
    net = network(module, input_max=1.0)
    frozen, _ = frozen_net(module, generic(), input_max=1.0)
    graph = to_intgraph(frozen)
    for seed in (1, 2):
        x = torch.from_numpy(image(seed)).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            wanted = net.module(x)[0].permute(1, 2, 0).numpy() * 255
        found = reference.run(graph, image(seed))[0]
        assert np.abs(found - np.clip(wanted, 0, 255)).mean() < 3


# --- filters ------------------------------------------------------------------------------------------------------


def test_taps_of_the_bicubic_are_the_networks_own() -> None:
    for factor, denominator in ((2, 128), (4, 1024)):
        taps, common = filter_taps("bicubic", factor)
        assert common == denominator and taps_are_exact("bicubic", factor)
        assert [[float(tap) * common for tap in row] for row in bicubic_taps(factor)] == taps.tolist()
    taps, common = filter_taps("bicubic", 3)
    assert common == 1024 and not taps_are_exact("bicubic", 3) and (taps.sum(1) == common).all()
    exact = np.array([[float(tap) * common for tap in row] for row in bicubic_taps(3)])
    assert np.abs(taps - exact).max() < 1


@pytest.mark.parametrize(("kernel", "factor", "denominator"), [("bilinear", 2, 4), ("bilinear", 4, 8)])
def test_denominators_of_the_bilinear(kernel: str, factor: int, denominator: int) -> None:
    assert filter_taps(kernel, factor)[1] == denominator


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_the_integer_filter_is_torchs_interpolate(kernel: str, factor: int) -> None:
    """In float64, exactly: taps, centres and borders."""
    up = BicubicUpsample(factor).double() if kernel == "bicubic" else None
    mode = "bilinear" if kernel == "bilinear" else "bicubic"
    x = torch.from_numpy(image(2)).permute(2, 0, 1)[None].double()
    wanted = up(x) if up is not None else F.interpolate(x, scale_factor=factor, mode=mode)
    net = normalize(network(NETS["nearest x2"]()))
    layer = replace(next(item for item in net.layers if item.op == "resize"), op="filter", kernel=kernel, factor=factor)
    found = evaluate(replace(net, layers=(net.layers[0], layer)), x, dtype=torch.float64)
    assert torch.equal(found, wanted)


def test_the_filtered_image_enters_the_sum_unrounded() -> None:
    """Multipliers are powers of two, the image has no second quantizer, the other term a fraction of a grey level."""
    frozen, _, graph = built("bicubic x2", generic())
    (total,) = [node for node in graph.nodes if node.op == "Add"]
    (up,) = [node for node in graph.nodes if node.op == "ResizeFilter"]
    assert up.inputs == ("image",) and up.output in total.inputs
    assert all(m & (m - 1) == 0 for m in total.ints_attr("multipliers"))
    (quant,) = [item for item in frozen.quants.values() if item.point.grey_fraction]
    assert np.frexp(quant.scale)[0] == 0.5 and not quant.point.fixed


def test_a_flat_image_stays_flat() -> None:
    for kernel in KERNELS:
        for factor in (2, 3, 4):
            taps, denominator = filter_taps(kernel, factor)
            assert (taps.sum(1) == denominator).all() and denominator & (denominator - 1) == 0


# --- clipped ReLU -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", sorted(ROUNDINGS))
def test_clamping_the_integer_is_clamping_first(rounding: str) -> None:
    """round(min(x, v)) = min(round(x), round(v)) for every rule, every tie on either side of the limit."""
    rule = ROUNDINGS[rounding].real
    x = np.arange(0, 80) / 8.0
    for limit in np.arange(8, 72) / 8.0:
        np.testing.assert_array_equal(rule(np.minimum(x, limit), np), np.minimum(rule(x, np), rule(limit, np)))


def test_the_limit_is_in_the_requant() -> None:
    frozen, _, graph = built("clipped", generic(), 8)
    limits = {
        name: (quant.limit, layer.limits[1] / quant.scale)
        for name, quant in frozen.quants.items()
        if (layer := frozen.plan.layer(quant.point.source)).limits is not None
    }
    assert len(limits) == 3
    for name, (limit, exact) in limits.items():
        node = next(node for node in graph.nodes if node.name == name)
        assert node.attrs["lo"] == 0 and node.attrs["hi"] == limit == min(node.attrs["hi"], np.floor(exact + 0.5))


# --- groups, slopes -----------------------------------------------------------------------------------------------


def test_groups_are_dense_where_the_target_has_none() -> None:
    net = normalize(network(grouped()))
    dense = dense_groups(net, plain_target())
    assert {layer.groups for layer in dense.layers if layer.op == "conv"} == {1}
    x = torch.rand(1, 3, 8, 9, dtype=torch.float64) * 255
    torch.testing.assert_close(evaluate(dense, x, dtype=torch.float64), evaluate(net, x, dtype=torch.float64))
    assert dense_groups(net, generic()) is net
    groups = {node.name: node.attrs["groups"] for node in assert_chain("grouped", generic()).nodes if node.op == "Conv"}
    assert sorted(groups.values()) == [1, 4, 4, 8]
    assert {node.attrs["groups"] for node in assert_chain("grouped", plain_target()).nodes if node.op == "Conv"} == {1}


def test_negative_slopes_are_split_where_the_target_has_none() -> None:
    module = Forward(
        lambda m, x: m.c(F.pixel_shuffle(m.q(m.b(m.p(m.a(x)))), 2)),
        a=conv(3, 4), b=conv(4, 8), c=conv(2, 3), p=prelu(-0.5, 0.25, -0.125, 0.0), q=prelu(-0.3),
    )  # fmt: skip
    net = normalize(network(module))
    split = split_negative_slopes(net, target())
    assert all(bool((layer.slope >= 0).all()) for layer in split.layers if layer.slope is not None)
    x = torch.rand(1, 3, 8, 9, dtype=torch.float64) * 255
    torch.testing.assert_close(evaluate(split, x, dtype=torch.float64), evaluate(net, x, dtype=torch.float64))
    assert split_negative_slopes(net, generic()) is net
    frozen, model = frozen_net(module, target())
    graph = to_intgraph(frozen)
    assert_equal(frozen, model, graph)
    assert legality(graph, target()) == []


def test_a_negative_slope_that_cannot_be_split_is_refused() -> None:
    parts = {"a": conv(3, 4), "b": conv(4, 3), "c": conv(3, 4), "r": prelu(-0.25)}
    with pytest.raises(InputError, match=r"layer r: slopes -0\.25\.\.-0\.25; target zcu104 allows 0\.\.2"):
        frozen_net(Forward(lambda m, x: m.b(m.r(m.a(x) + m.c(x))), **parts), target())


def test_an_operation_the_target_lacks_is_named() -> None:
    for name, op in (("slices", "Slice"), ("bicubic x2", "ResizeFilter"), ("nearest x2", "ResizeNearest")):
        found = [str(item) for item in legality(built(name, plain_target())[2], plain_target())]
        assert any(f"integer.ops: {op}; allowed: Conv, Requant" in text for text in found), found


def test_one_channel() -> None:
    """Y only: one channel in and out, a 1x1 convolution of one channel in the middle."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = torch.relu(m.a(x))
        return F.pixel_shuffle(m.c(torch.relu(m.d(m.b(y)))), 2) + m.up(x)

    module = Forward(forward, a=conv(1, 2), b=conv(2, 1, 1), c=conv(1, 4, 1), up=BicubicUpsample(2), d=conv(1, 1, 1))
    net = normalize(network(module, channels=1))
    assert net.channels == 1 and [layer.op for layer in net.layers].count("conv") == 4
    plan = make_plan(net, generic())
    grey = [image(seed, channels=1) for seed in (1, 2)]
    calibration = calibrate(plan, generic(), recipe(), grey)
    frozen = freeze(plan, calibration, generic())
    model, graph = load_frozen(quant_net(plan, calibration, generic()), frozen), to_intgraph(frozen)
    assert graph.tensors[graph.input].channels == graph.tensors[graph.output].channels == 1
    found = parity.compare(run_frozen(model, frozen, grey[0]), reference.trace(graph, grey[0]))
    assert found.equal and found.elements > 0
    file = export_qonnx(frozen, generic(), (HEIGHT, WIDTH))
    assert lower(file, generic()).content_sha256 == graph.content_sha256


def test_a_mean_shift_of_one_channel_is_folded() -> None:
    shift = conv(1, 1, 1)
    shift.keep = True  # type: ignore[assignment]
    with torch.no_grad():
        shift.weight.fill_(1.0)
        shift.bias.fill_(-100.0)
    net = normalize(network(Forward(lambda m, x: m.a(m.s(x)), s=shift, a=conv(1, 1)), channels=1))
    assert [layer.op for layer in net.layers] == ["image", "conv"] and net.layers[0].offset == (-100,)
