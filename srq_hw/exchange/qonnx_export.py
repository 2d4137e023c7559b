"""Export a frozen network as QONNX: Quant nodes, float32 scales, one node per layer under the layer's own name.

The file reads grey levels (1, C, H, W) in 0..255 and makes grey levels. qonnx has no rounding mode for floor(x + 1/2),
so a half_up target is written as ``Add(scale / 2)`` in front of a FLOOR quantizer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from srq_hw import __version__
from srq_hw.files import write_bytes
from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.graph.taps import filter_taps, taps_are_exact
from srq_hw.normalform.normal import Layer
from srq_hw.quantize.freeze import Frozen
from srq_hw.target import Target

QUANT_DOMAIN = "qonnx.custom_op.general"
OPSET = 18
IR_VERSION = 9
#: metadata keys of the file
META_PREFIX = "srq_hw."


def export_qonnx(frozen: Frozen, target: Target, size: tuple[int, int]) -> onnx.ModelProto:
    """The QONNX model for an image of (height, width)."""
    writer = _Writer(frozen, size)
    for layer in frozen.plan.layers:
        WRITERS[layer.op](writer, layer)
    last = frozen.plan.layers[-1].name
    upscale = writer.upscale[last]
    channels = writer.channels[last]
    graph = helper.make_graph(
        writer.nodes,
        frozen.plan.net.name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, frozen.plan.net.channels, *size])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, channels, size[0] * upscale, size[1] * upscale])],
        writer.initializers,
        value_info=writer.value_info(last),
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(QUANT_DOMAIN, 1)],
        ir_version=IR_VERSION,
        producer_name="srq-hw",
        producer_version=__version__,
    )
    for key, value in sorted(_metadata(frozen, target).items()):
        helper.set_model_props(model, {**{p.key: p.value for p in model.metadata_props}, META_PREFIX + key: value})
    onnx.checker.check_model(model)
    return model


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write the file atomically; the same model gives the same bytes."""
    write_bytes(path, model.SerializeToString(deterministic=True))


def _metadata(frozen: Frozen, target: Target) -> dict[str, str]:
    requant = {
        name: {"multiplier": quant.multiplier.tolist(), "shift": quant.shift.tolist()}
        for name, quant in frozen.quants.items()
        if quant.multiplier is not None and quant.shift is not None
    }
    return {
        "version": __version__,
        "target": target.name,
        "target_sha256": target.sha256,
        "rounding": frozen.rounding,
        "requant": json.dumps(requant, sort_keys=True, separators=(",", ":")),
    }


class _Writer:
    """Nodes and initializers so far; channels and upscale of every tensor."""

    def __init__(self, frozen: Frozen, size: tuple[int, int]) -> None:
        self.frozen, self.size = frozen, size
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.channels: dict[str, int] = {}
        self.upscale: dict[str, int] = {}
        self.shapes: dict[str, list[int]] = {}  # of tensors between a layer's own nodes

    def constant(self, name: str, values: npt.ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, op: str, inputs: list[str], name: str, domain: str = "", **attrs: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, domain=domain, **attrs))

    def value_info(self, output: str) -> list[onnx.ValueInfoProto]:
        """Shape of every tensor between input and output; qonnx runs nodes one by one and wants them."""
        shapes = {
            name: [1, self.channels[name], self.size[0] * self.upscale[name], self.size[1] * self.upscale[name]]
            for name in self.channels
        }
        shapes |= {f"{name}_weight_quant": list(conv.weight.shape) for name, conv in self.frozen.convs.items()}
        for node in self.nodes:  # the half step of a half_up quantizer has the shape of the quantizer
            if node.output[0].endswith("_half"):
                shapes[node.output[0]] = shapes[node.output[0].removesuffix("_half")]
        shapes |= self.shapes
        ends = ("image", output)
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
            if name not in ends
        ]

    def shaped(self, layer: Layer, channels: int | None = None, factor: int = 1) -> None:
        source = layer.inputs[0]
        self.channels[layer.name] = self.channels[source] if channels is None else channels
        self.upscale[layer.name] = self.upscale[source] * factor

    def quant(
        self,
        source: str,
        name: str,
        scale: npt.ArrayLike,
        bits: int,
        signed: bool,
        narrow: bool,
        mode: str,
        zero_point: int = 0,
    ) -> None:
        inputs = [
            source,
            self.constant(f"{name}_scale", scale),
            self.constant(f"{name}_zero_point", float(zero_point)),
            self.constant(f"{name}_bits", float(bits)),
        ]
        self.node("Quant", inputs, name, QUANT_DOMAIN, signed=int(signed), narrow=int(narrow), rounding_mode=mode)


