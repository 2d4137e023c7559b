"""QONNX files made by hand with onnx.helper, and what they mean in float64 plain numpy (no srq-hw arithmetic)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from srq_hw.networks.bicubic import BicubicUpsample

DOMAIN = "qonnx.custom_op.general"


class File:
    """Appends nodes; every method returns the name of the tensor it makes."""

    def __init__(self, height: int = 6, width: int = 7, channels: int = 3) -> None:
        self.size, self.channels = (height, width), channels
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(0)

    def const(self, values: Any, name: str | None = None) -> str:
        name = name or f"const{len(self.constants)}"
        self.constants[name] = np.asarray(values, np.float32)
        return name

    def node(self, op: str, inputs: list[str], name: str | None = None, domain: str = "", **attrs: Any) -> str:
        name = name or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, domain=domain, **attrs))
        return name

    def quant(
        self, source: str, scale: Any, bits: Any = 8.0, signed: int = 1, mode: str = "ROUND", name: str | None = None,
        zero: Any = 0.0, narrow: int = 0,
    ) -> str:  # fmt: skip
        inputs = [source, self.const(scale), self.const(zero), self.const(bits)]
        return self.node("Quant", inputs, name, DOMAIN, signed=signed, narrow=narrow, rounding_mode=mode)

    def image(self, scale: float = 1.0) -> str:
        return self.quant("image", scale, signed=0, name="image_quant")

    def split(self, source: str, sizes: list[int] | None, count: int) -> list[str]:
        names = [f"split{len(self.nodes)}_{index}" for index in range(count)]
        inputs = [source] + ([self.integers(sizes)] if sizes else [])
        settings = {} if sizes else {"num_outputs": count}
        self.nodes.append(helper.make_node("Split", inputs, names, name="split", axis=1, **settings))
        return names

    def integers(self, values: Any) -> str:
        name = f"const{len(self.constants)}"
        self.constants[name] = np.asarray(values, np.int64)
        return name

    def slice(self, source: str, first: int, last: int, axis: int = 1, name: str | None = None) -> str:
        return self.node("Slice", [source, *(self.integers([value]) for value in (first, last, axis))], name)

    def transposed(
        self, source: str, ins: int, outs: int, kernel: int, stride: int, pad: int, more: int = 0, bias: bool = False,
        per_channel: bool = False, **attrs: Any,
    ) -> str:  # fmt: skip
        scale = np.float32(2.0**-8) * (2.0 ** np.arange(outs) if per_channel else np.ones(1)).reshape(1, -1, 1, 1)
        integers = self.rng.integers(-100, 101, (ins, outs, kernel, kernel))
        weight = self.quant(self.const(integers * scale), scale if per_channel else scale.item(), narrow=1)
        inputs = [source, weight] + ([self.const(self.rng.integers(-90, 90, outs) / 16.0)] if bias else [])
        settings = {"strides": [stride] * 2, "pads": [pad] * 4, "output_padding": [more] * 2}
        return self.node("ConvTranspose", inputs, **(settings | attrs))

    def conv(
        self, source: str, ins: int, outs: int, kernel: int = 3, bias: bool = False, scale: Any = None,
        name: str | None = None, **attrs: Any,
    ) -> str:  # fmt: skip
        scale = np.asarray(2.0**-8 if scale is None else scale, np.float32)
        integers = self.rng.integers(-100, 101, (outs, ins // attrs.get("group", 1), kernel, kernel))
        weight = self.quant(self.const(integers * scale), scale, narrow=1)
        inputs = [source, weight] + ([self.const(self.rng.integers(-900, 900, outs) / 256.0)] if bias else [])
        settings = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [1, 1]} | attrs
        return self.node("Conv", inputs, name, **settings)

    def model(self, output: str, upscale: int = 1, constant_nodes: bool = False) -> onnx.ModelProto:
        height, width = self.size
        initializers = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        nodes = list(self.nodes)
        if constant_nodes:
            nodes = [helper.make_node("Constant", [], [c.name], name=c.name, value=c) for c in initializers] + nodes
            initializers = []
        graph = helper.make_graph(
            nodes,
            "foreign",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, self.channels, height, width])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, None, height * upscale, width * upscale])],
            initializers,
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def _round(x: np.ndarray, mode: str) -> np.ndarray:
    if mode == "HALF_UP":
        return np.sign(x) * np.floor(np.abs(x) + 0.5)
    return {"ROUND": np.round, "FLOOR": np.floor, "DOWN": np.trunc}[mode](x)


def _conv(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, groups: int) -> np.ndarray:
    outs, per_group, rows, columns = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (rows // 2,) * 2, (columns // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (rows, columns), axis=(2, 3))
    found = np.empty((len(x), outs, *x.shape[2:]))
    for o in range(outs):
        first = o // (outs // groups) * per_group
        found[:, o] = np.einsum("nchwij,cij->nhw", windows[:, first : first + per_group], w[o])
    return found if b is None else found + b[:, None, None]


def _resize(x: list[np.ndarray], a: dict[str, Any]) -> np.ndarray:
    factor, mode = int(x[2][-1]), a.get("mode", "nearest")
    if mode == "nearest":
        return x[0].repeat(factor, 2).repeat(factor, 3)
    source = torch.from_numpy(x[0])
    if mode == "cubic" and a.get("cubic_coeff_a") == -0.5:
        return BicubicUpsample(factor).double()(source).numpy()
    return F.interpolate(source, scale_factor=factor, mode="bilinear" if mode == "linear" else "bicubic").numpy()


def _split(x: list[np.ndarray], a: dict[str, Any]) -> list[np.ndarray]:
    sizes = x[1].astype(int) if len(x) > 1 else np.full(a["num_outputs"], x[0].shape[1] // a["num_outputs"])
    return np.split(x[0], np.cumsum(sizes)[:-1], axis=a["axis"])


def _transposed(x: list[np.ndarray], a: dict[str, Any]) -> np.ndarray:
    tensors = [torch.from_numpy(item) for item in x] + [None] * (3 - len(x))
    pads, stride = a["pads"], a["strides"]
    return F.conv_transpose2d(*tensors, stride, pads[:2], a.get("output_padding", 0)).numpy()


def _attrs(node: onnx.NodeProto) -> dict[str, Any]:
    values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in values.items()}


def float64(model: onnx.ModelProto, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of the file in float64 (N, C, H, W); image: real values (H, W, C)."""
    values = {item.name: numpy_helper.to_array(item).astype(np.float64) for item in model.graph.initializer}
    values["image"] = image.transpose(2, 0, 1)[None].astype(np.float64)
    for node in model.graph.node:
        a = _attrs(node)
        x = [values[name] if name else None for name in node.input]
        if node.op_type in ("Quant", "IntQuant"):
            # multiples of 2**-14 by construction; what is off them is the float32 of a scale like 2/255
            bits = int(x[3].reshape(-1)[0])
            signed, narrow = a.get("signed", 1), a.get("narrow", 0)
            lo, hi = (-(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
            steps = _round(np.round(x[0] / x[1] * 2**14) / 2**14 + x[2], a.get("rounding_mode", "ROUND"))
            found = (np.clip(steps, lo, hi) - x[2]) * x[1]
        elif node.op_type == "Conv":
            found = _conv(x[0], x[1], x[2] if len(x) > 2 else None, a.get("group", 1))
        elif node.op_type == "BatchNormalization":
            gamma, beta, mean, var = (item[:, None, None] for item in x[1:5])
            found = (x[0] - mean) / np.sqrt(var + a.get("epsilon", 1e-5)) * gamma + beta
        elif node.op_type == "DepthToSpace":
            block, (n, c, h, w) = a["blocksize"], x[0].shape
            if a.get("mode", "DCR") == "CRD":
                parts = x[0].reshape(n, c // block**2, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
            else:
                parts = x[0].reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
            found = parts.reshape(n, c // block**2, h * block, w * block)
        elif node.op_type == "Constant":
            found = numpy_helper.to_array(a["value"]).astype(np.float64)
        else:
            found = {
                "Add": lambda x, a: x[0] + x[1],
                "Sub": lambda x, a: x[0] - x[1],
                "Mul": lambda x, a: x[0] * x[1],
                "Div": lambda x, a: x[0] / x[1],
                "Relu": lambda x, a: np.maximum(x[0], 0),
                "PRelu": lambda x, a: np.where(x[0] < 0, x[0] * x[1], x[0]),
                "LeakyRelu": lambda x, a: np.where(x[0] < 0, x[0] * a.get("alpha", 0.01), x[0]),
                "Concat": lambda x, a: np.concatenate(x, axis=a["axis"]),
                "Resize": _resize,
                "Clip": lambda x, a: (
                    np.clip(x[0], *(item.item() for item in x[1:])) if len(x) > 1 else np.clip(x[0], a["min"], a["max"])
                ),
                "Slice": lambda x, a: x[0][:, int(x[1][0]) : int(x[2][0])],
                "Split": _split,
                "ConvTranspose": _transposed,
                "Identity": lambda x, a: x[0],
            }[node.op_type](x, a)
        values |= dict(zip(node.output, found, strict=True)) if isinstance(found, list) else {node.output[0]: found}
    return values
