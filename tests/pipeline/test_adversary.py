"""An adversary's questions: can a gate hold for a wrong network, and is the integer network the float one at all?"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
import yaml
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from srq_hw import cli, parity
from srq_hw.errors import InputError, RunError
from srq_hw.evaluate.demo import demo_calibration_images, demo_images
from srq_hw.evaluate.images import read_rgb
from srq_hw.evaluate.resize import downscale
from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import lower
from srq_hw.exchange.qonnx_export import export_qonnx
from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.graph.check import prove_accumulators
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.networks.loading import FloatNetwork, load_network
from srq_hw.networks.registry import DEFAULT_NETWORK, NETWORKS
from srq_hw.normalform.normal import evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.oracles.qonnx import qonnx_oracle
from srq_hw.pipeline.steps import _parity
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.freeze import Frozen, freeze, quant_net, run_frozen
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.recipe import load_recipe
from srq_hw.simulate import reference
from srq_hw.simulate.fast import compile_graph
from srq_hw.target import Target, load_target
from tests.quantize.nets import COMPARED, HEIGHT, NETS, WIDTH, Forward, conv, image, network, pow2_target, target
from tests.quantize.nets import recipe as small_recipe
from tests.quantize.test_freeze import frozen_net

Array = np.ndarray

# --- gates that must not hold -------------------------------------------------------------------------------------


def session_of(module: nn.Module, aim: Target) -> SimpleNamespace:
    """What the parity step asks a session for, made from a tiny network."""
    plan = make_plan(normalize(network(module)), aim, 8, 8)
    calibration = calibrate(plan, aim, small_recipe(), [image(1)])
    frozen = freeze(plan, calibration, aim)
    return SimpleNamespace(
        plan=plan,
        calibration=calibration,
        quant_net=lambda: quant_net(plan, calibration, aim),
        target=aim,
        frozen=frozen,
        graph=to_intgraph(frozen),
        parity_image=image(3),
        pairs=[SimpleNamespace(name="noise")],
        network_sha256="",
        pairs_sha256="",
    )


def run_parity(session: Any, folder: Path) -> dict[str, Any]:
    _parity(session).run(folder)
    found: dict[str, Any] = json.loads((folder / ".srq/results/parity.json").read_text())
    return found


def test_parity_covers_every_requant_and_the_image_that_leaves(tmp_path: Path) -> None:
    session = session_of(NETS["residual"](), target())
    found = run_parity(session, tmp_path)
    requants = {node.output for node in session.graph.nodes if node.op == "Requant"}
    assert found["equal"] and session.graph.output not in requants
    assert found["tensors"] == len(requants | {"image_quant", session.graph.output})


def test_a_last_shuffle_in_the_wrong_order_on_every_integer_side_fails_parity(tmp_path: Path) -> None:
    """Exporter, lowering and simulators could agree on DCR; only torch's own pixel_shuffle knows better."""
    session = session_of(NETS["residual"](), target())
    nodes = tuple(
        replace(node, attrs={**node.attrs, "mode": "DCR"}) if node.op == "DepthToSpace" else node
        for node in session.graph.nodes
    )
    session.graph = replace(session.graph, nodes=nodes)
    found = run_parity(session, tmp_path)
    assert not found["equal"] and found["first_mismatch"]["tensor"] == session.graph.output


def test_parity_refuses_a_graph_it_knows_only_in_part(tmp_path: Path) -> None:
    """Tensors under other names would drop out of the comparison, and the rest would be equal."""
    session = session_of(NETS["residual"](), target())
    graph = session.graph
    old = next(node.output for node in graph.nodes if node.op == "Requant" and node.output != graph.output)
    tensors = {("x" if k == old else k): replace(t, name="x" if k == old else k) for k, t in graph.tensors.items()}
    nodes = tuple(
        replace(
            node,
            inputs=tuple("x" if name == old else name for name in node.inputs),
            output="x" if node.output == old else node.output,
        )
        for node in graph.nodes
    )
    session.graph = replace(graph, nodes=nodes, tensors=tensors)
    with pytest.raises(RunError, match="makes no x to compare"):
        run_parity(session, tmp_path)


def test_parity_does_not_round_for_a_quantizer_that_does_nothing() -> None:
    frozen, model = frozen_net(NETS["residual"](), target())
    run_frozen(model, frozen, image(3))
    model.quants[list(model.quants)[-1]] = nn.Identity()
    with pytest.raises(RunError, match="is not quantized; its values are off the grid"):
        run_frozen(model, frozen, image(3))


