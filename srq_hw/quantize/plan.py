"""Where the quantizers stand, what type each makes, and which of them share one scale.

Every convolution and every sum is quantized behind its activation where it has one, as wide as its widest reader wants
it; a reader that wants fewer bits gets a second, narrower quantizer behind the first. The image and the output have the
fixed grid of one grey level.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from srq_hw.errors import InputError
from srq_hw.fixedpoint import int_range
from srq_hw.normalform.groups import dense_groups
from srq_hw.normalform.normal import Layer, NormalNet, users
from srq_hw.normalform.slopes import split_negative_slopes
from srq_hw.quantize.policy import Bits, LayerPolicy, choose_bits
from srq_hw.target import Target

#: layers whose output carries the integers of their input unchanged
PASS_THROUGH = ("shuffle", "resize", "concat", "slice")
#: the image, in and out, is 8 bits wide, one grey level per step
IMAGE_BITS = 8


@dataclass(frozen=True)
class QuantPoint:
    """One activation quantizer.

    tensor: the layer of the float network whose values it carries; source: the layer whose output it quantizes (tensor,
    or the wider integers of it); producer: the convolution, sum or image in front (source itself, or the layer before a
    fused activation); group: quantizers of one group share one scale and one zero_point, the stored integer of the real
    0; fixed: the scale is one grey level and no calibration moves it; grey_fraction: the scale is one grey level times
    a power of two (it meets a filtered image).
    """

    name: str
    source: str
    producer: str
    bits: int
    signed: bool
    group: str
    tensor: str
    fixed: bool = False
    grey_fraction: bool = False
    zero_point: int = 0

    @property
    def stored(self) -> tuple[int, int]:
        """Smallest and largest integer of the type."""
        return int_range(self.bits, self.signed)

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest value in steps: the stored integers less the zero point."""
        lo, hi = self.stored
        return lo - self.zero_point, hi - self.zero_point


@dataclass(frozen=True, eq=False)
class QuantPlan:
    """The network with its quantizers: layers in order (op "quant" among them), points by name.

    weight_bits and act_bits are the widths asked for; bits says which every convolution got (the image and the output
    are 8 bits wide).
    """

    net: NormalNet
    layers: tuple[Layer, ...]
    points: dict[str, QuantPoint]
    weight_bits: int
    act_bits: int
    bits: Bits = field(default_factory=lambda: Bits({}, {}, 8))
    policy: LayerPolicy = field(default_factory=LayerPolicy)

    def weight_bits_of(self, conv: str) -> int:
        """Width of a convolution's weights."""
        return self.bits.weights.get(conv, self.weight_bits)

    def point_of(self, tensor: str) -> QuantPoint:
        """The quantizer whose integers the tensor carries (looks through shuffles, resizes, concats, the offset)."""
        by_name = {layer.name: layer for layer in self.layers}
        while tensor not in self.points:
            tensor = by_name[tensor].inputs[0]
        return self.points[tensor]

    def net_layer(self, name: str) -> Layer:
        """A layer of the float network by name."""
        return next(layer for layer in self.net.layers if layer.name == name)

    def layer(self, name: str) -> Layer:
        """A layer by name."""
        return next(layer for layer in self.layers if layer.name == name)


def make_plan(
    net: NormalNet,
    target: Target,
    weight_bits: int | None = None,
    act_bits: int | None = None,
    policy: LayerPolicy | None = None,
) -> QuantPlan:
    """Place the quantizers for a target. InputError where the widths are outside what the target allows."""
    weights, activations = target.integer.weights.bits, target.integer.activations.bits
    weight_bits = _checked(weight_bits, weights.default, weights.min, weights.max, "--weight-bits", target.name)
    act_bits = _checked(act_bits, activations.default, activations.min, activations.max, "--act-bits", target.name)
    net = split_negative_slopes(dense_groups(net, target), target)
    policy = policy or LayerPolicy()
    bits = choose_bits(net, target, weight_bits, act_bits, policy)
    least: dict[str, int] = {}
    while True:
        layers, points = _Placement(net, bits, least).run()
        plan = QuantPlan(net, tuple(layers), points, weight_bits, act_bits, bits, policy)
        points = _share_scales(plan)
        held = _hold_residuals(points, plan, target)
        if not held:
            return replace(plan, points=points)
        least |= held  # and place again: convolutions that read them want a narrower quantizer behind


