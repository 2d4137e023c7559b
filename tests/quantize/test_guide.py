"""Guides leave the float64 function as it is, go where they take most noise, and stay within the work allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srq_hw.networks.loading import FloatNetwork
from srq_hw.normalform.normal import Layer, NormalNet, channel_counts, evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.quantize import guide as module
from srq_hw.quantize.guide import added_work, composed, guided, with_guide
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.policy import LayerPolicy
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.quantize.recipe import GuideOptions, Recipe
from srq_hw.simulate import reference
from srq_hw.target import Target, load_target
from tests.quantize import nets
from tests.quantize.chain import assert_chain
from tests.quantize.nets import Forward, conv, image, network, prelu, recipe

GENERIC = load_target("int-generic")
PICTURES = [image(seed, 16, 17) for seed in (1, 2)]
ALL = GuideOptions(channels=27, least=0.0, work=10.0)


def tails() -> FloatNetwork:
    """Wide kernels and two enlargements behind a long skip; groups; a tensor that two convolutions read."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = torch.relu(m.head(x))
        y = m.b(F.relu(m.a(h))) + h
        z = F.pixel_shuffle(m.p(m.up1(y)), 2)
        z = F.pixel_shuffle(torch.relu(m.up2(z)), 3)
        return m.last(z) + m.side(F.interpolate(y, scale_factor=6, mode="nearest"))

    parts = {"a": conv(4, 4, groups=2), "b": conv(4, 4, 1), "up1": conv(4, 8, 5), "up2": conv(2, 18)}
    ends = {"last": conv(2, 3, 9), "side": conv(4, 3, 1)}
    return network(Forward(forward, head=conv(3, 4), p=nn.PReLU(8), **parts, **ends), scale=6)


def luma() -> FloatNetwork:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = torch.relu(m.head(x))
        return m.last(torch.cat([h, torch.relu(m.mid(h))[:, 1:]], 1)) + x

    return network(Forward(forward, head=conv(1, 4), mid=conv(4, 4), last=conv(7, 1)), channels=1)


NETS: dict[str, Callable[[], FloatNetwork]] = {
    **{name: lambda build=build: network(build()) for name, build in nets.NETS.items()},  # type: ignore[misc]
    "tails": tails,
    "luma": luma,
}


def pictures(net: NormalNet) -> list[np.ndarray]:
    return [picture[:, :, : net.channels] for picture in PICTURES]


def with_guides(net: NormalNet, options: GuideOptions = ALL, aim: Target = GENERIC, bits: int = 4) -> NormalNet:
    plan = make_plan(net, aim, bits, bits, LayerPolicy(edges=8, sums=aim.integer.sums_bits_max))
    return guided(net, aim, plan.bits, pictures(net), options)


def real(net: NormalNet, height: int = 7, width: int = 6) -> Tensor:
    x = torch.from_numpy(image(9, height, width)[:, :, : net.channels].copy()).permute(2, 0, 1)[None].double()
    with torch.no_grad():
        return evaluate(net, x, dtype=torch.float64)


def guided_recipe(**options: object) -> Recipe:
    data = recipe("mse", steps=40).model_dump(by_alias=True, exclude_none=True)
    section = {"guide": {"channels": 6, "least": 0.0, "work": 10.0, **options}}
    return Recipe.model_validate(data | section | {"policy": {"edges": 8, "sums": 12}})


def made(net: NormalNet, chosen: Recipe, aim: Target = GENERIC, bits: int = 4) -> Quantized:
    return quantize(net, aim, chosen, pictures(net), bits, bits)


