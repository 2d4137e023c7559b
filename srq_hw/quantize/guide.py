"""Guides: what a convolution's operand holds of the image goes around it, in a few channels of their own.

Much of what an SR network's tensors carry is the image itself. With z an operand, a(x) a few channels that a first
convolution takes from the image, and B the linear map that tells most of z from them,

    conv(z) = conv(z - B a) + (conv B) a

The operand that is left, z - B a, is small and takes the low width well; a has the width of the first and last
convolutions, and conv B is one small convolution at the image's own size. In float nothing changes; zero padding is
exact, for none of these convolutions has a bias. The channels a are the directions in the image's neighbourhoods that
tell most of all operands together (reduced-rank regression; Izenman, 1975).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor
from torch.nn.grad import conv2d_input

from srq_hw.normalform.groups import dense_weight
from srq_hw.normalform.normal import Guide, Layer, NormalNet, channel_counts, evaluate, real_image, upscales
from srq_hw.quantize.policy import Bits
from srq_hw.quantize.probes import probes
from srq_hw.quantize.recipe import GuideOptions
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]

#: side of the neighbourhood that the guide's channels see
SIDE = 3
#: tensors that a guide has rounded to the width of sums: operand, B a, and both convolutions' outputs
ROUNDED = 4
#: added to the taps' second moments, as a part of their mean
RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Seen:
    """Second moments over all pixels, float64: of the taps (T, T), of taps with each operand (T, C), and each operand's
    mean square sum. An operand of a larger image has the pixels of one small pixel as channels."""

    taps: Tensor
    cross: dict[str, Tensor]
    energy: dict[str, float]


def guided(net: NormalNet, target: Target, bits: Bits, images: Sequence[Image], options: GuideOptions) -> NormalNet:
    """The same function with guides beside the operands where they take most noise from the image; the network as it is
    where there are none. images: uint8 (H, W, C), low resolution."""
    operands = _operands(net, target)
    if not operands or not any(image.any() for image in images):
        return net
    seen, felt = _observe(net, images, operands), _felt(net, images[: options.patches], operands, options)
    power = {name: felt[name] * seen.energy[name] for name in operands}
    noise = {name: power[name] * 4.0 ** -bits.activations[operands[name][0].name] for name in operands}
    gain = {name: told(seen, name) * noise[name] - ROUNDED * power[name] * 4.0**-bits.sums for name in operands}
    channels = min(options.channels, len(seen.taps))
    chosen = _choose(net, operands, noise, gain, channels, options)
    if not chosen:
        return net
    directions = _directions(seen, {name: noise[name] for name in chosen}, channels)
    channels = directions.shape[1]  # fewer where the operands have fewer
    inner = directions.T @ seen.taps @ directions
    shares = {name: torch.linalg.solve(inner, directions.T @ seen.cross[name]).T for name in chosen}
    weight = directions.T.reshape(channels, net.channels, SIDE, SIDE)
    convs = tuple(conv.name for name in operands if name in chosen for conv in operands[name])
    return _insert(net, Guide(_free_name(net), channels, convs), weight, shares)


def with_guide(net: NormalNet, channels: int, convs: Sequence[str]) -> NormalNet:
    """The layers of `guided` with weights of zero: the same function; for weights that are stored.

    KeyError for a convolution that the network has not.
    """
    counts, scale = channel_counts(net.layers, net.channels), upscales(net)
    by_name = {layer.name: layer for layer in net.layers}
    names = {by_name[conv].inputs[0] for conv in convs}
    shares = {name: torch.zeros(counts[name] * scale[name] ** 2, channels, dtype=torch.float64) for name in names}
    weight = torch.zeros(channels, net.channels, SIDE, SIDE, dtype=torch.float64)
    return _insert(net, Guide(_free_name(net), channels, tuple(convs)), weight, shares)


def added_work(net: NormalNet) -> float:
    """Multiply-adds of the guide's convolutions as a part of all the others'."""
    if net.guide is None:
        return 0.0
    own = {layer.name for layer in net.layers if net.guide.name in (layer.name, *layer.inputs)}
    work = _work(net)
    return sum(work[name] for name in own) / sum(work[name] for name in work if name not in own)


# --- what is guided -----------------------------------------------------------------------------------------------


def _operands(net: NormalNet, target: Target) -> dict[str, list[Layer]]:
    """Operand -> the convolutions that read it, in order; without the image and what a filter makes of it."""
    near = {net.layers[0].name}
    for layer in net.layers:
        if layer.op in ("resize", "filter", "slice", "concat", "shuffle") and near.issuperset(layer.inputs):
            near.add(layer.name)
    found: dict[str, list[Layer]] = {}
    for layer in net.layers:
        if layer.op == "conv" and layer.inputs[0] not in near:
            found.setdefault(layer.inputs[0], []).append(layer)
    if target.integer.ops.Requant.slope_min < 0:
        return found
    return {name: convs for name, convs in found.items() if not _falls(net, name)}


def _falls(net: NormalNet, name: str) -> bool:
    """Whether a PReLU with slopes below 0 makes the tensor, which `normalform.slopes` has to split from its readers."""
    layer = next(item for item in net.layers if item.name == name)
    while layer.op == "shuffle":
        layer = next(item for item in net.layers if item.name == layer.inputs[0])
    return layer.slope is not None and bool((layer.slope < 0).any())


def _observe(net: NormalNet, images: Sequence[Image], operands: Iterable[str]) -> Seen:
    scale, wanted, count = upscales(net), set(operands), 0
    around, taps = torch.zeros(0), torch.zeros(())
    cross: dict[str, Tensor] = {}
    energy: dict[str, float] = dict.fromkeys(wanted, 0.0)

    def tap(name: str, values: Tensor) -> None:
        nonlocal around
        if name == net.layers[0].name:
            around = _rows(F.unfold(values, SIDE, padding=SIDE // 2).reshape(1, -1, *values.shape[2:]))
        if name in wanted:
            rows = _rows(F.pixel_unshuffle(values, scale[name]) if scale[name] > 1 else values)
            cross[name] = cross.get(name, 0) + around.T @ rows
            energy[name] += float(rows.square().sum())

    with torch.inference_mode():
        for image in images:
            evaluate(net, real_image(net, image), tap)
            taps = taps + around.T @ around
            count += len(around)
    moments = taps / count
    moments += RIDGE * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)
    means = {name: cross[name] / count for name in wanted}
    return Seen(moments, means, {name: energy[name] / count for name in wanted})


def _rows(values: Tensor) -> Tensor:
    """(N, C, H, W) to (pixels, C), float64."""
    return values.permute(0, 2, 3, 1).reshape(-1, values.shape[1]).double()


def told(seen: Seen, name: str) -> float:
    """The part of an operand's energy that all taps together tell: 0..1."""
    cross = seen.cross[name]
    return float((cross * torch.linalg.solve(seen.taps, cross)).sum()) / max(seen.energy[name], 1e-30)


