"""A small network of plain Brevitas layers as QONNX, as anybody would write it: nothing of srq_hw is used."""

from __future__ import annotations

import sys
from pathlib import Path

import brevitas.nn as qnn
import torch
from brevitas.export import export_qonnx
from brevitas.quant import Int8ActPerTensorFixedPoint, Int8WeightPerTensorFixedPoint, Uint8ActPerTensorFloat
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.util.cleanup import cleanup_model
from torch import Tensor, nn


def conv(inside: int, out: int, kernel: int = 3) -> qnn.QuantConv2d:
    """Four-bit weights with a power of two as scale: ties are common."""
    return qnn.QuantConv2d(
        inside, out, kernel, padding=kernel // 2, bias=False, weight_quant=Int8WeightPerTensorFixedPoint,
        weight_bit_width=4,
    )  # fmt: skip


class Net(nn.Module):
    """Residual, split, concatenation, two pixel shuffles; every meeting of branches shares a quantizer."""

    def __init__(self) -> None:
        super().__init__()
        self.image = qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, bit_width=8)
        self.shared = qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, bit_width=6)
        self.relu = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=4)
        self.up = qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, bit_width=5)
        self.out = qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, bit_width=8)
        self.head, self.body, self.side = conv(3, 8), conv(8, 8), conv(4, 4)
        self.tail, self.last = conv(8, 16), conv(4, 12)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, 4H, 4W)."""
        head = self.shared(self.head(self.image(x)))
        y = self.shared(self.body(self.relu(head)))
        y = self.shared(y + head)
        left, right = torch.split(y, [4, 4], 1)
        y = torch.cat([self.shared(self.side(left)), right], 1)
        y = self.shuffle(self.up(self.tail(y)))
        return self.shuffle(self.out(self.last(y)))


def export(path: Path, size: tuple[int, int]) -> None:
    """The network with random weights and statistics of noise, for images of one size."""
    torch.manual_seed(3)
    net = Net()
    net.train()
    with torch.no_grad():
        for _ in range(4):
            net(torch.rand(2, 3, *size) * 2 - 1)
    net.eval()
    export_qonnx(net, torch.rand(1, 3, *size), str(path), opset_version=18)
    cleanup_model(ModelWrapper(str(path))).save(str(path))


if __name__ == "__main__":
    export(Path(sys.argv[1]), (6, 7))
