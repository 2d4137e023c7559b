"""Golden files: what two versions of srq-hw must agree on, byte for byte, for one tiny network with fixed scales.

Written anew by ``make golden``. Nothing here depends on calibration, so no machine's float32 can change a byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from onnx.printer import to_text
from torch import nn

from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.qonnx_export import export_qonnx
from srq_hw.fixedpoint import thresholds
from srq_hw.networks.loading import FloatNetwork
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.freeze import Frozen, freeze
from srq_hw.quantize.plan import make_plan
from srq_hw.simulate import reference
from srq_hw.target import Target, load_target

Golden = Callable[[str, str | bytes], None]


class Tiny(nn.Module):
    """Two channels, one residual block, PReLU, pixel shuffle: one of everything, with weights from a formula."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.up = (
            nn.Conv2d(3, 2, 3, padding=1),
            nn.Conv2d(2, 2, 1),
            nn.Conv2d(2, 12, 3, padding=1),
        )
        self.act, self.shuffle = nn.PReLU(2), nn.PixelShuffle(2)
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters()):
                steps = (torch.arange(parameter.numel()) * 37 + 11 * index) % 64
                parameter.copy_(((steps - 32) / 64).reshape(parameter.shape))
            self.act.weight.copy_(torch.tensor([0.25, 0.0625]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        head = self.head(x - 0.5)
        out: torch.Tensor = self.shuffle(self.up(head + self.body(self.act(head))))
        return out


@cache
def frozen(rounding: str) -> tuple[Frozen, Target]:
    """The tiny network with scales that are given, not calibrated."""
    target = load_target("zcu104")
    requant = target.integer.requant.model_copy(update={"rounding": rounding})
    target = target.model_copy(update={"integer": target.integer.model_copy(update={"requant": requant})})
    net = FloatNetwork("tiny", Tiny().eval(), 2, 1.0, "formula", None)
    plan = make_plan(normalize(net), target, 4, 5)
    scales = {point.group: 1.0 if point.fixed else 0.01 * (3 + i) for i, point in enumerate(plan.points.values())}
    weights = {
        layer.name: np.full(layer.weight.shape[0], float(layer.weight.abs().max()) / 7)
        for layer in plan.layers
        if layer.op == "conv" and layer.weight is not None
    }
    return freeze(plan, Calibration(scales, weights, {}), target), target


def test_the_integer_graph(golden: Golden) -> None:
    graph = to_intgraph(frozen("half_even")[0])
    golden("golden/tiny_graph.json", json.dumps(json.loads(graph.to_json()), indent=1, sort_keys=True) + "\n")


def test_the_qonnx_file(golden: Golden) -> None:
    for rounding in ("half_even", "half_up"):
        model = export_qonnx(*frozen(rounding), (4, 6))
        golden(f"golden/tiny_{rounding}.onnx.txt", to_text(model) + "\n")


def test_the_output_image(golden: Golden) -> None:
    rows, columns = np.mgrid[0:6, 0:8]
    image = np.stack([(rows * 40 + columns * 3) % 256, (columns * 33) % 256, (rows * columns * 9) % 256], axis=-1)
    graph = to_intgraph(frozen("half_even")[0])
    out = reference.run(graph, image)[0]
    assert len(np.unique(out)) > 16, "the image must exercise the network"
    golden("golden/tiny_output.txt", "\n".join(" ".join(map(str, row)) for row in out.reshape(out.shape[0], -1)) + "\n")


def test_the_threshold_lists(golden: Golden) -> None:
    rows = []
    for rounding in ("half_even", "half_up", "half_away", "floor", "trunc"):
        table = thresholds([3, 48497], [3, 18], rounding, -4, 3, -100, 100, negative_multiplier=[1, 20000])
        rows += [f"{rounding:9s} {' '.join(f'{value:4d}' for value in row)}" for row in table]
    golden("golden/thresholds.txt", "\n".join(rows) + "\n")


def test_a_graph_of_every_scale_keeps_its_hash() -> None:
    """The hash decides what a build reuses: it must not move with what is only for people."""
    graph = to_intgraph(frozen("half_even")[0])
    moved = replace(graph, name="other", tensors={k: replace(t, scale=None) for k, t in graph.tensors.items()})
    assert moved.content_sha256 == graph.content_sha256