def _felt(
    net: NormalNet, images: Sequence[Image], operands: dict[str, list[Layer]], options: GuideOptions
) -> dict[str, float]:
    """What noise of variance 1 in an operand adds to the image's mean squared error, by its readers together: their
    gradients brought to their input."""
    generator, found = torch.Generator().manual_seed(options.seed), dict.fromkeys(operands, 0.0)
    names = [conv.name for convs in operands.values() for conv in convs]
    for image in images:
        seen: dict[str, Tensor] = {}
        output = evaluate(net, real_image(net, image).requires_grad_(), seen.__setitem__)
        for gradients in probes(output, seen, names, generator, options.probes):
            for name, convs in operands.items():
                inward = torch.zeros(())
                for conv in convs:
                    assert conv.weight is not None
                    rows, columns = conv.weight.shape[2:]
                    inward = inward + conv2d_input(
                        seen[name].shape,
                        conv.weight.float(),
                        gradients[conv.name],
                        padding=(rows // 2, columns // 2),
                        groups=conv.groups,
                    )
                found[name] += float(inward.double().square().sum()) / output.numel()
    return {name: power / (len(images) * options.probes) for name, power in found.items()}


def _choose(
    net: NormalNet,
    operands: dict[str, list[Layer]],
    noise: dict[str, float],
    gain: dict[str, float],
    channels: int,
    options: GuideOptions,
) -> list[str]:
    """The operands, in order, whose guides together take most noise within the work that may be added; none that takes
    less than ``least`` of all operands' noise."""
    counts, scale, whole = channel_counts(net.layers, net.channels), upscales(net), sum(noise.values())
    names = [name for name in operands if gain[name] > 0 and gain[name] >= options.least * whole]
    if not names:
        return []
    cost, allowed = [], options.work * sum(_work(net).values())
    for name in names:
        own = counts[name] * scale[name] ** 2  # the 1x1 convolution that makes B a
        for conv in operands[name]:
            down, right = _reach(conv, scale[name])
            own += counts[conv.name] * scale[conv.name] ** 2 * (2 * down + 1) * (2 * right + 1)
        cost.append(channels * own / allowed)
    found = milp(
        [-gain[name] / whole for name in names],
        constraints=LinearConstraint(np.array([cost]), ub=1.0),
        integrality=np.ones(len(names)),
        bounds=Bounds(0, 1),
    )
    return [name for name, taken in zip(names, found.x, strict=True) if taken > 0.5]


def _work(net: NormalNet) -> dict[str, int]:
    """Convolution -> multiply-adds per pixel of the image."""
    scale = upscales(net)
    return {
        layer.name: layer.weight.numel() * scale[layer.name] ** 2 for layer in net.layers if layer.weight is not None
    }


def _directions(seen: Seen, noise: dict[str, float], channels: int) -> Tensor:
    """(T, channels): the combinations of taps, of mean square 1, that take most noise from the chosen operands."""
    root = torch.linalg.cholesky(seen.taps)
    each = [
        torch.linalg.solve_triangular(root, seen.cross[name] * math.sqrt(power / seen.energy[name]), upper=False)
        for name, power in noise.items()
    ]
    vectors = torch.linalg.svd(torch.cat(each, dim=1), full_matrices=False)[0][:, :channels]
    return torch.linalg.solve_triangular(root.T, vectors, upper=True)


# --- layers -------------------------------------------------------------------------------------------------------


def _insert(net: NormalNet, guide: Guide, weight: Tensor, shares: dict[str, Tensor]) -> NormalNet:
    """The network with its guide. weight: (R, image channels, 3, 3); shares: operand -> B (C s s, R)."""
    scale, layers, renamed = upscales(net), list[Layer](), dict[str, str]()
    rests: dict[str, str] = {}

    def add_conv(name: str, source: str, kernel: Tensor, factor: int) -> str:
        layers.append(Layer("conv", name, (source,), weight=kernel, bias=kernel.new_zeros(len(kernel))))
        if factor == 1:
            return name
        layers.append(Layer("shuffle", f"{name}_up", (name,), factor=factor))
        return f"{name}_up"

    for original in net.layers:
        layer = replace(original, inputs=tuple(renamed.get(name, name) for name in original.inputs))
        if layer.name not in guide.convs:
            layers.append(layer)
            if layer.op == "image":
                add_conv(guide.name, layer.name, weight, 1)
            continue
        operand, factor = original.inputs[0], scale[original.inputs[0]]
        share = shares[operand]
        if operand not in rests:
            less = add_conv(f"{operand}_less", guide.name, -share[:, :, None, None], factor)
            layers.append(Layer("add", f"{operand}_rest", (layer.inputs[0], less)))
            rests[operand] = f"{operand}_rest"
        layers.append(replace(layer, inputs=(rests[operand],)))
        around = add_conv(f"{layer.name}_guided", guide.name, composed(original, share, factor), factor)
        layers.append(Layer("add", f"{layer.name}_whole", (layer.name, around)))
        renamed[layer.name] = f"{layer.name}_whole"
    return replace(net, layers=tuple(layers), guide=guide)


def composed(conv: Layer, share: Tensor, factor: int) -> Tensor:
    """conv B as one convolution at the image's size: (O s s, R, kh, kw), the phases of a pixel shuffle as channels.

    share: B (C s s, R), which a pixel shuffle by ``factor`` = s would bring to the convolution's size.
    """
    weight = dense_weight(conv)
    outs, ins, rows, columns = weight.shape
    maps = share.reshape(ins, factor, factor, -1)
    down, right = _reach(conv, factor)
    kernel = weight.new_zeros(outs, factor, factor, maps.shape[3], 2 * down + 1, 2 * right + 1)
    for i in range(factor):
        for j in range(factor):
            for u in range(rows):
                for v in range(columns):
                    y, k = divmod(i + u - rows // 2, factor)
                    x, m = divmod(j + v - columns // 2, factor)
                    kernel[:, i, j, :, y + down, x + right] += weight[:, :, u, v] @ maps[:, k, m]
    return kernel.reshape(outs * factor**2, -1, 2 * down + 1, 2 * right + 1)


def _reach(conv: Layer, factor: int) -> tuple[int, int]:
    """How many small pixels a convolution of the larger image sees to each side."""
    assert conv.weight is not None
    rows, columns = conv.weight.shape[2:]
    return math.ceil((rows // 2) / factor), math.ceil((columns // 2) / factor)


def _free_name(net: NormalNet) -> str:
    names, name = {layer.name for layer in net.layers}, "guide"
    while name in names:
        name += "_"
    return name
