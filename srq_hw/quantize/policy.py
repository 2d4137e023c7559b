"""Which layer gets how many bits: the recipe's policy worked out for a network and a target."""

from __future__ import annotations

from dataclasses import dataclass, field

from srq_hw.errors import InputError
from srq_hw.normalform.normal import NormalNet, upscales, users
from srq_hw.target import Target
from srq_hw.yamlfile import did_you_mean


@dataclass(frozen=True)
class LayerPolicy:
    """What a recipe asks for; None: as every other layer.

    edges: bits of the weights of the first and last convolutions, and of what the last ones read; tail: the same of all
    convolutions from the upsampling on; sums: bits of the operands and results of sums (a skip carries the whole
    signal); weights, activations: convolution -> bits of its weights and of its input, before everything else.
    """

    edges: int | None = None
    tail: int | None = None
    sums: int | None = None
    weights: dict[str, int] = field(default_factory=dict)
    activations: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Bits:
    """The policy worked out. weights, activations: convolution -> width of its weights and of its input."""

    weights: dict[str, int]
    activations: dict[str, int]
    sums: int


def choose_bits(net: NormalNet, target: Target, weight_bits: int, act_bits: int, policy: LayerPolicy) -> Bits:
    """Widths of every convolution. InputError for a name or a width that does not exist here."""
    convs = [layer.name for layer in net.layers if layer.op == "conv"]
    for name in (*policy.weights, *policy.activations):
        if name not in convs:
            raise InputError(
                f"policy: network {net.name} has no convolution {name!r}{did_you_mean(name, convs)}; it has "
                f"{', '.join(convs)}"
            )
    edges = {conv for conv in convs if _reads_image(net, conv) or _makes_output(net, conv)}
    tail = _tail(net)
    weights, activations = {}, {}
    for conv in convs:
        own = max(policy.edges or 0 if conv in edges else 0, policy.tail or 0 if conv in tail else 0)
        weights[conv] = policy.weights.get(conv, own or weight_bits)
        activations[conv] = policy.activations.get(conv, own or act_bits)
    bits = Bits(weights, activations, policy.sums or act_bits)
    _require(target, bits)
    return bits


def _require(target: Target, bits: Bits) -> None:
    rules = target.integer
    asked = [
        ("weights", name, wide, rules.weights.bits.min, rules.weights.bits.max) for name, wide in bits.weights.items()
    ]
    asked += [
        ("activations", name, wide, rules.activations.bits.min, rules.activations.bits.max)
        for name, wide in bits.activations.items()
    ]
    asked.append(("sums", "the policy", bits.sums, rules.activations.bits.min, rules.sums_bits_max))
    for what, name, wide, least, most in asked:
        if not least <= wide <= most:
            raise InputError(
                f"policy: {wide} bits for the {what} of {name}; target {target.name} allows {least} to {most}"
            )


def _reads_image(net: NormalNet, conv: str) -> bool:
    """Whether a convolution reads the image, or the channels that guide others through it."""
    layer = next(item for item in net.layers if item.name == conv)
    return net.layers[0].name in layer.inputs or (net.guide is not None and net.guide.name in layer.inputs)


def _tail(net: NormalNet) -> set[str]:
    """The convolutions behind which no other one works at the image's own size: what papers call the tail (upsampler
    and last convolution of an EDSR). Empty where none works at that size at all."""
    scale, found = upscales(net), set[str]()
    small = {layer.name for layer in net.layers if layer.op == "conv" and scale[layer.name] == 1}
    if not small:
        return found
    behind: dict[str, bool] = {}  # layer -> whether a convolution at the image's size follows it
    for layer in reversed(net.layers):
        behind[layer.name] = any(user.name in small or behind[user.name] for user in users(net.layers, layer.name))
        if layer.op == "conv" and not behind[layer.name]:
            found.add(layer.name)
    return found


def _makes_output(net: NormalNet, conv: str) -> bool:
    """Whether only layers without weights stand between the convolution and the output."""
    readers = users(net.layers, conv)
    return all(reader.op != "conv" and _makes_output(net, reader.name) for reader in readers)
