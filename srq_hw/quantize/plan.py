"""Where the quantizers stand, what type each makes, and which of them share one scale.

Every convolution and every sum is quantized once, behind its activation where it has one; the image and the output
have the fixed grid of one grey level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from srq_hw.errors import InputError
from srq_hw.fixedpoint import int_range
from srq_hw.quantize.normal import Layer, NormalNet, users
from srq_hw.target import Target

#: layers whose output carries the integers of their input unchanged
PASS_THROUGH = ("shuffle", "resize", "concat")
#: the image, in and out, is 8 bits wide, one grey level per step
IMAGE_BITS = 8


@dataclass(frozen=True)
class QuantPoint:
    """One activation quantizer.

    source: the layer whose output it quantizes; producer: the convolution, sum or image in front (source itself, or
    the layer before a fused activation); group: quantizers of one group share one scale; fixed: the scale is one grey
    level and no calibration moves it.
    """

    name: str
    source: str
    producer: str
    bits: int
    signed: bool
    group: str
    fixed: bool = False

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return int_range(self.bits, self.signed)


@dataclass(frozen=True, eq=False)
class QuantPlan:
    """The network with its quantizers: layers in order (op "quant" among them), points by name.

    offset: integer grey levels per channel that recentre the image, or None. weight_bits and act_bits hold for every
    layer but the image and the output, which are 8 bits.
    """

    net: NormalNet
    layers: tuple[Layer, ...]
    points: dict[str, QuantPoint]
    weight_bits: int
    act_bits: int

    def point_of(self, tensor: str) -> QuantPoint:
        """The quantizer whose integers the tensor carries (looks through shuffles, resizes, concats, the offset)."""
        by_name = {layer.name: layer for layer in self.layers}
        while tensor not in self.points:
            tensor = by_name[tensor].inputs[0]
        return self.points[tensor]

    def layer(self, name: str) -> Layer:
        """A layer by name."""
        return next(layer for layer in self.layers if layer.name == name)


def make_plan(net: NormalNet, target: Target, weight_bits: int | None = None, act_bits: int | None = None) -> QuantPlan:
    """Place the quantizers for a target. InputError where the widths are outside what the target allows."""
    weights, activations = target.integer.weights.bits, target.integer.activations.bits
    weight_bits = _checked(weight_bits, weights.default, weights.min, weights.max, "--weight-bits", target.name)
    act_bits = _checked(act_bits, activations.default, activations.min, activations.max, "--act-bits", target.name)
    layers, points = _place(net, act_bits)
    plan = QuantPlan(net, tuple(layers), points, weight_bits, act_bits)
    return replace(plan, points=_share_scales(plan))


def _checked(bits: int | None, default: int, lowest: int, highest: int, option: str, target: str) -> int:
    if bits is None:
        return default
    if not lowest <= bits <= highest:
        raise InputError(f"{option} (or --bits) {bits}: target {target} allows {lowest} to {highest}")
    return bits


def _place(net: NormalNet, act_bits: int) -> tuple[list[Layer], dict[str, QuantPoint]]:
    """Insert a quant layer behind every producer; readers move to it."""
    last = _output_producer(net)
    layers: list[Layer] = []
    points: dict[str, QuantPoint] = {}
    reads: dict[str, str] = {}  # float layer name -> tensor its readers take now
    unsigned: dict[str, bool] = {}

    def quantize(source: str, producer: str, bits: int, signed: bool, fixed: bool) -> str:
        name = f"{source}_quant"
        points[name] = QuantPoint(name, source, producer, bits, signed, name, fixed)
        layers.append(Layer("quant", name, (source,)))
        unsigned[name] = not signed
        return name

    for layer in net.layers:
        fused = _fused_activation(net, layer)
        placed = replace(layer, inputs=tuple(reads.get(name, name) for name in layer.inputs))
        if layer.op == "image":
            layers.append(replace(placed, offset=None))
            reads[layer.name] = quantize(layer.name, layer.name, IMAGE_BITS, False, True)
            if layer.offset is not None:
                layers.append(Layer("offset", "image_offset", (reads[layer.name],), offset=layer.offset))
                reads[layer.name] = "image_offset"
            continue
        layers.append(placed)
        if layer.op in PASS_THROUGH:
            unsigned[layer.name] = all(unsigned.get(name, False) for name in placed.inputs)
            continue
        if fused is not None:
            reads[layer.name] = layer.name  # the activation reads the raw accumulator
            continue
        producer = layer.name
        if layer.op in ("relu", "prelu") and not _is_quantized(net, layer.inputs[0]):
            producer = layer.inputs[0]
        is_last = layer.name == last
        signed = not (
            is_last
            or layer.op == "relu"
            or (layer.op in ("add", "prelu") and all(unsigned.get(name, False) for name in placed.inputs))
        )
        bits = IMAGE_BITS if is_last else act_bits
        reads[layer.name] = quantize(layer.name, producer, bits, signed, is_last)
    return layers, points


def _output_producer(net: NormalNet) -> str:
    """The layer whose quantizer makes the output image: the last one, or the one in front of last shuffles."""
    layer = net.layers[-1]
    while layer.op in ("shuffle", "resize"):
        layer = next(item for item in net.layers if item.name == layer.inputs[0])
    if layer.op in ("image", "concat") or len(users(net.layers, layer.name)) > 1:
        raise InputError(
            f"network {net.name}: the output must come from a convolution or a sum of its own, not {layer.name}"
        )
    return layer.name


def _fused_activation(net: NormalNet, layer: Layer) -> Layer | None:
    """The activation that is the only reader of a convolution or a sum: both share one quantizer."""
    readers = users(net.layers, layer.name)
    if layer.op in ("conv", "add") and len(readers) == 1 and readers[0].op in ("relu", "prelu"):
        return readers[0]
    return None


def _is_quantized(net: NormalNet, name: str) -> bool:
    """Whether an activation reading this layer reads a quantized tensor (it is not fused)."""
    layer = next(item for item in net.layers if item.name == name)
    return _fused_activation(net, layer) is None


def _share_scales(plan: QuantPlan) -> dict[str, QuantPoint]:
    """Tensors that meet in a sum or a concat get one scale (union-find over quantizer names)."""
    parent = {name: name for name in plan.points}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    by_name = {layer.name: layer for layer in plan.layers}

    def carried(tensor: str) -> list[str]:
        """All quantizers whose integers reach the tensor."""
        if tensor in plan.points:
            return [tensor]
        return [name for source in by_name[tensor].inputs for name in carried(source)]

    points = dict(plan.points)
    for layer in plan.layers:
        if layer.op in ("add", "concat"):
            names = [name for source in layer.inputs for name in carried(source)]
            for name in names[1:]:
                parent[root(name)] = root(names[0])
    mixed = True
    while mixed:  # a tensor in two concats carries its sign from one to the other
        mixed = False
        for layer in plan.layers:
            names = [name for source in layer.inputs for name in carried(source)] if layer.op == "concat" else []
            if len({points[name].bits for name in names}) > 1:
                raise InputError(
                    f"network {plan.net.name}, layer {layer.name}: concatenates tensors of "
                    f"{sorted({points[name].bits for name in names})} bits (the image has {IMAGE_BITS}), and a "
                    f"concatenation has one integer type. Use --act-bits {IMAGE_BITS}, or put a convolution in between."
                )
            if len({points[name].signed for name in names}) > 1:
                mixed = True
                points |= {name: replace(points[name], signed=True) for name in names}
        _require_free_image(plan, points)
    fixed = {root(name) for name, point in points.items() if point.fixed}
    return {
        name: replace(point, group=root(name), fixed=point.fixed or root(name) in fixed)
        for name, point in points.items()
    }


def _require_free_image(plan: QuantPlan, points: dict[str, QuantPoint]) -> None:
    """The image and the output are unsigned grey levels: a concat with a signed tensor cannot make them signed."""
    for name, point in points.items():
        if point.signed != plan.points[name].signed and point.fixed:
            raise InputError(
                f"network {plan.net.name}, layer {point.source}: the image is concatenated with a signed tensor, and a "
                "concatenation has one integer type. Put a convolution or a ReLU between them."
            )