def test_a_file_without_a_convolution_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """It has no accumulator, so "accumulators proven" would hold for nothing."""
    constants, nodes = [], []
    for source, name, step in (("image", "first", 1.0), ("first", "second", 2.0), ("second", "out", 1.0)):
        names = [f"{name}_{part}" for part in ("scale", "zero", "bits")]
        for key, value in zip(names, (step, 0.0, 8.0), strict=True):
            constants.append(onnx.numpy_helper.from_array(np.float32(value), key))
        settings = {"signed": 0, "narrow": 0, "rounding_mode": "ROUND"}
        nodes.append(
            onnx.helper.make_node(
                "Quant", [source, *names], [name], name=name, domain="qonnx.custom_op.general", **settings
            )
        )
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 16, 16]) for name in ("image", "out")
    ]
    graph = onnx.helper.make_graph(nodes, "none", ends[:1], ends[1:], constants)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "none.onnx")
    assert cli.run(["build", str(tmp_path / "none.onnx"), "--out", str(tmp_path / "out")]) == 2
    assert "no convolution; a build needs" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_forward_hook_is_no_silent_loss() -> None:
    """torch.fx keeps hooks on its modules, the layers' weights do not: the integer network would lack the factor."""
    module = Forward(lambda m, x: m.b(torch.relu(m.a(x))), a=conv(3, 4), b=conv(4, 3))
    found = network(module)
    normalize(found)
    module.a.register_forward_hook(lambda part, ins, out: out * 1.5)  # type: ignore[operator, union-attr]
    with pytest.raises(InputError, match="compute something else than the module; a forward hook"):
        normalize(found)


def test_a_bias_that_does_not_fit_is_refused_not_cut() -> None:
    session = session_of(NETS["residual"](), target())
    steps = {name: values * 2.0**-24 for name, values in session.calibration.weights.items()}
    with pytest.raises(InputError, match=r"layer \w+: a bias of \d+ accumulator steps; target zcu104 holds 2147483647"):
        freeze(session.plan, replace(session.calibration, weights=steps), target())


# --- the integer network is the float network -----------------------------------------------------------------------


#: the networks at x2 that are small enough for noise or published weights in a quick test
LIGHT = ("srq_edsr4_24_x2", "edsr_mlperf_f32b5_x2", "edsr8_64_x2")


def registry_network(name: str, data: Path | None) -> FloatNetwork:
    """Embedded or given weights; without either, seeded noise of EDSR's usual size and means of natural images."""
    info = NETWORKS[name]
    if info.embedded or data is not None:
        return load_network(name, None if info.embedded or data is None else data / f"{name}.pth")
    torch.manual_seed(4)
    module = info.factory()
    with torch.no_grad():
        for key, buffer in module.named_buffers():
            values = torch.tensor([0.4488, 0.4371, 0.404]).reshape(1, 3, 1, 1)
            buffer.copy_(values if key == "mean_out" else -values)
    return FloatNetwork(name, module.eval(), info.scale, info.input_max, "noise", None)


@pytest.mark.parametrize("name", LIGHT)
def test_normal_form_is_the_registry_network(name: str) -> None:
    found = registry_network(name, None)
    pixels = downscale(demo_images()[0].rgb, 2)[40:88, 40:88]
    x = torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]
    net = normalize(found)
    with torch.inference_mode():
        left = evaluate(net, x, dtype=torch.float64)
        right = found.module.double()(x * (found.input_max / 255)) * (255 / found.input_max)
    # a recentred image pads by up to half a grey level off: look where no border reaches
    border = 0 if net.layers[0].offset is None else 2 * 21
    inside = slice(border, 96 - border)
    assert right.shape[-1] == 96 and float(right.std()) > 1
    assert float((left - right)[..., inside, inside].abs().max()) < 1e-9 * float(right.abs().max() + 255)


def psnr_to_float(name: str, data: Path | None, aim: Target) -> float:
    """dB between the float network's output and the 8-bit integer one's, over all three colours of one picture."""
    found = registry_network(name, data)
    plan = make_plan(normalize(found), aim, 8, 8)
    images = [downscale(item.rgb, 2) for item in demo_calibration_images()]
    frozen = freeze(plan, calibrate(plan, aim, load_recipe("percentile"), images), aim)
    picture = demo_images()[0].rgb if data is None else read_rgb(data.parent / "Set5" / "butterfly.png")
    lr = downscale(picture, 2)[:96, :112]
    x = torch.from_numpy(lr.astype(np.float32)).permute(2, 0, 1)[None] * (found.input_max / 255)
    with torch.inference_mode():
        wanted = (found.module(x) * (255 / found.input_max))[0].permute(1, 2, 0).numpy()
    integer = compile_graph(to_intgraph(frozen)).run(lr)[0]
    error = np.square(integer.astype(np.float64) - np.clip(np.rint(wanted), 0, 255)).mean()
    return float(10 * np.log10(255**2 / error))


