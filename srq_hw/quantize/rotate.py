"""Change of basis: tensors that are only added and convolved are rewritten in the basis where quantizing them costs the
image least.

The residual stream of an EDSR is such a tensor: T in the convolutions that write it and T^-1 in those that read it
leave the network's function as it is, for any invertible T (a factor per channel, as `equalize` has it, is a T that is
diagonal; turning language models' streams is known from Ashkboos et al., NeurIPS 2024, "QuaRot"). A quantizer with one
step makes the same noise in every channel, so

    noise of a tensor in the image = c * tr(T K T') / n * tr(T'^-1 S T^-1)

with K the second moments of its channels, S the image's sensitivity to them, n channels. Noise of weights has the same
form. All terms are made least together over M = T'T, of which the sum is a geodesically convex function; an orthogonal
matrix in front then spreads what is left over all channels alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import hadamard
from torch import Tensor
from torch.nn.grad import conv2d_input

from srq_hw.normalform.normal import Layer, NormalNet, channel_counts, evaluate, real_image, users
from srq_hw.quantize.policy import Bits
from srq_hw.quantize.probes import probes
from srq_hw.quantize.recipe import Rotate

Image = npt.NDArray[np.uint8]

#: layers whose output is in the space of their inputs
JOINS = ("add", "shuffle")
#: noise of a weight's step against that of an activation's of the same width: a row's peak is about 3.5 times its rms,
#: a tensor's about 8 times
WEIGHTS = 0.2
#: what every direction has at least of the mean moment or sensitivity
FLOOR = 1e-4
#: fixed-point iterations
ITERATIONS = 50


@dataclass(frozen=True)
class Stream:
    """A tensor space of ``channels``: layer -> how many times its channels hold it (the factor squared in front of a
    shuffle). makers: convolutions that write it; readers: those that read it; sums: additions inside."""

    channels: int
    makers: dict[str, int]
    readers: dict[str, int]
    sums: dict[str, int]


@dataclass(frozen=True, eq=False)
class Noise:
    """One source of noise: second moments K and sensitivity S, (C, C) float64, its constant in them; whether it is an
    operand, whose channels share a step."""

    operand: bool
    moments: Tensor
    sensitivity: Tensor


def rotations(net: NormalNet, bits: Bits, images: Sequence[Image], options: Rotate) -> list[NormalNet]:
    """The same function in ``options.tries`` bases that should do equally well, each with other signs; none where the
    network has no stream. images: uint8 (H, W, C), low resolution."""
    found = [(stream, basis(noises(net, stream, bits, images, options))) for stream in streams(net)]
    if not found:
        return []
    rng, tries = np.random.default_rng(options.seed), []
    for _ in range(options.tries):
        moved = net
        for stream, (root, axes) in found:
            moved = change_basis(moved, stream, turned(root, axes, rng))
        tries.append(moved)
    return tries


def streams(net: NormalNet) -> list[Stream]:
    """Every set of tensors joined by additions and shuffles that dense convolutions alone write and read."""
    parent = {layer.name: layer.name for layer in net.layers}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for layer in net.layers:
        if layer.op in JOINS:
            for name in layer.inputs:
                parent[find(name)] = find(layer.name)
    members: dict[str, list[Layer]] = defaultdict(list)
    for layer in net.layers:
        members[find(layer.name)].append(layer)
    counts = channel_counts(net.layers, net.channels)
    found = []
    for group in members.values():
        names = {layer.name for layer in group}
        readers = [reader for name in sorted(names) for reader in users(net.layers, name) if reader.op not in JOINS]
        if net.output in names or not all(_is_dense(layer) for layer in readers):
            continue
        if not all(layer.op in JOINS or _is_dense(layer) for layer in group):
            continue
        channels = min(counts[name] for name in names)
        held = {layer.name: counts[layer.name] // channels for layer in group}
        found.append(
            Stream(
                channels,
                {layer.name: held[layer.name] for layer in group if layer.op == "conv"},
                {layer.name: held[layer.inputs[0]] for layer in readers},
                {layer.name: held[layer.name] for layer in group if layer.op == "add"},
            )
        )
    return found


def _is_dense(layer: Layer) -> bool:
    return layer.op == "conv" and layer.groups == 1


# --- what quantizing costs ----------------------------------------------------------------------------------------


def noises(net: NormalNet, stream: Stream, bits: Bits, images: Sequence[Image], options: Rotate) -> list[Noise]:
    """What readers' operands and weights, makers' weights and sums add to the image's noise, mean over the images.

    Sensitivities are those of the float network: squared gradients of random signs of the output (Hutchinson's
    estimate), ``options.probes`` per image.
    """
    layers = {layer.name: layer for layer in net.layers}
    terms: dict[tuple[str, str], list[Tensor]] = {}
    generator = torch.Generator().manual_seed(options.seed)
    watched = [*stream.readers, *stream.sums, *stream.makers]

    def add(kind: str, name: str, place: int, value: Tensor) -> None:
        term = terms.setdefault((kind, name), [torch.zeros(stream.channels, stream.channels).double() for _ in "KS"])
        term[place] += value / len(images)

    for image in images:
        pixels = real_image(net, image).requires_grad_()
        seen: dict[str, Tensor] = {}
        output = evaluate(net, pixels, seen.__setitem__)
        for name in stream.readers:
            moments = _moments(seen[layers[name].inputs[0]].detach(), stream.channels)
            add("operand", name, 0, moments)
            add("weights read", name, 0, moments)
        for name in stream.sums:
            add("sum", name, 0, _moments(seen[name].detach(), stream.channels))
        for name, held in stream.makers.items():
            weight = _weight(layers[name]).reshape(stream.channels, -1)
            power = seen[layers[name].inputs[0]].detach().double().square().mean()
            add("weights made", name, 0, weight @ weight.T / held * power)
        for gradients in probes(output, seen, watched, generator, options.probes):
            for name in stream.readers:
                conv, source = layers[name], seen[layers[name].inputs[0]]
                weight = _weight(conv)
                padding = (weight.shape[2] // 2, weight.shape[3] // 2)
                inward = conv2d_input(source.shape, weight.float(), gradients[name], padding=padding)
                add("operand", name, 1, _moments(inward, stream.channels, per_pixel=True) / options.probes)
                rows = weight.reshape(len(weight), stream.channels, -1)
                power = gradients[name].double().square().mean((0, 2, 3))
                moved = torch.einsum("o,oat,obt->ab", power, rows, rows)
                add("weights read", name, 1, moved / options.probes)
            for kind, names in (("sum", stream.sums), ("weights made", stream.makers)):
                for name in names:
                    power = _moments(gradients[name], stream.channels, per_pixel=True)
                    add(kind, name, 1, power / options.probes)
    step: dict[str, Callable[[str], float]] = {
        "operand": lambda name: 4.0 ** -bits.activations[name],
        "weights read": lambda name: WEIGHTS * 4.0 ** -bits.weights[name],
        "weights made": lambda name: WEIGHTS * 4.0 ** -bits.weights[name],
        "sum": lambda name: 4.0**-bits.sums,
    }
    return [
        Noise(kind == "operand", _floored(K), _floored(S) * step[kind](name)) for (kind, name), (K, S) in terms.items()
    ]


def _moments(values: Tensor, channels: int, per_pixel: bool = False) -> Tensor:
    """Second moments (channels, channels) float64 over all positions of (1, channels * held, H, W), or their sum per
    pixel (held of them)."""
    flat = values.double().reshape(channels, -1)
    pixels = values.shape[2] * values.shape[3]
    return flat @ flat.T / (pixels if per_pixel else flat.shape[1])


def _weight(conv: Layer) -> Tensor:
    assert conv.weight is not None
    return conv.weight.double()


def _floored(matrix: Tensor) -> Tensor:
    return matrix + FLOOR * matrix.trace() / len(matrix) * torch.eye(len(matrix)).double()


# --- the basis ----------------------------------------------------------------------------------------------------


def basis(sources: Sequence[Noise]) -> tuple[Tensor, Tensor]:
    """The square root of M that makes the noise of all sources together least, and the operands' mean second moments in
    that basis; (n, n) float64 both."""
    size = len(sources[0].moments)
    metric = torch.eye(size).double()
    for _ in range(ITERATIONS):  # where M is least, M P M = Q with both sums weighed by what the other factor is there
        inverse = torch.linalg.inv(metric)
        moments = sum((_product(inverse, item.sensitivity) * item.moments for item in sources), torch.zeros(()))
        sensitivity = sum((_product(metric, item.moments) * item.sensitivity for item in sources), torch.zeros(()))
        metric = geometric_mean(moments, sensitivity)
    root = _power(metric, 0.5)
    shaped = [root @ item.moments @ root for item in sources if item.operand]
    return root, torch.stack([item / item.trace() for item in shaped]).mean(0)


def turned(root: Tensor, moments: Tensor, rng: np.random.Generator) -> Tensor:
    """T of determinant 1 or -1 behind ``root``: the principal axes spread over all channels, which get equal rms."""
    size = len(root)
    turn = spread(size, rng) @ torch.linalg.eigh(moments)[1].T
    moved = turn @ root / (turn @ moments @ turn.T).diag().sqrt()[:, None]
    return moved / torch.linalg.det(moved).abs() ** (1 / size)


def geometric_mean(moments: Tensor, sensitivity: Tensor) -> Tensor:
    """The positive M with M moments M = sensitivity."""
    root, inverse = _power(moments, 0.5), _power(moments, -0.5)
    return inverse @ _power(root @ sensitivity @ root, 0.5) @ inverse


def spread(size: int, rng: np.random.Generator) -> Tensor:
    """An orthogonal matrix whose entries are all about as large: Hadamard's with drawn signs, else a drawn one."""
    if size & (size - 1) == 0:
        return torch.from_numpy(hadamard(size) * rng.choice([-1.0, 1.0], size) / np.sqrt(size))
    drawn: Tensor = torch.linalg.qr(torch.from_numpy(rng.standard_normal((size, size))))[0]
    return drawn


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Of a positive symmetric matrix."""
    values, axes = torch.linalg.eigh(matrix)
    return (axes * values.clamp_min(float(values.max()) * 1e-12) ** exponent) @ axes.T


def _product(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


def change_basis(net: NormalNet, stream: Stream, moved: Tensor) -> NormalNet:
    """The network with T in the weights and biases of a stream's makers and T^-1 in the weights of its readers."""
    inverse = torch.linalg.inv(moved)

    def written(layer: Layer) -> Layer:
        held = stream.makers.get(layer.name)
        if held is None:
            return layer
        assert layer.weight is not None and layer.bias is not None
        weight = torch.einsum("ab,bh...->ah...", moved, layer.weight.reshape(-1, held, *layer.weight.shape[1:]))
        bias = moved @ layer.bias.reshape(-1, held)
        return replace(layer, weight=weight.reshape(layer.weight.shape), bias=bias.reshape(-1))

    def read(layer: Layer) -> Layer:
        held = stream.readers.get(layer.name)
        if held is None:
            return layer
        assert layer.weight is not None
        outs, _, rows, columns = layer.weight.shape
        weight = torch.einsum("obhyx,ba->oahyx", layer.weight.reshape(outs, -1, held, rows, columns), inverse)
        return replace(layer, weight=weight.reshape(layer.weight.shape).contiguous())

    return replace(net, layers=tuple(read(written(layer)) for layer in net.layers))
