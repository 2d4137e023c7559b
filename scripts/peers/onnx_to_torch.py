"""A float ONNX network as a torch.fx GraphModule of standard layers, for tools that quantize torch modules.

Brevitas' own graph mode recurses without end on CARN's cascades and takes the values behind EDSR's mean shift for
unsigned. Built from the exported graph, every convolution is a plain layer that layer-by-layer quantization finds,
shared weights are one shared layer, and nobody has to trace a network's code again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

Attributes = Mapping[str, Any]


def load(path: Path) -> tuple[fx.GraphModule, dict[str, str]]:
    """Build the network; with it, for every convolution (layer name) the initializer that is its weight.

    Raises NotImplementedError for an operator that is not in the tables below.
    """
    builder = _Builder(onnx.load(path).graph)
    return builder.module(), {name: weight for (weight, _), name in builder.layers.items()}


class _Builder:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph, self.root, self.fx = graph, nn.Module(), fx.Graph()
        self.constants = {item.name: _tensor(item) for item in graph.initializer}
        self.values: dict[str, Any] = {}
        self.layers: dict[tuple[str, str], str] = {}

    def module(self) -> fx.GraphModule:
        self.values[self.graph.input[0].name] = self.fx.placeholder("image")
        for node in self.graph.node:
            self._add(node, {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute})
        self.fx.output(self.values[self.graph.output[0].name])
        made = fx.GraphModule(self.root, self.fx)
        made.eval()
        return made

    def _add(self, node: onnx.NodeProto, attributes: Attributes) -> None:
        name = node.output[0]
        if node.op_type == "Constant":
            self.constants[name] = _tensor(attributes["value"])
        elif node.op_type in ("Conv", "ConvTranspose"):
            self.values[name] = self._convolution(node, attributes)
        elif node.op_type in ("Relu", "LeakyRelu", "PRelu"):
            self.values[name] = self._activation(node, attributes)
        elif node.op_type == "DepthToSpace":
            self.values[name] = self._shuffle(node, attributes)
        elif node.op_type in _FUNCTIONS:
            arguments = [self._operand(item) for item in node.input if item]
            self.values[name] = self.fx.call_function(
                _FUNCTIONS[node.op_type](attributes, self._numbers(node)), (*arguments,)
            )
        else:
            raise NotImplementedError(f"operator {node.op_type} of node {node.name!r} has no torch counterpart here")

    def _operand(self, name: str) -> Any:
        """A node's result, or a constant as a buffer of the module."""
        if name not in self.values:
            buffer = f"constant_{len(self.values)}"
            self.root.register_buffer(buffer, self.constants[name])
            self.values[name] = self.fx.get_attr(buffer)
        return self.values[name]

    def _numbers(self, node: onnx.NodeProto) -> list[Tensor | None]:
        return [self.constants.get(name) for name in node.input]

    def _convolution(self, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
        # Exporters merge equal initializers: two mean shifts may share their weight, but not their bias.
        weight, bias = node.input[1], node.input[2] if len(node.input) > 2 else ""
        if (weight, bias) not in self.layers:
            name = weight.removesuffix(".weight")
            name = f"{name}_{len(self.layers)}" if name in self.layers.values() else name
            self.layers[weight, bias] = name
            added = self.constants[bias] if bias else None
            _set(self.root, name, _layer(node.op_type, self.constants[weight], added, attributes))
        target = self.layers[weight, bias]
        return self.fx.call_module(target, (self.values[node.input[0]],))

    def _activation(self, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
        target = f"activation_{len(self.values)}"
        layer: nn.Module = nn.ReLU()
        if node.op_type == "LeakyRelu":
            layer = nn.LeakyReLU(attributes.get("alpha", 0.01))
        if node.op_type == "PRelu":
            slope = self.constants[node.input[1]].flatten()
            layer = nn.PReLU(slope.numel())
            layer.weight.data = slope
        self.root.add_module(target, layer)
        return self.fx.call_module(target, (self.values[node.input[0]],))

    def _shuffle(self, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
        if attributes.get("mode", b"DCR") != b"CRD":
            raise NotImplementedError(f"DepthToSpace {node.name!r}: mode DCR has no torch counterpart here")
        return self.fx.call_function(functional.pixel_shuffle, (self.values[node.input[0]], attributes["blocksize"]))


def _layer(kind: str, weight: Tensor, bias: Tensor | None, attributes: Attributes) -> nn.Module:
    pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
    if pads[:2] != pads[2:] or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise NotImplementedError(f"{kind}: padding {pads} is not the same on both sides")
    groups = attributes.get("group", 1)
    common: dict[str, Any] = {
        "kernel_size": tuple(weight.shape[2:]),
        "stride": tuple(attributes.get("strides", (1, 1))),
        "padding": pads[:2],
        "dilation": tuple(attributes.get("dilations", (1, 1))),
        "groups": groups,
        "bias": bias is not None,
    }
    layer: nn.Conv2d | nn.ConvTranspose2d
    if kind == "Conv":
        layer = nn.Conv2d(weight.shape[1] * groups, weight.shape[0], **common)
    else:
        extra = tuple(attributes.get("output_padding", (0, 0)))
        layer = nn.ConvTranspose2d(weight.shape[0], weight.shape[1] * groups, output_padding=extra, **common)
    layer.weight.data = weight
    if bias is not None:
        assert layer.bias is not None
        layer.bias.data = bias
    return layer


def _concat(attributes: Attributes, _: list[Tensor | None]) -> Callable[..., Tensor]:
    axis = attributes["axis"]
    return lambda *parts: torch.cat(parts, dim=axis)


def _slice(_: Attributes, numbers: list[Tensor | None]) -> Callable[..., Tensor]:
    starts, ends = (_integers(numbers[index]) for index in (1, 2))
    axes = _integers(numbers[3]) if len(numbers) > 3 else list(range(len(starts)))
    steps = _integers(numbers[4]) if len(numbers) > 4 else [1] * len(starts)

    def cut(x: Tensor, *unused: Tensor) -> Tensor:
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            index = [slice(None)] * x.dim()
            index[axis] = slice(start, min(end, x.shape[axis]), step)
            x = x[tuple(index)]
        return x

    return cut


def _clip(_: Attributes, numbers: list[Tensor | None]) -> Callable[..., Tensor]:
    low, high = (None if n is None else float(n) for n in (*numbers[1:3], None, None)[:2])
    return lambda x, *unused: torch.clamp(x, low, high)


def _plain(function: Callable[..., Any]) -> Callable[[Attributes, list[Tensor | None]], Callable[..., Any]]:
    return lambda attributes, numbers: function


_FUNCTIONS: dict[str, Callable[[Attributes, list[Tensor | None]], Callable[..., Any]]] = {
    "Add": _plain(operator.add),
    "Sub": _plain(operator.sub),
    "Mul": _plain(operator.mul),
    "Div": _plain(operator.truediv),
    "Identity": _plain(torch.clone),
    "Concat": _concat,
    "Slice": _slice,
    "Clip": _clip,
}


def _integers(values: Tensor | None) -> list[int]:
    if values is None:
        raise NotImplementedError("Slice: its starts, ends, axes and steps must be constants")
    return [int(value) for value in values.flatten()]


def _tensor(item: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(onnx.numpy_helper.to_array(item).copy())


def _set(root: nn.Module, target: str, layer: nn.Module) -> None:
    *parents, last = target.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = getattr(root, parent)
    root.add_module(last, layer)
