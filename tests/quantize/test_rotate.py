"""A change of basis leaves the float64 function as it is, and makes the noise least that quantizers leave."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srq_hw.evaluate.demo import demo_calibration_images
from srq_hw.evaluate.resize import downscale
from srq_hw.networks.edsr import EdsrMeanShift
from srq_hw.networks.loading import FloatNetwork, load_network
from srq_hw.normalform.normal import NormalNet, evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.brevitas_layers import QuantNet
from srq_hw.quantize.freeze import quant_net
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.policy import Bits
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.quantize.recipe import Recipe, Rotate, load_recipe
from srq_hw.quantize.rotate import Noise, basis, change_basis, noises, rotations, spread, streams, turned
from tests.quantize import nets
from tests.quantize.nets import Forward, conv, image, network


def two_streams(blocks: int = 2, features: int = 8) -> FloatNetwork:
    """A small EDSR: a stream in front of the upsampler and one behind its shuffle."""
    return network(EdsrMeanShift(features, blocks), scale=2)


def edsr(blocks: int = 2, features: int = 8) -> NormalNet:
    return normalize(two_streams(blocks, features))


def real(net: NormalNet, seed: int = 5) -> Tensor:
    x = torch.from_numpy(image(seed)).permute(2, 0, 1)[None].double()
    with torch.no_grad():
        return evaluate(net, x, dtype=torch.float64)


def assert_same_function(before: NormalNet, after: NormalNet) -> None:
    left, right = real(before), real(after)
    assert float((left - right).abs().max()) <= 1e-9 * float(left.abs().max())


# --- which tensors -------------------------------------------------------------------------------------------------


def test_the_streams_of_an_edsr() -> None:
    first, second = streams(edsr())
    assert (first.channels, second.channels) == (8, 8)
    assert list(first.makers) == ["head", "body_0_c2", "body_1_c2", "tail"]
    assert sorted(first.readers) == ["body_0_c1", "body_1_c1", "tail", "up"]
    assert (second.makers, second.readers) == ({"up": 4}, {"last": 1})
    assert set(first.makers.values()) | set(first.readers.values()) == {1}
    assert len(first.sums) == 3


def activated(m: nn.Module, x: Tensor) -> Tensor:
    h = torch.relu(m.a(x))
    out: Tensor = m.c(torch.relu(m.b(h)) + h)
    return out


def grouped(m: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = m.c(m.b(m.a(x)))
    return out


def joined(m: nn.Module, x: Tensor) -> Tensor:
    h = m.a(x)
    out: Tensor = m.c(torch.cat([m.b(h), h], 1))
    return out


def from_image(m: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = m.c(m.a(x) + x)
    return out


@pytest.mark.parametrize(
    "module",
    [
        Forward(activated, a=conv(3, 4), b=conv(4, 4), c=conv(4, 3)),
        Forward(grouped, a=conv(3, 4), b=conv(4, 4, groups=2), c=nn.Sequential(nn.ReLU(), conv(4, 3))),
        Forward(joined, a=conv(3, 4), b=conv(4, 4), c=conv(8, 3)),
        Forward(from_image, a=conv(3, 3), c=conv(3, 3)),
        Forward(lambda m, x: m.a(x), a=conv(3, 3)),
    ],
    ids=["activation", "groups", "concat", "image", "output"],
)
def test_what_is_no_stream(module: nn.Module) -> None:
    """An activation, groups, a concat, the image and the output leave a tensor the basis it has."""
    net = normalize(network(module))
    assert streams(net) == []
    assert rotations(net, widths(net), [image(1)], Rotate()) == []


# --- the function stays ---------------------------------------------------------------------------------------------


def widths(net: NormalNet, bits: int = 4) -> Bits:
    convs = [layer.name for layer in net.layers if layer.op == "conv"]
    return Bits(dict.fromkeys(convs, bits), dict.fromkeys(convs, bits), 16)


def chained(m: nn.Module, x: Tensor) -> Tensor:
    """Two shuffles and a skip in front of each: channels of a stream held 16, 4 and 1 times."""
    y = m.a(x)
    y = y + m.b(torch.relu(m.c(y)))
    y = F.pixel_shuffle(y, 2)
    y = F.pixel_shuffle(y + m.d(torch.relu(m.e(y))), 2)
    out: Tensor = m.out(y)
    return out


CHAINED = {"a": conv(3, 32), "b": conv(4, 32), "c": conv(32, 4), "d": conv(3, 8), "e": conv(8, 3), "out": conv(2, 3)}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["edsr", "chained", "three"])
def test_any_basis_leaves_the_function_as_it_is(name: str, seed: int) -> None:
    made = {
        "edsr": lambda: edsr(),
        "chained": lambda: normalize(network(Forward(chained, **CHAINED), seed=seed)),
        "three": lambda: edsr(features=3),
    }[name]()
    found = streams(made)
    assert found
    rng = np.random.default_rng(seed)
    net = made
    for stream in found:
        moved = torch.from_numpy(rng.standard_normal((stream.channels, stream.channels)))
        net = change_basis(net, stream, moved)
    assert_same_function(made, net)
    changed = [
        a.name
        for a, b in zip(made.layers, net.layers, strict=True)
        if a.weight is not None and b.weight is not None and not torch.allclose(a.weight, b.weight)
    ]
    touched = {conv for stream in found for conv in (*stream.makers, *stream.readers)}
    assert set(changed) == touched


def test_held_channels_of_the_chain() -> None:
    (stream,) = streams(normalize(network(Forward(chained, **CHAINED))))
    assert stream.channels == 2
    assert stream.makers == {"a": 16, "b": 16, "d": 4}
    assert stream.readers == {"c": 16, "e": 4, "out": 1}
    assert sorted(stream.sums.values()) == [4, 16]


def test_rotations_keep_the_function_and_differ() -> None:
    net = edsr()
    tries = rotations(net, widths(net), [image(1), image(2)], Rotate(tries=3))
    assert len(tries) == 3
    for moved in tries:
        assert_same_function(net, moved)
    first, second = (next(layer.weight for layer in moved.layers if layer.name == "head") for moved in tries[:2])
    assert first is not None and second is not None and not torch.allclose(first, second)
    again = rotations(net, widths(net), [image(1), image(2)], Rotate(tries=3))
    for a, b in zip(tries, again, strict=True):
        for left, right in zip(a.layers, b.layers, strict=True):
            assert left.weight is None or (right.weight is not None and torch.equal(left.weight, right.weight))


# --- what it makes least ---------------------------------------------------------------------------------------------


def cost(sources: Sequence[Noise], moved: Tensor) -> float:
    """The noise of all sources in the basis T, up to a constant: what `basis` makes least."""
    inverse = torch.linalg.inv(moved)
    return sum(
        float((moved @ item.moments @ moved.T).trace() * (inverse.T @ item.sensitivity @ inverse).trace())
        for item in sources
    ) / len(moved)


def drawn(rng: np.random.Generator, size: int, count: int) -> list[Noise]:
    def positive() -> Tensor:
        half = torch.from_numpy(rng.standard_normal((size, 2 * size)) * 10.0 ** rng.uniform(-1, 1, (size, 1)))
        return half @ half.T

    return [Noise(True, positive(), positive()) for _ in range(count)]


@pytest.mark.parametrize("size", [1, 3, 8, 12])
def test_no_other_basis_has_less_noise(size: int) -> None:
    """Not the given one, not any of two hundred close to the one found; what spreads it changes nothing."""
    rng = np.random.default_rng(size)
    sources = drawn(rng, size, 3)
    root, moments = basis(sources)
    moved = turned(root, moments, rng)
    least = cost(sources, root)
    assert least <= cost(sources, torch.eye(size).double()) * (1 + 1e-9)
    orthogonal = spread(size, rng)
    assert cost(sources, orthogonal @ root) == pytest.approx(least, rel=1e-9)
    for _ in range(200):
        near = root + torch.from_numpy(rng.standard_normal((size, size))) * float(root.abs().max()) * 0.05
        assert cost(sources, near) >= least * (1 - 1e-9)
    assert torch.linalg.det(moved).abs() == pytest.approx(1.0)
    rms = (moved @ torch.linalg.inv(root) @ moments @ torch.linalg.inv(root).T @ moved.T).diag()
    assert float(rms.max() / rms.min()) == pytest.approx(1.0), "channels of equal rms"


def test_one_source_has_its_closed_form() -> None:
    """tr(TKT') tr(T'^-1 S T^-1) is at least the squared trace of (K^1/2 S K^1/2)^1/2, and that is reached."""
    (source,) = drawn(np.random.default_rng(0), 6, 1)
    values = torch.linalg.eigvals(source.moments @ source.sensitivity).real
    assert cost([source], basis([source])[0]) == pytest.approx(float(values.sqrt().sum() ** 2 / 6), rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 16, 64, 3, 48])
def test_spread_is_orthogonal(size: int) -> None:
    found = spread(size, np.random.default_rng(0))
    torch.testing.assert_close(found @ found.T, torch.eye(size).double())


@pytest.mark.parametrize("reader", ["tail", "up", "body.0.c1"])
def test_sensitivity_is_the_jacobian(reader: str) -> None:
    """S of what a convolution reads, from 256 random images, is the sum of J'J per pixel of torch's own Jacobian."""
    module = two_streams(blocks=1, features=4)
    net = normalize(module)
    pixels = image(7)
    terms = noises(net, streams(net)[0], widths(net, 8), [pixels], Rotate(probes=256))
    operands = dict(zip(streams(net)[0].readers, [item for item in terms if item.operand], strict=True))
    double = copy.deepcopy(module.module).double()
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()

    def output(noise: Tensor) -> Tensor:
        hook = double.get_submodule(reader).register_forward_pre_hook(lambda _, given: (given[0] + noise,))
        found: Tensor = double(x)
        hook.remove()
        return found

    jacobian = torch.autograd.functional.jacobian(output, torch.zeros(1, 4, *pixels.shape[:2]).double())
    rows = jacobian.reshape(-1, 4, pixels.shape[0] * pixels.shape[1])
    exact = torch.einsum("oap,obp->ab", rows, rows) / rows.shape[2]
    found = operands[reader.replace(".", "_")].sensitivity * 4.0**8
    assert float((found - exact).norm() / exact.norm()) < 0.1


# --- in a recipe -----------------------------------------------------------------------------------------------------


def skewed(net: NormalNet, factor: float) -> NormalNet:
    """The network in a basis that nobody would choose."""
    rng = np.random.default_rng(3)
    for stream in streams(net):
        size = stream.channels
        net = change_basis(net, stream, torch.from_numpy(rng.standard_normal((size, size)) * factor + np.eye(size)))
    return net


def loss(found: Quantized, net: NormalNet, images: list[np.ndarray]) -> float:
    """Mean squared error against the float network, grey levels."""
    model: QuantNet = quant_net(found.plan, found.calibration, nets.target("int-generic"))
    total = []
    for item in images:
        x = torch.from_numpy(item.astype(np.float32)).permute(2, 0, 1)[None]
        with torch.no_grad():
            wanted = evaluate(net, x * net.grey_level).clamp(0, net.input_max)
            total.append(float((model(x) - wanted).square().mean()) / net.grey_level**2)
    return float(np.mean(total))


def recipe(rotate: Rotate | None) -> Recipe:
    return load_recipe("mse").model_copy(update={"rotate": rotate})


def test_a_bad_basis_is_left() -> None:
    """The embedded network in a skewed basis loses far more at 4 bits; turned, it loses less than in its own."""
    net, target = normalize(load_network()), nets.target("int-generic")
    images = [downscale(item.rgb, 2)[40:80, 40:80] for item in demo_calibration_images()]
    bad = skewed(net, 0.2)
    own, skew = (loss(quantize(item, target, recipe(None), images, 4, 4), net, images) for item in (net, bad))
    found = loss(quantize(bad, target, recipe(Rotate(tries=3)), images, 4, 4), net, images)
    assert found < own < 0.5 * skew


def test_the_network_as_it_was_is_kept_where_it_is_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    net, target = edsr(), nets.target("int-generic")

    def worse(moved: NormalNet, *_: object) -> list[NormalNet]:
        rng = np.random.default_rng(0)
        stream = streams(moved)[0]
        uneven = rng.standard_normal((8, 8)) * 10.0 ** rng.uniform(-3, 3, (8, 1))
        return [change_basis(moved, stream, torch.from_numpy(uneven))]

    monkeypatch.setattr("srq_hw.quantize.ptq.rotations", worse)
    found = quantize(net, target, recipe(Rotate()), [image(1), image(2)], 4, 4)
    for a, b in zip(found.plan.net.layers, make_plan(net, target, 4, 4).net.layers, strict=True):
        assert a.weight is None or (b.weight is not None and torch.equal(a.weight, b.weight))


def test_a_network_without_streams_is_quantized_as_before() -> None:
    module = Forward(activated, a=conv(3, 4), b=conv(4, 4), c=conv(4, 3))
    net, target, images = normalize(network(module)), nets.target("int-generic"), [image(1), image(2)]
    plain, tried = (quantize(net, target, recipe(option), images, 4, 4) for option in (None, Rotate()))
    assert plain.calibration.scales == tried.calibration.scales
