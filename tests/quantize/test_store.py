"""A quantized network on disk comes back to the last bit, or is refused with a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from srq_hw.errors import InputError
from srq_hw.normalform.normal import NormalNet
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.policy import LayerPolicy
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.quantize.recipe import Recipe
from srq_hw.quantize.store import CALIBRATION, FILES, WEIGHTS, load_quantized, save_quantized, stored_plan
from srq_hw.target import Target, load_target
from tests.quantize import nets, test_equalize
from tests.quantize.chain import graph_hash
from tests.quantize.nets import Forward, conv, image, network, recipe

GENERIC = load_target("int-generic")


def normal(build: Callable[[], nn.Module] = nets.residual, seed: int = 0) -> NormalNet:
    return normalize(network(build(), seed=seed))


def learned() -> Recipe:
    """Factors, steps, biases and weights elsewhere than the network's own."""
    data = recipe().model_dump(by_alias=True, exclude_none=True)
    rates = {"activations": 0.05, "weight_steps": 0.05, "biases": 1e-3, "weights": 0.3, "channels": 0.05}
    extra = {
        "policy": {"edges": 8, "sums": 12, "weights": {}},
        "guide": {"channels": 4, "least": 0.0, "work": 10.0},
        "equalize": {"strength": 0.5},
        "reconstruct": {"phases": [{"iterations": 3, "rates": rates}], "batch": 1, "crop": 16, "pool": 2},
        "bias_correction": True,
    }
    return Recipe.model_validate(data | extra)


def made(net: NormalNet, aim: Target = GENERIC, chosen: Recipe | None = None, bits: int = 5) -> Quantized:
    return quantize(net, aim, chosen or recipe(), [image(1, 16, 16), image(2, 16, 16)], bits, bits)


@pytest.mark.parametrize("build", [nets.residual, nets.everything, test_equalize.joined])
def test_round_trip(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    """Everything learned, a policy, ranges: the same integers, the same calibration."""
    net = normal(build)
    quantized = made(net, chosen=learned())
    save_quantized(quantized, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES), "no .part is left"
    again = load_quantized(tmp_path, net, GENERIC)
    before, after = quantized.calibration, again.calibration
    assert after.scales == before.scales and after.ranges == before.ranges
    assert {name: steps.tolist() for name, steps in after.weights.items()} == {
        name: steps.tolist() for name, steps in before.weights.items()
    }
    assert quantized.plan.net.guide is not None and again.plan.net.guide == quantized.plan.net.guide
    assert asdict(again.plan.policy) == asdict(quantized.plan.policy) and again.plan.points == quantized.plan.points
    assert graph_hash(again.plan, after, GENERIC) == graph_hash(quantized.plan, before, GENERIC)
    plan = stored_plan(tmp_path, net, GENERIC)
    assert plan.points == quantized.plan.points and plan.bits == quantized.plan.bits


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    net = normal()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_quantized(made(net, chosen=learned()), tmp_path / name)
    save_quantized(load_quantized(tmp_path / "a", net, GENERIC), tmp_path / "b")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_module_that_is_called_twice(tmp_path: Path) -> None:
    """Two layers with the same weights: safetensors refuses tensors that share memory."""

    def build() -> nn.Module:
        return Forward(
            lambda m, x: m.o(torch.relu(m.a(torch.relu(m.a(torch.relu(m.h(x))))))),
            h=conv(3, 4), a=conv(4, 4), o=conv(4, 3),
        )  # fmt: skip

    net = normal(build)
    quantized = made(net)
    save_quantized(quantized, tmp_path)
    again = load_quantized(tmp_path, net, GENERIC)
    assert graph_hash(again.plan, again.calibration, GENERIC) == graph_hash(
        quantized.plan, quantized.calibration, GENERIC
    )


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    save_quantized(made(normal()), tmp_path)
    return tmp_path


def narrower() -> nn.Module:
    return Forward(lambda m, x: m.b(torch.relu(m.a(x))), a=conv(3, 4), b=conv(4, 3))


def other_kernel() -> nn.Module:
    module = nets.residual()
    module.tail = conv(4, 4, 3)
    return module


@pytest.mark.parametrize(("build", "layer"), [(narrower, "a"), (other_kernel, "tail"), (nets.sums, "a")])
def test_another_network(build: Callable[[], nn.Module], layer: str, stored: Path) -> None:
    with pytest.raises(InputError, match=rf"made for another network than tiny: its layer {layer} has no weights"):
        load_quantized(stored, normal(build), GENERIC)


def test_another_network_than_the_guided_one(tmp_path: Path) -> None:
    save_quantized(made(normal(), chosen=learned()), tmp_path)
    with pytest.raises(InputError, match="made for another network than tiny, which has no convolution "):
        load_quantized(tmp_path, normal(nets.sums), GENERIC)
    with pytest.raises(InputError, match="its layer tail has no weights"):
        load_quantized(tmp_path, normal(other_kernel), GENERIC)


def test_the_same_network_with_other_weights_is_what_was_stored(stored: Path) -> None:
    """The file has the weights: a network of the same shape but another seed comes out as the stored one."""
    again, other = (load_quantized(stored, normal(seed=seed), GENERIC) for seed in (0, 7))
    assert graph_hash(again.plan, again.calibration, GENERIC) == graph_hash(other.plan, other.calibration, GENERIC)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"{", b"\x00\xff\xfe" * 40], ids=["missing", "empty", "cut", "noise"])