def test_eight_bits_are_near_the_float_output_of_the_embedded_network() -> None:
    assert psnr_to_float(DEFAULT_NETWORK, None, load_target("zcu104")) > 40


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in LIGHT if not NETWORKS[name].embedded])
def test_eight_bits_are_near_the_float_output_of_published_weights(name: str, shared_data: Path) -> None:
    assert psnr_to_float(name, shared_data / "weights", load_target("zcu104")) > 40


# --- targets that only shift, with everything but a PReLU ---------------------------------------------------------


def dense() -> nn.Module:
    """Mean shift, concats (of sums, of the two signs), a nearest resize, shuffles, a sum as output."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        h = m.head(x - torch.tensor([114.0, 111.0, 103.0]).reshape(1, 3, 1, 1))
        y = torch.relu(m.c1(h))
        z = torch.relu(m.c2(torch.cat([h, y], 1)) + h)
        u = F.interpolate(torch.cat([y, z, h], 1), scale_factor=2, mode="nearest")
        s = F.pixel_shuffle(m.up(u), 2)
        return (m.last(s) + 110.0) + m.skip(s)

    parts = {"c1": conv(4, 3), "c2": conv(7, 4), "up": conv(11, 8, 1), "last": conv(2, 3), "skip": conv(2, 3, 1)}
    return Forward(forward, head=conv(3, 4), **parts)


def with_image() -> nn.Module:
    """The image itself in a concat, which ties a whole group of scales to one grey level."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([x, torch.relu(m.a(x))], 1)
        return F.pixel_shuffle(m.b(y), 2) + F.interpolate(x, scale_factor=2, mode="nearest")

    return Forward(forward, a=conv(3, 4), b=conv(7, 12))


SHIFTED = {"dense": dense, "with image": with_image}


def chain(module: nn.Module, aim: Target, bits: int, weights: int) -> tuple[IntGraph, Any]:
    """The whole equality chain of a module; the qonnx oracle's findings come back."""
    frozen, model = frozen_net(module, aim, bits, weights)
    graph = to_intgraph(frozen)
    file = export_qonnx(frozen, aim, (HEIGHT, WIDTH))
    assert lower(file, aim).content_sha256 == graph.content_sha256
    left, right = run_frozen(model, frozen, image(5)), reference.trace(graph, image(5))
    found = parity.compare(left, right)
    assert found.equal, found.first
    assert {n.output for n in graph.nodes if n.op == "Requant"} | {graph.output} <= left.keys()
    fast = compile_graph(graph).trace(image(5))
    assert parity.compare({**fast, graph.output: compile_graph(graph).run(image(5))}, right).equal
    oracle = qonnx_oracle(file, graph, image(5))
    assert oracle.mismatches == 0, oracle
    assert oracle.tensors == sum(node.op in COMPARED for node in graph.nodes)
    return graph, oracle


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("rounding", sorted(ROUNDINGS))
@pytest.mark.parametrize("name", SHIFTED)
def test_shift_only_targets_run_concat_resize_and_mean_shift(name: str, rounding: str, granularity: str) -> None:
    rule = pow2_target(rounding).integer.model_dump()["requant"]
    aim = target(requant=rule, **{"weights.granularity": granularity})
    for bits, weights in ((8, 8), (4, 2), (3, 5)):
        if name == "with image" and bits != 8:
            continue  # a concat has one type, and the image has 8 bits
        graph, oracle = chain(SHIFTED[name](), aim, bits, weights)
        assert all((node.params["multiplier"] == 1).all() for node in graph.nodes if node.op == "Requant")
        assert {"Concat", "ResizeNearest", "DepthToSpace"} <= {node.op for node in graph.nodes}
        assert oracle.ties == 0, "powers of two are exact in float32"


@pytest.mark.parametrize("rounding", sorted(ROUNDINGS))
def test_dyadic_targets_with_two_bit_weights_per_tensor(rounding: str) -> None:
    aim = target(**{"requant.rounding": rounding, "weights.granularity": "tensor"})
    for name in SHIFTED:
        chain(SHIFTED[name](), aim, 8, 2)


# --- a second reader of the exported file ---------------------------------------------------------------------------


@cache
def embedded() -> tuple[Frozen, Calibration, Target]:
    """The embedded network at 8 bits for zcu104."""
    aim = load_target("zcu104")
    plan = make_plan(normalize(load_network(DEFAULT_NETWORK)), aim, 8, 8)
    images = [downscale(item.rgb, 2) for item in demo_calibration_images()]
    calibration = calibrate(plan, aim, small_recipe(), images[:2])
    return freeze(plan, calibration, aim), calibration, aim


