"""A user's own network, calibration recipe and foreign QONNX file, small enough to build in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

QONNX_DOMAIN = "qonnx.custom_op.general"

NETWORK = '''
"""A user's own network: BatchNorm, PReLU and a skip."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(features)
        self.act = nn.PReLU(features)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x):
        return x + self.second(self.act(self.norm(self.first(x))))


class Net(nn.Module):
    def __init__(self, features=4):
        super().__init__()
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.body = Block(features)
        self.tail = nn.Sequential(nn.Conv2d(features, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x):
        return self.tail(self.body(self.head(x)))


class WithTanh(Net):
    def forward(self, x):
        return self.tail(torch.tanh(self.head(x)))


def net():
    torch.manual_seed(3)
    made = Net()
    with torch.no_grad():
        made.body.norm.running_mean.uniform_(-0.2, 0.2)
        made.body.norm.running_var.uniform_(0.5, 2)
        made.body.act.weight.uniform_(0.1, 0.4)
    return made


def with_tanh():
    return WithTanh()


def breaks():
    raise RuntimeError("the factory itself is wrong")
'''

RECIPE = """schema: 1
name: tiny
title: Two patches
patches: {count: 2, size: 16, seed: 1}
activations: {method: minmax, bins: 256}
weights: {method: minmax}
"""


def write_user_files(folder: Path) -> None:
    """ownnets/small.py (factories net, with_tanh, breaks), tiny.yaml, foreign.onnx, tanh.onnx and plain.onnx."""
    (folder / "ownnets").mkdir()
    (folder / "ownnets" / "__init__.py").write_text("")
    (folder / "ownnets" / "small.py").write_text(NETWORK)
    (folder / "tiny.yaml").write_text(RECIPE)
    onnx.save(foreign_qonnx(), folder / "foreign.onnx")
    onnx.save(foreign_qonnx(activation="Tanh"), folder / "tanh.onnx")
    onnx.save(plain_onnx(), folder / "plain.onnx")


def foreign_qonnx(size: tuple[int, int] = (16, 16), activation: str = "Relu", channels: int = 3) -> onnx.ModelProto:
    """A QONNX file as another tool would write it: image, conv, activation, conv, PixelShuffle; W4, A6."""
    random = np.random.default_rng(5)
    constants: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def const(name: str, value: object) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def quant(source: str, name: str, scale: float, bits: int, signed: int, narrow: int = 0) -> str:
        inputs = [source, const(f"{name}_scale", scale), const(f"{name}_zero", 0), const(f"{name}_bits", bits)]
        settings = {"signed": signed, "narrow": narrow, "rounding_mode": "ROUND"}
        nodes.append(helper.make_node("Quant", inputs, [name], name=name, domain=QONNX_DOMAIN, **settings))
        return name

    def conv(source: str, name: str, inputs: int, outputs: int) -> str:
        weight = quant(
            const(f"{name}_w", random.integers(-7, 8, (outputs, inputs, 3, 3)) * 0.02), f"{name}_wq", 0.02, 4, 1, 1
        )
        bias = const(f"{name}_b", np.zeros(outputs))
        nodes.append(
            helper.make_node("Conv", [source, weight, bias], [name], name=name, pads=[1] * 4, kernel_shape=[3, 3])
        )
        return name

    x = conv(quant("image", "image_q", 1.0, 8, 0), "c1", channels, 6)
    nodes.append(helper.make_node(activation, [x], ["act"], name="act"))
    x = conv(quant("act", "act_q", 2.0, 6, 0), "c2", 6, 4 * channels)
    nodes.append(
        helper.make_node(
            "DepthToSpace", [quant(x, "c2_q", 1.0, 8, 0)], ["out"], name="shuffle", blocksize=2, mode="CRD"
        )
    )
    height, width = size
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, height, width])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, channels, 2 * height, 2 * width])],
        constants,
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(QONNX_DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def plain_onnx() -> onnx.ModelProto:
    """A float ONNX file: no Quant node anywhere."""
    weight = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="only")],
        "plain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 16, 16])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
