"""Our own QONNX files: export, save, load, lower gives the very program that was frozen, for every rule."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from srq_hw.errors import InputError
from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import image_size, load_qonnx, lower
from srq_hw.exchange.qonnx_export import META_PREFIX, export_qonnx, save_model
from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.oracles.qonnx import qonnx_oracle
from srq_hw.target import Target
from tests.quantize.nets import COMPARED, HEIGHT, NETS, WIDTH, image, pow2_target, target
from tests.quantize.test_freeze import frozen_net

SIZE = (HEIGHT, WIDTH)


def exported(name: str, aim: Target, bits: int = 8, weights: int | None = None):
    frozen, _ = frozen_net(NETS[name](), aim, bits, weights)
    return frozen, export_qonnx(frozen, aim, SIZE)


GRID = [
    (name, rounding, granularity, bits)
    for name in NETS
    for rounding in sorted(ROUNDINGS)
    for granularity, bits in (("channel", 8), ("tensor", 4))
]


@pytest.mark.parametrize(("name", "rounding", "granularity", "bits"), GRID)
def test_same_hash_and_qonnx_agrees(name: str, rounding: str, granularity: str, bits: int, tmp_path) -> None:
    aim = target(**{"requant.rounding": rounding, "weights.granularity": granularity})
    frozen, model = exported(name, aim, bits)
    save_model(model, tmp_path / "m.qonnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.qonnx"]
    again = load_qonnx(tmp_path / "m.qonnx")
    graph = lower(again, aim)
    assert graph.content_sha256 == to_intgraph(frozen).content_sha256
    assert image_size(again) == SIZE
    found = qonnx_oracle(again, graph, image(4))
    assert found.mismatches == 0, found
    assert found.tensors == sum(node.op in COMPARED for node in graph.nodes)
    assert found.elements > 0 and found.ties <= found.elements // 50


@pytest.mark.parametrize("multiplier_bits", [2, 3, 8, 12, 20])
@pytest.mark.parametrize("name", NETS)
def test_every_multiplier_width_survives_float32(name: str, multiplier_bits: int) -> None:
    aim = target(**{"requant.multiplier_bits": multiplier_bits})
    for bits in (3, 8):
        frozen, model = exported(name, aim, bits)
        assert lower(model, aim).content_sha256 == to_intgraph(frozen).content_sha256


@pytest.mark.parametrize("rounding", sorted(ROUNDINGS))
@pytest.mark.parametrize("name", ["residual", "sums"])
def test_pow2(name: str, rounding: str) -> None:
    """Ties everywhere, and power-of-two scales that float32 holds exactly: qonnx has no excuse, not one tie."""
    aim = pow2_target(rounding)
    frozen, model = exported(name, aim, 8)
    graph = lower(model, aim)
    assert graph.content_sha256 == to_intgraph(frozen).content_sha256
    found = qonnx_oracle(model, graph, image(4))
    assert (found.mismatches, found.ties) == (0, 0)


def test_same_bytes_every_time(tmp_path) -> None:
    for path in ("a.qonnx", "b.qonnx"):
        save_model(exported("everything", target())[1], tmp_path / path)
    assert (tmp_path / "a.qonnx").read_bytes() == (tmp_path / "b.qonnx").read_bytes()


def constant(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(item for item in model.graph.initializer if item.name == name)


def edited(model: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    item = constant(copy, name)
    item.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(item) * np.float32(factor)).astype(np.float32), name))
    return copy


@pytest.mark.parametrize("name", ["head_quant_scale", "head_weight_quant_scale", "head_quant_scale"])
@pytest.mark.parametrize("factor", [1.001, 0.5, 3.0])
def test_an_edited_scale_is_refused(name: str, factor: float) -> None:
    aim = target()
    _, model = exported("residual", aim)
    with pytest.raises(
        InputError, match=r"mine\.qonnx, node \w+: the scales give (multiplier|shift).*metadata says.*Export it again"
    ):
        lower(edited(model, name, factor), aim, "mine.qonnx")


def test_a_file_for_another_multiplier_width_is_refused() -> None:
    _, model = exported("residual", target())
    with pytest.raises(InputError, match="lowered for another target"):
        lower(model, target(**{"requant.multiplier_bits": 5}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "5",
        '{"head_quant": 5}',
        '{"head_quant": {}}',
        '{"head_quant": {"multiplier": ["x"], "shift": [1]}}',
    ],
)
def test_damaged_metadata(text: str) -> None:
    aim = target()
    _, model = exported("residual", aim)
    item = next(item for item in model.metadata_props if item.key == META_PREFIX + "requant")
    assert set(json.loads(item.value)["head_quant"]) == {"multiplier", "shift"}
    item.value = text
    with pytest.raises(InputError, match=r"mine\.qonnx: metadata srq_hw\.requant is damaged"):
        lower(model, aim, "mine.qonnx")


def test_metadata_says_which_target() -> None:
    aim = target()
    _, model = exported("residual", aim)
    assert lower(model, aim).metadata["target"] == aim.name


def test_a_float32_weight_is_the_integer_again() -> None:
    frozen, model = exported("everything", target())
    for name, conv in frozen.convs.items():
        weight = numpy_helper.to_array(constant(model, f"{name}_weight")).astype(np.float64)
        step = numpy_helper.to_array(constant(model, f"{name}_weight_quant_scale")).astype(np.float64)
        assert np.abs(weight / step - conv.weight).max() < 1e-4