def _image(writer: _Writer, layer: Layer) -> None:
    writer.channels[layer.name], writer.upscale[layer.name] = writer.frozen.plan.net.channels, 1


def _quant(writer: _Writer, layer: Layer) -> None:
    quant = writer.frozen.quants[layer.name]
    mode, source = ROUNDINGS[writer.frozen.rounding].qonnx, layer.inputs[0]
    if quant.multiplier is None:
        mode = "ROUND"  # the image is integers: nothing rounds
    elif mode is None:  # half_up
        half = writer.constant(f"{layer.name}_half_step", quant.scale / 2)
        writer.node("Add", [source, half], f"{layer.name}_half")
        mode, source = "FLOOR", f"{layer.name}_half"
    point = quant.point
    writer.quant(source, layer.name, quant.scale, point.bits, point.signed, False, mode, point.zero_point)
    writer.shaped(layer)


def _offset(writer: _Writer, layer: Layer) -> None:
    assert layer.offset is not None
    values = np.array(layer.offset, np.float32).reshape(1, -1, 1, 1)
    writer.node("Add", [layer.inputs[0], writer.constant(f"{layer.name}_grey_levels", values)], layer.name)
    writer.shaped(layer)


def _conv(writer: _Writer, layer: Layer) -> None:
    conv = writer.frozen.convs[layer.name]
    scale = conv.weight_scale.reshape(-1, 1, 1, 1)
    weight = writer.constant(f"{layer.name}_weight", conv.weight * scale)
    bits = writer.frozen.plan.weight_bits_of(layer.name)
    narrow = int(conv.weight.min()) > -(1 << (bits - 1))
    writer.quant(weight, f"{layer.name}_weight_quant", scale, bits, True, narrow, "ROUND")
    bias = writer.constant(f"{layer.name}_bias", conv.bias * (conv.input_scale * conv.weight_scale))
    rows, columns = conv.weight.shape[2:]
    writer.node(
        "Conv",
        [layer.inputs[0], f"{layer.name}_weight_quant", bias],
        layer.name,
        kernel_shape=[rows, columns],
        pads=[rows // 2, columns // 2, rows // 2, columns // 2],
        strides=[1, 1],
        dilations=[1, 1],
        group=layer.groups,
    )
    writer.shaped(layer, conv.weight.shape[0])


def _relu(writer: _Writer, layer: Layer) -> None:
    if layer.limits is None:
        writer.node("Relu", [layer.inputs[0]], layer.name)
    else:
        reader = next(item for item in writer.frozen.quants.values() if item.point.source == layer.name)
        assert reader.limit is not None
        # half a step further where the rule cuts off: float32 noise must not take the last level away
        top = reader.limit + (0.5 if writer.frozen.rounding in ("floor", "trunc") else 0.0)
        limits = [
            writer.constant(f"{layer.name}_{end}", value) for end, value in (("min", 0.0), ("max", top * reader.scale))
        ]
        writer.node("Clip", [layer.inputs[0], *limits], layer.name)
    writer.shaped(layer)


def _prelu(writer: _Writer, layer: Layer) -> None:
    reader = next(item for item in writer.frozen.quants.values() if item.point.source == layer.name)
    assert reader.negative_multiplier is not None and reader.multiplier is not None
    slope = (reader.negative_multiplier / reader.multiplier).reshape(-1, 1, 1)
    writer.node("PRelu", [layer.inputs[0], writer.constant(f"{layer.name}_slope", slope)], layer.name)
    writer.shaped(layer)


def _add(writer: _Writer, layer: Layer) -> None:
    writer.node("Add", list(layer.inputs), layer.name)
    writer.shaped(layer)


def _concat(writer: _Writer, layer: Layer) -> None:
    writer.node("Concat", list(layer.inputs), layer.name, axis=1)
    writer.shaped(layer, sum(writer.channels[name] for name in layer.inputs))


def _shuffle(writer: _Writer, layer: Layer) -> None:
    writer.node("DepthToSpace", [layer.inputs[0]], layer.name, blocksize=layer.factor, mode="CRD")
    writer.shaped(layer, writer.channels[layer.inputs[0]] // layer.factor**2, layer.factor)


def _resize(writer: _Writer, layer: Layer) -> None:
    scales = writer.constant(f"{layer.name}_scales", [1.0, 1.0, layer.factor, layer.factor])
    settings = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    writer.node("Resize", [layer.inputs[0], "", scales], layer.name, **settings)
    writer.shaped(layer, None, layer.factor)


def _slice(writer: _Writer, layer: Layer) -> None:
    assert layer.span is not None
    ends = [
        writer.constant(f"{layer.name}_{end}", [value], np.int64)
        for end, value in (("starts", layer.span[0]), ("ends", layer.span[1]), ("axes", 1))
    ]
    writer.node("Slice", [layer.inputs[0], *ends], layer.name)
    writer.shaped(layer, layer.span[1] - layer.span[0])


#: kernel of `graph.taps` -> settings of ONNX Resize
RESIZE_SETTINGS: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "linear"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},
    "bicubic_torch": {"mode": "cubic", "cubic_coeff_a": -0.75},
}