# --- the function --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 5, 27])
@pytest.mark.parametrize("name", NETS)
def test_the_function_stays(name: str, channels: int) -> None:
    """Borders included, on images narrower than a kernel too."""
    before = normalize(NETS[name]())
    after = with_guides(before, ALL.model_copy(update={"channels": channels}))
    assert after.guide is not None and after.guide.channels <= min(channels, 9 * before.channels)
    for size in ((7, 6), (1, 1), (2, 13)):
        left, right = real(before, *size), real(after, *size)
        assert float((left - right).abs().max()) <= 1e-9 * float(left.abs().max()), size


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3), (9, 9)])
@pytest.mark.parametrize("groups", [1, 2])
def test_composed(factor: int, kernel: tuple[int, int], groups: int) -> None:
    """One convolution of the small image is the map, the shuffle and the convolution of the large one."""
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    layer = Layer("conv", "c", ("z",), weight=drawn(6, 4 // groups, *kernel), bias=drawn(6), groups=groups)
    share, small = drawn(4 * factor**2, 5), drawn(2, 5, 6, 4)
    assert layer.weight is not None
    padding = (kernel[0] // 2, kernel[1] // 2)
    large = F.pixel_shuffle(F.conv2d(small, share[:, :, None, None]), factor)
    wanted = F.conv2d(large, layer.weight, padding=padding, groups=groups)
    weight = composed(layer, share, factor)
    found = F.pixel_shuffle(F.conv2d(small, weight, padding=(weight.shape[2] // 2, weight.shape[3] // 2)), factor)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert max(weight.shape[2:]) <= max(kernel), "no wider than it must be"


@pytest.mark.parametrize("name", NETS)
def test_structure_for_stored_weights(name: str) -> None:
    """The same layers in the same order, and without weights the network as it was."""
    before = normalize(NETS[name]())
    after = with_guides(before)
    assert after.guide is not None
    empty = with_guide(before, after.guide.channels, after.guide.convs)
    assert empty.guide == after.guide
    for one, other in zip(empty.layers, after.layers, strict=True):
        assert (one.op, one.name, one.inputs, one.factor) == (other.op, other.name, other.inputs, other.factor)
        assert (one.weight is None) == (other.weight is None)
        if one.weight is not None and other.weight is not None:
            assert one.weight.shape == other.weight.shape
    torch.testing.assert_close(real(empty), real(before), rtol=0, atol=1e-9)


# --- what it takes -------------------------------------------------------------------------------------------------


def test_what_is_left_of_an_operand_is_what_the_image_does_not_tell() -> None:
    """Least squares, worked out here by numpy on all pixels: the same remainder to the last digits."""
    net = normalize(network(nets.residual()))
    after = with_guides(net)
    rows: dict[str, list[np.ndarray]] = {"taps": [], "operand": [], "rest": []}
    (operand,) = {layer.inputs[0] for layer in net.layers if layer.name == "up"}
    for picture in PICTURES:
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
        seen: dict[str, Tensor] = {}
        evaluate(after, x, seen.__setitem__, dtype=torch.float64)
        rows["taps"].append(F.unfold(x, 3, padding=1)[0].T.numpy())
        for key, name in (("operand", operand), ("rest", f"{operand}_rest")):
            rows[key].append(seen[name][0].flatten(1).T.numpy())
    taps, wanted, rest = (np.concatenate(rows[key]) for key in ("taps", "operand", "rest"))
    remainder = wanted - taps @ np.linalg.lstsq(taps, wanted, rcond=None)[0]
    assert np.square(remainder).mean() == pytest.approx(np.square(rest).mean(), rel=1e-4)
    assert np.square(rest).mean() < 0.9 * np.square(wanted).mean()


def test_fewer_channels_leave_more() -> None:
    net = normalize(network(nets.residual()))
    left = []
    for channels in (1, 4, 12, 27):
        seen: dict[str, Tensor] = {}
        after = with_guides(net, ALL.model_copy(update={"channels": channels}))
        x = torch.from_numpy(PICTURES[0]).permute(2, 0, 1)[None].float()
        evaluate(after, x, seen.__setitem__)
        left.append(sum(float(seen[name].square().mean()) for name in seen if name.endswith("_rest")))
    assert left == sorted(left, reverse=True) and left[-1] < 0.9 * left[0]


def test_noise_is_felt_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hutchinson's estimate against noise that is really added to one operand."""
    net = normalize(tails())
    operands = module._operands(net, GENERIC)
    options = GuideOptions(probes=64)
    felt = module._felt(net, PICTURES[:1], operands, options)
    x = torch.from_numpy(PICTURES[0]).permute(2, 0, 1)[None].float()
    clean, generator, size = evaluate(net, x), torch.Generator().manual_seed(0), 1e-2
    for name, convs in operands.items():
        total = 0.0
        for _ in range(64):
            seen: dict[str, Tensor] = {}
            evaluate(net, x, seen.__setitem__)
            noise = torch.randn(seen[name].shape, generator=generator) * size
            changed = evaluate(_noisy(net, name, {item.name for item in convs}), x, _adds(name, noise))
            total += float((changed - clean).double().square().mean()) / 64
        assert total / size**2 == pytest.approx(felt[name], rel=0.25), name


def _noisy(net: NormalNet, operand: str, readers: set[str]) -> NormalNet:
    """The readers see a copy of the operand, which a tap may change without changing the operand."""
    layers: list[Layer] = []
    for layer in net.layers:
        if layer.name in readers:
            layer = replace(layer, inputs=(f"{operand}_copy",))
        layers.append(layer)
        if layer.name == operand:
            count = channel_counts(net.layers, net.channels)[operand]
            eye = torch.eye(count, dtype=torch.float64)[:, :, None, None]
            layers.append(Layer("conv", f"{operand}_copy", (operand,), weight=eye, bias=torch.zeros(count)))
    return replace(net, layers=tuple(layers))


def _adds(operand: str, noise: Tensor) -> Callable[[str, Tensor], None]:
    def tap(name: str, values: Tensor) -> None:
        if name == f"{operand}_copy":
            values.add_(noise)

    return tap


# --- what is chosen ------------------------------------------------------------------------------------------------


def test_the_work_is_held() -> None:
    """More is guided where more is allowed, never more work than that; none where nothing fits."""
    net, counts = normalize(tails()), []
    for work in (0.02, 0.3, 1.0, 10.0):
        after = with_guides(net, GuideOptions(channels=4, work=work, least=0.0))
        own = added_work(after)
        # the guide's own convolution is not in the budget: it is the first layer's work
        first = 27 * 4 / sum(module._work(net).values())
        assert own <= work + first + 1e-9
        counts.append(len(after.guide.convs) if after.guide else 0)
    assert counts == sorted(counts) and counts[0] < counts[-1]
    tight = GuideOptions(channels=4, work=1e-6, least=0.0)
    assert with_guides(net, tight) is net and added_work(net) == 0.0


def test_least_leaves_out_what_gains_little() -> None:
    net = normalize(network(nets.residual()))
    every, few = (with_guides(net, ALL.model_copy(update={"least": least})) for least in (0.0, 0.2))
    assert every.guide and few.guide
    assert set(few.guide.convs) < set(every.guide.convs)
    assert with_guides(net, ALL.model_copy(update={"least": 1.0})) is net


def test_operands_of_many_bits_get_none() -> None:
    """Width decides: the last convolution's operand has 8 bits beside 4, and its noise is a 256th."""
    net = normalize(tails())
    operands = module._operands(net, GENERIC)
    assert "image" not in operands
    after = with_guides(net, ALL.model_copy(update={"least": 0.03}))
    assert after.guide is not None and "last" not in after.guide.convs


@pytest.mark.parametrize("value", [0, 255])
def test_flat_and_dead(value: int) -> None:
    """Black and white images, and a tensor that is always 0: nothing is guided by what tells nothing."""
    net = normalize(network(nets.residual()))
    flat = [np.full((16, 16, 3), value, np.uint8)]
    plan = make_plan(net, GENERIC, 4, 4, LayerPolicy(edges=8, sums=16))
    after = guided(net, GENERIC, plan.bits, flat, ALL)
    assert (after.guide is None) == (value == 0)
    dead = replace(net, layers=tuple(_silent(layer) if layer.name == "head" else layer for layer in net.layers))
    found = with_guides(dead)
    assert found.guide is None or "c1" not in found.guide.convs
    torch.testing.assert_close(real(found), real(dead), rtol=0, atol=1e-9)


def _silent(layer: Layer) -> Layer:
    assert layer.weight is not None and layer.bias is not None
    return replace(layer, weight=torch.zeros_like(layer.weight), bias=torch.zeros_like(layer.bias))


def test_falling_slopes_stay_with_their_readers() -> None:
    """A target of thresholds has them split between convolutions on both sides; a guide would stand between."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return m.last(m.p(m.head(x))) + 100.0

    net = normalize(network(Forward(forward, head=conv(3, 3), p=prelu(0.2, -0.3, 0.1), last=conv(3, 3))))
    assert with_guides(net).guide is not None
    assert with_guides(net, aim=load_target("zcu104"), bits=4) is net


def test_a_name_that_is_taken() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return m.last(torch.relu(m.guide(x))) + 100.0

    after = with_guides(normalize(network(Forward(forward, guide=conv(3, 4), last=conv(4, 3)))))
    assert after.guide is not None and after.guide.name == "guide_"


# --- quantized -----------------------------------------------------------------------------------------------------


AIMS: dict[str, Callable[[], Target]] = {
    **{name: lambda name=name: load_target(name) for name in ("int-generic", "zcu104")},  # type: ignore[misc]
    "shifts": nets.pow2_target,
}


#: a target that only shifts has no PReLU of learned slopes
CHAINS = [
    (name, aim) for aim in AIMS for name in NETS if (aim, name) not in {("shifts", "everything"), ("shifts", "tails")}
]


@pytest.mark.parametrize(("name", "aim"), CHAINS)
def test_an_equal_chain(name: str, aim: str) -> None:
    target = AIMS[aim]()
    policy = guided_recipe().policy.model_copy(update={"sums": min(12, target.integer.sums_bits_max)})
    net = normalize(NETS[name]())
    quantized = made(net, guided_recipe().model_copy(update={"policy": policy}), target)
    assert quantized.plan.net.guide is not None
    assert_chain(quantized.plan, quantized.calibration, target, [picture[:7, :9] for picture in pictures(net)])


@pytest.mark.parametrize("name", NETS)
def test_none_where_sums_are_as_narrow(name: str) -> None:
    """Its sums would add more noise than it takes."""
    net = normalize(NETS[name]())
    plain = LayerPolicy()
    assert guided(net, GENERIC, make_plan(net, GENERIC, 4, 4, plain).bits, pictures(net), ALL) is net
    policy = guided_recipe().policy.model_copy(update={"sums": 8})
    quantized = made(net, guided_recipe().model_copy(update={"policy": policy}), load_target("dpu-pow2"), 8)
    assert quantized.plan.net.guide is None


def test_widths() -> None:
    """Guide and what reads it are as wide as the first convolution; what is guided keeps the width asked for."""
    plan = made(normalize(network(nets.residual())), guided_recipe()).plan
    guide = plan.net.guide
    assert guide is not None
    for layer in plan.net.layers:
        if layer.op != "conv":
            continue
        beside = guide.name in (layer.name, *layer.inputs)
        wide = beside or layer.name in ("head", "up")
        assert plan.bits.weights[layer.name] == (8 if wide else 4), layer.name
        assert plan.point_of(next(item for item in plan.layers if item.name == layer.name).inputs[0]).bits == (
            8 if wide else 4
        ), layer.name


def test_only_at_narrow_widths() -> None:
    net = normalize(network(nets.residual()))
    assert made(net, guided_recipe(bits=6), bits=8).plan.net.guide is None
    assert made(net, guided_recipe(bits=6), bits=6).plan.net.guide is not None


def test_it_gains_at_4_bits() -> None:
    """A long skip into a 4-bit operand: the integers come nearer to the float network by more than half the error."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.head(x)
        return m.last(m.tail(h + 0.2 * m.b(torch.relu(m.a(h))))) + 90.0

    parts = {name: conv(8, 8) for name in ("a", "b", "tail")}
    net = normalize(network(Forward(forward, head=conv(3, 8), last=conv(8, 3), **parts)))
    x = torch.from_numpy(image(9, 16, 16)).permute(2, 0, 1)[None].double()
    wanted = evaluate(net, x, dtype=torch.float64)[0].permute(1, 2, 0).numpy().clip(0, 255)
    errors = []
    for chosen in (guided_recipe().model_copy(update={"guide": None}), guided_recipe(channels=12)):
        quantized = made(net, chosen)
        graph = assert_chain(quantized.plan, quantized.calibration, GENERIC, [image(9, 16, 16)])
        errors.append(float(np.square(reference.run(graph, image(9, 16, 16))[0] - wanted).mean()))
    assert errors[1] < 0.5 * errors[0], errors
