"""IntGraph straight from the frozen integers, without the QONNX file in between: one end of the hash equality."""

from __future__ import annotations

import numpy as np

from srq_hw.fixedpoint import bits_for
from srq_hw.graph.ir import Attr, IntGraph, Node, Tensor
from srq_hw.graph.passes import UNPROVEN_BITS, run_passes
from srq_hw.graph.taps import filter_taps
from srq_hw.normalform.normal import Layer
from srq_hw.quantize.freeze import Frozen
from srq_hw.quantize.plan import IMAGE_BITS
from srq_hw.quantize.sums import align, exact_step


def to_intgraph(frozen: Frozen) -> IntGraph:
    """The integer program of a frozen network, passes run."""
    builder = _Builder(frozen)
    for layer in frozen.plan.layers:
        builder.place(layer)
    output = builder.alias[frozen.plan.layers[-1].name]
    return run_passes(IntGraph(frozen.plan.net.name, "image", output, tuple(builder.nodes), builder.tensors))


class _Builder:
    """Nodes and tensors so far; ``alias`` says which integers carry a layer's values."""

    def __init__(self, frozen: Frozen) -> None:
        self.frozen = frozen
        self.scales = {quant.point.group: quant.scale for quant in frozen.quants.values()}
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.alias: dict[str, str] = {}

    def emit(
        self,
        node: Node,
        channels: int,
        bits: int,
        signed: bool,
        upscale: int,
        scale: float | None,
        zero_point: int = 0,
    ) -> None:
        self.nodes.append(node)
        self.tensors[node.output] = Tensor(node.output, channels, bits, signed, upscale, zero_point, scale)
        self.alias[node.name] = node.output

    def place(self, layer: Layer) -> None:
        name = layer.name
        sources = tuple(self.alias[item] for item in layer.inputs)
        if layer.op == "image":
            self.tensors["image"] = Tensor("image", self.frozen.plan.net.channels, IMAGE_BITS, False, scale=1.0)
            self.alias[name] = "image"
            return
        first = self.tensors[sources[0]]
        if layer.op in ("relu", "prelu"):
            self.alias[name] = sources[0]
        elif layer.op == "quant":
            self._quant(layer, sources[0])
        elif layer.op == "offset":
            assert layer.offset is not None
            lo, hi = min(layer.offset) + first.range[0], max(layer.offset) + first.range[1]
            params = {"offset": np.array(layer.offset, np.int64)}
            self.emit(
                Node("Offset", name, sources, name, {}, params), first.channels, bits_for(lo, hi, True), True, 1, 1.0
            )
        elif layer.op == "conv":
            conv = self.frozen.convs[name]
            node = Node(
                "Conv", name, sources, name, {"groups": layer.groups}, {"weight": conv.weight, "bias": conv.bias}
            )
            self.emit(node, conv.weight.shape[0], UNPROVEN_BITS, True, first.upscale, None)
        elif layer.op == "add":
            multipliers, step = align(self.frozen.plan, layer, self.scales)
            node = Node("Add", name, sources, name, {"multipliers": multipliers})
            self.emit(node, first.channels, UNPROVEN_BITS, True, first.upscale, step)
        elif layer.op == "concat":
            channels = sum(self.tensors[source].channels for source in sources)
            self.emit(
                Node("Concat", name, sources, name),
                channels,
                first.bits,
                first.signed,
                first.upscale,
                first.scale,
                first.zero_point,
            )
        elif layer.op == "shuffle":
            node = Node("DepthToSpace", name, sources, name, {"block": layer.factor, "mode": "CRD"})
            channels = first.channels // layer.factor**2
            upscale = first.upscale * layer.factor
            self.emit(node, channels, first.bits, first.signed, upscale, first.scale, first.zero_point)
        elif layer.op == "slice":
            assert layer.span is not None
            start, stop = layer.span
            node = Node("Slice", name, sources, name, {"start": start, "stop": stop})
            self.emit(node, stop - start, first.bits, first.signed, first.upscale, first.scale, first.zero_point)
        elif layer.op == "filter":
            assert layer.kernel is not None and first.scale is not None
            taps, denominator = filter_taps(layer.kernel, layer.factor)
            attrs: dict[str, Attr] = {"factor": layer.factor, "denominator": denominator}
            node = Node("ResizeFilter", name, sources, name, attrs, {"taps": taps})
            step = exact_step(layer, first.scale)
            self.emit(node, first.channels, UNPROVEN_BITS, True, first.upscale * layer.factor, step)
        else:
            assert layer.op == "resize", layer.op
            node = Node("ResizeNearest", name, sources, name, {"factor": layer.factor})
            upscale = first.upscale * layer.factor
            self.emit(node, first.channels, first.bits, first.signed, upscale, first.scale, first.zero_point)

    def _quant(self, layer: Layer, source: str) -> None:
        quant = self.frozen.quants[layer.name]
        if quant.multiplier is None or quant.shift is None:  # the image is integers already
            self.alias[layer.name] = source
            return
        params = {"multiplier": quant.multiplier, "shift": quant.shift}
        if quant.negative_multiplier is not None:
            params["negative_multiplier"] = quant.negative_multiplier
        (lo, hi), zero_point = quant.point.stored, quant.point.zero_point
        hi = hi if quant.limit is None else quant.limit + zero_point
        if self.frozen.plan.layer(quant.point.source).op == "relu":
            lo = max(lo, zero_point)  # signed behind a ReLU where a concat wants one type
        attrs: dict[str, Attr] = {"rounding": self.frozen.rounding, "lo": lo, "hi": hi, "zero_point": zero_point}
        tensor = self.tensors[source]
        self.emit(
            Node("Requant", layer.name, (source,), layer.name, attrs, params),
            tensor.channels,
            quant.point.bits,
            quant.point.signed,
            tensor.upscale,
            quant.scale,
            zero_point,
        )