def _checked(bits: int | None, default: int, lowest: int, highest: int, option: str, target: str) -> int:
    if bits is None:
        return default
    if not lowest <= bits <= highest:
        raise InputError(f"{option} (or --bits) {bits}: target {target} allows {lowest} to {highest}")
    return bits


class _Placement:
    """Inserts the quant layers; ``reads`` says which tensor carries a float layer's values now."""

    def __init__(self, net: NormalNet, bits: Bits, least: dict[str, int]) -> None:
        self.net, self.bits, self.least = net, bits, least
        self.last = _output_producer(net)
        self.layers: list[Layer] = []
        self.points: dict[str, QuantPoint] = {}
        self.reads: dict[str, str] = {}
        self.unsigned: dict[str, bool] = {}
        self.width: dict[str, int] = {}  # bits of every tensor that carries integers
        self.narrowed: dict[tuple[str, int], str] = {}
        self.grey: set[str] = set()  # tensors of the image's own integers, which nothing narrows

    def run(self) -> tuple[list[Layer], dict[str, QuantPoint]]:
        """Layers in order, quantizers by name."""
        for layer in self.net.layers:
            self._place(layer)
        return self.layers, self.points

    def _quantize(self, point: QuantPoint) -> str:
        self.points[point.name] = point
        self.layers.append(Layer("quant", point.name, (point.source,)))
        self.unsigned[point.name] = not point.signed
        self.width[point.name] = point.bits
        return point.name

    def _narrow(self, tensor: str, bits: int) -> str:
        """The float layer's tensor in so many bits: as it is, or through one more quantizer behind it."""
        wide = self.reads[tensor]
        if self.width.get(wide, bits) <= bits or wide in self.grey:
            return wide
        if (tensor, bits) not in self.narrowed:
            name = f"{tensor}_quant{bits}"
            signed = not self.unsigned[wide]
            self.narrowed[tensor, bits] = self._quantize(QuantPoint(name, wide, wide, bits, signed, name, tensor))
        return self.narrowed[tensor, bits]

    def _place(self, layer: Layer) -> None:
        wanted = _wanted_bits(self.net, self.bits, layer.name)
        takes = {  # how wide this layer wants its inputs
            "conv": self.bits.activations.get(layer.name),
            "concat": max(wanted, default=None),
        }.get(layer.op)
        names = (self._narrow(name, takes) if takes else self.reads.get(name, name) for name in layer.inputs)
        placed = replace(layer, inputs=tuple(names))
        if layer.op == "image":
            self.layers.append(replace(placed, offset=None))
            self.reads["image"] = self._quantize(
                QuantPoint("image_quant", layer.name, layer.name, IMAGE_BITS, False, "image_quant", layer.name, True)
            )
            if layer.offset is not None:
                self.layers.append(Layer("offset", "image_offset", (self.reads["image"],), offset=layer.offset))
                self.reads["image"] = "image_offset"
            self.grey |= {"image_quant", "image_offset"}
            return
        self.layers.append(placed)
        self.reads[layer.name] = layer.name
        if layer.op in PASS_THROUGH:
            self.unsigned[layer.name] = all(self.unsigned.get(name, False) for name in placed.inputs)
            self.width[layer.name] = max(self.width.get(name, IMAGE_BITS) for name in placed.inputs)
            if self.grey.issuperset(placed.inputs):
                self.grey.add(layer.name)
            return
        if _fused_activation(self.net, layer) is not None:
            return  # the activation reads the raw accumulator
        if _stays_exact(self.net, layer):
            return  # the sum reads the filtered image unrounded
        producer = layer.name
        if layer.op in ("relu", "prelu") and not _is_quantized(self.net, layer.inputs[0]):
            producer = layer.inputs[0]
        is_last = layer.name == self.last
        signed = not (
            is_last
            or layer.op == "relu"
            or (layer.op in ("add", "prelu") and all(self.unsigned.get(name, False) for name in placed.inputs))
            or (layer.kernel == "bilinear" and self.unsigned.get(placed.inputs[0], False))
        )
        name = f"{layer.name}_quant"
        bits = max(IMAGE_BITS if is_last else max(wanted, default=self.bits.sums), self.least.get(name, 0))
        self.reads[layer.name] = self._quantize(
            QuantPoint(name, layer.name, producer, bits, signed, name, layer.name, is_last)
        )