def onnx_conv(node: onnx.NodeProto, x: Array, weight: Array, bias: Array) -> Array:
    rows, columns = weight.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2)))
    windows = sliding_window_view(padded, (rows, columns), axis=(2, 3))
    return np.tensordot(windows, weight, axes=([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2) + bias.reshape(1, -1, 1, 1)


def depth_to_space(x: Array, block: int) -> Array:
    """CRD, element by element, from the sentence of the ONNX specification."""
    _, channels, height, width = x.shape
    out = np.empty((1, channels // block**2, height * block, width * block))
    for c, y, column in np.ndindex(*out.shape[1:]):
        out[0, c, y, column] = x[0, (c * block + y % block) * block + column % block, y // block, column // block]
    return out


def onnx_quant(node: onnx.NodeProto, x: Array, scale: Array, zero: Array, bits: Array) -> tuple[Array, Array]:
    """Integers by the file's words alone, and how near each value is to a border."""
    settings = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    assert settings["rounding_mode"] == b"ROUND" and not zero.any()
    high = 2 ** (int(bits) - settings["signed"]) - 1
    low = 0 if not settings["signed"] else -high - 1 + settings["narrow"]
    steps = x / scale
    return np.clip(np.rint(steps), low, high), np.abs(np.abs(steps - np.floor(steps)) - 0.5)


def test_a_second_reader_of_the_whole_file_agrees() -> None:
    """Float64, from image to output, no help in between: only within float32's error of a tie may it ask."""
    frozen, _, aim = embedded()
    model = export_qonnx(frozen, aim, (8, 8))
    tile = downscale(demo_images()[0].rgb, 2)[60:68, 70:78]
    wanted = reference.trace(lower(model, aim), tile)
    values: dict[str, Array] = {
        item.name: onnx.numpy_helper.to_array(item).astype(np.float64) for item in model.graph.initializer
    }
    values["image"] = tile.astype(np.float64).transpose(2, 0, 1)[None]
    asked = compared = 0
    for node in model.graph.node:
        ins, name = [values[item] for item in node.input], node.output[0]
        if node.op_type == "Conv":
            values[name] = onnx_conv(node, *ins)
        elif node.op_type == "Relu":
            values[name] = np.where(ins[0] > 0, ins[0], 0.0)
        elif node.op_type == "Add":
            values[name] = ins[0] + ins[1]
        elif node.op_type == "DepthToSpace":
            values[name] = depth_to_space(ins[0], 2)
        else:
            assert node.op_type == "Quant", node.op_type
            integers, distance = onnx_quant(node, *ins)
            if name in wanted:
                ours = wanted[name].transpose(0, 3, 1, 2)
                doubt = (integers != ours) & (distance < 1e-4) & (np.abs(integers - ours) == 1)
                integers = np.where(doubt, ours, integers)
                asked, compared = asked + int(doubt.sum()), compared + ours.size
                assert np.array_equal(integers, ours), name
            values[name] = integers * ins[1]
    output = np.rint(values[model.graph.output[0].name]).transpose(0, 2, 3, 1)
    assert np.array_equal(output, wanted[model.graph.output[0].name]) and np.ptp(output) > 20
    assert compared > 20_000 and asked <= 2


# --- accumulators ---------------------------------------------------------------------------------------------------


def worst_image(graph: IntGraph, node: Node, channel: int, sign: int) -> Array:
    """The image of one kernel's size whose middle pixel drives a first convolution to its end."""
    weight = node.params["weight"][channel].transpose(1, 2, 0)
    return np.where(sign * weight > 0, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("name", ["residual", "embedded"])
def test_the_proven_ends_of_a_first_convolution_are_reached(name: str) -> None:
    frozen, aim = embedded()[::2] if name == "embedded" else (frozen_net(NETS[name](), target())[0], target())
    graph = to_intgraph(frozen)
    node = next(item for item in graph.nodes if item.op == "Conv")
    assert node.inputs == (graph.input,)
    proof = prove_accumulators(graph, aim)[0]
    for sign, end in ((1, proof.hi), (-1, proof.lo)):
        middles = [
            int(reference.trace(graph, worst_image(graph, node, channel, sign))[node.output][0, 1, 1, channel])
            for channel in range(len(node.params["bias"]))
        ]
        assert max(middles, key=lambda value: sign * value) == end
    assert proof.bits == max(int(proof.hi).bit_length(), int(-proof.lo - 1).bit_length()) + 1


def test_an_accumulator_that_is_one_bit_short_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    graph = to_intgraph(frozen_net(NETS["residual"](), target())[0])
    widest = max(proof.bits for proof in prove_accumulators(graph, target()))
    graph.save(tmp_path / "graph.json")
    for bits, code in ((widest, 0), (widest - 1, 1)):
        data = target(**{"accumulator.bits": bits, "bias.bits": bits}).model_dump(by_alias=True, exclude_none=True)
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(data | {"name": "own"}))
        found = cli.run(["check", str(tmp_path / "graph.json"), "--target", str(tmp_path / "own.yaml"), "--json"])
        assert found == code
        assert ('"holds": false' in capsys.readouterr().out) == bool(code)
