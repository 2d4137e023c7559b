"""Equalisation changes no value of the network: the float64 function stays, the ranges draw together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srq_hw.normalform.normal import NormalNet, evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.equalize import by_weight, channel_classes, equalize, scale_channels
from srq_hw.quantize.recipe import Equalize
from tests.quantize import nets
from tests.quantize.nets import Forward, conv, image, network, prelu


def joined() -> nn.Module:
    """Groups, concats, slices, shuffles, resizes, PReLU, a clipped ReLU, sums with the image: all that shares."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.p(m.head(x))
        g = torch.relu(m.g(h))
        c = torch.cat([g[:, :4], h], 1)
        y = F.pixel_shuffle(m.c(c) + m.d(g), 2)
        z = m.q(m.e(y)) + y
        k = m.k(z).clamp(0, 90.0)
        w = m.f(torch.cat([z, F.interpolate(h[:, 6:], scale_factor=2, mode="nearest")], 1))
        return m.out(w + k) + m.r(F.interpolate(m.s(x) + x, scale_factor=2, mode="nearest"))

    return Forward(
        forward,
        head=conv(3, 8),
        p=prelu(0.1, 0.9, 0.3, -0.2, 0.0, 1.4, 0.5, 0.2),
        g=conv(8, 8, groups=4),
        c=conv(12, 8),
        d=conv(8, 8, groups=2),
        e=conv(2, 2),
        q=nn.PReLU(),
        k=conv(2, 6),
        f=conv(4, 6),
        out=conv(6, 3),
        r=conv(3, 3),
        s=conv(3, 3),
    )


def image_sums() -> nn.Module:
    """A chain of sums that starts at the image and one that ends at the output: both are bound."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        a = x + m.a(x)
        b = m.b(a)
        return m.d(torch.relu(m.c(b))) + b

    return Forward(forward, a=conv(3, 3), b=conv(3, 3), c=conv(3, 5), d=conv(5, 3))


def filtered() -> nn.Module:
    """A bicubic skip of features and one of the image."""

    def up(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = torch.relu(m.a(x))
        return m.c(up(h)) + up(x)

    return Forward(forward, a=conv(3, 4), c=conv(4, 3))


NETS: dict[str, Callable[[], nn.Module]] = {
    **nets.NETS,
    "joined": joined,
    "image sums": image_sums,
    "filtered": filtered,
}


def real(net: NormalNet, seed: int = 5) -> tuple[Tensor, dict[str, Tensor]]:
    """The float64 output and every layer's output."""
    taps: dict[str, Tensor] = {}
    x = torch.from_numpy(image(seed)).permute(2, 0, 1)[None].double()
    with torch.no_grad():
        return evaluate(net, x, taps.__setitem__, torch.float64), taps


def assert_same_function(before: NormalNet, after: NormalNet) -> None:
    left, right = real(before)[0], real(after)[0]
    assert float((left - right).abs().max()) <= 1e-11 * float(left.abs().max())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", NETS)
def test_any_factors_leave_the_function_as_it_is(name: str, seed: int) -> None:
    """Random factors, a hundredfold apart, on every class that is not bound; layer outputs are divided by them."""
    net = normalize(network(NETS[name](), seed=seed))
    classes, bound = channel_classes(net)
    rng = np.random.default_rng(seed)
    free = sorted({int(index) for found in classes.values() for index in found} - bound)
    assert free, "nothing to scale"
    factors = {index: float(10 ** rng.uniform(-1, 1)) for index in free}
    scaled = scale_channels(net, classes, factors)
    assert_same_function(net, scaled)
    before, after = real(net)[1], real(scaled)[1]
    for tensor, found in classes.items():
        by = torch.tensor([factors.get(int(index), 1.0) for index in found], dtype=torch.float64)
        torch.testing.assert_close(
            after[tensor], before[tensor] / by[None, :, None, None], rtol=1e-9, atol=1e-9 * float(before[tensor].max())
        )


@pytest.mark.parametrize("options", [Equalize(), Equalize(statistic="max", strength=1.0)], ids=["rms", "max"])
@pytest.mark.parametrize("name", NETS)
def test_equalize_leaves_the_function_the_image_and_the_output(name: str, options: Equalize) -> None:
    net = normalize(network(NETS[name]()))
    after = equalize(net, [image(1), image(2)], options)
    assert_same_function(net, after)
    assert [layer.name for layer in after.layers] == [layer.name for layer in net.layers]
    assert any(
        a.weight is not None and not torch.equal(a.weight, b.weight)
        for a, b in zip(after.layers, net.layers, strict=True)
    )


def spread(values: Tensor) -> float:
    """Largest channel range over the smallest, of root mean squares."""
    rows = values.square().mean((0, 2, 3)).sqrt()
    return float(rows.max() / rows.min())


def uneven() -> nn.Module:
    """Two hidden tensors whose channels differ a hundredfold."""
    return Forward(lambda m, x: m.c(torch.relu(m.b(torch.relu(m.a(x))))), a=conv(3, 4), b=conv(4, 4), c=conv(4, 3))


@pytest.mark.parametrize(("strength", "power"), [(1.0, 0.0), (0.5, 0.5), (0.25, 0.75)])
def test_ranges_come_together_by_the_strength_asked_for(strength: float, power: float) -> None:
    """On the images it saw, in classes of one tensor: a spread of k becomes k ** (1 - strength)."""
    module = uneven()
    net = network(module)
    with torch.no_grad():
        module.a.weight *= torch.tensor([1.0, 10.0, 0.1, 3.0])[:, None, None, None]
        module.a.bias *= torch.tensor([1.0, 10.0, 0.1, 3.0])
    made = normalize(net)
    after = equalize(made, [image(5)], Equalize(statistic="rms", strength=strength))
    for name in ("relu", "relu_1"):
        before = spread(real(made)[1][name])
        assert before > 1.5
        assert spread(real(after)[1][name]) == pytest.approx(before**power, rel=1e-4)