def _wanted_bits(net: NormalNet, bits: Bits, name: str) -> set[int]:
    """Widths in which a tensor is read, looking through layers that move integers only."""
    found: set[int] = set()
    for reader in users(net.layers, name):
        if reader.op == "conv":
            found.add(bits.activations[reader.name])
        elif reader.op in PASS_THROUGH:
            found |= _wanted_bits(net, bits, reader.name)
        else:
            found.add(bits.sums)
    return found


def zero_point_groups(plan: QuantPlan) -> set[str]:
    """Groups that may have a zero point: signed tensors that only convolutions read, which subtract it for nothing.

    A sum, a filter or an activation of its own would need the real 0 at the integer 0.
    """

    def feeds_convs_only(tensor: str) -> bool:
        readers = [layer for layer in plan.layers if tensor in layer.inputs]
        return bool(readers) and all(
            reader.op == "conv" or (reader.op in PASS_THROUGH and feeds_convs_only(reader.name)) for reader in readers
        )

    refused = {
        point.group
        for name, point in plan.points.items()
        if not point.signed or point.fixed or point.grey_fraction or not feeds_convs_only(name)
    }
    return {point.group for point in plan.points.values()} - refused


def with_zero_points(plan: QuantPlan, zero_points: dict[str, int]) -> QuantPlan:
    """The plan with these zero points, by group; 0 where none is named."""
    points = {name: replace(point, zero_point=zero_points.get(point.group, 0)) for name, point in plan.points.items()}
    return replace(plan, points=points)


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


def _stays_exact(net: NormalNet, layer: Layer) -> bool:
    """Whether sums read the filter's exact integers: it filters the image itself, and what it meets is quantized."""
    image = net.layers[0]
    if layer.op != "filter" or layer.inputs != (image.name,) or image.offset is not None:
        return False
    by_name = {item.name: item for item in net.layers}
    return all(
        reader.op == "add" and [by_name[name].op for name in reader.inputs].count("filter") == 1
        for reader in users(net.layers, layer.name)
    )


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
    beside_filters: list[str] = []
    for layer in plan.layers:
        if layer.op in ("add", "concat"):
            quantized = [source for source in layer.inputs if by_name[source].op != "filter"]
            names = [name for source in quantized for name in carried(source)]
            for name in names[1:]:
                parent[root(name)] = root(names[0])
            if len(quantized) < len(layer.inputs):
                beside_filters.extend(names)
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
    fractions = {root(name) for name in beside_filters} - fixed
    return {
        name: replace(
            point,
            group=root(name),
            fixed=point.fixed or root(name) in fixed,
            grey_fraction=root(name) in fractions,
        )
        for name, point in points.items()
    }


def _hold_residuals(points: dict[str, QuantPoint], plan: QuantPlan, target: Target) -> dict[str, int]:
    """Quantizer -> bits that it lacks: what is added to the image itself has its step of one grey level, and fewer bits
    would not coarsen but cut it.

    A signed one gets a bit more than the image where the target's sums have it, so that nothing is cut.
    """
    joined = {plan.point_of(name).name for layer in plan.layers if layer.op == "concat" for name in layer.inputs}
    found = {}
    for name, point in points.items():
        if point.fixed and not plan.points[name].fixed and name not in joined:
            least = min(IMAGE_BITS + point.signed, target.integer.sums_bits_max)
            if point.bits < least:
                found[name] = least
    return found


def _require_free_image(plan: QuantPlan, points: dict[str, QuantPoint]) -> None:
    """The image and the output are unsigned grey levels: a concat with a signed tensor cannot make them signed."""
    for name, point in points.items():
        if point.signed != plan.points[name].signed and point.fixed:
            raise InputError(
                f"network {plan.net.name}, layer {point.source}: the image is concatenated with a signed tensor, and a "
                "concatenation has one integer type. Put a convolution or a ReLU between them."
            )