def test_missing_and_damaged_files(name: str, content: bytes | None, stored: Path) -> None:
    if content is None:
        (stored / name).unlink()
    else:
        (stored / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load_quantized(stored, normal(), GENERIC)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", FILES)
def test_files_cut_short(name: str, part: float, stored: Path) -> None:
    whole = (stored / name).read_bytes()
    (stored / name).write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(InputError, match=name):
        load_quantized(stored, normal(), GENERIC)


NAN, INF = float("nan"), float("inf")
DAMAGE: dict[str, tuple[Callable[[dict], object], str]] = {
    "a list": (lambda data: [data], "calibration.json"),
    "a number": (lambda data: 3, "calibration.json"),
    "null": (lambda data: None, "calibration.json"),
    "no scales": (lambda data: {k: v for k, v in data.items() if k != "scales"}, "scales"),
    "no policy": (lambda data: {k: v for k, v in data.items() if k != "policy"}, "policy"),
    "scales a list": (lambda data: data | {"scales": [1.0]}, "scales"),
    "a scale is missing": (lambda data: data | {"scales": {"image_quant": 1.0}}, "no scale for add_1_quant"),
    "a scale is NaN": (lambda data: data | {"scales": data["scales"] | {"relu_quant": NAN}}, "relu_quant"),
    "a scale is Inf": (lambda data: data | {"scales": data["scales"] | {"relu_quant": INF}}, "relu_quant"),
    "a scale is 0": (lambda data: data | {"scales": data["scales"] | {"relu_quant": 0.0}}, "relu_quant"),
    "a scale below 0": (lambda data: data | {"scales": data["scales"] | {"relu_quant": -1.0}}, "relu_quant"),
    "a scale is a word": (lambda data: data | {"scales": data["scales"] | {"relu_quant": "1"}}, "relu_quant"),
    "a weight step is NaN": (lambda data: data | {"weights": data["weights"] | {"c1": [NAN] * 4}}, "c1"),
    "a weight step is 0": (lambda data: data | {"weights": data["weights"] | {"c1": [0.0] * 4}}, "c1"),
    "too few weight steps": (lambda data: data | {"weights": data["weights"] | {"c1": [1.0] * 3}}, "layer c1"),
    "a layer without steps": (
        lambda data: data | {"weights": {k: v for k, v in data["weights"].items() if k != "c2"}},
        "layer c2",
    ),
    "bits are a word": (lambda data: data | {"weight_bits": "5"}, "weight_bits"),
    "bits are a fraction": (lambda data: data | {"act_bits": 4.5}, "act_bits"),
    "too many bits": (lambda data: data | {"weight_bits": 9}, "allows 2 to 8"),
    "a policy of more": (lambda data: data | {"policy": data["policy"] | {"rows": 3}}, "policy.rows"),
    "a policy of words": (lambda data: data | {"policy": data["policy"] | {"sums": "16"}}, "policy.sums"),
    "a layer that is not there": (
        lambda data: data | {"policy": data["policy"] | {"weights": {"c9": 4}}},
        "no convolution 'c9'",
    ),
    "a range of less": (lambda data: data | {"ranges": {"relu_quant": {"lower": 0.0}}}, "ranges.relu_quant"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_says_nonsense(damage: str, stored: Path) -> None:
    change, complaint = DAMAGE[damage]
    data = json.loads((stored / CALIBRATION).read_text())
    (stored / CALIBRATION).write_text(json.dumps(change(data)))
    with pytest.raises(InputError, match=complaint):
        load_quantized(stored, normal(), GENERIC)


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("key", ["c1.weight", "up.bias"])
def test_weights_that_are_no_numbers(key: str, value: float, stored: Path) -> None:
    tensors = load_file(stored / WEIGHTS)
    tensors[key].view(-1)[1] = value
    save_file(tensors, stored / WEIGHTS)
    with pytest.raises(InputError, match=rf"weights.safetensors: NaN or Inf in layer {key.split('.')[0]}"):
        load_quantized(stored, normal(), GENERIC)


@pytest.mark.parametrize("key", ["c1.bias", "c1.weight"])
def test_tensors_of_another_shape_or_none(key: str, stored: Path) -> None:
    whole = load_file(stored / WEIGHTS)
    for tensors in ({k: v for k, v in whole.items() if k != key}, whole | {key: torch.zeros(5)}):
        save_file(tensors, stored / WEIGHTS)
        with pytest.raises(InputError, match="its layer c1 has no weights of shape"):
            load_quantized(stored, normal(), GENERIC)


def test_another_target(tmp_path: Path) -> None:
    """Sums of 16 bits on a target that has 8, and real scales on one that only shifts."""
    net = normal()
    data = recipe().model_dump(by_alias=True, exclude_none=True) | {"policy": {"sums": 16}}
    save_quantized(made(net, chosen=Recipe.model_validate(data)), tmp_path)
    with pytest.raises(InputError, match=r"16 bits for the sums .*zcu104 allows 2 to 8"):
        load_quantized(tmp_path, net, load_target("zcu104"))
    save_quantized(made(net, bits=8), tmp_path)
    with pytest.raises(InputError, match=r"calibration\.json: its scales are no powers of two, and target dpu-pow2"):
        load_quantized(tmp_path, net, load_target("dpu-pow2"))


def test_a_shift_only_target_comes_back(tmp_path: Path) -> None:
    net, aim = normal(), load_target("dpu-pow2")
    quantized = made(net, aim, bits=8)
    save_quantized(quantized, tmp_path)
    again = load_quantized(tmp_path, net, aim)
    assert graph_hash(again.plan, again.calibration, aim) == graph_hash(quantized.plan, quantized.calibration, aim)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the folder of a quantized network"):
        load_quantized(tmp_path / "none", normal(), GENERIC)


def test_the_policy_is_stored_whole(tmp_path: Path) -> None:
    net = normal()
    policy = LayerPolicy(edges=7, sums=11, weights={"c1": 2}, activations={"tail": 3})
    plan = make_plan(net, GENERIC, 4, 6, policy)
    save_quantized(Quantized(plan, calibrate(plan, GENERIC, recipe(), [image(1)])), tmp_path)
    again = stored_plan(tmp_path, net, GENERIC)
    assert again.policy == policy and again.bits == plan.bits and (again.weight_bits, again.act_bits) == (4, 6)
