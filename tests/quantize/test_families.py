"""Every family of networks through the integer chain on a small crop, with random weights: equality, no data needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from srq_hw import parity
from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import lower
from srq_hw.exchange.qonnx_export import export_qonnx
from srq_hw.graph.legality import legality
from srq_hw.networks.abpn import Abpn
from srq_hw.networks.carn import Carn
from srq_hw.networks.edsr import Edsr, EdsrOfficial
from srq_hw.networks.espcn import Espcn
from srq_hw.networks.fsrcnn import Fsrcnn
from srq_hw.networks.idn import Idn
from srq_hw.networks.msrresnet import MsrResNet
from srq_hw.networks.rnet import RNet
from srq_hw.networks.srresnet import SrResNet, SrResNetShared
from srq_hw.networks.xlsr import Xlsr
from srq_hw.normalform.trace import normalize
from srq_hw.oracles.qonnx import qonnx_oracle
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.freeze import freeze, load_frozen, quant_net, run_frozen
from srq_hw.quantize.plan import make_plan
from srq_hw.simulate import fast, reference
from srq_hw.target import load_target
from tests.quantize.nets import image, network, recipe

#: family -> (module, value of white, channels, scale)
FAMILIES: dict[str, tuple[Callable[[], nn.Module], float, int, int]] = {
    "edsr": (lambda: Edsr(8, 2, 2), 255.0, 3, 2),
    "edsr, official": (lambda: EdsrOfficial(8, 2, 4, 0.1), 255.0, 3, 4),
    "msrresnet x3": (lambda: MsrResNet(8, 2, 3), 1.0, 3, 3),
    "msrresnet x4": (lambda: MsrResNet(8, 2, 4), 1.0, 3, 4),
    "srresnet": (lambda: SrResNet(8, 2), 1.0, 3, 4),
    "srresnet, shared slope": (lambda: SrResNetShared(8, 2, 2), 255.0, 3, 2),
    "rnet": (lambda: RNet(8, 2), 1.0, 3, 4),
    "carn": (lambda: Carn(2, features=8), 1.0, 3, 2),
    "carn-m": (lambda: Carn(3, groups=4, features=8), 1.0, 3, 3),
    "idn x2, Y, Caffe": (lambda: Idn(2, 1, slice_first=True, act_after_1x1=True), 1.0, 1, 2),
    "idn x3, Y, Caffe": (lambda: Idn(3, 1, slice_first=True, act_after_1x1=True), 1.0, 1, 3),
    "idn x4, RGB": (lambda: Idn(4, 3, slice_first=False, act_after_1x1=False), 255.0, 3, 4),
    "fsrcnn x3": (lambda: Fsrcnn(3, 8, 4, 2), 1.0, 1, 3),
    "espcn x3": (lambda: Espcn(3), 1.0, 1, 3),
    "abpn x3": (lambda: Abpn(3, 8, 2), 255.0, 3, 3),
    "abpn x4": (lambda: Abpn(4, 8, 2), 255.0, 3, 4),
    "xlsr x3": (lambda: Xlsr(3), 1.0, 3, 3),
}
SIZE = (12, 11)


@pytest.mark.slow
@pytest.mark.parametrize("aim", ["int-generic", "dpu-pow2", "zcu104"])
@pytest.mark.parametrize("family", FAMILIES)
def test_parity_of_every_family(family: str, aim: str) -> None:
    build, white, channels, scale = FAMILIES[family]
    target, module = load_target(aim), build()
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.in_channels == part.out_channels == 3:
            part.keep = True  # type: ignore[assignment]  # a mean shift stays one
    net = normalize(network(module, input_max=white, scale=scale, channels=channels))
    pixels = [image(seed, *SIZE, channels) for seed in (1, 2, 3)]
    plan = make_plan(net, target)
    calibration = calibrate(plan, target, recipe(), pixels[:2])
    frozen = freeze(plan, calibration, target)
    model, graph = load_frozen(quant_net(plan, calibration, target), frozen), to_intgraph(frozen)
    assert graph.upscale == scale
    left, right = run_frozen(model, frozen, pixels[2]), reference.trace(graph, pixels[2])
    found = parity.compare(left, right)
    assert found.equal, found.first
    assert {node.output for node in graph.nodes if node.op == "Requant"} <= left.keys()
    assert len(np.unique(right[graph.output])) > 10, "an image without detail proves little"
    file = export_qonnx(frozen, target, SIZE)
    assert lower(file, target).content_sha256 == graph.content_sha256
    oracle = qonnx_oracle(file, graph, pixels[2])
    assert oracle.mismatches == 0 and oracle.ties <= oracle.elements // 1000 + 2
    program = fast.compile_graph(graph, threads=1)
    for tile in (None, 5):
        np.testing.assert_array_equal(program.run(pixels[2], tile=tile), right[graph.output])
    broken = {item.rule for item in legality(graph, target)}
    assert broken <= ({"integer.ops", "integer.add.equal_scales"} if aim == "zcu104" else set())