def test_a_factor_is_the_channels_range_over_the_tensors_mean() -> None:
    """By hand, statistic max, strength 1: every channel's largest value becomes the mean of all largest values."""
    module = uneven()
    net = normalize(network(module))
    after = equalize(net, [image(5)], Equalize(statistic="max", strength=1.0))
    before = real(net)[1]["relu"].amax((0, 2, 3))
    torch.testing.assert_close(
        real(after)[1]["relu"].amax((0, 2, 3)), torch.full((4,), float(before.mean())).double(), rtol=1e-5, atol=0
    )


def test_the_largest_of_all_images_counts() -> None:
    net = normalize(network(uneven()))
    one = equalize(net, [image(1)], Equalize(statistic="max", strength=1.0))
    both = equalize(net, [image(1), image(1) // 2], Equalize(statistic="max", strength=1.0))
    for a, b in zip(one.layers, both.layers, strict=True):
        if a.weight is not None:
            torch.testing.assert_close(a.weight, b.weight, rtol=1e-12, atol=0)


def test_image_and_output_are_bound_along_every_sum() -> None:
    net = normalize(network(image_sums()))
    classes, bound = channel_classes(net)
    for name in ("image", "a", "add", "b", "d", net.output):
        assert set(classes[name].tolist()) <= bound, name
    assert not set(classes["c"].tolist()) & bound
    assert classes["c"].tolist() == classes["relu"].tolist()


def test_classes_of_joins_by_hand() -> None:
    net = normalize(network(joined()))
    classes, bound = channel_classes(net)
    by_name = {layer.name: layer for layer in net.layers}
    assert classes["g"].tolist() == classes["relu"].tolist()
    shuffle = next(layer.name for layer in net.layers if layer.op == "shuffle")
    assert len(set(classes["c"].tolist())) == 2, "four channels of a pixel share, and a sum joins both terms"
    assert classes["c"].tolist() == classes["d"].tolist()
    assert sorted(set(classes["c"].tolist())) == sorted(set(classes[shuffle].tolist()))
    assert set(classes["e"].tolist()) == set(classes[shuffle].tolist()), "the skip around e"
    cat = next(layer.name for layer in net.layers if layer.op == "concat")
    assert classes[cat].tolist() == [*classes["relu"].tolist()[:4], *classes[by_name["p"].name].tolist()]
    assert set(classes["k"].tolist()) <= bound, "an upper limit is not homogeneous"


def test_groups_spread_input_factors_to_their_own_weights() -> None:
    layer = next(item for item in normalize(network(joined())).layers if item.name == "g")
    values = by_weight(layer, torch.arange(8.0))
    assert values.shape == (8, 2, 1, 1)
    assert values[:, :, 0, 0].tolist() == [[0.0, 1.0]] * 2 + [[2.0, 3.0]] * 2 + [[4.0, 5.0]] * 2 + [[6.0, 7.0]] * 2


def test_a_dead_channel_stays_as_it_is() -> None:
    """A channel that is 0 on every image has no range to draw anywhere; its weights must not grow."""
    module = uneven()
    net = network(module)
    with torch.no_grad():
        module.a.bias[1] = -1e5  # the ReLU never opens
        module.b.weight[2], module.b.bias[2] = 0.0, 0.0
    made = normalize(net)
    for statistic in ("rms", "max"):
        after = equalize(made, [image(1)], Equalize(statistic=statistic, strength=1.0))
        assert_same_function(made, after)
        layers = {layer.name: (layer, other) for layer, other in zip(made.layers, after.layers, strict=True)}
        before, now = layers["a"]
        assert torch.equal(before.weight[1], now.weight[1]) and torch.equal(before.bias[1], now.bias[1])
        assert not torch.equal(before.weight[0], now.weight[0])
        before, now = layers["c"]
        assert torch.equal(before.weight[:, 2], now.weight[:, 2])


def test_a_dead_tensor_and_a_black_image() -> None:
    module = uneven()
    net = network(module)
    with torch.no_grad():
        module.b.weight.zero_()
        module.b.bias.fill_(-1.0)
    made = normalize(net)
    after = equalize(made, [image(1), np.zeros((6, 7, 3), np.uint8)], Equalize())
    assert_same_function(made, after)
    black = equalize(normalize(network(uneven())), [np.zeros((6, 7, 3), np.uint8)], Equalize())
    assert all(bool(torch.isfinite(layer.weight).all()) for layer in black.layers if layer.weight is not None)


def test_a_weak_channel_is_not_blown_up_without_end() -> None:
    """A millionth of the others counts as a thousandth."""
    module = uneven()
    net = network(module)
    with torch.no_grad():
        module.a.weight[0] *= 1e-7
        module.a.bias[0] = 1e-6
    made = normalize(net)
    after = equalize(made, [image(1)], Equalize(strength=1.0))
    ratio = after.layers[1].weight[0] / made.layers[1].weight[0]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1000.0), rtol=1e-9, atol=0)


def test_the_network_given_is_left_alone() -> None:
    net = normalize(network(joined()))
    kept = replace(net, layers=tuple(replace(layer) for layer in net.layers))
    weights = [layer.weight.clone() for layer in net.layers if layer.weight is not None]
    equalize(net, [image(1)], Equalize())
    for layer, weight in zip((layer for layer in kept.layers if layer.weight is not None), weights, strict=True):
        assert torch.equal(layer.weight, weight)
