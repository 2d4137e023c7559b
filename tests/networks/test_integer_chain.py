"""Scales and variants beside the published ones, small and with random weights: exact as layers and as integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from srq_hw import parity
from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import lower
from srq_hw.exchange.qonnx_export import export_qonnx
from srq_hw.networks.abpn import Abpn
from srq_hw.networks.loading import FloatNetwork
from srq_hw.networks.msrresnet import MsrResNet
from srq_hw.networks.rnet import MeanShift, RNet
from srq_hw.networks.srresnet import SrResNet, SrResNetShared
from srq_hw.networks.xlsr import Xlsr
from srq_hw.normalform.normal import evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.freeze import freeze, load_frozen, quant_net, run_frozen
from srq_hw.quantize.plan import make_plan
from srq_hw.simulate import fast, reference
from srq_hw.target import load_target
from tests.quantize.nets import image, network, recipe

#: name -> (module, value of white, scale)
VARIANTS: dict[str, tuple[Callable[[], nn.Module], float, int]] = {
    "srresnet8 x2, slope per layer": (lambda: SrResNet(8, 2, 2, per_layer=True), 1.0, 2),
    "srresnet8 x3": (lambda: SrResNet(8, 1, 3), 1.0, 3),
    "srresnet x3, slope per layer": (lambda: SrResNetShared(8, 2, 3, per_layer=True), 255.0, 3),
    "rnet x2": (lambda: RNet(8, 1, 2), 1.0, 2),
    "rnet x3": (lambda: RNet(8, 1, 3), 1.0, 3),
    "msrresnet x4 of MMEditing": (lambda: MsrResNet(8, 1, 4, act_after_up=False), 1.0, 4),
    "abpn x2": (lambda: Abpn(2, 8, 2), 255.0, 2),
    "xlsr x2": (lambda: Xlsr(2, 16, 8), 1.0, 2),
    "xlsr x4": (lambda: Xlsr(4, 16, 8), 1.0, 4),
}
SIZE = (13, 12)


def made(name: str) -> FloatNetwork:
    """With seeded weights, no two slopes alike; mean shifts stay."""
    build, white, scale = VARIANTS[name]
    module = build()
    for part in module.modules():
        if isinstance(part, MeanShift):
            part.shifter.keep = True  # type: ignore[assignment]
    return network(module, input_max=white, scale=scale)


@pytest.mark.parametrize("name", VARIANTS)
def test_layers_compute_what_the_module_computes(name: str) -> None:
    found = made(name)
    x = torch.from_numpy(image(1, *SIZE)).permute(2, 0, 1)[None].double()
    net = normalize(found)
    with torch.inference_mode():
        left = evaluate(net, x, dtype=torch.float64)
        right = found.module.double()(x * (found.input_max / 255)) * (255 / found.input_max)
    if name.startswith(("abpn", "xlsr")):  # their clip to 0..255 is that of the output image
        left = left.clamp(0, 255)
    assert left.shape == right.shape == (1, 3, SIZE[0] * found.scale, SIZE[1] * found.scale)
    # the border of a recentred image is padded by up to half a grey level off
    border = 0 if net.layers[0].offset is None else 5 * found.scale
    left, right = (y[..., border : y.shape[-2] - border, border : y.shape[-1] - border] for y in (left, right))
    assert float(right.std()) > 1
    assert float((left - right).abs().max()) < 1e-9 * float(right.abs().max() + 255)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_integer_chain_is_equal_to_the_bit(name: str) -> None:
    target, net = load_target("int-generic"), normalize(made(name))
    pixels = [image(seed, *SIZE) for seed in (1, 2, 3)]
    plan = make_plan(net, target)
    calibration = calibrate(plan, target, recipe(), pixels[:2])
    frozen = freeze(plan, calibration, target)
    model, graph = load_frozen(quant_net(plan, calibration, target), frozen), to_intgraph(frozen)
    assert graph.upscale == VARIANTS[name][2]
    left, right = run_frozen(model, frozen, pixels[2]), reference.trace(graph, pixels[2])
    found = parity.compare(left, right)
    assert found.equal, found.first
    assert {node.output for node in graph.nodes if node.op == "Requant"} <= left.keys()
    assert len(np.unique(right[graph.output])) > 10, "an image without detail proves little"
    assert lower(export_qonnx(frozen, target, SIZE), target).content_sha256 == graph.content_sha256
    np.testing.assert_array_equal(fast.compile_graph(graph, threads=1).run(pixels[2]), right[graph.output])
