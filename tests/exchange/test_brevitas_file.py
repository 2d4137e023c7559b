"""A network quantized and exported by plain Brevitas, without any of our quantizers: lowered and executed."""

from __future__ import annotations

import warnings

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFloat,
)
from torch import Tensor, nn

from srq_hw.exchange.lower import load_qonnx, lower
from srq_hw.oracles.qonnx import qonnx_oracle
from srq_hw.simulate import reference
from tests.quantize.nets import image, target

SIDE = 8


class TinySr(nn.Module):
    """Head, a block with a shared quantizer at its sum, sub-pixel convolution."""

    def __init__(self, fixed_point: bool) -> None:
        super().__init__()
        weight = Int8WeightPerTensorFixedPoint if fixed_point else Int8WeightPerChannelFloat
        signed = Int8ActPerTensorFixedPoint if fixed_point else Int8ActPerTensorFloat
        unsigned = Uint8ActPerTensorFixedPoint if fixed_point else Uint8ActPerTensorFloat

        def conv(a: int, b: int) -> nn.Module:
            return qnn.QuantConv2d(a, b, 3, padding=1, weight_quant=weight, weight_bit_width=6)

        self.input = qnn.QuantIdentity(act_quant=unsigned, bit_width=8)
        self.head, self.first, self.second, self.up = conv(3, 4), conv(4, 4), conv(4, 4), conv(4, 12)
        self.shared = qnn.QuantIdentity(act_quant=signed, bit_width=8)
        self.relu = qnn.QuantReLU(act_quant=unsigned, bit_width=4)
        self.after = qnn.QuantIdentity(act_quant=signed, bit_width=8)
        self.output = qnn.QuantIdentity(act_quant=unsigned, bit_width=8)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.shared(self.head(self.input(x)))
        y = self.shared(self.second(self.relu(self.first(h))))
        return self.shuffle(self.output(self.up(self.after(h + y))))


@pytest.mark.parametrize("fixed_point", [True, False])
def test_brevitas_export(fixed_point: bool, tmp_path) -> None:
    """Opset 18: a request for less prints a converter error and leaves 18. Input 0..1, all grids Brevitas' own."""
    from brevitas.export import export_qonnx

    torch.manual_seed(0)
    module = TinySr(fixed_point)
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.rand(2, 3, SIDE, SIDE))
    module.eval()
    path = tmp_path / "tiny.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter and Brevitas warn about one another
        export_qonnx(module, torch.rand(1, 3, SIDE, SIDE), str(path), opset_version=18)
    model = load_qonnx(path)
    graph = lower(model, target())
    pixels = image(2, SIDE, SIDE)
    out = reference.run(graph, pixels)
    assert out.shape == (1, 2 * SIDE, 2 * SIDE, 3) and np.ptp(out) > 0
    found = qonnx_oracle(model, graph, pixels)
    requants = sum(node.op == "Requant" and node.name != "to_grey_levels" for node in graph.nodes)
    assert found.mismatches == 0, found
    assert found.tensors >= requants >= 6
    assert found.ties <= found.elements // 20
    with torch.no_grad():
        wanted = module(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
    wanted = getattr(wanted, "value", wanted)[0].permute(1, 2, 0).numpy() * 255
    difference = np.abs(out[0] - np.clip(np.round(wanted), 0, 255))
    assert difference.mean() < 1.0