def _filter(writer: _Writer, layer: Layer) -> None:
    """ONNX Resize where its weights are the integer taps exactly; else the taps themselves as a convolution."""
    assert layer.kernel is not None
    if taps_are_exact(layer.kernel, layer.factor):
        scales = writer.constant(f"{layer.name}_scales", [1.0, 1.0, layer.factor, layer.factor])
        settings = RESIZE_SETTINGS[layer.kernel]
        writer.node(
            "Resize",
            [layer.inputs[0], "", scales],
            layer.name,
            coordinate_transformation_mode="half_pixel",
            **settings,
        )
    else:
        _filter_conv(writer, layer)
    writer.shaped(layer, None, layer.factor)


def _filter_conv(writer: _Writer, layer: Layer) -> None:
    """Pad by the edge, one convolution per channel that makes all phases, DepthToSpace: `lower` knows the three."""
    assert layer.kernel is not None
    taps, denominator = filter_taps(layer.kernel, layer.factor)
    size, channels, source = taps.shape[1], writer.channels[layer.inputs[0]], layer.inputs[0]
    radius = size // 2
    pads = writer.constant(f"{layer.name}_pads", [0, 0, radius, radius] * 2, np.int64)
    padded, phases = f"{layer.name}_padded", f"{layer.name}_phases"
    writer.node("Pad", [source, pads], padded, mode="edge")
    planes = np.einsum("ia,jb->ijab", taps, taps).reshape(-1, 1, size, size) / denominator**2
    weight = writer.constant(f"{layer.name}_taps", np.tile(planes, (channels, 1, 1, 1)))
    settings: dict[str, Any] = {"kernel_shape": [size, size], "pads": [0] * 4, "strides": [1, 1], "dilations": [1, 1]}
    writer.node("Conv", [padded, weight], phases, group=channels, **settings)
    writer.node("DepthToSpace", [phases], layer.name, blocksize=layer.factor, mode="CRD")
    height, width = (side * writer.upscale[source] for side in writer.size)
    writer.shapes[padded] = [1, channels, height + 2 * radius, width + 2 * radius]
    writer.shapes[phases] = [1, channels * layer.factor**2, height, width]


WRITERS: dict[str, Callable[[_Writer, Layer], None]] = {
    "image": _image,
    "quant": _quant,
    "offset": _offset,
    "conv": _conv,
    "relu": _relu,
    "prelu": _prelu,
    "add": _add,
    "concat": _concat,
    "shuffle": _shuffle,
    "resize": _resize,
    "slice": _slice,
    "filter": _filter,
}
