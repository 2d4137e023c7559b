"""Checkpoint files: what is read, and what each wrong file is answered with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from srq_hw.errors import InputError
from srq_hw.networks.checkpoint import exact_fits, load_into, read_state_dict, sha256_of
from srq_hw.networks.edsr import Edsr
from srq_hw.networks.registry import DEFAULT_NETWORK, NETWORKS


def table_of(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return NETWORKS[name].factory().state_dict()


def state_of(name: str = DEFAULT_NETWORK, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    table = table_of(name)
    return {key: torch.randn(value.shape, generator=generator) for key, value in table.items()}


def check_loads(path: Path, expected: dict[str, Tensor]) -> None:
    net = NETWORKS[DEFAULT_NETWORK].factory()
    load_into(net, DEFAULT_NETWORK, path)
    assert all(torch.equal(value, expected[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("nest", [None, "state_dict", "params", "params_ema", "model"])
@pytest.mark.parametrize("suffix", ["pth", "pt"])
def test_torch_files(tmp_path: Path, nest: str | None, suffix: str) -> None:
    state = state_of()
    path = tmp_path / f"a.{suffix}"
    torch.save(state if nest is None else {nest: state, "epoch": 3}, path)
    check_loads(path, state)


def test_safetensors_file(tmp_path: Path) -> None:
    state = state_of()
    save_file(state, tmp_path / "a.safetensors")
    check_loads(tmp_path / "a.safetensors", state)


def test_prefix_of_data_parallel_is_removed(tmp_path: Path) -> None:
    state = state_of()
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "a.pth")
    check_loads(tmp_path / "a.pth", state)


def test_missing_and_unexpected_keys_are_listed_with_their_counts(tmp_path: Path) -> None:
    state = state_of()
    for key in ("head.weight", "head.bias", "tail.weight", "tail.bias", "up.bias"):
        state[f"net.{key}"] = state.pop(key)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError) as caught:
        load_into(NETWORKS[DEFAULT_NETWORK].factory(), DEFAULT_NETWORK, tmp_path / "a.pth")
    message = str(caught.value)
    assert f"not the weights of {DEFAULT_NETWORK}" in message
    assert "5 missing (head.weight, head.bias, tail.weight, tail.bias and 1 more)" in message
    assert "5 unexpected (net.head.weight, " in message
    assert f"nearest known network is {DEFAULT_NETWORK} (17 of 22 tensors fit)" in message


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != DEFAULT_NETWORK])
def test_tensors_of_every_network_name_that_network(name: str) -> None:
    assert exact_fits(table_of(name)) == [name]


def test_weights_of_another_network_name_that_network(tmp_path: Path) -> None:
    torch.save(state_of("edsr_mlperf_f32b5_x2"), tmp_path / "a.pth")
    with pytest.raises(InputError, match="the file fits network edsr_mlperf_f32b5_x2, name that one"):
        load_into(NETWORKS[DEFAULT_NETWORK].factory(), DEFAULT_NETWORK, tmp_path / "a.pth")


def test_wrong_shapes_are_listed(tmp_path: Path) -> None:
    torch.save(Edsr(features=20, blocks=4).state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"21 wrong shapes \(head\.weight \(20, 3, 3, 3\) instead of \(24, 3, 3, 3\)"):
        load_into(NETWORKS[DEFAULT_NETWORK].factory(), DEFAULT_NETWORK, tmp_path / "a.pth")


def test_weights_of_an_unknown_network(tmp_path: Path) -> None:
    torch.save({"conv_first.weight": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"fits none of the known networks .*pkg\.module:factory"):
        load_into(NETWORKS[DEFAULT_NETWORK].factory(), DEFAULT_NETWORK, tmp_path / "a.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state = state_of()
    state["tail.bias"][3] = value
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"tail\.bias holds 1 NaN or Inf of 24 values"):
        read_state_dict(tmp_path / "a.pth")


def test_integers_are_no_float_checkpoint(tmp_path: Path) -> None:
    state = state_of()
    state["up.weight"] = state["up.weight"].to(torch.int8)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"1 tensors are not float \(up\.weight torch\.int8\)"):
        load_into(NETWORKS[DEFAULT_NETWORK].factory(), DEFAULT_NETWORK, tmp_path / "a.pth")


class TwoNames(nn.Module):
    """One parameter under two keys."""

    def __init__(self) -> None:
        super().__init__()
        self.a = self.b = nn.PReLU()


def test_one_parameter_with_two_values(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.tensor([0.3]), "b.weight": torch.tensor([0.2])}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"mine has one parameter where the file has several values \(a\.weight\)"):
        load_into(TwoNames(), "mine", tmp_path / "a.pth")
    torch.save({"a.weight": torch.tensor([0.3]), "b.weight": torch.tensor([0.3])}, tmp_path / "a.pth")
    load_into(TwoNames(), "mine", tmp_path / "a.pth")


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in state_of().items()}
    torch.save(state, tmp_path / "a.pth")
    check_loads(tmp_path / "a.pth", {key: value.float() for key, value in state.items()})


def test_file_absent_or_of_another_suffix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pth: the weights file does not exist"):
        read_state_dict(tmp_path / "none.pth")
    (tmp_path / "a.npz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"suffix \.npz; allowed are \.pth, \.pt and \.safetensors"):
        read_state_dict(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
def test_damaged_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "safetensors":
        save_file(state_of(), path)
    else:
        torch.save(state_of(), path)
    whole = path.read_bytes()
    for content in (b"", b"hello, this is not a checkpoint", whole[: len(whole) // 2], whole[:-100]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"a\.{suffix}: damaged"):
            read_state_dict(path)


class Harmful:
    """Would create a file while it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    torch.save({"head.weight": Harmful(str(tmp_path / "ran"))}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="holds more than tensors"):
        read_state_dict(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds an empty dict; a state dict"),
        (torch.zeros(3), "holds a Tensor; a state dict"),
        ({"epoch": 3}, "entry 'epoch' is a int; a state dict holds tensors only"),
        ({7: torch.zeros(1)}, "entry 7 is a Tensor"),
    ],
)
def test_other_content(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=message):
        read_state_dict(tmp_path / "a.pth")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
